//! Sockets come and go: CONNECT, the application's verdict, rooms joined and left, disconnection.
//! Does not know how events travel. Invariant: a socket is in its namespace's list exactly while it is connected
//! or lost. SIO5 "Connection to a namespace", "Disconnection from a namespace".

use std::rc::Rc;

use eio_proto::{Revision, Sid};
use serde_json::Value;
use sio_proto::{Parser, revision4};

use crate::close::Goodbye;
use crate::message::Message;
use crate::moment::Moment;
use crate::output::Pending;
use crate::reason::Reason;
use crate::room::{Member, NamespaceIndex};
use crate::session::SessionKey;
use crate::shard::{Namespace, Shard};
use crate::socket::{Connecting, Membership, Past, Socket, SocketKey, State, Stay};

/// A socket that has been accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Its key: not the one it asked under, if it had been somebody's lost socket and begins anew.
    pub socket: SocketKey,
    /// Its public id.
    pub sid: Sid,
    /// The secret by which its peer may claim it again. `None` if it cannot be recovered.
    pub pid: Option<Sid>,
    /// It has its rooms and its missed events back.
    pub recovered: bool,
}

/// Why a room could not be joined. The caller's fault, or a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinFault {
    /// The socket is not connected (any more).
    NotConnected,
    /// The socket is in [`Config::rooms_per_socket_max`](crate::Config::rooms_per_socket_max) rooms already.
    TooManyRooms {
        /// The limit.
        max: usize,
    },
}

impl std::fmt::Display for JoinFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            JoinFault::NotConnected => f.write_str("the socket is not connected"),
            JoinFault::TooManyRooms { max } => {
                write!(f, "the socket is in rooms_per_socket_max of {max} rooms already")
            }
        }
    }
}

impl std::error::Error for JoinFault {}

/// What a socket that is recovered gets back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comeback {
    /// Its ids and rooms, and what it missed.
    Whole,
    /// Nothing.
    Afresh,
}

impl Shard {
    /// A peer asks for a namespace: the application decides.
    pub(crate) fn begin_connect(
        &mut self,
        now: Moment,
        session: SessionKey,
        namespace: &str,
        auth: Option<&[u8]>,
    ) {
        let Some(entry) = self.sessions.get(session) else { return };
        if entry.sockets.len() >= self.config.namespaces_per_session_max {
            let message = format!(
                "the session is in namespaces_per_session_max of {} namespaces already",
                self.config.namespaces_per_session_max
            );
            return self.send_connect_error(session, namespace, &message, None);
        }
        let hint = self.recovery_hint(auth);
        let wants_recovery = self.log.is_some()
            && entry.revision == Revision::V4
            && hint.wanted.unwrap_or(entry.is_javascript);
        if wants_recovery
            && let Some(pid) = hint.pid
            && self.reclaim(now, session, namespace, auth, pid, hint.offset.as_deref())
        {
            return;
        }
        let socket = self.insert_connecting(session, namespace, wants_recovery);
        self.ask_application(socket, session, namespace, auth, false);
    }

    pub(crate) fn insert_connecting(
        &mut self,
        session: SessionKey,
        namespace: &str,
        wants_recovery: bool,
    ) -> SocketKey {
        let socket = self.insert_unattached(namespace);
        if let Some(entry) = self.sockets.get_mut(socket) {
            entry.session = session;
            if let State::Connecting(connecting) = &mut entry.state {
                connecting.wants_recovery = wants_recovery;
            }
        }
        if let Some(entry) = self.sessions.get_mut(session) {
            entry.sockets.push(slot_of(socket));
        }
        socket
    }

    /// A socket-to-be that no session has yet.
    pub(crate) fn insert_unattached(&mut self, namespace: &str) -> SocketKey {
        let connecting = Connecting {
            namespace: namespace.into(),
            wants_recovery: false,
            auth: None,
            resume: None,
            shown: None,
        };
        let since = self.log.as_ref().map_or(0, |log| log.next_seq() - 1);
        let socket = self.sockets.insert_with(|_| Socket {
            session: SessionKey::NONE,
            sid: Sid::new([0; 15]),
            pid: None,
            namespace: 0,
            state: State::Connecting(Box::new(connecting)),
            everyone_position: 0,
            mark: 0,
            acks_owed: 0,
            since,
            read: 0,
            memberships: Default::default(),
            past: None,
            carried: None,
        });
        let sid = self.make_sid(socket.slot());
        if let Some(entry) = self.sockets.get_mut(socket) {
            entry.sid = sid;
        }
        socket
    }

