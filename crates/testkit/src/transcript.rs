//! Plays a script against a [`Cluster`]: what peers send, what they must get, what the application does and hears.
//! Does not know real clocks. Invariant: whatever reaches a peer must be expected by a line, in order.
//!
//! One line is one step; `#` begins a comment line. Peers are named by a word, sockets by `peer` or `peer/namespace`; the one
//! that a socket was before it was accepted afresh has a prime: `peer'`.
//!
//! ```text
//! a: js shard=1              peer `a` looks like JavaScript and lands on shard 1 (also: v3, b64, deflate, sid=b)
//! a > GET                    a GET; the first one opens a session
//! a > POST 40                a POST (␞ stands for U+001E); also POST-BEGIN, POST-END, POST-OCTETS hex, POST-BIG
//! a > WS                     a WebSocket: opens a session, or upgrades the one there is
//! a > 42["x"]                a text frame; `x0102` a binary one; `RAW hex` bytes; `PING hi`; `CLOSE 1000`
//! a > CUT                    the link is gone; `CUT GET`, `CUT POST`: that request's
//! a > STALL 10               the network takes 10 more bytes; `FLOW`: any number
//! a > NEW                    forgets its session, to open another; ids and offset are kept
//! a < GET 200 4x             what must come next for `a`; `*` stands for anything, `$sid`, `$pid`, `$offset` (or
//!                            `$b.sid` …) for what the peer was last given
//! ! emit a tick [1] ack=7 timeout=5s      the application (also: order=7, replay=7): emit, cast, join, leave, answer, accept, afresh, refuse,
//!                            disconnect, close, shutdown, drain, restore; `yield a`: another node takes a over; `detour a`:
//!                            the node stops that carries its GET; for mail: hold, step, release; and the whole process: `crash 2`, to come back with two
//!                            shards, `crash 2 5`: as node 5
//! ? event a tick [1]         what the application must have heard since the last such line
//! = sessions 1               a gauge of all shards together; `= rooms-of a r1,r2`; `= counter name 3`
//! @ +25s                     time passes; `@@ +25s`: it jumps, and no deadline is handled
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;

use eio_proto::{Revision, Sid};
use engine_core::{
    Accepted, Config, LinkKey, Moment, Opening, Reply, RequestId, Restored, SessionKey, Shard, SocketKey,
    Target,
};
use serde_json::Value;
use sio_proto::{Many, Parser};
use ws_proto::{Decoder, Inflater, Message, OpCode, Role, Rules, Step};

use crate::cluster::{Cluster, Heard};

mod words;

use words::{Said, hex, matches, parse_args, parse_duration, parse_hex};

/// Plays `script` against one shard with `config`.
///
/// # Panics
/// At the first line that is not as written, with its number; and if something reached a peer that no line expected.
pub fn check(config: Config, script: &str) {
    check_on(1, config, script);
}

/// Plays `script` against `shards` shards with `config`.
///
/// # Panics
/// As [`check`].
pub fn check_on(shards: usize, config: Config, script: &str) {
    let mut stage = Stage::new(shards, config);
    for (index, line) in script.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let outcome = stage.play(line).and_then(|()| stage.cluster.audit());
        if let Err(problem) = outcome {
            panic!("line {}: {line}\n  {problem}\n{}", index + 1, stage.describe());
        }
    }
    if let Some((name, peer)) = stage.peers.iter().find(|(_, peer)| !peer.seen.is_empty()) {
        panic!("at the end: {name} got what no line expected: {:?}", peer.seen);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Get,
    Post,
}

struct Peer {
    shard: usize,
    revision: Revision,
    is_javascript: bool,
    base64: bool,
    deflate: bool,
    sid: Option<Sid>,
    session: Option<SessionKey>,
    link: Option<LinkKey>,
    decoder: Decoder,
    unread: Vec<u8>,
    get: Option<RequestId>,
    post: Option<(RequestId, Option<SessionKey>)>,
    given: BTreeMap<&'static str, String>,
    seen: VecDeque<String>,
}

struct Stage {
    cluster: Cluster,
    parser: Parser,
    peers: BTreeMap<String, Peer>,
    requests: BTreeMap<RequestId, (String, Kind)>,
    links: BTreeMap<(usize, LinkKey), String>,
    sockets: BTreeMap<String, (usize, SocketKey)>,
    names: BTreeMap<(usize, SocketKey), String>,
    notes: VecDeque<String>,
    /// Sockets that the application is asked for, by peer.
    restoring: BTreeMap<String, (usize, SocketKey, Sid)>,
    config: Config,
    crashes: u64,
    is_held: bool,
    inflater: Inflater,
    /// The last peer that a line named: whose `$sid` the application means.
    speaker: String,
}

