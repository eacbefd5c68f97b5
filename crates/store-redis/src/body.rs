//! Owns how events and answers are written as bytes, and read back. Does not know keys or commands.
//!
//! What the scripts must take apart has fixed places and big-endian numbers; `lua/commit.lua` counts on them. Every
//! value begins with the number of its format, so that a later one can stand beside it. Bytes that make no sense are
//! [`Failure::Damaged`]; they never panic.
//!
//! ```text
//! event        at: 8 | flags: 1 | expiry: 8, if it has one | id: 16 | length of name: 4 | name | data to the end
//! kept event   1 | order: 8 | weight: 8 | event
//! answer       at: 8 | appends: 4 | for each: placements: 4 | for each: length of room: 2 | room | epoch: 8, or 0 |
//!              seq: 8 ‖ then the answer's text to the end
//! ```
//!
//! `flags`: bit 0 is the shape (1: flat), bits 1 to 3 the audience, bit 4 says that there is an expiry.
//! `weight` is, in a log, the bytes of the epoch's events up to this one, and among the latest those of the event; both by [`hub::store::event_bytes`].

use std::sync::Arc;

use hub::event::{Audience, Event, EventId, Position, Traits};
use hub::room::RoomName;
use hub::store::{Append, IdempotencyKey, Kept, Placed, Repeated};
use hub::time::Timestamp;
use serde_json::value::RawValue;

use crate::fault::Failure;

/// Format of kept events; `lua/commit.lua` writes it.
const FORMAT: u8 = 1;

/// Writes an event.
pub(crate) fn encode_event(event: &Event, audience: Audience) -> Vec<u8> {
    let mut out = Vec::with_capacity(37 + event.name.len() + event.data.get().len());
    out.extend_from_slice(&event.at.0.to_be_bytes());
    let traits = Traits { shape: event.shape, audience, expires: event.expires_at.is_some() };
    out.push(traits.to_byte());
    if let Some(at) = event.expires_at {
        out.extend_from_slice(&at.0.to_be_bytes());
    }
    out.extend_from_slice(&event.id.0.to_be_bytes());
    push_text(&mut out, &event.name);
    out.extend_from_slice(event.data.get().as_bytes());
    out
}

/// Reads what [`encode_event`] wrote.
pub(crate) fn decode_event(bytes: &[u8]) -> Result<(Event, Audience), Failure> {
    let mut reader = Reader { rest: bytes };
    let at = Timestamp(reader.u64()?);
    let flags = reader.u8()?;
    let traits = Traits::from_byte(flags);
    let Traits { shape, audience, expires } =
        traits.ok_or_else(|| Failure::Damaged(format!("an event has the flags {flags:#x}")))?;
    let expires_at = if expires { Some(Timestamp(reader.u64()?)) } else { None };
    let id = EventId(u128::from_be_bytes(reader.array()?));
    let name = reader.text()?.into();
    let data = text(reader.rest)?.to_owned();
    let data = RawValue::from_string(data)
        .map_err(|error| Failure::Damaged(format!("the data of an event is not JSON: {error}")))?;
    Ok((Event { id, name, data: Arc::from(data), at, shape, expires_at }, audience))
}

/// Reads an event of `room`.
pub(crate) fn decode_kept(
    value: &[u8],
    room: &RoomName,
    position: Option<Position>,
) -> Result<Kept, Failure> {
    let mut reader = Reader { rest: value };
    reader.format(FORMAT)?;
    let (order, _weight) = (reader.u64()?, reader.u64()?);
    let (event, audience) = decode_event(reader.rest)?;
    Ok(Kept { room: room.clone(), position, order, event, audience })
}

/// By what name an event is one of the latest of its room.
pub(crate) fn latest_field(append: &Append) -> Vec<u8> {
    pair(&append.event.name, &append.key)
}

/// By what name an idempotency key is kept.
pub(crate) fn key_field(key: &IdempotencyKey) -> Vec<u8> {
    pair(&key.scope, &key.key)
}

/// Reads an answer as `lua/commit.lua` keeps it.
pub(crate) fn decode_answer(value: &[u8]) -> Result<Repeated, Failure> {
    let mut reader = Reader { rest: value };
    let _at = reader.u64()?;
    let mut placed = Vec::new();
    for _ in 0..reader.u32()? {
        let mut of_append = Vec::new();
        for _ in 0..reader.u32()? {
            let room = reader.name()?;
            let (epoch, seq) = (reader.u64()?, reader.u64()?);
            of_append.push(Placed { room, position: (epoch != 0).then_some(Position { epoch, seq }) });
        }
        placed.push(of_append);
    }
    Ok(Repeated { answer: text(reader.rest)?.into(), placed })
}

