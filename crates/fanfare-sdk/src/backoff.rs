//! Owns how long to wait between attempts, and when to give up. Does not wait, and does not know what is attempted.

use std::time::Duration;

/// Waits that grow.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
    max: Duration,
    attempts: u32,
}

impl Backoff {
    pub(crate) fn new(first: Duration, max: Duration) -> Self {
        Self { next: first.min(max), max, attempts: 0 }
    }

    /// How often [`Backoff::fail`] was called.
    pub(crate) fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Counts a failure, and answers how long to wait: half of what is due and a random part of the other half, so that
    /// publishers do not come back all at once; never less than what the server asks for. `chance` is from 0 to 1.
    pub(crate) fn fail(&mut self, retry_after: Option<Duration>, chance: f64) -> Duration {
        self.attempts += 1;
        let due = self.next;
        self.next = (due * 2).min(self.max);
        let wait = due.mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0);
        retry_after.map_or(wait, |asked| asked.max(wait))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(350));
        let waits: Vec<_> = (0..4).map(|_| backoff.fail(None, 1.0).as_millis()).collect();
        assert_eq!(waits, [100, 200, 350, 350]);
        assert_eq!(backoff.attempts(), 4);
        assert_eq!(backoff.fail(None, 0.0).as_millis(), 175);
    }

    #[test]
    fn the_server_may_ask_for_more_but_not_for_less() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        assert_eq!(backoff.fail(Some(Duration::from_secs(9)), 1.0), Duration::from_secs(9));
        assert_eq!(backoff.fail(Some(Duration::ZERO), 1.0), Duration::from_millis(200));
    }
}