type Outcome = Result<(), String>;

impl Stage {
    fn new(shards: usize, config: Config) -> Self {
        Self {
            parser: config.parser,
            restoring: BTreeMap::new(),
            crashes: 0,
            cluster: Cluster::new(shards, &config, 7),
            peers: BTreeMap::new(),
            requests: BTreeMap::new(),
            links: BTreeMap::new(),
            sockets: BTreeMap::new(),
            names: BTreeMap::new(),
            notes: VecDeque::new(),
            config,
            is_held: false,
            inflater: Inflater::default(),
            speaker: String::new(),
        }
    }

    fn describe(&self) -> String {
        let mut text = format!("  now {}\n", self.cluster.now());
        for (name, peer) in &self.peers {
            let _ = writeln!(text, "  {name} got: {:?}", peer.seen);
        }
        let _ = writeln!(text, "  application heard: {:?}", self.notes);
        text
    }

    fn play(&mut self, line: &str) -> Outcome {
        let (first, rest) = line.split_once(' ').unwrap_or((line, ""));
        let rest = rest.trim();
        match first {
            "@" => self.pass(rest)?,
            "@@" => {
                let by = parse_duration(rest.trim_start_matches('+'))?;
                self.cluster.set_now(self.cluster.now() + by);
            }
            "!" => self.command(rest)?,
            "?" => return self.expect_note(rest),
            "=" => return self.expect_state(rest),
            name if name.ends_with(':') => self.describe_peer(name.trim_end_matches(':'), rest)?,
            name => {
                self.speaker = name.to_owned();
                let (direction, what) = rest.split_once(' ').unwrap_or((rest, ""));
                match direction {
                    ">" => self.peer_does(name, what)?,
                    "<" => return self.expect_seen(name, what),
                    other => return Err(format!("`{other}` is neither > nor <")),
                }
            }
        }
        self.settle();
        Ok(())
    }

    fn pass(&mut self, text: &str) -> Outcome {
        let by = parse_duration(text.trim_start_matches('+'))?;
        let until = self.cluster.now() + by;
        while let Some(at) = self.cluster.poll_deadline().filter(|&at| at <= until) {
            let at = at.max(self.cluster.now());
            self.cluster.set_now(at);
            self.cluster.handle_deadlines();
            self.settle();
        }
        self.cluster.set_now(until.max(self.cluster.now()));
        Ok(())
    }

    fn peer(&mut self, name: &str) -> &mut Peer {
        self.peers.entry(name.to_owned()).or_insert_with(|| Peer {
            shard: 0,
            revision: Revision::V4,
            is_javascript: false,
            base64: false,
            deflate: false,
            sid: None,
            session: None,
            link: None,
            decoder: Decoder::default(),
            unread: Vec::new(),
            get: None,
            post: None,
            given: BTreeMap::new(),
            seen: VecDeque::new(),
        })
    }

    fn describe_peer(&mut self, name: &str, traits: &str) -> Outcome {
        let other = traits.split_whitespace().find_map(|word| word.strip_prefix("sid="));
        let known = other.and_then(|name| self.peers.get(name)).map(|peer| (peer.sid, peer.session));
        let peer = self.peer(name);
        for word in traits.split_whitespace() {
            match word.split_once('=') {
                None if word == "js" => peer.is_javascript = true,
                None if word == "v3" => peer.revision = Revision::V3,
                None if word == "b64" => peer.base64 = true,
                None if word == "deflate" => peer.deflate = true,
                Some(("shard", index)) => peer.shard = index.parse().map_err(|_| "shard=number")?,
                Some(("sid", _)) => {
                    (peer.sid, peer.session) = known.ok_or("sid= names an earlier peer")?;
                }
                _ => return Err(format!("unknown trait {word}")),
            }
        }
        Ok(())
    }

