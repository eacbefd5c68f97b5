//! Owns the order of one socket's commands: those that wait for something are done one after the other, as they came.
//! Does not know what they do. Invariant: at most one is under way.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use tokio::runtime::Handle;

/// Commands of one socket that may wait. 256: more than a page sends at once, and each holds a few KiB at the most.
const WAITING_MAX: usize = 256;

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The commands of one socket. Cheap to clone; empty ones hold no memory beyond themselves.
#[derive(Clone, Default)]
pub(crate) struct Turns(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    waiting: VecDeque<Work>,
    is_working: bool,
}

impl Turns {
    /// Has a command done after all that came before it. `what` it is about is given to `work`, or back if more
    /// commands are waiting than may wait.
    pub(crate) fn push<T, Fut>(&self, runtime: &Handle, what: T, work: impl FnOnce(T) -> Fut) -> Result<(), T>
    where
        Fut: Future<Output = ()> + Send + 'static,
    {
        let Ok(mut state) = self.0.lock() else { return Err(what) };
        if state.waiting.len() >= WAITING_MAX {
            return Err(what);
        }
        state.waiting.push_back(Box::pin(work(what)));
        if !state.is_working {
            state.is_working = true;
            runtime.spawn(self.clone().work());
        }
        Ok(())
    }

    async fn work(self) {
        loop {
            let next = {
                let Ok(mut state) = self.0.lock() else { return };
                match state.waiting.pop_front() {
                    Some(next) => next,
                    None => {
                        state.is_working = false;
                        state.waiting = VecDeque::new();
                        return;
                    }
                }
            };
            next.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn work_is_done_in_order_and_bounded() {
        let turns = Turns::default();
        let (sender, mut done) = tokio::sync::mpsc::unbounded_channel();
        for nth in 0..200_u64 {
            let sender = sender.clone();
            turns
                .push(&Handle::current(), sender, move |sender| async move {
                    tokio::time::sleep(std::time::Duration::from_micros(200 - nth)).await;
                    sender.send(nth).unwrap();
                })
                .unwrap();
        }
        for expected in 0..200 {
            assert_eq!(done.recv().await, Some(expected));
        }
        let blocked = Turns::default();
        for _ in 0..WAITING_MAX {
            // One of them may have begun by now.
            blocked.push(&Handle::current(), (), |()| std::future::pending()).unwrap();
        }
        let refusals =
            (0..2).filter(|_| blocked.push(&Handle::current(), (), |()| async {}).is_err()).count();
        assert!(refusals > 0);
    }
}
