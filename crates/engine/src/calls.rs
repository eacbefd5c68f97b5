//! Owns the calls into the application: handlers run here as far as they get without waiting, and panics end here.
//! Does not know the shard. Invariant: whatever a handler does, the shard's turn goes on.

use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};

use crate::namespace::{Event, Namespace, Task};
use crate::server::Inner;
use crate::socket::Socket;

/// Calls the handlers of one event.
#[inline]
pub(crate) fn dispatch(server: &Inner, socket: &Socket, namespace: &Namespace, event: &Event<'_>) {
    if let Some(on_any) = &namespace.on_any {
        contain(server, || on_any(socket, event));
    }
    let handler = namespace.events.get(event.name).or(namespace.fallback.as_ref());
    if let Some(handler) = handler
        && let Some(Some(task)) = contain(server, || handler(socket, event))
    {
        start(server, task);
    }
}

/// Runs a handler as far as it gets without waiting, here; the rest goes to the control plane.
pub(crate) fn start(server: &Inner, mut task: Task) {
    if contain(server, || poll_once(server, task.as_mut())).is_some_and(|poll| poll.is_pending()) {
        server.control.spawn(task);
    }
}

/// Calls application code. If it panics, that is logged by the panic hook and counted, and costs nobody else
/// anything; `None` then.
#[inline]
pub(crate) fn contain<T>(server: &Inner, call: impl FnOnce() -> T) -> Option<T> {
    // What the call leaves behind is its own: handlers only queue commands, each of which is whole.
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(call)) {
        Ok(value) => Some(value),
        Err(_) => {
            server.panics.fetch_add(1, Ordering::Relaxed);
            None
        }
    }
}

/// Polls a future once, in the context of the control plane: what it opens belongs there. Its waker does nothing,
/// because whoever gets it next polls it again at once.
pub(crate) fn poll_once<T>(server: &Inner, future: Pin<&mut (dyn Future<Output = T> + Send)>) -> Poll<T> {
    let _control = server.control.enter();
    future.poll(&mut Context::from_waker(Waker::noop()))
}
