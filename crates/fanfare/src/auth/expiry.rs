//! Owns when tokens of live sockets end: each socket is warned before, and disconnected when its time comes.
//! Does not judge proofs. Invariant: what waits here holds no identity, so it ends with its socket.
//!
//! One task and one queue for all sockets, ordered by when each wants attention next. What a token's replacement makes
//! pointless stays in the queue until its time, or until half of the queue is such.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use engine::{Server, Sid, Socket};
use hub::time::Timestamp;
use serde_json::json;
use tokio::sync::Notify;

use super::identity::Identity;
use super::{NAMESPACES, audit, now};

/// Longest sleep before the clock is looked at again: it may be set, and a machine may have slept.
const SLEEP_MAX: Duration = Duration::from_secs(60);

/// Time before something is tried again that found the server busy.
const BUSY_WAIT: Duration = Duration::from_millis(50);

/// Waiting entries below which nobody looks for pointless ones.
const SWEEP_MIN: usize = 1_024;

/// A socket that waits for its end.
struct Entry {
    at: Timestamp,
    identity: Weak<Identity>,
    sid: Sid,
    namespace: &'static str,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.at.cmp(&other.at)
    }
}

/// What a socket's identity knows of its own end.
#[derive(Default)]
pub(super) struct Watch {
    /// When its entry in the queue is due, in ms since 1970; 0 if it has none. An entry of another time is pointless.
    due: AtomicU64,
    /// The end that the socket has been warned of.
    warned_of: AtomicU64,
}

#[derive(Default)]
struct Queue {
    entries: BinaryHeap<Reverse<Entry>>,
    /// How many there may be before pointless ones are looked for.
    sweep_at: usize,
}

/// All sockets whose tokens end.
pub(super) struct Expiries {
    queue: Mutex<Queue>,
    /// Something is due earlier than all that was known.
    hurry: Notify,
    warning: Duration,
    server: OnceLock<Server>,
}

impl Expiries {
    /// Starts the task. Sockets are warned `warning` before their end. Needs a tokio runtime.
    pub(super) fn start(warning: Duration) -> Arc<Self> {
        let expiries = Arc::new(Self {
            queue: Mutex::default(),
            hurry: Notify::new(),
            warning,
            server: OnceLock::new(),
        });
        tokio::spawn(expiries.clone().run());
        expiries
    }

    /// Warns and disconnects a socket when its time comes. To be called when it has connected and when its principal was
    /// replaced; what never ends costs nothing.
    pub(super) fn watch(&self, socket: &Socket, identity: &Arc<Identity>) {
        let Some(end) = identity.principal().expires_at else { return };
        let Some(namespace) = NAMESPACES.into_iter().find(|name| *name == socket.namespace()) else { return };
        let _ = self.server.set(socket.server());
        let at = Timestamp(end.0.saturating_sub(self.warning.as_millis() as u64).max(1));
        let identity = Arc::downgrade(identity);
        self.push(Entry { at, identity, sid: socket.id(), namespace });
    }

    fn push(&self, entry: Entry) {
        let Some(identity) = entry.identity.upgrade() else { return };
        identity.watch.due.store(entry.at.0, Ordering::Relaxed);
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.entries.len() >= queue.sweep_at.max(SWEEP_MIN) {
            queue.entries.retain(|Reverse(entry)| entry.identity().is_some());
            queue.sweep_at = queue.entries.len() * 2;
        }
        let is_first = queue.entries.peek().is_none_or(|Reverse(first)| entry.at < first.at);
        queue.entries.push(Reverse(entry));
        drop(queue);
        if is_first {
            self.hurry.notify_one();
        }
    }

    async fn run(self: Arc<Self>) {
        loop {
            let now = now();
            while let Some(entry) = self.take_due(now) {
                if let Some((identity, at)) = entry.identity().and_then(|identity| {
                    let at = self.attend(&entry, &identity, now)?;
                    Some((identity, at))
                }) {
                    self.push(Entry { at, identity: Arc::downgrade(&identity), ..entry });
                }
            }
            let wait = self.first().map_or(SLEEP_MAX, |at| at.since(now).min(SLEEP_MAX));
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.hurry.notified() => {}
            }
        }
    }

    fn first(&self) -> Option<Timestamp> {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.entries.peek().map(|Reverse(entry)| entry.at)
    }

    fn take_due(&self, now: Timestamp) -> Option<Entry> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.entries.peek()?.0.at > now {
            return None;
        }
        queue.entries.pop().map(|Reverse(entry)| entry)
    }

    /// Does what is due; when to look again.
    fn attend(&self, entry: &Entry, identity: &Identity, now: Timestamp) -> Option<Timestamp> {
        let principal = identity.principal();
        let end = principal.expires_at?;
        let own = self.server.get()?.of(entry.namespace).to(entry.sid);
        if end <= now {
            if own.disconnect_sockets(false).is_err() {
                return Some(now.plus(BUSY_WAIT));
            }
            audit::expired(&entry.sid.to_string(), &principal);
            // A socket that was lost at this moment may come back, with a new token or not at all.
            identity.watch.due.store(0, Ordering::Relaxed);
            return None;
        }
        let left = end.since(now);
        if left > self.warning {
            return Some(now.plus(left - self.warning));
        }
        if identity.watch.warned_of.load(Ordering::Relaxed) != end.0 {
            let told = json!({ "expires_at": end.to_string(), "expires_in_ms": left.as_millis() });
            if own.emit("token_expiring", &told).is_err() {
                return Some(now.plus(left.min(BUSY_WAIT)));
            }
            identity.watch.warned_of.store(end.0, Ordering::Relaxed);
        }
        Some(end)
    }
}

impl Entry {
    /// Whose end it is; `None` if it has become pointless.
    fn identity(&self) -> Option<Arc<Identity>> {
        self.identity.upgrade().filter(|identity| identity.watch.due.load(Ordering::Relaxed) == self.at.0)
    }
}

#[cfg(test)]
mod tests {
    use hub::principal::Principal;

    use super::*;

    #[tokio::test]
    async fn what_has_become_pointless_does_not_fill_the_queue() {
        let expiries = Expiries::start(Duration::ZERO);
        let sid = Sid::parse("AAAAAAAAAAAAAAAAAAAA").unwrap();
        let stays = Arc::new(Identity::new(Principal::anonymous()));
        let at = now().plus(Duration::from_secs(3_600));
        for nth in 0..10 * SWEEP_MIN as u64 {
            let passes = Arc::new(Identity::new(Principal::anonymous()));
            for identity in [&stays, &passes] {
                let at = at.plus(Duration::from_millis(nth));
                expiries.push(Entry { at, identity: Arc::downgrade(identity), sid, namespace: "/" });
            }
        }
        let queue = expiries.queue.lock().unwrap();
        assert!(queue.entries.len() <= 2 * SWEEP_MIN, "{}", queue.entries.len());
        let left = queue.entries.iter().filter(|Reverse(entry)| entry.identity().is_some()).count();
        assert_eq!(left, 1, "the newest of the one that stays");
    }
}
