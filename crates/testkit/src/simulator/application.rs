//! The application of a simulated world: it answers peers, emits, broadcasts, joins and disconnects, by the dice.
//! Does not know links or mail between shards. Invariant: whatever it does is told to the model in the same step.

use std::time::Duration;

use engine_core::{AckRequest, AckToken, Flags, SocketKey, Target};
use serde_json::Value;
use sio_proto::{One, Parser};

use super::{Happening, Known, NAMESPACES, ROOMS, World, encode};

impl World {
    pub(super) fn decide(&mut self, shard: usize, socket: SocketKey, namespace: String) {
        if !self.is_calm && self.seed_dice.chance(4) {
            self.cluster.with(shard, |shard, _| shard.refuse(socket, "not now", None));
            return;
        }
        let Some(accepted) = self.cluster.with(shard, |shard, _| shard.accept(socket)) else { return };
        let mail = self.cluster.mails_sent();
        let sid = accepted.sid.to_string();
        if accepted.recovered {
            self.summary.recovered += 1;
            match self.known.get_mut(&(shard, socket)) {
                Some(known) if known.sid == sid => known.is_connected = true,
                _ => self.fail(format!("{sid} is recovered, but was not here")),
            }
            let mut rooms: Vec<String> =
                self.cluster.shard(shard).rooms_of(socket).iter().map(ToString::to_string).collect();
            rooms.sort_unstable();
            let wanted = self.model.rooms_of(&sid);
            if rooms != wanted {
                self.fail(format!("{sid} came back to {rooms:?} instead of {wanted:?}"));
            }
            return;
        }
        if let Some(old) = self.known.remove(&(shard, socket)) {
            self.model.end_life(&old.sid);
        }
        self.model.begin_life(&sid, &namespace, mail);
        self.known.insert(
            (shard, accepted.socket),
            Known { sid, pid: accepted.pid, namespace, is_connected: true },
        );
    }

    pub(super) fn hear_event(
        &mut self,
        shard: usize,
        socket: SocketKey,
        name: &str,
        elements: &[u8],
        count: u32,
        ack_id: Option<u64>,
    ) {
        if name != "up" {
            return self.fail(format!("nobody sends {name}"));
        }
        self.summary.heard += 1;
        let args = sio_proto::to_value(Parser::Json, elements, count, &[]).unwrap_or_default();
        let number = |index: usize| args.get(index).and_then(Value::as_u64).unwrap_or(u64::MAX);
        let (conn, number) = (number(0), number(1));
        let next = self.ups.entry(conn).or_default();
        if *next != number {
            let expected = *next;
            return self.fail(format!("connection {conn} sent {number}, expected {expected}"));
        }
        *next += 1;
        if let Some(id) = ack_id {
            let body = Parser::Json.encode_ack_args(&One(number)).expect("a number can be sent");
            self.cluster.with(shard, |shard, _| shard.answer(socket, id, &body));
        }
    }

    // The application.

    pub(super) fn act(&mut self) {
        if self.is_calm {
            return;
        }
        let delay = self.seed_dice.between(1, 400);
        self.plan(delay, Happening::Act);
        for _ in 0..self.seed_dice.between(1, 6) {
            self.tick();
            self.act_once();
            self.hear_all();
        }
    }