    pub(crate) fn ask_application(
        &mut self,
        socket: SocketKey,
        session: SessionKey,
        namespace: &str,
        auth: Option<&[u8]>,
        recovering: bool,
    ) {
        let namespace = self.outputs.keep_text(namespace);
        let auth = auth.map(|auth| self.outputs.keep(auth));
        self.push_output(Pending::Connect { socket, session, namespace, auth, recovering });
    }

    /// The application lets a socket in. `None` if it has gone meanwhile.
    ///
    /// What a recovered socket missed goes along with the CONNECT packet; what the application emits comes after both.
    ///
    /// Stock JavaScript clients keep what comes before CONNECT, also beyond the loss of the connection, and show an offset
    /// that knows nothing of it: whoever loses its connection between the two would get those events twice. So they come first,
    /// as from the reference, only if one polling reply takes all; it arrives as a whole or not at all. Otherwise CONNECT comes
    /// first, and each event that arrives moves the client's offset on.
    ///
    /// Deviation: the reference sends them first in any case.
    pub fn accept(&mut self, socket: SocketKey) -> Option<Accepted> {
        self.accept_as(socket, Comeback::Whole)
    }

    /// As [`Shard::accept`], but whoever came to be recovered begins anew, under a new key and new ids, in no rooms, and is
    /// given nothing of what it missed: the application knows that it must not have all of that any more. What it still does
    /// to the old socket reaches nobody.
    pub fn accept_afresh(&mut self, socket: SocketKey) -> Option<Accepted> {
        self.accept_as(socket, Comeback::Afresh)
    }

    fn accept_as(&mut self, socket: SocketKey, comeback: Comeback) -> Option<Accepted> {
        let entry = self.sockets.get_mut(socket)?;
        // Nobody has been asked yet whether this one may connect, while it is claimed or restored.
        if matches!(&entry.state, State::Connecting(connecting) if connecting.shown.is_some()) {
            return None;
        }
        let State::Connecting(_) = &entry.state else { return None };
        let State::Connecting(connecting) = std::mem::replace(&mut entry.state, State::Connected) else {
            return None;
        };
        let session = entry.session;
        let (socket, missed) = match connecting.resume {
            Some(resume) => {
                self.refresh_members(socket);
                let missed = match comeback {
                    Comeback::Whole => self.take_missed(socket, resume),
                    Comeback::Afresh => None,
                };
                if missed.is_some() {
                    self.counters.sockets_recovered += 1;
                    (socket, missed)
                } else {
                    // Too much was missed to queue it, or it may not have it.
                    self.counters.recoveries_refused += 1;
                    (self.start_over(socket, session, &connecting.namespace), None)
                }
            }
            None => {
                self.begin_life(socket, &connecting.namespace, connecting.wants_recovery);
                (socket, None)
            }
        };
        let recovered = missed.is_some();
        let entry = self.sockets.get(socket)?;
        let (sid, pid, namespace) = (entry.sid, entry.pid, entry.namespace);
        let name = self.namespace_name(namespace);
        let mut messages = missed.unwrap_or_default();
        self.counters.events_out += messages.len() as u64;
        messages.push(self.encode_connect(session, &name, sid, pid));
        if !self.fits_one_reply(session, &messages) {
            messages.rotate_right(1);
        }
        for message in messages {
            self.push(session, message);
        }
        if let Some(entry) = self.sessions.get_mut(session) {
            entry.connect_by = None;
        }
        self.counters.sockets_connected += 1;
        Some(Accepted { socket, sid, pid, recovered })
    }

    /// An accepted socket that nothing is known of gets its secret and its place in the namespace.
    fn begin_life(&mut self, socket: SocketKey, namespace: &str, wants_recovery: bool) {
        let namespace = self.intern(namespace);
        if wants_recovery {
            let pid = self.make_sid(socket.slot());
            if let Some(entry) = self.sockets.get_mut(socket) {
                entry.pid = Some(pid);
            }
        }
        self.enter_namespace(socket, namespace);
    }

