//! Owns what the shard wants done: replies, links to close, and what the application should hear.
//! Invariant: outputs come in the order in which their causes were handled.

use std::ops::Range;
use std::rc::Rc;

use bytes::Bytes;
use eio_proto::{HandshakeFault, Sid};

use crate::ack::AckToken;
use crate::link::LinkKey;
use crate::reason::Reason;
use crate::session::{RequestId, SessionKey};
use crate::socket::SocketKey;

/// How to answer an HTTP request.
#[derive(Debug, PartialEq, Eq)]
pub enum Reply {
    /// `200` with packets. EIO4 "HTTP long-polling".
    Payload {
        /// The body.
        body: Vec<u8>,
        /// Revision 3's binary framing: `application/octet-stream` instead of `text/plain; charset=UTF-8`.
        is_octets: bool,
        /// Whether any packet in it may be compressed.
        compress: bool,
        /// The session that this reply opens, for cookies and header hooks.
        opens: Option<(SessionKey, Sid)>,
    },
    /// `200` with body `ok`: a POST was taken.
    Ok,
    /// The refusal's own status and JSON body.
    Refused(HandshakeFault),
    /// `400` without a body: the request broke a transport rule, and its session is closed.
    BadRequest,
}

/// One thing to do, or to tell the application. Borrows from the shard until the next call.
#[derive(Debug)]
pub enum Output<'a> {
    /// Answer an HTTP request.
    Reply {
        /// Which request.
        request: RequestId,
        /// The answer.
        reply: Reply,
    },
    /// Write what the link has staged, then close it. The driver says
    /// [`Shard::handle_link_closed`](crate::Shard::handle_link_closed) when that is done.
    CloseLink {
        /// Which link.
        link: LinkKey,
    },
    /// A peer asks to join a namespace. Answer with [`Shard::accept`](crate::Shard::accept) or
    /// [`Shard::refuse`](crate::Shard::refuse), at once or later. A lost socket may be asked about again, under the same key,
    /// for another peer before the first answer is there: then only the answer to the newest question may be given. SIO5
    /// "Connection to a namespace".
    Connect {
        /// The socket-to-be.
        socket: SocketKey,
        /// Its session.
        session: SessionKey,
        /// The namespace, `/` first.
        namespace: &'a str,
        /// The auth payload as it came: JSON text or a msgpack map.
        auth: Option<&'a [u8]>,
        /// The peer has proved to be a socket that was lost; if accepted, it gets its rooms and missed events.
        recovering: bool,
    },
    /// A peer claims a socket that another shard lost. Ask that shard by
    /// [`Shard::handle_claim`](crate::Shard::handle_claim); its answer says how to go on. The index comes from what
    /// the peer wrote: there may be no such shard, which is [`Claim::Unknown`](crate::Claim::Unknown).
    Claim {
        /// The socket-to-be.
        socket: SocketKey,
        /// Index of the shard to ask.
        shard: u8,
        /// The namespace it is for.
        namespace: &'a str,
        /// The secret by which it is claimed.
        pid: Sid,
        /// The last event the peer has seen, if any.
        offset: Option<&'a str>,
    },
    /// A peer asks for a socket that no shard knows, or none can give back without a gap: the application may remember
    /// it. Answer with [`Shard::handle_restored`](crate::Shard::handle_restored) within
    /// [`Config::restore_timeout`](crate::Config::restore_timeout).
    Restore {
        /// The socket-to-be.
        socket: SocketKey,
        /// Its session.
        session: SessionKey,
        /// The namespace it is for.
        namespace: &'a str,
        /// The secret that the peer has shown.
        pid: Sid,
        /// The application's number in the offset that the peer has shown: it says that it has everything up to there.
        order: Option<u64>,
        /// The auth payload as it came.
        auth: Option<&'a [u8]>,
    },
    /// A socket is moving. Wait until every broadcast that was being sent at the moment of this output has reached the
    /// mailboxes it is meant for; then mail [`Shard::handle_settled`](crate::Shard::handle_settled) to shard `to`,
    /// behind all of them. Senders that begin after this output must know of the rooms that were opened here before.
    Settle {
        /// The socket's secret.
        pid: Sid,
        /// The shard to tell; it may be this one.
        to: u8,
    },
    /// A socket born on another shard lives here now: tell that one by
    /// [`Shard::handle_adopted`](crate::Shard::handle_adopted).
    Adopted {
        /// Tells which shard, by [`Shard::home_of`](crate::Shard::home_of).
        pid: Sid,
    },
    /// A socket recovered here was born on another shard, which keeps a note of where it went: that note can go.
    ReleaseClaim {
        /// Names the note, and tells which shard, by [`Shard::home_of`](crate::Shard::home_of).
        pid: Sid,
    },
    /// A message arrived, and Engine.IO is all that is spoken
    /// ([`Config::raw_messages`](crate::Config::raw_messages)).
    Message {
        /// From whom.
        session: SessionKey,
        /// The message; UTF-8 unless it is binary.
        data: &'a [u8],
        /// Whether it came as binary.
        is_binary: bool,
    },
    /// An event arrived.
    Event {
        /// From whom.
        socket: SocketKey,
        /// The event's name.
        name: &'a str,
        /// The arguments, as `sio_proto` gives them: JSON texts joined by commas, or msgpack values.
        elements: &'a [u8],
        /// How many arguments.
        count: u32,
        /// Binary arguments.
        attachments: &'a [Bytes],
        /// Set if the peer awaits an ack: answer with [`Shard::answer`](crate::Shard::answer).
        ack_id: Option<u64>,
    },
    /// An awaited ack arrived.
    Ack {
        /// Which emit.
        token: AckToken,
        /// From whom.
        socket: SocketKey,
        /// The answer's arguments.
        elements: &'a [u8],
        /// How many arguments.
        count: u32,
        /// Binary arguments.
        attachments: Vec<Bytes>,
        /// Nobody else is awaited.
        last: bool,
    },
    /// The wait for acks is over.
    AckTimeout {
        /// Which emit.
        token: AckToken,
        /// Who did not answer.
        missing: Vec<SocketKey>,
    },
    /// Everyone who still owed an ack is gone.
    AckLost {
        /// Which emit.
        token: AckToken,
    },
    /// A socket that was accepted is gone, or a CONNECT that is still unanswered is void.
    Disconnected {
        /// Which socket.
        socket: SocketKey,
        /// Why.
        reason: Reason,
        /// The rooms it was in, its own apart.
        rooms: Vec<Rc<str>>,
        /// It may come back under the same key: keep what belongs to it until [`Output::Forgotten`].
        is_recoverable: bool,
    },
    /// A lost socket was not claimed in time, was claimed on another shard, or began anew under another key: drop what
    /// belongs to it.
    Forgotten {
        /// Which socket.
        socket: SocketKey,
    },
    /// A session is over. Its sockets have been reported before.
    SessionClosed {
        /// Which session.
        session: SessionKey,
        /// Why.
        reason: Reason,
    },
    /// A room, or with an empty name a namespace, has its first member here: other shards now mail it broadcasts.
    RoomOpened {
        /// The namespace.
        namespace: &'a str,
        /// The room; empty for the namespace as a whole.
        room: &'a str,
    },
    /// A room, or with an empty name a namespace, has lost its last member here.
    RoomClosed {
        /// The namespace.
        namespace: &'a str,
        /// The room; empty for the namespace as a whole.
        room: &'a str,
    },
}

