//! Lost sockets and how they are claimed again: on this shard, or by another.
//! Does not know threads: what passes between shards is plain values. Invariant: a socket is recovered without a
//! gap or not at all, and by one peer at a time.

use std::rc::Rc;
use std::time::Duration;

use eio_proto::Sid;
use foldhash::fast::RandomState;
use hashbrown::HashSet;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::close::Goodbye;
use crate::connect::{is_after, slot_of};
use crate::message::{FrameKind, Message};
use crate::moment::Moment;
use crate::output::Pending;
use crate::reason::Reason;
use crate::recovery::{
    Arrival, Carried, Claim, Claimant, Claimed, Departure, Entry, Given, Handover, Log, Missed, MissedEvent,
    Offer, Offset, Scope, mark_place, number_in,
};
use crate::restore::Shown;
use crate::session::SessionKey;
use crate::shard::{Shard, ShardId};
use crate::socket::{Connecting, Resume, Socket, SocketKey, State};

/// How long a socket may be lost where nothing is said about it: not at all.
const MINIMAL_GRACE: Duration = Duration::ZERO;

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

/// Where a shard thinks that a socket is which it does not have.
pub(crate) enum Whereabouts {
    /// There, or that shard knows more.
    Shard(u8),
    /// Somebody here is just being told to ask the application for it.
    Asked,
    /// No shard has it.
    Nowhere,
}

