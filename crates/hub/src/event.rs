//! Owns an event on its way to rooms, and how it is written for those who watch. Does not know vocabularies, sockets
//! or stores.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::room::RoomName;
use crate::time::Timestamp;

/// Tells one event from every other: a UUID, made by whoever publishes first. Version 7, so ids sort by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId(pub u128);

impl EventId {
    /// Reads 32 hexadecimal digits with or without hyphens.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut digits = [0; 32];
        let mut count = 0;
        for byte in text.bytes().filter(|byte| *byte != b'-') {
            *digits.get_mut(count)? = byte;
            count += 1;
        }
        let digits = std::str::from_utf8(&digits).ok().filter(|_| count == 32)?;
        // `from_str_radix` would take a sign.
        if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        u128::from_str_radix(digits, 16).ok().map(Self)
    }
}

impl EventId {
    /// Calls `with` with the id as text: 32 lower-case digits and four hyphens. RFC 9562 §4.
    fn with_text<T>(self, with: impl FnOnce(&str) -> T) -> T {
        let mut text = [b'-'; 36];
        let mut at = text.iter_mut().enumerate().filter(|(at, _)| !matches!(at, 8 | 13 | 18 | 23));
        for shift in (0..32).rev() {
            let digit = b"0123456789abcdef"[(self.0 >> (shift * 4)) as usize & 0xf];
            if let Some((_, byte)) = at.next() {
                *byte = digit;
            }
        }
        with(std::str::from_utf8(&text).expect("invariant: digits and hyphens"))
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.with_text(|text| f.write_str(text))
    }
}

/// As text.
impl Serialize for EventId {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.with_text(|text| to.serialize_str(text))
    }
}

/// What travels as the event's argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shape {
    /// `{event, data, room, timestamp, id}`, and `{epoch, seq}` where the room keeps a log.
    Wrapped,
    /// The data itself.
    Flat,
}

/// Namespaces whose sockets share the rooms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Audience {
    /// The members of the rooms in `/` and `/ws`: one vocabulary on both.
    Rooms,
    /// All of `/`.
    Root,
    /// All of `/ws`.
    Ws,
    /// All of `/logs`.
    Logs,
    /// All of `/admin`.
    Admin,
}

/// What an event is, beside its data, in one byte: how stores keep it.
///
/// Bit 0 is the shape (1: flat), bits 1 to 3 the audience, bit 4 says that it expires. Numbers are never reused: databases
/// have them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traits {
    /// What travels.
    pub shape: Shape,
    /// Who hears of it.
    pub audience: Audience,
    /// Whether it expires.
    pub expires: bool,
}

impl Traits {
    /// As one byte.
    #[must_use]
    pub fn to_byte(self) -> u8 {
        let shape = match self.shape {
            Shape::Wrapped => 0,
            Shape::Flat => 1,
        };
        let audience = match self.audience {
            Audience::Rooms => 0,
            Audience::Logs => 1,
            Audience::Admin => 2,
            Audience::Root => 3,
            Audience::Ws => 4,
        };
        shape | audience << 1 | u8::from(self.expires) << 4
    }

    /// Reads what [`Traits::to_byte`] gave; `None` for a byte that means nothing.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        let audience = match byte >> 1 & 0b111 {
            0 => Audience::Rooms,
            1 => Audience::Logs,
            2 => Audience::Admin,
            3 => Audience::Root,
            4 => Audience::Ws,
            _ => return None,
        };
        let expires = match byte >> 4 {
            0 => false,
            1 => true,
            _ => return None,
        };
        let shape = if byte & 1 == 0 { Shape::Wrapped } else { Shape::Flat };
        Some(Self { shape, audience, expires })
    }
}

