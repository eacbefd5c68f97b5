//! The yardstick: the server that does the least that the fixture's events allow.
//!
//! It finds its way by byte patterns instead of a parser, keeps nothing but memberships, and pays one `send(2)` for each
//! delivery; `--batched` joins what one read causes. Long-polling has a queue for each session besides, in
//! `floor/polling.rs`. It trusts its clients, does not time them out, and is no server for anything else.

mod polling;

use std::collections::HashMap;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use crate::args::FloorArgs;
use crate::reactor::{Driver, Ending, Reactor};
use crate::usage;
use crate::wire::{self, Fault, Opcode, Writer};

/// Time between two pings to a connection, the default of Socket.IO servers.
const PING_INTERVAL: Duration = Duration::from_secs(25);
/// Places of the heartbeat wheel: 100 ms each.
const WHEEL_PLACES: usize = 250;
/// What may wait for a peer that does not read before it is cut, in bytes.
const UNSENT_BYTES_MAX: usize = 64 << 20;

/// Marks a member that is a long-polling session, not a connection.
const POLLING: u32 = 1 << 31;

/// What a connection is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Kind {
    #[default]
    Http,
    WebSocket,
    /// A poll of this session waits for something to say.
    Parked(u32),
}

/// One connection. Small: the floor also stands for the least memory.
#[derive(Default)]
struct Peer {
    /// Counts the slot's tenants, for the heartbeat wheel.
    generation: u32,
    kind: Kind,
    #[expect(clippy::box_collection, reason = "8 bytes instead of 24 in every connection without a room")]
    rooms: Option<Box<Vec<u32>>>,
}

#[derive(Default)]
struct Room {
    members: Vec<u32>,
    /// Frames made in this read and not yet sent; only when batched.
    batch: Vec<u8>,
}

/// The floor.
struct Floor {
    is_batched: bool,
    drop_every: Option<u64>,
    peers: Vec<Peer>,
    sessions: polling::Sessions,
    names: HashMap<Box<[u8]>, u32>,
    rooms: Vec<Room>,
    dirty: Vec<u32>,
    wheel: Vec<Vec<(u32, u32)>>,
    place: usize,
    sids: u64,
    sunk: u64,
    sent: u64,
    scratch: Vec<u8>,
}

/// Runs the floor until it is killed.
pub(crate) fn run(args: &FloorArgs) -> anyhow::Result<()> {
    // All that is allowed: how many connections will come is not known.
    usage::allow_descriptors(0)?;
    let mut reactor = Reactor::new(UNSENT_BYTES_MAX)?;
    reactor.listen(SocketAddr::from((Ipv4Addr::LOCALHOST, args.port)))?;
    let mut floor = Floor {
        is_batched: args.batched,
        drop_every: args.drop_every.filter(|n| *n > 0),
        peers: Vec::new(),
        sessions: polling::Sessions::default(),
        names: HashMap::new(),
        rooms: Vec::new(),
        dirty: Vec::new(),
        wheel: vec![Vec::new(); WHEEL_PLACES],
        place: 0,
        sids: 0,
        sunk: 0,
        sent: 0,
        scratch: Vec::new(),
    };
    let mut out = std::io::stdout();
    writeln!(out, "ready")?;
    out.flush()?;
    let step = PING_INTERVAL / WHEEL_PLACES as u32;
    let mut next_step = Instant::now() + step;
    loop {
        reactor.poll(next_step.saturating_duration_since(Instant::now()), &mut floor)?;
        if Instant::now() >= next_step {
            next_step += step;
            floor.ping_due(&mut reactor);
        }
    }
}

impl Driver for Floor {
    fn on_accepted(&mut self, _reactor: &mut Reactor, slot: usize) {
        if self.peers.len() <= slot {
            self.peers.resize_with(slot + 1, Peer::default);
        }
        let peer = &mut self.peers[slot];
        *peer = Peer { generation: peer.generation.wrapping_add(1), ..Peer::default() };
    }

