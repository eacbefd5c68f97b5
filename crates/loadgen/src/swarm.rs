//! Many Socket.IO connections over WebSocket: opens them, answers heartbeats, judges every frame, hands events on.
//!
//! Owns the phase of each connection and the counts of what went wrong. Knows nothing about what a scenario measures.
//! A link's number is its slot in the reactor.

use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::progress::Progress;
use crate::reactor::{Driver, Ending, Reactor};
use crate::target::{Target, Template};
use crate::wire::{self, Fault, Opcode, Writer};

/// What a scenario answers to. Called only for links that are ready.
pub(crate) trait Scenario {
    /// A text message that is no heartbeat: Engine.IO's `4` and a Socket.IO packet.
    fn on_message(&mut self, io: &mut Io<'_>, link: usize, text: &[u8]);
    /// The connection ended without being asked to.
    fn on_dropped(&mut self, _io: &mut Io<'_>, _link: usize) {}
    /// The connection is ready: its CONNECT, and its join if it has one, are answered.
    fn on_ready(&mut self, _io: &mut Io<'_>, _link: usize) {}
}

/// A scenario of connections that only stay.
pub(crate) struct Quiet;

impl Scenario for Quiet {
    fn on_message(&mut self, io: &mut Io<'_>, _link: usize, text: &[u8]) {
        io.swarm.counts.note_bad(|| format!("unexpected packet: {}", wire::excerpt(text)));
    }
}

/// Where a link is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Closed,
    /// The upgrade request is sent.
    Upgrading,
    /// Upgraded; the open packet is due (EIO4 "Handshake").
    Opening,
    /// CONNECT is sent (SIO5 "Connection to a namespace").
    Connecting,
    /// The join event is sent.
    Joining,
    Ready,
}

/// The event that each link emits, with an acknowledgement, before it counts as ready.
#[derive(Clone, Debug)]
pub(crate) struct Join {
    pub(crate) event: String,
    /// JSON; `%ROOM%` and `%CONN%` are replaced.
    pub(crate) argument: String,
    /// A room's name; `%ROOM%` is the link's number modulo `rooms`, `%CONN%` the link's number.
    pub(crate) room: String,
    pub(crate) rooms: usize,
    /// Only links below this number join.
    pub(crate) links: usize,
    /// What must be acknowledged, unless anything will do.
    pub(crate) answer: Option<String>,
}

impl Join {
    /// The name of the room that `link` joins.
    pub(crate) fn room_of(&self, link: usize) -> String {
        let number = link % self.rooms.max(1);
        self.room.replace("%ROOM%", &number.to_string()).replace("%CONN%", &link.to_string())
    }

    /// The argument of the join event of `link`.
    pub(crate) fn argument_of(&self, link: usize) -> String {
        self.argument.replace("%ROOM%", &self.room_of(link)).replace("%CONN%", &link.to_string())
    }
}

/// What has happened to the links, and what the server did wrong.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) ready: usize,
    /// Handshakes that did not succeed.
    pub(crate) failed: u64,
    /// Ready links that ended by themselves.
    pub(crate) dropped: u64,
    /// Frames or packets that should not have come, or not like this.
    pub(crate) bad: u64,
    /// Heartbeats answered (EIO4 "Heartbeat").
    pub(crate) pings: u64,
    /// The first thing that went wrong, in words.
    pub(crate) first_fault: Option<String>,
}

impl Counts {
    /// The first fault, for an error that it may explain.
    pub(crate) fn first_words(&self) -> String {
        self.first_fault
            .as_ref()
            .map_or_else(|| "no fault seen".to_owned(), |fault| format!("first fault: {fault}"))
    }

