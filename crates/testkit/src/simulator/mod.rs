//! Shards, peers, an application and a bad network in virtual time, and a model that says what everybody must get.
//! Does not know real time, threads or descriptors. Invariant: a seed decides a run to its last byte.

mod application;
pub mod crash;
mod dice;
mod model;
mod peer;
mod story;

use std::collections::BTreeMap;
use std::time::Duration;

use eio_proto::{Revision, Sid};
use engine_core::{
    AckToken, Config, LinkKey, Moment, Opening, Recovery, Reply, RequestId, SessionKey, Shard, SocketKey,
};
use serde_json::Value;
use sio_proto::{Binary, Body, Many, Parser};

use crate::cluster::{Cluster, Heard};
use dice::Dice;
use model::Model;
use peer::{Frame, Notice, Peer, Reader, Travel, text_frame};
use story::Story;

/// What a run did, to see that it was not idle.
#[derive(Clone, Copy, Debug, Default)]
pub struct Summary {
    /// Events that reached a peer.
    pub delivered: u64,
    /// Sockets that came back.
    pub recovered: u64,
    /// Of these, on another shard.
    pub moved: u64,
    /// Recoveries that were refused.
    pub refused: u64,
    /// Events from peers.
    pub heard: u64,
}

/// Plays one run.
///
/// # Errors
/// What went wrong, and when in virtual time.
pub fn run(seed: u64) -> Result<Summary, String> {
    run_on(seed, None)
}

/// Plays one run with so many shards; `None`: as many as the seed says.
///
/// # Errors
/// As [`run`].
pub fn run_on(seed: u64, shards: Option<usize>) -> Result<Summary, String> {
    let mut world = World::new(seed, shards);
    world.play().map_err(|problem| format!("seed {seed}, {}: {problem}", world.cluster.now()))?;
    Ok(world.summary)
}

/// Plays one run as [`run_on`] does, and tells the story of the socket with this public id beside the outcome: when its
/// peer came, went and asked, what the shards wrote to each other about it, and every event that reached it.
pub fn run_telling(seed: u64, shards: Option<usize>, sid: &str) -> (Result<Summary, String>, Vec<String>) {
    let mut world = World::new(seed, shards);
    world.story = Some(Story::new(sid));
    world.cluster.keep_letters();
    let outcome = world.play().map_err(|problem| format!("seed {seed}, {}: {problem}", world.cluster.now()));
    (outcome.map(|()| world.summary), world.story.map(Story::into_lines).unwrap_or_default())
}

const NAMESPACES: [&str; 2] = ["/", "/chat"];
const ROOMS: [&str; 5] = ["r0", "r1", "r2", "r3", "r4"];

/// What happens when its time comes.
enum Happening {
    /// Something of connection `conn` arrives at the server.
    Up { conn: u64, what: Up },
    /// Something arrives at the peer of connection `conn`.
    Down { conn: u64, what: Down },
    /// A peer connects, unless it has.
    Connect { peer: usize },
    /// A peer looks whether it has heard enough of the server.
    Listen { peer: usize, conn: u64 },
    /// A peer sends something of its own.
    Speak { peer: usize },
    /// The application does something.
    Act,
    /// The network does something.
    Trouble,
    /// A shard looks into its mailbox.
    Mail { shard: usize },
    /// The application answers a CONNECT.
    Decide { shard: usize, socket: SocketKey, namespace: String },
    /// A slow link takes bytes again.
    Flow { conn: u64 },
}

enum Up {
    Open,
    Get,
    Post { body: String },
    PostEnd { request: RequestId, session: SessionKey, body: String },
    Upgrade,
    Bytes(Vec<u8>),
    Gone,
}

enum Down {
    Reply { is_get: bool, body: Option<String> },
    Bytes(Vec<u8>),
    Gone,
}

struct Conn {
    peer: usize,
    shard: usize,
    sid: Option<Sid>,
    session: Option<SessionKey>,
    link: Option<LinkKey>,
    /// WebSocket speaks for the session, as far as the peer knows.
    is_websocket: bool,
    is_probing: bool,
    probe_answered: bool,
    reader: Reader,
    get: bool,
    post: bool,
    open_requests: Vec<RequestId>,
    up_at: Moment,
    down_at: Moment,
    /// Whatever is sent either way vanishes, and nobody is told.
    is_dead: bool,
}

