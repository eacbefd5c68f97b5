//! Owns pauses that grow from one failure to the next. Does not wait.

use std::time::Duration;

/// Pauses: each twice the one before, up to a bound; half of each is chance, so that those who failed together do not
/// come back together.
#[derive(Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Backoff {
    /// The first pause, and the longest.
    #[must_use]
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, failures: 0 }
    }

    /// The next pause. `random` decides on its second half.
    pub fn next(&mut self, random: u64) -> Duration {
        let longest = self.first.saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX));
        let longest = longest.min(self.longest);
        self.failures = self.failures.saturating_add(1);
        // Exact: the upper 53 bits fit a double.
        let share = (random >> 11) as f64 / (1_u64 << 53) as f64;
        longest.mul_f64(0.5 + share / 2.0)
    }

    /// All is well again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

/// A random number; the same one each time if the system has none, which costs the chance only.
#[must_use]
pub fn random() -> u64 {
    getrandom::u64().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_their_bound_and_begin_anew() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(350));
        let pauses: Vec<u128> = (0..40).map(|_| backoff.next(0).as_millis()).collect();
        assert_eq!(pauses[..4], [50, 100, 175, 175]);
        assert_eq!(pauses[39], 175);
        assert!(backoff.next(u64::MAX) <= Duration::from_millis(350));
        backoff.reset();
        assert_eq!(backoff.next(0), Duration::from_millis(50));
    }
}
