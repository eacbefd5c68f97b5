//! Lost sockets and how they are claimed again: on this shard, or by another.
//! Does not know threads: what passes between shards is plain values. Invariant: a socket is recovered without a
//! gap or not at all, and by one peer at a time.

use std::rc::Rc;

use eio_proto::Sid;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::close::Goodbye;
use crate::connect::{is_after, slot_of};
use crate::message::{FrameKind, Message};
use crate::moment::Moment;
use crate::output::Pending;
use crate::reason::Reason;
use crate::recovery::{Carried, Claim, Claimed, Entry, Missed, Offset, Scope};
use crate::session::SessionKey;
use crate::shard::{Shard, ShardId};
use crate::socket::{Connecting, Resume, Socket, SocketKey, State};

/// What a peer's auth payload says about recovery.
#[derive(Default)]
pub(crate) struct RecoveryHint {
    /// `auth.recovery`, if the peer has an opinion.
    pub(crate) wanted: Option<bool>,
    pub(crate) pid: Option<Sid>,
    pub(crate) offset: Option<String>,
}

#[derive(Deserialize)]
struct RecoveryAuth {
    #[serde(default)]
    recovery: Option<Lenient<bool>>,
    #[serde(default)]
    pid: Option<Lenient<String>>,
    #[serde(default)]
    offset: Option<Lenient<String>>,
}

/// A value of the expected type, or of any other, which counts as absent: the auth payload is the application's.
#[derive(Deserialize)]
#[serde(untagged)]
enum Lenient<T> {
    Is(T),
    Other(IgnoredAny),
}

impl<T> Lenient<T> {
    fn value(self) -> Option<T> {
        match self {
            Lenient::Is(value) => Some(value),
            Lenient::Other(_) => None,
        }
    }
}

impl Shard {
    pub(crate) fn recovery_hint(&self, auth: Option<&[u8]>) -> RecoveryHint {
        let (Some(_), Some(auth)) = (&self.log, auth) else { return RecoveryHint::default() };
        let Ok(auth) = sio_proto::decode_args::<RecoveryAuth>(self.config.parser, auth, 1, &[]) else {
            return RecoveryHint::default();
        };
        RecoveryHint {
            wanted: auth.recovery.and_then(Lenient::value),
            pid: auth.pid.and_then(Lenient::value).and_then(|pid| Sid::parse(&pid)),
            offset: auth.offset.and_then(Lenient::value),
        }
    }

    /// A peer shows a pid: its socket is prepared for recovery, or asked for at the shard that has it. `false`: it
    /// cannot be recovered, connect it as new.
    pub(crate) fn reclaim(
        &mut self,
        now: Moment,
        session: SessionKey,
        namespace: &str,
        auth: Option<&[u8]>,
        pid: Sid,
        offset: Option<&str>,
    ) -> bool {
        if let Some(socket) = self.find_by_pid(pid) {
            let Some(resume) = self.prepare_claim(now, socket, namespace, offset) else {
                self.counters.recoveries_refused += 1;
                return false;
            };
            let Some(entry) = self.sockets.get_mut(socket) else { return false };
            entry.session = session;
            entry.state = State::Connecting(Box::new(Connecting {
                namespace: namespace.into(),
                wants_recovery: true,
                auth: None,
                resume: Some(resume),
            }));
            if let Some(entry) = self.sessions.get_mut(session) {
                entry.sockets.push(slot_of(socket));
            }
            self.ask_application(socket, session, namespace, auth, true);
            return true;
        }
        let home = ShardId::of(pid);
        let shard = match self.moved.get(&pid) {
            Some(&shard) => shard,
            None if home.node == self.id.node && home.shard != self.id.shard => home.shard,
            None => {
                self.counters.recoveries_refused += 1;
                return false;
            }
        };
        let socket = self.insert_connecting(session, namespace, true);
        if let Some(entry) = self.sockets.get_mut(socket)
            && let State::Connecting(connecting) = &mut entry.state
        {
            connecting.auth = auth.map(Into::into);
        }
        let namespace = self.outputs.keep_text(namespace);
        let offset = offset.map(|offset| self.outputs.keep_text(offset));
        self.push_output(Pending::Claim { socket, shard, namespace, pid, offset });
        true
    }

    fn find_by_pid(&self, pid: Sid) -> Option<SocketKey> {
        let is_it = |slot: &u32| self.sockets.at(*slot).is_some_and(|socket| socket.pid == Some(pid));
        let slot =
            self.slot_of(pid).filter(is_it).or_else(|| self.adopted.get(&pid).copied().filter(is_it))?;
        self.sockets.key_at(slot)
    }