struct Known {
    sid: String,
    pid: Option<Sid>,
    namespace: String,
    is_connected: bool,
}

struct World {
    seed_dice: Dice,
    cluster: Cluster,
    model: Model,
    peers: Vec<Peer>,
    /// Which connection each peer has, as far as it knows.
    current: Vec<Option<u64>>,
    conns: BTreeMap<u64, Conn>,
    requests: BTreeMap<RequestId, (u64, bool)>,
    links: BTreeMap<(usize, LinkKey), u64>,
    agenda: BTreeMap<(Moment, u64), Happening>,
    happenings: u64,
    next_conn: u64,
    known: BTreeMap<(usize, SocketKey), Known>,
    in_transit: BTreeMap<(usize, SocketKey), Known>,
    mail_planned: Vec<bool>,
    /// Next event number per connection, as the application expects it.
    ups: BTreeMap<u64, u64>,
    tokens: BTreeMap<AckToken, bool>,
    is_calm: bool,
    is_over: bool,
    mail_delay_max: u64,
    trouble_gap: u64,
    summary: Summary,
    problem: Option<String>,
    /// What is told about one socket, if anything is.
    story: Option<Story>,
}

impl World {
    fn new(seed: u64, shards: Option<usize>) -> Self {
        let mut dice = Dice::new(seed);
        let diced = dice.between(1, 4) as usize;
        let shards = shards.unwrap_or(diced);
        let config = Config {
            outbox_bytes_max: if dice.chance(30) { 6_000 } else { 1 << 20 },
            recovery: dice.chance(90).then(|| Recovery {
                log_bytes_max: if dice.chance(25) { 20_000 } else { 64 << 20 },
                ..Recovery::default()
            }),
            ..Config::default()
        };
        let count = if dice.chance(3) { dice.between(100, 250) } else { dice.between(2, 24) } as usize;
        let peers: Vec<Peer> = (0..count)
            .map(|_| {
                let travel = dice.pick(&[Travel::Polling, Travel::WebSocket, Travel::Upgrade]);
                let namespaces: &[&str] = if dice.chance(25) { &NAMESPACES } else { &NAMESPACES[..1] };
                Peer::new(travel, dice.chance(25), namespaces)
            })
            .collect();
        Self {
            cluster: Cluster::new(shards, &config, seed),
            model: Model::default(),
            current: vec![None; peers.len()],
            peers,
            conns: BTreeMap::new(),
            requests: BTreeMap::new(),
            links: BTreeMap::new(),
            agenda: BTreeMap::new(),
            happenings: 0,
            next_conn: 0,
            known: BTreeMap::new(),
            in_transit: BTreeMap::new(),
            mail_planned: vec![false; shards],
            ups: BTreeMap::new(),
            tokens: BTreeMap::new(),
            is_calm: false,
            is_over: false,
            mail_delay_max: dice.pick(&[1, 5, 50, 400]),
            trouble_gap: dice.pick(&[200, 1_000, 5_000]),
            summary: Summary::default(),
            problem: None,
            story: None,
            seed_dice: dice,
        }
    }

    fn play(&mut self) -> Result<(), String> {
        for peer in 0..self.peers.len() {
            let delay = self.seed_dice.between(0, 2_000);
            self.plan(delay, Happening::Connect { peer });
            let delay = self.seed_dice.between(100, 5_000);
            self.plan(delay, Happening::Speak { peer });
        }
        self.plan(50, Happening::Act);
        self.plan(3_000, Happening::Trouble);
        let busy = self.seed_dice.between(30_000, 300_000);
        self.live_until(at(busy))?;
        // Everybody who is to come back does, and hears what there is to hear.
        self.is_calm = true;
        let slow: Vec<u64> = self.conns.keys().copied().collect();
        for conn in slow {
            self.happen(Happening::Flow { conn });
        }
        self.live_until(at(busy + 320_000))?;
        self.settle_mail()?;
        self.check_peers()?;
        // Everybody goes, and nothing may be left.
        self.is_over = true;
        for peer in 0..self.peers.len() {
            self.hang_up(peer, true);
        }
        self.live_until(at(busy + 320_000 + 3_600_000))?;
        self.settle_mail()?;
        self.check_empty()
    }

