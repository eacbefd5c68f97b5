//! Publications to rooms: every subscriber must get each one of its room, once, in order and unchanged.
//!
//! Publications are numbered, and the number travels in the payload; the books are in `ledger.rs`. Latency counts from the publisher's emit (in an open loop from when it was
//! due, so that a stalled server cannot hide its stall) to the subscriber's read.

use std::time::{Duration, Instant};

use anyhow::ensure;

use crate::args::{FanoutArgs, secs};
use crate::progress::Progress;
use crate::report::Report;
use crate::swarm::{Io, Load, Pace, Quiet, Scenario};
use crate::target::{self, Template, payload_json};
use crate::usage::Sample;
use crate::wire;

use super::ledger::Ledger;

/// Publications under way in an open loop at which the server counts as left behind and publishing pauses.
pub(super) const BEHIND_MAX: usize = 10_000;

/// How long a loop waits when nothing is due: short enough to notice the end of its time.
pub(super) const IDLE_WAIT: Duration = Duration::from_millis(20);

/// When to publish.
#[derive(Clone, Copy, Debug)]
enum Loop {
    /// Keep this many under way.
    Closed { window: usize },
    /// One every so often.
    Open { every: Duration },
}

/// The state of a fan-out; also what `slow` is made of.
pub(super) struct Fanout {
    pub(super) ledger: Ledger,
    subscribers: usize,
    templates: Vec<Template>,
    delivery: Option<Template>,
    limit: Option<u32>,
    /// Subscribers that ended after nothing more was expected of them.
    pub(super) excused_drops: u64,
    pub(super) is_stopping: bool,
    pace: Loop,
    pub(super) next_due: Instant,
}

impl Fanout {
    fn new(args: &FanoutArgs, load: &Load) -> anyhow::Result<Self> {
        let target = load.swarm.target();
        let pace = match args.rate {
            Some(rate) => Loop::Open { every: every(rate)? },
            None => Loop::Closed { window: args.window },
        };
        let delivery = Template::cut(&target.event_packet(None, &args.msg_event, &payload_json(args.size)));
        Ok(Self {
            ledger: Ledger::new(args.conns, args.rooms),
            subscribers: args.conns,
            templates: (0..args.rooms).map(|room| Template::cut(&args.publication(target, room))).collect(),
            delivery: (!args.common.loose).then_some(delivery),
            limit: args.msgs,
            excused_drops: 0,
            is_stopping: false,
            pace,
            next_due: Instant::now(),
        })
    }

    /// Publishes what may be published now.
    fn publish(&mut self, io: &mut Io<'_>) {
        while !self.is_ending() {
            let began_at = match self.pace {
                Loop::Closed { window } if self.ledger.under_way() < window => io.now(),
                Loop::Open { every } if self.next_due <= io.now() && self.ledger.under_way() < BEHIND_MAX => {
                    let due = self.next_due;
                    self.next_due += every;
                    due
                }
                Loop::Closed { .. } | Loop::Open { .. } => return,
            };
            let (number, room) = self.ledger.begin(began_at);
            io.emit(self.subscribers, &self.templates[room], number);
        }
    }

    /// Whether no more will be published.
    fn is_ending(&self) -> bool {
        self.is_stopping || self.limit.is_some_and(|limit| self.ledger.next() >= limit)
    }

    /// How long the loop may wait before something is due.
    fn wait(&self) -> Duration {
        match self.pace {
            Loop::Closed { .. } => IDLE_WAIT,
            Loop::Open { .. } => self.next_due.saturating_duration_since(Instant::now()).min(IDLE_WAIT),
        }
    }
}

/// The time between two publications at `rate` a second.
///
/// # Errors
/// The caller's: not above 0.
pub(super) fn every(rate: f64) -> anyhow::Result<Duration> {
    ensure!(rate > 0.0 && rate.is_finite(), "--rate must be above 0");
    Ok(Duration::try_from_secs_f64(1.0 / rate)?)
}

