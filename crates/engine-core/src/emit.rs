//! Events that leave: to one socket, to rooms, to a namespace; and the answers to events that came.
//! Does not know transports. Invariant: one emit is encoded at most twice, with and without a recovery offset,
//! however many get it.

use std::num::NonZeroU64;
use std::rc::Rc;
use std::time::Duration;

use eio_proto::Sid;
use sio_proto::{Body, Parser};

use crate::ack::AckToken;
use crate::connect::slot_of;
use crate::message::Message;
use crate::moment::Moment;
use crate::recovery::{Log, Scope};
use crate::room::{Member, NamespaceIndex};
use crate::session::{SessionKey, Transport};
use crate::shard::Shard;
use crate::socket::SocketKey;

/// Whom a broadcast is for. SIO5 "Rooms".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// The namespace.
    pub namespace: Box<str>,
    /// The union of these rooms; everyone in the namespace if empty. A socket's id is a room.
    pub rooms: Vec<Box<str>>,
    /// Nobody who is in one of these.
    pub except: Vec<Box<str>>,
}

/// The sender's name for one broadcast that goes to several shards, different from that of any other: by it a socket
/// that moves between shards is known to have had an event already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BroadcastId(pub NonZeroU64);

/// How an emit is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// Skip recipients whose transport cannot take it right now; never replayed.
    pub volatile: bool,
    /// Sent as any other, but never replayed: whoever is away has missed it, and is not told. For what is of no use later.
    pub transient: bool,
    /// Never compress.
    pub uncompressed: bool,
    /// For this node's sockets only. A shard knows no other nodes: the flag is for those who carry broadcasts on.
    pub local: bool,
    /// Its place among the application's own numbers.
    pub order: Order,
}

impl Flags {
    /// Whether it may be asked for again.
    pub(crate) const fn is_stored(self) -> bool {
        !self.volatile && !self.transient
    }
}

/// Where an event stands in the numbers that an application gives to what it sends, from 1. It sends in that order, all
/// from one task; what is not numbered may come in between.
///
/// With recovery on, every offset tells the newest number that the shard has had: who comes back with it, to whatever
/// process, lacks what has a higher one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// Not numbered. Its offset tells the newest number of the shard.
    #[default]
    None,
    /// A number higher than all before.
    Live(u64),
    /// A number that was sent before, now sent again to somebody who lacks it and what follows it. Its offset tells this
    /// number and no newer one, so that who breaks off here is resumed here.
    Replay(u64),
}

impl Order {
    /// The number; 0 if there is none.
    #[must_use]
    pub const fn number(self) -> u64 {
        match self {
            Order::None => 0,
            Order::Live(number) | Order::Replay(number) => number,
        }
    }
}

/// Asks recipients of an emit to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AckRequest {
    /// The driver's name for it.
    pub token: AckToken,
    /// How long to wait; `None`: until the socket is gone.
    pub timeout: Option<Duration>,
}

/// Why an emit to one socket could not be queued. The caller's fault, or a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EmitFault {
    /// The socket is not connected (any more).
    NotConnected,
    /// The peer owes [`Config::acks_per_socket_max`](crate::Config::acks_per_socket_max) acks already.
    TooManyAcks {
        /// The limit.
        max: u32,
    },
}

impl std::fmt::Display for EmitFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            EmitFault::NotConnected => f.write_str("the socket is not connected"),
            EmitFault::TooManyAcks { max } => {
                write!(f, "the peer owes acks_per_socket_max of {max} acks already")
            }
        }
    }
}

impl std::error::Error for EmitFault {}

/// One event on its way out, encoded when and as needed.
pub(crate) struct Encoding<'a> {
    namespace: Rc<str>,
    body: &'a Body,
    ack_id: Option<u64>,
    compress: bool,
    /// Position in the log, and the number that goes with it.
    offset: Option<(u64, u64)>,
    plain: Option<Rc<Message>>,
    with_offset: Option<Rc<Message>>,
}

