//! All connections are cut at once and come back as fast as they can.

use std::time::Instant;

use crate::args::{Close, StormArgs};
use crate::reactor::Ending;
use crate::report::{Latencies, Report};
use crate::swarm::{Io, Quiet, Scenario};
use crate::usage::{self, Sample};

/// Measures how long each handshake takes.
struct Storm {
    latencies: Latencies,
    quiet: Quiet,
}

impl Scenario for Storm {
    fn on_message(&mut self, io: &mut Io<'_>, link: usize, text: &[u8]) {
        self.quiet.on_message(io, link, text);
    }

    fn on_ready(&mut self, io: &mut Io<'_>, link: usize) {
        let opened_at = io.swarm.opened_at(link);
        self.latencies.record(io.now().saturating_duration_since(opened_at));
    }
}

/// Runs the scenario.
pub(crate) fn run(args: &StormArgs) -> anyhow::Result<Report> {
    let join = args.join.as_ref().map(|room| args.common.join(room, args.rooms, args.conns));
    let mut load = args.common.load(args.conns, join)?;
    let (pids, pace) = (&args.common.pid, args.common.pace()?);
    load.connect(0..args.conns, pace, &mut Quiet)?;
    let memory_before = usage::memory(pids)?;

    let mut storm = Storm { latencies: Latencies::new(), quiet: Quiet };
    let ending = match args.close {
        Close::Rst => Ending::Reset,
        Close::Fin => Ending::Fin,
    };
    let begin = Sample::take(pids)?;
    let began_at = Instant::now();
    for _ in 0..args.rounds {
        load.close(0..args.conns, ending);
        load.connect(0..args.conns, pace, &mut storm)?;
    }
    let all_back = began_at.elapsed();
    let span = begin.until(&Sample::take(pids)?);
    let memory_after = usage::memory(pids)?;

    let mut report = Report::new("storm", args.common.label.as_deref());
    report.add("conns", "connections", args.conns as u64, "");
    report.add("rounds", "storms", args.rounds as u64, "");
    report.add("all_back_secs", "all back after", all_back.as_secs_f64() / args.rounds.max(1) as f64, "s");
    report.add_work(["reconnect", "reconnects"], (args.conns * args.rounds) as u64, &span);
    report.add_latencies(&storm.latencies);
    report.add("rss_before_kib", "server memory before", memory_before.map(|m| m.resident >> 10), "KiB");
    report.add("rss_after_kib", "server memory after", memory_after.map(|m| m.resident >> 10), "KiB");
    report.add_counts(&load.swarm.counts, 0);
    Ok(report)
}
