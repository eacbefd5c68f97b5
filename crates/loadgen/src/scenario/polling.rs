//! Subscribers over HTTP long-polling: each keeps a poll open, and must get every publication of its room once and in order.
//!
//! A subscriber has two connections: one for its polls, which follow each other without a pause, and one for what it
//! posts, which is closed when it has nothing to say. The publisher is one subscriber more, without a room; its loop is
//! open (`--rate`, else 100 a second), because with polls a window would measure little but the client.
//! Spec: EIO4 "HTTP long-polling".

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::args::{FanoutArgs, secs};
use crate::http;
use crate::progress::Progress;
use crate::reactor::{Driver, Ending, Reactor};
use crate::report::Report;
use crate::swarm::{Counts, Join};
use crate::target::{Target, Template, payload_json, stamped_number};
use crate::usage::{self, Sample};
use crate::wire::{self, Fault};

use super::fanout::{BEHIND_MAX, IDLE_WAIT, every};
use super::ledger::Ledger;

/// Packets in one POST: python-engineio ends a session that sends more.
const PACKETS_MAX: usize = 16;
/// What separates packets in a payload (EIO4 "HTTP long-polling").
const SEPARATOR: u8 = 0x1e;

/// Where a session is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The first poll is sent, without a sid.
    Opening,
    /// CONNECT is posted.
    Connecting,
    /// The join is posted.
    Joining,
    Ready,
    Ended,
}

/// One long-polling session.
struct Session {
    phase: Phase,
    sid: String,
    /// Packets to be posted.
    outgoing: Vec<Vec<u8>>,
    /// A POST is on its way.
    is_posting: bool,
}

struct Polling {
    target: Target,
    join: Join,
    sessions: Vec<Session>,
    ledger: Ledger,
    counts: Counts,
    delivery: Option<Template>,
    polls: u64,
}

/// The slot of a session's polls; the next one is that of its posts.
fn poll_slot(session: usize) -> usize {
    session * 2
}

impl Driver for Polling {
    fn on_bytes(&mut self, reactor: &mut Reactor, slot: usize, bytes: &mut [u8]) -> usize {
        let (session, is_poll) = (slot / 2, slot.is_multiple_of(2));
        let outcome = match http::decode_message(bytes) {
            Ok(None) => return 0,
            Ok(Some(answer)) => {
                self.take_answer(reactor, session, is_poll, &bytes[answer.head.clone()], &answer.body)
            }
            Err(fault) => Err(fault),
        };
        if let Err(fault) = outcome {
            self.counts.note_bad(|| format!("session {session}: {fault}"));
            self.end(reactor, session);
        }
        bytes.len()
    }

    fn on_closed(&mut self, reactor: &mut Reactor, slot: usize) {
        let session = slot / 2;
        // A server may close a connection on which nothing is asked.
        if slot.is_multiple_of(2) || self.sessions[session].is_posting {
            self.counts
                .first_fault
                .get_or_insert_with(|| format!("session {session}: a request was not answered"));
            self.end(reactor, session);
        }
    }
}

impl Polling {
    /// Ends a session that failed; it counts as dropped, or as failed when it was not ready.
    fn end(&mut self, reactor: &mut Reactor, session: usize) {
        match std::mem::replace(&mut self.sessions[session].phase, Phase::Ended) {
            Phase::Ended => return,
            Phase::Ready => {
                self.counts.dropped += 1;
                self.counts.ready -= 1;
                self.ledger.excuse(session, true);
            }
            Phase::Opening | Phase::Connecting | Phase::Joining => self.counts.failed += 1,
        }
        reactor.close(poll_slot(session), Ending::Reset);
        reactor.close(poll_slot(session) + 1, Ending::Reset);
    }

    fn open(&mut self, reactor: &mut Reactor, session: usize) -> anyhow::Result<()> {
        reactor
            .open(poll_slot(session), self.target.address, None)
            .with_context(|| format!("cannot open session {session}"))?;
        reactor.send(poll_slot(session), self.target.polling_request(None, None).as_bytes());
        Ok(())
    }

    fn poll(&mut self, reactor: &mut Reactor, session: usize) {
        let request = self.target.polling_request(Some(&self.sessions[session].sid), None);
        reactor.send(poll_slot(session), request.as_bytes());
    }

    /// Posts what is due, unless a POST is on its way.
    fn post(&mut self, reactor: &mut Reactor, session: usize) {
        let state = &mut self.sessions[session];
        let slot = poll_slot(session) + 1;
        if state.is_posting || state.phase == Phase::Ended {
            return;
        }
        if state.outgoing.is_empty() {
            // The publisher's is kept: it is soon needed again.
            if session < self.join.links {
                reactor.close(slot, Ending::Reset);
            }
            return;
        }
        let count = state.outgoing.len().min(PACKETS_MAX);
        let packets: Vec<_> = state.outgoing.drain(..count).collect();
        let body = packets.join(&SEPARATOR);
        let mut request = self.target.polling_request(Some(&state.sid), Some(body.len())).into_bytes();
        request.extend_from_slice(&body);
        state.is_posting = true;
        if !reactor.is_open(slot) && reactor.open(slot, self.target.address, None).is_err() {
            self.counts.first_fault.get_or_insert_with(|| "no connection for a POST".to_owned());
            return self.end(reactor, session);
        }
        reactor.send(slot, &request);
    }