    fn peer_does(&mut self, name: &str, what: &str) -> Outcome {
        let what = self.fill(name, what)?;
        let (verb, rest) = what.split_once(' ').unwrap_or((&what, ""));
        let peer = self.peer(name);
        let (shard, revision, sid) = (peer.shard, peer.revision, peer.sid);
        let opening = Opening {
            revision,
            base64: peer.base64,
            is_javascript: peer.is_javascript,
            deflate: peer.deflate,
        };
        match verb {
            "GET" => {
                let request = match sid {
                    None => {
                        let (request, session) = self.cluster.open_polling(shard, opening);
                        self.peer(name).session = Some(session);
                        request
                    }
                    Some(sid) => self.cluster.get(sid, revision),
                };
                self.peer(name).get = Some(request);
                self.requests.insert(request, (name.to_owned(), Kind::Get));
            }
            "POST" | "POST-OCTETS" | "POST-BEGIN" => {
                let sid = sid.ok_or("no session")?;
                let (request, session) = self.cluster.post_begin(sid, revision);
                self.requests.insert(request, (name.to_owned(), Kind::Post));
                self.peer(name).post = Some((request, session));
                if verb != "POST-BEGIN" {
                    self.end_post(name, rest, verb == "POST-OCTETS")?;
                }
            }
            "POST-END" => self.end_post(name, rest, false)?,
            "POST-BIG" => {
                let sid = sid.ok_or("no session")?;
                let (request, session) = self.cluster.post_begin(sid, revision);
                self.requests.insert(request, (name.to_owned(), Kind::Post));
                let session = session.ok_or("refused")?;
                let index = self.cluster.owner(sid);
                self.cluster.with(index, |shard, _| shard.handle_post_refused(session, request));
            }
            "WS" => self.open_link(name, opening)?,
            "CUT" => self.cut(name, rest)?,
            "NEW" => {
                self.unlink(name);
                let peer = self.peer(name);
                (peer.sid, peer.session, peer.get, peer.post) = (None, None, None, None);
            }
            "STALL" | "FLOW" => {
                let link = peer.link.ok_or("no link")?;
                let takes = if verb == "FLOW" { None } else { Some(rest.parse().unwrap_or(0)) };
                let index = self.link_shard(name);
                self.cluster.set_takes(index, link, takes);
            }
            _ => {
                let link = peer.link.ok_or("no link")?;
                let key = [0x11, 0x22, 0x33, 0x44];
                let mut bytes = Vec::new();
                match verb {
                    "RAW" => bytes = parse_hex(rest)?,
                    "PING" => {
                        ws_proto::encode_frame_masked(&mut bytes, OpCode::Ping, rest.as_bytes(), key);
                    }
                    "CLOSE" => {
                        let code = rest.parse().ok().map(ws_proto::CloseCode);
                        ws_proto::encode_close_masked(&mut bytes, code, "", key);
                    }
                    _ if what.starts_with('x') => {
                        let data = parse_hex(&what[1..])?;
                        ws_proto::encode_frame_masked(&mut bytes, OpCode::Binary, &data, key);
                    }
                    // Several packets in one read.
                    _ => {
                        for packet in what.split('␤') {
                            ws_proto::encode_frame_masked(&mut bytes, OpCode::Text, packet.as_bytes(), key);
                        }
                    }
                }
                let index = self.link_shard(name);
                self.cluster.read(index, link, &mut bytes);
            }
        }
        Ok(())
    }

    fn end_post(&mut self, name: &str, body: &str, is_octets: bool) -> Outcome {
        let peer = self.peer(name);
        let sid = peer.sid.ok_or("no session")?;
        let (request, session) = peer.post.take().ok_or("no POST underway")?;
        let Some(session) = session else { return Ok(()) };
        let body = if is_octets { parse_hex(body)? } else { body.replace('␞', "\u{1e}").into_bytes() };
        self.cluster.post_end(sid, session, request, &body, is_octets);
        Ok(())
    }

    fn open_link(&mut self, name: &str, opening: Opening) -> Outcome {
        let peer = self.peer(name);
        let (shard, sid) = (peer.shard, peer.sid);
        peer.decoder = Decoder::default();
        peer.unread.clear();
        let (index, link) = match sid {
            None => (shard, self.cluster.open_websocket(shard, opening)),
            Some(sid) => match self.cluster.upgrade(sid, opening.revision, opening.deflate) {
                Ok(link) => (self.cluster.owner(sid), link),
                Err(fault) => {
                    let body = String::from_utf8_lossy(fault.body()).into_owned();
                    self.peer(name).seen.push_back(format!("WS {} {body}", fault.http_status()));
                    return Ok(());
                }
            },
        };
        let session = self.cluster.shard(index).session_of(link);
        let peer = self.peer(name);
        peer.link = Some(link);
        if sid.is_none() {
            peer.session = session;
        }
        self.links.insert((index, link), name.to_owned());
        Ok(())
    }

    fn link_shard(&self, name: &str) -> usize {
        let link = self.peers[name].link;
        self.links
            .iter()
            .find(|((_, key), owner)| *owner == name && Some(*key) == link)
            .map_or(self.peers[name].shard, |((index, _), _)| *index)
    }

