//! Owns the one coarse timer wheel of a shard: which sessions want a look, and about when.
//! Does not know why. Invariant: an entry never fires before its moment.
//!
//! Heartbeats of 100,000 idle sessions must cost neither a timer each nor a sorted queue. An entry is eight
//! bytes in the slot of its tick; what is due is read from the session itself when the entry fires, so a
//! deadline that moved later costs nothing until then.

use std::time::Duration;

use crate::moment::Moment;

/// Slots of the wheel: 512 ticks reach past one ping interval plus one ping timeout at the tick chosen below.
const SLOTS: usize = 512;

pub(crate) struct Wheel<K> {
    slots: Vec<Vec<K>>,
    occupied: [u64; SLOTS / 64],
    tick_millis: u64,
    /// The last tick whose slot has been emptied.
    current: u64,
}

impl<K: Copy> Wheel<K> {
    /// A wheel whose tick suits deadlines about `interval` away: a 256th of it, from 1 ms to 100 ms.
    pub(crate) fn new(interval: Duration) -> Self {
        let tick_millis = u64::try_from(interval.as_millis() / 256).unwrap_or(u64::MAX).clamp(1, 100);
        Self {
            slots: (0..SLOTS).map(|_| Vec::new()).collect(),
            occupied: [0; SLOTS / 64],
            tick_millis,
            current: 0,
        }
    }

    /// The first tick at or after `at`, or an earlier one if `at` lies beyond the wheel's reach: the caller then
    /// schedules again when it fires. Never 0.
    pub(crate) fn tick_of(&self, at: Moment) -> u64 {
        let tick = at.as_millis().div_ceil(self.tick_millis);
        tick.clamp(self.current + 1, self.current + SLOTS as u64 - 1)
    }

    /// Has `key` fire at a tick from [`Wheel::tick_of`]. Answers it, for the caller to compare when it fires.
    pub(crate) fn schedule(&mut self, tick: u64, key: K) -> u64 {
        let slot = (tick % SLOTS as u64) as usize;
        self.slots[slot].push(key);
        self.occupied[slot / 64] |= 1 << (slot % 64);
        tick
    }

    /// The moment at which [`Wheel::expire`] next has something to do.
    pub(crate) fn next(&self) -> Option<Moment> {
        let first = self.current + 1;
        let mut ahead = 0;
        while ahead < SLOTS as u64 {
            let slot = ((first + ahead) % SLOTS as u64) as usize;
            let word = self.occupied[slot / 64] >> (slot % 64);
            if word != 0 {
                let tick = first + ahead + u64::from(word.trailing_zeros());
                return Some(Moment::from_millis(tick * self.tick_millis));
            }
            ahead += 64 - (slot % 64) as u64;
        }
        None
    }

    /// Moves every entry due by `now` into `due`, with the tick it was scheduled for.
    pub(crate) fn expire(&mut self, now: Moment, due: &mut Vec<(u64, K)>) {
        let target = now.as_millis() / self.tick_millis;
        if target <= self.current {
            return;
        }
        // A driver that slept through a whole turn of the wheel finds everything due.
        let from = self.current + 1;
        let to = target.min(self.current + SLOTS as u64);
        for tick in from..=to {
            let slot = (tick % SLOTS as u64) as usize;
            if self.occupied[slot / 64] & (1 << (slot % 64)) != 0 {
                self.occupied[slot / 64] &= !(1 << (slot % 64));
                due.extend(self.slots[slot].drain(..).map(|key| (tick, key)));
                // A burst of handshakes must not leave its capacity behind in one slot for ever.
                if self.slots[slot].capacity() > 1024 {
                    self.slots[slot] = Vec::new();
                }
            }
        }
        self.current = target;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fired(wheel: &mut Wheel<u32>, millis: u64) -> Vec<u32> {
        let mut due = Vec::new();
        wheel.expire(Moment::from_millis(millis), &mut due);
        due.into_iter().map(|(_, key)| key).collect()
    }

    fn schedule(wheel: &mut Wheel<u32>, millis: u64, key: u32) {
        let tick = wheel.tick_of(Moment::from_millis(millis));
        wheel.schedule(tick, key);
    }

    #[test]
    fn entries_fire_at_their_tick_and_never_before() {
        let mut wheel = Wheel::new(Duration::from_secs(25));
        schedule(&mut wheel, 25_000, 1);
        schedule(&mut wheel, 301, 2);
        assert_eq!(wheel.next().unwrap().as_millis(), 388);
        assert_eq!(fired(&mut wheel, 300), Vec::<u32>::new());
        assert_eq!(fired(&mut wheel, 388), vec![2]);
        let next = wheel.next().unwrap();
        assert!(next.as_millis() >= 25_000 && next.as_millis() < 25_100, "{next}");
        assert_eq!(fired(&mut wheel, next.as_millis()), vec![1]);
        assert_eq!(wheel.next(), None);
    }

    #[test]
    fn a_moment_beyond_reach_fires_early_so_that_it_is_scheduled_again() {
        let mut wheel = Wheel::new(Duration::from_millis(300));
        schedule(&mut wheel, 45_000, 9);
        let early = wheel.next().unwrap();
        assert!(early.as_millis() < 1_000);
        assert_eq!(fired(&mut wheel, early.as_millis()), vec![9]);
    }

    #[test]
    fn a_long_sleep_fires_everything_once() {
        let mut wheel = Wheel::new(Duration::from_millis(300));
        for key in 0..100 {
            schedule(&mut wheel, u64::from(key) * 3, key);
        }
        let mut all = fired(&mut wheel, 1_000_000);
        all.sort_unstable();
        assert_eq!(all, (0..100).collect::<Vec<_>>());
        assert_eq!(wheel.next(), None);
        schedule(&mut wheel, 5, 1);
        assert_eq!(fired(&mut wheel, 1_000_002), vec![1]);
    }
}