    fn take_answer(
        &mut self,
        reactor: &mut Reactor,
        session: usize,
        is_poll: bool,
        head: &[u8],
        body: &[u8],
    ) -> Result<(), Fault> {
        let head = String::from_utf8_lossy(head);
        if wire::status(&head) != Some(200) {
            let line = head.lines().next().unwrap_or_default();
            return Err(Fault::Packet(format!("{line} {}", wire::excerpt(body))));
        }
        if wire::header(&head, "connection").is_some_and(|v| v.eq_ignore_ascii_case("close")) {
            return Err(Fault::Packet("a connection that is not kept".into()));
        }
        if !is_poll {
            // python-engineio answers in capitals, and stock clients do not look.
            if !body.eq_ignore_ascii_case(b"ok") {
                return Err(Fault::Packet(format!("{} as the answer to a POST", wire::excerpt(body))));
            }
            self.sessions[session].is_posting = false;
            self.post(reactor, session);
            return Ok(());
        }
        self.polls += 1;
        for packet in body.split(|b| *b == SEPARATOR) {
            self.take_packet(reactor, session, packet)?;
        }
        self.poll(reactor, session);
        self.post(reactor, session);
        Ok(())
    }

    fn take_packet(&mut self, reactor: &mut Reactor, session: usize, text: &[u8]) -> Result<(), Fault> {
        let phase = self.sessions[session].phase;
        match (phase, text) {
            (Phase::Opening, [b'0', json @ ..]) => {
                self.sessions[session].sid = wire::decode_open(json)?.sid;
                let packet = self.target.connect_packet(session);
                self.advance(session, Phase::Connecting, Some(packet));
            }
            (Phase::Connecting, [b'4', packet @ ..]) => {
                let answer = wire::decode_packet(packet, &self.target.namespace)?;
                if answer.kind != b'0' {
                    return Err(Fault::Packet(format!("{} as the answer to CONNECT", wire::excerpt(packet))));
                }
                if session < self.join.links {
                    let argument = self.join.argument_of(session);
                    let packet = self.target.event_packet(Some(0), &self.join.event, &argument);
                    self.advance(session, Phase::Joining, Some(packet));
                } else {
                    self.advance(session, Phase::Ready, None);
                }
            }
            (Phase::Joining, [b'4', packet @ ..]) => {
                let answer = wire::decode_packet(packet, &self.target.namespace)?;
                let is_wanted = self.join.answer.as_ref().is_none_or(|a| answer.data == a.as_bytes());
                if answer.kind == b'3' && answer.ack == Some(0) && is_wanted {
                    self.advance(session, Phase::Ready, None);
                } else if self.join.answer.is_some() {
                    return Err(Fault::Packet(format!(
                        "{} as the answer to the join",
                        wire::excerpt(packet)
                    )));
                }
            }
            (Phase::Ready, [b'4', ..]) => self.take_delivery(reactor, session, text),
            (Phase::Connecting | Phase::Joining | Phase::Ready, [b'2']) => {
                self.counts.pings += 1;
                self.sessions[session].outgoing.push(b"3".to_vec());
            }
            (_, [b'6']) => {}
            _ => return Err(Fault::Packet(format!("{} while {phase:?}", wire::excerpt(text)))),
        }
        Ok(())
    }

    fn advance(&mut self, session: usize, phase: Phase, packet: Option<String>) {
        let state = &mut self.sessions[session];
        state.phase = phase;
        state.outgoing.extend(packet.map(String::into_bytes));
        self.counts.ready += usize::from(phase == Phase::Ready);
    }

    fn take_delivery(&mut self, reactor: &Reactor, session: usize, text: &[u8]) {
        let number = match &self.delivery {
            Some(template) => template.number(text),
            None => stamped_number(text),
        };
        let outcome = match number {
            Some(number) => self.ledger.deliver(session, number, reactor.now()).map(drop),
            None if self.delivery.is_none() => Ok(()),
            None => Err(format!("not a delivery: {}", wire::excerpt(text))),
        };
        if let Err(why) = outcome {
            self.counts.note_bad(|| why);
        }
    }

