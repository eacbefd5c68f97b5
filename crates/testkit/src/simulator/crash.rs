//! Whole processes that crash under their peers, and an application that remembers: a log, who was in which room since
//! when, and one dispatcher that sends in the log's order. Does not know polling, acks or several senders, which the
//! other world has. Invariant: what a peer must have got is computed from the log alone.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use eio_proto::{Revision, Sid};
use engine_core::{Config, Flags, LinkKey, Opening, Order, Recovery, Released, Restored, SocketKey, Target};
use sio_proto::Body;

use super::dice::Dice;
use super::peer::{Frame, Notice, Peer, Reader, Travel, text_frame};
use super::{ROOMS, encode};
use crate::cluster::{Cluster, Heard};

/// What a run did, to see that it was not idle.
#[derive(Clone, Copy, Debug, Default)]
pub struct CrashSummary {
    /// Events that reached a peer.
    pub delivered: u64,
    /// Crashes of the process.
    pub crashes: u64,
    /// Sockets that the application gave back.
    pub restored: u64,
    /// Sockets that came back, these included.
    pub recovered: u64,
    /// Sockets that were given up for another node.
    pub released: u64,
    /// Restorations that came too late, or were refused.
    pub in_vain: u64,
}

/// Plays one run.
///
/// # Errors
/// What went wrong, and when in virtual time.
pub fn run(seed: u64) -> Result<CrashSummary, String> {
    let mut world = World::new(seed);
    let outcome = world.play();
    let now = world.cluster.now();
    outcome
        .and_then(|()| world.problem.take().map_or(Ok(()), Err))
        .map_err(|it| format!("seed {seed}, {now}: {it}"))?;
    Ok(world.summary)
}

/// What the application remembers of a socket.
struct Member {
    sid: String,
    /// Its rooms, and the newest number when it joined.
    rooms: BTreeMap<String, u64>,
}

/// A peer's WebSocket. What the server wrote waits in `down` until it is delivered, or lost.
struct Conn {
    shard: usize,
    link: LinkKey,
    reader: Reader,
    down: VecDeque<Vec<u8>>,
}

/// A peer that waits for the application's word.
struct Ask {
    shard: usize,
    socket: SocketKey,
    pid: Sid,
    order: Option<u64>,
}

struct World {
    dice: Dice,
    config: Config,
    cluster: Cluster,
    peers: Vec<Peer>,
    conns: Vec<Option<Conn>>,
    /// The rooms of everything that was sent; its number is the place, from 1.
    log: Vec<String>,
    members: BTreeMap<Sid, Member>,
    sockets: BTreeMap<Sid, (usize, SocketKey)>,
    asks: VecDeque<Ask>,
    /// What the peers of each socket got, by public id.
    got: BTreeMap<String, Vec<u64>>,
    summary: CrashSummary,
    problem: Option<String>,
}

const SENDER: u64 = 1;