/// An event that is ready to go out.
#[derive(Clone, Debug)]
pub struct Event {
    /// Its id.
    pub id: EventId,
    /// Its name on the wire.
    pub name: Box<str>,
    /// Its data: well-formed JSON, shared by every copy.
    pub data: Arc<RawValue>,
    /// When it was published.
    pub at: Timestamp,
    /// What travels.
    pub shape: Shape,
    /// When nobody needs it any more; `None`: it is of use for as long as it is kept. From then on it is read by nobody, and
    /// the log has a gap there.
    pub expires_at: Option<Timestamp>,
}

/// Where an event stands in the log of one room. Numbers of one epoch begin at 1 and have no gaps; another epoch means
/// that the log was begun anew and nothing of the old one is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    /// Which log of the room.
    pub epoch: u64,
    /// Which event of it.
    pub seq: u64,
}

#[derive(Serialize)]
struct Wrapped<'a> {
    event: &'a str,
    data: &'a RawValue,
    room: Option<&'a str>,
    timestamp: &'a str,
    id: EventId,
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
}

impl Event {
    /// Whether nobody needs it any more.
    #[must_use]
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|end| end <= now)
    }

    /// The argument as those in `room` get it, or everybody if there is none: JSON.
    #[must_use]
    pub fn argument(&self, room: Option<&RoomName>, position: Option<Position>) -> Cow<'_, RawValue> {
        match self.shape {
            Shape::Flat => Cow::Borrowed(&self.data),
            Shape::Wrapped => {
                let wrapped = Wrapped {
                    event: &self.name,
                    data: &self.data,
                    room: room.map(RoomName::as_str),
                    timestamp: &self.at.to_string(),
                    id: self.id,
                    epoch: position.map(|position| position.epoch),
                    seq: position.map(|position| position.seq),
                };
                let written = serde_json::value::to_raw_value(&wrapped);
                Cow::Owned(written.expect("invariant: texts and numbers become JSON"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_as_they_are_written() {
        let id = EventId(0x0192_3f6a_7b1c_7def_8123_4567_89ab_cdef);
        assert_eq!(id.to_string(), "01923f6a-7b1c-7def-8123-456789abcdef");
        assert_eq!(EventId::parse(&id.to_string()), Some(id));
        for bad in ["", "01923f6a", "+1923f6a7b1c7def8123456789abcdef", "01923f6a7b1c7def8123456789abcdef0"] {
            assert_eq!(EventId::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn traits_are_read_as_they_were_written_and_other_bytes_refused() {
        let known: Vec<(u8, Traits)> =
            (0..=u8::MAX).filter_map(|b| Some((b, Traits::from_byte(b)?))).collect();
        assert_eq!(known.len(), 2 * 5 * 2);
        for (byte, traits) in known {
            assert_eq!(traits.to_byte(), byte, "{traits:?}");
        }
        // As databases have them.
        let traits = Traits { shape: Shape::Flat, audience: Audience::Admin, expires: true };
        assert_eq!(traits.to_byte(), 0b1_0101);
    }

    #[test]
    fn wrapped_events_tell_where_they_stand() {
        let event = Event {
            id: EventId(1),
            name: "task_update".into(),
            data: Arc::from(RawValue::from_string(r#"{"n":1}"#.to_owned()).unwrap()),
            at: Timestamp(0),
            shape: Shape::Wrapped,
            expires_at: Some(Timestamp(5)),
        };
        assert!(!event.is_expired(Timestamp(4)) && event.is_expired(Timestamp(5)));
        let room = RoomName::parse("tasks").unwrap();
        let argument = event.argument(Some(&room), Some(Position { epoch: 7, seq: 3 }));
        assert_eq!(
            argument.get(),
            r#"{"event":"task_update","data":{"n":1},"room":"tasks","timestamp":"1970-01-01T00:00:00.000Z","id":"00000000-0000-0000-0000-000000000001","epoch":7,"seq":3}"#
        );
        assert!(!event.argument(None, None).get().contains("seq"));
        let flat = Event { shape: Shape::Flat, ..event };
        assert_eq!(flat.argument(Some(&room), None).get(), r#"{"n":1}"#);
    }
}
