//! A fan-out in which one subscriber stops to read but stays connected: what does it cost the server and the others?
//!
//! Phases in which everybody reads take turns with phases in which one does not, so that whatever else the machine does
//! falls on both; each turn is compared with itself, and medians are shown. A silent phase lasts until the server has cut
//! the silent one off, which it notices because it goes on answering heartbeats: those to a connection that is gone are
//! answered by a reset. What the silent one misses is not counted as missing.

use std::time::{Duration, Instant};

use anyhow::ensure;

use crate::args::{SlowArgs, secs};
use crate::reactor::Ending;
use crate::report::{Report, median};
use crate::swarm::{Load, Quiet};
use crate::usage::{self, Sample};

use super::fanout::{Fanout, drive, prepare};

/// The subscriber that stops to read.
const SILENT: usize = 0;
/// Time between two looks at the server's memory, each with a heartbeat of the silent one.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// By how much the others' 99th percentile may rise.
const P99_RATIO_MAX: f64 = 1.1;

/// One turn: everybody reads, then one does not.
struct Turn {
    /// Median, 99th percentile and maximum in milliseconds while all read, and while one does not.
    all: [Option<f64>; 3],
    others: [Option<f64>; 3],
    /// The most that the server's memory grew by in the silent phase, in KiB.
    growth_kib: Option<i64>,
    /// How long the silent phase took, and whether it ended with the silent one cut off.
    silent_secs: f64,
    is_cut: bool,
    deliveries: u64,
}

/// Runs the scenario.
pub(crate) fn run(args: &SlowArgs) -> anyhow::Result<Report> {
    let fan = &args.fanout;
    ensure!(fan.msgs.is_none(), "slow takes --secs, not --msgs");
    ensure!(fan.conns > fan.rooms, "slow needs another subscriber in the room of the first");
    ensure!(args.turns > 0, "--turns must be at least 1");
    let (pids, stall) = (&fan.common.pid, secs(fan.stall)?);
    let (mut load, mut fanout) = prepare(fan, fan.common.pace()?)?;

    fanout.next_due = Instant::now();
    drive(&mut load, &mut fanout, Some(Instant::now() + secs(fan.warmup)?), stall)?;
    let begin = Sample::take(pids)?;
    let mut turns = Vec::new();
    for _ in 0..args.turns {
        turns.push(take_turn(args, &mut load, &mut fanout)?);
    }
    let span = begin.until(&Sample::take(pids)?);

    let mut report = Report::new("slow", fan.common.label.as_deref());
    report.add("conns", "subscribers", fan.conns as u64, "");
    report.add("rooms", "rooms", fan.rooms as u64, "");
    report.add("size", "payload", fan.size as u64, "bytes");
    report.add("turns", "turns", args.turns as u64, "");
    report.add_work(["delivery", "deliveries"], turns.iter().map(|turn| turn.deliveries).sum(), &span);
    add_findings(&mut report, &turns, args.outbox_max);
    let mut counts = load.swarm.counts.clone();
    counts.dropped -= fanout.excused_drops;
    // The silent one is cut off; that is what the lines above tell, and no fault.
    counts.first_fault = counts.first_fault.filter(|_| counts.bad + counts.dropped + counts.failed > 0);
    report.add_counts(&counts, fanout.ledger.missing);
    Ok(report)
}

