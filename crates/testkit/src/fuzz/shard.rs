//! Any bytes as a sequence of what can happen to a shard, or to two: nothing panics, every request is replied to once,
//! the shards audit clean after every step, and when everybody has gone nothing is left.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use eio_proto::{Revision, Sid};
use engine_core::{
    AckRequest, AckToken, Config, Flags, LinkKey, Opening, Recovery, Reply, RequestId, Restored, SessionKey,
    Shard, SocketKey, Target,
};
use sio_proto::{One, Parser};
use ws_proto::OpCode;

use crate::cluster::{Cluster, Heard};

/// More is only slower.
const STEPS_MAX: usize = 400;

const TEXTS: [&str; 22] = [
    "40",
    "40/a,",
    "40/b,{\"recovery\":true}",
    "41",
    "41/a,",
    "42[\"x\"]",
    "42/a,[\"x\",1]",
    "427[\"x\"]",
    "430[]",
    "431[1]",
    "43/a,0[]",
    "451-[\"x\",{\"_placeholder\":true,\"num\":0}]",
    "461-0[{\"_placeholder\":true,\"num\":0}]",
    "1",
    "2",
    "2probe",
    "3",
    "5",
    "6",
    "bAQID",
    "4",
    "40{\"pid\":7}",
];

const ROOMS: [&str; 4] = ["r", "s", "t", ""];
const NAMESPACES: [&str; 3] = ["/", "/a", "/b"];

struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn next(&mut self) -> usize {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        usize::from(first)
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn slice(&mut self) -> Vec<u8> {
        let len = (self.next() % 64).min(self.0.len());
        let (slice, rest) = self.0.split_at(len);
        self.0 = rest;
        slice.to_vec()
    }

    fn pick<T: Clone>(&mut self, of: &[T]) -> Option<T> {
        let index = self.next();
        if of.is_empty() { None } else { Some(of[index % of.len()].clone()) }
    }
}

/// Who is there, as far as the outside knows.
struct Outside {
    cluster: Cluster,
    parser: Parser,
    sids: Vec<(Sid, Revision)>,
    links: Vec<(usize, LinkKey)>,
    sessions: Vec<(usize, SessionKey)>,
    sockets: Vec<(usize, SocketKey)>,
    connecting: Vec<(usize, SocketKey)>,
    /// Requests that have not been replied to, with their session.
    open: BTreeMap<RequestId, (usize, SessionKey)>,
    posts: Vec<(Sid, SessionKey, RequestId)>,
    pids: Vec<String>,
    offsets: Vec<String>,
    answered: BTreeSet<RequestId>,
    tokens: BTreeSet<AckToken>,
    next_token: u64,
    gone: BTreeSet<RequestId>,
}

/// Plays `data`. The first bytes choose the settings.
pub fn shard(data: &[u8]) {
    let mut bytes = Bytes(data);
    let options = bytes.next();
    let parser = if options & 1 == 0 { Parser::Json } else { Parser::Msgpack };
    let config = Config {
        parser,
        recovery: (options & 2 == 0).then(|| Recovery {
            log_bytes_max: if options & 4 == 0 { 2_000 } else { 1 << 20 },
            ..Recovery::default()
        }),
        outbox_bytes_max: if options & 8 == 0 { 2_000 } else { 1 << 20 },
        payload_bytes_max: 2_000,
        deflate_threshold: (options & 16 == 0).then_some(10),
        rooms_per_socket_max: 3,
        namespaces_per_session_max: 2,
        acks_per_socket_max: 3,
        restore_timeout: (options & 64 != 0).then_some(Duration::from_secs(5)),
        ..Config::default()
    };
    let shards = if options & 32 == 0 { 1 } else { 3 };
    let mut outside = Outside {
        cluster: Cluster::new(shards, &config, 1),
        parser,
        sids: Vec::new(),
        links: Vec::new(),
        sessions: Vec::new(),
        sockets: Vec::new(),
        connecting: Vec::new(),
        open: BTreeMap::new(),
        posts: Vec::new(),
        pids: Vec::new(),
        offsets: Vec::new(),
        answered: BTreeSet::new(),
        tokens: BTreeSet::new(),
        next_token: 0,
        gone: BTreeSet::new(),
    };
    for _ in 0..STEPS_MAX {
        if bytes.is_empty() {
            break;
        }
        outside.step(&mut bytes);
        outside.hear();
        outside.cluster.audit().expect("a shard audits clean");
    }
    outside.end();
}