    fn cut(&mut self, name: &str, what: &str) -> Outcome {
        let index = self.link_shard(name);
        let peer = self.peer(name);
        let request = match what {
            "GET" => peer.get,
            "POST" => peer.post.take().map(|(request, _)| request),
            _ => {
                let link = peer.link.take().ok_or("no link")?;
                self.cluster.cut(index, link);
                return Ok(());
            }
        };
        let (request, session) = (request.ok_or("no such request")?, peer.session.ok_or("no session")?);
        let sid = peer.sid.ok_or("no session")?;
        let index = self.cluster.owner(sid);
        self.cluster.with(index, |shard, now| shard.handle_request_lost(now, session, request));
        Ok(())
    }

    /// The peer drops its link without the shard hearing of it.
    fn unlink(&mut self, name: &str) {
        self.links.retain(|_, owner| owner != name);
        self.peer(name).link = None;
    }

    fn command(&mut self, text: &str) -> Outcome {
        let text = self.fill("", text)?;
        let (verb, rest) = text.split_once(' ').unwrap_or((&text, ""));
        let (first, tail) = rest.split_once(' ').unwrap_or((rest, ""));
        match verb {
            "hold" => self.is_held = true,
            "release" => self.is_held = false,
            "step" => {
                let index = first.parse().map_err(|_| "step shard")?;
                if !self.cluster.step(index) {
                    return Err("no mail".into());
                }
            }
            "emit" => {
                let (index, socket) = self.socket(first)?;
                let said = Said::parse(self.parser, tail)?;
                let outcome = self
                    .cluster
                    .with(index, |shard, now| shard.emit(now, socket, &said.body, said.flags, said.ack));
                if let Err(fault) = outcome {
                    self.notes.push_back(format!("fault {fault}"));
                }
            }
            "cast" => {
                let (at, first) = first.split_once(':').unwrap_or(("0", first));
                let index = at.parse().map_err(|_| "cast [shard:]/namespace")?;
                let mut target = Target { namespace: first.into(), ..Target::default() };
                let mut tail = tail;
                while let Some((word, rest)) = tail.split_once(' ') {
                    let names = |list: &str| list.split(',').map(Into::into).collect();
                    match word.split_once('=') {
                        Some(("to", list)) => target.rooms = names(list),
                        Some(("except", list)) => target.except = names(list),
                        _ => break,
                    }
                    tail = rest;
                }
                let said = Said::parse(self.parser, tail)?;
                let sent = match said.ack {
                    Some(ack) => self.cluster.with(index, |shard, now| {
                        shard.broadcast(now, &target, &said.body, said.flags, Some(ack))
                    }),
                    None => self.cluster.broadcast(index, &target, &said.body, said.flags),
                };
                self.notes.push_back(format!("sent {sent}"));
            }
            "join" => {
                let (index, socket) = self.socket(first)?;
                let outcome = self.cluster.with(index, |shard, _| shard.join(socket, tail));
                self.notes.push_back(match outcome {
                    Ok(joined) => format!("joined {joined}"),
                    Err(fault) => format!("fault {fault}"),
                });
            }
            "leave" => {
                let (index, socket) = self.socket(first)?;
                let left = self.cluster.with(index, |shard, _| shard.leave(socket, tail));
                self.notes.push_back(format!("left {left}"));
            }
            "answer" => {
                let (index, socket) = self.socket(first)?;
                let (id, args) = tail.split_once(' ').unwrap_or((tail, "[]"));
                let id = id.parse().map_err(|_| "answer socket id [args]")?;
                let args = parse_args(args)?;
                let body = self.parser.encode_ack_args(&Many(args)).map_err(|fault| fault.to_string())?;
                self.cluster.with(index, |shard, _| shard.answer(socket, id, &body));
            }
            "accept" => {
                let (index, socket) = self.socket(first)?;
                self.accept(index, socket);
            }
            "afresh" => {
                let (index, socket) = self.socket(first)?;
                self.accept_with(index, socket, Shard::accept_afresh);
            }
            "refuse" => {
                let (index, socket) = self.socket(first)?;
                let (message, data) = tail.split_once(" {").map_or((tail, None), |(message, data)| {
                    (message, serde_json::from_str(&format!("{{{data}")).ok())
                });
                let data: Option<Value> = data;
                self.cluster.with(index, |shard, _| shard.refuse(socket, message, data.as_ref()));
            }
            "disconnect" => {
                let (index, socket) = self.socket(first)?;
                self.cluster.with(index, |shard, now| shard.disconnect(now, socket, tail == "close"));
            }
            "close" => {
                let peer = self.peers.get(first).ok_or("no such peer")?;
                let (index, session) = (peer.shard, peer.session.ok_or("no session")?);
                self.cluster.with(index, |shard, now| shard.close(now, session));
            }
            "restore" => self.restore(first, tail)?,
            "crash" => {
                let shards = first.parse().map_err(|_| "crash shards")?;
                let node = if tail.is_empty() { 0 } else { tail.parse().map_err(|_| "crash shards node")? };
                self.crashes += 1;
                self.cluster.crash(node, shards, &self.config, 1_000 + self.crashes);
                self.links.clear();
                self.sockets.clear();
                self.names.clear();
                self.requests.clear();
                self.notes.push_back("crashed".into());
            }
            "yield" => {
                let pid = self.peers.get(first).and_then(|peer| peer.given.get("pid"));
                let pid = pid.and_then(|pid| Sid::parse(pid)).ok_or("it has no pid")?;
                self.cluster.release(pid);
            }
            "detour" => {
                let peer = self.peers.get(first).ok_or("no such peer")?;
                let (index, sid) = (peer.shard, peer.sid.ok_or("no session")?);
                self.cluster.with(index, |shard, _| shard.handle_poll_ending(sid));
            }
            "shutdown" => {
                for index in 0..self.cluster.len() {
                    self.cluster.with(index, Shard::shut_down);
                }
            }
            "drain" => {
                let count = first.parse().map_err(|_| "drain count")?;
                let left = self.cluster.with(0, |shard, now| shard.drain(now, count));
                self.notes.push_back(format!("left {left}"));
            }
            other => return Err(format!("unknown command {other}")),
        }
        Ok(())
    }

