//! Owns how an event is told to other servers: the channels, and the message on them. Does not subscribe. Invariant: bytes
//! from outside never panic.
//!
//! With [`crate::Options::publishes`] the script that keeps an event that has a [`Route`] publishes it, in the same step:
//! one message, the same bytes on the channel of each room of the route. What is not kept is told in the same format by
//! whoever sends it.
//!
//! ```text
//! channel  {prefix}:room:<name>, {prefix}:all:<audience>; both sharded
//! message  2 | flags: 1 | origin: 2 | number: 8 | placements: 4 | of each: name | epoch: 8, or 0 | seq: 8, or 0 |
//!          rooms: 4 | of each: name | except: 4 | of each: name | event as in `body.rs`
//! name     length: 2 | text
//! ```
//!
//! Numbers are big-endian. Flags: bit 0, the event is kept and `number` is its order; else `number` is the sender's own
//! count, which grows. Bit 1: the event is volatile. Epoch and seq are 0 in rooms that keep the latest only.
//!
//! Messages that are kept come in the order of `order`, whatever the room, because one server publishes all. Whoever is
//! subscribed to several rooms of one gets it several times, nothing that is kept in between. A commit that is sent again
//! because its answer was lost publishes nothing a second time.

use hub::event::{Audience, Event, Position};
use hub::room::RoomName;
use hub::store::{Placed, Route};

use crate::body::{self, Reader};
use crate::fault::Failure;

/// Format of messages.
const FORMAT: u8 = 2;

/// The event is kept.
const KEPT: u8 = 1;
/// The event is volatile.
const VOLATILE: u8 = 2;

/// An event that some server tells the others.
#[derive(Clone, Debug)]
pub struct Message {
    /// The number of the server that it comes from.
    pub origin: u16,
    /// Its number among all events of the store; `None` if it is not kept.
    pub order: Option<u64>,
    /// The rooms that keep it, and where; without a position where only the latest is kept.
    pub placed: Vec<Placed>,
    /// All rooms it goes to, in the order in which it was given them.
    pub rooms: Vec<RoomName>,
    /// Rooms whose members do not get it.
    pub except: Vec<RoomName>,
    /// Whether it may be left out where it would have to wait.
    pub is_volatile: bool,
    /// Who hears of it.
    pub audience: Audience,
    /// The event.
    pub event: Event,
}

/// What tells a message from all others: two with the same stamp are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The number of the server that it comes from.
    pub origin: u16,
    /// Whether `number` is an order. Else it is one of the origin's own, which grow.
    pub is_kept: bool,
    /// Which of them.
    pub number: u64,
}

/// The channel on which a room's events are published, for the prefix of [`crate::Options::prefix`].
#[must_use]
pub fn channel(prefix: &str, room: &RoomName) -> String {
    format!("{{{prefix}}}:room:{room}")
}

/// The channel on which events for all of an audience are published.
#[must_use]
pub fn audience_channel(prefix: &str, audience: Audience) -> String {
    format!("{{{prefix}}}:all:{}", audience_name(audience))
}

/// What an audience is called in the name of its channel.
#[must_use]
pub fn audience_name(audience: Audience) -> &'static str {
    match audience {
        Audience::Rooms => "rooms",
        Audience::Root => "root",
        Audience::Ws => "ws",
        Audience::Logs => "logs",
        Audience::Admin => "admin",
    }
}

/// Writes a message that its sender numbers; `turn` is used if it has no order.
#[must_use]
pub fn encode_message(message: &Message, turn: u64) -> Vec<u8> {
    let Message { origin, order, placed, rooms, except, is_volatile, audience, event } = message;
    let mut out = Vec::with_capacity(64 + event.name.len() + event.data.get().len());
    push_head(&mut out, *origin, flag(order.is_some(), KEPT) | flag(*is_volatile, VOLATILE));
    out.extend_from_slice(&order.unwrap_or(turn).to_be_bytes());
    push_count(&mut out, placed.len());
    for Placed { room, position } in placed {
        push_name(&mut out, room);
        let Position { epoch, seq } = position.unwrap_or(Position { epoch: 0, seq: 0 });
        out.extend_from_slice(&epoch.to_be_bytes());
        out.extend_from_slice(&seq.to_be_bytes());
    }
    push_names(&mut out, rooms);
    push_names(&mut out, except);
    out.extend_from_slice(&body::encode_event(event, *audience));
    out
}