impl Outside {
    fn step(&mut self, bytes: &mut Bytes<'_>) {
        match bytes.next() % 28 {
            0 => {
                let (index, opening) = self.opening(bytes);
                let (request, session) = self.cluster.open_polling(index, opening);
                self.sessions.push((index, session));
                self.open.insert(request, (index, session));
            }
            1 => {
                let (index, opening) = self.opening(bytes);
                let link = self.cluster.open_websocket(index, opening);
                self.links.push((index, link));
                let session = self.cluster.shard(index).session_of(link);
                self.sessions.extend(session.map(|session| (index, session)));
            }
            2 => {
                let Some((sid, revision)) = bytes.pick(&self.sids) else { return };
                let request = self.cluster.get(sid, revision);
                let index = self.cluster.owner(sid);
                self.open.insert(request, (index, self.session_of(sid)));
            }
            3 => {
                let Some((sid, revision)) = bytes.pick(&self.sids) else { return };
                let (request, session) = self.cluster.post_begin(sid, revision);
                let index = self.cluster.owner(sid);
                self.open.insert(request, (index, session.unwrap_or(SessionKey::NONE)));
                self.posts.extend(session.map(|session| (sid, session, request)));
            }
            4 => {
                if self.posts.is_empty() {
                    return;
                }
                let (sid, session, request) = self.posts.remove(bytes.next() % self.posts.len());
                let body = self.body(bytes);
                if self.gone.contains(&request) {
                    return;
                }
                match bytes.next() % 8 {
                    0 => {
                        let index = self.cluster.owner(sid);
                        self.cluster.with(index, |shard, _| shard.handle_post_refused(session, request));
                        self.open.remove(&request);
                    }
                    1 => self.cluster.post_end(sid, session, request, &body, true),
                    _ => self.cluster.post_end(sid, session, request, &body, false),
                }
            }
            5 => {
                let Some((sid, revision)) = bytes.pick(&self.sids) else { return };
                let deflate = bytes.next().is_multiple_of(2);
                if let Ok(link) = self.cluster.upgrade(sid, revision, deflate) {
                    self.links.push((self.cluster.owner(sid), link));
                }
            }
            6..=8 => {
                let Some((index, link)) = bytes.pick(&self.links) else { return };
                let text = self.text(bytes);
                let mut frame = Vec::new();
                ws_proto::encode_frame_masked(&mut frame, OpCode::Text, text.as_bytes(), [0; 4]);
                self.cluster.read(index, link, &mut frame);
            }
            9 => {
                let Some((index, link)) = bytes.pick(&self.links) else { return };
                let data = bytes.slice();
                let mut frame = Vec::new();
                ws_proto::encode_frame_masked(&mut frame, OpCode::Binary, &data, [0; 4]);
                self.cluster.read(index, link, &mut frame);
            }
            10 => {
                let Some((index, link)) = bytes.pick(&self.links) else { return };
                let mut raw = bytes.slice();
                self.cluster.read(index, link, &mut raw);
            }
            11 => {
                let Some((index, link)) = bytes.pick(&self.links) else { return };
                self.cluster.cut(index, link);
            }
            12 => {
                let open: Vec<_> = self.open.iter().map(|(&request, &owner)| (request, owner)).collect();
                let Some((request, (index, session))) = bytes.pick(&open) else { return };
                self.open.remove(&request);
                self.gone.insert(request);
                self.cluster.with(index, |shard, now| shard.handle_request_lost(now, session, request));
            }
            13 => {
                let millis = [1, 100, 5_000, 25_000, 46_000, 125_000][bytes.next() % 6];
                let until = self.cluster.now() + Duration::from_millis(millis);
                self.cluster.advance_to(until);
            }
            14 | 15 => {
                if self.connecting.is_empty() {
                    return;
                }
                let (index, socket) = self.connecting.remove(bytes.next() % self.connecting.len());
                if bytes.next().is_multiple_of(8) {
                    self.cluster.with(index, |shard, _| shard.refuse(socket, "no", None));
                } else if let Some(accepted) = self.cluster.with(index, |shard, _| shard.accept(socket)) {
                    self.sockets.push((index, accepted.socket));
                }
            }
            16 => {
                let Some((index, socket)) = bytes.pick(&self.sockets) else { return };
                let room = bytes.pick(&ROOMS).unwrap_or("");
                let _ = self.cluster.with(index, |shard, _| shard.join(socket, room));
            }
            17 => {
                let Some((index, socket)) = bytes.pick(&self.sockets) else { return };
                let room = bytes.pick(&ROOMS).unwrap_or("");
                self.cluster.with(index, |shard, _| shard.leave(socket, room));
            }
            18 | 19 => {
                let Some((index, socket)) = bytes.pick(&self.sockets) else { return };
                let (flags, ack) = self.flags(bytes);
                let body = self.parser.encode_event_args("e", &One(bytes.next())).expect("a number");
                let outcome =
                    self.cluster.with(index, |shard, now| shard.emit(now, socket, &body, flags, ack));
                if let (Ok(()), Some(ack)) = (outcome, ack) {
                    self.expect_token(ack.token);
                }
            }
            20 | 21 => {
                let index = bytes.next() % self.cluster.len();
                let (flags, ack) = self.flags(bytes);
                let namespace = bytes.pick(&NAMESPACES).unwrap_or("/");
                let mut target = Target { namespace: namespace.into(), ..Target::default() };
                for list in [&mut target.rooms, &mut target.except] {
                    for _ in 0..bytes.next() % 3 {
                        list.push(bytes.pick(&ROOMS).unwrap_or("").into());
                    }
                }
                let body = self.parser.encode_event_args("e", &One(bytes.next())).expect("a number");
                match ack {
                    Some(ack) => {
                        let sent = self
                            .cluster
                            .with(index, |shard, now| shard.broadcast(now, &target, &body, flags, Some(ack)));
                        if sent > 0 {
                            self.expect_token(ack.token);
                        }
                    }
                    None => {
                        self.cluster.broadcast(index, &target, &body, flags);
                    }
                }
            }
            22 => {
                let Some((index, socket)) = bytes.pick(&self.sockets) else { return };
                let body = self.parser.encode_ack_args(&One(1)).expect("a number");
                let id = bytes.next() as u64;
                self.cluster.with(index, |shard, _| shard.answer(socket, id, &body));
            }
            23 => {
                let Some((index, socket)) = bytes.pick(&self.sockets) else { return };
                let close = bytes.next().is_multiple_of(2);
                self.cluster.with(index, |shard, now| shard.disconnect(now, socket, close));
            }
            24 => {
                let Some((index, session)) = bytes.pick(&self.sessions) else { return };
                self.cluster.with(index, |shard, now| shard.close(now, session));
            }
            25 => {
                let Some((index, link)) = bytes.pick(&self.links) else { return };
                let takes = bytes.next();
                self.cluster.set_takes(index, link, if takes == 255 { None } else { Some(takes) });
            }
            26 => {
                let index = bytes.next() % self.cluster.len();
                self.cluster.step(index);
            }
            _ => {
                let (index, count) = (bytes.next() % self.cluster.len(), bytes.next() % 3);
                self.cluster.with(index, |shard, now| shard.drain(now, count));
            }
        }
    }

