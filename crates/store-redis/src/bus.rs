//! Owns how an event that was kept is told to other servers: the channel of a room, and the message on it. Does not
//! subscribe. Invariant: bytes from outside never panic.
//!
//! With [`crate::Options::publishes`] the script that keeps an event publishes it, in the same step, once for each room
//! that keeps it:
//!
//! ```text
//! channel  {prefix}:room:<name>
//! message  1 | order: 8 | epoch: 8, or 0 | seq: 8, or 0 | event as in `body.rs`
//! ```
//!
//! Numbers are big-endian. Epoch and seq are 0 in rooms that keep the latest only. Messages of one room come in the order
//! of `order`, and those of a log without a gap in `seq`: a gap means that some were missed, which happens whenever the
//! subscriber's connection breaks, and that the log has them. A commit that is sent again because its answer was lost
//! publishes nothing a second time.

use hub::event::{Audience, Event, Position};
use hub::room::RoomName;

use crate::body::{self, Reader};
use crate::fault::Failure;

/// Format of messages; `lua/commit.lua` writes it.
const FORMAT: u8 = 1;

/// An event that some server has kept.
#[derive(Clone, Debug)]
pub struct Message {
    /// Its number among all events of the store.
    pub order: u64,
    /// Where it stands in the room's log; `None` where only the latest is kept.
    pub position: Option<Position>,
    /// The event.
    pub event: Event,
    /// Who hears of it.
    pub audience: Audience,
}

/// The channel on which a room's events are published, for the prefix of [`crate::Options::prefix`].
#[must_use]
pub fn channel(prefix: &str, room: &RoomName) -> String {
    format!("{{{prefix}}}:room:{room}")
}

/// Reads the message of a channel.
///
/// # Errors
/// Why it makes no sense, as a sentence: another version of the program sent it, or another program.
pub fn decode_message(message: &[u8]) -> Result<Message, String> {
    read(message).map_err(|failure| failure.why())
}

fn read(message: &[u8]) -> Result<Message, Failure> {
    let mut reader = Reader { rest: message };
    reader.format(FORMAT)?;
    let (order, epoch, seq) = (reader.u64()?, reader.u64()?, reader.u64()?);
    let (event, audience) = body::decode_event(reader.rest)?;
    Ok(Message { order, position: (epoch != 0).then_some(Position { epoch, seq }), event, audience })
}

#[cfg(test)]
mod tests {
    use super::*;
    use hub::event::{EventId, Shape};
    use hub::time::Timestamp;
    use proptest::prelude::*;
    use std::sync::Arc;
    use testkit::contract::sample::room;

    fn encode(message: &Message) -> Vec<u8> {
        let position = message.position.unwrap_or(Position { epoch: 0, seq: 0 });
        let numbers = [message.order, position.epoch, position.seq].map(u64::to_be_bytes).concat();
        [&[FORMAT][..], &numbers, &body::encode_event(&message.event, message.audience)].concat()
    }

    fn message() -> impl Strategy<Value = Message> {
        let position = proptest::option::of((1..u64::MAX, any::<u64>()));
        let audience = proptest::sample::select(vec![
            Audience::Rooms,
            Audience::Root,
            Audience::Ws,
            Audience::Logs,
            Audience::Admin,
        ]);
        let expiry = proptest::option::of(any::<u64>());
        let event = (any::<u128>(), ".{0,20}", ".{0,40}", any::<u64>(), any::<bool>(), expiry);
        (any::<u64>(), position, audience, event).prop_map(|(order, position, audience, event)| {
            let (id, name, data, at, is_flat, expiry) = event;
            let data = serde_json::value::to_raw_value(&data).expect("a text becomes JSON");
            let shape = if is_flat { Shape::Flat } else { Shape::Wrapped };
            let (id, name, data) = (EventId(id), name.into(), Arc::from(data));
            let (at, expires_at) = (Timestamp(at), expiry.map(Timestamp));
            let event = Event { id, name, data, at, shape, expires_at };
            let position = position.map(|(epoch, seq)| Position { epoch, seq });
            Message { order, position, event, audience }
        })
    }

    proptest! {
        #[test]
        fn messages_are_read_as_they_were_written(given in message()) {
            let read = decode_message(&encode(&given)).unwrap();
            prop_assert_eq!((read.order, read.position, read.audience), (given.order, given.position, given.audience));
            let parts = |event: &Event| {
                let data = event.data.get().to_owned();
                (event.id, event.name.clone(), data, event.at, event.shape, event.expires_at)
            };
            prop_assert_eq!(parts(&read.event), parts(&given.event));
        }

        #[test]
        fn cut_messages_are_refused(given in message(), cut in any::<prop::sample::Index>()) {
            let bytes = encode(&given);
            // Its data is a text in quotes, so nothing shorter is whole.
            prop_assert!(decode_message(&bytes[..cut.index(bytes.len())]).is_err());
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            if decode_message(&bytes).is_ok() {
                prop_assert_eq!(bytes[0], FORMAT);
            }
        }
    }

    #[test]
    fn channels_carry_the_hash_tag() {
        assert_eq!(channel("fanfare", &room("project:1")), "{fanfare}:room:project:1");
    }
}