pub(crate) type Span = Range<u32>;

pub(crate) enum Pending {
    Reply {
        request: RequestId,
        /// `None` once it has been handed out.
        reply: Option<Box<Reply>>,
    },
    CloseLink {
        link: LinkKey,
    },
    Connect {
        socket: SocketKey,
        session: SessionKey,
        namespace: Span,
        auth: Option<Span>,
        recovering: bool,
    },
    Claim {
        socket: SocketKey,
        shard: u8,
        namespace: Span,
        pid: Sid,
        offset: Option<Span>,
    },
    Restore {
        socket: SocketKey,
        session: SessionKey,
        namespace: Span,
        pid: Sid,
        order: Option<u64>,
        auth: Option<Span>,
    },
    Settle {
        pid: Sid,
        to: u8,
    },
    Adopted {
        pid: Sid,
    },
    ReleaseClaim {
        pid: Sid,
    },
    Message {
        session: SessionKey,
        data: Span,
        is_binary: bool,
    },
    Event {
        socket: SocketKey,
        name: Span,
        elements: Span,
        count: u32,
        attachments: Attachments,
        ack_id: Option<u64>,
    },
    Ack {
        token: AckToken,
        socket: SocketKey,
        elements: Span,
        count: u32,
        attachments: Attachments,
        last: bool,
    },
    AckTimeout {
        token: AckToken,
        missing: Vec<SocketKey>,
    },
    AckLost {
        token: AckToken,
    },
    Disconnected {
        socket: SocketKey,
        reason: Reason,
        rooms: Vec<Rc<str>>,
        is_recoverable: bool,
    },
    Forgotten {
        socket: SocketKey,
    },
    SessionClosed {
        session: SessionKey,
        reason: Reason,
    },
    RoomOpened {
        namespace: Rc<str>,
        room: Rc<str>,
    },
    RoomClosed {
        namespace: Rc<str>,
        room: Rc<str>,
    },
}

/// Most events have no attachment: a null pointer for them.
pub(crate) type Attachments = Option<Box<Vec<Bytes>>>;

/// Outputs that wait to be polled. Their bytes lie in one arena that is reused once all are taken.
///
/// An output is read where it lies and stays there until all have been handed out: to move each out, into what the
/// driver gets, cost a tenth of the time that an event takes (`cargo xtask bench --only ingest`).
#[derive(Default)]
pub(crate) struct Outputs {
    pending: Vec<Pending>,
    /// How many of `pending` have been handed out.
    polled: usize,
    arena: Vec<u8>,
    /// Names, apart from the other bytes so that they need not be checked for UTF-8 again.
    texts: String,
}

