//! A fan-out in which one subscriber stops to read but stays connected: what does it cost the server and the others?
//!
//! The first half of the time everybody reads; then one does not. A server with bounded outboxes cuts it off or drops
//! for it; one without grows. What the silent one misses is not counted as missing.

use std::time::{Duration, Instant};

use anyhow::ensure;

use crate::args::{FanoutArgs, secs};
use crate::report::Report;
use crate::usage::{self, Sample};

use super::fanout::{drive, prepare};

/// The subscriber that stops to read.
const SILENT: usize = 0;

/// Runs the scenario.
pub(crate) fn run(args: &FanoutArgs) -> anyhow::Result<Report> {
    ensure!(args.msgs.is_none(), "slow takes --secs, not --msgs");
    ensure!(args.conns > args.rooms, "slow needs another subscriber in the room of the first");
    let (pace, stall) = (args.common.pace()?, secs(args.stall)?);
    let half = secs(args.secs)? / 2;
    let pids = &args.common.pid;
    let (mut load, mut fanout) = prepare(args, pace)?;

    fanout.next_due = Instant::now();
    drive(&mut load, &mut fanout, Some(Instant::now() + secs(args.warmup)?), stall)?;
    fanout.ledger.restart();
    drive(&mut load, &mut fanout, Some(Instant::now() + half), stall)?;
    let before = [50.0, 99.0, 100.0].map(|p| fanout.ledger.latencies.ms(p));
    let memory_before = usage::memory(pids)?;

    load.reactor.pause(SILENT);
    fanout.ledger.excuse(SILENT, false);
    fanout.ledger.restart();
    let begin = Sample::take(pids)?;
    drive(&mut load, &mut fanout, Some(Instant::now() + half), stall)?;
    let span = begin.until(&Sample::take(pids)?);
    let after = [50.0, 99.0, 100.0].map(|p| fanout.ledger.latencies.ms(p));
    let memory_after = usage::memory(pids)?;
    let deliveries = fanout.ledger.deliveries;

    fanout.is_stopping = true;
    drive(&mut load, &mut fanout, None, stall)?;
    let mut counts = load.swarm.counts.clone();
    counts.dropped -= fanout.excused_drops;
    let missing = fanout.ledger.missing;
    let is_cut = is_cut_off(&mut load)?;

    let mut report = Report::new("slow", args.common.label.as_deref());
    report.add("conns", "subscribers", args.conns as u64, "");
    report.add("rooms", "rooms", args.rooms as u64, "");
    report.add("size", "payload", args.size as u64, "bytes");
    report.add_work(["delivery", "deliveries"], deliveries, &span);
    for (key, label, value) in [
        ("p50_before_ms", "median, all reading", before[0]),
        ("p50_ms", "median, one silent", after[0]),
        ("p99_before_ms", "99th percentile, all reading", before[1]),
        ("p99_ms", "99th percentile, one silent", after[1]),
        ("max_before_ms", "maximum, all reading", before[2]),
        ("max_ms", "maximum, one silent", after[2]),
    ] {
        report.add(key, label, value, "ms");
    }
    let kib = |m: Option<usage::Memory>| m.map(|m| m.resident >> 10);
    let growth = kib(memory_before).zip(kib(memory_after)).map(|(b, a)| a as i64 - b as i64);
    report.add("rss_before_kib", "server memory, all reading", kib(memory_before), "KiB");
    report.add("rss_after_kib", "server memory, one silent", kib(memory_after), "KiB");
    report.add("rss_growth_kib", "growth", growth, "KiB");
    report.add("silent_cut_off", "silent one cut off", if is_cut { "yes" } else { "no" }, "");
    // The silent one may be cut off at any time; that is what the line above tells, and no fault.
    counts.first_fault = counts.first_fault.filter(|_| counts.bad + counts.dropped + counts.failed > 0);
    report.add_counts(&counts, missing);
    Ok(report)
}

/// Lets the silent one read again, for a second, and tells whether its connection was ended meanwhile.
fn is_cut_off(load: &mut crate::swarm::Load) -> anyhow::Result<bool> {
    load.reactor.resume(SILENT);
    load.poll_until(Instant::now() + Duration::from_secs(1), &mut Ignore)?;
    Ok(!load.swarm.is_ready(SILENT))
}

/// Hears everything and judges nothing.
struct Ignore;

impl crate::swarm::Scenario for Ignore {
    fn on_message(&mut self, _io: &mut crate::swarm::Io<'_>, _link: usize, _text: &[u8]) {}
}