/// Writes a text behind its length.
pub(crate) fn push_text(out: &mut Vec<u8>, text: &str) {
    let length = u32::try_from(text.len()).expect("invariant: no text of 4 GiB reaches a store");
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// Two texts as one, told apart exactly.
fn pair(first: &str, second: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(4 + first.len() + second.len());
    push_text(&mut out, first);
    out.extend_from_slice(second.as_bytes());
    out
}

/// Bytes as text.
pub(crate) fn text(bytes: &[u8]) -> Result<&str, Failure> {
    std::str::from_utf8(bytes).map_err(|error| Failure::Damaged(format!("a text is not UTF-8: {error}")))
}

/// Takes a value apart from the front.
pub(crate) struct Reader<'a> {
    pub(crate) rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], Failure> {
        let Some((taken, rest)) = self.rest.split_at_checked(count) else {
            return Err(Failure::Damaged(format!("a value ends {} bytes early", count - self.rest.len())));
        };
        self.rest = rest;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Failure> {
        Ok(self.take(N)?.try_into().expect("invariant: so many bytes were taken"))
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Failure> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Failure> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Failure> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Failure> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    /// What [`push_text`] wrote.
    pub(crate) fn text(&mut self) -> Result<&'a str, Failure> {
        let length = self.u32()? as usize;
        text(self.take(length)?)
    }

    /// A room's name behind its length, which has two bytes.
    pub(crate) fn name(&mut self) -> Result<RoomName, Failure> {
        let length = usize::from(self.u16()?);
        RoomName::parse(text(self.take(length)?)?)
            .map_err(|fault| Failure::Damaged(format!("a room's name: {fault}")))
    }

    pub(crate) fn format(&mut self, known: u8) -> Result<(), Failure> {
        match self.u8()? {
            format if format == known => Ok(()),
            other => Err(Failure::Damaged(format!("a value has the unknown format {other}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use hub::event::Shape;

    use super::*;
    use testkit::contract::sample::{event, key, latest, room};

    fn sample() -> Event {
        let mut event = event("task_update", r#"{"a":"é"}"#);
        event.shape = Shape::Flat;
        event.expires_at = Some(Timestamp(u64::MAX - 1));
        event.at = Timestamp(u64::MAX);
        event
    }

    fn kept() -> Vec<u8> {
        let heading = [&[FORMAT][..], &7_u64.to_be_bytes(), &9_u64.to_be_bytes()].concat();
        [heading, encode_event(&sample(), Audience::Ws)].concat()
    }

    fn answer() -> Vec<u8> {
        let mut value = 5_u64.to_be_bytes().to_vec();
        value.extend([0, 0, 0, 2, 0, 0, 0, 1, 0, 2]);
        value.extend("é".as_bytes());
        value.extend(u64::MAX.to_be_bytes());
        value.extend(300_u64.to_be_bytes());
        value.extend([0, 0, 0, 0]);
        value.extend(b"{}");
        value
    }

    #[test]
    fn events_are_read_as_they_were_written() {
        let value = kept();
        let position = Some(Position { epoch: 1, seq: 2 });
        let kept = decode_kept(&value, &room("tasks"), position).unwrap();
        let given = sample();
        assert_eq!((kept.order, kept.position, kept.audience), (7, position, Audience::Ws));
        assert_eq!((kept.event.id, kept.event.at, kept.event.shape), (given.id, given.at, given.shape));
        assert_eq!(kept.event.expires_at, given.expires_at);
        assert_eq!((&kept.event.name, kept.event.data.get()), (&given.name, given.data.get()));
    }

    #[test]
    fn answers_are_read_as_the_script_writes_them() {
        let repeated = decode_answer(&answer()).unwrap();
        let position = Some(Position { epoch: u64::MAX, seq: 300 });
        assert_eq!(&*repeated.answer, "{}");
        assert_eq!(repeated.placed, [vec![Placed { room: room("é"), position }], vec![]]);
    }

    #[test]
    fn names_of_two_parts_are_told_apart() {
        assert_ne!(key_field(&key("a", "bc")), key_field(&key("ab", "c")));
        assert_ne!(
            latest_field(&latest("r", "", event("a", "1"))),
            latest_field(&latest("r", "a", event("", "1")))
        );
    }

    #[test]
    fn damage_is_noticed_and_never_panics() {
        let (event, answer) = (kept(), answer());
        for cut in 0..event.len() - 1 {
            assert!(decode_kept(&event[..cut], &room("tasks"), None).is_err(), "cut at {cut}");
        }
        for cut in 0..answer.len() - 2 {
            assert!(decode_answer(&answer[..cut]).is_err(), "cut at {cut}");
        }
        // Any byte may turn into any other; what is read then is something or a refusal, but never a panic.
        let mut refused = 0;
        for with in 0..=255 {
            for at in 0..event.len() {
                let mut event = event.clone();
                event[at] = with;
                refused += usize::from(decode_kept(&event, &room("tasks"), None).is_err());
            }
            for at in 0..answer.len() {
                let mut answer = answer.clone();
                answer[at] = with;
                refused += usize::from(decode_answer(&answer).is_err());
            }
        }
        assert!(refused > 1_000, "{refused}");
    }
}
