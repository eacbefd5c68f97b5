//! Publications to rooms: every subscriber must get each one of its room, once, in order and unchanged.
//!
//! Publications are numbered; the number travels in the payload. Publication n goes to room n modulo the rooms, so each
//! subscriber knows which number comes next. Latency counts from the publisher's emit (in an open loop from when it was
//! due, so that a stalled server cannot hide its stall) to the subscriber's read.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::ensure;

use crate::args::{FanoutArgs, secs};
use crate::progress::Progress;
use crate::report::{Latencies, Report};
use crate::swarm::{Io, Load, Pace, Quiet, Scenario};
use crate::target::{self, STAMP_BYTES, Template};
use crate::usage::Sample;
use crate::wire;

/// Publications under way in an open loop at which the server counts as left behind and publishing pauses.
const BEHIND_MAX: usize = 10_000;

/// In place of the next number: nothing more is expected of this subscriber.
const EXCUSED: u32 = u32::MAX;

/// One publication that has not reached everybody.
struct Flight {
    began_at: Instant,
    left: u32,
}

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
    subscribers: usize,
    rooms: u32,
    templates: Vec<Template>,
    delivery: Option<Template>,
    members: Vec<u32>,
    /// The number that each subscriber must get next.
    expected: Vec<u32>,
    /// Publications under way: `first`, `first + 1` and so on.
    flights: VecDeque<Flight>,
    first: u32,
    limit: Option<u32>,
    pub(super) latencies: Latencies,
    pub(super) deliveries: u64,
    pub(super) missing: u64,
    /// Subscribers that ended after nothing more was expected of them.
    pub(super) excused_drops: u64,
    pub(super) is_stopping: bool,
    pace: Loop,
    pub(super) next_due: Instant,
}

impl Fanout {
    fn new(args: &FanoutArgs, load: &Load) -> anyhow::Result<Self> {
        let join = args.common.join(&args.room, args.rooms, args.conns);
        let data = format!("\"{}\"", target::payload(args.size));
        let target = load.swarm.target();
        let template = |room| {
            let name = join.room_of(room);
            let argument = args.pub_arg.replace("%ROOM%", &name).replace("%DATA%", &data);
            Template::cut(&target.event_packet(None, &args.pub_event, &argument))
        };
        let delivery = Template::cut(&target.event_packet(None, &args.msg_event, &data));
        let pace = match args.rate {
            Some(rate) => {
                ensure!(rate > 0.0 && rate.is_finite(), "--rate must be above 0");
                Loop::Open { every: Duration::from_secs_f64(1.0 / rate) }
            }
            None => Loop::Closed { window: args.window },
        };
        Ok(Self {
            subscribers: args.conns,
            rooms: args.rooms as u32,
            templates: (0..args.rooms).map(template).collect(),
            delivery: (!args.common.loose).then_some(delivery),
            members: (0..args.rooms).map(|r| ((args.conns - r).div_ceil(args.rooms)) as u32).collect(),
            expected: (0..args.conns).map(|link| (link % args.rooms) as u32).collect(),
            flights: VecDeque::new(),
            first: 0,
            limit: args.msgs,
            latencies: Latencies::new(),
            deliveries: 0,
            missing: 0,
            excused_drops: 0,
            is_stopping: false,
            pace,
            next_due: Instant::now(),
        })
    }

    /// Publishes what may be published now.
    fn publish(&mut self, io: &mut Io<'_>) {
        loop {
            let number = self.first.wrapping_add(self.flights.len() as u32);
            if self.is_ending() {
                return;
            }
            let began_at = match self.pace {
                Loop::Closed { window } if self.flights.len() < window => io.now(),
                Loop::Open { every } if self.next_due <= io.now() && self.flights.len() < BEHIND_MAX => {
                    let due = self.next_due;
                    self.next_due += every;
                    due
                }
                Loop::Closed { .. } | Loop::Open { .. } => return,
            };
            let room = (number % self.rooms) as usize;
            self.flights.push_back(Flight { began_at, left: self.members[room] });
            io.emit(self.subscribers, &self.templates[room], number);
        }
    }

    /// Whether no more will be published.
    fn is_ending(&self) -> bool {
        let next = self.first.wrapping_add(self.flights.len() as u32);
        self.is_stopping || self.limit.is_some_and(|limit| next >= limit)
    }

    /// How long the loop may wait before something is due.
    fn wait(&self) -> Duration {
        // 20 ms: an idle loop still notices the end of its time.
        let idle = Duration::from_millis(20);
        match self.pace {
            Loop::Closed { .. } => idle,
            Loop::Open { .. } => self.next_due.saturating_duration_since(Instant::now()).min(idle),
        }
    }