    /// Finds out from where a claimed socket goes on; it is lost when this answers. `None`: it cannot be recovered.
    fn prepare_claim(
        &mut self,
        now: Moment,
        socket: SocketKey,
        namespace: &str,
        offset: Option<&str>,
    ) -> Option<Resume> {
        let entry = self.sockets.get(socket)?;
        if matches!(entry.state, State::Connecting(_)) || &*self.namespace(entry.namespace).name != namespace
        {
            return None;
        }
        if entry.is_connected() {
            // The peer is back before its loss was noticed. Its old connection is dead, with all it carried.
            let old = entry.session;
            self.close_session(now, old, Reason::TransportClose, Goodbye::Abrupt);
        }
        let entry = self.sockets.get(socket)?;
        let State::Lost { until } = entry.state else { return None };
        if until <= now {
            self.forget_socket(socket);
            return None;
        }
        let log = self.log.as_ref()?;
        let carried = entry.carried.as_deref().map_or(&[][..], |carried| &carried.events);
        let (carried_seen, after) = match offset.map(|offset| (offset, log.parse_offset(offset))) {
            // It has had no event yet: everything since it connected.
            None => (0, entry.since),
            Some((_, Offset::Ours(seq))) if seq >= entry.since => (carried.len(), seq),
            // One of those it was given again; or older than all of them, or even than the socket, if it comes from
            // an earlier one of the same peer.
            Some((text, Offset::Ours(_) | Offset::Foreign)) => {
                let seen = carried.iter().rposition(|(offset, _)| **offset == *text);
                (seen.map_or(0, |index| index + 1), entry.since)
            }
            Some((_, Offset::Malformed)) => return None,
        };
        // An offset older than the log is that of a quiet connection, if the peer is known to have read on.
        let after = if log.reaches(after) { after } else { after.max(entry.read) };
        let is_complete = log.reaches(after)
            && entry
                .past
                .as_ref()
                .is_none_or(|past| after >= past.forgotten_until || past.forgotten_until < log.first_seq());
        is_complete.then_some(Resume { carried_seen, after, lost_until: until })
    }

    /// What a socket missed, with offsets, oldest first; `None` if it is more than an outbox takes, or the log ran over
    /// since it was claimed.
    fn missed(&self, socket: SocketKey, resume: Resume) -> Option<Vec<(Box<str>, Rc<Message>)>> {
        let entry = self.sockets.get(socket)?;
        let log = self.log.as_ref().filter(|log| log.reaches(resume.after))?;
        let sid = entry.sid.to_string();
        let mut missed: Vec<(Box<str>, Rc<Message>)> = match &entry.carried {
            Some(carried) => carried.events.iter().skip(resume.carried_seen).cloned().collect(),
            None => Vec::new(),
        };
        let mut offset = String::new();
        for event in log.after(resume.after) {
            if self.is_for(socket, entry, &sid, event) {
                log.write_offset(event.seq, &mut offset);
                missed.push((offset.as_str().into(), event.message.clone()));
            }
        }
        let bytes: usize = missed.iter().map(|(_, message)| message.weight()).sum();
        (bytes <= self.config.outbox_bytes_max).then_some(missed)
    }

    fn is_for(&self, key: SocketKey, socket: &Socket, sid: &str, event: &Entry) -> bool {
        match &event.scope {
            Scope::Socket(recipient) => *recipient == key,
            Scope::Rooms { namespace, rooms, except } => {
                if *namespace != socket.namespace {
                    return false;
                }
                let is_in = |name: &str| {
                    name == sid
                        || socket.memberships.iter().any(|place| {
                            // Joined after the event was sent: it was not for this socket.
                            is_after(event.seq as u32, place.since)
                                && *self.rooms.room(place.room).name == *name
                        })
                        || socket.past.iter().flat_map(|past| &past.stays).any(|stay| {
                            event.seq <= stay.until
                                && is_after(event.seq as u32, stay.since)
                                && *stay.room == *name
                        })
                };
                (rooms.is_empty() || rooms.iter().any(|name| is_in(name)))
                    && !except.iter().any(|name| is_in(name))
            }
        }
    }

    /// Queues what a recovered socket missed. `false` if that is too much.
    pub(crate) fn replay(&mut self, socket: SocketKey, resume: Resume) -> bool {
        let Some(missed) = self.missed(socket, resume) else { return false };
        let Some(session) = self.session_of_socket(socket) else { return false };
        self.counters.events_out += missed.len() as u64;
        for (_, message) in &missed {
            self.push(session, message.clone());
        }
        let since = self.log.as_ref().map_or(0, |log| log.next_seq() - 1);
        if let Some(entry) = self.sockets.get_mut(socket) {
            let born_elsewhere = entry.carried.as_ref().is_some_and(|carried| carried.born_elsewhere);
            entry.carried = (born_elsewhere || !missed.is_empty())
                .then(|| Box::new(Carried { events: missed, is_pinged: false, born_elsewhere }));
            entry.since = since;
        }
        true
    }

