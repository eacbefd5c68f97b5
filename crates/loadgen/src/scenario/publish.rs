//! Batches of events published over HTTP: how many are answered, and how long an answer takes.
//!
//! An event counts when the answer that has its id has been read. In an open loop latency counts from when the request was due, so that a
//! stalled server cannot hide its stall.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::args::{PublishArgs, secs};
use crate::http;
use crate::progress::Progress;
use crate::reactor::{Driver, Ending, Reactor};
use crate::report::{Latencies, Report};
use crate::swarm::Counts;
use crate::target;
use crate::usage::{self, Sample};
use crate::wire;

use super::fanout::{BEHIND_MAX, IDLE_WAIT, every};

/// What publishing has come to.
struct Publishing {
    requests: Vec<String>,
    batch: usize,
    /// When the request that is under way on each connection began, or was due.
    under_way: Vec<Option<Instant>>,
    idle: VecDeque<usize>,
    begun: u64,
    answered: u64,
    /// Answers of a server that has too much to do.
    busy: u64,
    latencies: Latencies,
    counts: Counts,
    /// Time between two requests in an open loop.
    every: Option<Duration>,
    next_due: Instant,
    is_stopping: bool,
}

impl Publishing {
    /// Sends what may be sent now.
    fn publish(&mut self, reactor: &mut Reactor) {
        while !self.is_stopping {
            let now = Instant::now();
            let began_at = match self.every {
                None => now,
                Some(every) if self.next_due <= now => {
                    let behind = every.saturating_mul(BEHIND_MAX as u32);
                    // What is due is bounded: a server that is left behind so far is not caught up with.
                    self.next_due = self.next_due.max(now.checked_sub(behind).unwrap_or(now));
                    self.next_due
                }
                Some(_) => return,
            };
            let Some(slot) = self.idle.pop_front() else { return };
            if let Some(every) = self.every {
                self.next_due += every;
            }
            let request = &self.requests[self.begun as usize % self.requests.len()];
            self.begun += 1;
            self.under_way[slot] = Some(began_at);
            reactor.send(slot, request.as_bytes());
        }
    }

    fn take_answer(&mut self, slot: usize, head: &[u8], body: &[u8], now: Instant) {
        let Some(began_at) = self.under_way[slot].take() else {
            return self.counts.note_bad(|| "an answer that nobody asked for".to_owned());
        };
        self.idle.push_back(slot);
        let status = head.get(9..12).unwrap_or_default();
        match status {
            b"201" if count(body, b"\"id\":\"") == self.batch => {
                self.answered += self.batch as u64;
                self.latencies.record(now.saturating_duration_since(began_at));
            }
            b"503" | b"429" => self.busy += 1,
            _ => self.counts.note_bad(|| format!("{} {}", wire::excerpt(head), wire::excerpt(body))),
        }
    }

    fn wait(&self) -> Duration {
        match self.every {
            Some(_) if !self.idle.is_empty() => {
                self.next_due.saturating_duration_since(Instant::now()).min(IDLE_WAIT)
            }
            Some(_) | None => IDLE_WAIT,
        }
    }

    fn drive(&mut self, reactor: &mut Reactor, until: Instant) -> anyhow::Result<()> {
        while Instant::now() < until && (!self.is_stopping || self.under_way.iter().any(Option::is_some)) {
            self.publish(reactor);
            reactor.flush();
            reactor.poll(self.wait(), self)?;
        }
        Ok(())
    }
}

impl Driver for Publishing {
    fn on_bytes(&mut self, reactor: &mut Reactor, slot: usize, bytes: &mut [u8]) -> usize {
        let mut done = 0;
        loop {
            match http::decode_message(&bytes[done..]) {
                Ok(Some(message)) => {
                    let head = &bytes[done..][message.head.clone()];
                    self.take_answer(slot, head, &message.body, reactor.now());
                    done += message.len;
                }
                Ok(None) => break,
                Err(fault) => {
                    self.counts.note_bad(|| format!("{fault:?}"));
                    reactor.close(slot, Ending::Reset);
                    return bytes.len();
                }
            }
        }
        self.publish(reactor);
        done
    }

