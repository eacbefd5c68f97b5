//! Owns a shard's state and hands each input to the file that knows what to do with it; this file only routes.
//! Does not know threads, clocks, HTTP or the application. Invariant: nothing here blocks, allocates per idle
//! session, or depends on hash order.
//!
//! Files that continue `impl Shard`, each for one noun: `polling.rs` (GET and POST), `websocket.rs` (links),
//! `upgrade.rs`, `heartbeat.rs` (deadlines), `connect.rs` (sockets come and go), `incoming.rs` (packets in),
//! `emit.rs` (events out), `claim.rs` (recovery), `restore.rs` (recovery from what the application keeps),
//! `release.rs` (recovery elsewhere).

use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;

use eio_proto::Sid;
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use rand_chacha::ChaCha12Rng;
use rand_core::{Rng, SeedableRng};
use ws_proto::deflate::{Deflater, Inflater};
use ws_proto::{Role, Rules};

use crate::ack::Acks;
use crate::close::Goodbye;
use crate::config::Config;
use crate::counters::{Counters, Gauges};
use crate::link::{Link, LinkKey, LinkTag};
use crate::message::Message;
use crate::moment::Moment;
use crate::outbox::Rings;
use crate::output::{Output, Outputs, Pending};
use crate::reason::Reason;
use crate::recovery::{Arrival, Departure, Log};
use crate::room::{Member, NamespaceIndex, RoomIndex, Rooms};
use crate::session::{RequestId, Session, SessionKey, SessionTag, Transport};
use crate::slab::Slab;
use crate::socket::{Socket, SocketKey, SocketTag, State};
use crate::wheel::Wheel;

/// Where in the cluster a shard sits; every id it makes carries this, so that any other can tell whose it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ShardId {
    /// The node. 0 when there is only one.
    pub node: u16,
    /// The shard within the node.
    pub shard: u8,
}

impl ShardId {
    /// The shard that made `sid`.
    #[must_use]
    pub fn of(sid: Sid) -> Self {
        let bytes = sid.as_bytes();
        Self { node: u16::from_be_bytes([bytes[0], bytes[1]]), shard: bytes[2] }
    }
}

/// One namespace that has sockets here.
pub(crate) struct Namespace {
    pub(crate) name: Rc<str>,
    /// All its sockets, as a room without a name.
    pub(crate) everyone: RoomIndex,
}

/// Engine.IO sessions, their sockets, rooms, acks and outboxes: one value, driven from outside.
///
/// The smallest correct loop of a driver is: hand over whatever came (`handle_…`), then take
/// [`poll_output`](Self::poll_output) until it answers `None`, giving the application's answers back at once
/// ([`accept`](Self::accept), [`emit`](Self::emit) …), then [`flush`](Self::flush), take its outputs too, and write
/// what [`poll_transmit`](Self::poll_transmit) names. Call [`handle_deadline`](Self::handle_deadline) at
/// [`poll_deadline`](Self::poll_deadline). Everything handled before a flush is joined into one write per link.
pub struct Shard {
    pub(crate) id: ShardId,
    pub(crate) config: Config,
    pub(crate) rules: Rules,
    pub(crate) rng: ChaCha12Rng,
    pub(crate) sessions: Slab<Session, SessionTag>,
    pub(crate) links: Slab<Link, LinkTag>,
    pub(crate) sockets: Slab<Socket, SocketTag>,
    pub(crate) rooms: Rooms,
    pub(crate) namespaces: Vec<Option<Namespace>>,
    pub(crate) namespace_names: HashMap<Rc<str>, NamespaceIndex, RandomState>,
    /// Sockets recovered from elsewhere, whose ids name another slot than they have here.
    pub(crate) adopted: HashMap<Sid, u32, RandomState>,
    /// Sockets born here and recovered elsewhere: their pid, and the shard that has them now.
    pub(crate) moved: HashMap<Sid, u8, RandomState>,
    /// Lost sockets that are held for other shards, by pid.
    pub(crate) departures: HashMap<Sid, Departure, RandomState>,
    /// Sockets-to-be that are held elsewhere, by pid.
    pub(crate) arrivals: HashMap<Sid, Arrival, RandomState>,
    /// Sockets-to-be that the application is asked for, by pid.
    pub(crate) restoring: HashMap<Sid, SocketKey, RandomState>,
    /// The same in the order in which the application's time runs out; entries of answered ones are stale.
    pub(crate) restores_due: VecDeque<(Moment, Sid, SocketKey)>,
    /// Lost sockets in the order in which their time runs out; entries of recovered ones are stale.
    pub(crate) lost: BTreeSet<(Moment, SocketKey)>,
    pub(crate) acks: Acks,
    pub(crate) log: Option<Log>,
    pub(crate) wheel: Wheel<SessionKey>,
    pub(crate) outputs: Outputs,
    pub(crate) dirty_sessions: Vec<SessionKey>,
    pub(crate) dirty_links: VecDeque<LinkKey>,
    pub(crate) overfull: Vec<SessionKey>,
    /// Links that have been sent the last of their session, and when to send the close frame.
    pub(crate) farewells: VecDeque<(Moment, LinkKey)>,
    /// Polling sessions that sent something undecodable and end with this turn.
    pub(crate) condemned: Vec<SessionKey>,
    /// POSTs whose bodies were still arriving when their session moved to WebSocket. Nearly always empty.
    pub(crate) late_posts: Vec<(SessionKey, RequestId)>,
    pub(crate) rings: Rings,
    pub(crate) deflater: Option<Deflater>,
    /// Made when the first link that agreed to compression is read: it has a window of 32 KiB.
    pub(crate) inflater: Option<Inflater>,
    pub(crate) scratch: Vec<u8>,
    pub(crate) offset_scratch: String,
    pub(crate) due: Vec<(u64, SessionKey)>,
    pub(crate) selection: Vec<Member>,
    pub(crate) mark: u32,
    pub(crate) canned: Canned,
    pub(crate) counters: Counters,
}