    /// A ping is queued to a session, behind whatever its sockets have been given again.
    pub(crate) fn note_pinged(&mut self, session: SessionKey) {
        let Some(entry) = self.sessions.get(session) else { return };
        for &slot in &entry.sockets {
            if let Some(carried) = self.sockets.at_mut(slot).and_then(|socket| socket.carried.as_mut()) {
                carried.is_pinged = true;
            }
        }
    }

    /// A peer has answered a ping: it has read what was queued before that, up to `mark` of the log.
    pub(crate) fn note_read(&mut self, session: SessionKey, mark: u32) {
        let Some(log) = &self.log else { return };
        let position = log.position_of(mark);
        let Some(entry) = self.sessions.get(session) else { return };
        for &slot in &entry.sockets {
            let Some(socket) = self.sockets.at_mut(slot).filter(|socket| socket.gets_offsets()) else {
                continue;
            };
            socket.read = position;
            if let Some(carried) = &mut socket.carried
                && carried.is_pinged
            {
                carried.events = Vec::new();
                if !carried.born_elsewhere {
                    socket.carried = None;
                }
            }
        }
    }

    /// Gives a socket whose recovery failed at the last step new ids and no rooms.
    pub(crate) fn start_over(&mut self, socket: SocketKey) {
        let sid = self.make_sid(socket.slot());
        let pid = self.make_sid(socket.slot());
        self.leave_all(socket);
        self.release_names(socket);
        let since = self.log.as_ref().map_or(0, |log| log.next_seq() - 1);
        if let Some(entry) = self.sockets.get_mut(socket) {
            entry.sid = sid;
            entry.pid = Some(pid);
            entry.since = since;
            entry.carried = None;
            entry.past = None;
        }
        self.refresh_members(socket);
    }

    /// A socket loses its link, and waits to be claimed.
    pub(crate) fn lose_socket(&mut self, socket: SocketKey, until: Moment) {
        if let Some(entry) = self.sockets.get_mut(socket) {
            entry.session = SessionKey::NONE;
            entry.state = State::Lost { until };
            self.lost.insert((until, socket));
            self.refresh_members(socket);
        }
    }

    /// A lost socket's time is up.
    pub(crate) fn forget_socket(&mut self, socket: SocketKey) {
        if let Some(entry) = self.sockets.get(socket) {
            if let State::Lost { until } = entry.state {
                self.lost.remove(&(until, socket));
            }
            self.push_output(Pending::Forgotten { socket });
            self.remove_socket(socket);
        }
    }

    /// Another shard asks for a lost socket on behalf of a peer that has come to it. If it can be recovered it is
    /// taken from here, and `to` is remembered for the next time.
    pub fn handle_claim(
        &mut self,
        now: Moment,
        namespace: &str,
        pid: Sid,
        offset: Option<&str>,
        to: u8,
    ) -> Claim {
        if let Some(&shard) = self.moved.get(&pid) {
            return Claim::Moved { shard };
        }
        let Some(socket) = self.find_by_pid(pid) else { return Claim::Unknown };
        let Some(resume) = self.prepare_claim(now, socket, namespace, offset) else { return Claim::Unknown };
        let Some(claimed) = self.take_claimed(socket, pid, resume) else { return Claim::Unknown };
        if ShardId::of(pid) == self.id {
            self.moved.insert(pid, to);
        }
        // Its home keeps its note, only the shard named there changes.
        if let Some(entry) = self.sockets.get_mut(socket) {
            entry.carried = None;
        }
        self.forget_socket(socket);
        Claim::Taken(Box::new(claimed))
    }

    fn take_claimed(&self, socket: SocketKey, pid: Sid, resume: Resume) -> Option<Claimed> {
        let entry = self.sockets.get(socket)?;
        let missed = self
            .missed(socket, resume)?
            .into_iter()
            .map(|(offset, message)| {
                let mut frames = message.frames();
                let head = frames.next().expect("invariant: a message has a head");
                Missed {
                    offset: offset.into(),
                    packet: head.payload().to_vec(),
                    is_binary: head.kind() == FrameKind::Binary,
                    attachments: frames.map(|frame| frame.payload().to_vec().into()).collect(),
                }
            })
            .collect();
        let rooms = self.rooms_of(socket).iter().map(ToString::to_string).collect();
        Some(Claimed { socket, sid: entry.sid, pid, rooms, missed })
    }