    pub(super) fn act_once(&mut self) {
        let keys: Vec<(usize, SocketKey)> = self.known.keys().copied().collect();
        let someone = if keys.is_empty() { None } else { Some(self.seed_dice.pick(&keys)) };
        match (self.seed_dice.below(100), someone) {
            (0..18, Some((shard, socket))) => {
                let room = self.seed_dice.pick(&ROOMS);
                let outcome = self.cluster.with(shard, |shard, _| shard.join(socket, room));
                let mail = self.cluster.mails_sent();
                let known = &self.known[&(shard, socket)];
                match outcome {
                    Ok(true) => self.model.join(&known.sid, room, mail),
                    Ok(false) => {}
                    Err(_) if !known.is_connected => {}
                    Err(fault) => self.fail(format!("cannot join: {fault}")),
                }
            }
            (18..26, Some((shard, socket))) => {
                let room = self.seed_dice.pick(&ROOMS);
                if self.cluster.with(shard, |shard, _| shard.leave(socket, room)) {
                    let sid = self.known[&(shard, socket)].sid.clone();
                    self.model.leave(&sid, room);
                }
            }
            (26..40, Some((shard, socket))) => self.emit(shard, socket),
            (40..44, Some((shard, socket))) => {
                let token = self.begin_token();
                let timeout = Duration::from_millis(self.seed_dice.between(10, 5_000));
                let ack = AckRequest { token, timeout: Some(timeout) };
                let body = encode("q", 0, 0, 0, false);
                let outcome = self
                    .cluster
                    .with(shard, |shard, now| shard.emit(now, socket, &body, Flags::default(), Some(ack)));
                if outcome.is_err() {
                    self.tokens.remove(&token);
                }
            }
            (44..46, Some((shard, socket))) => {
                let close = self.seed_dice.chance(30);
                self.cluster.with(shard, |shard, now| shard.disconnect(now, socket, close));
            }
            (46..49, Some((shard, _))) => {
                let token = self.begin_token();
                let timeout = Duration::from_millis(self.seed_dice.between(10, 5_000));
                let ack = AckRequest { token, timeout: Some(timeout) };
                let target = Target { namespace: "/".into(), ..Target::default() };
                let body = encode("q", 0, 0, 0, false);
                let sent = self.cluster.with(shard, |shard, now| {
                    shard.broadcast(now, &target, &body, Flags::default(), Some(ack))
                });
                if sent == 0 {
                    self.tokens.remove(&token);
                }
            }
            (49..50, Some((shard, socket))) => {
                if let Some(pid) = self.known[&(shard, socket)].pid {
                    self.cluster.release(pid);
                }
            }
            _ => self.broadcast(someone),
        }
    }

    pub(super) fn begin_token(&mut self) -> AckToken {
        self.happenings += 1;
        let token = AckToken(self.happenings);
        self.tokens.insert(token, true);
        token
    }

    pub(super) fn emit(&mut self, shard: usize, socket: SocketKey) {
        let known = &self.known[&(shard, socket)];
        let (sid, namespace) = (known.sid.clone(), known.namespace.clone());
        let sender = 1_000 + shard as u64;
        let number = self.model.next_number(sender);
        let is_volatile = self.seed_dice.chance(15);
        let body = encode("m", sender, number, self.padding(), self.seed_dice_chance(10));
        let flags = Flags { volatile: is_volatile, ..Flags::default() };
        let outcome = self.cluster.with(shard, |shard, now| shard.emit(now, socket, &body, flags, None));
        if outcome.is_ok() {
            let mail = self.cluster.mails_settled();
            self.model.note_sent(sender, number, &namespace, &[sid], &[], is_volatile, mail);
        }
    }

    pub(super) fn seed_dice_chance(&mut self, percent: u64) -> bool {
        self.seed_dice.chance(percent)
    }

    pub(super) fn padding(&mut self) -> usize {
        if self.seed_dice.chance(5) { 2_000 } else { 10 }
    }

    pub(super) fn broadcast(&mut self, someone: Option<(usize, SocketKey)>) {
        let shard = self.seed_dice.below(self.cluster.len());
        let namespace = if self.seed_dice.chance(85) { NAMESPACES[0] } else { NAMESPACES[1] };
        let mut rooms = Vec::new();
        for _ in 0..self.seed_dice.below(3) {
            let room = self.seed_dice.pick(&ROOMS);
            if !rooms.iter().any(|other| other == room) {
                rooms.push(room.to_owned());
            }
        }
        let mut except = Vec::new();
        if self.seed_dice.chance(25) {
            except.push(self.seed_dice.pick(&ROOMS).to_owned());
        }
        if let Some(key) = someone
            && self.seed_dice.chance(20)
        {
            let sid = self.known[&key].sid.clone();
            if self.seed_dice.chance(50) { rooms.push(sid) } else { except.push(sid) }
        }
        let sender = shard as u64;
        let number = self.model.next_number(sender);
        let is_volatile = self.seed_dice.chance(10);
        let body = encode("m", sender, number, self.padding(), self.seed_dice_chance(5));
        let target = Target {
            namespace: namespace.into(),
            rooms: rooms.iter().map(|room| room.as_str().into()).collect(),
            except: except.iter().map(|room| room.as_str().into()).collect(),
        };
        let flags = Flags { volatile: is_volatile, ..Flags::default() };
        self.cluster.broadcast(shard, &target, &body, flags);
        let mail = self.cluster.mails_sent();
        self.model.note_sent(sender, number, namespace, &rooms, &except, is_volatile, mail);
    }

    // Trouble.
}