    /// Puts a new socket into the place of one that does not come back after all. Its key is another one: handlers that
    /// still run for the old one must not reach whoever has come in its place.
    fn start_over(&mut self, old: SocketKey, session: SessionKey, namespace: &str) -> SocketKey {
        self.detach_from_session(session, old);
        self.push_output(Pending::Forgotten { socket: old });
        self.remove_socket(old);
        let socket = self.insert_connecting(session, namespace, true);
        if let Some(entry) = self.sockets.get_mut(socket) {
            entry.state = State::Connected;
        }
        self.begin_life(socket, namespace, true);
        socket
    }

    /// The application turns a socket away: CONNECT_ERROR with `message` and, if given, `data`. The
    /// session lives on, and the peer may try again. SIO5 "Connection to a namespace".
    pub fn refuse(&mut self, socket: SocketKey, message: &str, data: Option<&Value>) {
        let Some(entry) = self.sockets.get_mut(socket) else { return };
        let State::Connecting(connecting) = &entry.state else { return };
        let (session, resume) = (entry.session, connecting.resume);
        let namespace = connecting.namespace.clone();
        self.counters.sockets_refused += 1;
        self.send_connect_error(session, &namespace, message, data);
        self.detach_from_session(session, socket);
        self.abandon_restore(socket);
        match resume {
            Some(resume) => {
                // It was somebody's lost socket before; it stays that until its time is up.
                if let Some(entry) = self.sockets.get_mut(socket) {
                    entry.session = SessionKey::NONE;
                    entry.state = State::Lost { until: resume.lost_until };
                    self.lost.insert((resume.lost_until, socket));
                }
            }
            None => {
                self.sockets.remove(socket);
            }
        }
    }

    fn send_connect_error(
        &mut self,
        session: SessionKey,
        namespace: &str,
        message: &str,
        data: Option<&Value>,
    ) {
        let parser = self.config.parser;
        let Some(entry) = self.sessions.get(session) else { return };
        let revision = entry.revision;
        let message = self.encode_packet(parser, |out| match revision {
            Revision::V4 => sio_proto::encode_connect_error(out, parser, namespace, message, data),
            // Revision 3 has a bare value there: the data, or else the text.
            Revision::V3 => {
                let text = Value::from(message);
                revision4::encode_connect_error(out, parser, namespace, data.unwrap_or(&text));
            }
        });
        self.push(session, message);
    }

    fn encode_connect(
        &mut self,
        session: SessionKey,
        namespace: &str,
        sid: Sid,
        pid: Option<Sid>,
    ) -> Rc<Message> {
        let parser = self.config.parser;
        let revision = self.sessions.get(session).map_or(Revision::V4, |entry| entry.revision);
        self.encode_packet(parser, |out| match revision {
            Revision::V4 => {
                let sid = sid.to_string();
                let pid = pid.map(|pid| pid.to_string());
                sio_proto::encode_connect(out, parser, namespace, &sid, pid.as_deref());
            }
            Revision::V3 => revision4::encode_connect(out, parser, namespace),
        })
    }

    /// Encodes one Socket.IO packet without attachments.
    pub(crate) fn encode_packet(&mut self, parser: Parser, encode: impl FnOnce(&mut Vec<u8>)) -> Rc<Message> {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        let message = match parser {
            Parser::Json => {
                scratch.push(b'4');
                encode(&mut scratch);
                Message::text(&scratch)
            }
            Parser::Msgpack => {
                encode(&mut scratch);
                Message::binary(&scratch, true)
            }
        };
        self.scratch = scratch;
        message
    }

    /// The index of a namespace, making room for it if it is new here.
    pub(crate) fn intern(&mut self, name: &str) -> NamespaceIndex {
        if let Some(&index) = self.namespace_names.get(name) {
            return index;
        }
        let index = self.namespaces.iter().position(Option::is_none).unwrap_or_else(|| {
            self.namespaces.push(None);
            self.namespaces.len() - 1
        });
        let index = NamespaceIndex::try_from(index)
            .expect("invariant: the application accepts fewer than 65,536 namespaces at once");
        let everyone = self.rooms.add_nameless(index);
        let name: Rc<str> = Rc::from(name);
        self.namespaces[usize::from(index)] = Some(Namespace { name: name.clone(), everyone });
        self.namespace_names.insert(name.clone(), index);
        self.push_output(Pending::RoomOpened { namespace: name, room: Rc::from("") });
        index
    }