    fn on_bytes(&mut self, reactor: &mut Reactor, slot: usize, bytes: &mut [u8]) -> usize {
        let outcome = match self.peers[slot].kind {
            Kind::Http => self.take_request(reactor, slot, bytes),
            Kind::WebSocket => self.take_frames(reactor, slot, bytes),
            // One request at a time on a connection; another waits.
            Kind::Parked(_) => Ok(0),
        };
        self.flush_rooms(reactor);
        outcome.unwrap_or_else(|_| {
            reactor.close(slot, Ending::Fin);
            self.on_closed(reactor, slot);
            bytes.len()
        })
    }

    fn on_closed(&mut self, _reactor: &mut Reactor, slot: usize) {
        let peer = &mut self.peers[slot];
        peer.generation = peer.generation.wrapping_add(1);
        if let Kind::Parked(session) = peer.kind {
            self.sessions.unpark(session);
        }
        for room in peer.rooms.take().into_iter().flat_map(|rooms| rooms.into_iter()) {
            let members = &mut self.rooms[room as usize].members;
            if let Some(at) = members.iter().position(|&m| m as usize == slot) {
                members.swap_remove(at);
            }
        }
    }
}

impl Floor {
    fn take_request(&mut self, reactor: &mut Reactor, slot: usize, bytes: &mut [u8]) -> Result<usize, Fault> {
        let Some(end) = wire::head_end(bytes) else { return Ok(0) };
        let refused = |why: &str| Fault::Upgrade(why.to_owned());
        let head = std::str::from_utf8(&bytes[..end]).map_err(|_| refused("head is not text"))?;
        let Some(key) = wire::header(head, "sec-websocket-key") else {
            return self.take_polling_request(reactor, slot, bytes);
        };
        self.sids += 1;
        let mut answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {}\r\n\r\n",
            wire::accept_key(key)
        )
        .into_bytes();
        let open = open_packet(&sid(self.sids));
        wire::encode_server_text(&[open.as_bytes()], &mut answer);
        reactor.send(slot, &answer);
        let peer = &mut self.peers[slot];
        peer.kind = Kind::WebSocket;
        self.wheel[self.place].push((slot as u32, peer.generation));
        Ok(end)
    }

    fn take_frames(&mut self, reactor: &mut Reactor, slot: usize, bytes: &mut [u8]) -> Result<usize, Fault> {
        let mut used = 0;
        while let Some(frame) = wire::decode_frame(&bytes[used..], Writer::Client)? {
            let payload = &mut bytes[used + frame.payload_at..used + frame.len];
            wire::mask(payload, frame.key);
            match frame.opcode {
                Opcode::Text => self.take_text(reactor, slot as u32, payload),
                Opcode::Ping => {
                    let mut pong = Vec::new();
                    wire::encode_server_pong(payload, &mut pong);
                    reactor.send(slot, &pong);
                }
                Opcode::Pong => {}
                Opcode::Binary | Opcode::Close => return Err(Fault::Packet("not for the floor".into())),
            }
            used += frame.len;
        }
        Ok(used)
    }

    /// One message, by its first bytes. What is not known is ignored.
    #[inline]
    fn take_text(&mut self, reactor: &mut Reactor, from: u32, text: &[u8]) {
        let Some(packet) = text.strip_prefix(b"4") else { return };
        if packet.first() == Some(&b'0') {
            let connected = format!("40{{\"sid\":\"socket{:014x}\"}}", self.sids);
            return self.answer(reactor, from, &[connected.as_bytes()]);
        }
        let Some(event) = packet.strip_prefix(b"2") else { return };
        let digits = event.iter().take_while(|b| b.is_ascii_digit()).count();
        let (id, event) = event.split_at(digits);
        if event.starts_with(b"[\"sink\",") {
            self.sunk += 1;
        } else if let Some(rest) = event.strip_prefix(b"[\"pub\",{\"room\":\"") {
            let Some(quote) = rest.iter().position(|&b| b == b'"') else { return };
            let (name, rest) = rest.split_at(quote);
            let Some(data) = rest.strip_prefix(b"\",\"data\":").and_then(|d| d.strip_suffix(b"}]")) else {
                return;
            };
            self.publish(reactor, name, data);
        } else if let Some(rest) = event.strip_prefix(b"[\"echo\",") {
            if !self.must_drop() {
                self.answer(reactor, from, &[b"43", id, b"[", rest]);
            }
        } else if let Some(rest) = event.strip_prefix(b"[\"join\",{\"room\":\"") {
            let Some(quote) = rest.iter().position(|&b| b == b'"') else { return };
            self.join(from, &rest[..quote]);
            self.answer(reactor, from, &[b"43", id, b"[\"ok\"]"]);
        } else if event.starts_with(b"[\"sunk\"") {
            let count = self.sunk.to_string();
            self.answer(reactor, from, &[b"43", id, b"[", count.as_bytes(), b"]"]);
        }
    }

    fn join(&mut self, from: u32, name: &[u8]) {
        let next = self.rooms.len() as u32;
        let room = *self.names.entry(name.into()).or_insert(next);
        if room == next {
            self.rooms.push(Room::default());
        }
        let members = &mut self.rooms[room as usize].members;
        if from & POLLING != 0 {
            return members.push(from);
        }
        let rooms = self.peers[from as usize].rooms.get_or_insert_default();
        if !rooms.contains(&room) {
            rooms.push(room);
            members.push(from);
        }
    }

    /// Sends a message to whom it is an answer; `parts` begin with Engine.IO's `4`.
    fn answer(&mut self, reactor: &mut Reactor, to: u32, parts: &[&[u8]]) {
        if to & POLLING != 0 {
            self.say(reactor, to & !POLLING, &parts.concat());
        } else if self.is_batched {
            reactor.stage(to as usize, |out| wire::encode_server_text(parts, out));
        } else {
            self.scratch.clear();
            wire::encode_server_text(parts, &mut self.scratch);
            reactor.send(to as usize, &self.scratch);
        }
    }

    fn publish(&mut self, reactor: &mut Reactor, name: &[u8], data: &[u8]) {
        let Some(&number) = self.names.get(name) else { return };
        let parts: [&[u8]; 3] = [b"42[\"msg\",", data, b"]"];
        if self.is_batched && self.drop_every.is_none() && self.sessions.is_empty() {
            let room = &mut self.rooms[number as usize];
            if room.batch.is_empty() {
                self.dirty.push(number);
            }
            return wire::encode_server_text(&parts, &mut room.batch);
        }
        let mut frame = std::mem::take(&mut self.scratch);
        frame.clear();
        wire::encode_server_text(&parts, &mut frame);
        for at in 0..self.rooms[number as usize].members.len() {
            if self.must_drop() {
                continue;
            }
            let member = self.rooms[number as usize].members[at];
            if member & POLLING == 0 {
                reactor.send(member as usize, &frame);
            } else {
                self.say(reactor, member & !POLLING, &parts.concat());
            }
        }
        self.scratch = frame;
    }

    fn flush_rooms(&mut self, reactor: &mut Reactor) {
        for number in self.dirty.drain(..) {
            let room = &mut self.rooms[number as usize];
            for &member in &room.members {
                reactor.send(member as usize, &room.batch);
            }
            room.batch.clear();
        }
    }

    /// Whether this delivery is one of those left out on purpose.
    fn must_drop(&mut self) -> bool {
        let Some(every) = self.drop_every else { return false };
        self.sent += 1;
        self.sent.is_multiple_of(every)
    }

    /// Pings the connections whose place on the wheel has come (EIO4 "Heartbeat").
    fn ping_due(&mut self, reactor: &mut Reactor) {
        self.place = (self.place + 1) % WHEEL_PLACES;
        let mut due = std::mem::take(&mut self.wheel[self.place]);
        due.retain(|&(to, generation)| {
            if to & POLLING != 0 {
                self.say(reactor, to & !POLLING, b"2");
                return true;
            }
            let is_there = self.peers[to as usize].generation == generation;
            if is_there {
                reactor.send(to as usize, &[0x81, 1, b'2']);
            }
            is_there
        });
        self.wheel[self.place] = due;
    }
}

/// A session id of 20 characters, as long as those of other servers.
fn sid(number: u64) -> String {
    format!("floor{number:015x}")
}

/// The open packet (EIO4 "Handshake").
fn open_packet(sid: &str) -> String {
    let interval = PING_INTERVAL.as_millis();
    format!(
        "0{{\"sid\":\"{sid}\",\"upgrades\":[],\"pingInterval\":{interval},\"pingTimeout\":20000,\"maxPayload\":1000000}}"
    )
}