    /// Takes publications off that have reached everybody.
    fn land(&mut self) {
        while self.flights.front().is_some_and(|f| f.left == 0) {
            self.flights.pop_front();
            self.first = self.first.wrapping_add(1);
        }
    }

    /// Counts the deliveries to `link` from the expected number up to (not including) `number` as missing.
    fn skip_to(&mut self, link: usize, number: u32, is_missing: bool) {
        while self.expected[link] < number {
            let at = self.expected[link].wrapping_sub(self.first) as usize;
            if let Some(flight) = self.flights.get_mut(at) {
                flight.left = flight.left.saturating_sub(1);
                self.missing += u64::from(is_missing);
            }
            self.expected[link] += self.rooms;
        }
        self.land();
    }

    /// Gives up on all that is under way.
    fn give_up(&mut self) {
        let next = self.first.wrapping_add(self.flights.len() as u32);
        for link in 0..self.subscribers {
            if self.expected[link] != EXCUSED {
                self.skip_to(link, next, true);
            }
        }
    }

    /// Expects nothing more for `link`: it reads no longer.
    pub(super) fn excuse(&mut self, link: usize, is_missing: bool) {
        let next = self.first.wrapping_add(self.flights.len() as u32);
        self.skip_to(link, next, is_missing);
        self.expected[link] = EXCUSED;
        self.members[link % self.rooms as usize] -= 1;
    }
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
        let Some(&expected) = self.expected.get(link) else {
            return io.swarm.counts.note_bad(|| format!("the publisher got {}", wire::excerpt(text)));
        };
        if expected == EXCUSED {
            return;
        }
        let under_way = number.wrapping_sub(self.first) as usize;
        let is_ours = number % self.rooms == link as u32 % self.rooms && under_way < self.flights.len();
        if !is_ours || number < expected {
            return io
                .swarm
                .counts
                .note_bad(|| format!("connection {link} got publication {number}, but {expected} was next"));
        }
        if number > expected {
            self.skip_to(link, number, true);
        }
        self.expected[link] = number + self.rooms;
        let at = number.wrapping_sub(self.first) as usize;
        if let Some(flight) = self.flights.get_mut(at) {
            flight.left = flight.left.saturating_sub(1);
            self.deliveries += 1;
            self.latencies.record(io.now().saturating_duration_since(flight.began_at));
            if flight.left == 0 {
                self.land();
                self.publish(io);
            }
        }
    }

    fn on_dropped(&mut self, io: &mut Io<'_>, link: usize) {
        if self.expected.get(link) == Some(&EXCUSED) {
            self.excused_drops += 1;
        } else if link < self.subscribers {
            self.excuse(link, true);
            self.publish(io);
        }
    }
}

/// Runs `fanout` until `until`, or until all publications have landed. Stops waiting for deliveries after `stall` without any.
pub(super) fn drive(
    load: &mut Load,
    fanout: &mut Fanout,
    until: Option<Instant>,
    stall: Duration,
) -> anyhow::Result<()> {
    let mut seen = fanout.deliveries;
    let mut seen_at = Instant::now();
    loop {
        let now = Instant::now();
        if until.is_some_and(|until| now >= until) {
            return Ok(());
        }
        ensure!(load.swarm.is_ready(fanout.subscribers), "the publisher was dropped");
        fanout.publish(&mut load.io());
        if until.is_none() && fanout.flights.is_empty() && fanout.is_ending() {
            return Ok(());
        }
        load.poll(fanout.wait(), fanout)?;
        if fanout.deliveries != seen || fanout.flights.is_empty() {
            (seen, seen_at) = (fanout.deliveries, now);
        } else if seen_at.elapsed() > stall {
            fanout.give_up();
            seen_at = now;
        }
    }
}

/// A load with its subscribers in their rooms and a publisher behind them.
pub(super) fn prepare(args: &FanoutArgs, pace: Pace) -> anyhow::Result<(Load, Fanout)> {
    ensure!(args.size >= STAMP_BYTES, "--size must be at least {STAMP_BYTES}");
    ensure!((1..=args.conns).contains(&args.rooms), "--rooms must be between 1 and --conns");
    ensure!(args.window > 0, "--window must be at least 1");
    let join = args.common.join(&args.room, args.rooms, args.conns);
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
    fanout.deliveries = 0;
    fanout.latencies.clear();
    let until = args.msgs.is_none().then(|| Instant::now() + measured);
    drive(&mut load, &mut fanout, until, stall)?;
    let span = begin.until(&Sample::take(pids)?);
    let (deliveries, reads) = (fanout.deliveries, load.reactor.reads() - reads_before);
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
    report.add_latencies(&fanout.latencies);

    fanout.is_stopping = true;
    drive(&mut load, &mut fanout, None, stall)?;
    report.add_counts(&load.swarm.counts, fanout.missing);
    Ok(report)
}