    pub(crate) fn namespace(&self, index: NamespaceIndex) -> &Namespace {
        self.namespaces[usize::from(index)].as_ref().expect("invariant: sockets' namespaces are interned")
    }

    pub(crate) fn namespace_name(&self, index: NamespaceIndex) -> Rc<str> {
        self.namespace(index).name.clone()
    }

    pub(crate) fn enter_namespace(&mut self, socket: SocketKey, namespace: NamespaceIndex) {
        let everyone = self.namespace(namespace).everyone;
        let Some(entry) = self.sockets.get_mut(socket) else { return };
        entry.namespace = namespace;
        // What came while the application made up its mind is not for it.
        entry.since = self.log.as_ref().map_or(0, |log| log.next_seq() - 1);
        entry.everyone_position = self.rooms.add(everyone, member_of(socket, entry));
    }

    /// Adds a socket to a room; nothing happens if it is in it. Answers whether it was not. SIO5 has rooms on the
    /// server only: the peer is not told.
    ///
    /// # Errors
    /// See [`JoinFault`].
    pub fn join(&mut self, socket: SocketKey, room: &str) -> Result<bool, JoinFault> {
        let since = self.log.as_ref().map_or(0, |log| log.next_seq() - 1);
        let Some(entry) = self.sockets.get_mut(socket).filter(|entry| entry.is_connected()) else {
            return Err(JoinFault::NotConnected);
        };
        if let Some(sid) = Sid::parse(room)
            && sid == entry.sid
        {
            return Ok(false);
        }
        if let Some(found) = self.rooms.find(entry.namespace, room)
            && entry.memberships.iter().any(|membership| membership.room == found)
        {
            return Ok(false);
        }
        if entry.memberships.len() >= self.config.rooms_per_socket_max {
            return Err(JoinFault::TooManyRooms { max: self.config.rooms_per_socket_max });
        }
        self.add_membership(socket, room, since);
        Ok(true)
    }

    pub(crate) fn add_membership(&mut self, socket: SocketKey, room: &str, since: u64) {
        let Some(entry) = self.sockets.get_mut(socket) else { return };
        let joined = self.rooms.join(entry.namespace, room, member_of(socket, entry));
        let since = since as u32;
        entry.memberships.push(Membership { room: joined.room, position: joined.position, since });
        if joined.opened {
            let namespace = self.namespace_name(self.rooms.room(joined.room).namespace);
            let room = self.rooms.room(joined.room).name.clone();
            self.push_output(Pending::RoomOpened { namespace, room });
        }
    }

    /// Takes a socket out of a room. Answers whether it was in it.
    pub fn leave(&mut self, socket: SocketKey, room: &str) -> bool {
        let Some(entry) = self.sockets.get_mut(socket) else { return false };
        let Some(found) = self.rooms.find(entry.namespace, room) else { return false };
        let Some(index) = entry.memberships.iter().position(|membership| membership.room == found) else {
            return false;
        };
        let membership = entry.memberships.swap_remove(index);
        if let Some(departure) = entry.pid.and_then(|pid| self.departures.get_mut(&pid)) {
            departure.is_void = true;
        }
        self.remember_stay(socket, membership);
        self.vacate(membership);
        true
    }

    /// Notes that a socket which may be recovered was in a room, if events of that room are kept.
    fn remember_stay(&mut self, socket: SocketKey, membership: Membership) {
        let Some(log) = &self.log else { return };
        let room = self.rooms.room(membership.room);
        if !is_after(room.last_kept, membership.since) {
            return;
        }
        let Some(entry) = self.sockets.get_mut(socket).filter(|entry| entry.gets_offsets()) else { return };
        let past = entry.past.get_or_insert_default();
        while let Some(oldest) = past.stays.front()
            && (oldest.until < log.first_seq() || past.stays.len() >= Past::LEN_MAX)
        {
            past.forgotten_until = oldest.until;
            past.stays.pop_front();
        }
        let stay = Stay { room: room.name.clone(), since: membership.since, until: log.next_seq() - 1 };
        past.stays.push_back(stay);
    }

    pub(crate) fn leave_all(&mut self, socket: SocketKey) {
        let Some(entry) = self.sockets.get_mut(socket) else { return };
        for membership in std::mem::take(&mut entry.memberships) {
            self.vacate(membership);
        }
    }

