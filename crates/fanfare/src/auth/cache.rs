//! Owns answers for a while: what was asked, what came of it, and until when it holds.
//! Does not know the time. Invariant: never more than its bound.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// Answers that hold for some time.
pub(crate) struct Cache<K, V> {
    entries: HashMap<K, (V, Instant)>,
    entries_max: usize,
    lifetime: Duration,
}

impl<K: Eq + Hash, V: Clone> Cache<K, V> {
    /// Keeps at most `entries_max` answers, each for `lifetime`; none at all if that is nothing.
    pub(crate) fn new(entries_max: usize, lifetime: Duration) -> Self {
        Self { entries: HashMap::new(), entries_max, lifetime }
    }

    /// The answer, if it still holds.
    pub(crate) fn find(&self, key: &K, now: Instant) -> Option<V> {
        let (value, until) = self.entries.get(key)?;
        (now < *until).then(|| value.clone())
    }

    /// Keeps an answer. When full, those go that no longer hold; if that is none, all: they are only asked for again.
    pub(crate) fn put(&mut self, key: K, value: V, now: Instant) {
        if self.lifetime.is_zero() {
            return;
        }
        if self.entries.len() >= self.entries_max {
            self.entries.retain(|_, (_, until)| now < *until);
        }
        if self.entries.len() >= self.entries_max {
            self.entries.clear();
        }
        self.entries.insert(key, (value, now + self.lifetime));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_hold_for_their_time_and_never_exceed_the_bound() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut cache = Cache::new(3, second * 2);
        cache.put("a", 1, start);
        cache.put("b", 2, start + second);
        assert_eq!(cache.find(&"a", start + second), Some(1));
        assert_eq!(cache.find(&"a", start + second * 2), None);
        cache.put("c", 3, start + second);
        cache.put("d", 4, start + second * 2);
        assert_eq!(cache.entries.len(), 3, "`a` went, because it no longer held");
        cache.put("e", 5, start + second * 2);
        assert_eq!(cache.entries.len(), 1, "all held, so all went");
        let mut none = Cache::new(3, Duration::ZERO);
        none.put("a", 1, start);
        assert_eq!(none.find(&"a", start), None);
    }
}
