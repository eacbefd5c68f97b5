//! Owns joins that somebody waits for. Does not know mailboxes. Invariant: such a join is all rooms or none.

use engine_core::{JoinFault, Shard, SocketKey};

/// What [`Socket::join_waiting`](crate::Socket::join_waiting) has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joined {
    /// It is in all the rooms, and everybody knows.
    Done,
    /// It would be in more than [`Config::rooms_per_socket_max`](engine_core::Config::rooms_per_socket_max) rooms: it
    /// joined none of these.
    TooManyRooms {
        /// The limit.
        max: usize,
    },
    /// The socket is not connected (any more), or the server has stopped.
    Gone,
}

/// What [`Broadcaster::sockets_join_waiting`](crate::Broadcaster::sockets_join_waiting) has come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JoinedAll {
    /// Sockets that are in all the rooms now.
    pub joined: usize,
    /// Sockets that would have been in more than
    /// [`Config::rooms_per_socket_max`](engine_core::Config::rooms_per_socket_max) rooms: they joined none of these.
    pub refused: usize,
}

/// Has a socket join all rooms or none.
pub(crate) fn join(core: &mut Shard, socket: SocketKey, rooms: &[Box<str>]) -> Joined {
    let mut new = Vec::new();
    for room in rooms {
        match core.join(socket, room) {
            Ok(true) => new.push(room),
            Ok(false) => {}
            Err(fault) => {
                for room in new {
                    core.leave(socket, room);
                }
                return match fault {
                    JoinFault::NotConnected => Joined::Gone,
                    JoinFault::TooManyRooms { max } => Joined::TooManyRooms { max },
                };
            }
        }
    }
    Joined::Done
}

/// Has several sockets join.
pub(crate) fn join_all(core: &mut Shard, sockets: Vec<SocketKey>, rooms: &[Box<str>]) -> JoinedAll {
    let mut all = JoinedAll::default();
    for socket in sockets {
        match join(core, socket, rooms) {
            Joined::Done => all.joined += 1,
            Joined::TooManyRooms { .. } => all.refused += 1,
            Joined::Gone => {}
        }
    }
    all
}