    /// `! restore a no`, or `! restore a sid=… order=7 rooms=r,s 5:m 6:m`: missed events are a number and a name each.
    fn restore(&mut self, name: &str, words: &str) -> Outcome {
        let &(index, socket, pid) = self.restoring.get(name).ok_or("nobody asked for it")?;
        let mut restored = Restored { sid: pid, rooms: Vec::new(), order: 0, missed: Vec::new() };
        for word in words.split_whitespace().filter(|word| *word != "no") {
            match (word.split_once('='), word.split_once(':')) {
                (Some(("sid", sid)), _) => restored.sid = Sid::parse(sid).ok_or("sid=id")?,
                (Some(("order", number)), _) => {
                    restored.order = number.parse().map_err(|_| "order=number")?
                }
                (Some(("rooms", list)), _) => restored.rooms = list.split(',').map(Into::into).collect(),
                (None, Some((number, event))) => {
                    let number: u64 = number.parse().map_err(|_| "number:event")?;
                    let body = self.parser.encode_event_args(event, &Many([number]));
                    restored.missed.push((number, body.map_err(|fault| fault.to_string())?));
                }
                _ => return Err(format!("cannot restore {word}")),
            }
        }
        let restored = (words != "no").then_some(restored);
        let outcome =
            self.cluster.with(index, |shard, now| shard.handle_restored(now, socket, pid, restored));
        if let Err(fault) = outcome {
            self.notes.push_back(format!("fault {fault}"));
        }
        Ok(())
    }

    fn socket(&self, name: &str) -> Result<(usize, SocketKey), String> {
        self.sockets.get(name).copied().ok_or_else(|| format!("no socket {name}"))
    }

    fn accept(&mut self, index: usize, socket: SocketKey) {
        self.accept_with(index, socket, Shard::accept);
    }

    fn accept_with(
        &mut self,
        index: usize,
        socket: SocketKey,
        accept: impl FnOnce(&mut Shard, SocketKey) -> Option<Accepted>,
    ) {
        let name = self.name_of(index, socket);
        let accepted = self.cluster.with(index, |shard, _| accept(shard, socket));
        if let Some(accepted) = &accepted
            && accepted.socket != socket
        {
            // What handlers still have of the one before it has its name and a prime.
            self.sockets.insert(format!("{name}'"), (index, socket));
            self.names.insert((index, socket), format!("{name}'"));
            self.sockets.insert(name.clone(), (index, accepted.socket));
            self.names.insert((index, accepted.socket), name.clone());
        }
        self.notes.push_back(match accepted {
            None => format!("gone {name}"),
            Some(accepted) if accepted.recovered => format!("recovered {name}"),
            Some(_) => format!("accepted {name}"),
        });
    }

    fn name_of(&self, index: usize, socket: SocketKey) -> String {
        self.names.get(&(index, socket)).cloned().unwrap_or_else(|| "?".into())
    }