/// Both phases of a turn, and everybody back at its end.
fn take_turn(args: &SlowArgs, load: &mut Load, fanout: &mut Fanout) -> anyhow::Result<Turn> {
    let fan = &args.fanout;
    let stall = secs(fan.stall)?;

    fanout.ledger.restart();
    let before = run_phase(args, load, fanout, secs(fan.secs)?)?;
    let all = latencies(fanout);
    let mut deliveries = fanout.ledger.deliveries;

    load.reactor.pause(SILENT);
    fanout.ledger.excuse(SILENT, false);
    fanout.ledger.restart();
    let began_at = Instant::now();
    let most = run_phase(args, load, fanout, secs(args.silent_max)?)?;
    let (others, silent_secs) = (latencies(fanout), began_at.elapsed().as_secs_f64());
    deliveries += fanout.ledger.deliveries;
    let is_cut = !load.swarm.is_ready(SILENT);

    fanout.is_stopping = true;
    drive(load, fanout, None, stall)?;
    load.close(SILENT..SILENT + 1, Ending::Reset);
    load.connect(SILENT..SILENT + 1, fan.common.pace()?, &mut Quiet)?;
    fanout.ledger.readmit(SILENT);
    fanout.is_stopping = false;
    fanout.next_due = Instant::now();
    let growth_kib = most.zip(before).map(|(most, before)| most as i64 - before as i64);
    Ok(Turn { all, others, growth_kib, silent_secs, is_cut, deliveries })
}

/// Runs until the silent one is cut off, or for as long as `time_max`, with the same looks in both phases. Answers the
/// most memory that the server was seen with, in KiB.
fn run_phase(
    args: &SlowArgs,
    load: &mut Load,
    fanout: &mut Fanout,
    time_max: Duration,
) -> anyhow::Result<Option<u64>> {
    let (pids, stall) = (&args.fanout.common.pid, secs(args.fanout.stall)?);
    let until = Instant::now() + time_max;
    let mut most = None;
    while load.swarm.is_ready(SILENT) && Instant::now() < until {
        drive(load, fanout, Some(until.min(Instant::now() + LOOK_EVERY)), stall)?;
        most = most.max(usage::memory(pids)?.map(|memory| memory.resident >> 10));
        if load.swarm.is_ready(SILENT) {
            load.io().emit_text(SILENT, "3");
            load.reactor.flush();
        }
    }
    Ok(most)
}

fn latencies(fanout: &Fanout) -> [Option<f64>; 3] {
    [50.0, 99.0, 100.0].map(|percentile| fanout.ledger.latencies.ms(percentile))
}

/// What the turns have in common, and whether that is as it should be.
fn add_findings(report: &mut Report, turns: &[Turn], outbox_max: u64) {
    let over_turns = |pick: &dyn Fn(&Turn) -> Option<f64>| median(turns.iter().filter_map(pick).collect());
    for (key, label, at) in [
        ("p50_before_ms", "median, all reading", 0),
        ("p99_before_ms", "99th percentile, all reading", 1),
        ("max_before_ms", "maximum, all reading", 2),
    ] {
        report.add(key, label, over_turns(&|turn| turn.all[at]), "ms");
    }
    for (key, label, at) in [
        ("p50_ms", "median, one silent", 0),
        ("p99_ms", "99th percentile, one silent", 1),
        ("max_ms", "maximum, one silent", 2),
    ] {
        report.add(key, label, over_turns(&|turn| turn.others[at]), "ms");
    }
    let ratio = over_turns(&|turn| turn.others[1].zip(turn.all[1]).map(|(silent, all)| silent / all));
    let growth_kib = turns.iter().filter_map(|turn| turn.growth_kib).max();
    let cut_off = turns.iter().filter(|turn| turn.is_cut).count();
    report.add("p99_ratio", "99th percentile, the ratio", ratio, "");
    report.add("silent_secs", "silent phase", over_turns(&|turn| Some(turn.silent_secs)), "s");
    report.add("silent_cut_off", "silent phases that ended cut off", cut_off as u64, "");
    report.add("rss_growth_kib", "memory growth, the most", growth_kib, "KiB");
    report.add("outbox_max_kib", "of at most", outbox_max >> 10, "KiB");
    let is_within = |holds: Option<bool>| holds.map_or("unknown", |holds| if holds { "yes" } else { "no" });
    let verdict = format!(
        "cut off: {}, growth within the outbox: {}, p99 within 10 %: {}",
        is_within(Some(cut_off == turns.len())),
        is_within(growth_kib.map(|growth| growth <= (outbox_max >> 10) as i64)),
        is_within(ratio.map(|ratio| ratio <= P99_RATIO_MAX)),
    );
    report.add("verdict", "verdict", verdict, "");
}