/// Reads what tells a message from all others, without reading it whole.
///
/// # Errors
/// As [`decode_message`].
pub fn decode_stamp(message: &[u8]) -> Result<Stamp, String> {
    let mut reader = Reader { rest: message };
    let head = read_head(&mut reader).map_err(|failure| failure.why())?;
    Ok(Stamp { origin: head.origin, is_kept: head.flags & KEPT != 0, number: head.number })
}

/// Reads the message of a channel.
///
/// # Errors
/// Why it makes no sense, as a sentence: another version of the program sent it, or another program.
pub fn decode_message(message: &[u8]) -> Result<Message, String> {
    read(message).map_err(|failure| failure.why())
}

/// What the script needs to tell others of an event, beside the event: a message without what only the script knows,
/// its number and its placements.
pub(crate) fn encode_envelope(route: &Route) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    push_head(&mut out, route.origin, KEPT);
    push_names(&mut out, &route.rooms);
    push_names(&mut out, &route.except);
    out
}

struct Head {
    flags: u8,
    origin: u16,
    number: u64,
}

fn read_head(reader: &mut Reader<'_>) -> Result<Head, Failure> {
    reader.format(FORMAT)?;
    let flags = reader.u8()?;
    if flags & !(KEPT | VOLATILE) != 0 {
        return Err(Failure::Damaged(format!("a message has the flags {flags:#x}")));
    }
    Ok(Head { flags, origin: reader.u16()?, number: reader.u64()? })
}

fn read(message: &[u8]) -> Result<Message, Failure> {
    let mut reader = Reader { rest: message };
    let Head { flags, origin, number } = read_head(&mut reader)?;
    let mut placed = Vec::new();
    // What is counted need not be there: nothing is reserved for it.
    for _ in 0..reader.u32()? {
        let room = reader.name()?;
        let (epoch, seq) = (reader.u64()?, reader.u64()?);
        placed.push(Placed { room, position: (epoch != 0).then_some(Position { epoch, seq }) });
    }
    let (rooms, except) = (read_names(&mut reader)?, read_names(&mut reader)?);
    let (event, audience) = body::decode_event(reader.rest)?;
    let order = (flags & KEPT != 0).then_some(number);
    let is_volatile = flags & VOLATILE != 0;
    Ok(Message { origin, order, placed, rooms, except, is_volatile, audience, event })
}

fn read_names(reader: &mut Reader<'_>) -> Result<Vec<RoomName>, Failure> {
    let mut names = Vec::new();
    for _ in 0..reader.u32()? {
        names.push(reader.name()?);
    }
    Ok(names)
}

fn push_head(out: &mut Vec<u8>, origin: u16, flags: u8) {
    out.extend_from_slice(&[FORMAT, flags]);
    out.extend_from_slice(&origin.to_be_bytes());
}

fn push_names(out: &mut Vec<u8>, rooms: &[RoomName]) {
    push_count(out, rooms.len());
    rooms.iter().for_each(|room| push_name(out, room));
}

fn push_count(out: &mut Vec<u8>, count: usize) {
    let count = u32::try_from(count).expect("invariant: an event has a bounded number of rooms");
    out.extend_from_slice(&count.to_be_bytes());
}

fn push_name(out: &mut Vec<u8>, room: &RoomName) {
    let length = u16::try_from(room.as_str().len()).expect("invariant: names of rooms are short");
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(room.as_str().as_bytes());
}

