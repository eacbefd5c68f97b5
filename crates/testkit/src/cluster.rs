//! Drives one or more shards as the engine would: requests and links in, outputs out, mail between them.
//! Does not know what peers or applications do. Invariant: mail between two shards arrives in the order it was sent,
//! and nothing arrives unless [`Cluster::step`] says so.

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroU64;

use bytes::Bytes;
use eio_proto::{HandshakeFault, Revision, Sid};
use engine_core::{
    AckToken, BroadcastId, Claim, Claimant, Claimed, Config, Flags, Handover, LinkKey, Moment, Offer,
    Opening, Output, Reason, Released, Reply, RequestId, SessionKey, Shard, ShardId, SocketKey, Target,
};
use sio_proto::Body;

/// Something that came out of a shard, with everything it borrowed copied.
#[derive(Debug)]
pub enum Heard {
    /// A request was replied to.
    Reply {
        /// Which request.
        request: RequestId,
        /// The answer.
        reply: Reply,
    },
    /// Bytes left on a link.
    Wrote {
        /// Which link.
        link: LinkKey,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// The driver closed a link because the shard asked for it, everything staged having been written.
    LinkClosed {
        /// Which link.
        link: LinkKey,
    },
    /// A message arrived, on a shard that speaks Engine.IO alone.
    Message {
        /// From whom.
        session: SessionKey,
        /// The message.
        data: Vec<u8>,
        /// Whether it came as binary.
        is_binary: bool,
    },
    /// A peer asks for a namespace.
    Connect {
        /// The socket-to-be.
        socket: SocketKey,
        /// Its session.
        session: SessionKey,
        /// The namespace.
        namespace: String,
        /// The auth payload as it came.
        auth: Option<Vec<u8>>,
        /// It has proved to be a lost socket.
        recovering: bool,
    },
    /// A peer asks for a socket that no shard knows.
    Restore {
        /// The socket-to-be.
        socket: SocketKey,
        /// Its session.
        session: SessionKey,
        /// The namespace.
        namespace: String,
        /// The secret.
        pid: Sid,
        /// The application's number in its offset.
        order: Option<u64>,
        /// The auth payload as it came.
        auth: Option<Vec<u8>>,
    },
    /// An event arrived.
    Event {
        /// From whom.
        socket: SocketKey,
        /// Its name.
        name: String,
        /// Its arguments as they came.
        elements: Vec<u8>,
        /// How many arguments.
        count: u32,
        /// Binary arguments.
        attachments: Vec<Bytes>,
        /// Set if an ack is awaited.
        ack_id: Option<u64>,
    },
    /// An ack arrived.
    Ack {
        /// Which emit.
        token: AckToken,
        /// From whom.
        socket: SocketKey,
        /// The answer's arguments as they came.
        elements: Vec<u8>,
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
    /// Everyone who owed an ack is gone.
    AckLost {
        /// Which emit.
        token: AckToken,
    },
    /// A socket is gone.
    Disconnected {
        /// Which socket.
        socket: SocketKey,
        /// Why.
        reason: Reason,
        /// The rooms it was in, sorted.
        rooms: Vec<String>,
        /// It may come back.
        is_recoverable: bool,
    },
    /// A lost socket will not come back under this key.
    Forgotten {
        /// Which socket.
        socket: SocketKey,
    },
    /// What the release of a socket has come to.
    Released {
        /// Its secret.
        pid: Sid,
        /// What the last shard that was asked says.
        outcome: Released,
    },
    /// A session is over.
    SessionClosed {
        /// Which session.
        session: SessionKey,
        /// Why.
        reason: Reason,
    },
    /// A socket is on its way to another shard.
    Taken {
        /// Its key here.
        socket: SocketKey,
    },
    /// A socket was taken over from another shard: what belonged to the old key belongs to the new one.
    Moved {
        /// The shard that had it.
        from: usize,
        /// Its key there.
        old: SocketKey,
        /// Its key here.
        new: SocketKey,
    },
}

/// What one shard's thread tells another's.
#[derive(Debug)]
pub enum Mail {
    /// An event for whoever is here.
    Broadcast {
        /// Its name.
        id: BroadcastId,
        /// For whom.
        target: Target,
        /// What.
        body: Body,
        /// How.
        flags: Flags,
    },
    /// `from` has, or no longer has, members of a room (of a namespace, if the room is empty).
    Interest {
        /// The shard.
        from: usize,
        /// The namespace.
        namespace: String,
        /// The room.
        room: String,
        /// Has members.
        open: bool,
    },
    /// A peer of `from` claims a socket.
    Claim {
        /// Who asks.
        from: usize,
        /// The socket-to-be there.
        socket: SocketKey,
        /// The namespace.
        namespace: String,
        /// The secret.
        pid: Sid,
        /// The last event the peer has seen.
        offset: Option<String>,
        /// How many shards have sent it on.
        hops: u8,
    },
    /// No shard knows what was claimed.
    Unclaimed {
        /// The socket-to-be.
        socket: SocketKey,
        /// The secret.
        pid: Sid,
    },
    /// The socket is held for the claimant.
    Offered {
        /// Who holds it.
        from: usize,
        /// The socket-to-be.
        socket: SocketKey,
        /// The namespace.
        namespace: String,
        /// Its ids and rooms.
        offer: Offer,
    },
    /// `from` wants to know when everything that this shard has sent so far is on its way.
    Barrier {
        /// Who asks.
        from: usize,
        /// Its number for the question.
        number: u64,
    },
    /// The answer to that.
    Passed {
        /// Who answers.
        from: usize,
        /// The number of the question.
        number: u64,
    },
    /// What an [`Output::Settle`] asked for has come about.
    Settled {
        /// The socket's secret.
        pid: Sid,
    },
    /// The outcome of a claim.
    Claimed {
        /// Who had it.
        from: usize,
        /// The socket-to-be.
        socket: SocketKey,
        /// The namespace.
        namespace: String,
        /// The socket, if it can be had.
        claimed: Option<Box<Claimed>>,
    },
    /// A socket born here lives on `to`.
    Adopted {
        /// Its secret.
        pid: Sid,
        /// Where it is.
        to: usize,
    },
    /// A socket born here and recovered elsewhere is no more.
    ClaimReleased {
        /// Its secret.
        pid: Sid,
    },
    /// Another node takes a socket over.
    Release {
        /// Its secret.
        pid: Sid,
        /// How many shards have sent it on.
        hops: u8,
    },
}

/// Where a link leads: how much the network takes before it says "later".
#[derive(Debug)]
struct Pipe {
    /// Bytes that are taken before the link blocks; `None`: any number.
    takes: Option<usize>,
    is_blocked: bool,
    is_closing: bool,
}

struct Node {
    shard: Shard,
    mailbox: VecDeque<(u64, Mail)>,
    /// Namespace and room to the shards that have members, one bit each, as far as this shard has been told.
    interest: BTreeMap<(String, String), u64>,
    pipes: BTreeMap<LinkKey, Pipe>,
    /// Questions that not all shards have answered: their number, who has not, and whom to tell what in the end.
    barriers: BTreeMap<u64, Barrier>,
}

struct Barrier {
    missing: u64,
    pid: Sid,
    to: usize,
}

/// Several shards of one node, driven by hand.
pub struct Cluster {
    nodes: Vec<Node>,
    now: Moment,
    heard: VecDeque<(usize, Heard)>,
    requests: u64,
    mails: u64,
    scratch: Vec<u8>,
    /// What was in the mail about recovery, in words, if somebody wants to know.
    letters: Option<Vec<String>>,
}

impl Cluster {
    /// `shards` empty shards of node 0; ids are made from `seed`. Also after a crash, unless that says otherwise.
    #[must_use]
    pub fn new(shards: usize, config: &Config, seed: u64) -> Self {
        assert!((1..=64).contains(&shards), "one bit of a word stands for one shard");
        Self {
            nodes: nodes(0, shards, config, seed),
            now: Moment::ORIGIN,
            heard: VecDeque::new(),
            requests: 0,
            mails: 0,
            scratch: Vec::new(),
            letters: None,
        }
    }

    /// From now on keeps what the mail says about recovery, one line a letter, for [`Cluster::take_letters`].
    pub fn keep_letters(&mut self) {
        self.letters.get_or_insert_default();
    }

    /// The lines kept since the last call, in the order in which their letters were read.
    pub fn take_letters(&mut self) -> Vec<String> {
        self.letters.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// The process crashes, and is started again as `node` with `shards` shards that make their ids from `seed`: nothing is
    /// left of sessions, sockets, rooms and mail, and links are gone without a word. Time goes on.
    pub fn crash(&mut self, node: u16, shards: usize, config: &Config, seed: u64) {
        assert!((1..=64).contains(&shards), "one bit of a word stands for one shard");
        self.nodes = nodes(node, shards, config, seed);
        self.heard.clear();
    }

    /// How many shards.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Never: there is at least one shard.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The moment.
    #[must_use]
    pub fn now(&self) -> Moment {
        self.now
    }

    /// One of the shards.
    #[must_use]
    pub fn shard(&self, index: usize) -> &Shard {
        &self.nodes[index].shard
    }

    /// Audits every shard.
    ///
    /// # Errors
    /// As [`Shard::audit`].
    pub fn audit(&self) -> Result<(), String> {
        self.nodes.iter().try_for_each(|node| node.shard.audit())
    }

    /// Takes the next thing that came out, with the shard it came from.
    pub fn poll_heard(&mut self) -> Option<(usize, Heard)> {
        self.heard.pop_front()
    }

    /// Does something to one shard, then drains it as a driver must.
    pub fn with<T>(&mut self, index: usize, act: impl FnOnce(&mut Shard, Moment) -> T) -> T {
        let now = self.now;
        let result = act(&mut self.nodes[index].shard, now);
        self.drain(index);
        result
    }

    /// When some shard next has something to do.
    #[must_use]
    pub fn poll_deadline(&self) -> Option<Moment> {
        self.nodes.iter().filter_map(|node| node.shard.poll_deadline()).min()
    }

    /// Moves time; deadlines are handled by [`Cluster::handle_deadlines`].
    pub fn set_now(&mut self, now: Moment) {
        assert!(now >= self.now, "time does not go back");
        self.now = now;
    }

    /// Has every shard do what is due.
    pub fn handle_deadlines(&mut self) {
        for index in 0..self.nodes.len() {
            if self.nodes[index].shard.poll_deadline().is_some_and(|at| at <= self.now) {
                self.with(index, Shard::handle_deadline);
            }
        }
    }

    /// Moves time forward, stopping at every deadline on the way, and delivers all mail as it comes.
    pub fn advance_to(&mut self, until: Moment) {
        while let Some(at) = self.poll_deadline().filter(|&at| at <= until) {
            self.now = self.now.max(at);
            self.handle_deadlines();
            self.pump();
        }
        self.now = self.now.max(until);
    }

    // Peers.

    fn next_request(&mut self) -> RequestId {
        self.requests += 1;
        RequestId(self.requests)
    }

    /// A GET without a sid.
    pub fn open_polling(&mut self, index: usize, opening: Opening) -> (RequestId, SessionKey) {
        let request = self.next_request();
        let session = self.with(index, |shard, now| shard.handle_open_polling(now, opening, request));
        (request, session)
    }

    /// A WebSocket without a sid.
    pub fn open_websocket(&mut self, index: usize, opening: Opening) -> LinkKey {
        let now = self.now;
        let link = self.nodes[index].shard.handle_open_websocket(now, opening);
        self.add_pipe(index, link);
        self.drain(index);
        link
    }

    /// A WebSocket with a sid.
    ///
    /// # Errors
    /// As [`Shard::handle_upgrade`].
    pub fn upgrade(
        &mut self,
        sid: Sid,
        revision: Revision,
        deflate: bool,
    ) -> Result<LinkKey, HandshakeFault> {
        let index = self.owner(sid);
        let now = self.now;
        let result = self.nodes[index].shard.handle_upgrade(now, sid, revision, deflate);
        if let Ok(link) = result {
            self.add_pipe(index, link);
        }
        self.drain(index);
        result
    }

    fn add_pipe(&mut self, index: usize, link: LinkKey) {
        self.nodes[index].pipes.insert(link, Pipe { takes: None, is_blocked: false, is_closing: false });
    }

    /// The shard that a session's id names: requests go there wherever they land.
    #[must_use]
    pub fn owner(&self, sid: Sid) -> usize {
        usize::from(ShardId::of(sid).shard).min(self.nodes.len() - 1)
    }

    /// A GET with a sid.
    pub fn get(&mut self, sid: Sid, revision: Revision) -> RequestId {
        let (index, request) = (self.owner(sid), self.next_request());
        self.with(index, |shard, now| shard.handle_get(now, sid, revision, request));
        request
    }

    /// A POST with a sid begins; a refusal is heard as a reply.
    pub fn post_begin(&mut self, sid: Sid, revision: Revision) -> (RequestId, Option<SessionKey>) {
        let (index, request) = (self.owner(sid), self.next_request());
        let outcome = self.with(index, |shard, now| shard.handle_post_begin(now, sid, revision, request));
        match outcome {
            Ok(session) => (request, Some(session)),
            Err(reply) => {
                self.heard.push_back((index, Heard::Reply { request, reply }));
                (request, None)
            }
        }
    }

    /// The rest of a POST.
    pub fn post_end(
        &mut self,
        sid: Sid,
        session: SessionKey,
        request: RequestId,
        body: &[u8],
        is_octets: bool,
    ) {
        let index = self.owner(sid);
        self.with(index, |shard, now| shard.handle_post(now, session, request, body, is_octets));
    }

    /// Bytes arrive on a link.
    pub fn read(&mut self, index: usize, link: LinkKey, bytes: &mut [u8]) {
        self.with(index, |shard, now| shard.handle_read(now, link, bytes));
    }

    /// A link is cut.
    pub fn cut(&mut self, index: usize, link: LinkKey) {
        self.nodes[index].pipes.remove(&link);
        self.with(index, |shard, now| shard.handle_link_closed(now, link));
    }

    /// How many more bytes the network takes on a link before it blocks; `None`: any number.
    pub fn set_takes(&mut self, index: usize, link: LinkKey, takes: Option<usize>) {
        let Some(pipe) = self.nodes[index].pipes.get_mut(&link) else { return };
        pipe.takes = takes;
        if pipe.is_blocked && takes != Some(0) {
            pipe.is_blocked = false;
            self.with(index, |shard, _| shard.handle_writable(link));
        }
    }

    /// Whether a link is still there.
    #[must_use]
    pub fn has_link(&self, index: usize, link: LinkKey) -> bool {
        self.nodes[index].pipes.contains_key(&link)
    }

    // The application.

    /// Sends an event to everyone that `target` names on any shard: here at once, elsewhere by mail.
    pub fn broadcast(&mut self, index: usize, target: &Target, body: &Body, flags: Flags) -> usize {
        let bits = self.interested(index, target);
        self.requests += 1;
        let id = BroadcastId(NonZeroU64::new(self.requests).expect("one was added"));
        let sent = self.with(index, |shard, now| shard.broadcast_shared(now, id, target, body, flags, None));
        for other in (0..self.nodes.len()).filter(|&other| other != index && bits & (1 << other) != 0) {
            let mail = Mail::Broadcast { id, target: target.clone(), body: body.clone(), flags };
            self.send(other, mail);
        }
        sent
    }

    /// Mails an event to every shard, as somebody does who is none of them.
    pub fn publish(&mut self, target: &Target, body: &Body, flags: Flags) {
        self.requests += 1;
        let id = BroadcastId(NonZeroU64::new(self.requests).expect("one was added"));
        for index in 0..self.nodes.len() {
            self.send(index, Mail::Broadcast { id, target: target.clone(), body: body.clone(), flags });
        }
    }

    /// Another node takes over the socket with this secret. What comes of it is heard.
    pub fn release(&mut self, pid: Sid) {
        let home = self.nodes[0].shard.home_of(pid);
        self.send(usize::from(home), Mail::Release { pid, hops: 0 });
    }

    /// The shards that have, as far as `index` knows, somebody whom `target` names.
    fn interested(&self, index: usize, target: &Target) -> u64 {
        let interest = &self.nodes[index].interest;
        let look =
            |room: &str| interest.get(&(target.namespace.to_string(), room.to_owned())).copied().unwrap_or(0);
        if target.rooms.is_empty() {
            return look("");
        }
        target.rooms.iter().fold(0, |bits, room| {
            // A socket's own room is not announced by the shard that made its id.
            let home = Sid::parse(room).map_or(0, |sid| 1 << self.owner(sid));
            bits | look(room) | home
        })
    }

    // Mail.

    /// Whether mail waits for a shard.
    #[must_use]
    pub fn has_mail(&self, index: usize) -> bool {
        !self.nodes[index].mailbox.is_empty()
    }

    /// How much mail has ever been sent.
    #[must_use]
    pub fn mails_sent(&self) -> u64 {
        self.mails
    }

    /// All mail before this number has been delivered.
    #[must_use]
    pub fn mails_settled(&self) -> u64 {
        let oldest = |node: &Node| node.mailbox.front().map(|&(number, _)| number);
        self.nodes.iter().filter_map(oldest).min().unwrap_or(self.mails)
    }

    /// Delivers all mail, to the last answer.
    pub fn pump(&mut self) {
        while let Some(index) = (0..self.nodes.len()).find(|&index| self.has_mail(index)) {
            self.step(index);
        }
    }

    /// Delivers the oldest mail of one shard. `false` if there is none.
    pub fn step(&mut self, index: usize) -> bool {
        let Some((_, mail)) = self.nodes[index].mailbox.pop_front() else { return false };
        let now = self.now;
        if let Some(letters) = &mut self.letters
            && let Some(line) = describe(index, &mail)
        {
            letters.push(line);
        }
        match mail {
            Mail::Broadcast { id, target, body, flags } => {
                self.nodes[index].shard.broadcast_shared(now, id, &target, &body, flags, None);
            }
            Mail::Interest { from, namespace, room, open } => {
                let bits = self.nodes[index].interest.entry((namespace, room)).or_default();
                *bits = if open { *bits | 1 << from } else { *bits & !(1 << from) };
            }
            Mail::Claim { from, socket, namespace, pid, offset, hops } => {
                let claimant = Claimant { shard: from as u8, socket };
                let claim =
                    self.nodes[index].shard.handle_claim(now, &namespace, pid, offset.as_deref(), claimant);
                match claim {
                    Claim::Moved { shard } if hops < 8 => {
                        // What this shard has to say about the socket goes first, as far as it can.
                        self.drain(index);
                        let hops = hops + 1;
                        let mail = Mail::Claim { from, socket, namespace, pid, offset, hops };
                        self.send(usize::from(shard), mail);
                    }
                    Claim::Unknown => self.send(from, Mail::Unclaimed { socket, pid }),
                    Claim::Refused | Claim::Moved { .. } => {
                        self.give(index, Handover { claimant, namespace, claimed: None });
                    }
                    Claim::Offered(offer) => {
                        self.send(from, Mail::Offered { from: index, socket, namespace, offer });
                    }
                    Claim::Taken(claimed) => {
                        let old = claimed.socket;
                        self.heard.push_back((index, Heard::Taken { socket: old }));
                        let shard = &mut self.nodes[index].shard;
                        let new = shard.handle_claimed(now, socket, &namespace, Some(*claimed));
                        self.heard.push_back((index, Heard::Moved { from: index, old, new }));
                    }
                }
            }
            Mail::Offered { from, socket, namespace, offer } => {
                self.nodes[index].shard.handle_offered(now, socket, &namespace, from as u8, &offer);
            }
            Mail::Barrier { from, number } => self.send(from, Mail::Passed { from: index, number }),
            Mail::Passed { from, number } => self.pass(index, from, number),
            Mail::Settled { pid } => {
                if let Some(handover) = self.nodes[index].shard.handle_settled(now, pid) {
                    self.give(index, handover);
                }
            }
            Mail::Claimed { from, socket, namespace, claimed } => {
                let old = claimed.as_ref().map(|claimed| claimed.socket);
                let claimed = claimed.map(|claimed| *claimed);
                let new = self.nodes[index].shard.handle_claimed(now, socket, &namespace, claimed);
                if let Some(old) = old {
                    self.heard.push_back((index, Heard::Moved { from, old, new }));
                }
            }
            Mail::Unclaimed { socket, pid } => {
                self.nodes[index].shard.handle_unclaimed(now, socket, pid);
            }
            Mail::Adopted { pid, to } => self.nodes[index].shard.handle_adopted(pid, to as u8),
            Mail::ClaimReleased { pid } => self.nodes[index].shard.handle_claim_released(pid),
            Mail::Release { pid, hops } => match self.nodes[index].shard.handle_release(now, pid) {
                Released::Moved { shard } if hops < 8 => {
                    self.send(usize::from(shard), Mail::Release { pid, hops: hops + 1 });
                }
                outcome => {
                    // Whoever asked hears of it when all that it causes has been told.
                    self.drain(index);
                    self.heard.push_back((index, Heard::Released { pid, outcome }));
                }
            },
        }
        self.drain(index);
        true
    }

    /// Mails a socket, or that there is none, to who asked for it.
    fn give(&mut self, from: usize, handover: Handover) {
        let Handover { claimant, namespace, claimed } = handover;
        if let Some(claimed) = &claimed {
            self.heard.push_back((from, Heard::Taken { socket: claimed.socket }));
        }
        self.drain(from);
        let mail = Mail::Claimed { from, socket: claimant.socket, namespace, claimed };
        self.send(usize::from(claimant.shard), mail);
    }

    /// A shard has sent all that it had begun to; after the last, those who wait are told.
    fn pass(&mut self, index: usize, from: usize, number: u64) {
        let Some(barrier) = self.nodes[index].barriers.get_mut(&number) else { return };
        barrier.missing &= !(1 << from);
        if barrier.missing > 0 {
            return;
        }
        if let Some(Barrier { pid, to, .. }) = self.nodes[index].barriers.remove(&number) {
            self.send(to, Mail::Settled { pid });
        }
    }

    fn raise_barrier(&mut self, index: usize, pid: Sid, to: usize) {
        self.requests += 1;
        let number = self.requests;
        let everyone = u64::MAX >> (64 - self.nodes.len());
        self.nodes[index].barriers.insert(number, Barrier { missing: everyone, pid, to });
        for other in (0..self.nodes.len()).filter(|&other| other != index) {
            self.send(other, Mail::Barrier { from: index, number });
        }
        self.pass(index, index, number);
    }

    fn send(&mut self, to: usize, mail: Mail) {
        // A pid is whatever a peer wrote: it may name a shard that there is not.
        if let Some(node) = self.nodes.get_mut(to) {
            node.mailbox.push_back((self.mails, mail));
            self.mails += 1;
        } else if let Mail::Claim { from, socket, namespace, .. } = mail {
            self.send(from, Mail::Claimed { from: to, socket, namespace, claimed: None });
        }
    }

    // One turn of a driver.

    fn drain(&mut self, index: usize) {
        self.take_outputs(index);
        loop {
            let now = self.now;
            self.nodes[index].shard.flush(now);
            self.take_outputs(index);
            if !self.transmit(index) {
                break;
            }
        }
        self.close_drained(index);
    }

    /// Writes what the links have to write. `false` if there was nothing.
    fn transmit(&mut self, index: usize) -> bool {
        let mut wrote = false;
        while let Some(link) = self.nodes[index].shard.poll_transmit() {
            wrote = true;
            let mut bytes = std::mem::take(&mut self.scratch);
            bytes.clear();
            let node = &mut self.nodes[index];
            node.shard.gather(link, &mut bytes);
            let Some(pipe) = node.pipes.get_mut(&link) else { continue };
            let taken = pipe.takes.map_or(bytes.len(), |takes| takes.min(bytes.len()));
            if let Some(takes) = &mut pipe.takes {
                *takes -= taken;
            }
            if taken > 0 {
                self.heard.push_back((index, Heard::Wrote { link, bytes: bytes[..taken].to_vec() }));
            }
            if taken < bytes.len() {
                pipe.is_blocked = true;
                node.shard.handle_unsent(self.now, link, &bytes[taken..]);
                self.take_outputs(index);
            }
            self.scratch = bytes;
        }
        wrote
    }

    /// Closes links that were told to go and have nothing left to write.
    fn close_drained(&mut self, index: usize) {
        let node = &self.nodes[index];
        let done: Vec<LinkKey> = node
            .pipes
            .iter()
            .filter(|&(&link, pipe)| pipe.is_closing && node.shard.is_drained(link))
            .map(|(&link, _)| link)
            .collect();
        for link in done {
            self.nodes[index].pipes.remove(&link);
            self.heard.push_back((index, Heard::LinkClosed { link }));
            self.with(index, |shard, now| shard.handle_link_closed(now, link));
        }
    }

    fn take_outputs(&mut self, index: usize) {
        let mut mails = Vec::new();
        let node = &mut self.nodes[index];
        while let Some(output) = node.shard.poll_output() {
            let heard = match output {
                Output::Reply { request, reply } => Heard::Reply { request, reply },
                Output::CloseLink { link } => {
                    if let Some(pipe) = node.pipes.get_mut(&link) {
                        pipe.is_closing = true;
                    }
                    continue;
                }
                Output::Connect { socket, session, namespace, auth, recovering } => Heard::Connect {
                    socket,
                    session,
                    namespace: namespace.to_owned(),
                    auth: auth.map(<[u8]>::to_vec),
                    recovering,
                },
                Output::Claim { socket, shard, namespace, pid, offset } => {
                    let mail = Mail::Claim {
                        from: index,
                        socket,
                        namespace: namespace.to_owned(),
                        pid,
                        offset: offset.map(str::to_owned),
                        hops: 0,
                    };
                    mails.push((usize::from(shard), mail));
                    continue;
                }
                Output::Restore { socket, session, namespace, pid, order, auth } => Heard::Restore {
                    socket,
                    session,
                    namespace: namespace.to_owned(),
                    pid,
                    order,
                    auth: auth.map(<[u8]>::to_vec),
                },
                Output::Settle { pid, to } => {
                    // Behind the rooms that were opened before: these go out first, below.
                    mails.push((usize::from(to), Mail::Settled { pid }));
                    continue;
                }
                Output::Adopted { pid } => {
                    mails.push((usize::from(node.shard.home_of(pid)), Mail::Adopted { pid, to: index }));
                    continue;
                }
                Output::ReleaseClaim { pid } => {
                    mails.push((usize::from(node.shard.home_of(pid)), Mail::ClaimReleased { pid }));
                    continue;
                }
                Output::Message { session, data, is_binary } => {
                    Heard::Message { session, data: data.to_vec(), is_binary }
                }
                Output::Event { socket, name, elements, count, attachments, ack_id } => Heard::Event {
                    socket,
                    name: name.to_owned(),
                    elements: elements.to_vec(),
                    count,
                    attachments: attachments.to_vec(),
                    ack_id,
                },
                Output::Ack { token, socket, elements, count: _, attachments, last } => {
                    Heard::Ack { token, socket, elements: elements.to_vec(), attachments, last }
                }
                Output::AckTimeout { token, missing } => Heard::AckTimeout { token, missing },
                Output::AckLost { token } => Heard::AckLost { token },
                Output::Disconnected { socket, reason, rooms, is_recoverable } => {
                    let mut rooms: Vec<String> = rooms.iter().map(ToString::to_string).collect();
                    rooms.sort_unstable();
                    Heard::Disconnected { socket, reason, rooms, is_recoverable }
                }
                Output::Forgotten { socket } => Heard::Forgotten { socket },
                Output::SessionClosed { session, reason } => Heard::SessionClosed { session, reason },
                Output::RoomOpened { namespace, room } => {
                    mails.push((usize::MAX, interest(index, namespace, room, true)));
                    continue;
                }
                Output::RoomClosed { namespace, room } => {
                    mails.push((usize::MAX, interest(index, namespace, room, false)));
                    continue;
                }
            };
            self.heard.push_back((index, heard));
        }
        for (to, mail) in mails {
            match mail {
                Mail::Interest { from, namespace, room, open } => {
                    for other in (0..self.nodes.len()).filter(|&other| other != index) {
                        let mail = interest(from, &namespace, &room, open);
                        self.send(other, mail);
                    }
                }
                Mail::Settled { pid } => self.raise_barrier(index, pid, to),
                mail => self.send(to, mail),
            }
        }
    }
}

fn nodes(node: u16, shards: usize, config: &Config, seed: u64) -> Vec<Node> {
    let config = Config { shards: shards as u16, ..config.clone() };
    (0..shards)
        .map(|index| {
            let mut entropy = [0; 32];
            entropy[..8].copy_from_slice(&seed.to_le_bytes());
            entropy[8] = index as u8;
            let id = ShardId { node, shard: index as u8 };
            Node {
                shard: Shard::new(id, config.clone(), entropy),
                mailbox: VecDeque::new(),
                interest: BTreeMap::new(),
                pipes: BTreeMap::new(),
                barriers: BTreeMap::new(),
            }
        })
        .collect()
}

/// A letter about recovery in words; `None` if it is about something else.
fn describe(index: usize, mail: &Mail) -> Option<String> {
    let text = match mail {
        Mail::Claim { from, pid, offset, hops, .. } => {
            format!("claim of {pid} for shard {from}, after {offset:?}, hop {hops}")
        }
        Mail::Unclaimed { pid, .. } => format!("nobody has {pid}"),
        Mail::Offered { from, offer, .. } => {
            format!("shard {from} offers {} as {}, in {:?}", offer.pid, offer.sid, offer.rooms)
        }
        Mail::Settled { pid } => format!("settled for {pid}"),
        Mail::Claimed { from, claimed: Some(claimed), .. } => {
            let missed: Vec<&str> = claimed.missed.iter().map(|missed| missed.offset.as_str()).collect();
            format!("shard {from} gives {} as {}, which missed {missed:?}", claimed.pid, claimed.sid)
        }
        Mail::Claimed { from, socket, claimed: None, .. } => {
            format!("shard {from} gives nothing for {socket:?}")
        }
        Mail::Adopted { pid, to } => format!("shard {to} has {pid}"),
        Mail::ClaimReleased { pid } => format!("nobody has {pid} any more"),
        Mail::Release { pid, hops } => format!("another node takes {pid}, hop {hops}"),
        Mail::Broadcast { .. } | Mail::Interest { .. } | Mail::Barrier { .. } | Mail::Passed { .. } => {
            return None;
        }
    };
    Some(format!("shard {index} reads: {text}"))
}

fn interest(from: usize, namespace: &str, room: &str, open: bool) -> Mail {
    Mail::Interest { from, namespace: namespace.to_owned(), room: room.to_owned(), open }
}
