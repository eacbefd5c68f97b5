//! Owns which channels nodes tell each other events on, and what Redis calls them. Does not know who listens.

use hub::event::Audience;
use hub::room::RoomName;
use store_redis::bus::{audience_channel, audience_name, channel};

/// What a node may listen to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Channel {
    /// Events for a room, kept or not.
    Room(RoomName),
    /// Events for everybody of an audience.
    Everyone(Audience),
}

/// Every audience there is.
const AUDIENCES: [Audience; 5] =
    [Audience::Rooms, Audience::Root, Audience::Ws, Audience::Logs, Audience::Admin];

impl Channel {
    /// What Redis calls it, in the deployment of this prefix.
    pub(crate) fn name(&self, prefix: &str) -> String {
        match self {
            Channel::Room(room) => channel(prefix, room),
            Channel::Everyone(audience) => audience_channel(prefix, *audience),
        }
    }

    /// Reads what follows the prefix and its colon in a name; `None` if it is no channel of events.
    pub(crate) fn parse(rest: &[u8]) -> Option<Self> {
        if let Some(room) = rest.strip_prefix(b"room:") {
            return Some(Channel::Room(RoomName::parse(std::str::from_utf8(room).ok()?).ok()?));
        }
        let name = rest.strip_prefix(b"all:")?;
        let audience = AUDIENCES.into_iter().find(|audience| audience_name(*audience).as_bytes() == name);
        audience.map(Channel::Everyone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        let room = RoomName::parse("project:a:b").unwrap();
        for channel in AUDIENCES.map(Channel::Everyone).into_iter().chain([Channel::Room(room)]) {
            let name = channel.name("p");
            let rest = name.strip_prefix("{p}:").unwrap();
            assert_eq!(Channel::parse(rest.as_bytes()), Some(channel), "{name}");
        }
        for foreign in ["room:", "all:nobody", "node:1", "room:\u{7}", "", "rooms"] {
            assert_eq!(Channel::parse(foreign.as_bytes()), None, "{foreign}");
        }
        assert_eq!(Channel::parse(b"room:\xff"), None);
    }
}