    /// Opens all sessions, `inflight` at a time.
    fn connect(&mut self, reactor: &mut Reactor, inflight: usize, timeout: Duration) -> anyhow::Result<()> {
        let (all, begin, mut next) = (self.sessions.len(), Instant::now(), 0);
        let mut progress = Progress::new("connecting", all as u64);
        loop {
            let done = self.counts.ready + self.counts.failed as usize;
            progress.show(done as u64);
            if done >= all {
                return Ok(());
            }
            ensure!(
                begin.elapsed() < timeout,
                "only {done} of {all} sessions ready after {timeout:?}; {}",
                self.counts.first_words()
            );
            while next < all && next < done + inflight {
                self.open(reactor, next)?;
                next += 1;
            }
            reactor.poll(IDLE_WAIT, self)?;
        }
    }

    /// Publishes at the given pace until `until`, or, without it, waits for what is under way.
    fn drive(
        &mut self,
        reactor: &mut Reactor,
        pace: &mut Pace,
        until: Option<Instant>,
    ) -> anyhow::Result<()> {
        let publisher = self.sessions.len() - 1;
        let (mut seen, mut seen_at) = (self.ledger.deliveries, Instant::now());
        loop {
            let now = Instant::now();
            if until.map_or(self.ledger.under_way() == 0, |until| now >= until) {
                return Ok(());
            }
            let is_ready = self.sessions[publisher].phase == Phase::Ready;
            ensure!(is_ready, "the publisher is not there; {}", self.counts.first_words());
            while until.is_some() && pace.next_due <= now && self.ledger.under_way() < BEHIND_MAX {
                let (number, room) = self.ledger.begin(pace.next_due);
                pace.next_due += pace.every;
                self.sessions[publisher].outgoing.push(pace.templates[room].text(number));
            }
            self.post(reactor, publisher);
            reactor.poll(
                pace.next_due.saturating_duration_since(now).clamp(Duration::from_millis(1), IDLE_WAIT),
                self,
            )?;
            if self.ledger.deliveries != seen || self.ledger.under_way() == 0 {
                (seen, seen_at) = (self.ledger.deliveries, now);
            } else if seen_at.elapsed() > pace.stall {
                self.ledger.give_up();
                seen_at = now;
            }
        }
    }
}

/// When and what to publish.
struct Pace {
    every: Duration,
    next_due: Instant,
    stall: Duration,
    templates: Vec<Template>,
}

/// Runs the scenario.
pub(crate) fn run(args: &FanoutArgs) -> anyhow::Result<Report> {
    args.check()?;
    ensure!(args.msgs.is_none(), "polling takes --secs, not --msgs");
    let sessions = args.conns + 1;
    usage::allow_descriptors(2 * sessions)?;
    let target = args.common.target(sessions)?;
    let rate = args.rate.unwrap_or(100.0);
    let templates = (0..args.rooms).map(|room| Template::cut(&args.publication(&target, room))).collect();
    let delivery = Template::cut(&target.event_packet(None, &args.msg_event, &payload_json(args.size)));
    let pids = &args.common.pid;
    let begin_session =
        || Session { phase: Phase::Opening, sid: String::new(), outgoing: Vec::new(), is_posting: false };
    let mut polling = Polling {
        target,
        join: args.subscription(),
        sessions: (0..sessions).map(|_| begin_session()).collect(),
        ledger: Ledger::new(args.conns, args.rooms),
        counts: Counts::default(),
        delivery: (!args.common.loose).then_some(delivery),
        polls: 0,
    };
    // 1 MiB: requests are small, and only one is under way on a connection.
    let mut reactor = Reactor::new(1 << 20)?;
    let pace = args.common.pace()?;
    polling.connect(&mut reactor, pace.inflight, pace.timeout)?;

    let mut pace =
        Pace { every: every(rate)?, next_due: Instant::now(), stall: secs(args.stall)?, templates };
    polling.drive(&mut reactor, &mut pace, Some(Instant::now() + secs(args.warmup)?))?;
    let begin = Sample::take(pids)?;
    polling.ledger.restart();
    polling.polls = 0;
    polling.drive(&mut reactor, &mut pace, Some(Instant::now() + secs(args.secs)?))?;
    let span = begin.until(&Sample::take(pids)?);

    let (deliveries, polls) = (polling.ledger.deliveries, polling.polls);
    let mut report = Report::new("polling", args.common.label.as_deref());
    report.add("conns", "subscribers", args.conns as u64, "");
    report.add("rooms", "rooms", args.rooms as u64, "");
    report.add("size", "payload", args.size as u64, "bytes");
    report.add("rate", "publications due per second", rate, "");
    report.add_work(["delivery", "deliveries"], deliveries, &span);
    report.add("polls_per_sec", "polls per second", span.rate(polls), "");
    report.add("units_per_poll", "deliveries per poll", deliveries as f64 / polls.max(1) as f64, "");
    report.add_latencies(&polling.ledger.latencies);
    polling.drive(&mut reactor, &mut pace, None)?;
    report.add("pings", "heartbeats answered", polling.counts.pings, "");
    report.add_counts(&polling.counts, polling.ledger.missing);
    Ok(report)
}