    /// Counts a fault, and keeps the words of the first.
    pub(crate) fn note_bad(&mut self, why: impl FnOnce() -> String) {
        self.bad += 1;
        self.first_fault.get_or_insert_with(why);
    }
}

/// All links of a run.
pub(crate) struct Swarm {
    target: Target,
    join: Option<Join>,
    phases: Vec<Phase>,
    opened: Vec<Instant>,
    key: String,
    accept: String,
    masks: Masks,
    ports: Ports,
    /// How the packets begin that nobody looks at.
    ignored: Vec<Box<[u8]>>,
    pub(crate) counts: Counts,
}

/// Where masking keys come from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Masks {
    /// Always zero: allowed on the wire, costs neither side anything, and is no protection, which loopback does not need.
    Zero,
    /// Another key for each frame, as browsers do (RFC 6455 §5.3). The state of a xorshift generator; not zero.
    Random(u64),
}

impl Masks {
    /// The next key.
    pub(crate) fn next_key(&mut self) -> [u8; 4] {
        match self {
            Self::Zero => [0; 4],
            Self::Random(state) => {
                *state ^= *state << 13;
                *state ^= *state >> 7;
                *state ^= *state << 17;
                ((*state >> 16) as u32).to_ne_bytes()
            }
        }
    }
}

/// The hands of a scenario: lets it send while the reactor reads.
pub(crate) struct Io<'a> {
    pub(crate) reactor: &'a mut Reactor,
    pub(crate) swarm: &'a mut Swarm,
}

impl Io<'_> {
    /// Sends `template` with `number` in its hole.
    pub(crate) fn emit(&mut self, link: usize, template: &Template, number: u32) {
        let key = self.swarm.masks.next_key();
        self.reactor.stage(link, |out| template.encode(number, key, out));
    }

    /// Sends an event with an acknowledgement id: `head`, the id, and `event` with the id in its hole too.
    pub(crate) fn emit_acked(&mut self, link: usize, head: &str, event: &Template, id: u32) {
        let key = self.swarm.masks.next_key();
        self.reactor.stage(link, |out| {
            event.encode_behind(&[head.as_bytes(), id.to_string().as_bytes()], id, key, out)
        });
    }

    /// Sends one text message.
    pub(crate) fn emit_text(&mut self, link: usize, text: &str) {
        let key = self.swarm.masks.next_key();
        self.reactor.stage(link, |out| wire::encode_client_text(&[text.as_bytes()], key, out));
    }

    /// When the message being handled was read.
    pub(crate) fn now(&self) -> Instant {
        self.reactor.now()
    }
}

/// How fast links are opened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// Handshakes under way at once.
    pub(crate) inflight: usize,
    /// Time allowed for all of them.
    pub(crate) timeout: Duration,
}

/// A swarm and its reactor: what a scenario is run on.
pub(crate) struct Load {
    pub(crate) reactor: Reactor,
    pub(crate) swarm: Swarm,
}

impl Load {
    /// No link is open yet.
    pub(crate) fn new(target: Target, join: Option<Join>, masks: Masks) -> anyhow::Result<Self> {
        // 16 bytes of nonce; its unpredictability protects proxies, of which loopback has none (RFC 6455 §10.3).
        let key = wire::base64(format!("loadgen {:08}", std::process::id()).as_bytes());
        let accept = wire::accept_key(&key);
        let swarm = Swarm {
            target,
            join,
            phases: Vec::new(),
            opened: Vec::new(),
            key,
            accept,
            masks,
            ports: Ports::new(),
            ignored: Vec::new(),
            counts: Counts::default(),
        };
        // 256 MiB: a load generator that waits for a server's reads is at work, not under attack.
        Ok(Self { reactor: Reactor::new(256 << 20)?, swarm })
    }

    /// Waits up to `timeout` for something to happen, and handles it.
    pub(crate) fn poll<S: Scenario>(&mut self, timeout: Duration, scenario: &mut S) -> anyhow::Result<()> {
        self.reactor.flush();
        self.reactor.poll(timeout, &mut Drive { swarm: &mut self.swarm, scenario })?;
        Ok(())
    }