    /// Lives through everything up to `until`.
    fn live_until(&mut self, until: Moment) -> Result<(), String> {
        loop {
            let agenda = self.agenda.first_key_value().map(|(&(at, _), _)| at);
            let deadline = self.cluster.poll_deadline();
            let next = agenda.into_iter().chain(deadline).min().filter(|&next| next <= until);
            let Some(next) = next else { break };
            let next = next.max(self.cluster.now());
            self.cluster.set_now(next);
            if deadline.is_some_and(|at| at <= next)
                && (agenda.is_none_or(|at| at > next) || self.seed_dice.chance(50))
            {
                self.tick();
                self.cluster.handle_deadlines();
            } else if let Some(entry) = self.agenda.first_entry() {
                let happening = entry.remove();
                self.tick();
                self.happen(happening);
            }
            self.hear_all();
            self.plan_mail();
            if let Some(problem) = self.problem.take() {
                return Err(problem);
            }
            if self.seed_dice.chance(2) {
                self.cluster.audit()?;
            }
        }
        self.cluster.set_now(until.max(self.cluster.now()));
        self.cluster.handle_deadlines();
        self.hear_all();
        self.plan_mail();
        self.problem.take().map_or(Ok(()), Err)
    }

    fn settle_mail(&mut self) -> Result<(), String> {
        while let Some(shard) = (0..self.cluster.len()).find(|&shard| self.cluster.has_mail(shard)) {
            self.tick();
            self.cluster.step(shard);
            self.hear_all();
        }
        self.tick();
        // What is still on its way to peers arrives.
        let now = self.cluster.now();
        self.live_until(now + Duration::from_millis(500))
    }

    fn tick(&mut self) {
        self.model.advance(self.cluster.mails_settled());
    }

    fn plan(&mut self, delay: u64, happening: Happening) {
        let when = self.cluster.now() + Duration::from_millis(delay);
        self.plan_at(when, happening);
    }

    fn plan_at(&mut self, when: Moment, happening: Happening) {
        self.happenings += 1;
        self.agenda.insert((when, self.happenings), happening);
    }

    fn plan_mail(&mut self) {
        for shard in 0..self.cluster.len() {
            if self.cluster.has_mail(shard) && !self.mail_planned[shard] {
                self.mail_planned[shard] = true;
                let delay = self.seed_dice.between(0, self.mail_delay_max);
                self.plan(delay, Happening::Mail { shard });
            }
        }
    }

    /// Adds a line to the story, if it is about the socket that is followed.
    fn tell(&mut self, line: impl FnOnce() -> String) {
        if let Some(story) = &mut self.story {
            story.add(self.cluster.now(), &line());
        }
    }

    /// Tells what happens to a peer, under each of the ids that it has.
    fn tell_peer(&mut self, peer: usize, what: &str) {
        if self.story.is_none() {
            return;
        }
        let conn = self.current[peer];
        let shard = conn.and_then(|conn| self.conns.get(&conn)).map(|conn| conn.shard);
        let lines: Vec<String> = self.peers[peer]
            .namespaces
            .values()
            .filter_map(|membership| {
                let (sid, offset) = (membership.sid.as_ref()?, &membership.offset);
                Some(format!(
                    "peer of {sid} {what}: connection {conn:?} to shard {shard:?}, offset {offset:?}"
                ))
            })
            .collect();
        for line in lines {
            self.tell(|| line);
        }
    }

