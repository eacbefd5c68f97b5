//! How long to wait before the next attempt. Pure: the random number is an argument.

use crate::Reconnect;
use std::time::Duration;

/// The wait before attempt number `attempt` (from 0) since the last success; none when there should be no such attempt.
///
/// `random` lies between 0 and 1.
pub(crate) fn delay(policy: &Reconnect, attempt: u32, random: f64) -> Option<Duration> {
    if policy.attempts_max.is_some_and(|max| attempt >= max) {
        return None;
    }
    // 2^20 times any sensible first wait is beyond any sensible longest one.
    let plain = policy.delay.saturating_mul(1 << attempt.min(20)).min(policy.delay_max);
    let factor = 1.0 + policy.jitter.clamp(0.0, 1.0) * (random.clamp(0.0, 1.0) * 2.0 - 1.0);
    Some(plain.mul_f64(factor).min(policy.delay_max))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        let policy = Reconnect { jitter: 0.0, ..Reconnect::default() };
        let seconds: Vec<_> = (0..5).map(|i| delay(&policy, i, 0.9).expect("no end").as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 5, 5]);
        assert_eq!(delay(&policy, u32::MAX, 0.0), Some(policy.delay_max));
    }

    #[test]
    fn jitter_moves_a_wait_both_ways_within_bounds() {
        let policy = Reconnect { jitter: 0.5, ..Reconnect::default() };
        assert_eq!(delay(&policy, 0, 0.0), Some(Duration::from_millis(500)));
        assert_eq!(delay(&policy, 0, 1.0), Some(Duration::from_millis(1500)));
        assert_eq!(delay(&policy, 9, 1.0), Some(policy.delay_max));
    }

    #[test]
    fn attempts_end_where_told() {
        let policy = Reconnect { attempts_max: Some(2), ..Reconnect::default() };
        assert!(delay(&policy, 1, 0.5).is_some());
        assert_eq!(delay(&policy, 2, 0.5), None);
        let never = Reconnect { attempts_max: Some(0), ..policy };
        assert_eq!(delay(&never, 0, 0.5), None);
    }
}