impl Outputs {
    /// An arena that grew for one burst is given back beyond this: 1 MiB holds a read's worth of events many times.
    const ARENA_KEPT: usize = 1 << 20;
    /// The same for the outputs themselves.
    const PENDING_KEPT: usize = 8_192;

    pub(crate) fn push(&mut self, output: Pending) {
        self.pending.push(output);
    }

    /// As [`Outputs::push`], for the output that must cost least: it is made where it will lie, not moved there.
    #[inline]
    pub(crate) fn push_with(&mut self, make: impl FnOnce() -> Pending) {
        self.pending.extend(std::iter::once_with(make));
    }

    /// Copies bytes into the arena for an output that is about to be pushed.
    #[inline]
    pub(crate) fn keep(&mut self, bytes: &[u8]) -> Span {
        let start = self.arena.len();
        self.arena.extend_from_slice(bytes);
        start as u32..self.arena.len() as u32
    }

    /// As [`Outputs::keep`], for text.
    #[inline]
    pub(crate) fn keep_text(&mut self, text: &str) -> Span {
        let start = self.texts.len();
        self.texts.push_str(text);
        start as u32..self.texts.len() as u32
    }

    /// All have been handed out: their room is free for others.
    fn clear(&mut self) {
        self.polled = 0;
        self.pending.clear();
        self.arena.clear();
        self.texts.clear();
        if self.arena.capacity() > Self::ARENA_KEPT {
            self.arena = Vec::new();
        }
        if self.pending.capacity() > Self::PENDING_KEPT {
            self.pending = Vec::new();
        }
    }

    #[inline]
    pub(crate) fn poll(&mut self) -> Option<Output<'_>> {
        if self.polled == self.pending.len() {
            self.clear();
            return None;
        }
        let Self { pending, polled, arena, texts } = self;
        let pending = &mut pending[*polled];
        *polled += 1;
        let text = |span: &Span| &texts[span.start as usize..span.end as usize];
        let bytes = |span: &Span| &arena[span.start as usize..span.end as usize];
        Some(match pending {
            Pending::Event { socket, name, elements, count, attachments, ack_id } => Output::Event {
                socket: *socket,
                name: text(name),
                elements: bytes(elements),
                count: *count,
                attachments: attachments.as_deref().map_or(&[], Vec::as_slice),
                ack_id: *ack_id,
            },
            Pending::Reply { request, reply } => Output::Reply {
                request: *request,
                reply: *reply.take().expect("invariant: an output is handed out once"),
            },
            Pending::CloseLink { link } => Output::CloseLink { link: *link },
            Pending::Connect { socket, session, namespace, auth, recovering } => Output::Connect {
                socket: *socket,
                session: *session,
                namespace: text(namespace),
                auth: auth.as_ref().map(bytes),
                recovering: *recovering,
            },
            Pending::Claim { socket, shard, namespace, pid, offset } => Output::Claim {
                socket: *socket,
                shard: *shard,
                namespace: text(namespace),
                pid: *pid,
                offset: offset.as_ref().map(text),
            },
            Pending::Restore { socket, session, namespace, pid, order, auth } => Output::Restore {
                socket: *socket,
                session: *session,
                namespace: text(namespace),
                pid: *pid,
                order: *order,
                auth: auth.as_ref().map(bytes),
            },
            Pending::Settle { pid, to } => Output::Settle { pid: *pid, to: *to },
            Pending::Adopted { pid } => Output::Adopted { pid: *pid },
            Pending::ReleaseClaim { pid } => Output::ReleaseClaim { pid: *pid },
            Pending::Message { session, data, is_binary } => {
                Output::Message { session: *session, data: bytes(data), is_binary: *is_binary }
            }
            Pending::Ack { token, socket, elements, count, attachments, last } => Output::Ack {
                token: *token,
                socket: *socket,
                elements: bytes(elements),
                count: *count,
                attachments: attachments.take().map_or_else(Vec::new, |list| *list),
                last: *last,
            },
            Pending::AckTimeout { token, missing } => {
                Output::AckTimeout { token: *token, missing: std::mem::take(missing) }
            }
            Pending::AckLost { token } => Output::AckLost { token: *token },
            Pending::Disconnected { socket, reason, rooms, is_recoverable } => Output::Disconnected {
                socket: *socket,
                reason: *reason,
                rooms: std::mem::take(rooms),
                is_recoverable: *is_recoverable,
            },
            Pending::Forgotten { socket } => Output::Forgotten { socket: *socket },
            Pending::SessionClosed { session, reason } => {
                Output::SessionClosed { session: *session, reason: *reason }
            }
            Pending::RoomOpened { namespace, room } => Output::RoomOpened { namespace, room },
            Pending::RoomClosed { namespace, room } => Output::RoomClosed { namespace, room },
        })
    }
}
