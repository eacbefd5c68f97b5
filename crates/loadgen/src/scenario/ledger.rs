//! Who must get which publication, who has got it, and how long it took: the bookkeeping of `fanout`, `slow` and `polling`.
//!
//! Publications are numbered from 0; number n goes to room n modulo the rooms, and subscriber s is in room s modulo the
//! rooms, so each subscriber knows which number comes next. Knows nothing about how a number travels.

use std::collections::VecDeque;
use std::time::Instant;

use crate::report::Latencies;

/// In place of the next number: nothing more is expected of this subscriber.
const EXCUSED: u32 = u32::MAX;

/// One publication that has not reached everybody.
struct Flight {
    began_at: Instant,
    left: u32,
}

/// The books. Invariant: the flights are numbered `first`, `first + 1` and so on, and the first has not landed.
pub(super) struct Ledger {
    rooms: u32,
    members: Vec<u32>,
    /// The number that each subscriber must get next.
    expected: Vec<u32>,
    flights: VecDeque<Flight>,
    first: u32,
    pub(super) latencies: Latencies,
    pub(super) deliveries: u64,
    pub(super) missing: u64,
}

impl Ledger {
    /// Books for `subscribers` in `rooms`, neither of which is 0.
    pub(super) fn new(subscribers: usize, rooms: usize) -> Self {
        Self {
            rooms: rooms as u32,
            members: (0..rooms).map(|r| (subscribers - r).div_ceil(rooms) as u32).collect(),
            expected: (0..subscribers).map(|s| (s % rooms) as u32).collect(),
            flights: VecDeque::new(),
            first: 0,
            latencies: Latencies::new(),
            deliveries: 0,
            missing: 0,
        }
    }

    /// Forgets what has been measured, not what is under way.
    pub(super) fn restart(&mut self) {
        self.deliveries = 0;
        self.latencies.clear();
    }

    /// The number of the next publication.
    pub(super) fn next(&self) -> u32 {
        self.first.wrapping_add(self.flights.len() as u32)
    }

    /// Publications under way.
    pub(super) fn under_way(&self) -> usize {
        self.flights.len()
    }

    /// Begins the next publication; its number and its room.
    pub(super) fn begin(&mut self, began_at: Instant) -> (u32, usize) {
        let number = self.next();
        let room = (number % self.rooms) as usize;
        self.flights.push_back(Flight { began_at, left: self.members[room] });
        self.land();
        (number, room)
    }

    /// Books a delivery; whether publications landed with it.
    ///
    /// # Errors
    /// What is wrong with it: never published, of another room, or not the next one.
    #[inline]
    pub(super) fn deliver(&mut self, subscriber: usize, number: u32, now: Instant) -> Result<bool, String> {
        let Some(&expected) = self.expected.get(subscriber) else {
            return Err(format!("connection {subscriber} is no subscriber but got publication {number}"));
        };
        if expected == EXCUSED {
            return Ok(false);
        }
        let is_ours = number % self.rooms == subscriber as u32 % self.rooms;
        let is_under_way = (number.wrapping_sub(self.first) as usize) < self.flights.len();
        if !is_ours || !is_under_way || number < expected {
            return Err(format!("connection {subscriber} got publication {number}, but {expected} was next"));
        }
        if number > expected {
            self.skip_to(subscriber, number, true);
        }
        self.expected[subscriber] = number + self.rooms;
        let Some(flight) = self.flights.get_mut(number.wrapping_sub(self.first) as usize) else {
            return Ok(false);
        };
        flight.left = flight.left.saturating_sub(1);
        self.deliveries += 1;
        self.latencies.record(now.saturating_duration_since(flight.began_at));
        let has_landed = flight.left == 0;
        if has_landed {
            self.land();
        }
        Ok(has_landed)
    }

    /// Takes publications off that have reached everybody.
    fn land(&mut self) {
        while self.flights.front().is_some_and(|f| f.left == 0) {
            self.flights.pop_front();
            self.first = self.first.wrapping_add(1);
        }
    }

    /// Books what `subscriber` should have got before `number` as not to come.
    fn skip_to(&mut self, subscriber: usize, number: u32, is_missing: bool) {
        while self.expected[subscriber] < number {
            let at = self.expected[subscriber].wrapping_sub(self.first) as usize;
            if let Some(flight) = self.flights.get_mut(at) {
                flight.left = flight.left.saturating_sub(1);
                self.missing += u64::from(is_missing);
            }
            self.expected[subscriber] += self.rooms;
        }
    }

