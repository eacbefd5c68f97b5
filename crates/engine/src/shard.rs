//! Owns a shard's thread: the pure shard, the links' streams, and the requests and handlers that await it.
//! Does not know the protocol: it moves bytes and letters, and calls handlers. Invariant: a turn handles everything
//! that has come before it writes anything, and writes once for each link.

mod connecting;
mod recovery;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use engine_core::{
    AckRequest, Claimant, Handover, LinkKey, Moment, Output, Reply, RequestId, SessionKey, Shard, SocketKey,
    Target,
};
use mio::{Events, Token};
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot};

use crate::ack::{AckFault, Answered, Part, Waiter, Waiters};
use crate::calls::dispatch;
use crate::handshake::Handshake;
use crate::joining;
use crate::listener::Counted;
use crate::mail::{self, Broadcast, ClaimMail, Command, LinkMail, Mail, RequestMail, Wire};
use crate::namespace::{Event, Namespace};
use crate::server::{Inner, SocketInfo};
use crate::socket::Socket;
use crate::stream::Stream;

/// Bytes read from one link at a time. Large enough that one busy peer is read in few calls, small enough to stay in
/// the second-level cache with what is made of it.
const READ_BYTES: usize = 128 * 1024;
/// Bytes of a read that the shard handles before the outputs are taken: so few that they, what is made of them and what
/// the handlers touch stay in the first-level cache.
const PIECE_BYTES: usize = 8 * 1024;
/// Reads from one link in one turn, so that a busy one does not keep the others waiting.
const READS_PER_TURN: usize = 4;
/// Readiness events taken in one turn.
const EVENTS_PER_TURN: usize = 1024;
/// Letters taken in one turn.
const LETTERS_PER_TURN: usize = 4096;
/// How long a link that was closed by us may take to close its side.
const LINGER: Duration = Duration::from_secs(2);

/// Everything that lives on a shard's thread.
pub(crate) struct ShardState {
    pub(crate) core: Shard,
    server: Arc<Inner>,
    port: Arc<mail::Port>,
    origin: Instant,
    poll: mio::Poll,
    links: Vec<Option<LinkEntry>>,
    /// Links that may have more to read although nobody will say so again.
    unread: VecDeque<LinkKey>,
    lingering: VecDeque<(Instant, LinkKey)>,
    requests: HashMap<RequestId, PendingRequest, foldhash::fast::RandomState>,
    /// By session slot.
    handshakes: Vec<Option<Arc<Handshake>>>,
    /// By socket slot.
    sockets: Vec<Option<Entry>>,
    waiters: Waiters,
    read_buf: Vec<u8>,
    write_buf: Vec<u8>,
    commands: Vec<Command>,
    /// Polling sessions whose next GET is to be cut. Nearly always empty.
    severing: Vec<SessionKey>,
    /// Who is told something as soon as the rooms opened so far are announced. Nearly always empty.
    announcements: Vec<Box<dyn FnOnce()>>,
}

struct LinkEntry {
    key: LinkKey,
    stream: Stream,
    is_closing: bool,
    is_shut: bool,
    _counted: Option<Counted>,
}

struct PendingRequest {
    reply: Option<oneshot::Sender<Reply>>,
    session: Option<SessionKey>,
}

/// What the driver keeps for one socket.
struct Entry {
    key: SocketKey,
    socket: Socket,
    namespace: Arc<Namespace>,
    /// Accepted once; a refused or unanswered one has no disconnect handler to run.
    is_connected: bool,
}

impl ShardState {
    pub(crate) fn new(
        core: Shard,
        server: Arc<Inner>,
        port: Arc<mail::Port>,
        origin: Instant,
    ) -> io::Result<Self> {
        Ok(Self {
            core,
            server,
            port,
            origin,
            poll: mio::Poll::new()?,
            links: Vec::new(),
            unread: VecDeque::new(),
            lingering: VecDeque::new(),
            requests: HashMap::default(),
            handshakes: Vec::new(),
            sockets: Vec::new(),
            waiters: Waiters::default(),
            read_buf: vec![0; READ_BYTES],
            write_buf: Vec::new(),
            commands: Vec::new(),
            severing: Vec::new(),
            announcements: Vec::new(),
        })
    }

