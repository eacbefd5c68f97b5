//! Owns how a node gives up a socket whose peer has come back on another one.
//! Does not know the other node. Invariant: a release waits for a socket that is between two shards.

use std::sync::Arc;
use std::time::Duration;

use engine_core::Released;
use tokio::sync::oneshot;

use crate::mail::Mail;
use crate::restore::RecoveryId;
use crate::server::{Inner, Server};
use crate::shard::ShardState;

/// Shards that are asked in a row. Notes lead to the socket in one step, or two while it moves.
const HOPS_MAX: usize = 8;
/// A socket that is between two shards arrives within a few milliseconds, when senders that have begun are done.
const PAUSE: Duration = Duration::from_millis(5);
/// After this time it never will: a letter between shards was lost, in a full mailbox.
const PATIENCE: Duration = Duration::from_secs(5);

impl Server {
    /// Another node takes over the socket with this secret, because its peer has come back there: this one gives it up, on
    /// whatever shard it is.
    ///
    /// A connected one leaves its rooms, and its [`on_disconnect`](crate::Namespace::on_disconnect) handler is called with
    /// [`Reason::TakenOver`](crate::Reason::TakenOver); its peer gets no DISCONNECT packet, its link is closed. A lost one,
    /// whose handler has been called when it was lost, is forgotten and so leaves its rooms. A peer of this node that is
    /// just coming back for it is cut off, whether it waits for a middleware or for the [`Restorer`](crate::Restorer): it
    /// came first, and the newest gets the socket.
    ///
    /// Answers whether the socket was here. Once that is answered, nothing that began here before can bring it back.
    pub fn release(&self, pid: &RecoveryId) -> impl Future<Output = bool> + Send + 'static {
        let (server, pid) = (self.inner.clone(), *pid);
        async move {
            let begun = tokio::time::Instant::now();
            loop {
                match ask(&server, pid).await {
                    Released::Held => return true,
                    Released::Unknown => return false,
                    Released::Moved { .. } | Released::Moving => {}
                }
                if begun.elapsed() >= PATIENCE {
                    tracing::warn!(
                        "a socket that another node takes over could not be found, although it was here"
                    );
                    return false;
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Asks the home of a socket, and then where that says.
async fn ask(server: &Arc<Inner>, RecoveryId(pid): RecoveryId) -> Released {
    let mut shard = server.home_of(pid);
    let mut last = Released::Unknown;
    for _ in 0..HOPS_MAX {
        let Some(port) = server.ports().get(shard) else { break };
        let (to, answer) = oneshot::channel();
        let call = Mail::Call(Box::new(move |shard: &mut ShardState| shard.release(pid, to)));
        if port.send_waiting(call).await.is_err() {
            return Released::Unknown;
        }
        last = answer.await.unwrap_or(Released::Unknown);
        match last {
            Released::Moved { shard: next } => shard = usize::from(next),
            Released::Held | Released::Unknown | Released::Moving => break,
        }
    }
    last
}