    /// Takes the member out that a membership stands for, and tells the one that moved into its place.
    fn vacate(&mut self, membership: Membership) {
        let namespace = self.rooms.room(membership.room).namespace;
        let left = self.rooms.leave(membership.room, membership.position);
        if let Some(moved) = left.moved
            && let Some(other) = self.sockets.at_mut(moved.socket)
            && let Some(place) = other.memberships.iter_mut().find(|place| place.room == membership.room)
        {
            place.position = membership.position;
        }
        if let Some(room) = left.closed {
            let namespace = self.namespace_name(namespace);
            self.push_output(Pending::RoomClosed { namespace, room });
        }
    }

    /// The rooms a socket is in, its own apart, in no particular order.
    #[must_use]
    pub fn rooms_of(&self, socket: SocketKey) -> Vec<Rc<str>> {
        self.sockets.get(socket).map_or_else(Vec::new, |entry| {
            entry.memberships.iter().map(|place| self.rooms.room(place.room).name.clone()).collect()
        })
    }

    /// A socket's public id, while it is connected or may come back.
    #[must_use]
    pub fn sid_of(&self, socket: SocketKey) -> Option<Sid> {
        self.sockets.get(socket).map(|entry| entry.sid)
    }

    /// A socket's session, while it is connected.
    #[must_use]
    pub fn session_of_socket(&self, socket: SocketKey) -> Option<SessionKey> {
        self.sockets.get(socket).map(|entry| entry.session).filter(|&session| session != SessionKey::NONE)
    }

    /// How a socket's session travels now: `websocket` or `polling`.
    #[must_use]
    pub fn transport_of(&self, session: SessionKey) -> Option<eio_proto::TransportKind> {
        self.sessions.get(session).map(|entry| match entry.link() {
            Some(_) => eio_proto::TransportKind::WebSocket,
            None => eio_proto::TransportKind::Polling,
        })
    }

    /// Every room with connected members, with how many: for statistics. Lost sockets do not count.
    pub fn rooms(&self) -> impl Iterator<Item = (&str, &str, usize)> {
        let all = self.rooms.iter().filter(|room| !room.is_everyone).map(|room| {
            let members = room.members.iter().filter(|member| member.session().is_some()).count();
            (&*self.namespace(room.namespace).name, &*room.name, members)
        });
        all.filter(|&(_, _, members)| members > 0)
    }

    /// Every namespace with sockets, with how many are connected: for statistics.
    pub fn namespaces(&self) -> impl Iterator<Item = (&str, usize)> {
        self.namespaces.iter().flatten().map(|namespace| {
            let members = &self.rooms.room(namespace.everyone).members;
            (&*namespace.name, members.iter().filter(|member| member.session().is_some()).count())
        })
    }

    /// Disconnects a socket on behalf of the application: the peer gets DISCONNECT. With `close`, its whole
    /// connection is told to go, namespace by namespace, and then closed.
    pub fn disconnect(&mut self, now: Moment, socket: SocketKey, close: bool) {
        let Some(entry) = self.sockets.get(socket).filter(|entry| entry.is_connected()) else { return };
        let session = entry.session;
        if !close {
            self.send_disconnect(session, socket);
            self.detach_from_session(session, socket);
            self.disconnect_socket(now, socket, Reason::ServerNamespaceDisconnect);
            return;
        }
        let slots = self.sessions.get(session).map(|entry| entry.sockets.clone()).unwrap_or_default();
        for slot in slots {
            if let Some(socket) = self.sockets.key_at(slot) {
                self.send_disconnect(session, socket);
                self.detach_from_session(session, socket);
                self.disconnect_socket(now, socket, Reason::ServerNamespaceDisconnect);
            }
        }
        self.close_session(now, session, Reason::ForcedClose, Goodbye::Graceful);
    }

    fn send_disconnect(&mut self, session: SessionKey, socket: SocketKey) {
        let Some(entry) = self.sockets.get(socket) else { return };
        if !entry.is_connected() {
            return;
        }
        let name = self.namespace_name(entry.namespace);
        let parser = self.config.parser;
        let message = self.encode_packet(parser, |out| sio_proto::encode_disconnect(out, parser, &name));
        self.push(session, message);
    }