    /// Handles what came out of the shards until nothing does, and delivers mail unless it is held.
    fn settle(&mut self) {
        loop {
            while let Some((index, heard)) = self.cluster.poll_heard() {
                self.hear(index, heard);
            }
            let Some(index) = (0..self.cluster.len()).find(|&index| self.cluster.has_mail(index)) else {
                break;
            };
            if self.is_held {
                break;
            }
            self.cluster.step(index);
        }
    }

    fn hear(&mut self, index: usize, heard: Heard) {
        match heard {
            Heard::Reply { request, reply } => self.hear_reply(request, reply),
            Heard::Message { data, is_binary, .. } => {
                let kind = if is_binary { "binary" } else { "text" };
                self.notes.push_back(format!("message {kind} {}", String::from_utf8_lossy(&data)));
            }
            Heard::Wrote { link, bytes } => self.hear_bytes(index, link, &bytes),
            Heard::LinkClosed { link } => {
                if let Some(name) = self.links.remove(&(index, link)) {
                    let peer = self.peer(&name);
                    peer.seen.push_back("END".into());
                    peer.link = peer.link.filter(|&current| current != link);
                }
            }
            Heard::Connect { socket, session, namespace, auth, recovering } => {
                let name = self
                    .peers
                    .iter()
                    .find(|(_, peer)| peer.shard == index && peer.session == Some(session))
                    .map_or_else(|| "?".to_owned(), |(name, _)| name.clone());
                let name = if namespace == "/" { name } else { format!("{name}{namespace}") };
                self.sockets.insert(name.clone(), (index, socket));
                self.names.insert((index, socket), name.clone());
                let auth = auth.map_or(String::new(), |auth| format!(" {}", String::from_utf8_lossy(&auth)));
                let recovering_note = if recovering { " recovering" } else { "" };
                self.notes.push_back(format!("connect {name}{auth}{recovering_note}"));
                if namespace.starts_with("/later") {
                    return;
                }
                if namespace.starts_with("/nope") {
                    self.cluster.with(index, |shard, _| shard.refuse(socket, "Invalid namespace", None));
                    return;
                }
                self.accept(index, socket);
            }
            Heard::Restore { socket, session, namespace, pid, order, auth } => {
                let name = self
                    .peers
                    .iter()
                    .find(|(_, peer)| peer.shard == index && peer.session == Some(session))
                    .map_or_else(|| "?".to_owned(), |(name, _)| name.clone());
                let name = if namespace == "/" { name } else { format!("{name}{namespace}") };
                self.restoring.insert(name.clone(), (index, socket, pid));
                self.names.insert((index, socket), name.clone());
                let order = order.map_or(String::new(), |order| format!(" {order}"));
                let auth = auth.map_or(String::new(), |auth| format!(" {}", String::from_utf8_lossy(&auth)));
                self.notes.push_back(format!("restore {name}{order}{auth}"));
            }
            Heard::Event { socket, name, elements, count, attachments, ack_id } => {
                let args = match sio_proto::to_value(self.parser, &elements, count, &attachments) {
                    Ok(args) => Value::from(args).to_string(),
                    Err(fault) => fault.to_string(),
                };
                let ack = ack_id.map_or(String::new(), |id| format!(" ack={id}"));
                let from = self.name_of(index, socket);
                self.notes.push_back(format!("event {from} {name} {args}{ack}"));
            }
            Heard::Ack { token, socket, elements, attachments, last } => {
                let from = self.name_of(index, socket);
                let last = if last { " last" } else { "" };
                let args = match self.parser {
                    Parser::Json => String::from_utf8_lossy(&elements).into_owned(),
                    Parser::Msgpack => hex(&elements),
                };
                let more: String = attachments.iter().map(|data| format!(" x{}", hex(data))).collect();
                self.notes.push_back(format!("ack {} {from} [{args}]{more}{last}", token.0));
            }
            Heard::AckTimeout { token, missing } => {
                let mut missing: Vec<_> = missing.iter().map(|&key| self.name_of(index, key)).collect();
                missing.sort_unstable();
                self.notes.push_back(format!("timeout {} {}", token.0, missing.join(",")));
            }
            Heard::AckLost { token } => self.notes.push_back(format!("acklost {}", token.0)),
            Heard::Disconnected { socket, reason, rooms, is_recoverable } => {
                let name = self.name_of(index, socket);
                let rooms =
                    if rooms.is_empty() { String::new() } else { format!(" rooms={}", rooms.join(",")) };
                let recoverable = if is_recoverable { " recoverable" } else { "" };
                self.notes.push_back(format!("disconnected {name} {reason}{rooms}{recoverable}"));
            }
            Heard::Forgotten { socket } => {
                let name = self.name_of(index, socket);
                self.notes.push_back(format!("forgotten {name}"));
            }
            Heard::SessionClosed { session, reason } => {
                let name = self
                    .peers
                    .iter()
                    .find(|(_, peer)| peer.shard == index && peer.session == Some(session))
                    .map_or_else(|| "?".to_owned(), |(name, _)| name.clone());
                self.notes.push_back(format!("closed {name} {reason}"));
            }
            Heard::Released { outcome, .. } => {
                self.notes.push_back(format!("released {outcome:?}").to_lowercase())
            }
            Heard::Taken { .. } => {}
            Heard::Moved { from, old, new } => {
                if let Some(name) = self.names.get(&(from, old)).cloned() {
                    self.names.insert((index, new), name.clone());
                    self.sockets.insert(name, (index, new));
                }
            }
        }
    }

