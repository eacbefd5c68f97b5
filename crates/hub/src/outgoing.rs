//! Owns an event as a rule decides it: name, data, whom it is for. Does not know its id, its moment or how its rooms keep
//! it; whoever commits it adds those.

use std::borrow::Cow;
use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::event::{Audience, Shape};
use crate::json::Json;
use crate::room::RoomName;
use crate::seconds::Seconds;

/// An event that a rule wants to be told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outgoing {
    /// Its name on the wire.
    pub name: Cow<'static, str>,
    /// Its data.
    pub data: Json,
    /// What travels.
    pub shape: Shape,
    /// Who hears of it. With [`Audience::Rooms`] the members of `rooms`, the others as a whole.
    pub audience: Audience,
    /// Where it goes and is kept; a socket in several of them gets it once. Empty for the other audiences: nothing is
    /// kept there.
    #[serde(serialize_with = "write_rooms", deserialize_with = "read_rooms")]
    pub rooms: Vec<RoomName>,
    /// Rooms whose members do not get it; a socket's id is such a room.
    #[serde(serialize_with = "write_rooms", deserialize_with = "read_rooms")]
    pub except: Vec<RoomName>,
    /// What "the newest of each" means where only the latest is kept; empty if it has no key.
    pub key: Box<str>,
    /// Whether no log keeps it. Sockets that are slow may miss it, unless it has a `ttl`: then they get it as any other.
    pub volatile: bool,
    /// How long it is of use, from when it is published; `None` is for as long as it is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Seconds>,
}

impl Outgoing {
    /// An event for the members of rooms, which get its data as the argument.
    ///
    /// `data` is one of our own payload types, so it can always be written as JSON.
    #[must_use]
    pub fn flat(name: &'static str, data: &impl Serialize, rooms: Vec<RoomName>) -> Self {
        Self {
            name: Cow::Borrowed(name),
            data: Json::of(data),
            shape: Shape::Flat,
            audience: Audience::Rooms,
            rooms,
            except: Vec::new(),
            key: Box::default(),
            volatile: false,
            ttl: None,
        }
    }

    /// The same, wrapped.
    #[must_use]
    pub fn wrapped(name: &'static str, data: &impl Serialize, rooms: Vec<RoomName>) -> Self {
        Self { shape: Shape::Wrapped, ..Self::flat(name, data, rooms) }
    }

    /// An event for the whole of another audience. Flat.
    #[must_use]
    pub fn to_all(name: &'static str, data: &impl Serialize, audience: Audience) -> Self {
        Self { audience, ..Self::flat(name, data, Vec::new()) }
    }

    /// The same event with a key.
    #[must_use]
    pub fn keyed(self, key: &str) -> Self {
        Self { key: key.into(), ..self }
    }

    /// The same event, kept nowhere, but given to whoever is there, however slow.
    #[must_use]
    pub fn transient(self) -> Self {
        // Long enough for a polling socket to ask again.
        Self { volatile: true, ttl: Some(Seconds::new(Duration::from_secs(30))), ..self }
    }

    /// The same event, kept nowhere.
    #[must_use]
    pub fn volatile(self) -> Self {
        Self { volatile: true, ..self }
    }
}

fn write_rooms<S: Serializer>(rooms: &[RoomName], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(rooms.iter().map(RoomName::as_str))
}

fn read_rooms<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<RoomName>, D::Error> {
    let names = Vec::<Box<str>>::deserialize(from)?;
    names.into_iter().map(RoomName::parse).collect::<Result<_, _>>().map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_written_is_read_again() {
        let rooms = vec![RoomName::parse("tasks").unwrap()];
        let event = Outgoing::wrapped("task_update", &json!({"n": 1}), rooms).keyed("t7").volatile();
        let text = serde_json::to_string(&event).unwrap();
        assert_eq!(serde_json::from_str::<Outgoing>(&text).unwrap(), event);
        let spoilt = text.replace("tasks", "");
        assert!(serde_json::from_str::<Outgoing>(&spoilt).is_err(), "a room without a name");
    }

    #[test]
    fn other_audiences_name_no_room() {
        let event = Outgoing::to_all("log", &json!({}), Audience::Logs);
        assert_eq!((event.rooms.len(), event.shape, event.audience), (0, Shape::Flat, Audience::Logs));
    }
}
