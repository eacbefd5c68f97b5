//! Owns how events and answers are written as bytes, and read back. Does not know tables.
//!
//! Every body begins with the number of its format, so that a later one can stand beside it. Bytes that make no sense
//! are [`Failure::Damaged`]; they never panic.
//!
//! An event, format 1 (numbers are LEB128 unless said):
//!
//! ```text
//! 1 | order | through | at | flags: 1 byte | expiry, if it has one | id: 16 bytes, big-endian | length of name | name | data to the end
//! ```
//!
//! `flags`: bit 0 is the shape (1: flat), bits 1 to 3 the audience, bit 4 says that there is an expiry.

use std::sync::Arc;

use hub::event::{Event, EventId, Position, Traits};
use hub::room::RoomName;
use hub::store::{Append, Kept, Placed, Repeated};
use hub::time::Timestamp;
use serde_json::value::RawValue;

use crate::fault::Failure;

const FORMAT: u8 = 1;

/// What pruning asks of an event. Stands in front, so that nothing behind it need be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Heading {
    /// Its number in the store.
    pub(crate) order: u64,
    /// Bytes of the room's events from the beginning of the epoch up to this one, by [`hub::store::event_bytes`]: the
    /// weight of any part of a log is a difference of two.
    pub(crate) through: u64,
    /// When it was published.
    pub(crate) at: Timestamp,
}

/// Writes an event over what `out` held.
pub(crate) fn encode_event(out: &mut Vec<u8>, heading: Heading, append: &Append) {
    let Append { event, audience, .. } = append;
    out.clear();
    out.push(FORMAT);
    push_number(out, heading.order);
    push_number(out, heading.through);
    push_number(out, heading.at.0);
    let traits = Traits { shape: event.shape, audience: *audience, expires: event.expires_at.is_some() };
    out.push(traits.to_byte());
    if let Some(at) = event.expires_at {
        push_number(out, at.0);
    }
    out.extend_from_slice(&event.id.0.to_be_bytes());
    push_text(out, &event.name);
    out.extend_from_slice(event.data.get().as_bytes());
}

/// Reads the beginning of an event.
pub(crate) fn decode_heading(body: &[u8]) -> Result<Heading, Failure> {
    read_heading(&mut Reader { rest: body })
}

/// Reads an event of `room`.
pub(crate) fn decode_event(
    body: &[u8],
    room: &RoomName,
    position: Option<Position>,
) -> Result<Kept, Failure> {
    let mut reader = Reader { rest: body };
    let heading = read_heading(&mut reader)?;
    let flags = reader.byte()?;
    let traits = Traits::from_byte(flags);
    let Traits { shape, audience, expires } =
        traits.ok_or_else(|| Failure::Damaged(format!("an event has the flags {flags:#x}")))?;
    let expires_at = if expires { Some(Timestamp(reader.number()?)) } else { None };
    let id = reader.take(16)?.try_into().expect("invariant: 16 bytes were taken");
    let name = reader.text()?.into();
    let data = text(reader.rest)?.to_owned();
    let data = RawValue::from_string(data)
        .map_err(|error| Failure::Damaged(format!("the data of an event is not JSON: {error}")))?;
    let id = EventId(u128::from_be_bytes(id));
    let event = Event { id, name, data: Arc::from(data), at: heading.at, shape, expires_at };
    Ok(Kept { room: room.clone(), position, order: heading.order, event, audience })
}

/// What a repetition of a request is answered, format 1:
///
/// ```text
/// 1 | length of answer | answer | appends | for each: placements | for each: length of room | room | epoch or 0 | seq
/// ```
pub(crate) fn encode_answer(answer: &str, done: &[(u64, Vec<Placed>)]) -> Vec<u8> {
    let mut out = vec![FORMAT];
    push_text(&mut out, answer);
    push_number(&mut out, done.len() as u64);
    for (_, placed) in done {
        push_number(&mut out, placed.len() as u64);
        for Placed { room, position } in placed {
            push_text(&mut out, room.as_str());
            push_number(&mut out, position.map_or(0, |position| position.epoch));
            push_number(&mut out, position.map_or(0, |position| position.seq));
        }
    }
    out
}

/// Reads what [`encode_answer`] wrote.
pub(crate) fn decode_answer(body: &[u8]) -> Result<Repeated, Failure> {
    let mut reader = Reader { rest: body };
    reader.format()?;
    let answer = reader.text()?.into();
    let mut placed = Vec::new();
    for _ in 0..reader.number()? {
        let mut of_append = Vec::new();
        for _ in 0..reader.number()? {
            let room = room_name(reader.text()?)?;
            let (epoch, seq) = (reader.number()?, reader.number()?);
            of_append.push(Placed { room, position: (epoch != 0).then_some(Position { epoch, seq }) });
        }
        placed.push(of_append);
    }
    Ok(Repeated { answer, placed })
}