impl Shard {
    /// Sends an event to one socket. With recovery on it is kept for replay, unless it is volatile or wants an ack.
    ///
    /// # Errors
    /// See [`EmitFault`].
    pub fn emit(
        &mut self,
        now: Moment,
        socket: SocketKey,
        body: &Body,
        flags: Flags,
        ack: Option<AckRequest>,
    ) -> Result<(), EmitFault> {
        self.note_order(flags.order.number());
        let Some(entry) = self.sockets.get_mut(socket) else { return Err(EmitFault::NotConnected) };
        let is_away = entry.is_away();
        if !entry.is_connected() && !is_away {
            return Err(EmitFault::NotConnected);
        }
        let (session, namespace, gets_offsets) = (entry.session, entry.namespace, entry.gets_offsets());
        let is_stored = gets_offsets && flags.is_stored() && ack.is_none();
        if is_away && !is_stored {
            return Err(EmitFault::NotConnected);
        }
        let ack_id = match ack {
            Some(request) => {
                if entry.acks_owed >= self.config.acks_per_socket_max {
                    return Err(EmitFault::TooManyAcks { max: self.config.acks_per_socket_max });
                }
                entry.acks_owed += 1;
                let deadline = request.timeout.map(|timeout| now + timeout);
                Some(u64::from(self.acks.begin(request.token, [socket], deadline)))
            }
            None => None,
        };
        let mut encoding = self.encoding(namespace, body, flags, ack_id);
        if is_away {
            let message = self.encode_with_offset(&mut encoding);
            self.store(now, None, Scope::Socket(socket), flags.order, message);
            return Ok(());
        }
        if flags.volatile && !self.is_writable(session) {
            self.counters.volatile_dropped += 1;
            return Ok(());
        }
        self.counters.events_out += 1;
        let message = if gets_offsets {
            self.encode_with_offset(&mut encoding)
        } else {
            self.encode_plain(&mut encoding)
        };
        self.push(session, message.clone());
        if is_stored {
            self.store(now, None, Scope::Socket(socket), flags.order, message);
        }
        Ok(())
    }

    /// Answers an event of a peer that awaits an ack. Nothing happens if the socket has gone. SIO5 "Acknowledgement".
    pub fn answer(&mut self, socket: SocketKey, ack_id: u64, body: &Body) {
        let Some(entry) = self.sockets.get(socket).filter(|entry| entry.is_connected()) else { return };
        let session = entry.session;
        let name = self.namespace_name(entry.namespace);
        let parser = self.config.parser;
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        let message = match parser {
            Parser::Json => {
                scratch.push(b'4');
                sio_proto::encode_ack(&mut scratch, parser, &name, ack_id, body);
                Message::text_with(&scratch, &body.attachments, true)
            }
            Parser::Msgpack => {
                sio_proto::encode_ack(&mut scratch, parser, &name, ack_id, body);
                Message::binary(&scratch, true)
            }
        };
        self.scratch = scratch;
        self.push(session, message);
    }

    /// Sends a message of a session that speaks Engine.IO alone. Nothing happens if it has gone.
    pub fn send_message(&mut self, session: SessionKey, data: &[u8], is_binary: bool) {
        let message = if is_binary {
            Message::binary(data, true)
        } else {
            let mut packet = Vec::with_capacity(data.len() + 1);
            packet.push(b'4');
            packet.extend_from_slice(data);
            Message::text(&packet)
        };
        self.push(session, message);
    }

    /// Sends an event to everyone that `target` names here, each once. Answers how many that is. With `ack`, the
    /// outputs tell of each answer; if nobody is there, nobody will answer and no output comes. Who owes
    /// [`Config::acks_per_socket_max`](crate::Config::acks_per_socket_max) acks already is left out then.
    ///
    /// For events that other shards do not get. Those that they do get go through [`Shard::broadcast_shared`].
    pub fn broadcast(
        &mut self,
        now: Moment,
        target: &Target,
        body: &Body,
        flags: Flags,
        ack: Option<AckRequest>,
    ) -> usize {
        self.broadcast_as(now, None, target, body, flags, ack)
    }