    /// The answer to [`Output::Claim`](crate::Output::Claim): the socket, or `None` to connect as new. The
    /// application is asked either way. Answers under which key the socket now is, for what the driver keeps beside
    /// it.
    pub fn handle_claimed(
        &mut self,
        now: Moment,
        socket: SocketKey,
        namespace: &str,
        claimed: Option<Claimed>,
    ) -> SocketKey {
        let live = self.sockets.get(socket).is_some_and(|entry| matches!(entry.state, State::Connecting(_)));
        let Some(claimed) = claimed else {
            self.counters.recoveries_refused += 1;
            if live {
                self.ask_about(socket, false);
            }
            return socket;
        };
        let Some(recovery) = self.config.recovery.clone() else { return socket };
        let lost_until = now + recovery.disconnection_max;
        // The peer may have gone while its socket was fetched: then it waits here.
        let socket = if live { socket } else { self.insert_unattached(namespace) };
        let name = self.intern(namespace);
        let since = self.log.as_ref().map_or(0, |log| log.next_seq() - 1);
        if let Some(entry) = self.sockets.get_mut(socket) {
            entry.sid = claimed.sid;
            entry.pid = Some(claimed.pid);
            entry.since = since;
            let events =
                claimed.missed.iter().map(|missed| (missed.offset.as_str().into(), message_of(missed)));
            entry.carried = Some(Box::new(Carried {
                events: events.collect(),
                is_pinged: false,
                born_elsewhere: ShardId::of(claimed.pid) != self.id,
            }));
            if let State::Connecting(connecting) = &mut entry.state {
                connecting.resume = Some(Resume { carried_seen: 0, after: since, lost_until });
            }
        }
        self.adopt_names(socket, namespace);
        self.enter_namespace(socket, name);
        for room in &claimed.rooms {
            self.add_membership(socket, room, since);
        }
        if ShardId::of(claimed.pid) == self.id {
            self.moved.remove(&claimed.pid);
        } else {
            self.push_output(Pending::Adopted { pid: claimed.pid });
        }
        if live {
            self.ask_about(socket, true);
        } else {
            self.lose_socket(socket, lost_until);
        }
        socket
    }

    fn ask_about(&mut self, socket: SocketKey, recovering: bool) {
        let Some(entry) = self.sockets.get_mut(socket) else { return };
        let session = entry.session;
        let State::Connecting(connecting) = &mut entry.state else { return };
        let (namespace, auth) = (connecting.namespace.clone(), connecting.auth.take());
        self.ask_application(socket, session, &namespace, auth.as_deref(), recovering);
    }

    /// A socket born here now lives on shard `to`, by way of a third one.
    pub fn handle_adopted(&mut self, pid: Sid, to: u8) {
        if ShardId::of(pid) == self.id && self.find_by_pid(pid).is_none() {
            self.moved.insert(pid, to);
        }
    }

    /// A socket born here and recovered elsewhere is no more: the note of where it went goes.
    pub fn handle_claim_released(&mut self, pid: Sid) {
        self.moved.remove(&pid);
    }

    /// Makes a socket reachable by ids that name another slot than its own.
    fn adopt_names(&mut self, socket: SocketKey, namespace: &str) {
        let Some(entry) = self.sockets.get(socket) else { return };
        let (sid, pid) = (entry.sid, entry.pid);
        self.adopted.insert(sid, slot_of(socket));
        if let Some(pid) = pid {
            self.adopted.insert(pid, slot_of(socket));
        }
        self.push_output(Pending::RoomOpened { namespace: namespace.into(), room: sid.to_string().into() });
    }

    /// The reverse of [`Shard::adopt_names`], when a socket goes or gets new ids.
    pub(crate) fn release_names(&mut self, socket: SocketKey) {
        let Some(entry) = self.sockets.get(socket) else { return };
        let (sid, pid, namespace) = (entry.sid, entry.pid, entry.namespace);
        let is_foreign = entry.carried.as_ref().is_some_and(|carried| carried.born_elsewhere);
        if self.adopted.remove(&sid).is_some() {
            let namespace = self.namespace_name(namespace);
            self.push_output(Pending::RoomClosed { namespace, room: sid.to_string().into() });
        }
        if let Some(pid) = pid {
            self.adopted.remove(&pid);
            if is_foreign {
                self.push_output(Pending::ReleaseClaim { pid });
            }
        }
    }
}

fn message_of(missed: &Missed) -> Rc<Message> {
    if missed.is_binary {
        Message::binary(&missed.packet, true)
    } else {
        Message::text_with(&missed.packet, &missed.attachments, true)
    }
}
