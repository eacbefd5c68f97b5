//! Owns when sockets lost their connections and came back, of those that had not cut themselves off, and how many did so within
//! one second. Does not know what became of what they missed; the ledger does.

use std::collections::{BTreeMap, BTreeSet};

/// A second, in the unit of the watchers' clocks.
const SECOND_MS: u64 = 1_000;
/// By how much the busiest second may be above a server's rate, in percent: a second that slides over a spread of steps may
/// have a step more than the rate has, and clients wait for a moment of random length before they come back.
const TOLERANCE_PERCENT: u64 = 10;

/// Losses and returns, by the watchers' clocks.
#[derive(Default)]
pub(crate) struct Returns {
    /// Who cut itself off and is not back yet.
    dropped: BTreeSet<u32>,
    lost: Vec<u64>,
    back: Vec<u64>,
    causes: BTreeMap<Box<str>, u64>,
}

impl Returns {
    /// A watcher cuts itself off: neither this loss nor its next return counts.
    pub(crate) fn note_dropped(&mut self, watcher: u32) {
        self.dropped.insert(watcher);
    }

    /// A watcher lost its connection.
    pub(crate) fn note_lost(&mut self, watcher: u32, at: u64, why: Box<str>) {
        if !self.dropped.contains(&watcher) {
            self.lost.push(at);
            *self.causes.entry(why).or_default() += 1;
        }
    }

    /// A watcher is back.
    pub(crate) fn note_back(&mut self, watcher: u32, at: u64) {
        if !self.dropped.remove(&watcher) {
            self.back.push(at);
        }
    }

    /// How many were lost for which reason.
    pub(crate) fn causes(&self) -> &BTreeMap<Box<str>, u64> {
        &self.causes
    }

    /// How many came back.
    pub(crate) fn back(&self) -> usize {
        self.back.len()
    }

    /// The most that were lost within one second, wherever it begins.
    pub(crate) fn lost_per_sec_max(&self) -> u64 {
        busiest_second(&self.lost)
    }

    /// The most that came back within one second, wherever it begins.
    pub(crate) fn back_per_sec_max(&self) -> u64 {
        busiest_second(&self.back)
    }

    /// Whether never more came back in a second than a server lets go in one, but for the tolerance.
    pub(crate) fn keeps(&self, rate: u32) -> bool {
        self.back_per_sec_max() * 100 <= u64::from(rate) * (100 + TOLERANCE_PERCENT)
    }
}

/// The most of these moments that lie within one second.
fn busiest_second(moments: &[u64]) -> u64 {
    let mut moments = moments.to_vec();
    moments.sort_unstable();
    let mut first = 0;
    let mut most = 0;
    for (nth, moment) in moments.iter().enumerate() {
        while moments[first] + SECOND_MS <= *moment {
            first += 1;
        }
        most = most.max(nth + 1 - first);
    }
    most as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busiest_second_may_begin_anywhere() {
        assert_eq!(busiest_second(&[]), 0);
        assert_eq!(busiest_second(&[0, 999]), 2);
        assert_eq!(busiest_second(&[0, 1_000]), 1);
        assert_eq!(busiest_second(&[2_500, 100, 900, 1_000, 1_099, 1_100, 1_899]), 5);
    }

    #[test]
    fn who_cut_itself_off_counts_neither_as_lost_nor_as_back() {
        let mut returns = Returns::default();
        returns.note_dropped(1);
        for watcher in [1, 2] {
            returns.note_lost(watcher, 5, "closed".into());
            returns.note_back(watcher, 9);
        }
        assert_eq!((returns.lost_per_sec_max(), returns.back_per_sec_max()), (1, 1));
        returns.note_lost(1, 20, "closed".into());
        returns.note_back(1, 21);
        assert_eq!((returns.lost_per_sec_max(), returns.back()), (2, 2), "only once");
        assert_eq!(returns.causes(), &BTreeMap::from([("closed".into(), 2)]));
    }

    #[test]
    fn a_rate_is_kept_up_to_its_tolerance() {
        let with = |count| Returns { back: vec![7; count], ..Returns::default() };
        assert!(with(0).keeps(10) && with(11).keeps(10) && !with(12).keeps(10));
    }
}