/// A room's name as it was kept.
pub(crate) fn room_name(text: &str) -> Result<RoomName, Failure> {
    RoomName::parse(text).map_err(|fault| Failure::Damaged(format!("a room's name: {fault}")))
}

fn read_heading(reader: &mut Reader<'_>) -> Result<Heading, Failure> {
    reader.format()?;
    Ok(Heading { order: reader.number()?, through: reader.number()?, at: Timestamp(reader.number()?) })
}

fn push_text(out: &mut Vec<u8>, text: &str) {
    push_number(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

fn push_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn text(bytes: &[u8]) -> Result<&str, Failure> {
    std::str::from_utf8(bytes).map_err(|error| Failure::Damaged(format!("a text is not UTF-8: {error}")))
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Failure> {
        let Some((taken, rest)) = self.rest.split_at_checked(count) else {
            return Err(Failure::Damaged(format!("a body ends {} bytes early", count - self.rest.len())));
        };
        self.rest = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, Failure> {
        Ok(self.take(1)?[0])
    }

    fn format(&mut self) -> Result<(), Failure> {
        match self.byte()? {
            FORMAT => Ok(()),
            other => Err(Failure::Damaged(format!("a body has the unknown format {other}"))),
        }
    }

    fn number(&mut self) -> Result<u64, Failure> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if (bits << shift) >> shift != bits {
                break;
            }
            number |= bits << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(Failure::Damaged("a number has more than 64 bits".to_owned()))
    }

    fn text(&mut self) -> Result<&'a str, Failure> {
        let length = usize::try_from(self.number()?).unwrap_or(usize::MAX);
        text(self.take(length)?)
    }
}

#[cfg(test)]
mod tests {
    use hub::event::{Audience, Shape};

    use super::*;
    use testkit::contract::sample::{event, placed, room};

    fn sample() -> (Heading, Append) {
        let mut append = placed(event("task_update", r#"{"a":"é"}"#), &[]);
        append.audience = Audience::Admin;
        append.event.shape = Shape::Flat;
        append.event.at = Timestamp(u64::MAX);
        append.event.expires_at = Some(Timestamp(u64::MAX - 1));
        (Heading { order: u64::MAX, through: 1 << 40, at: append.event.at }, append)
    }

    #[test]
    fn events_are_read_as_they_were_written() {
        let (heading, append) = sample();
        let mut body = vec![9; 9];
        encode_event(&mut body, heading, &append);
        assert_eq!(decode_heading(&body).unwrap(), heading);
        let kept = decode_event(&body, &room("tasks"), None).unwrap();
        assert_eq!((kept.order, kept.audience, kept.event.id), (u64::MAX, Audience::Admin, append.event.id));
        assert_eq!((&kept.event.name, kept.event.data.get()), (&append.event.name, append.event.data.get()));
        let Event { at, shape, expires_at, .. } = kept.event;
        let read = (at, shape, expires_at);
        assert_eq!(read, (Timestamp(u64::MAX), Shape::Flat, Some(Timestamp(u64::MAX - 1))));
    }

    #[test]
    fn answers_are_read_as_they_were_written() {
        let position = Some(Position { epoch: u64::MAX, seq: 300 });
        let placed = vec![Placed { room: room("é"), position }, Placed { room: room("b"), position: None }];
        let body = encode_answer("{}", &[(1, placed.clone()), (2, vec![])]);
        let repeated = decode_answer(&body).unwrap();
        assert_eq!((&*repeated.answer, repeated.placed), ("{}", vec![placed, vec![]]));
    }

    #[test]
    fn damage_is_noticed_and_never_panics() {
        let (heading, append) = sample();
        let mut body = Vec::new();
        encode_event(&mut body, heading, &append);
        let answer = encode_answer("{}", &[(1, vec![Placed { room: room("tasks"), position: None }])]);
        for cut in 0..body.len() - 1 {
            assert!(decode_event(&body[..cut], &room("tasks"), None).is_err(), "cut at {cut}");
        }
        for cut in 0..answer.len() {
            assert!(decode_answer(&answer[..cut]).is_err(), "cut at {cut}");
        }
        // Any byte may turn into any other; what is read then is something or a refusal, but never a panic.
        let mut refused = 0;
        for at in 0..body.len().max(answer.len()) {
            for with in 0..=255 {
                let turn = |bytes: &[u8]| -> Vec<u8> {
                    let mut bytes = bytes.to_vec();
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte = with;
                    }
                    bytes
                };
                refused += usize::from(decode_event(&turn(&body), &room("tasks"), None).is_err());
                refused += usize::from(decode_answer(&turn(&answer)).is_err());
            }
        }
        assert!(refused > 1_000, "{refused}");
        let endless = [&[FORMAT][..], &[0xff; 11]].concat();
        assert!(matches!(decode_heading(&endless), Err(Failure::Damaged(_))));
        assert!(
            decode_answer(&[FORMAT, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]).is_err()
        );
    }
}
