//! Owns rooms that were made by hand: they are listed although nobody is in them. Does not know who is; whoever knows
//! says so.
//!
//! To make a room gives nobody any right to it: that is for its policy to say. One that has not been asked for again for
//! as long as it is kept goes by itself, so that rooms made by programs do not pile up.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::record::{State, Step};
use crate::room::RoomName;
use crate::store::RecordKind;
use crate::time::Timestamp;

/// Rooms made by hand that there may be. 10,000: they are listed by name.
pub const MADE_ROOMS_MAX: usize = 10_000;

/// A room that was made by hand.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MadeRoom {
    room: Box<str>,
    created_at: Timestamp,
    /// When it was last asked for.
    asked_at: Timestamp,
    /// `None`: it stays for ever.
    forget_at: Option<Timestamp>,
}

impl State for MadeRoom {
    const KIND: RecordKind = RecordKind::Room;

    fn id(&self) -> &str {
        &self.room
    }

    fn group(&self) -> &str {
        ""
    }

    fn status(&self) -> &'static str {
        ""
    }

    fn created_at(&self) -> Timestamp {
        self.created_at
    }

    fn due_at(&self) -> Option<Timestamp> {
        self.forget_at
    }
}

impl MadeRoom {
    /// Whether it has been asked for once.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.created_at == self.asked_at
    }

    /// Its name.
    #[must_use]
    pub fn room(&self) -> &str {
        &self.room
    }
}

/// Makes a room, or asks for it again. `kept`: how long it stays from now on; zero is for ever.
#[must_use]
pub fn make(present: Option<&MadeRoom>, now: Timestamp, room: &RoomName, kept: Duration) -> Step<MadeRoom> {
    let forget_at = (!kept.is_zero()).then(|| now.plus(kept));
    let created_at = present.map_or(now, |made| made.created_at);
    // Two requests in one millisecond are two all the same.
    let asked_at = if present.is_some() { now.max(Timestamp(created_at.0.saturating_add(1))) } else { now };
    Step::quiet(MadeRoom { room: room.as_str().into(), created_at, asked_at, forget_at })
}

/// Forgets a room whose time has come.
#[must_use]
pub fn due(present: &MadeRoom, now: Timestamp) -> Step<MadeRoom> {
    match present.forget_at {
        Some(at) if at <= now => Step { next: None, events: Vec::new() },
        Some(_) | None => Step::quiet(present.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_room_stays_as_long_as_it_is_asked_for() {
        let (room, kept) = (RoomName::parse("lounge").unwrap(), Duration::from_millis(100));
        let made = make(None, Timestamp(1_000), &room, kept).next.unwrap();
        assert!(made.is_new());
        assert_eq!(due(&made, Timestamp(1_099)).next.as_ref(), Some(&made));
        let again = make(Some(&made), Timestamp(1_000), &room, kept).next.unwrap();
        assert!(!again.is_new() && again.created_at() == made.created_at());
        let again = make(Some(&made), Timestamp(1_050), &room, kept).next.unwrap();
        assert_eq!(due(&again, Timestamp(1_149)).next.as_ref(), Some(&again));
        assert_eq!(due(&again, Timestamp(1_150)).next, None);
        let for_ever = make(None, Timestamp(0), &room, Duration::ZERO).next.unwrap();
        assert_eq!((for_ever.due_at(), due(&for_ever, Timestamp(u64::MAX)).next.is_some()), (None, true));
    }
}