    /// [`Shard::broadcast`] for an event that goes to several shards, to each under the same `id`.
    pub fn broadcast_shared(
        &mut self,
        now: Moment,
        id: BroadcastId,
        target: &Target,
        body: &Body,
        flags: Flags,
        ack: Option<AckRequest>,
    ) -> usize {
        self.broadcast_as(now, Some(id), target, body, flags, ack)
    }

    fn broadcast_as(
        &mut self,
        now: Moment,
        id: Option<BroadcastId>,
        target: &Target,
        body: &Body,
        flags: Flags,
        ack: Option<AckRequest>,
    ) -> usize {
        self.note_order(flags.order.number());
        let Some(&namespace) = self.namespace_names.get(&*target.namespace) else { return 0 };
        let mut members = self.select(namespace, target);
        if ack.is_some() {
            let max = self.config.acks_per_socket_max;
            members
                .retain(|member| self.sockets.at(member.socket).is_some_and(|entry| entry.acks_owed < max));
        }
        let mut sent = 0;
        let ack_id = ack.and_then(|request| self.begin_broadcast_ack(now, &members, flags, request));
        if ack.is_some() && ack_id.is_none() {
            self.return_selection(members);
            return 0;
        }
        let mut encoding = self.encoding(namespace, body, flags, ack_id);
        let mut is_recoverable_for_any = false;
        for &member in &members {
            is_recoverable_for_any |= member.gets_offsets();
            let Some(session) = member.session() else { continue };
            let message = match (member.gets_offsets(), &encoding.plain, &encoding.with_offset) {
                (false, Some(message), _) | (true, _, Some(message)) => message.clone(),
                (false, None, _) => self.encode_plain(&mut encoding),
                (true, _, None) => self.encode_with_offset(&mut encoding),
            };
            if flags.volatile && !self.sessions.key_at(session).is_some_and(|key| self.is_writable(key)) {
                self.counters.volatile_dropped += 1;
                continue;
            }
            sent += 1;
            self.push_slot(session, message);
        }
        self.counters.events_out += sent as u64;
        if is_recoverable_for_any && flags.is_stored() && ack.is_none() && self.log.is_some() {
            let message = self.encode_with_offset(&mut encoding);
            let seq = self.log.as_ref().map_or(0, Log::next_seq) as u32;
            for name in target.rooms.iter().chain(&target.except) {
                if let Some(room) = self.rooms.find(namespace, name) {
                    self.rooms.room_mut(room).last_kept = seq;
                }
            }
            let scope = Scope::Rooms {
                namespace,
                rooms: target.rooms.iter().cloned().collect(),
                except: target.except.iter().cloned().collect(),
            };
            self.store(now, id, scope, flags.order, message);
        }
        self.return_selection(members);
        sent
    }

    /// Begins to wait for the acks of a broadcast. `None` if nobody gets it.
    fn begin_broadcast_ack(
        &mut self,
        now: Moment,
        members: &[Member],
        flags: Flags,
        request: AckRequest,
    ) -> Option<u64> {
        // Who is skipped is not asked, and will not answer.
        let is_asked = |member: &&Member| {
            let session = member.session().and_then(|session| self.sessions.key_at(session));
            session.is_some_and(|session| !flags.volatile || self.is_writable(session))
        };
        let sockets: Vec<SocketKey> =
            members.iter().filter(is_asked).filter_map(|member| self.sockets.key_at(member.socket)).collect();
        if sockets.is_empty() {
            return None;
        }
        for &socket in &sockets {
            if let Some(entry) = self.sockets.get_mut(socket) {
                entry.acks_owed += 1;
            }
        }
        let deadline = request.timeout.map(|timeout| now + timeout);
        Some(u64::from(self.acks.begin(request.token, sockets, deadline)))
    }

