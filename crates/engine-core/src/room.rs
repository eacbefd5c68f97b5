//! Owns rooms: names to members, and where in its room each member sits.
//! Does not know sessions beyond their slot. Invariant: a room exists exactly while it has members.

use std::rc::Rc;

use foldhash::fast::RandomState;
use hashbrown::{Equivalent, HashMap};

/// Index of a namespace in the shard.
pub(crate) type NamespaceIndex = u16;
/// Index of a room in the shard.
pub(crate) type RoomIndex = u32;

/// One socket in one room. Carries what a broadcast needs, so that it need not touch the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) socket: u32,
    /// Session slot, [`Member::LOST`] while the socket waits to be recovered; the top bit tells whether it gets
    /// recovery offsets.
    session: u32,
}

impl Member {
    const LOST: u32 = u32::MAX >> 1;
    const OFFSETS: u32 = 1 << 31;

    pub(crate) fn new(socket: u32, session: Option<u32>, gets_offsets: bool) -> Self {
        let session = session.unwrap_or(Self::LOST) & !Self::OFFSETS;
        Self { socket, session: if gets_offsets { session | Self::OFFSETS } else { session } }
    }

    #[inline]
    pub(crate) fn session(self) -> Option<u32> {
        let session = self.session & !Self::OFFSETS;
        if session == Self::LOST { None } else { Some(session) }
    }

    #[inline]
    pub(crate) fn gets_offsets(self) -> bool {
        self.session & Self::OFFSETS != 0
    }
}

pub(crate) struct Room {
    pub(crate) namespace: NamespaceIndex,
    pub(crate) name: Rc<str>,
    pub(crate) members: Vec<Member>,
    /// All sockets of the namespace: found by index only, and kept while empty.
    pub(crate) is_everyone: bool,
    /// Low half of the log position of the last event kept that names this room; 0 if there was none.
    pub(crate) last_kept: u32,
}

#[derive(PartialEq, Eq, Hash)]
struct RoomId {
    namespace: NamespaceIndex,
    name: Rc<str>,
}

#[derive(Hash)]
struct RoomRef<'a> {
    namespace: NamespaceIndex,
    name: &'a str,
}

impl Equivalent<RoomId> for RoomRef<'_> {
    fn equivalent(&self, id: &RoomId) -> bool {
        self.namespace == id.namespace && self.name == &*id.name
    }
}

/// All rooms of a shard.
pub(crate) struct Rooms {
    by_name: HashMap<RoomId, RoomIndex, RandomState>,
    rooms: Vec<Option<Room>>,
    free: Vec<RoomIndex>,
}

/// Where a new member was put.
pub(crate) struct Joined {
    pub(crate) room: RoomIndex,
    pub(crate) position: u32,
    /// The room did not exist before.
    pub(crate) opened: bool,
}

/// What a leaving member leaves behind.
pub(crate) struct Left {
    /// The member that now sits where the leaver sat.
    pub(crate) moved: Option<Member>,
    /// The room's name, if it is gone now.
    pub(crate) closed: Option<Rc<str>>,
}

impl Rooms {
    pub(crate) fn new() -> Self {
        Self { by_name: HashMap::default(), rooms: Vec::new(), free: Vec::new() }
    }

    pub(crate) fn find(&self, namespace: NamespaceIndex, name: &str) -> Option<RoomIndex> {
        self.by_name.get(&RoomRef { namespace, name }).copied()
    }

    pub(crate) fn room(&self, room: RoomIndex) -> &Room {
        self.rooms[room as usize].as_ref().expect("invariant: memberships name live rooms")
    }

    pub(crate) fn room_mut(&mut self, room: RoomIndex) -> &mut Room {
        self.rooms[room as usize].as_mut().expect("invariant: memberships name live rooms")
    }

    pub(crate) fn members_mut(&mut self, room: RoomIndex) -> &mut Vec<Member> {
        &mut self.room_mut(room).members
    }