    fn now(&self) -> Moment {
        Moment::from_millis(u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// Runs until every handle of the server is gone, or it is told to stop.
    pub(crate) async fn run(mut self, mut letters: mpsc::Receiver<Mail>) {
        let readiness = match watch(&self.poll) {
            Ok(readiness) => readiness,
            Err(error) => {
                tracing::error!(%error, "a shard cannot watch its links: it does not start");
                return;
            }
        };
        let mut events = Events::with_capacity(EVENTS_PER_TURN);
        let mut batch: Vec<Mail> = Vec::new();
        let mut has_more = false;
        loop {
            batch.clear();
            if has_more || !self.unread.is_empty() {
                // Let the tasks of this thread (HTTP) have their turn, too.
                tokio::task::yield_now().await;
            } else {
                let deadline = self.next_wake();
                let sleep = async {
                    match deadline {
                        Some(at) => tokio::time::sleep_until(at.into()).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    biased;
                    ready = readiness.readable() => {
                        if let Ok(mut guard) = ready {
                            guard.clear_ready();
                        }
                    }
                    count = letters.recv_many(&mut batch, LETTERS_PER_TURN) => {
                        if count == 0 {
                            return;
                        }
                    }
                    () = sleep => {}
                }
            }
            if batch.is_empty() {
                while batch.len() < LETTERS_PER_TURN
                    && let Ok(letter) = letters.try_recv()
                {
                    batch.push(letter);
                }
            }
            has_more = batch.len() == LETTERS_PER_TURN;
            has_more |= self.turn(&mut events, &mut batch);
            if self.server.has_stopped() {
                return;
            }
        }
    }

    fn next_wake(&self) -> Option<Instant> {
        let core = self.core.poll_deadline().map(|at| self.origin + Duration::from_millis(at.as_millis()));
        let linger = self.lingering.front().map(|&(at, _)| at);
        match (core, linger) {
            (Some(core), Some(linger)) => Some(core.min(linger)),
            (core, linger) => core.or(linger),
        }
    }

    /// One turn: everything that has come, then everything that goes out. Answers whether there may be more.
    fn turn(&mut self, events: &mut Events, batch: &mut Vec<Mail>) -> bool {
        mail::begin_turn(&self.port, std::mem::take(&mut self.commands));
        let mut has_more = false;
        match self.poll.poll(events, Some(Duration::ZERO)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => has_more = true,
            Err(error) => tracing::error!(%error, "a shard cannot poll its links"),
        }
        let now = self.now();
        let mut count = 0;
        for event in events.iter() {
            count += 1;
            let link = LinkKey::from_bits(event.token().0 as u64);
            if event.is_writable() {
                self.handle_writable(now, link);
            }
            if event.is_readable() || event.is_read_closed() || event.is_error() {
                self.read(now, link);
            }
        }
        has_more |= count == EVENTS_PER_TURN;
        for _ in 0..self.unread.len() {
            if let Some(link) = self.unread.pop_front() {
                self.read(now, link);
            }
        }
        for letter in batch.drain(..) {
            self.handle_mail(now, letter);
            // A verdict begins a connect handler: what that asked for comes before the next letter.
            self.obey(now);
            self.drain_outputs(now);
        }
        self.core.handle_deadline(now);
        self.drain_outputs(now);
        self.close_lingering();
        // What is written now may make room for more of the same; a link that is slow is not waited for.
        loop {
            self.core.flush(now);
            self.drain_outputs(now);
            if !self.transmit(now) {
                break;
            }
        }
        self.commands = mail::end_turn();
        has_more
    }

    /// Writes what every link has staged. Answers whether that caused anything that needs another flush.
    fn transmit(&mut self, now: Moment) -> bool {
        let mut buf = std::mem::take(&mut self.write_buf);
        let mut caused = false;
        while let Some(link) = self.core.poll_transmit() {
            buf.clear();
            self.core.gather(link, &mut buf);
            let Some(Some(entry)) = self.links.get_mut(link.slot()) else { continue };
            if entry.key != link {
                continue;
            }
            let mut written = 0;
            let mut failed = false;
            while written < buf.len() {
                match entry.stream.write(&buf[written..]) {
                    Ok(0) => {
                        failed = true;
                        break;
                    }
                    Ok(count) => written += count,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(_) => {
                        failed = true;
                        break;
                    }
                }
            }
            let is_flushed = failed || matches!(entry.stream.flush(), Ok(true));
            if failed {
                self.drop_link(now, link);
                caused = true;
            } else if written < buf.len() || !is_flushed {
                self.core.handle_unsent(now, link, &buf[written..]);
                caused = true;
            }
            self.finish_closing(link);
        }
        // One huge write must not leave its buffer behind.
        if buf.capacity() > 1 << 20 {
            buf = Vec::new();
        }
        self.write_buf = buf;
        caused |= self.drain_outputs(now);
        caused
    }

    fn handle_writable(&mut self, now: Moment, link: LinkKey) {
        let Some(Some(entry)) = self.links.get_mut(link.slot()) else { return };
        if entry.key != link {
            return;
        }
        match entry.stream.flush() {
            Ok(true) => self.core.handle_writable(link),
            Ok(false) => {}
            Err(_) => self.drop_link(now, link),
        }
    }

    /// Reads what a link has, up to a bound, and lets the shard handle it.
    fn read(&mut self, now: Moment, link: LinkKey) {
        let mut buf = std::mem::take(&mut self.read_buf);
        for turn in 0.. {
            if turn == READS_PER_TURN {
                self.unread.push_back(link);
                break;
            }
            let Some(Some(entry)) = self.links.get_mut(link.slot()) else { break };
            if entry.key != link {
                break;
            }
            match entry.stream.read(&mut buf) {
                Ok(0) => {
                    self.drop_link(now, link);
                    break;
                }
                Ok(count) => {
                    let is_empty = count < buf.len() && entry.stream.short_read_means_empty();
                    // A closing link is read to its end, so that the peer gets to read ours.
                    if !entry.is_closing {
                        for piece in buf[..count].chunks_mut(PIECE_BYTES) {
                            self.core.handle_read(now, link, piece);
                            self.drain_outputs(now);
                        }
                    }
                    if is_empty {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    self.drop_link(now, link);
                    break;
                }
            }
        }
        self.read_buf = buf;
    }

    fn drop_link(&mut self, now: Moment, link: LinkKey) {
        if let Some(slot) = self.links.get_mut(link.slot())
            && slot.as_ref().is_some_and(|entry| entry.key == link)
        {
            *slot = None;
        }
        self.core.handle_link_closed(now, link);
        self.drain_outputs(now);
    }

    /// Shuts a closing link's side down once everything is written; it is dropped when the peer follows, or late.
    fn finish_closing(&mut self, link: LinkKey) {
        let is_drained = self.core.is_drained(link);
        if let Some(Some(entry)) = self.links.get_mut(link.slot())
            && entry.key == link
            && entry.is_closing
            && !entry.is_shut
            && is_drained
        {
            entry.is_shut = true;
            entry.stream.shut_down();
            self.unread.push_back(link);
        }
    }

    fn close_lingering(&mut self) {
        while let Some(&(at, link)) = self.lingering.front()
            && at <= Instant::now()
        {
            self.lingering.pop_front();
            let now = self.now();
            if self
                .links
                .get(link.slot())
                .is_some_and(|slot| slot.as_ref().is_some_and(|entry| entry.key == link))
            {
                self.drop_link(now, link);
            }
        }
    }

    // ---- letters

    fn handle_mail(&mut self, now: Moment, letter: Mail) {
        match letter {
            Mail::Request(request) => self.handle_request(now, *request),
            Mail::Link(link) => self.handle_link(now, *link),
            Mail::Command(command) => self.handle_command(now, command),
            Mail::Verdict { of, verdict } => self.conclude(&of, verdict),
            Mail::Claim(claim) => self.handle_claim(now, claim),
            Mail::Offered { socket, namespace, holder, offer } => {
                self.core.handle_offered(now, socket, &namespace, holder, &offer);
            }
            Mail::Settled { pid } => {
                if let Some(Handover { claimant, namespace, claimed }) = self.core.handle_settled(now, pid) {
                    self.give(claimant, namespace.into(), claimed);
                }
            }
            Mail::Claimed { socket, namespace, claimed, shared } => {
                self.handle_claimed(now, socket, &namespace, claimed, shared);
            }
            Mail::Unclaimed { socket, pid } => self.core.handle_unclaimed(now, socket, pid),
            Mail::Restore(letter) => self.restore(now, *letter),
            Mail::RestoreRefused { socket, pid } => {
                // Gone, or late: there is nobody to tell.
                let _ = self.core.handle_restored(now, socket, pid, None);
            }
            Mail::Adopted { pid, by } => self.core.handle_adopted(pid, by),
            Mail::ReleaseClaim { pid } => self.core.handle_claim_released(pid),
            Mail::Call(call) => call(self),
        }
    }

    fn handle_request(&mut self, now: Moment, request: RequestMail) {
        match request {
            RequestMail::OpenPolling { request, opening, handshake, reply } => {
                self.requests.insert(request, PendingRequest { reply: Some(reply), session: None });
                let session = self.core.handle_open_polling(now, opening, request);
                self.keep_handshake(session, handshake);
            }
            RequestMail::Get { request, sid, revision, reply } => {
                let session = self.core.session_by_sid(sid);
                self.requests.insert(request, PendingRequest { reply: Some(reply), session });
                self.core.handle_get(now, sid, revision, request);
                if let Some(session) = session
                    && let Some(index) = self.severing.iter().position(|&severing| severing == session)
                {
                    self.severing.swap_remove(index);
                    self.sever_poll(now, session);
                }
            }
            RequestMail::PostBegin { request, sid, revision, reply } => {
                match self.core.handle_post_begin(now, sid, revision, request) {
                    Ok(session) => {
                        let pending = PendingRequest { reply: Some(reply), session: Some(session) };
                        self.requests.insert(request, pending);
                    }
                    Err(refusal) => {
                        let _ = reply.send(refusal);
                    }
                }
            }
            RequestMail::PostBody { request, body, is_octets } => {
                let Some(session) = self.requests.get(&request).and_then(|pending| pending.session) else {
                    return;
                };
                match body {
                    Some(body) => self.core.handle_post(now, session, request, &body, is_octets),
                    None => {
                        self.core.handle_post_refused(session, request);
                        self.requests.remove(&request);
                    }
                }
            }
            RequestMail::Lost { request } => {
                if let Some(pending) = self.requests.remove(&request)
                    && let Some(session) = pending.session
                {
                    self.core.handle_request_lost(now, session, request);
                }
            }
            RequestMail::EndPoll { sid } => self.core.handle_poll_ending(sid),
            RequestMail::CheckUpgrade { sid, revision, reply } => {
                let _ = reply.send(self.core.check_upgrade(now, sid, revision));
            }
        }
    }

    fn handle_link(&mut self, now: Moment, link: LinkMail) {
        let (key, Wire { stream, early, counted }) = match link {
            LinkMail::Open { wire, opening, handshake } => {
                let key = self.core.handle_open_websocket(now, opening);
                if let Some(session) = self.core.session_of(key) {
                    self.keep_handshake(session, handshake);
                }
                (key, wire)
            }
            LinkMail::Upgrade { wire, sid, revision, deflate } => {
                // Gone since it was checked: the stream is dropped, and the peer sees the link close.
                let Ok(key) = self.core.handle_upgrade(now, sid, revision, deflate) else { return };
                (key, wire)
            }
        };
        if self.links.len() <= key.slot() {
            self.links.resize_with(key.slot() + 1, || None);
        }
        let mut entry = LinkEntry { key, stream, is_closing: false, is_shut: false, _counted: counted };
        let registered = usize::try_from(key.to_bits())
            .map_err(io::Error::other)
            .and_then(|token| entry.stream.register(self.poll.registry(), Token(token)));
        self.links[key.slot()] = Some(entry);
        match registered {
            Ok(()) => {
                if !early.is_empty() {
                    let mut early = early.to_vec();
                    self.core.handle_read(now, key, &mut early);
                }
                // What came between the handshake and the registration is not announced again.
                self.unread.push_back(key);
            }
            Err(error) => {
                tracing::warn!(%error, "a link cannot be watched");
                self.drop_link(now, key);
            }
        }
    }

    fn keep_handshake(&mut self, session: SessionKey, handshake: Handshake) {
        put(&mut self.handshakes, session.slot(), Arc::new(handshake));
    }

    fn handle_command(&mut self, now: Moment, command: Command) {
        match command {
            Command::Emit { socket, body, flags, ack } => match ack {
                None => {
                    // A socket that has gone is no news: its disconnect handler has told.
                    let _ = self.core.emit(now, socket, &body, flags, None);
                }
                Some(sink) => {
                    let token = self.server.numbers.token();
                    let request = AckRequest { token, timeout: sink.timeout };
                    self.waiters.insert(token, Waiter::One(sink.to));
                    match self.core.emit(now, socket, &body, flags, Some(request)) {
                        Ok(()) => {}
                        Err(engine_core::EmitFault::NotConnected) => {
                            self.waiters.fail(token, AckFault::Disconnected);
                        }
                        Err(engine_core::EmitFault::TooManyAcks { .. }) => {
                            self.waiters.fail(token, AckFault::TooMany);
                        }
                    }
                }
            },
            Command::Answer { socket, ack_id, body } => self.core.answer(socket, ack_id, &body),
            Command::Broadcast(broadcast) => self.broadcast(now, &broadcast),
            Command::Join { socket, rooms, done: None } => {
                for room in &rooms {
                    if let Err(fault) = self.core.join(socket, room) {
                        tracing::debug!(%fault, %room, "a join was refused");
                    }
                }
            }
            Command::Join { socket, rooms, done: Some(done) } => {
                let joined = joining::join(&mut self.core, socket, &rooms);
                self.announce(done, joined);
            }
            Command::Leave { socket, rooms } => {
                for room in &rooms {
                    self.core.leave(socket, room);
                }
            }
            Command::Disconnect { socket, close } => self.core.disconnect(now, socket, close),
            Command::Sever { session } => {
                if let Some(link) = self.core.link_of(session) {
                    if let Some(Some(entry)) = self.links.get(link.slot()) {
                        entry.stream.reset();
                    }
                    self.drop_link(now, link);
                } else {
                    self.sever_poll(now, session);
                }
            }
            Command::JoinAll { target, rooms, done: None } => {
                for socket in self.core.find(&target) {
                    for room in rooms.iter() {
                        let _ = self.core.join(socket, room);
                    }
                }
            }
            Command::JoinAll { target, rooms, done: Some(done) } => {
                let found = self.core.find(&target);
                let all = joining::join_all(&mut self.core, found, &rooms);
                self.announce(done, all);
            }
            Command::LeaveAll { target, rooms } => {
                for socket in self.core.find(&target) {
                    for room in rooms.iter() {
                        self.core.leave(socket, room);
                    }
                }
            }
            Command::DisconnectAll { target, close } => {
                for socket in self.core.find(&target) {
                    self.core.disconnect(now, socket, close);
                }
            }
        }
    }

    /// Tells somebody who waits, once the rooms that were opened for him can be found.
    fn announce<T: 'static>(&mut self, to: oneshot::Sender<T>, news: T) {
        self.announcements.push(Box::new(move || {
            // Whoever asked may have stopped waiting.
            let _ = to.send(news);
        }));
    }

    /// Cuts the connection of a polling session's GET, or of its next one if none waits.
    fn sever_poll(&mut self, now: Moment, session: SessionKey) {
        match self.core.waiting_get(session) {
            // Dropping the way back has the connection closed without a reply.
            Some(request) => {
                self.requests.remove(&request);
                self.core.handle_request_lost(now, session, request);
            }
            None => self.severing.push(session),
        }
    }

    fn broadcast(&mut self, now: Moment, broadcast: &Broadcast) {
        let ack = broadcast.ack.as_ref().map(|ack| {
            let token = self.server.numbers.token();
            (AckRequest { token, timeout: ack.timeout }, ack)
        });
        let request = ack.as_ref().map(|(request, _)| *request);
        if let Some((request, ack)) = &ack {
            self.waiters.insert(request.token, Waiter::Many(ack.sink.clone()));
        }
        let Broadcast { id, target, body, flags, .. } = broadcast;
        let sent = self.core.broadcast_shared(now, *id, target, body, *flags, request);
        if let Some((request, ack)) = ack {
            let _ = ack.sink.send(Part::Asked(sent));
            if sent == 0 {
                self.waiters.fail(request.token, AckFault::Disconnected);
            }
        }
    }

    /// The sockets that a target names, as others see them.
    pub(crate) fn describe(&mut self, target: &Target) -> Vec<SocketInfo> {
        let found = self.core.find(target);
        found
            .into_iter()
            .filter_map(|key| {
                let socket = self.entry(key)?.socket.clone();
                let sid = self.core.sid_of(key)?;
                let mut rooms: Vec<String> =
                    self.core.rooms_of(key).iter().map(ToString::to_string).collect();
                rooms.sort_unstable();
                rooms.insert(0, sid.to_string());
                Some(SocketInfo { socket, rooms })
            })
            .collect()
    }

    // ---- outputs

    /// Takes every output; answers whether there was any.
    fn drain_outputs(&mut self, now: Moment) -> bool {
        let mut any = false;
        loop {
            // The output borrows from the shard, so everything else it needs is reached past it.
            let Self { core, requests, waiters, links, lingering, sockets, server, .. } = self;
            let Some(output) = core.poll_output() else {
                // Rooms that were opened are announced by now: whoever waited for that may go on.
                if !self.announcements.is_empty() {
                    self.announcements.drain(..).for_each(|announce| announce());
                }
                break;
            };
            any = true;
            match output {
                Output::Event { socket, name, elements, count, attachments, ack_id } => {
                    let Some(Some(entry)) = sockets.get(socket.slot()) else { continue };
                    if entry.key == socket {
                        let event =
                            Event { name, elements, count, attachments, ack_id, parser: server.parser() };
                        dispatch(server, &entry.socket, &entry.namespace, &event);
                    }
                }
                Output::Message { session, data, is_binary } => {
                    if let Some(on_message) = &server.on_message
                        && let Some(answer) = on_message(data, is_binary)
                    {
                        self.core.send_message(session, &answer, is_binary);
                    }
                    continue;
                }
                Output::Reply { request, reply } => {
                    if let Some(pending) = requests.remove(&request)
                        && let Some(to) = pending.reply
                    {
                        // A peer that has left does not want its reply.
                        let _ = to.send(reply);
                    }
                    continue;
                }
                Output::CloseLink { link } => {
                    if let Some(Some(entry)) = links.get_mut(link.slot())
                        && entry.key == link
                    {
                        entry.is_closing = true;
                        lingering.push_back((Instant::now() + LINGER, link));
                    }
                    if self.core.is_drained(link) {
                        self.finish_closing(link);
                    }
                    continue;
                }
                Output::Connect { socket, session, namespace, auth, recovering } => {
                    let namespace: Arc<str> = namespace.into();
                    let auth: Box<[u8]> = auth.unwrap_or_default().into();
                    self.begin_connect(socket, session, namespace, auth, recovering);
                }
                Output::Claim { socket, shard, namespace, pid, offset } => {
                    let claim = ClaimMail {
                        pid,
                        namespace: namespace.into(),
                        offset: offset.map(str::to_owned),
                        claimant: Claimant { shard: self.port.index, socket },
                        hops: 0,
                    };
                    self.send_claim(now, shard, claim);
                }
                Output::Restore { socket, session, namespace, pid, order, auth } => {
                    let (namespace, auth) = (namespace.into(), auth.unwrap_or_default().into());
                    self.ask_restorer(now, (socket, session), namespace, (pid, order), auth);
                }
                Output::Adopted { pid } => {
                    let by = self.port.index;
                    self.mail_home(pid, Mail::Adopted { pid, by });
                }
                Output::Settle { pid, to } => {
                    let server = server.clone();
                    self.server.control.spawn(async move {
                        server.sending.settle().await;
                        if let Some(port) = server.ports().get(usize::from(to)) {
                            let _ = port.send_waiting(Mail::Settled { pid }).await;
                        }
                    });
                }
                Output::ReleaseClaim { pid } => self.mail_home(pid, Mail::ReleaseClaim { pid }),
                Output::Ack { token, socket, elements, count, attachments, last } => {
                    let answer = Answered {
                        parser: server.parser(),
                        elements: Bytes::copy_from_slice(elements),
                        count,
                        attachments,
                    };
                    waiters.answer(token, socket, answer, last);
                }
                Output::AckTimeout { token, .. } => waiters.fail(token, AckFault::TimedOut),
                Output::AckLost { token } => waiters.fail(token, AckFault::Disconnected),
                Output::Disconnected { socket, reason, rooms, is_recoverable } => {
                    let rooms = rooms.iter().map(ToString::to_string).collect();
                    self.end_socket(socket, reason, rooms, is_recoverable);
                }
                Output::Forgotten { socket } => self.forget(socket),
                Output::SessionClosed { session, .. } => {
                    self.severing.retain(|&severing| severing != session);
                    if let Some(slot) = self.handshakes.get_mut(session.slot()) {
                        *slot = None;
                    }
                }
                Output::RoomOpened { namespace, room } => {
                    server.interest.open(usize::from(self.port.index), namespace, room);
                    continue;
                }
                Output::RoomClosed { namespace, room } => {
                    server.interest.close(usize::from(self.port.index), namespace, room);
                    continue;
                }
            }
            self.obey(now);
        }
        any
    }

    /// Does what handlers have asked for, in order.
    #[inline]
    fn obey(&mut self, now: Moment) {
        if mail::has_commands() {
            self.obey_all(now);
        }
    }

    fn obey_all(&mut self, now: Moment) {
        let mut commands = std::mem::take(&mut self.commands);
        mail::take_commands(&mut commands);
        for command in commands.drain(..) {
            self.handle_command(now, command);
        }
        self.commands = commands;
    }

    fn entry(&self, socket: SocketKey) -> Option<&Entry> {
        self.sockets.get(socket.slot())?.as_ref().filter(|entry| entry.key == socket)
    }

    /// The way to this shard.
    pub(crate) fn port(&self) -> Arc<mail::Port> {
        self.port.clone()
    }

    /// Closes up to `count` sessions, because the server drains. Answers how many are left.
    pub(crate) fn drain(&mut self, count: usize) -> usize {
        let now = self.now();
        self.core.drain(now, count)
    }
}

/// Lets the runtime watch the links' poll: one descriptor for all of them.
fn watch(poll: &mio::Poll) -> io::Result<AsyncFd<OwnedFd>> {
    let descriptor = poll.registry().as_fd().try_clone_to_owned()?;
    // Deprecated for types that may close or swap their descriptor behind the runtime's back. An owned one does not.
    #[allow(deprecated)]
    AsyncFd::with_interest(descriptor, tokio::io::Interest::READABLE)
}

fn put<T>(slots: &mut Vec<Option<T>>, slot: usize, value: T) {
    if slots.len() <= slot {
        // An eighth at a time, as the slab does whose slots these are.
        if slots.capacity() <= slot {
            slots.reserve_exact((slot + 1 - slots.len()).max(slots.len() / 8).max(16));
        }
        slots.resize_with(slot + 1, || None);
    }
    slots[slot] = Some(value);
}