    /// The connected sockets that `target` names here.
    pub fn find(&mut self, target: &Target) -> Vec<SocketKey> {
        let Some(&namespace) = self.namespace_names.get(&*target.namespace) else { return Vec::new() };
        let members = self.select(namespace, target);
        let found = members
            .iter()
            .filter(|member| member.session().is_some())
            .filter_map(|member| self.sockets.key_at(member.socket))
            .collect();
        self.return_selection(members);
        found
    }

    /// The members that a target names, each once, lost ones included.
    fn select(&mut self, namespace: NamespaceIndex, target: &Target) -> Vec<Member> {
        let mut members = std::mem::take(&mut self.selection);
        members.clear();
        let needs_marks = target.rooms.len() > 1 || !target.except.is_empty();
        if needs_marks {
            self.next_mark();
            for name in &target.except {
                if let Some(socket) = self.find_by_sid(namespace, name) {
                    self.mark_socket(slot_of(socket));
                }
                if let Some(room) = self.rooms.find(namespace, name) {
                    for member in &self.rooms.room(room).members {
                        if let Some(socket) = self.sockets.at_mut(member.socket) {
                            socket.mark = self.mark;
                        }
                    }
                }
            }
        }
        if target.rooms.is_empty() {
            let everyone = self.namespace(namespace).everyone;
            members.extend_from_slice(&self.rooms.room(everyone).members);
        }
        for name in &target.rooms {
            if let Some(socket) = self.find_by_sid(namespace, name)
                && let Some(entry) = self.sockets.get(socket)
            {
                members.push(crate::connect::member_of(socket, entry));
            }
            // Others may be in a room of that name; the socket itself never is.
            if let Some(room) = self.rooms.find(namespace, name) {
                members.extend_from_slice(&self.rooms.room(room).members);
            }
        }
        if needs_marks {
            let mark = self.mark;
            members.retain(|member| match self.sockets.at_mut(member.socket) {
                Some(socket) if socket.mark != mark => {
                    socket.mark = mark;
                    true
                }
                _ => false,
            });
        }
        members
    }

    /// Gives the list of [`Shard::select`] back for reuse.
    fn return_selection(&mut self, members: Vec<Member>) {
        // A list of 65,536 members is half a MiB: kept for the next broadcast of that size.
        if members.capacity() <= 65_536 {
            self.selection = members;
        }
    }

    fn next_mark(&mut self) {
        self.mark = self.mark.wrapping_add(1);
        if self.mark == 0 {
            // Once in 2^32 broadcasts the marks of old ones would come round again.
            let slots: Vec<u32> = self.sockets.iter().map(|(key, _)| slot_of(key)).collect();
            for slot in slots {
                self.mark_socket(slot);
            }
            self.mark = 1;
        }
    }

    fn mark_socket(&mut self, slot: u32) {
        let mark = self.mark;
        if let Some(socket) = self.sockets.at_mut(slot) {
            socket.mark = mark;
        }
    }

    /// The socket of a namespace whose public id is `name`: ids name their slot, so there is no map of them.
    fn find_by_sid(&self, namespace: NamespaceIndex, name: &str) -> Option<SocketKey> {
        if name.len() != 20 {
            return None;
        }
        let sid = Sid::parse(name)?;
        let slot = match self.slot_of(sid) {
            Some(slot) if self.sockets.at(slot).is_some_and(|socket| socket.sid == sid) => slot,
            _ => *self.adopted.get(&sid)?,
        };
        let socket = self.sockets.at(slot)?;
        let is_in = socket.namespace == namespace && (socket.is_connected() || socket.is_away());
        if is_in { self.sockets.key_at(slot) } else { None }
    }

    /// Whether a volatile event would leave at once.
    fn is_writable(&self, session: SessionKey) -> bool {
        let Some(entry) = self.sessions.get(session) else { return false };
        match &entry.transport {
            Transport::WebSocket(link) => self.links.get(*link).is_some_and(|link| !link.is_blocked),
            Transport::Polling(poll) => poll.get.is_some(),
            Transport::Probing(probe) => probe.poll.get.is_some(),
            Transport::Closing(_) => false,
        }
    }