    /// Rooms with members.
    pub(crate) fn len(&self) -> usize {
        self.by_name.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Room> {
        self.rooms.iter().flatten()
    }

    /// Creates a room without a name, which lives until [`Rooms::remove_nameless`]: all sockets of a namespace.
    pub(crate) fn add_nameless(&mut self, namespace: NamespaceIndex) -> RoomIndex {
        self.put(Room { namespace, name: Rc::from(""), members: Vec::new(), is_everyone: true, last_kept: 0 })
    }

    pub(crate) fn remove_nameless(&mut self, room: RoomIndex) {
        self.rooms[room as usize] = None;
        self.free.push(room);
    }

    fn put(&mut self, room: Room) -> RoomIndex {
        match self.free.pop() {
            Some(index) => {
                self.rooms[index as usize] = Some(room);
                index
            }
            None => {
                self.rooms.push(Some(room));
                u32::try_from(self.rooms.len() - 1).expect("invariant: fewer than 2^32 rooms fit in memory")
            }
        }
    }

    /// Adds a member to the room called `name`. The caller knows that it is not in there yet.
    pub(crate) fn join(&mut self, namespace: NamespaceIndex, name: &str, member: Member) -> Joined {
        let (room, opened) = match self.find(namespace, name) {
            Some(room) => (room, false),
            None => {
                let name: Rc<str> = Rc::from(name);
                let room = self.put(Room {
                    namespace,
                    name: name.clone(),
                    members: Vec::new(),
                    is_everyone: false,
                    last_kept: 0,
                });
                self.by_name.insert(RoomId { namespace, name }, room);
                (room, true)
            }
        };
        Joined { room, position: self.add(room, member), opened }
    }

    /// Adds a member to a room known by index.
    pub(crate) fn add(&mut self, room: RoomIndex, member: Member) -> u32 {
        let members = &mut self.room_mut(room).members;
        members.push(member);
        u32::try_from(members.len() - 1).expect("invariant: fewer than 2^32 members fit in memory")
    }

    /// Takes the member at `position` out; a named room without members is gone.
    pub(crate) fn leave(&mut self, room: RoomIndex, position: u32) -> Left {
        let entry = self.room_mut(room);
        entry.members.swap_remove(position as usize);
        let moved = entry.members.get(position as usize).copied();
        if entry.members.is_empty() && !entry.is_everyone {
            let gone = self.rooms[room as usize].take().expect("invariant: it was there a line ago");
            self.by_name.remove(&RoomRef { namespace: gone.namespace, name: &gone.name });
            self.free.push(room);
            return Left { moved, closed: Some(gone.name) };
        }
        // A room that was once huge must not keep its table.
        if entry.members.capacity() > 64 && entry.members.len() < entry.members.capacity() / 4 {
            entry.members.shrink_to(entry.members.len() * 2);
        }
        Left { moved, closed: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_room_lives_exactly_as_long_as_it_has_members() {
        let mut rooms = Rooms::new();
        let first = rooms.join(0, "a", Member::new(1, Some(1), false));
        let second = rooms.join(0, "a", Member::new(2, Some(2), true));
        assert!(first.opened && !second.opened);
        assert_eq!(rooms.find(1, "a"), None, "rooms belong to a namespace");
        let left = rooms.leave(first.room, first.position);
        assert_eq!(left.moved.map(|member| member.socket), Some(2));
        assert!(left.closed.is_none());
        let left = rooms.leave(second.room, 0);
        assert_eq!(left.closed.as_deref(), Some("a"));
        assert_eq!(rooms.find(0, "a"), None);
        assert_eq!(rooms.len(), 0);
    }

    #[test]
    fn a_member_knows_its_session_and_whether_it_gets_offsets() {
        let member = Member::new(3, Some(7), true);
        assert_eq!((member.session(), member.gets_offsets()), (Some(7), true));
        let lost = Member::new(3, None, true);
        assert_eq!((lost.session(), lost.gets_offsets()), (None, true));
        assert_eq!(Member::new(3, Some(0), false).session(), Some(0));
    }
}
