//! Acknowledged round trips: every connection keeps a window of them under way.
//!
//! Each argument carries its acknowledgement id, and the whole answer is compared with what was sent, so an answer that
//! is lost, doubled, mixed up with another or changed is noticed.

use std::time::{Duration, Instant};

use anyhow::ensure;

use crate::args::{EchoArgs, secs};
use crate::report::{Latencies, Report};
use crate::swarm::{Io, Quiet, Scenario};
use crate::target::{self, STAMP_BYTES, Template};
use crate::usage::Sample;
use crate::wire;

struct Echo {
    window: usize,
    /// The id of each round trip under way and when it began, `window` places for each link.
    under_way: Vec<Option<(u32, Instant)>>,
    next_ids: Vec<u32>,
    latencies: Latencies,
    done: u64,
    is_stopping: bool,
    /// An event up to its acknowledgement id.
    head: String,
    /// The event's name and its argument, with a hole for the id.
    event: Template,
    /// The answer's arguments, with a hole for the id.
    answer: Template,
}

impl Echo {
    fn begin(&mut self, io: &mut Io<'_>, link: usize) {
        let places = &mut self.under_way[link * self.window..][..self.window];
        let Some(vacant) = places.iter_mut().find(|p| p.is_none()) else { return };
        let id = self.next_ids[link];
        // Nine digits at most, as the wire module reads them back.
        self.next_ids[link] = (id + 1) % 1_000_000_000;
        *vacant = Some((id, io.now()));
        io.emit_acked(link, &self.head, &self.event, id);
    }
}

impl Scenario for Echo {
    fn on_message(&mut self, io: &mut Io<'_>, link: usize, text: &[u8]) {
        let answer = match wire::decode_packet(&text[1..], &io.swarm.target().namespace) {
            Ok(packet) if packet.kind == b'3' => packet,
            Ok(_) | Err(_) => {
                return io.swarm.counts.note_bad(|| format!("not an answer: {}", wire::excerpt(text)));
            }
        };
        let places = &mut self.under_way[link * self.window..][..self.window];
        let mut taken = places.iter_mut().filter_map(|p| p.take_if(|(id, _)| answer.ack == Some(*id)));
        let Some((id, began_at)) = taken.next() else {
            return io.swarm.counts.note_bad(|| format!("nobody asked for {}", wire::excerpt(text)));
        };
        if self.answer.number(answer.data) != Some(id) {
            io.swarm.counts.note_bad(|| format!("another answer than asked for: {}", wire::excerpt(text)));
        }
        self.done += 1;
        self.latencies.record(io.now().saturating_duration_since(began_at));
        if !self.is_stopping {
            self.begin(io, link);
        }
    }
}

/// Runs the scenario.
pub(crate) fn run(args: &EchoArgs) -> anyhow::Result<Report> {
    ensure!(args.size >= STAMP_BYTES, "--size must be at least {STAMP_BYTES}");
    ensure!(args.window > 0, "--window must be at least 1");
    let mut load = args.common.load(args.conns, None)?;
    let (pids, pace) = (&args.common.pid, args.common.pace()?);
    load.connect(0..args.conns, pace, &mut Quiet)?;

    let argument = format!("\"{}\"", target::payload(args.size));
    let name = serde_json::Value::from(args.echo_event.as_str());
    let mut echo = Echo {
        window: args.window,
        under_way: vec![None; args.conns * args.window],
        next_ids: vec![0; args.conns],
        latencies: Latencies::new(),
        done: 0,
        is_stopping: false,
        head: load.swarm.target().packet_head('2', None),
        event: Template::cut(&format!("[{name},{argument}]")),
        answer: Template::cut(&format!("[{argument}]")),
    };
    for link in 0..args.conns {
        for _ in 0..args.window {
            echo.begin(&mut load.io(), link);
        }
    }
    load.poll_until(Instant::now() + secs(args.warmup)?, &mut echo)?;

    let begin = Sample::take(pids)?;
    let reads_before = load.reactor.reads();
    echo.done = 0;
    echo.latencies.clear();
    load.poll_until(Instant::now() + secs(args.secs)?, &mut echo)?;
    let span = begin.until(&Sample::take(pids)?);
    let (done, reads) = (echo.done, load.reactor.reads() - reads_before);

    let mut report = Report::new("echo", args.common.label.as_deref());
    report.add("conns", "connections", args.conns as u64, "");
    report.add("window", "window", args.window as u64, "");
    report.add("size", "argument", args.size as u64, "bytes");
    report.add_work(["round trip", "round trips"], done, &span);
    report.add("units_per_read", "round trips per read", done as f64 / reads.max(1) as f64, "");
    report.add_latencies(&echo.latencies);

    echo.is_stopping = true;
    let deadline = Instant::now() + pace.timeout;
    while echo.under_way.iter().any(Option::is_some) && Instant::now() < deadline {
        load.poll(Duration::from_millis(50), &mut echo)?;
    }
    let missing = echo.under_way.iter().flatten().count() as u64;
    report.add_counts(&load.swarm.counts, missing);
    Ok(report)
}