    /// Polls until `until`.
    pub(crate) fn poll_until<S: Scenario>(&mut self, until: Instant, scenario: &mut S) -> anyhow::Result<()> {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            self.poll(left.min(Duration::from_millis(100)), scenario)?;
        }
    }

    /// Hands for a scenario between two polls.
    pub(crate) fn io(&mut self) -> Io<'_> {
        Io { reactor: &mut self.reactor, swarm: &mut self.swarm }
    }

    /// Opens `links`, all of which must be closed, and returns when each is ready or has failed.
    ///
    /// # Errors
    /// The environment's (no ports, no descriptors), or more than `pace.timeout` was needed.
    pub(crate) fn connect<S: Scenario>(
        &mut self,
        links: Range<usize>,
        pace: Pace,
        scenario: &mut S,
    ) -> anyhow::Result<()> {
        let begin = Instant::now();
        let mut progress = Progress::new("connecting", links.len() as u64);
        let (ready_before, failed_before) = (self.swarm.counts.ready, self.swarm.counts.failed);
        let mut next = links.start;
        if self.swarm.phases.len() < links.end {
            self.swarm.phases.resize(links.end, Phase::Closed);
            self.swarm.opened.resize(links.end, begin);
        }
        loop {
            let counts = &self.swarm.counts;
            let done = counts.ready.saturating_sub(ready_before) + (counts.failed - failed_before) as usize;
            progress.show(done as u64);
            if done >= links.len() {
                return Ok(());
            }
            while next < links.end && next - links.start < done + pace.inflight {
                self.open(next)?;
                next += 1;
            }
            ensure!(
                begin.elapsed() < pace.timeout,
                "only {done} of {} connections ready after {:?}{}",
                links.len(),
                pace.timeout,
                self.swarm
                    .counts
                    .first_fault
                    .as_ref()
                    .map(|f| format!("; first fault: {f}"))
                    .unwrap_or_default()
            );
            self.poll(Duration::from_millis(100), scenario)?;
        }
    }

    fn open(&mut self, link: usize) -> anyhow::Result<()> {
        let address = self.swarm.target.address_of(link);
        let mut attempts = 0;
        loop {
            let source =
                self.swarm.target.source(link).map(|ip| SocketAddr::new(ip, self.swarm.ports.next_port()));
            match self.reactor.open(link, address, source) {
                Ok(()) => break,
                // Ports that somebody else holds come in runs; 1,000 is longer than any seen.
                Err(e) if source.is_some() && is_port_taken(&e) && attempts < 1000 => attempts += 1,
                Err(e) => {
                    return Err(e).with_context(|| format!("cannot open connection {link} to {address}"));
                }
            }
        }
        let swarm = &mut self.swarm;
        swarm.phases[link] = Phase::Upgrading;
        swarm.opened[link] = Instant::now();
        self.reactor.send(link, swarm.target.upgrade_request(&swarm.key).as_bytes());
        Ok(())
    }

    /// Ends `links` at once; they count neither as dropped nor as failed.
    pub(crate) fn close(&mut self, links: Range<usize>, ending: Ending) {
        for link in links {
            self.reactor.close(link, ending);
            if self.swarm.phases[link] == Phase::Ready {
                self.swarm.counts.ready -= 1;
            }
            self.swarm.phases[link] = Phase::Closed;
        }
    }
}

impl Drop for Load {
    /// Resets what is still open: thousands of ports in TIME-WAIT would slow the next run down.
    fn drop(&mut self) {
        self.close(0..self.swarm.phases.len(), Ending::Reset);
    }
}

fn is_port_taken(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable)
}

/// Source ports in turn. The kernel's own choice for a bound address searches longer the more ports are taken; this does not.
struct Ports(u16);

impl Ports {
    /// Unprivileged ports. They overlap those that the kernel gives out: a taken one is passed over.
    const RANGE: std::ops::Range<u16> = 10_000..60_000;