    pub(crate) fn detach_from_session(&mut self, session: SessionKey, socket: SocketKey) {
        if let Some(entry) = self.sessions.get_mut(session) {
            entry.sockets.retain(|&mut slot| slot != slot_of(socket));
        }
    }

    /// Ends a socket that its session has let go of already. A recoverable one becomes lost: it keeps its place in
    /// its rooms, so that what it misses is known exactly.
    pub(crate) fn disconnect_socket(&mut self, now: Moment, socket: SocketKey, reason: Reason) {
        let Some(entry) = self.sockets.get_mut(socket) else { return };
        if let State::Connecting(connecting) = &entry.state {
            let resume = connecting.resume;
            self.abandon_restore(socket);
            self.push_output(Pending::Disconnected {
                socket,
                reason,
                rooms: Vec::new(),
                is_recoverable: resume.is_some(),
            });
            match resume {
                Some(resume) => {
                    if let Some(entry) = self.sockets.get_mut(socket) {
                        entry.session = SessionKey::NONE;
                        entry.state = State::Lost { until: resume.lost_until };
                        self.lost.insert((resume.lost_until, socket));
                    }
                }
                None => {
                    self.sockets.remove(socket);
                }
            }
            return;
        }
        let owes = entry.acks_owed > 0;
        entry.acks_owed = 0;
        let is_recoverable = reason.is_recoverable() && entry.pid.is_some();
        if owes {
            for token in self.acks.forget(socket) {
                self.push_output(Pending::AckLost { token });
            }
        }
        let rooms = self.rooms_of(socket);
        self.push_output(Pending::Disconnected { socket, reason, rooms, is_recoverable });
        match (&self.config.recovery, is_recoverable) {
            (Some(recovery), true) => {
                let until = now + recovery.disconnection_max;
                self.lose_socket(socket, until);
            }
            _ => self.remove_socket(socket),
        }
    }

    /// Takes a socket out of all its rooms and its namespace.
    pub(crate) fn remove_socket(&mut self, socket: SocketKey) {
        self.leave_all(socket);
        self.release_names(socket);
        self.leave_namespace(socket);
        self.sockets.remove(socket);
    }

    /// Takes a socket out of its namespace's list; the namespace closes behind the last.
    pub(crate) fn leave_namespace(&mut self, socket: SocketKey) {
        let Some(entry) = self.sockets.get(socket) else { return };
        let (namespace, position) = (entry.namespace, entry.everyone_position);
        let everyone = self.namespace(namespace).everyone;
        let left = self.rooms.leave(everyone, position);
        if let Some(moved) = left.moved
            && let Some(other) = self.sockets.at_mut(moved.socket)
        {
            other.everyone_position = position;
        }
        if self.rooms.room(everyone).members.is_empty() {
            self.rooms.remove_nameless(everyone);
            if let Some(gone) = self.namespaces[usize::from(namespace)].take() {
                self.namespace_names.remove(&gone.name);
                self.push_output(Pending::RoomClosed { namespace: gone.name, room: Rc::from("") });
            }
        }
    }

    /// Rewrites the member entries of a socket after its session or its wish for offsets has changed.
    pub(crate) fn refresh_members(&mut self, socket: SocketKey) {
        let Some(entry) = self.sockets.get(socket) else { return };
        let member = member_of(socket, entry);
        let everyone = self.namespace(entry.namespace).everyone;
        self.rooms.members_mut(everyone)[entry.everyone_position as usize] = member;
        for place in &entry.memberships {
            self.rooms.members_mut(place.room)[place.position as usize] = member;
        }
    }
}

/// Whether a log position comes after another, both given by their low halves: the log never spans 2^31 events.
pub(crate) fn is_after(position: u32, other: u32) -> bool {
    position.wrapping_sub(other) as i32 > 0
}

pub(crate) fn slot_of(socket: SocketKey) -> u32 {
    socket.slot() as u32
}

/// The member entry of a socket as it is now: only connected sockets are sent to.
pub(crate) fn member_of(socket: SocketKey, entry: &Socket) -> Member {
    let session = match entry.state {
        State::Connected => Some(entry.session.slot() as u32),
        State::Connecting(_) | State::Lost { .. } => None,
    };
    Member::new(slot_of(socket), session, entry.gets_offsets())
}