fn flag(is: bool, flag: u8) -> u8 {
    if is { flag } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hub::event::{EventId, Shape};
    use hub::time::Timestamp;
    use proptest::prelude::*;
    use std::sync::Arc;
    use testkit::contract::sample::{event, room};

    fn rooms() -> impl Strategy<Value = Vec<RoomName>> {
        proptest::collection::vec("[a-zé:]{1,20}".prop_map(|name| room(&name)), 0..4)
    }

    fn placed() -> impl Strategy<Value = Vec<Placed>> {
        let position = proptest::option::of((1..u64::MAX, any::<u64>()));
        let one = ("[a-z]{1,9}", position).prop_map(|(name, position)| Placed {
            room: room(&name),
            position: position.map(|(epoch, seq)| Position { epoch, seq }),
        });
        proptest::collection::vec(one, 0..4)
    }

    fn any_event() -> impl Strategy<Value = Event> {
        let expiry = proptest::option::of(any::<u64>());
        let parts = (any::<u128>(), ".{0,20}", ".{0,40}", any::<u64>(), any::<bool>(), expiry);
        parts.prop_map(|(id, name, data, at, is_flat, expiry)| {
            let data = serde_json::value::to_raw_value(&data).expect("a text becomes JSON");
            let shape = if is_flat { Shape::Flat } else { Shape::Wrapped };
            let (id, name, data) = (EventId(id), name.into(), Arc::from(data));
            Event { id, name, data, at: Timestamp(at), shape, expires_at: expiry.map(Timestamp) }
        })
    }

    fn message() -> impl Strategy<Value = Message> {
        let audience = proptest::sample::select(vec![
            Audience::Rooms,
            Audience::Root,
            Audience::Ws,
            Audience::Logs,
            Audience::Admin,
        ]);
        let order = proptest::option::of(any::<u64>());
        (any::<u16>(), order, placed(), rooms(), rooms(), any::<bool>(), audience, any_event()).prop_map(
            |(origin, order, placed, rooms, except, is_volatile, audience, event)| Message {
                origin,
                order,
                placed,
                rooms,
                except,
                is_volatile,
                audience,
                event,
            },
        )
    }

    proptest! {
        #[test]
        fn messages_are_read_as_they_were_written(given in message(), turn in any::<u64>()) {
            let bytes = encode_message(&given, turn);
            let read = decode_message(&bytes).unwrap();
            prop_assert_eq!(format!("{:?}", read), format!("{:?}", given));
            let stamp = decode_stamp(&bytes).unwrap();
            prop_assert_eq!((stamp.origin, stamp.is_kept), (given.origin, given.order.is_some()));
            prop_assert_eq!(stamp.number, given.order.unwrap_or(turn));
        }

        #[test]
        fn cut_messages_are_refused(given in message(), cut in any::<prop::sample::Index>()) {
            let bytes = encode_message(&given, 1);
            // Its data is a text in quotes, so nothing shorter is whole.
            prop_assert!(decode_message(&bytes[..cut.index(bytes.len())]).is_err());
        }

        #[test]
        fn any_bytes_are_read_or_refused(
            bytes in proptest::collection::vec(any::<u8>(), 0..100),
            head in proptest::collection::vec(0..4_u8, 0..40),
        ) {
            for bytes in [bytes.clone(), [vec![FORMAT], head, bytes].concat()] {
                if decode_message(&bytes).is_ok() {
                    prop_assert_eq!(bytes[0], FORMAT);
                }
            }
        }
    }

    #[test]
    fn another_format_is_named() {
        let message = Message {
            origin: 1,
            order: None,
            placed: Vec::new(),
            rooms: vec![room("tasks")],
            except: Vec::new(),
            is_volatile: false,
            audience: Audience::Rooms,
            event: event("a", "1"),
        };
        let mut bytes = encode_message(&message, 7);
        bytes[0] = 9;
        assert_eq!(decode_message(&bytes).unwrap_err(), "a value has the unknown format 9");
        assert_eq!(decode_stamp(&bytes).unwrap_err(), "a value has the unknown format 9");
    }

    #[test]
    fn channels_carry_the_hash_tag() {
        assert_eq!(channel("fanfare", &room("project:1")), "{fanfare}:room:project:1");
        assert_eq!(audience_channel("fanfare", Audience::Logs), "{fanfare}:all:logs");
    }
}