impl World {
    fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let config = Config {
            recovery: Some(Recovery {
                log_bytes_max: if dice.chance(40) { 2_000 } else { 64 << 20 },
                disconnection_max: Duration::from_secs(20),
            }),
            restore_timeout: Some(Duration::from_secs(10)),
            ..Config::default()
        };
        let shards = dice.between(1, 4) as usize;
        let count = dice.between(1, 6) as usize;
        Self {
            cluster: Cluster::new(shards, &config, seed),
            peers: (0..count).map(|_| Peer::new(Travel::WebSocket, false, &["/"])).collect(),
            conns: (0..count).map(|_| None).collect(),
            dice,
            config,
            log: Vec::new(),
            members: BTreeMap::new(),
            sockets: BTreeMap::new(),
            asks: VecDeque::new(),
            got: BTreeMap::new(),
            summary: CrashSummary::default(),
            problem: None,
        }
    }

    fn play(&mut self) -> Result<(), String> {
        for _ in 0..self.dice.between(300, 1_500) {
            self.happen();
            self.hear_all();
            if self.dice.chance(5) {
                self.cluster.audit()?;
            }
            if self.problem.is_some() {
                return Ok(());
            }
        }
        self.calm_down();
        self.check()?;
        self.cluster.audit()
    }

    fn fail(&mut self, problem: String) {
        self.problem.get_or_insert(problem);
    }

    fn happen(&mut self) {
        let peer = self.dice.below(self.peers.len());
        let shard = self.dice.below(self.cluster.len());
        match self.dice.below(100) {
            0..22 => {
                let room = self.dice.pick(&ROOMS[..3]);
                self.publish(room);
            }
            22..30 => self.join(peer),
            30..55 => self.deliver(peer),
            55..75 => drop(self.cluster.step(shard)),
            75..83 => self.answer(),
            83..86 => self.lose(peer, false),
            86..88 => self.lose(peer, true),
            88..95 => self.connect(peer),
            95..96 => self.mutter(peer),
            96..97 => self.give_up(peer),
            97..99 => {
                let millis = self.dice.pick(&[1, 100, 1_000, 6_000, 30_000]);
                let until = self.cluster.now() + Duration::from_millis(millis);
                self.cluster.set_now(until);
                self.cluster.handle_deadlines();
            }
            _ => self.crash(),
        }
    }

    // The application.

    /// Writes a line, then mails it to every shard.
    fn publish(&mut self, room: &str) {
        self.log.push(room.to_owned());
        let number = self.log.len() as u64;
        let target = Target { namespace: "/".into(), rooms: vec![room.into()], except: Vec::new() };
        let flags = Flags { order: Order::Live(number), ..Flags::default() };
        self.cluster.publish(&target, &event(number), flags);
    }

    /// Something unnumbered for one peer.
    fn mutter(&mut self, peer: usize) {
        if let Some((_, shard, socket)) = self.socket_of(peer) {
            let body = encode("x", SENDER, 0, 5, false);
            // A socket that has gone does not hear it.
            let _ = self.cluster.with(shard, |it, now| it.emit(now, socket, &body, Flags::default(), None));
        }
    }

    fn socket_of(&self, peer: usize) -> Option<(Sid, usize, SocketKey)> {
        let pid = Sid::parse(self.peers[peer].namespaces["/"].pid.as_deref()?)?;
        let &(shard, socket) = self.sockets.get(&pid)?;
        Some((pid, shard, socket))
    }

    /// A letter to a shard, in order with what was mailed to it before.
    fn pump(&mut self, shard: usize) {
        while self.cluster.step(shard) {}
        self.hear_all();
    }

    fn join(&mut self, peer: usize) {
        let room = self.dice.pick(&ROOMS[..3]);
        let Some((_, shard, _)) = self.socket_of(peer) else { return };
        self.pump(shard);
        let Some((pid, at, socket)) = self.socket_of(peer).filter(|(_, at, _)| *at == shard) else { return };
        let joined = self.cluster.with(at, |it, _| it.join(socket, room));
        let newest = self.log.len() as u64;
        if joined == Ok(true)
            && let Some(member) = self.members.get_mut(&pid)
        {
            member.rooms.insert(room.to_owned(), newest);
        }
    }

    /// The dispatcher's turn to answer one of those who ask for their sockets.
    fn answer(&mut self) {
        let Some(ask) = self.asks.pop_front() else { return };
        let member = self.members.get(&ask.pid).filter(|_| self.dice.chance(95));
        let restored = member.map(|member| {
            let after = ask.order.unwrap_or(0);
            let missed = expected(&self.log, member).filter(|&number| number > after);
            Restored {
                sid: Sid::parse(&member.sid).expect("it is an id"),
                rooms: member.rooms.keys().cloned().collect(),
                order: self.log.len() as u64,
                missed: missed.map(|number| (number, event(number))).collect(),
            }
        });
        let is_known = restored.is_some();
        self.pump(ask.shard);
        let Ask { shard, socket, pid, .. } = ask;
        let outcome = self.cluster.with(shard, |it, now| it.handle_restored(now, socket, pid, restored));
        if is_known && outcome.is_ok() {
            self.summary.restored += 1;
        } else {
            self.summary.in_vain += 1;
        }
    }

    // Peers and their network.

    fn connect(&mut self, peer: usize) {
        if self.conns[peer].is_some() {
            return;
        }
        let shard = self.dice.below(self.cluster.len());
        let opening = Opening { revision: Revision::V4, base64: false, is_javascript: true, deflate: false };
        let link = self.cluster.open_websocket(shard, opening);
        self.conns[peer] = Some(Conn { shard, link, reader: Reader::default(), down: VecDeque::new() });
    }

    /// A connection is gone, with all that was on its way. `tells`: the server hears of it.
    fn lose(&mut self, peer: usize, tells: bool) {
        let Some(conn) = self.conns[peer].take() else { return };
        self.peers[peer].forget_connection();
        if tells && self.cluster.has_link(conn.shard, conn.link) {
            self.cluster.cut(conn.shard, conn.link);
        }
    }

    /// Another node wants a socket, and then does not come to restore it: its peer asks for it again.
    fn give_up(&mut self, peer: usize) {
        if let Some((pid, _, _)) = self.socket_of(peer) {
            self.cluster.release(pid);
        }
    }

    fn crash(&mut self) {
        self.summary.crashes += 1;
        let shards = self.dice.between(1, 4) as usize;
        // With a number of its own, as processes of a cluster have, or as one that is alone.
        let node = if self.dice.chance(50) { self.dice.between(1, 65_535) as u16 } else { 0 };
        self.cluster.crash(node, shards, &self.config, 1_000_000 + self.dice.between(0, 1 << 40));
        for peer in 0..self.peers.len() {
            self.lose(peer, false);
        }
        self.sockets.clear();
        self.asks.clear();
    }

    /// One piece of what the server wrote reaches a peer, which answers.
    fn deliver(&mut self, peer: usize) {
        let Some(conn) = &mut self.conns[peer] else { return };
        let Some(bytes) = conn.down.pop_front() else { return };
        let frames = conn.reader.read(&bytes);
        let now = self.cluster.now();
        for frame in frames {
            let notices = match frame {
                Frame::Text(text) => self.peers[peer].hear_text(now, &text),
                Frame::Binary(data) => self.peers[peer].hear_binary(now, &data),
                Frame::Close => vec![Notice::Closed],
            };
            for notice in notices {
                self.notice(peer, notice);
            }
        }
        let said: Vec<String> = self.peers[peer].queue.drain(..).collect();
        for packet in said {
            let Some(Conn { shard, link, .. }) = self.conns[peer] else { return };
            if self.cluster.has_link(shard, link) {
                self.cluster.read(shard, link, &mut text_frame(&packet));
                self.hear_all();
            }
        }
    }

    fn notice(&mut self, peer: usize, notice: Notice) {
        match notice {
            Notice::Opened { .. } => self.peers[peer].queue_connects(),
            Notice::Closed => self.lose(peer, true),
            Notice::Joined { sid, kept } => {
                if kept != self.got.contains_key(&sid) && !kept {
                    self.fail(format!("{sid} is new, but was there before"));
                }
                self.got.entry(sid).or_default();
            }
            Notice::Event { sid, args } if args[0] == "m" => {
                self.summary.delivered += 1;
                let number = args[2].as_u64().expect("events are numbered");
                self.got.entry(sid).or_default().push(number);
            }
            Notice::Event { .. } => {}
            Notice::Refused { .. } | Notice::Left { .. } | Notice::Answered { .. } | Notice::Probed => {
                self.fail(format!("nobody caused {notice:?}"));
            }
        }
    }

    // What comes out of the shards.

    fn hear_all(&mut self) {
        while let Some((shard, heard)) = self.cluster.poll_heard() {
            match heard {
                Heard::Wrote { link, bytes } => {
                    let is_it = |conn: &&mut Conn| conn.shard == shard && conn.link == link;
                    if let Some(conn) = self.conns.iter_mut().flatten().find(is_it) {
                        conn.down.push_back(bytes);
                    }
                }
                Heard::LinkClosed { link } => {
                    let is_it = |conn: &Conn| conn.shard == shard && conn.link == link;
                    let found = self.conns.iter().position(|conn| conn.as_ref().is_some_and(is_it));
                    if let Some(peer) = found {
                        self.lose(peer, false);
                    }
                }
                Heard::Restore { socket, pid, order, .. } => {
                    self.asks.push_back(Ask { shard, socket, pid, order });
                }
                Heard::Connect { socket, .. } => self.accept(shard, socket),
                Heard::Released { outcome, .. } => {
                    self.summary.released += u64::from(outcome == Released::Held)
                }
                Heard::Reply { .. }
                | Heard::Message { .. }
                | Heard::Event { .. }
                | Heard::Ack { .. }
                | Heard::AckTimeout { .. }
                | Heard::AckLost { .. }
                | Heard::Disconnected { .. }
                | Heard::Forgotten { .. }
                | Heard::SessionClosed { .. }
                | Heard::Taken { .. }
                | Heard::Moved { .. } => {}
            }
        }
    }

    fn accept(&mut self, shard: usize, socket: SocketKey) {
        let Some(accepted) = self.cluster.with(shard, |it, _| it.accept(socket)) else { return };
        let pid = accepted.pid.expect("all peers understand recovery");
        self.sockets.insert(pid, (shard, accepted.socket));
        if !accepted.recovered {
            let member = Member { sid: accepted.sid.to_string(), rooms: BTreeMap::new() };
            self.members.insert(pid, member);
            return;
        }
        self.summary.recovered += 1;
        let mut rooms: Vec<String> =
            self.cluster.shard(shard).rooms_of(socket).iter().map(ToString::to_string).collect();
        rooms.sort_unstable();
        let wanted = self.members.get(&pid).map(|member| member.rooms.keys().cloned().collect::<Vec<_>>());
        if wanted.as_ref() != Some(&rooms) {
            self.fail(format!("{} came back to {rooms:?} instead of {wanted:?}", accepted.sid));
        }
    }

    // The end.

    /// Everybody comes back, and hears what there is to hear.
    fn calm_down(&mut self) {
        for _ in 0..3 {
            for peer in 0..self.peers.len() {
                self.connect(peer);
            }
            // More rounds than packets can be under way.
            for _ in 0..50 {
                for shard in 0..self.cluster.len() {
                    self.pump(shard);
                }
                while !self.asks.is_empty() {
                    self.answer();
                    self.hear_all();
                }
                for peer in 0..self.peers.len() {
                    while self.conns[peer].as_ref().is_some_and(|conn| !conn.down.is_empty()) {
                        self.deliver(peer);
                        self.hear_all();
                    }
                }
            }
            let now = self.cluster.now();
            self.cluster.set_now(now + Duration::from_millis(100));
            self.cluster.handle_deadlines();
            self.hear_all();
        }
    }

    fn check(&mut self) -> Result<(), String> {
        let mut alive = Vec::new();
        for (peer, conn) in self.peers.iter().zip(&self.conns) {
            let membership = &peer.namespaces["/"];
            match (&membership.sid, conn) {
                (Some(sid), Some(_)) if membership.is_joined => alive.push(sid.clone()),
                _ => return Err("a peer did not come back".into()),
            }
        }
        for member in self.members.values() {
            let wanted: Vec<u64> = expected(&self.log, member).collect();
            let got = self.got.get(&member.sid).cloned().unwrap_or_default();
            let is_whole = if alive.contains(&member.sid) { got == wanted } else { wanted.starts_with(&got) };
            if !is_whole {
                return Err(format!(
                    "{} (rooms {:?}) got {got:?}\n instead of {wanted:?}",
                    member.sid, member.rooms
                ));
            }
        }
        Ok(())
    }
}

fn event(number: u64) -> Body {
    encode("m", SENDER, number, 20, false)
}

/// The numbers of what is for a socket, whenever it gets them.
fn expected<'a>(log: &'a [String], member: &'a Member) -> impl Iterator<Item = u64> + 'a {
    let numbered = (1..).zip(log);
    numbered
        .filter(|(number, room)| member.rooms.get(*room).is_some_and(|since| number > since))
        .map(|(number, _)| number)
}