    /// Gives up on all that is under way: it is missing.
    pub(super) fn give_up(&mut self) {
        let next = self.next();
        for subscriber in 0..self.expected.len() {
            if self.expected[subscriber] != EXCUSED {
                self.skip_to(subscriber, next, true);
            }
        }
        self.land();
    }

    /// Whether nothing more is expected of `subscriber`.
    pub(super) fn is_excused(&self, subscriber: usize) -> bool {
        self.expected.get(subscriber) == Some(&EXCUSED)
    }

    /// Expects nothing more for `subscriber`; what is under way to it is missing or not, as said.
    pub(super) fn excuse(&mut self, subscriber: usize, is_missing: bool) {
        if subscriber < self.expected.len() && !self.is_excused(subscriber) {
            self.skip_to(subscriber, self.next(), is_missing);
            self.expected[subscriber] = EXCUSED;
            self.members[subscriber % self.rooms as usize] -= 1;
            self.land();
        }
    }

    /// Expects the publications that are yet to begin for an excused subscriber again.
    pub(super) fn readmit(&mut self, subscriber: usize) {
        if self.is_excused(subscriber) {
            let (room, next) = (subscriber as u32 % self.rooms, self.next());
            self.expected[subscriber] = next + (room + self.rooms - next % self.rooms) % self.rooms;
            self.members[room as usize] += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three subscribers in two rooms: 0 and 2 in the first, 1 in the second.
    fn ledger(publications: usize) -> (Ledger, Instant) {
        let (mut ledger, now) = (Ledger::new(3, 2), Instant::now());
        for number in 0..publications {
            assert_eq!(ledger.begin(now), (number as u32, number % 2));
        }
        (ledger, now)
    }

    #[test]
    fn publications_land_when_everybody_has_them() {
        let (mut ledger, now) = ledger(2);
        assert_eq!(ledger.deliver(0, 0, now), Ok(false));
        assert_eq!(ledger.deliver(1, 1, now), Ok(true));
        assert_eq!(ledger.under_way(), 2);
        assert_eq!(ledger.deliver(2, 0, now), Ok(true));
        assert_eq!((ledger.under_way(), ledger.deliveries, ledger.missing), (0, 3, 0));
    }

    #[test]
    fn repeats_strangers_and_the_future_are_refused() {
        let (mut ledger, now) = ledger(3);
        assert_eq!(ledger.deliver(0, 0, now), Ok(false));
        for (subscriber, number) in [(0, 0), (0, 1), (1, 0), (0, 4), (3, 0)] {
            assert!(ledger.deliver(subscriber, number, now).is_err(), "{subscriber} {number}");
        }
        assert_eq!(ledger.deliver(0, 2, now), Ok(false));
        assert!(ledger.deliver(0, 0, now).is_err(), "out of order");
    }

    #[test]
    fn a_gap_is_counted_once_and_lets_the_publication_land() {
        let (mut ledger, now) = ledger(3);
        assert_eq!(ledger.deliver(0, 2, now), Ok(false));
        assert_eq!(ledger.missing, 1);
        assert_eq!(ledger.deliver(1, 1, now), Ok(true));
        assert_eq!(ledger.deliver(2, 0, now), Ok(true));
        assert_eq!(ledger.deliver(2, 2, now), Ok(true));
        assert_eq!((ledger.under_way(), ledger.missing), (0, 1));
    }

    #[test]
    fn who_is_readmitted_gets_what_begins_from_then_on() {
        let (mut ledger, now) = ledger(1);
        ledger.excuse(2, false);
        assert_eq!(ledger.deliver(0, 0, now), Ok(true));
        ledger.readmit(2);
        for (number, room) in [(1, 1), (2, 0)] {
            assert_eq!(ledger.begin(now), (number, room));
        }
        assert_eq!(ledger.deliver(1, 1, now), Ok(true));
        assert_eq!(ledger.deliver(0, 2, now), Ok(false));
        assert_eq!(ledger.deliver(2, 2, now), Ok(true));
        assert_eq!((ledger.missing, ledger.under_way()), (0, 0));
    }

    #[test]
    fn giving_up_counts_what_is_left_and_excuses_do_not() {
        let (mut ledger, now) = ledger(2);
        ledger.excuse(2, false);
        ledger.excuse(2, true);
        assert_eq!(ledger.deliver(2, 0, now), Ok(false));
        assert_eq!((ledger.missing, ledger.deliveries), (0, 0));
        ledger.give_up();
        assert_eq!((ledger.missing, ledger.under_way()), (2, 0));
        assert_eq!(ledger.begin(now), (2, 0));
        assert_eq!(ledger.deliver(0, 2, now), Ok(true));
    }
}