    fn opening(&self, bytes: &mut Bytes<'_>) -> (usize, Opening) {
        let options = bytes.next();
        let opening = Opening {
            revision: if options & 7 == 7 { Revision::V3 } else { Revision::V4 },
            base64: options & 8 != 0,
            is_javascript: options & 16 == 0,
            deflate: options & 32 != 0,
        };
        (options / 64 % self.cluster.len(), opening)
    }

    fn session_of(&self, sid: Sid) -> SessionKey {
        let index = self.cluster.owner(sid);
        // Whichever session it is, the shard compares the request before it ends one.
        self.sessions
            .iter()
            .rev()
            .find(|(shard, _)| *shard == index)
            .map_or(SessionKey::NONE, |&(_, key)| key)
    }

    fn text(&mut self, bytes: &mut Bytes<'_>) -> String {
        let which = bytes.next();
        if which >= 250 {
            return String::from_utf8_lossy(&bytes.slice()).into_owned();
        }
        if which >= 200 {
            let (pid, offset) = (bytes.pick(&self.pids), bytes.pick(&self.offsets));
            let namespace = if which.is_multiple_of(2) { "" } else { "/a," };
            return match (pid, offset) {
                (Some(pid), Some(offset)) if !which.is_multiple_of(3) => {
                    format!("40{namespace}{{\"pid\":\"{pid}\",\"offset\":\"{offset}\"}}")
                }
                (Some(pid), _) => format!("40{namespace}{{\"pid\":\"{pid}\"}}"),
                (None, _) => format!("40{namespace}"),
            };
        }
        TEXTS[which % TEXTS.len()].to_owned()
    }

    fn body(&mut self, bytes: &mut Bytes<'_>) -> Vec<u8> {
        let count = 1 + bytes.next() % 3;
        let texts: Vec<String> = (0..count).map(|_| self.text(bytes)).collect();
        texts.join("\u{1e}").into_bytes()
    }

