//! Owns what is counted of one queue, and whether it is heard. Does not decide anything by it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

/// Silence after which a queue is deaf: three canaries, and a bit.
pub const DEAF_AFTER: Duration = Duration::from_secs(10);

/// How one queue is doing. Shared between its consumer and whoever shows it.
#[derive(Debug)]
pub struct Health {
    queue: String,
    broker: String,
    /// Messages that came, canaries not counted.
    pub received: AtomicU64,
    /// Of those, kept.
    pub kept: AtomicU64,
    /// Of those, known already.
    pub repeated: AtomicU64,
    /// Of those, read over.
    pub ignored: AtomicU64,
    /// Of those, put among the dead, or rejected where there is no such queue.
    pub dead: AtomicU64,
    /// Messages that came faster than they could be kept, and are lost: only where whoever sends them does not hold them.
    pub dropped: AtomicU64,
    /// Times that a message was tried again.
    pub retried: AtomicU64,
    /// Canaries that were sent.
    pub canaries_sent: AtomicU64,
    /// Canaries that came, whoever had sent them.
    pub canaries_heard: AtomicU64,
    /// Connections that were made.
    pub connections: AtomicU64,
    /// Messages that are taken and not acknowledged.
    pub underway: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    is_connected: bool,
    /// When there was last a reason to believe that the queue is heard.
    heard_at: Instant,
    /// Why it is not connected, or not taking messages.
    complaint: Option<String>,
}

/// What [`Health`] shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The queue, or whatever else brings messages.
    pub queue: String,
    /// The broker, without user and password.
    pub broker: String,
    /// `ok`; `waiting` while what came cannot be kept; `connecting`; `deaf` after 10 s without either.
    pub status: &'static str,
    /// Why, if it is not `ok`.
    pub complaint: Option<String>,
    /// Messages that came.
    pub received: u64,
    /// Of those, kept.
    pub kept: u64,
    /// Of those, known already.
    pub repeated: u64,
    /// Of those, read over.
    pub ignored: u64,
    /// Of those, dead.
    pub dead: u64,
    /// Messages that came faster than they could be kept, and are lost.
    pub dropped: u64,
    /// Times that a message was tried again.
    pub retried: u64,
    /// Messages that are taken and not acknowledged.
    pub underway: u64,
    /// Canaries that were sent.
    pub canaries_sent: u64,
    /// Canaries that came.
    pub canaries_heard: u64,
    /// Connections that were made.
    pub connections: u64,
}

impl Health {
    /// Of a queue, or whatever else brings messages, by its name, at the broker that is shown as `broker`.
    #[must_use]
    pub fn new(queue: &str, broker: &str) -> Self {
        Self {
            queue: queue.to_owned(),
            broker: broker.to_owned(),
            received: AtomicU64::new(0),
            kept: AtomicU64::new(0),
            repeated: AtomicU64::new(0),
            ignored: AtomicU64::new(0),
            dead: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            retried: AtomicU64::new(0),
            canaries_sent: AtomicU64::new(0),
            canaries_heard: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            underway: AtomicU64::new(0),
            state: Mutex::new(State {
                is_connected: false,
                heard_at: Instant::now(),
                complaint: Some("not connected yet".to_owned()),
            }),
        }
    }

    /// What is to be shown.
    #[must_use]
    pub fn report(&self) -> Report {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (status, complaint) = self.status();
        Report {
            queue: self.queue.clone(),
            broker: self.broker.clone(),
            status,
            complaint,
            received: count(&self.received),
            kept: count(&self.kept),
            repeated: count(&self.repeated),
            ignored: count(&self.ignored),
            dead: count(&self.dead),
            dropped: count(&self.dropped),
            retried: count(&self.retried),
            underway: count(&self.underway),
            canaries_sent: count(&self.canaries_sent),
            canaries_heard: count(&self.canaries_heard),
            connections: count(&self.connections),
        }
    }

    /// Why nothing has been heard for 10 s, if so.
    #[must_use]
    pub fn deaf(&self) -> Option<String> {
        let state = self.lock();
        let silence = state.heard_at.elapsed();
        (silence >= DEAF_AFTER).then(|| {
            let why = state.complaint.as_deref().unwrap_or("connected, but no message came through");
            format!("nothing was heard of `{}` for {} s: {why}", self.queue, silence.as_secs())
        })
    }

    fn status(&self) -> (&'static str, Option<String>) {
        if let Some(why) = self.deaf() {
            return ("deaf", Some(why));
        }
        let state = self.lock();
        match (&state.complaint, state.is_connected) {
            (None, true) => ("ok", None),
            (complaint, true) => ("waiting", complaint.clone()),
            (complaint, false) => ("connecting", complaint.clone()),
        }
    }

    /// There is a connection, and messages may come. Answers how many there were before.
    pub fn connected(&self) -> u64 {
        let mut state = self.lock();
        (state.is_connected, state.complaint) = (true, None);
        self.connections.fetch_add(1, Ordering::Relaxed)
    }

    /// There is none any more.
    pub fn lost(&self, why: String) {
        self.underway.store(0, Ordering::Relaxed);
        let mut state = self.lock();
        (state.is_connected, state.complaint) = (false, Some(why));
    }

    /// The queue was heard, or cannot be because we do not listen.
    pub fn heard(&self) {
        self.lock().heard_at = Instant::now();
    }

    /// Messages wait, because of this; `None`: they do not any more.
    pub fn waits(&self, why: Option<String>) {
        self.lock().complaint = why;
    }

    /// How long nothing was heard.
    pub fn silence(&self) -> Duration {
        self.lock().heard_at.elapsed()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_follows_the_connection() {
        let health = Health::new("q", "amqp://h:1/");
        assert_eq!(health.report().status, "connecting");
        assert_eq!((health.connected(), health.connected()), (0, 1));
        health.heard();
        assert_eq!((health.report().status, health.report().complaint), ("ok", None));
        health.waits(Some("the disk is full".into()));
        assert_eq!(health.report().status, "waiting");
        health.waits(None);
        health.lost("refused".into());
        assert_eq!(health.report().complaint.as_deref(), Some("refused"));
        assert_eq!(health.deaf(), None, "it was heard a moment ago");
        let long_ago = Instant::now().checked_sub(DEAF_AFTER).expect("the machine runs for more than 10 s");
        health.lock().heard_at = long_ago;
        let why = health.deaf().expect("it is deaf");
        assert!(why.contains("`q`") && why.ends_with("refused"), "{why}");
        assert_eq!(health.report().status, "deaf");
    }
}