    /// Starts somewhere else in each process, so that two generators meet seldom.
    fn new() -> Self {
        let span = u32::from(Self::RANGE.end - Self::RANGE.start);
        Self(Self::RANGE.start + (std::process::id().wrapping_mul(7919) % span) as u16)
    }

    fn next_port(&mut self) -> u16 {
        self.0 = if self.0 + 1 < Self::RANGE.end { self.0 + 1 } else { Self::RANGE.start };
        self.0
    }
}

impl Swarm {
    /// Has events of this name not count.
    pub(crate) fn ignore(&mut self, event: &str) {
        let packet = self.target.event_packet(None, event, "");
        self.ignored.push(packet.trim_end_matches(",]").as_bytes().into());
    }

    /// What is under load.
    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    /// Whether `link` can be used.
    pub(crate) fn is_ready(&self, link: usize) -> bool {
        self.phases.get(link) == Some(&Phase::Ready)
    }

    /// When the handshake of `link` began.
    pub(crate) fn opened_at(&self, link: usize) -> Instant {
        self.opened[link]
    }

    /// The next masking key.
    pub(crate) fn next_key(&mut self) -> [u8; 4] {
        self.masks.next_key()
    }
}

/// The swarm and a scenario, as the reactor sees them.
struct Drive<'a, S> {
    swarm: &'a mut Swarm,
    scenario: &'a mut S,
}

impl<S: Scenario> Driver for Drive<'_, S> {
    fn on_bytes(&mut self, reactor: &mut Reactor, slot: usize, bytes: &mut [u8]) -> usize {
        match self.take_bytes(reactor, slot, bytes) {
            Ok(used) => used,
            Err(fault) => {
                self.swarm.counts.note_bad(|| format!("connection {slot}: {fault}"));
                reactor.close(slot, Ending::Reset);
                self.on_closed(reactor, slot);
                bytes.len()
            }
        }
    }

    fn on_closed(&mut self, reactor: &mut Reactor, slot: usize) {
        let phase = std::mem::replace(&mut self.swarm.phases[slot], Phase::Closed);
        let counts = &mut self.swarm.counts;
        match phase {
            Phase::Closed => {}
            Phase::Upgrading | Phase::Opening | Phase::Connecting | Phase::Joining => {
                counts.failed += 1;
                counts.first_fault.get_or_insert_with(|| format!("connection {slot} closed while {phase:?}"));
            }
            Phase::Ready => {
                counts.ready -= 1;
                counts.dropped += 1;
                counts.first_fault.get_or_insert_with(|| format!("connection {slot} was dropped"));
                self.scenario.on_dropped(&mut Io { reactor, swarm: self.swarm }, slot);
            }
        }
    }
}

