//! Events that are only counted, as fast as the server takes them, in rounds that an acknowledged event closes.
//!
//! The frames of a round are built once and sent again and again, so that the generator is not what is measured.

use std::time::{Duration, Instant};

use anyhow::ensure;

use crate::args::{IngestArgs, secs};
use crate::progress::Progress;
use crate::report::{Latencies, Report};
use crate::swarm::{Io, Load, Quiet, Scenario};
use crate::target;
use crate::usage::Sample;
use crate::wire;

/// Bytes sent to the reactor at a time; the kernel takes a part of it, the rest waits.
const CHUNK_BYTES: usize = 1 << 20;
/// The id of the event that closes a round.
const ROUND_ID: u32 = 1;
/// The id of the question how many events were counted.
const COUNT_ID: u32 = 2;

struct Ingest {
    /// Events of the round that each link has not sent yet.
    unsent: Vec<u64>,
    is_waiting: Vec<bool>,
    round_began: Vec<Instant>,
    rounds: u64,
    latencies: Latencies,
    counted: Option<u64>,
}

impl Scenario for Ingest {
    fn on_message(&mut self, io: &mut Io<'_>, link: usize, text: &[u8]) {
        let packet = wire::decode_packet(&text[1..], &io.swarm.target().namespace).ok();
        match packet.filter(|p| p.kind == b'3').map(|p| (p.ack, p.data)) {
            Some((Some(ROUND_ID), b"[\"round\"]")) if self.is_waiting[link] => {
                self.is_waiting[link] = false;
                self.rounds += 1;
                self.latencies.record(io.now().saturating_duration_since(self.round_began[link]));
            }
            Some((Some(COUNT_ID), data)) => {
                self.counted = serde_json::from_slice::<[u64; 1]>(data).ok().map(|[n]| n)
            }
            _ => io.swarm.counts.note_bad(|| format!("unexpected packet: {}", wire::excerpt(text))),
        }
    }
}

/// Runs the scenario.
pub(crate) fn run(args: &IngestArgs) -> anyhow::Result<Report> {
    ensure!(args.msgs > 0, "--msgs must be at least 1");
    let mut load = args.common.load(args.conns, None)?;
    let (pids, pace) = (&args.common.pid, args.common.pace()?);
    load.connect(0..args.conns, pace, &mut Quiet)?;
    let mut ingest = Ingest {
        unsent: vec![0; args.conns],
        is_waiting: vec![false; args.conns],
        round_began: vec![Instant::now(); args.conns],
        rounds: 0,
        latencies: Latencies::new(),
        counted: None,
    };
    let counted_before = ask_count(args, &mut load, &mut ingest)?;

    let text = target::payload(args.size);
    let packet = load.swarm.target().event_packet(
        None,
        &args.sink_event,
        &format!("\"{}\"", &text[..args.size.min(text.len())]),
    );
    let closing = load.swarm.target().event_packet(Some(ROUND_ID), &args.echo_event, "\"round\"");
    let mut frames = Vec::new();
    let mut per_chunk = 0;
    while frames.len() < CHUNK_BYTES && per_chunk < args.msgs {
        let key = load.swarm.next_key();
        wire::encode_client_text(&[packet.as_bytes()], key, &mut frames);
        per_chunk += 1;
    }
    let frame_bytes = frames.len() / per_chunk as usize;

    let begin = Sample::take(pids)?;
    let until = Instant::now() + secs(args.secs)?;
    let mut begun = 0u64;
    let mut progress =
        Progress::new("ingest", until.saturating_duration_since(Instant::now()).as_millis() as u64);
    let mut last_progress = Instant::now();
    loop {
        let now = Instant::now();
        let mut is_busy = false;
        for link in 0..args.conns {
            if !load.swarm.is_ready(link) {
                continue;
            }
            if !ingest.is_waiting[link] && now < until {
                ingest.unsent[link] = args.msgs;
                ingest.is_waiting[link] = true;
                ingest.round_began[link] = now;
                begun += 1;
            }
            while ingest.unsent[link] > 0 && load.reactor.unsent_bytes(link) == 0 {
                let n = ingest.unsent[link].min(per_chunk);
                load.reactor.send(link, &frames[..n as usize * frame_bytes]);
                ingest.unsent[link] -= n;
                last_progress = now;
                if ingest.unsent[link] == 0 {
                    load.io().emit_text(link, &closing);
                    load.reactor.flush();
                }
            }
            is_busy |= ingest.is_waiting[link];
        }
        if !is_busy || last_progress.elapsed() > pace.timeout {
            break;
        }
        let rounds = ingest.rounds;
        load.poll(Duration::from_millis(20), &mut ingest)?;
        if ingest.rounds > rounds {
            last_progress = Instant::now();
        }
        progress.show(progress_ms(until, args.secs));
    }
    let span = begin.until(&Sample::take(pids)?);
    drop(progress);

    let events = ingest.rounds * args.msgs;
    let mut missing = (begun - ingest.rounds) * args.msgs;
    if let (Some(before), Some(after)) = (counted_before, ask_count(args, &mut load, &mut ingest)?) {
        missing = (begun * args.msgs).abs_diff(after.wrapping_sub(before));
    }
    let mut report = Report::new("ingest", args.common.label.as_deref());
    report.add("conns", "connections", args.conns as u64, "");
    report.add("size", "argument", args.size as u64, "bytes");
    report.add("rounds", "rounds", ingest.rounds, "");
    report.add_work(["event", "events"], events, &span);
    report.add_latencies(&ingest.latencies);
    report.add_counts(&load.swarm.counts, missing);
    Ok(report)
}

fn progress_ms(until: Instant, secs: f64) -> u64 {
    let left = until.saturating_duration_since(Instant::now());
    (secs * 1000.0) as u64 - (left.as_millis() as u64).min((secs * 1000.0) as u64)
}

/// Asks the server for its count of sink events; `None` without `--count-event`.
fn ask_count(args: &IngestArgs, load: &mut Load, ingest: &mut Ingest) -> anyhow::Result<Option<u64>> {
    let Some(event) = &args.count_event else { return Ok(None) };
    ensure!(load.swarm.is_ready(0), "the connection that asks for the count is gone");
    ingest.counted = None;
    let packet = load.swarm.target().event_packet(Some(COUNT_ID), event, "null");
    load.io().emit_text(0, &packet);
    let deadline = Instant::now() + secs(args.common.timeout)?;
    while ingest.counted.is_none() {
        ensure!(Instant::now() < deadline, "{event} was not answered with a number");
        load.poll(Duration::from_millis(20), ingest)?;
    }
    Ok(ingest.counted)
}