impl Scenario for Fanout {
    fn on_message(&mut self, io: &mut Io<'_>, link: usize, text: &[u8]) {
        let number = match &self.delivery {
            Some(template) => template.number(text),
            None => target::stamped_number(text),
        };
        let Some(number) = number else {
            // Around its payloads another server than the fixture may tell more, as far as it likes.
            if self.delivery.is_some() {
                io.swarm.counts.note_bad(|| format!("not a delivery: {}", wire::excerpt(text)));
            }
            return;
        };
        match self.ledger.deliver(link, number, io.now()) {
            Ok(true) => self.publish(io),
            Ok(false) => {}
            Err(why) => io.swarm.counts.note_bad(|| why),
        }
    }

    fn on_dropped(&mut self, io: &mut Io<'_>, link: usize) {
        self.excused_drops += u64::from(self.ledger.is_excused(link));
        self.ledger.excuse(link, true);
        self.publish(io);
    }
}

/// Runs `fanout` until `until`, or until all publications have landed. Stops waiting for deliveries after `stall` without any.
pub(super) fn drive(
    load: &mut Load,
    fanout: &mut Fanout,
    until: Option<Instant>,
    stall: Duration,
) -> anyhow::Result<()> {
    let mut seen = fanout.ledger.deliveries;
    let mut seen_at = Instant::now();
    loop {
        let now = Instant::now();
        if until.is_some_and(|until| now >= until) {
            return Ok(());
        }
        let is_ready = load.swarm.is_ready(fanout.subscribers);
        ensure!(is_ready, "the publisher is not there; {}", load.swarm.counts.first_words());
        fanout.publish(&mut load.io());
        if until.is_none() && fanout.ledger.under_way() == 0 && fanout.is_ending() {
            return Ok(());
        }
        load.poll(fanout.wait(), fanout)?;
        if fanout.ledger.deliveries != seen || fanout.ledger.under_way() == 0 {
            (seen, seen_at) = (fanout.ledger.deliveries, now);
        } else if seen_at.elapsed() > stall {
            fanout.ledger.give_up();
            seen_at = now;
        }
    }
}

/// A load with its subscribers in their rooms and a publisher behind them.
pub(super) fn prepare(args: &FanoutArgs, pace: Pace) -> anyhow::Result<(Load, Fanout)> {
    args.check()?;
    let join = args.subscription();
    let mut load = args.common.load(args.conns + 1, Some(join))?;
    load.connect(0..args.conns + 1, pace, &mut Quiet)?;
    let fanout = Fanout::new(args, &load)?;
    Ok((load, fanout))
}

/// Runs the scenario.
pub(crate) fn run(args: &FanoutArgs) -> anyhow::Result<Report> {
    let (pace, stall) = (args.common.pace()?, secs(args.stall)?);
    let (mut load, mut fanout) = prepare(args, pace)?;
    let pids = &args.common.pid;
    let measured = secs(args.secs)?;
    let progress = Progress::new("fan-out", 1);

    fanout.next_due = Instant::now();
    if args.msgs.is_none() {
        drive(&mut load, &mut fanout, Some(Instant::now() + secs(args.warmup)?), stall)?;
    }
    let begin = Sample::take(pids)?;
    let reads_before = load.reactor.reads();
    fanout.ledger.restart();
    let until = args.msgs.is_none().then(|| Instant::now() + measured);
    drive(&mut load, &mut fanout, until, stall)?;
    let span = begin.until(&Sample::take(pids)?);
    let (deliveries, reads) = (fanout.ledger.deliveries, load.reactor.reads() - reads_before);
    drop(progress);

    let mut report = Report::new("fanout", args.common.label.as_deref());
    report.add("conns", "subscribers", args.conns as u64, "");
    report.add("rooms", "rooms", args.rooms as u64, "");
    report.add("size", "payload", args.size as u64, "bytes");
    match args.rate {
        Some(rate) => report.add("rate", "publications due per second", rate, ""),
        None => report.add("window", "publications under way", args.window as u64, ""),
    }
    report.add_work(["delivery", "deliveries"], deliveries, &span);
    report.add("units_per_read", "deliveries per read", deliveries as f64 / reads.max(1) as f64, "");
    report.add_latencies(&fanout.ledger.latencies);

    fanout.is_stopping = true;
    drive(&mut load, &mut fanout, None, stall)?;
    report.add_counts(&load.swarm.counts, fanout.ledger.missing);
    Ok(report)
}
