//! Owns the ids of events: they grow, and no two are alike. Does not know events.

use hub::event::EventId;
use hub::time::Timestamp;
use uuid::Uuid;

/// The highest of the bits that count. Clear in a fresh id, so that counting up never leaves them. RFC 9562 §6.2,
/// "Counter Rollover Handling".
const GUARD: u128 = 1 << 61;

/// Makes ids, for one task. UUIDs of version 7, monotonic as in RFC 9562 §6.2, method 2: what follows within a
/// millisecond is counted up, so that one call for random bytes does for all of them.
#[derive(Debug, Default)]
pub(super) struct Ids {
    last: u128,
}

impl Ids {
    /// The next one: greater than the last, also if the clock was set back.
    pub(super) fn next(&mut self, now: Timestamp) -> EventId {
        let last_at = (self.last >> 80) as u64;
        let is_current = last_at >= now.0 && self.last != 0;
        self.last = if is_current { self.last + 1 } else { Uuid::now_v7().as_u128() & !GUARD };
        EventId(self.last)
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn ids_grow_within_a_millisecond_across_them_and_against_the_clock() {
        let mut ids = Ids::default();
        let now = Timestamp::of(SystemTime::now());
        let moments = [0, 0, 0, 1, 2, 2, 50, 0, 0].map(|millis| Timestamp(now.0 + millis));
        let made: Vec<EventId> = moments.iter().map(|now| ids.next(*now)).collect();
        assert!(made.is_sorted_by(|one, next| one < next), "{made:?}");
        for id in made {
            let id = Uuid::from_u128(id.0);
            assert_eq!((id.get_version_num(), id.get_variant()), (7, uuid::Variant::RFC4122));
        }
    }

    #[test]
    fn two_makers_do_not_agree() {
        let now = Timestamp::of(SystemTime::now());
        assert_ne!(Ids::default().next(now), Ids::default().next(now));
    }
}
