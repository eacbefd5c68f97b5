//! Owns how long is waited before another attempt. Does not wait.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// After the first failure, and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// After so many failures in a row: each time twice as long, up to a bound. Half of it is chance, so that nodes that lost
/// the same server do not come back together.
pub(crate) fn pause(failures: u32) -> Duration {
    let doubled = PAUSES.0.saturating_mul(1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX));
    // Exact: 53 bits fit a double.
    let share = (random() >> 11) as f64 / (1_u64 << 53) as f64;
    doubled.min(PAUSES.1).mul_f64(0.5 + share / 2.0)
}

/// A random number: what a hasher with a fresh secret makes of nothing.
pub(crate) fn random() -> u64 {
    RandomState::new().hash_one(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_their_bound() {
        for (failures, from, to) in
            [(0, 25, 50), (1, 25, 50), (2, 50, 100), (3, 100, 200), (99, 1_000, 2_000)]
        {
            let pause = pause(failures).as_millis();
            assert!((from..=to).contains(&pause), "{failures}: {pause}");
        }
        assert_ne!(random(), random());
    }
}