    fn on_closed(&mut self, _reactor: &mut Reactor, slot: usize) {
        self.counts.dropped += 1;
        self.counts.first_fault.get_or_insert_with(|| "a connection was closed".to_owned());
        self.under_way[slot] = None;
        self.idle.retain(|idle| *idle != slot);
    }
}

/// How often a text occurs in another, without overlap.
fn count(text: &[u8], part: &[u8]) -> usize {
    let mut rest = text;
    let mut found = 0;
    while let Some(at) = wire::find(rest, part) {
        found += 1;
        rest = &rest[at + part.len()..];
    }
    found
}

/// Runs the scenario.
pub(crate) fn run(args: &PublishArgs) -> anyhow::Result<Report> {
    ensure!(
        args.batch > 0 && args.conns > 0 && args.rooms > 0,
        "--batch, --conns and --rooms are at least 1"
    );
    usage::allow_descriptors(args.conns)?;
    let target = args.common.target(args.conns)?;
    let text = target::payload(args.size);
    let data = serde_json::Value::from(&text[..args.size.min(text.len())]);
    let requests = (0..args.rooms).map(|room| {
        let room = args.room.replace("%ROOM%", &room.to_string());
        let event = serde_json::json!({ "event": args.event, "data": data, "room": room });
        target.post_request(&args.to, args.key.as_deref(), &format!("{event}\n").repeat(args.batch))
    });
    let mut publishing = Publishing {
        requests: requests.collect(),
        batch: args.batch,
        under_way: vec![None; args.conns],
        idle: (0..args.conns).collect(),
        begun: 0,
        answered: 0,
        busy: 0,
        latencies: Latencies::new(),
        counts: Counts::default(),
        every: args.rate.map(|rate| every(rate / args.batch as f64)).transpose()?,
        next_due: Instant::now(),
        is_stopping: false,
    };
    // 256 MiB: as for the swarm.
    let mut reactor = Reactor::new(256 << 20)?;
    for slot in 0..args.conns {
        reactor
            .open(slot, target.address, None)
            .with_context(|| format!("no connection to {}", target.address))?;
    }
    let (pids, measured, warmup) = (&args.common.pid, secs(args.secs)?, secs(args.warmup)?);
    let progress = Progress::new("publish", 1);
    publishing.drive(&mut reactor, Instant::now() + warmup)?;
    let begin = Sample::take(pids)?;
    let answered_before = publishing.answered;
    publishing.latencies.clear();
    publishing.drive(&mut reactor, Instant::now() + measured)?;
    let span = begin.until(&Sample::take(pids)?);
    let answered = publishing.answered - answered_before;
    drop(progress);

    let mut report = Report::new("publish", args.common.label.as_deref());
    report.add("conns", "connections", args.conns as u64, "");
    report.add("batch", "events in a request", args.batch as u64, "");
    report.add("size", "data", args.size as u64, "bytes");
    report.add("rate", "events due per second", args.rate, "");
    report.add_work(["event", "events"], answered, &span);
    report.add_latencies(&publishing.latencies);
    report.add("busy", "requests to be tried again", publishing.busy, "");
    publishing.is_stopping = true;
    publishing.drive(&mut reactor, Instant::now() + secs(args.common.timeout)?)?;
    let missing = publishing.under_way.iter().flatten().count() * args.batch;
    report.add_counts(&publishing.counts, missing as u64);
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::count;

    #[test]
    fn ids_are_counted() {
        assert_eq!(count(br#"{"events":[{"id":"a"},{"id":"b"}]}"#, b"\"id\":\""), 2);
        assert_eq!(count(b"", b"x"), 0);
    }
}
