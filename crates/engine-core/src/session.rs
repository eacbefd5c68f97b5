//! Owns one Engine.IO session: its transport, its heartbeat, and what waits to be sent.
//! Does not know HTTP, sockets' rooms or the application. Invariant: one transport at a time speaks for a session.

use std::time::Duration;

use eio_proto::{Revision, Sid};
use sio_proto::Assembler;
use smallvec::SmallVec;

use crate::link::LinkKey;
use crate::moment::Moment;
use crate::outbox::Outbox;
use crate::slab::Key;

/// Names one session of a shard.
pub type SessionKey = Key<SessionTag>;

/// Marks keys of sessions.
pub enum SessionTag {}

/// The driver's name for one HTTP request that awaits its reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// What a request that opens a session says about the peer.
#[derive(Clone, Copy, Debug)]
pub struct Opening {
    /// Protocol revision, from `EIO` in the query.
    pub revision: Revision,
    /// The peer asked for binary as base64, by `b64` in the query.
    pub base64: bool,
    /// The peer looks like a JavaScript client, which understands connection state recovery.
    pub is_javascript: bool,
    /// The link agreed to permessage-deflate. WebSocket only.
    pub deflate: bool,
}

pub(crate) struct Session {
    pub(crate) sid: Sid,
    pub(crate) revision: Revision,
    pub(crate) base64: bool,
    pub(crate) is_javascript: bool,
    /// Queued for the next flush.
    pub(crate) is_dirty: bool,
    pub(crate) transport: Transport,
    pub(crate) heartbeat: Heartbeat,
    /// By when a namespace must have been joined; `None` once one has.
    pub(crate) connect_by: Option<Moment>,
    /// The wheel tick whose firing counts; others are stale.
    pub(crate) timer_tick: u64,
    pub(crate) outbox: Outbox,
    /// Slots of its sockets, in the order they connected.
    pub(crate) sockets: SmallVec<[u32; 4]>,
    /// A Socket.IO packet whose attachments have not all arrived.
    pub(crate) assembler: Assembler,
}

/// Who speaks for a session.
pub(crate) enum Transport {
    Polling(Box<Poll>),
    /// A WebSocket is about to take over from polling. EIO4 "Upgrade".
    Probing(Box<Probe>),
    WebSocket(LinkKey),
    /// Closed by us; the next GET takes what is queued and the close packet.
    Closing(Box<Closing>),
}

/// The HTTP requests that a polling session has open: at most one of each kind.
#[derive(Default)]
pub(crate) struct Poll {
    pub(crate) get: Option<RequestId>,
    pub(crate) post: Option<RequestId>,
}

pub(crate) struct Probe {
    pub(crate) poll: Poll,
    pub(crate) link: LinkKey,
    /// When the attempt is given up.
    pub(crate) until: Moment,
    /// When a waiting GET is next answered with a noop; `None` before the probe packet has come.
    pub(crate) noop_at: Option<Moment>,
    /// The session has been closed, and only waits for the peer to finish, so that it gets what is queued.
    pub(crate) is_closing: bool,
}

pub(crate) struct Closing {
    pub(crate) until: Moment,
}

impl Transport {
    /// The open polling requests, while polling speaks for the session.
    pub(crate) fn poll_mut(&mut self) -> Option<&mut Poll> {
        match self {
            Transport::Polling(poll) => Some(poll),
            Transport::Probing(probe) => Some(&mut probe.poll),
            Transport::WebSocket(_) | Transport::Closing(_) => None,
        }
    }
}

/// The one running heartbeat timer of a session. EIO4 "Heartbeat".
#[derive(Clone, Copy, Debug)]
pub(crate) enum Heartbeat {
    /// Revision 4: the next ping is due.
    Ping { at: Moment },
    /// Revision 4: a pong is due. `extended` once another packet has restarted the wait. `mark` is the low half of
    /// the log's position when the ping was queued: a pong says that the peer has read what came before.
    Pong { at: Moment, extended: bool, mark: u32 },
    /// Revision 3: the peer's next ping is due.
    PeerPing { at: Moment },
}

impl Heartbeat {
    pub(crate) fn begin(revision: Revision, now: Moment, interval: Duration, timeout: Duration) -> Self {
        match revision {
            Revision::V4 => Heartbeat::Ping { at: now + interval },
            Revision::V3 => Heartbeat::PeerPing { at: now + interval + timeout },
        }
    }

    pub(crate) fn at(self) -> Moment {
        match self {
            Heartbeat::Ping { at } | Heartbeat::Pong { at, .. } | Heartbeat::PeerPing { at } => at,
        }
    }
}

impl Session {
    /// When something is next due, whatever it is.
    pub(crate) fn deadline(&self) -> Moment {
        let mut at = match &self.transport {
            // A closing session has no heartbeat any more.
            Transport::Closing(closing) => return closing.until,
            Transport::Probing(probe) if probe.is_closing => {
                return probe.until.min(probe.noop_at.unwrap_or(probe.until));
            }
            Transport::Probing(probe) => {
                probe.until.min(probe.noop_at.unwrap_or(probe.until)).min(self.heartbeat.at())
            }
            Transport::Polling(_) | Transport::WebSocket(_) => self.heartbeat.at(),
        };
        if let Some(connect_by) = self.connect_by {
            at = at.min(connect_by);
        }
        at
    }

    pub(crate) fn link(&self) -> Option<LinkKey> {
        match self.transport {
            Transport::WebSocket(link) => Some(link),
            Transport::Polling(_) | Transport::Probing(_) | Transport::Closing(_) => None,
        }
    }
}