    fn fail(&mut self, problem: impl Into<String>) {
        self.problem.get_or_insert(problem.into());
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Up { conn, what } => self.arrive_up(conn, what),
            Happening::Down { conn, what } => self.arrive_down(conn, what),
            Happening::Connect { peer } => self.connect(peer),
            Happening::Listen { peer, conn } => self.listen(peer, conn),
            Happening::Speak { peer } => self.speak(peer),
            Happening::Act => self.act(),
            Happening::Trouble => self.trouble(),
            Happening::Mail { shard } => {
                self.mail_planned[shard] = false;
                self.cluster.step(shard);
            }
            Happening::Decide { shard, socket, namespace } => self.decide(shard, socket, namespace),
            Happening::Flow { conn } => {
                if let Some(Conn { shard, link: Some(link), .. }) = self.conns.get(&conn) {
                    self.cluster.set_takes(*shard, *link, None);
                }
            }
        }
    }

    // The network.

    fn send_up(&mut self, conn: u64, what: Up) {
        let delay = self.seed_dice.between(0, 40);
        let now = self.cluster.now();
        let Some(entry) = self.conns.get_mut(&conn) else { return };
        entry.up_at = entry.up_at.max(now + Duration::from_millis(delay));
        let when = entry.up_at;
        self.plan_at(when, Happening::Up { conn, what });
    }

    fn send_down(&mut self, conn: u64, what: Down) {
        let delay = self.seed_dice.between(0, 40);
        let now = self.cluster.now();
        let Some(entry) = self.conns.get_mut(&conn) else { return };
        if entry.is_dead {
            return;
        }
        entry.down_at = entry.down_at.max(now + Duration::from_millis(delay));
        let when = entry.down_at;
        self.plan_at(when, Happening::Down { conn, what });
    }

    fn arrive_up(&mut self, conn: u64, what: Up) {
        let Some(entry) = self.conns.get(&conn).filter(|entry| !entry.is_dead) else { return };
        let (shard, sid, link) = (entry.shard, entry.sid, entry.link);
        let (travel, is_plain) = (self.peers[entry.peer].travel, self.peers[entry.peer].is_plain);
        let opening =
            Opening { revision: Revision::V4, base64: false, is_javascript: !is_plain, deflate: false };
        match what {
            Up::Open if travel == Travel::WebSocket => {
                let link = self.cluster.open_websocket(shard, opening);
                self.links.insert((shard, link), conn);
                self.update(conn, |entry| entry.link = Some(link));
            }
            Up::Open => {
                let (request, session) = self.cluster.open_polling(shard, opening);
                self.open_request(conn, request, true);
                self.update(conn, |entry| entry.session = Some(session));
            }
            Up::Get => {
                let Some(sid) = sid else { return };
                let request = self.cluster.get(sid, Revision::V4);
                self.open_request(conn, request, true);
            }
            Up::Post { body } => {
                let Some(sid) = sid else { return };
                let (request, session) = self.cluster.post_begin(sid, Revision::V4);
                self.open_request(conn, request, false);
                if let Some(session) = session {
                    self.send_up(conn, Up::PostEnd { request, session, body });
                }
            }
            Up::PostEnd { request, session, body } => {
                let Some(sid) = sid else { return };
                self.cluster.post_end(sid, session, request, body.as_bytes(), false);
            }
            Up::Upgrade => {
                let Some(sid) = sid else { return };
                match self.cluster.upgrade(sid, Revision::V4, false) {
                    Ok(link) => {
                        self.links.insert((shard, link), conn);
                        self.update(conn, |entry| entry.link = Some(link));
                    }
                    Err(_) => self.send_down(conn, Down::Gone),
                }
            }
            Up::Bytes(mut bytes) => {
                if let Some(link) = link {
                    self.cluster.read(shard, link, &mut bytes);
                }
            }
            Up::Gone => self.end_conn(conn),
        }
    }

    /// The server sees a connection and its requests go.
    fn end_conn(&mut self, conn: u64) {
        let Some(entry) = self.conns.remove(&conn) else { return };
        if let Some(link) = entry.link {
            self.links.remove(&(entry.shard, link));
            self.cluster.cut(entry.shard, link);
        }
        for request in entry.open_requests {
            if self.requests.remove(&request).is_some()
                && let Some(session) = entry.session
            {
                self.cluster.with(entry.shard, |shard, now| shard.handle_request_lost(now, session, request));
            }
        }
    }

    fn open_request(&mut self, conn: u64, request: RequestId, is_get: bool) {
        self.requests.insert(request, (conn, is_get));
        self.update(conn, |entry| entry.open_requests.push(request));
    }

    fn update(&mut self, conn: u64, change: impl FnOnce(&mut Conn)) {
        if let Some(entry) = self.conns.get_mut(&conn) {
            change(entry);
        }
    }

    // Peers.

    fn connect(&mut self, peer: usize) {
        if self.current[peer].is_some() || self.is_over {
            return;
        }
        self.next_conn += 1;
        let (conn, now) = (self.next_conn, self.cluster.now());
        let shard = self.seed_dice.below(self.cluster.len());
        let entry = Conn {
            peer,
            shard,
            sid: None,
            session: None,
            link: None,
            is_websocket: self.peers[peer].travel == Travel::WebSocket,
            is_probing: false,
            probe_answered: false,
            reader: Reader::default(),
            get: false,
            post: false,
            open_requests: Vec::new(),
            up_at: now,
            down_at: now,
            is_dead: false,
        };
        self.conns.insert(conn, entry);
        self.current[peer] = Some(conn);
        self.peers[peer].heard_at = now;
        self.send_up(conn, Up::Open);
        self.plan(46_000, Happening::Listen { peer, conn });
    }

    /// A peer's connection is over, and it knows. `tells`: the server hears of it, too.
    fn hang_up(&mut self, peer: usize, tells: bool) {
        self.tell_peer(peer, if tells { "hangs up" } else { "vanishes" });
        let Some(conn) = self.current[peer].take() else { return };
        self.peers[peer].forget_connection();
        if tells {
            self.send_up(conn, Up::Gone);
        } else {
            self.update(conn, |entry| entry.is_dead = true);
        }
        let delay = match self.is_calm {
            true => self.seed_dice.between(0, 500),
            false if self.seed_dice.chance(5) => self.seed_dice.between(60_000, 200_000),
            false => self.seed_dice.between(0, 3_000),
        };
        self.plan(delay, Happening::Connect { peer });
    }

    fn listen(&mut self, peer: usize, conn: u64) {
        if self.current[peer] != Some(conn) {
            return;
        }
        let silent = self.cluster.now().since(self.peers[peer].heard_at);
        if silent >= Duration::from_secs(45) {
            self.hang_up(peer, true);
        } else {
            self.plan(46_000 - silent.as_millis() as u64, Happening::Listen { peer, conn });
        }
    }

    fn speak(&mut self, peer: usize) {
        if self.is_calm {
            return;
        }
        let delay = self.seed_dice.between(100, 20_000);
        self.plan(delay, Happening::Speak { peer });
        let Some(conn) = self.current[peer] else { return };
        let names: Vec<String> = self.peers[peer].namespaces.keys().cloned().collect();
        let name = &names[self.seed_dice.below(names.len())];
        let wants_ack = self.seed_dice.chance(30);
        for _ in 0..self.seed_dice.between(1, 4) {
            self.peers[peer].queue_event(name, conn, wants_ack);
        }
        self.flush_peer(peer);
    }

    /// Sends what a peer has queued, as its transport allows.
    fn flush_peer(&mut self, peer: usize) {
        let Some(conn) = self.current[peer] else { return };
        let Some(entry) = self.conns.get_mut(&conn) else { return };
        if entry.sid.is_none() {
            return;
        }
        let queue = &mut self.peers[peer].queue;
        if entry.is_websocket {
            let frames: Vec<Vec<u8>> = queue.drain(..).map(|packet| text_frame(&packet)).collect();
            for frame in frames {
                self.send_up(conn, Up::Bytes(frame));
            }
            return;
        }
        let (mut get, mut post) = (false, None);
        if !entry.post && !queue.is_empty() && !entry.probe_answered {
            entry.post = true;
            post = Some(queue.drain(..).collect::<Vec<_>>().join("\u{1e}"));
        }
        if !entry.get && !entry.probe_answered {
            entry.get = true;
            get = true;
        }
        let is_paused = entry.probe_answered && !entry.get && !entry.post;
        if is_paused {
            entry.is_websocket = true;
        }
        if let Some(body) = post {
            self.send_up(conn, Up::Post { body });
        }
        if get {
            self.send_up(conn, Up::Get);
        }
        if is_paused {
            self.send_up(conn, Up::Bytes(text_frame("5")));
            self.flush_peer(peer);
        }
    }

    fn arrive_down(&mut self, conn: u64, what: Down) {
        let Some(entry) = self.conns.get_mut(&conn) else { return };
        let peer = entry.peer;
        if self.current[peer] != Some(conn) || entry.is_dead {
            return;
        }
        let now = self.cluster.now();
        let mut notices = Vec::new();
        match what {
            Down::Gone if entry.is_probing && !entry.is_websocket => {
                // The attempt failed; polling goes on.
                (entry.is_probing, entry.probe_answered) = (false, false);
                entry.link = None;
            }
            Down::Gone => return self.hang_up(peer, true),
            Down::Reply { is_get, body } => {
                let is_open = entry.sid.is_none();
                if is_get && !is_open {
                    entry.get = false
                } else {
                    entry.post &= is_open
                }
                match body {
                    None => return self.hang_up(peer, true),
                    Some(body) if is_get => {
                        for packet in body.split('\u{1e}') {
                            notices.extend(self.peers[peer].hear_text(now, packet));
                        }
                    }
                    Some(_) => {}
                }
            }
            Down::Bytes(bytes) => {
                for frame in entry.reader.read(&bytes) {
                    match frame {
                        Frame::Text(text) => notices.extend(self.peers[peer].hear_text(now, &text)),
                        Frame::Binary(data) => notices.extend(self.peers[peer].hear_binary(now, &data)),
                        Frame::Close => {
                            if entry.is_websocket {
                                notices.push(Notice::Closed);
                            }
                        }
                    }
                }
            }
        }
        for notice in notices {
            self.notice(peer, conn, notice);
        }
        self.flush_peer(peer);
    }

    fn notice(&mut self, peer: usize, conn: u64, notice: Notice) {
        if self.current[peer] != Some(conn) {
            return;
        }
        match notice {
            Notice::Opened { sid } => {
                let sid = Sid::parse(&sid).expect("a session's id is one");
                self.update(conn, |entry| entry.sid = Some(sid));
                self.tell_peer(peer, "asks to connect");
                self.peers[peer].queue_connects();
                if self.peers[peer].travel == Travel::Upgrade {
                    self.update(conn, |entry| entry.is_probing = true);
                    self.send_up(conn, Up::Upgrade);
                    self.send_up(conn, Up::Bytes(text_frame("2probe")));
                }
            }
            Notice::Probed => self.update(conn, |entry| entry.probe_answered = true),
            Notice::Closed => self.hang_up(peer, true),
            Notice::Joined { sid, kept } => {
                let pid = self.peers[peer].pid_of(&sid);
                self.tell(|| {
                    format!("peer of {sid} joins with pid {pid:?} on connection {conn}, kept: {kept}")
                });
                if let (Some(story), Some(pid)) = (&mut self.story, &pid) {
                    story.follow_pid(&sid, pid);
                }
                // Under an id that it had, or under one that nobody ever had.
                let is_known = self.model.lives.get(&sid).is_some_and(|life| life.was_joined);
                if kept != is_known && !(kept && self.model.lives.contains_key(&sid)) {
                    self.fail(format!("a peer joined as {sid} (kept {kept}), which was joined: {is_known}"));
                }
                if let Some(life) = self.model.lives.get_mut(&sid) {
                    life.was_joined = true;
                }
            }
            Notice::Refused { namespace } | Notice::Left { namespace } => {
                // It tries again; the application refuses only now and then.
                self.tell_peer(peer, "asks again");
                self.peers[peer].queue_connect(&namespace);
            }
            Notice::Event { sid, args } => {
                if args[0] == "m" {
                    let number = |index: usize| args[index].as_u64().expect("events are numbered");
                    let (sender, number) = (number(1), number(2));
                    self.summary.delivered += 1;
                    let offset = args.last().and_then(Value::as_str);
                    self.tell(|| format!("peer of {sid} gets {number} of {sender}, offset {offset:?}"));
                    if let Err(problem) = self.model.note_got(&sid, sender, number) {
                        self.fail(problem);
                    }
                }
            }
            Notice::Answered { id } => {
                if id >= self.peers[peer].next_event {
                    self.fail(format!("an answer to event {id}, which was never sent"));
                }
            }
        }
    }

    // What comes out of the shards.

    fn hear_all(&mut self) {
        for letter in self.cluster.take_letters() {
            self.tell(|| letter);
        }
        while let Some((shard, heard)) = self.cluster.poll_heard() {
            self.tell_heard(shard, &heard);
            self.hear(shard, heard);
        }
    }

    /// Tells what came out of a shard about a socket that the application knows.
    fn tell_heard(&mut self, shard: usize, heard: &Heard) {
        if self.story.is_none() {
            return;
        }
        let (socket, what) = match heard {
            Heard::Connect { socket, recovering: true, .. } => (socket, "asks whether to have back"),
            Heard::Disconnected { socket, is_recoverable: true, .. } => (socket, "loses"),
            Heard::Disconnected { socket, .. } => (socket, "ends"),
            Heard::Forgotten { socket } => (socket, "forgets"),
            Heard::Taken { socket } => (socket, "gives away"),
            _ => return,
        };
        let sid = self.known.get(&(shard, *socket)).map(|known| known.sid.clone());
        let sid = sid.or_else(|| self.cluster.shard(shard).sid_of(*socket).map(|sid| sid.to_string()));
        self.tell(|| format!("shard {shard} {what} {}", sid.unwrap_or_default()));
    }

    fn hear(&mut self, shard: usize, heard: Heard) {
        match heard {
            Heard::Reply { request, reply } => {
                // A request whose link was cut is nobody's.
                let Some((conn, is_get)) = self.requests.remove(&request) else { return };
                self.update(conn, |entry| entry.open_requests.retain(|&open| open != request));
                let body = match reply {
                    Reply::Payload { body, .. } => Some(String::from_utf8(body).expect("payloads are text")),
                    Reply::Ok => Some(String::new()),
                    Reply::Refused(_) | Reply::BadRequest => None,
                };
                self.send_down(conn, Down::Reply { is_get, body });
            }
            Heard::Restore { .. } => unreachable!("this application remembers nothing"),
            Heard::Message { .. } => unreachable!("simulated shards speak Socket.IO"),
            Heard::Wrote { link, bytes } => {
                if let Some(&conn) = self.links.get(&(shard, link)) {
                    self.send_down(conn, Down::Bytes(bytes));
                }
            }
            Heard::LinkClosed { link } => {
                if let Some(conn) = self.links.remove(&(shard, link)) {
                    self.update(conn, |entry| entry.link = entry.link.filter(|&open| open != link));
                    self.send_down(conn, Down::Gone);
                }
            }
            Heard::Connect { socket, namespace, .. } => {
                if self.seed_dice.chance(25) {
                    let delay = self.seed_dice.between(0, 300);
                    self.plan(delay, Happening::Decide { shard, socket, namespace });
                } else {
                    self.decide(shard, socket, namespace);
                }
            }
            Heard::Event { socket, name, elements, count, attachments: _, ack_id } => {
                self.hear_event(shard, socket, &name, &elements, count, ack_id);
            }
            Heard::Ack { token, last, .. } => {
                if last {
                    self.end_token(token);
                } else if !self.tokens.contains_key(&token) {
                    self.fail(format!("an ack for {token:?}, which is over"));
                }
            }
            Heard::AckTimeout { token, .. } | Heard::AckLost { token } => self.end_token(token),
            Heard::Disconnected { socket, is_recoverable, .. } => {
                if let Some(known) = self.known.get_mut(&(shard, socket)) {
                    known.is_connected = false;
                    if !is_recoverable {
                        let known = self.known.remove(&(shard, socket)).expect("it was there");
                        self.model.end_life(&known.sid);
                    }
                }
            }
            Heard::Forgotten { socket } => {
                if let Some(known) = self.known.remove(&(shard, socket)) {
                    self.model.end_life(&known.sid);
                }
            }
            Heard::SessionClosed { .. } | Heard::Released { .. } => {}
            Heard::Taken { socket } => {
                if let Some(mut known) = self.known.remove(&(shard, socket)) {
                    known.is_connected = false;
                    self.in_transit.insert((shard, socket), known);
                }
            }
            Heard::Moved { from, old, new } => {
                let Some(known) = self.in_transit.remove(&(from, old)) else {
                    return self.fail("a socket moved that nobody had");
                };
                self.summary.moved += 1;
                self.known.insert((shard, new), known);
            }
        }
    }

    fn end_token(&mut self, token: AckToken) {
        if self.tokens.remove(&token).is_none() {
            self.fail(format!("{token:?} ended twice"));
        }
    }

    fn trouble(&mut self) {
        if self.is_calm {
            return;
        }
        let delay = self.seed_dice.between(1, 2 * self.trouble_gap);
        self.plan(delay, Happening::Trouble);
        let peer = self.seed_dice.below(self.peers.len());
        let Some(conn) = self.current[peer] else { return };
        match self.seed_dice.below(100) {
            // The link is cut; each side notices in its own time.
            0..35 => {
                self.send_up(conn, Up::Gone);
                self.send_down(conn, Down::Gone);
            }
            // The peer changes networks: it notices, the server does not.
            35..60 => self.hang_up(peer, false),
            // Neither notices.
            60..70 => self.update(conn, |entry| entry.is_dead = true),
            // It reads slowly for a while.
            70..88 => {
                if let Some(Conn { shard, link: Some(link), .. }) = self.conns.get(&conn) {
                    let takes = self.seed_dice.below(3_000);
                    self.cluster.set_takes(*shard, *link, Some(takes));
                    let delay = self.seed_dice.between(10, 20_000);
                    self.plan(delay, Happening::Flow { conn });
                }
            }
            // It crashes, and comes back with no memory.
            88..96 => {
                let tells = self.seed_dice.chance(50);
                self.hang_up(peer, tells);
                let old = &self.peers[peer];
                let names: Vec<&str> =
                    NAMESPACES.into_iter().filter(|name| old.namespaces.contains_key(*name)).collect();
                self.peers[peer] = Peer::new(old.travel, old.is_plain, &names);
            }
            // The server sleeps.
            _ => {
                let nap = self.seed_dice.pick(&[500, 5_000, 60_000]);
                let now = self.cluster.now();
                self.cluster.set_now(now + Duration::from_millis(nap));
            }
        }
    }

    // The end.

    fn check_peers(&mut self) -> Result<(), String> {
        let mut alive = std::collections::BTreeSet::new();
        for (peer, conn) in self.peers.iter().zip(&self.current) {
            if conn.is_none() {
                return Err("a peer did not come back".into());
            }
            for (namespace, membership) in &peer.namespaces {
                match &membership.sid {
                    Some(sid) if membership.is_joined => {
                        alive.insert(sid.clone());
                    }
                    _ => return Err(format!("a peer is not in {namespace} again")),
                }
            }
        }
        for sid in &alive {
            let connected = self.known.values().any(|known| known.sid == *sid && known.is_connected);
            if !connected {
                return Err(format!("{sid} believes that it is connected"));
            }
        }
        self.summary.refused = (0..self.cluster.len())
            .map(|index| self.cluster.shard(index).counters().recoveries_refused)
            .sum();
        self.model.check(&|sid| alive.contains(sid))
    }

    fn check_empty(&mut self) -> Result<(), String> {
        for index in 0..self.cluster.len() {
            self.cluster.with(index, Shard::handle_deadline);
            let shard = self.cluster.shard(index);
            let gauges = shard.gauges();
            let held = [
                gauges.sessions,
                gauges.sockets,
                gauges.sockets_lost,
                gauges.rooms,
                gauges.acks_awaited,
                gauges.links,
                gauges.notes,
                gauges.log_events,
                gauges.log_bytes,
                shard.namespaces().count(),
            ];
            if held.iter().any(|&count| count > 0) {
                return Err(format!("shard {index} still holds {gauges:?}"));
            }
        }
        if !self.tokens.is_empty() {
            return Err(format!("acks that never ended: {:?}", self.tokens));
        }
        self.cluster.audit()
    }
}

fn at(millis: u64) -> Moment {
    Moment::from_millis(millis)
}

/// An event with its sender and number.
fn encode(name: &str, sender: u64, number: u64, padding: usize, has_bytes: bool) -> Body {
    let padding = vec![Value::from("p".repeat(padding))];
    let body = if has_bytes {
        Parser::Json.encode_event_args(name, &Many((sender, number, Binary(vec![1, 2, 3].into()), padding)))
    } else {
        Parser::Json.encode_event_args(name, &Many((sender, number, padding)))
    };
    body.expect("it can be encoded")
}