/// Packets that are the same for everyone, encoded once for ever.
pub(crate) struct Canned {
    pub(crate) ping: Rc<Message>,
    pub(crate) pong: Rc<Message>,
}

impl Shard {
    /// An empty shard. `seed` must come from the system's entropy: ids are made from it and must not be guessable.
    #[must_use]
    pub fn new(id: ShardId, config: Config, seed: [u8; 32]) -> Self {
        let mut rng = ChaCha12Rng::from_seed(seed);
        let rules =
            Rules { role: Role::Server, message_bytes_max: config.payload_bytes_max, ..Rules::default() };
        let log = config.recovery.as_ref().map(|recovery| {
            // An event written to a link that was already dead is missed, too: it may be as old as the heartbeat
            // takes to notice, at the moment when the time to come back begins.
            let age_max = recovery.disconnection_max + config.ping_interval + config.ping_timeout;
            Log::new(recovery.log_bytes_max, age_max, rng.next_u32())
        });
        Self {
            id,
            rules,
            rng,
            sessions: Slab::new(),
            links: Slab::new(),
            sockets: Slab::new(),
            rooms: Rooms::new(),
            namespaces: Vec::new(),
            namespace_names: HashMap::default(),
            adopted: HashMap::default(),
            moved: HashMap::default(),
            departures: HashMap::default(),
            arrivals: HashMap::default(),
            restoring: HashMap::default(),
            restores_due: VecDeque::new(),
            lost: BTreeSet::new(),
            acks: Acks::default(),
            log,
            wheel: Wheel::new(config.ping_interval),
            outputs: Outputs::default(),
            dirty_sessions: Vec::new(),
            dirty_links: VecDeque::new(),
            overfull: Vec::new(),
            condemned: Vec::new(),
            farewells: VecDeque::new(),
            late_posts: Vec::new(),
            rings: Rings::new(),
            deflater: None,
            inflater: None,
            scratch: Vec::new(),
            offset_scratch: String::new(),
            due: Vec::new(),
            selection: Vec::new(),
            mark: 0,
            canned: Canned { ping: Message::text(b"2"), pong: Message::text(b"3") },
            counters: Counters::default(),
            config,
        }
    }

    /// Which shard this is.
    #[must_use]
    pub fn id(&self) -> ShardId {
        self.id
    }