impl<S: Scenario> Drive<'_, S> {
    fn take_bytes(&mut self, reactor: &mut Reactor, link: usize, bytes: &[u8]) -> Result<usize, Fault> {
        let mut used = 0;
        if self.swarm.phases[link] == Phase::Upgrading {
            let Some(end) = wire::head_end(bytes) else {
                // 16 KiB: no server needs more to agree to an upgrade.
                return if bytes.len() > 16 << 10 { Err(Fault::TooLong(bytes.len() as u64)) } else { Ok(0) };
            };
            wire::check_upgrade(&bytes[..end], &self.swarm.accept)?;
            self.swarm.phases[link] = Phase::Opening;
            used = end;
        }
        while let Some(frame) = wire::decode_frame(&bytes[used..], Writer::Server)? {
            let payload = &bytes[used + frame.payload_at..used + frame.len];
            match frame.opcode {
                Opcode::Text => self.take_text(reactor, link, payload)?,
                Opcode::Binary => return Err(Fault::Packet("binary message".into())),
                Opcode::Ping => {
                    let key = self.swarm.next_key();
                    reactor.stage(link, |out| wire::encode_client_pong(payload, key, out));
                }
                Opcode::Pong => {}
                Opcode::Close => {
                    let code = payload.first_chunk().map(|c| u16::from_be_bytes(*c));
                    return Err(Fault::Packet(format!("close frame, code {code:?}")));
                }
            }
            used += frame.len;
            if self.swarm.phases[link] == Phase::Closed {
                break;
            }
        }
        Ok(used)
    }

    #[inline]
    fn take_text(&mut self, reactor: &mut Reactor, link: usize, text: &[u8]) -> Result<(), Fault> {
        let phase = self.swarm.phases[link];
        match (phase, text) {
            (Phase::Ready, [b'4', ..]) => {
                if self.swarm.ignored.iter().any(|head| text.starts_with(head)) {
                    return Ok(());
                }
                self.scenario.on_message(&mut Io { reactor, swarm: self.swarm }, link, text);
                Ok(())
            }
            (Phase::Opening, [b'0', json @ ..]) => {
                wire::decode_open(json)?;
                let packet = self.swarm.target.connect_packet(link);
                self.swarm.phases[link] = Phase::Connecting;
                Io { reactor, swarm: self.swarm }.emit_text(link, &packet);
                Ok(())
            }
            (Phase::Connecting, [b'4', packet @ ..]) => self.take_connect_answer(reactor, link, packet),
            (Phase::Joining, [b'4', packet @ ..]) => self.take_join_answer(reactor, link, packet),
            (Phase::Connecting | Phase::Joining | Phase::Ready, [b'2']) => {
                self.swarm.counts.pings += 1;
                Io { reactor, swarm: self.swarm }.emit_text(link, "3");
                Ok(())
            }
            (Phase::Connecting | Phase::Joining | Phase::Ready, [b'6']) => Ok(()),
            _ => Err(Fault::Packet(format!("{} while {phase:?}", wire::excerpt(text)))),
        }
    }

    fn take_connect_answer(
        &mut self,
        reactor: &mut Reactor,
        link: usize,
        packet: &[u8],
    ) -> Result<(), Fault> {
        let wrong = || Fault::Packet(format!("{} as the answer to CONNECT", wire::excerpt(packet)));
        let answer = wire::decode_packet(packet, &self.swarm.target.namespace)?;
        let value: serde_json::Value = serde_json::from_slice(answer.data).map_err(|_| wrong())?;
        if answer.kind != b'0' || value["sid"].as_str().is_none_or(str::is_empty) {
            return Err(wrong());
        }
        match self.swarm.join.as_ref().filter(|join| link < join.links) {
            None => self.set_ready(reactor, link),
            Some(join) => {
                let packet = self.swarm.target.event_packet(Some(0), &join.event, &join.argument_of(link));
                self.swarm.phases[link] = Phase::Joining;
                Io { reactor, swarm: self.swarm }.emit_text(link, &packet);
            }
        }
        Ok(())
    }

    fn take_join_answer(&mut self, reactor: &mut Reactor, link: usize, packet: &[u8]) -> Result<(), Fault> {
        let answer = wire::decode_packet(packet, &self.swarm.target.namespace)?;
        let wanted = self.swarm.join.as_ref().and_then(|join| join.answer.as_deref());
        let is_wanted = wanted.is_none_or(|wanted| answer.data == wanted.as_bytes());
        match (answer.kind, answer.ack) {
            (b'3', Some(0)) if is_wanted => {
                self.set_ready(reactor, link);
                Ok(())
            }
            // A server may tell a new member about the room before it answers.
            (b'2', None) if wanted.is_none() => Ok(()),
            _ => Err(Fault::Packet(format!("{} as the answer to the join", wire::excerpt(packet)))),
        }
    }

    fn set_ready(&mut self, reactor: &mut Reactor, link: usize) {
        self.swarm.phases[link] = Phase::Ready;
        self.swarm.counts.ready += 1;
        self.scenario.on_ready(&mut Io { reactor, swarm: self.swarm }, link);
    }
}