    fn hear_reply(&mut self, request: RequestId, reply: Reply) {
        let (name, kind) = self.requests.remove(&request).expect("a request is replied to once");
        let verb = if kind == Kind::Get { "GET" } else { "POST" };
        let peer = self.peer(&name);
        if kind == Kind::Get {
            peer.get = peer.get.filter(|&open| open != request);
        }
        let line = match reply {
            Reply::Ok => format!("{verb} 200 ok"),
            Reply::BadRequest => format!("{verb} 400"),
            Reply::Refused(fault) => {
                format!("{verb} {} {}", fault.http_status(), String::from_utf8_lossy(fault.body()))
            }
            Reply::Payload { body, is_octets: true, .. } => format!("{verb} 200 octets {}", hex(&body)),
            Reply::Payload { body, .. } => {
                let body = String::from_utf8(body).expect("a text body is text");
                for packet in body.split('\u{1e}') {
                    let packet = packet.split_once(':').map_or(packet, |(length, rest)| {
                        if length.bytes().all(|digit| digit.is_ascii_digit()) { rest } else { packet }
                    });
                    self.note_given(&name, packet);
                }
                format!("{verb} 200 {}", body.replace('\u{1e}', "␞"))
            }
        };
        self.peer(&name).seen.push_back(line);
    }

    fn hear_bytes(&mut self, index: usize, link: LinkKey, bytes: &[u8]) {
        let Some(name) = self.links.get(&(index, link)).cloned() else { return };
        let rules = Rules { role: Role::Client, message_bytes_max: 100_000_000, ..Rules::default() };
        let peer = self.peer(&name);
        peer.unread.extend_from_slice(bytes);
        let (mut unread, mut decoder) = (std::mem::take(&mut peer.unread), std::mem::take(&mut peer.decoder));
        let deflate = peer.deflate;
        let mut inflater = std::mem::take(&mut self.inflater);
        let mut lines = Vec::new();
        let mut start = 0;
        loop {
            let inflater = deflate.then_some(&mut inflater);
            let is_deflated = unread.get(start).is_some_and(|first| first & 0x40 != 0);
            let mark = if is_deflated { "deflated " } else { "" };
            match decoder.decode(&mut unread[start..], &rules, inflater).expect("the shard writes frames") {
                Step::Incomplete { .. } => break,
                Step::Frame { used, message } => {
                    start += used;
                    lines.push(match message.expect("the shard does not fragment") {
                        Message::Text(text) => format!("{mark}{text}"),
                        Message::Binary(data) => format!("{mark}x{}", hex(data)),
                        Message::Ping(data) => format!("PING {}", String::from_utf8_lossy(data)),
                        Message::Pong(data) => {
                            format!("PONG {}", String::from_utf8_lossy(data)).trim_end().to_owned()
                        }
                        Message::Close(None, _) => "CLOSE".into(),
                        Message::Close(Some(code), _) => format!("CLOSE {code}"),
                    });
                }
            }
        }
        unread.drain(..start);
        self.inflater = inflater;
        for line in &lines {
            self.note_given(&name, line);
        }
        let peer = self.peer(&name);
        (peer.unread, peer.decoder) = (unread, decoder);
        peer.seen.extend(lines);
    }

    /// Remembers ids and offsets as the peer would.
    fn note_given(&mut self, name: &str, packet: &str) {
        let packet = packet.trim_start_matches("deflated ");
        let Some(start) = packet.find(['{', '[']) else { return };
        let Ok(json) = serde_json::from_str::<Value>(&packet[start..]) else { return };
        let peer = self.peer(name);
        if packet.starts_with('0') {
            peer.sid = json["sid"].as_str().and_then(Sid::parse);
        } else if packet.starts_with("40") {
            for key in ["sid", "pid"] {
                if let Some(value) = json[key].as_str() {
                    peer.given.insert(key, value.to_owned());
                }
            }
        } else if (packet.starts_with("42") || packet.starts_with("45"))
            && !packet[..start].ends_with(|last: char| last.is_ascii_digit() && start > 2)
            && let Some(offset) = json.as_array().and_then(|args| args.last()).and_then(Value::as_str)
            && peer.given.contains_key("pid")
        {
            peer.given.insert("offset", offset.to_owned());
        }
    }