    /// The settings it was built with.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Takes the next output; `None` when there is none left. Take them all before handing in more input.
    #[inline]
    pub fn poll_output(&mut self) -> Option<Output<'_>> {
        self.outputs.poll()
    }

    /// What has been counted so far.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// What is held right now. Walks sessions and sockets: for statistics, not for the data path.
    #[must_use]
    pub fn gauges(&self) -> Gauges {
        Gauges {
            sessions: self.sessions.len(),
            sessions_websocket: self
                .sessions
                .iter()
                .filter(|(_, session)| matches!(session.transport, Transport::WebSocket(_)))
                .count(),
            sockets: self.sockets.iter().filter(|(_, socket)| socket.is_connected()).count(),
            sockets_lost: self
                .sockets
                .iter()
                .filter(|(_, socket)| matches!(socket.state, State::Lost { .. }))
                .count(),
            rooms: self.rooms.len(),
            log_events: self.log.as_ref().map_or(0, Log::len),
            log_bytes: self.log.as_ref().map_or(0, Log::bytes),
            acks_awaited: self.acks.len(),
            links: self.links.len(),
            notes: self.moved.len()
                + self.adopted.len()
                + self.departures.len()
                + self.arrivals.len()
                + self.restoring.len(),
        }
    }

    /// Makes an id that names this shard and a slot; the other nine bytes cannot be guessed.
    ///
    /// Twenty characters, because cluster tools of the field tell ids from room names by that. EIO4 "Handshake".
    pub(crate) fn make_sid(&mut self, slot: usize) -> Sid {
        let mut bytes = [0; 15];
        bytes[0..2].copy_from_slice(&self.id.node.to_be_bytes());
        bytes[2] = self.id.shard;
        let slot = u32::try_from(slot).unwrap_or(u32::MAX).to_be_bytes();
        bytes[3..6].copy_from_slice(&slot[1..]);
        self.rng.fill_bytes(&mut bytes[6..]);
        Sid::new(bytes)
    }

    /// The slot that [`Shard::make_sid`] put into `sid`; `None` if another shard made it.
    pub(crate) fn slot_of(&self, sid: Sid) -> Option<u32> {
        let bytes = sid.as_bytes();
        (ShardId::of(sid) == self.id).then(|| u32::from_be_bytes([0, bytes[3], bytes[4], bytes[5]]))
    }

    /// The live session with this id.
    #[must_use]
    pub fn session_by_sid(&self, sid: Sid) -> Option<SessionKey> {
        self.find_session(sid)
    }

    /// The WebSocket link that speaks for a session, if one does.
    #[must_use]
    pub fn link_of(&self, session: SessionKey) -> Option<LinkKey> {
        self.sessions.get(session).and_then(Session::link)
    }

    /// The GET of a session that waits for something to be sent.
    #[must_use]
    pub fn waiting_get(&self, session: SessionKey) -> Option<RequestId> {
        match &self.sessions.get(session)?.transport {
            Transport::Polling(poll) => poll.get,
            Transport::Probing(probe) => probe.poll.get,
            Transport::WebSocket(_) | Transport::Closing(_) => None,
        }
    }

    pub(crate) fn find_session(&self, sid: Sid) -> Option<SessionKey> {
        let slot = self.slot_of(sid)?;
        (self.sessions.at(slot)?.sid == sid).then(|| self.sessions.key_at(slot))?
    }

    /// Marks a session as having something to send at the next flush.
    #[inline]
    pub(crate) fn mark_dirty(&mut self, session: SessionKey) {
        if let Some(entry) = self.sessions.get_mut(session)
            && !entry.is_dirty
        {
            entry.is_dirty = true;
            self.dirty_sessions.push(session);
        }
    }

    /// Marks a link as having something to write.
    #[inline]
    pub(crate) fn mark_link(&mut self, link: LinkKey) {
        if let Some(entry) = self.links.get_mut(link)
            && !entry.is_dirty
        {
            entry.is_dirty = true;
            self.dirty_links.push_back(link);
        }
    }

    /// Queues a message for one session.
    #[inline]
    pub(crate) fn push(&mut self, session: SessionKey, message: Rc<Message>) {
        let Some(entry) = self.sessions.get_mut(session) else { return };
        // The message that crosses the line is still taken: one that is larger than the line must pass, too.
        if entry.outbox.bytes() > self.config.outbox_bytes_max {
            self.overfull.push(session);
        }
        entry.outbox.push(message, &mut self.rings);
        if !entry.is_dirty {
            entry.is_dirty = true;
            self.dirty_sessions.push(session);
        }
    }

    /// Ends a turn: answers polls that wait, names links that have something to write, and closes sessions whose
    /// outbox is full. Call it once everything that came has been handled; then take outputs and transmits.
    pub fn flush(&mut self, now: Moment) {
        while let Some(session) = self.overfull.pop() {
            if self.is_stuck(session) {
                self.evict(now, session);
            }
        }
        while let Some(session) = self.condemned.pop() {
            self.answer_poll(session);
            self.close_session(now, session, Reason::ParseError, Goodbye::Prompt);
        }
        let mut dirty = std::mem::take(&mut self.dirty_sessions);
        for &session in &dirty {
            let Some(entry) = self.sessions.get_mut(session) else { continue };
            entry.is_dirty = false;
            match entry.transport {
                Transport::WebSocket(link) => {
                    if !entry.outbox.is_empty() && self.links.get(link).is_some_and(|link| !link.is_blocked) {
                        self.mark_link(link);
                    }
                }
                Transport::Polling(_) | Transport::Probing(_) | Transport::Closing(_) => {
                    self.answer_poll(session);
                }
            }
        }
        dirty.clear();
        if dirty.capacity() > 65_536 {
            dirty = Vec::new();
        }
        self.dirty_sessions = dirty;
    }

    /// Whether a flush cannot send anything to this session now.
    pub(crate) fn is_stuck(&self, session: SessionKey) -> bool {
        let Some(entry) = self.sessions.get(session) else { return false };
        match &entry.transport {
            Transport::WebSocket(link) => self.links.get(*link).is_some_and(|link| link.is_blocked),
            Transport::Polling(poll) => poll.get.is_none(),
            Transport::Probing(probe) => probe.poll.get.is_none(),
            Transport::Closing(_) => true,
        }
    }

    /// Closes a session whose peer does not read fast enough. What is queued is dropped; recoverable sockets find
    /// it in the log.
    pub(crate) fn evict(&mut self, now: Moment, session: SessionKey) {
        if let Some(entry) = self.sessions.get_mut(session) {
            entry.outbox.clear();
            self.counters.outboxes_full += 1;
            self.close_session(now, session, Reason::OutboxFull, Goodbye::Abrupt);
        }
    }

    pub(crate) fn push_output(&mut self, output: Pending) {
        self.outputs.push(output);
    }
}
