//! Connections that only stay: the cost of opening one, of keeping one in memory, and of the heartbeats.

use std::time::{Duration, Instant};

use crate::args::{IdleArgs, secs};
use crate::report::Report;
use crate::swarm::Quiet;
use crate::usage::{self, Sample};

/// Runs the scenario.
pub(crate) fn run(args: &IdleArgs) -> anyhow::Result<Report> {
    let join = args.join.as_ref().map(|room| args.common.join(room, args.rooms, args.conns));
    let mut load = args.common.load(args.conns, join)?;
    let pids = &args.common.pid;
    let own_pid = [std::process::id()];

    let (memory_before, own_before) = (usage::memory(pids)?, usage::memory(&own_pid)?);
    let begin = Sample::take(pids)?;
    load.connect(0..args.conns, args.common.pace()?, &mut Quiet)?;
    let connected = Sample::take(pids)?;
    let connecting = begin.until(&connected);

    // Half a second: servers free handshake buffers a little later.
    load.poll_until(Instant::now() + Duration::from_millis(500), &mut Quiet)?;
    let (memory_after, own_after) = (usage::memory(pids)?, usage::memory(&own_pid)?);
    let hold_begin = Sample::take(pids)?;
    load.poll_until(Instant::now() + secs(args.hold)?, &mut Quiet)?;
    let holding = hold_begin.until(&Sample::take(pids)?);
    let memory_held = usage::memory(pids)?;

    let counts = &load.swarm.counts;
    let conns = args.conns as u64;
    let mut report = Report::new("idle", args.common.label.as_deref());
    report.add("conns", "connections", conns, "");
    report.add_work(["connect", "connects"], conns, &connecting);
    let kib_each = |before: Option<u64>, after: Option<u64>| {
        before.zip(after).map(|(b, a)| (a as f64 - b as f64) / 1024.0 / conns as f64)
    };
    let resident = kib_each(memory_before.map(|m| m.resident), memory_after.map(|m| m.resident));
    let anonymous = kib_each(memory_before.map(|m| m.anonymous), memory_after.map(|m| m.anonymous));
    let own = kib_each(own_before.map(|m| m.resident), own_after.map(|m| m.resident));
    report.add("rss_kib_per_conn", "server memory per connection", resident, "KiB");
    let held = kib_each(memory_before.map(|m| m.resident), memory_held.map(|m| m.resident));
    report.add("held_kib_per_conn", "the same after the hold", held, "KiB");
    report.add("anon_kib_per_conn", "of it anonymous", anonymous, "KiB");
    report.add("rss_before_kib", "server memory before", memory_before.map(|m| m.resident >> 10), "KiB");
    report.add("rss_after_kib", "server memory after", memory_after.map(|m| m.resident >> 10), "KiB");
    report.add("loadgen_kib_per_conn", "load generator's own per connection", own, "KiB");
    report.add("hold_secs", "hold", holding.wall.as_secs_f64(), "s");
    report.add("hold_cpu_pct", "server CPU in the hold", holding.server_cpu_pct(), "%");
    report.add("pings", "heartbeats answered", counts.pings, "");
    report.add_counts(counts, 0);
    Ok(report)
}