/// What a claim finds.
enum Prepared {
    /// The socket, and from where it goes on.
    Ready(SocketKey, Resume),
    /// Nothing, or nothing any more.
    Gone,
    /// Something that this claim cannot have now.
    Refused,
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
        if !self.void_restore(now, pid, session, namespace) {
            self.counters.recoveries_refused += 1;
            return false;
        }
        let prepared = match self.find_by_pid(pid) {
            Some(socket) => self.prepare_claim(now, socket, namespace, offset),
            None => Prepared::Gone,
        };
        if let Prepared::Ready(socket, resume) = prepared {
            let Some(entry) = self.sockets.get_mut(socket) else { return false };
            entry.session = session;
            entry.state = State::Connecting(Box::new(Connecting {
                namespace: namespace.into(),
                wants_recovery: true,
                auth: None,
                resume: Some(resume),
                shown: None,
            }));
            if let Some(entry) = self.sessions.get_mut(session) {
                entry.sockets.push(slot_of(socket));
            }
            self.ask_application(socket, session, namespace, auth, true);
            return true;
        }
        let is_near = ShardId::of(pid).node == self.id.node || self.restores();
        // Whom to ask; `None`: the application.
        let shard = match (prepared, self.moved.get(&pid)) {
            (Prepared::Gone, Some(&shard)) if shard != self.id.shard => Some(shard),
            (Prepared::Gone, None) if is_near && !self.is_home(pid) => Some(self.home_of(pid)),
            (Prepared::Gone, None) if self.restores() => None,
            _ => {
                self.counters.recoveries_refused += 1;
                return false;
            }
        };
        let socket = self.insert_connecting(session, namespace, true);
        if let Some(entry) = self.sockets.get_mut(socket)
            && let State::Connecting(connecting) = &mut entry.state
        {
            connecting.auth = auth.map(Into::into);
            connecting.shown = Some(Shown::new(pid, offset));
        }
        let Some(shard) = shard else {
            self.begin_restore(now, socket);
            return true;
        };
        let namespace = self.outputs.keep_text(namespace);
        let offset = offset.map(|offset| self.outputs.keep_text(offset));
        self.push_output(Pending::Claim { socket, shard, namespace, pid, offset });
        true
    }

    /// Where to ask for a socket that is not here.
    pub(crate) fn whereabouts(&self, pid: Sid) -> Whereabouts {
        match self.moved.get(&pid) {
            Some(&shard) if shard == self.id.shard => Whereabouts::Asked,
            Some(&shard) => Whereabouts::Shard(shard),
            None if self.home_of(pid) == self.id.shard => Whereabouts::Nowhere,
            None => Whereabouts::Shard(self.home_of(pid)),
        }
    }

    pub(crate) fn find_by_pid(&self, pid: Sid) -> Option<SocketKey> {
        let is_it = |slot: &u32| self.sockets.at(*slot).is_some_and(|socket| socket.pid == Some(pid));
        let slot =
            self.slot_of(pid).filter(is_it).or_else(|| self.adopted.get(&pid).copied().filter(is_it))?;
        self.sockets.key_at(slot)
    }

    /// Finds out from where a claimed socket goes on; it is lost when this answers that it is ready.
    fn prepare_claim(
        &mut self,
        now: Moment,
        socket: SocketKey,
        namespace: &str,
        offset: Option<&str>,
    ) -> Prepared {
        if self.is_moving(socket) {
            return Prepared::Refused;
        }
        let Some(entry) = self.sockets.get(socket) else { return Prepared::Gone };
        if matches!(entry.state, State::Connecting(_)) || &*self.namespace(entry.namespace).name != namespace
        {
            return Prepared::Refused;
        }
        if entry.is_connected() {
            // The peer is back before its loss was noticed. Its old connection is dead, with all it carried.
            let old = entry.session;
            self.close_session(now, old, Reason::TransportClose, Goodbye::Abrupt);
        }
        let Some(entry) = self.sockets.get(socket) else { return Prepared::Gone };
        let State::Lost { until } = entry.state else { return Prepared::Refused };
        if until <= now {
            self.forget_socket(socket);
            return Prepared::Gone;
        }
        let Some(log) = &self.log else { return Prepared::Refused };
        let carried = entry.carried.as_deref();
        let mut seen_number = 0;
        let (carried_seen, after) = match offset.map(|offset| (offset, log.parse_offset(offset))) {
            // It has had no event yet: everything since it connected.
            None => (0, entry.since),
            Some((_, Offset::Ours(seq))) if seq >= entry.since => {
                (carried.map_or(0, |carried| carried.events.len()), seq)
            }
            // One of those it was given again; or older than all of them, or even than the socket, if it comes from
            // an earlier one of the same peer.
            Some((text, Offset::Ours(_) | Offset::Foreign)) => {
                // It may have been elsewhere since, on a node of which nothing is known here.
                seen_number = number_in(text).unwrap_or(0);
                (carried.map_or(0, |carried| carried.seen_by(text)), entry.since)
            }
            Some((_, Offset::Malformed)) => return Prepared::Refused,
        };
        // An offset older than the log is that of a quiet connection, if the peer is known to have read on.
        let after = if log.reaches(after) { after } else { after.max(entry.read) };
        let is_complete = log.reaches(after)
            && entry
                .past
                .as_ref()
                .is_none_or(|past| after >= past.forgotten_until || past.forgotten_until < log.first_seq());
        if is_complete {
            return Prepared::Ready(socket, Resume { carried_seen, after, seen_number, lost_until: until });
        }
        if self.restores() {
            // What is left of it here is of no use to anybody.
            self.forget_socket(socket);
            return Prepared::Gone;
        }
        Prepared::Refused
    }

    /// What a socket missed, with offsets and places, oldest first; `None` if it is more than an outbox takes, or the
    /// log ran over since it was claimed.
    fn missed(&self, socket: SocketKey, resume: Resume) -> Option<Vec<Given>> {
        let entry = self.sockets.get(socket)?;
        let log = self.log.as_ref().filter(|log| log.reaches(resume.after))?;
        let sid = entry.sid.to_string();
        let mut missed: Vec<Given> = match &entry.carried {
            Some(carried) => {
                let unseen = carried.events.iter().skip(resume.carried_seen);
                unseen.filter(|given| !given.is_seen(resume.seen_number)).cloned().collect()
            }
            None => Vec::new(),
        };
        let mut offset = String::new();
        for event in log.after(resume.after) {
            let is_seen = event.is_numbered && event.number <= resume.seen_number;
            if !is_seen && self.is_for(socket, entry, &sid, event) {
                log.write_offset(event.seq, event.number, &mut offset);
                missed.push(Given::of(event, &offset));
            }
        }
        let bytes: usize =
            missed.iter().flat_map(|given| &given.message).map(|message| message.weight()).sum();
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

    /// What a recovered socket is given again, to be queued with its CONNECT: from here on it counts as given. `None` if it
    /// is too much.
    pub(crate) fn take_missed(&mut self, socket: SocketKey, resume: Resume) -> Option<Vec<Rc<Message>>> {
        let mut missed = self.missed(socket, resume)?;
        let messages = missed.iter().filter_map(|given| given.message.clone()).collect();
        if missed.iter().all(|given| given.message.is_none()) {
            missed.clear();
        }
        let since = match &mut self.log {
            Some(log) if !missed.is_empty() => {
                // What is sent from now on tells this position or a later one, whatever log the missed ones are of.
                let since = log.skip();
                let mut offset = String::new();
                log.write_offset(since, 0, &mut offset);
                mark_place(&mut missed, &offset);
                since
            }
            Some(log) => log.next_seq() - 1,
            None => 0,
        };
        if let Some(entry) = self.sockets.get_mut(socket) {
            let old = entry.carried.as_ref();
            let born_elsewhere = old.is_some_and(|carried| carried.born_elsewhere);
            let restored = old.map_or(0, |carried| carried.restored.saturating_sub(resume.carried_seen));
            entry.carried = (born_elsewhere || !missed.is_empty())
                .then(|| Box::new(Carried { events: missed, restored, is_pinged: false, born_elsewhere }));
            entry.since = since;
        }
        Some(messages)
    }

    /// A ping is queued to a session, behind whatever its sockets have been given again.
    pub(crate) fn note_pinged(&mut self, session: SessionKey) {
        let Some(entry) = self.sessions.get(session) else { return };
        for &slot in &entry.sockets {
            // While the application decides, nothing has been queued for it yet.
            if let Some(socket) = self.sockets.at_mut(slot).filter(|socket| socket.is_connected())
                && let Some(carried) = &mut socket.carried
            {
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
            // One that came back after the ping was given what it missed behind it.
            let Some(socket) = self
                .sockets
                .at_mut(slot)
                .filter(|socket| socket.is_connected() && socket.gets_offsets() && socket.since <= position)
            else {
                continue;
            };
            socket.read = position;
            if let Some(carried) = &mut socket.carried
                && carried.is_pinged
            {
                (carried.events, carried.restored) = (Vec::new(), 0);
                if !carried.born_elsewhere {
                    socket.carried = None;
                }
            }
        }
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

    /// Whether a socket is between two shards.
    pub(crate) fn is_moving(&self, socket: SocketKey) -> bool {
        let Some(pid) = self.sockets.get(socket).and_then(|entry| entry.pid) else { return false };
        self.departures.contains_key(&pid) || self.arrivals.contains_key(&pid)
    }

    /// Another shard asks for a lost socket on behalf of a peer that has come to it. If it can be recovered it stays
    /// here, in its rooms, until [`Shard::handle_settled`] says that the claimant has them, too.
    ///
    /// The whole move, between the claimant C and the holder H, with an [`Output::Settle`] at each arrow:
    ///
    /// 1. C: [`Output::Claim`]. H: this, which answers an offer. C: [`Shard::handle_offered`] takes the socket's place
    ///    in its rooms. →
    /// 2. C: [`Shard::handle_settled`]. What came to C before has reached H, or will; what comes after, H has had
    ///    since the claim, or not at all. →
    /// 3. H: [`Shard::handle_settled`] gives the socket up: a [`Handover`] with what it missed, and the names of all
    ///    that H had since the claim. C: [`Shard::handle_claimed`]. →
    /// 4. C: [`Shard::handle_settled`]. What H had has come to C, too, if it was to. To what the socket missed there
    ///    C adds what came here after step 2, except for what H had; then it asks the application.
    ///
    /// So nothing is lost and nothing comes twice, and events of one sender stay in order: each shard has them in
    /// order, and H's part ends, for each sender, before C's begins.
    ///
    /// [`Output::Claim`]: crate::Output::Claim
    /// [`Output::Settle`]: crate::Output::Settle
    pub fn handle_claim(
        &mut self,
        now: Moment,
        namespace: &str,
        pid: Sid,
        offset: Option<&str>,
        claimant: Claimant,
    ) -> Claim {
        if let Some(&shard) = self.moved.get(&pid) {
            // A note about this shard itself: somebody is just being told to ask the application.
            return if shard == self.id.shard { Claim::Refused } else { Claim::Moved { shard } };
        }
        if !self.void_restore(now, pid, SessionKey::NONE, namespace) {
            return Claim::Refused;
        }
        let prepared = match self.find_by_pid(pid) {
            Some(socket) => self.prepare_claim(now, socket, namespace, offset),
            None => Prepared::Gone,
        };
        let (socket, resume) = match prepared {
            Prepared::Ready(socket, resume) => (socket, resume),
            Prepared::Gone => return self.deny_claim(pid, claimant),
            Prepared::Refused => return Claim::Refused,
        };
        let offered = self.log.as_ref().map_or(0, |log| log.next_seq() - 1);
        let departure = Departure { socket, claimant, resume, offered, is_void: false };
        if claimant.shard == self.id.shard {
            // It was here all the time, under another key: there is nobody to settle with.
            return match self.take_claimed(pid, &departure) {
                Some(claimed) => Claim::Taken(Box::new(claimed)),
                None => Claim::Refused,
            };
        }
        let Some(entry) = self.sockets.get(socket) else { return Claim::Refused };
        let sid = entry.sid;
        let rooms = self.rooms_of(socket).iter().map(ToString::to_string).collect();
        self.departures.insert(pid, departure);
        Claim::Offered(Offer { sid, pid, rooms })
    }

    /// Takes a socket out of this shard, with what it missed. `None`, and it stays, if that is too much.
    fn take_claimed(&mut self, pid: Sid, departure: &Departure) -> Option<Claimed> {
        let socket = departure.socket;
        let sid = self.sockets.get(socket)?.sid;
        let missed = self.missed(socket, departure.resume)?;
        let missed = missed
            .into_iter()
            .map(|Given { offset, message, is_numbered }| Missed {
                offset: offset.into(),
                event: message.map(|message| event_of(&message)),
                is_numbered,
            })
            .collect();
        let rooms = self.rooms_of(socket).iter().map(ToString::to_string).collect();
        let had = self.log.as_ref()?.after(departure.offered).filter_map(|event| event.id).collect();
        if self.is_home(pid) {
            self.moved.insert(pid, departure.claimant.shard);
        }
        // Its home keeps its note, only the shard named there changes.
        if let Some(entry) = self.sockets.get_mut(socket) {
            entry.carried = None;
        }
        self.forget_socket(socket);
        let order = self.log.as_ref()?.order();
        Some(Claimed { socket, sid, pid, rooms, missed, had, order })
    }

    /// The answer to [`Output::Claim`](crate::Output::Claim) is an offer: this shard takes the socket's place in its
    /// rooms, and asks for everybody to know.
    pub fn handle_offered(
        &mut self,
        now: Moment,
        socket: SocketKey,
        namespace: &str,
        holder: u8,
        offer: &Offer,
    ) {
        let asked = socket;
        let socket = self.place(now, socket, namespace, offer);
        self.arrivals.insert(offer.pid, Arrival { asked, socket, holder, since: None, claimed: None });
        // What is in the mailbox may be old enough for the holder to have had it before the claim.
        self.push_output(Pending::Settle { pid: offer.pid, to: self.id.shard });
    }

    /// Gives a socket-to-be the ids and the rooms of one that is elsewhere. Answers its key: if the peer has gone
    /// meanwhile it is a new one, which is lost.
    pub(crate) fn place(
        &mut self,
        now: Moment,
        socket: SocketKey,
        namespace: &str,
        offer: &Offer,
    ) -> SocketKey {
        let live = self.sockets.get(socket).is_some_and(|entry| matches!(entry.state, State::Connecting(_)));
        let socket = if live { socket } else { self.insert_unattached(namespace) };
        let grace =
            self.config.recovery.as_ref().map_or(MINIMAL_GRACE, |recovery| recovery.disconnection_max);
        let lost_until = now + grace;
        let name = self.intern(namespace);
        let since = self.log.as_ref().map_or(0, |log| log.next_seq() - 1);
        if let Some(entry) = self.sockets.get_mut(socket) {
            entry.sid = offer.sid;
            entry.pid = Some(offer.pid);
            if let State::Connecting(connecting) = &mut entry.state {
                connecting.resume =
                    Some(Resume { carried_seen: 0, after: since, seen_number: 0, lost_until });
            }
        }
        self.adopt_names(socket, namespace);
        self.enter_namespace(socket, name);
        for room in &offer.rooms {
            self.add_membership(socket, room, since);
        }
        if !live {
            self.lose_socket(socket, lost_until);
        }
        socket
    }

    /// What an [`Output::Settle`](crate::Output::Settle) asked for has come about. For the holder of the socket it
    /// answers what to mail to the claimant's [`Shard::handle_claimed`]; a claimant gets its outputs.
    pub fn handle_settled(&mut self, now: Moment, pid: Sid) -> Option<Handover> {
        if let Some(departure) = self.departures.remove(&pid) {
            let entry = self.sockets.get(departure.socket);
            let namespace =
                entry.map_or_else(String::new, |entry| self.namespace_name(entry.namespace).to_string());
            let claimed = if departure.is_void { None } else { self.take_claimed(pid, &departure) };
            let claimed = claimed.map(Box::new);
            return Some(Handover { claimant: departure.claimant, namespace, claimed });
        }
        let arrival = self.arrivals.get_mut(&pid)?;
        if arrival.since.is_none() {
            let since = self.log.as_ref().map_or(0, |log| log.next_seq() - 1);
            arrival.since = Some(since);
            let (socket, holder) = (arrival.socket, arrival.holder);
            if let Some(entry) = self.sockets.get_mut(socket) {
                entry.since = since;
                for place in &mut entry.memberships {
                    place.since = since as u32;
                }
            }
            // Whatever came here before this is for the holder, and has to reach it first.
            self.push_output(Pending::Settle { pid, to: holder });
        } else if arrival.claimed.is_some() {
            self.finish_arrival(now, pid);
        }
        None
    }

    /// What a claim has come to: the socket, or `None` to connect as new. The application is asked either way, at
    /// once or when this has settled. Answers under which key the socket now is, for what the driver keeps beside it.
    pub fn handle_claimed(
        &mut self,
        now: Moment,
        socket: SocketKey,
        namespace: &str,
        claimed: Option<Claimed>,
    ) -> SocketKey {
        let Some(claimed) = claimed else {
            self.counters.recoveries_refused += 1;
            let pid = self.arrivals.iter().find(|(_, arrival)| arrival.asked == socket).map(|(&pid, _)| pid);
            if let Some(arrival) = pid.and_then(|pid| self.arrivals.remove(&pid)) {
                self.displace(arrival.socket);
            }
            self.ask_about(socket, false);
            return socket;
        };
        if let Some(arrival) = self.arrivals.get_mut(&claimed.pid) {
            let (pid, socket) = (claimed.pid, arrival.socket);
            arrival.claimed = Some(Box::new(claimed));
            // What the holder had may be on its way here, too.
            self.push_output(Pending::Settle { pid, to: self.id.shard });
            return socket;
        }
        // It never left this shard.
        let Claimed { sid, pid, ref rooms, .. } = claimed;
        let asked = socket;
        let socket = self.place(now, socket, namespace, &Offer { sid, pid, rooms: rooms.clone() });
        let since = self.sockets.get(socket).map_or(0, |entry| entry.since);
        self.arrivals.insert(
            pid,
            Arrival {
                asked,
                socket,
                holder: self.id.shard,
                since: Some(since),
                claimed: Some(Box::new(claimed)),
            },
        );
        self.finish_arrival(now, pid);
        socket
    }

    /// All that a socket has missed is here: whatever the holder had, then what came here after that.
    fn finish_arrival(&mut self, now: Moment, pid: Sid) {
        let Some(Arrival { socket, since: Some(since), claimed: Some(claimed), .. }) =
            self.arrivals.remove(&pid)
        else {
            return;
        };
        // What the holder has been sent this shard has been sent, too, if it was for it.
        self.note_order(claimed.order);
        let Some(entry) = self.sockets.get(socket) else { return };
        let (sid, had) = (entry.sid.to_string(), HashSet::<_, RandomState>::from_iter(claimed.had));
        let mut events: Vec<Given> = claimed
            .missed
            .iter()
            .map(|Missed { offset, event, is_numbered }| Given {
                offset: offset.as_str().into(),
                message: event.as_ref().map(message_of),
                is_numbered: *is_numbered,
            })
            .collect();
        let Some(log) = &self.log else { return };
        // Should the log have run over meanwhile, the socket begins anew when it is accepted: it reaches back to
        // before the gap.
        let is_complete = log.reaches(since);
        let mut offset = String::new();
        for event in log.after(since) {
            if self.is_for(socket, entry, &sid, event) && event.id.is_none_or(|id| !had.contains(&id)) {
                log.write_offset(event.seq, event.number, &mut offset);
                events.push(Given::of(event, &offset));
            }
        }
        // The peer may come with an offset of this log from an earlier stay: it must not look like a later one.
        let newest = self.log.as_mut().map_or(0, Log::skip);
        let after = if is_complete { newest } else { since };
        let is_home = self.is_home(pid);
        if let Some(entry) = self.sockets.get_mut(socket) {
            entry.carried =
                Some(Box::new(Carried { events, restored: 0, is_pinged: false, born_elsewhere: !is_home }));
            entry.since = after;
            if let State::Connecting(connecting) = &mut entry.state
                && let Some(resume) = &mut connecting.resume
            {
                resume.after = after;
            }
        }
        if is_home {
            self.moved.remove(&pid);
        } else {
            self.push_output(Pending::Adopted { pid });
        }
        let is_live =
            self.sockets.get(socket).is_some_and(|entry| matches!(entry.state, State::Connecting(_)));
        if is_live {
            self.ask_about(socket, true);
        } else if !is_complete {
            self.lose_socket(socket, now);
        }
    }

    /// A socket-to-be that took its place too early leaves it again, and is nobody.
    fn displace(&mut self, socket: SocketKey) {
        let Some(entry) = self.sockets.get(socket) else { return };
        if !matches!(entry.state, State::Connecting(_)) {
            if let State::Lost { until } = entry.state {
                self.lost.remove(&(until, socket));
            }
            return self.remove_socket(socket);
        }
        self.leave_all(socket);
        self.release_names(socket);
        self.leave_namespace(socket);
        let sid = self.make_sid(socket.slot());
        if let Some(entry) = self.sockets.get_mut(socket) {
            (entry.sid, entry.pid) = (sid, None);
            if let State::Connecting(connecting) = &mut entry.state {
                connecting.resume = None;
            }
        }
    }

    pub(crate) fn ask_about(&mut self, socket: SocketKey, recovering: bool) {
        let Some(entry) = self.sockets.get_mut(socket) else { return };
        let session = entry.session;
        let State::Connecting(connecting) = &mut entry.state else { return };
        let (namespace, auth) = (connecting.namespace.clone(), connecting.auth.take());
        connecting.shown = None;
        self.ask_application(socket, session, &namespace, auth.as_deref(), recovering);
    }

    /// A socket born here now lives on shard `to`, by way of a third one.
    pub fn handle_adopted(&mut self, pid: Sid, to: u8) {
        if self.is_home(pid) && self.find_by_pid(pid).is_none() {
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

fn event_of(message: &Message) -> MissedEvent {
    let mut frames = message.frames();
    let head = frames.next().expect("invariant: a message has a head");
    MissedEvent {
        packet: head.payload().to_vec(),
        is_binary: head.kind() == FrameKind::Binary,
        attachments: frames.map(|frame| frame.payload().to_vec().into()).collect(),
    }
}

fn message_of(missed: &MissedEvent) -> Rc<Message> {
    if missed.is_binary {
        Message::binary(&missed.packet, true)
    } else {
        Message::text_with(&missed.packet, &missed.attachments, true)
    }
}