    /// Puts what peers were given in place of `$sid`, `$pid`, `$offset`, `$eio`, and `$peer.sid` and so on.
    fn fill(&self, name: &str, text: &str) -> Result<String, String> {
        let mut filled = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            filled.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            let len = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '.').unwrap_or(rest.len());
            let word = &rest[..len];
            rest = &rest[len..];
            let (owner, key) = word.split_once('.').unwrap_or((name, word));
            if !["eio", "sid", "pid", "offset"].contains(&key) {
                filled.push('$');
                filled.push_str(word);
                continue;
            }
            let owner = if owner.is_empty() { self.speaker.as_str() } else { owner };
            let peer = self.peers.get(owner).ok_or_else(|| format!("no peer {owner}"))?;
            match key {
                "eio" => filled.push_str(&peer.sid.map_or(String::new(), |sid| sid.to_string())),
                key => filled.push_str(peer.given.get(key).ok_or_else(|| format!("{owner} has no {key}"))?),
            }
        }
        filled.push_str(rest);
        Ok(filled)
    }

    fn expect_seen(&mut self, name: &str, pattern: &str) -> Outcome {
        let pattern = self.fill(name, pattern)?;
        let seen = self.peer(name).seen.pop_front();
        match seen {
            Some(line) if matches(&pattern, &line) => Ok(()),
            Some(line) => Err(format!("{name} got: {line}")),
            None => Err(format!("{name} got nothing")),
        }
    }

    fn expect_note(&mut self, pattern: &str) -> Outcome {
        let pattern = self.fill("", pattern)?;
        if let Some(unwanted) = pattern.strip_prefix("not ") {
            return match self.notes.iter().find(|note| matches(unwanted, note)) {
                None => Ok(()),
                Some(note) => Err(format!("heard: {note}")),
            };
        }
        let mut passed = Vec::new();
        while let Some(note) = self.notes.pop_front() {
            if matches(&pattern, &note) {
                return Ok(());
            }
            passed.push(note);
        }
        Err(format!("heard only: {passed:?}"))
    }

    fn expect_state(&mut self, text: &str) -> Outcome {
        let (what, rest) = text.split_once(' ').unwrap_or((text, ""));
        let shards = (0..self.cluster.len()).map(|index| self.cluster.shard(index));
        let total = |read: fn(&Shard) -> usize| shards.clone().map(read).sum::<usize>();
        let (found, wanted) = match what {
            "rooms-of" => {
                let (name, list) = rest.split_once(' ').unwrap_or((rest, ""));
                let (index, socket) = self.socket(name)?;
                let mut rooms: Vec<String> =
                    self.cluster.shard(index).rooms_of(socket).iter().map(ToString::to_string).collect();
                rooms.sort_unstable();
                (rooms.join(","), list)
            }
            "counter" => {
                let (name, wanted) = rest.split_once(' ').ok_or("counter name value")?;
                let found: u64 = shards
                    .clone()
                    .flat_map(|shard| shard.counters().named())
                    .filter(|&(counter, _)| counter == name)
                    .map(|(_, value)| value)
                    .sum();
                (found.to_string(), wanted)
            }
            "sessions" => (total(|shard| shard.gauges().sessions).to_string(), rest),
            "websockets" => (total(|shard| shard.gauges().sessions_websocket).to_string(), rest),
            "sockets" => (total(|shard| shard.gauges().sockets).to_string(), rest),
            "notes" => (total(|shard| shard.gauges().notes).to_string(), rest),
            "lost" => (total(|shard| shard.gauges().sockets_lost).to_string(), rest),
            "rooms" => (total(|shard| shard.gauges().rooms).to_string(), rest),
            "acks" => (total(|shard| shard.gauges().acks_awaited).to_string(), rest),
            "namespaces" => (total(|shard| shard.namespaces().count()).to_string(), rest),
            other => return Err(format!("unknown gauge {other}")),
        };
        if found == wanted { Ok(()) } else { Err(format!("it is {found}")) }
    }
}

/// A moment that many milliseconds after the start.
#[must_use]
pub fn at(millis: u64) -> Moment {
    Moment::from_millis(millis)
}
