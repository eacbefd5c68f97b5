//! Owns one socket: a session's membership in a namespace, and the rooms it is in.
//! Does not know transports. Invariant: a socket's memberships mirror the rooms' member lists.

use std::collections::VecDeque;
use std::rc::Rc;

use eio_proto::Sid;
use smallvec::SmallVec;

use crate::moment::Moment;
use crate::recovery::Carried;
use crate::restore::Shown;
use crate::room::{NamespaceIndex, RoomIndex};
use crate::session::SessionKey;
use crate::slab::Key;

/// Names one socket of a shard. A socket that is lost and recovered on the same shard keeps its key.
pub type SocketKey = Key<SocketTag>;

/// Marks keys of sockets.
pub enum SocketTag {}

pub(crate) struct Socket {
    /// [`Key::NONE`] while the socket is lost.
    pub(crate) session: SessionKey,
    /// The public id; also the name of the socket's own room.
    pub(crate) sid: Sid,
    /// The secret by which the peer claims this socket again. `None` if it is not recoverable.
    pub(crate) pid: Option<Sid>,
    /// Meaningless while connecting.
    pub(crate) namespace: NamespaceIndex,
    pub(crate) state: State,
    /// Position in the namespace's list of all sockets.
    pub(crate) everyone_position: u32,
    /// Scratch for broadcasts to several rooms: the last broadcast that saw this socket.
    pub(crate) mark: u32,
    /// Acks that the peer owes us.
    pub(crate) acks_owed: u32,
    /// Position of the recovery log when the socket connected: what came before is not for it.
    pub(crate) since: u64,
    /// Position of the recovery log up to which the peer is known to have read; 0 if nothing is known.
    pub(crate) read: u64,
    pub(crate) memberships: SmallVec<[Membership; 2]>,
    /// Rooms it has left that events were sent to while it was in them.
    pub(crate) past: Option<Box<Past>>,
    /// Events that this socket missed on another shard and may ask for once more.
    pub(crate) carried: Option<Box<Carried>>,
}

/// Where a socket is in its life.
pub(crate) enum State {
    /// The application has not answered yet.
    Connecting(Box<Connecting>),
    Connected,
    /// Its link is gone; it stays in its rooms, and events for it go to the log only.
    Lost {
        until: Moment,
    },
}

/// What is remembered of a CONNECT until the application answers.
pub(crate) struct Connecting {
    pub(crate) namespace: Box<str>,
    /// Whether its handshake, or its own word, says that it understands recovery.
    pub(crate) wants_recovery: bool,
    /// The auth payload, kept while another shard is asked for the socket.
    pub(crate) auth: Option<Box<[u8]>>,
    /// The log position after which to replay, if this socket is being recovered.
    pub(crate) resume: Option<Resume>,
    /// What the peer has shown, until somebody has said what becomes of that.
    pub(crate) shown: Option<Shown>,
}

/// From where a recovered socket goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Resume {
    /// How many of the carried events the peer has already.
    pub(crate) carried_seen: usize,
    /// The newest event of this shard's log that the peer has.
    pub(crate) after: u64,
    /// The application's number up to which the peer has all that is numbered, wherever it got it; 0 if that says no more.
    pub(crate) seen_number: u64,
    /// Until when the socket goes back to being lost, should the application refuse it.
    pub(crate) lost_until: Moment,
}

/// One room that a socket is in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Membership {
    pub(crate) room: RoomIndex,
    pub(crate) position: u32,
    /// Low half of the log position at the join: earlier events of the room are not replayed.
    pub(crate) since: u32,
}

/// Rooms that a socket has left: what was sent to them before may not have reached it yet.
#[derive(Default)]
pub(crate) struct Past {
    /// Bounded by [`Past::LEN_MAX`], oldest first.
    pub(crate) stays: VecDeque<Stay>,
    /// Stays that ended at or before this log position have been forgotten.
    pub(crate) forgotten_until: u64,
}

impl Past {
    /// A socket that leaves more rooms than this while their events are kept is recovered only if it has read
    /// further than the stays that were forgotten.
    pub(crate) const LEN_MAX: usize = 64;
}

/// One stay in a room: from after `since` up to `until`, both positions of the log.
pub(crate) struct Stay {
    pub(crate) room: Rc<str>,
    pub(crate) since: u32,
    pub(crate) until: u64,
}

impl Socket {
    /// It had its rooms before, and will have them again: it waits to be claimed, or for the application's word on
    /// that. Events for it go to the log.
    pub(crate) fn is_away(&self) -> bool {
        match &self.state {
            State::Lost { .. } => true,
            State::Connecting(connecting) => connecting.resume.is_some(),
            State::Connected => false,
        }
    }

    pub(crate) fn is_connected(&self) -> bool {
        matches!(self.state, State::Connected)
    }

    /// Whether events can be replayed to it: then they carry an offset.
    pub(crate) fn gets_offsets(&self) -> bool {
        self.pid.is_some()
    }
}