    /// [`Shard::push`] for a session known by its slot.
    #[inline]
    fn push_slot(&mut self, slot: u32, message: Rc<Message>) {
        let Some(entry) = self.sessions.at_mut(slot) else { return };
        let is_over = entry.outbox.bytes() > self.config.outbox_bytes_max;
        entry.outbox.push(message, &mut self.rings);
        if !entry.is_dirty || is_over {
            let was_dirty = std::mem::replace(&mut entry.is_dirty, true);
            let Some(key) = self.sessions.key_at(slot) else { return };
            if !was_dirty {
                self.dirty_sessions.push(key);
            }
            if is_over {
                self.overfull.push(key);
            }
        }
    }

    pub(crate) fn encoding<'a>(
        &self,
        namespace: NamespaceIndex,
        body: &'a Body,
        flags: Flags,
        ack_id: Option<u64>,
    ) -> Encoding<'a> {
        // An event that is not stored repeats the newest offset: whatever its last argument is, the peer does not take it for
        // an offset, and loses nothing when it comes back.
        let offset = match (&self.log, ack_id) {
            (Some(log), None) if !flags.is_stored() => Some((log.next_seq() - 1, log.number_of(flags.order))),
            (Some(log), None) => Some((log.next_seq(), log.number_of(flags.order))),
            (Some(_), Some(_)) | (None, _) => None,
        };
        Encoding {
            namespace: self.namespace_name(namespace),
            body,
            ack_id,
            compress: !flags.uncompressed,
            offset,
            plain: None,
            with_offset: None,
        }
    }

    fn encode_plain(&mut self, encoding: &mut Encoding<'_>) -> Rc<Message> {
        if let Some(message) = &encoding.plain {
            return message.clone();
        }
        let message = self.encode_event(encoding, None);
        encoding.plain.insert(message).clone()
    }

    fn encode_with_offset(&mut self, encoding: &mut Encoding<'_>) -> Rc<Message> {
        if let Some(message) = &encoding.with_offset {
            return message.clone();
        }
        let mut offset = std::mem::take(&mut self.offset_scratch);
        let message = match (&self.log, encoding.offset) {
            (Some(log), Some((seq, number))) => {
                log.write_offset(seq, number, &mut offset);
                self.encode_event(encoding, Some(&offset))
            }
            _ => self.encode_event(encoding, None),
        };
        self.offset_scratch = offset;
        encoding.with_offset.insert(message).clone()
    }

    pub(crate) fn encode_event(&mut self, encoding: &Encoding<'_>, offset: Option<&str>) -> Rc<Message> {
        let parser = self.config.parser;
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        if parser == Parser::Json {
            scratch.push(b'4');
        }
        let Encoding { namespace, body, ack_id, compress, .. } = encoding;
        sio_proto::encode_event(&mut scratch, parser, namespace, *ack_id, body, offset);
        let message = match parser {
            Parser::Json => Message::text_with(&scratch, &body.attachments, *compress),
            Parser::Msgpack => Message::binary(&scratch, *compress),
        };
        // One huge event must not leave its size behind.
        if scratch.capacity() > 1 << 20 {
            scratch = Vec::new();
        }
        self.scratch = scratch;
        message
    }

    fn store(
        &mut self,
        now: Moment,
        id: Option<BroadcastId>,
        scope: Scope,
        order: Order,
        message: Rc<Message>,
    ) {
        if let Some(log) = &mut self.log {
            log.append(now, id, scope, order, message);
        }
    }

    /// Notes that the application has sent here everything up to this number that is for this shard: from now on
    /// offsets tell it. Smaller ones than that noted change nothing.
    pub fn note_order(&mut self, number: u64) {
        if let Some(log) = &mut self.log {
            log.note_order(number);
        }
    }
}