    fn flags(&mut self, bytes: &mut Bytes<'_>) -> (Flags, Option<AckRequest>) {
        let options = bytes.next();
        let flags = Flags { volatile: options & 3 == 3, uncompressed: options & 4 != 0, ..Flags::default() };
        let ack = (options & 24 == 24).then(|| {
            self.next_token += 1;
            let timeout = (options & 32 == 0).then_some(Duration::from_secs(5));
            AckRequest { token: AckToken(self.next_token), timeout }
        });
        (flags, ack)
    }

    fn expect_token(&mut self, token: AckToken) {
        self.tokens.insert(token);
    }

    fn hear(&mut self) {
        while let Some((index, heard)) = self.cluster.poll_heard() {
            match heard {
                // Engine.IO alone is not what is configured here.
                Heard::Message { .. } => unreachable!("this shard speaks Socket.IO"),
                Heard::Reply { request, reply } => {
                    assert!(self.answered.insert(request), "{request:?} was replied to twice");
                    self.open.remove(&request);
                    if let Reply::Payload { body, opens, .. } = reply {
                        if let Some((_, sid)) = opens {
                            let is_v3 = body.first().is_some_and(|&first| first != b'0');
                            let revision = if is_v3 { Revision::V3 } else { Revision::V4 };
                            self.sids.push((sid, revision));
                        }
                        self.learn(&body);
                    }
                }
                Heard::Wrote { bytes, .. } => self.learn(&bytes),
                Heard::LinkClosed { link } => self.links.retain(|&other| other != (index, link)),
                Heard::Connect { socket, .. } => self.connecting.push((index, socket)),
                Heard::Ack { token, last, .. } => {
                    if last {
                        self.end_token(token);
                    }
                }
                Heard::AckTimeout { token, .. } | Heard::AckLost { token } => self.end_token(token),
                Heard::Moved { new, .. } => self.sockets.push((index, new)),
                Heard::Restore { socket, pid, order, .. } => {
                    // An application that remembers some, and not always what is right.
                    let body = self.parser.encode_event_args("m", &One(1)).expect("a number can be sent");
                    let restored = Restored {
                        sid: pid,
                        rooms: vec!["a".into(), "b".into(), "a".into(), pid.to_string()],
                        order: order.unwrap_or(7),
                        missed: vec![(3, body.clone()), (4, body)],
                    };
                    let restored = order.is_none_or(|order| order % 3 > 0).then_some(restored);
                    let _ = self
                        .cluster
                        .with(index, |shard, now| shard.handle_restored(now, socket, pid, restored));
                }
                Heard::Event { .. }
                | Heard::Disconnected { .. }
                | Heard::Forgotten { .. }
                | Heard::SessionClosed { .. }
                | Heard::Released { .. }
                | Heard::Taken { .. } => {}
            }
        }
    }

    fn end_token(&mut self, token: AckToken) {
        assert!(self.tokens.remove(&token), "{token:?} ended without being awaited");
    }

    /// Picks up what a peer would remember.
    fn learn(&mut self, bytes: &[u8]) {
        let text = String::from_utf8_lossy(bytes);
        if let Some((_, rest)) = text.split_once("\"pid\":\"") {
            self.pids.push(rest.chars().take(20).collect());
        }
        if let Some((_, rest)) = text.rsplit_once(",\"")
            && let Some((offset, _)) = rest.split_once("\"]")
        {
            self.offsets.push(offset.to_owned());
        }
    }

    fn end(&mut self) {
        for index in 0..self.cluster.len() {
            self.cluster.with(index, Shard::shut_down);
        }
        self.hear();
        for (index, link) in std::mem::take(&mut self.links) {
            self.cluster.cut(index, link);
        }
        for _ in 0..2 {
            self.cluster.pump();
            let until = self.cluster.now() + Duration::from_secs(3_600);
            self.cluster.advance_to(until);
            self.hear();
        }
        assert!(self.open.is_empty(), "requests without a reply: {:?}", self.open);
        assert!(self.tokens.is_empty(), "acks without an end: {:?}", self.tokens);
        for index in 0..self.cluster.len() {
            self.cluster.with(index, Shard::handle_deadline);
            let gauges = self.cluster.shard(index).gauges();
            let held = gauges.sessions
                + gauges.sockets
                + gauges.sockets_lost
                + gauges.rooms
                + gauges.acks_awaited
                + gauges.links
                + gauges.notes
                + gauges.log_events
                + self.cluster.shard(index).namespaces().count();
            assert_eq!(held, 0, "shard {index} still holds {gauges:?}");
        }
        self.cluster.audit().expect("an empty shard audits clean");
    }
}
