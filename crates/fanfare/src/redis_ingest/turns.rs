//! Owns whose turn it is among servers that hear the same channel: one holds a key that expires, the others wait for it.
//! Does not know channels' messages. Invariant: nobody believes to hold it for longer than it can be held.

use std::time::{Duration, Instant};

use queues::random;
use redis::aio::MultiplexedConnection;

use super::stream::said;

/// How long the turn outlives whoever had it and was killed. Lower: a slow Redis makes it change hands. Higher: more is
/// lost after a kill.
const LEASE: Duration = Duration::from_secs(6);

/// Takes the key, or keeps it, if it is nobody else's. Answers whether it is ours.
const TAKE: &str = "local holder = redis.call('GET', KEYS[1]) \
    if holder and holder ~= ARGV[1] then return 0 end \
    redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) return 1";

/// Gives it back if it is ours.
const GIVE: &str =
    "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0";

/// Our place among those who wait.
pub(super) struct Turns {
    key: String,
    name: String,
    /// Until when it is ours.
    until: Option<Instant>,
}

impl Turns {
    /// How often [`Turns::take`] is to be called.
    pub(super) const RENEW: Duration = Duration::from_secs(2);

    pub(super) fn new(channel: &str) -> Self {
        Self { key: Self::key(channel), name: format!("{:016x}{:016x}", random(), random()), until: None }
    }

    /// The key that is held.
    pub(super) fn key(channel: &str) -> String {
        format!("fanfare:ingest:turn:{channel}")
    }

    /// Whether it is ours now.
    pub(super) fn is_ours(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() < until)
    }

    /// Takes it, or keeps it.
    ///
    /// # Errors
    /// The connection does not serve any more.
    pub(super) async fn take(&mut self, connection: &mut MultiplexedConnection) -> Result<(), String> {
        let asked_at = Instant::now();
        let mut take = redis::cmd("EVAL");
        take.arg(TAKE).arg(1).arg(&self.key).arg(&self.name).arg(LEASE.as_millis() as u64);
        let is_ours: bool = take.query_async(connection).await.map_err(said)?;
        // Counted from the question: Redis counts from the moment of the answer, which is later.
        self.until = is_ours.then(|| asked_at + LEASE);
        Ok(())
    }

    /// Gives it back, so that the next need not wait.
    pub(super) async fn give(&mut self, connection: &mut MultiplexedConnection) {
        self.until = None;
        let mut give = redis::cmd("EVAL");
        give.arg(GIVE).arg(1).arg(&self.key).arg(&self.name);
        // If that fails it expires.
        let _ = give.query_async::<redis::Value>(connection).await;
    }
}
