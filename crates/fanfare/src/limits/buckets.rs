//! Owns token buckets: one, and a table of them by name. Does not know what is taken from them.

use std::hash::Hash;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::state::InMemoryState;
use governor::state::direct::NotKeyed;
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};

/// One bucket.
pub(super) struct Bucket(RateLimiter<NotKeyed, InMemoryState, DefaultClock>);

impl Bucket {
    /// A full one.
    pub(super) fn new(quota: Quota) -> Self {
        Self(RateLimiter::direct(quota))
    }

    /// Takes one.
    ///
    /// # Errors
    /// How long until there is one.
    pub(super) fn take(&self) -> Result<(), Duration> {
        self.0.check().map_err(|until| until.wait_time_from(DefaultClock::default().now()))
    }
}

/// A bucket for each name, as long as it is not full.
pub(super) struct Buckets<K: Clone + Eq + Hash> {
    limiter: RateLimiter<K, HashMapStateStore<K>, DefaultClock>,
    capacity: NonZeroU32,
    names_max: usize,
    /// Whose bucket those have who come while the table is full.
    crowd: K,
}

impl<K: Clone + Eq + Hash> Buckets<K> {
    /// Buckets of this size for at most `names_max` at a time.
    pub(super) fn new(quota: Quota, names_max: usize, crowd: K) -> Self {
        let capacity = quota.burst_size();
        Self { limiter: RateLimiter::hashmap(quota), capacity, names_max, crowd }
    }

    /// What a full one holds.
    pub(super) fn capacity(&self) -> NonZeroU32 {
        self.capacity
    }

    /// Takes so many.
    ///
    /// # Errors
    /// How long until there are as many; for more than there can be, as long as it takes to fill a bucket.
    pub(super) fn take(&self, name: &K, count: NonZeroU32) -> Result<(), Duration> {
        if self.limiter.len() >= self.names_max {
            self.sweep();
        }
        let name = if self.limiter.len() >= self.names_max { &self.crowd } else { name };
        match self.limiter.check_key_n(name, count) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(until)) => Err(until.wait_time_from(DefaultClock::default().now())),
            Err(_) => Err(Duration::from_secs(1)),
        }
    }

    /// Forgets the full ones.
    pub(super) fn sweep(&self) {
        self.limiter.retain_recent();
        self.limiter.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_table_sends_newcomers_to_one_bucket() {
        let quota = Quota::with_period(Duration::from_secs(60)).unwrap().allow_burst(NonZeroU32::MIN);
        let buckets = Buckets::new(quota, 3, u64::MAX);
        for name in 0..3 {
            buckets.take(&name, NonZeroU32::MIN).unwrap();
        }
        buckets.take(&7, NonZeroU32::MIN).unwrap();
        let wait = buckets.take(&8, NonZeroU32::MIN).unwrap_err();
        assert!(wait > Duration::from_secs(50), "{wait:?}");
        assert_eq!(buckets.limiter.len(), 4);
    }

    #[test]
    fn full_buckets_are_forgotten() {
        let rate = NonZeroU32::new(1_000_000).unwrap();
        let buckets = Buckets::new(Quota::per_second(rate), 3, u64::MAX);
        for name in 0..100 {
            buckets.take(&name, NonZeroU32::MIN).unwrap();
            assert!(buckets.limiter.len() <= 4);
        }
        let until = std::time::Instant::now() + Duration::from_secs(120);
        while !buckets.limiter.is_empty() {
            assert!(std::time::Instant::now() < until, "a microsecond fills them");
            buckets.sweep();
        }
    }
}
