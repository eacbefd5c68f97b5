//! Owns who a socket is for as long as it lives, and the end of it: warned before, disconnected when it comes.
//! Does not judge proofs. Invariant: whatever waits for the end holds the socket's address, never its identity, so that
//! it ends with the socket.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use engine::{Broadcaster, Socket};
use hub::principal::Principal;
use serde_json::json;
use tokio::sync::watch;

use super::{audit, now};
use crate::codes::Fault;
use crate::limits::Seat;
use crate::realtime::{Standings, Turns};

/// Longest sleep before the clock is looked at again: it may be set, and a machine may have slept.
const SLEEP_MAX: Duration = Duration::from_secs(60);

/// Time before something is tried again that found the server busy.
const BUSY_WAIT: Duration = Duration::from_millis(50);

/// Who a socket is. Attached to it as its state; survives recovery, and may be replaced in place.
pub(crate) struct Identity {
    principal: watch::Sender<Arc<Principal>>,
    is_watched: AtomicBool,
    /// The order of its commands, which outlives the principal.
    pub(crate) turns: Turns,
    /// As what it is in rooms.
    pub(crate) standings: Standings,
    /// Its place among its user's sockets.
    seat: OnceLock<Seat>,
}

impl Identity {
    /// The identity of a socket that has proved to be `principal`.
    pub(crate) fn new(principal: Principal) -> Self {
        Self {
            principal: watch::Sender::new(Arc::new(principal)),
            is_watched: AtomicBool::new(false),
            turns: Turns::default(),
            standings: Standings::default(),
            seat: OnceLock::new(),
        }
    }

    /// Gives the socket its place, if it has none.
    ///
    /// # Errors
    /// Whatever `take` refuses with.
    pub(crate) fn sit(&self, take: impl FnOnce() -> Result<Seat, Fault>) -> Result<(), Fault> {
        if self.seat.get().is_none() {
            // If somebody was faster, theirs holds and ours is given back.
            let _ = self.seat.set(take()?);
        }
        Ok(())
    }

    /// Its place; `None` while it is not connected.
    pub(crate) fn seat(&self) -> Option<&Seat> {
        self.seat.get()
    }

    /// Who that is now.
    pub(crate) fn principal(&self) -> Arc<Principal> {
        self.principal.borrow().clone()
    }

    /// Replaces it, timers included.
    pub(crate) fn replace(&self, principal: Principal) {
        self.principal.send_replace(Arc::new(principal));
    }

    /// Warns and disconnects `socket`, whose identity this is, when its time comes. To be called when it has connected
    /// and when its principal was replaced; what never ends costs nothing.
    pub(crate) fn watch_expiry(&self, socket: &Socket, warning: Duration) {
        if self.principal().expires_at.is_some() && !self.is_watched.swap(true, Ordering::Relaxed) {
            let own = socket.within(socket.id());
            let sid = socket.id().to_string();
            tokio::spawn(follow(self.principal.subscribe(), own, sid, warning));
        }
    }
}

/// Ends when the identity is dropped: then nobody can change the principal any more.
async fn follow(
    mut principals: watch::Receiver<Arc<Principal>>,
    own: Broadcaster,
    sid: String,
    warning: Duration,
) {
    let mut warned_of = None;
    loop {
        let principal = principals.borrow_and_update().clone();
        let now = now();
        let wait = match principal.expires_at {
            None => None,
            Some(end) if now >= end => {
                if own.disconnect_sockets(false).is_ok() {
                    audit::expired(&sid, &principal);
                    // A socket that was lost at this moment may come back, with a new token or not at all.
                    None
                } else {
                    Some(BUSY_WAIT)
                }
            }
            Some(end) => {
                let left = end.since(now);
                if left > warning {
                    Some(left - warning)
                } else {
                    if warned_of != Some(end) {
                        let told =
                            json!({ "expires_at": end.to_string(), "expires_in_ms": left.as_millis() });
                        if own.emit("token_expiring", &told).is_ok() {
                            warned_of = Some(end);
                        }
                    }
                    Some(if warned_of == Some(end) { left } else { left.min(BUSY_WAIT) })
                }
            }
        };
        let changed = match wait {
            Some(wait) => tokio::time::timeout(wait.min(SLEEP_MAX), principals.changed()).await,
            None => Ok(principals.changed().await),
        };
        if let Ok(Err(_)) = changed {
            return;
        }
    }
}
