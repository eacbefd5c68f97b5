//! `cargo xtask cluster`: several servers and one Redis under load, while clients lose their connections, servers are killed
//! and started again, and what they hear from Redis is cut; and whether everybody got everything once, in order.
//!
//! Owns the course of a run and what is told of it. What must hold is in `ledger.rs`, servers in `nodes.rs`, what breaks in
//! `breaking.rs`, publishing in `publisher.rs`, watching in `watchers.rs` and the programs that it starts.

mod breaking;
mod ledger;
mod machine;
mod nodes;
mod publisher;
mod returns;
mod watchers;

use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::json;

use crate::project;
use breaking::Breaking;
use ledger::Ledger;
use machine::Cpu;
use nodes::Node;
pub(crate) use nodes::Redis;
use publisher::{Lines, Published, Publisher};
use returns::Returns;
use watchers::{Told, Watchers};

/// How long is waited, when all has been published, until nothing new has come for that time.
const SETTLED_AFTER: Duration = Duration::from_secs(60);
/// Numbers of the events that begin each room's log, times the number of rooms: beyond those that are counted.
const FIRST: usize = 1_000_000_000;
/// Time in which all watchers must have joined.
const JOIN_LIMIT: Duration = Duration::from_secs(180);
/// Watchers of ours in one process: each takes some seven descriptors.
const WATCHERS_MAX: u32 = 2_000;
/// Stock clients in one process: it has one thread, which a thousand of them fill at ten events a second.
const STOCK_MAX: u32 = 250;
/// Between two lines of progress.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);

/// Flags of the chore.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Servers; 1 goes without Redis.
    #[arg(long, default_value_t = 3)]
    nodes: usize,
    /// Watchers of ours.
    #[arg(long, default_value_t = 60)]
    clients: u32,
    /// Watchers that are stock JavaScript clients.
    #[arg(long, default_value_t = 12)]
    stock: u32,
    /// Rooms.
    #[arg(long, default_value_t = 3)]
    rooms: usize,
    /// Rooms that each watches; 0: all.
    #[arg(long, default_value_t = 0)]
    rooms_each: usize,
    /// Seconds of publishing.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Events a second.
    #[arg(long, default_value_t = 50)]
    rate: u32,
    /// Publishers that share the rate.
    #[arg(long, default_value_t = 4)]
    publishers: u64,
    /// Seconds after which a watcher cuts its own connection, on average; 0: never.
    #[arg(long, default_value_t = 10)]
    drop_every: u64,
    /// Seconds that it then stays away at most; how long is left to chance.
    #[arg(long, default_value_t = 2)]
    drop_secs: u64,
    /// How many in a hundred stock clients only poll. Of the others, one in two opens a WebSocket at once.
    #[arg(long, default_value_t = 33)]
    polling_share: u32,
    /// Seconds after which a server is killed and started again; 0: never.
    #[arg(long, default_value_t = 15)]
    kill_every: u64,
    /// End servers by SIGTERM, and let them drain, instead of killing them.
    #[arg(long)]
    stop: bool,
    /// Connections a second that a server lets go at most while it drains; 0: no bound.
    #[arg(long, default_value_t = 0)]
    drain_rate: u32,
    /// Seconds that a killed server stays away.
    #[arg(long, default_value_t = 3)]
    away: u64,
    /// Seconds after which Redis cuts all subscribers; 0: never.
    #[arg(long, default_value_t = 10)]
    cut_every: u64,
    /// Keep one event from the books, to see that it is missed: the run must fail.
    #[arg(long)]
    plant_loss: bool,
    /// Cargo profile of the servers and watchers.
    #[arg(long, default_value = "quick")]
    profile: String,
    /// This binary instead of one that is built now.
    #[arg(long)]
    server: Option<PathBuf>,
    /// Write all figures to this file.
    #[arg(long)]
    json: Option<PathBuf>,
}

impl Args {
    fn rooms_each(&self) -> usize {
        if self.rooms_each == 0 { self.rooms } else { self.rooms_each.min(self.rooms) }
    }
}

/// What is counted besides the books.
#[derive(Default)]
struct Counts {
    published: u64,
    retries: u64,
    joins: u64,
    drops: u64,
    recovered: u64,
    afresh: u64,
    kills: u64,
    /// Connections of servers to Redis that were cut.
    cuts: u64,
    returns: Returns,
    /// Seconds for which it was published.
    publishing_secs: f64,
    /// Milliseconds from publishing to seeing, each with how often it was seen.
    delays: BTreeMap<u64, u64>,
}

/// Runs the soak; whether everybody got everything.
///
/// # Errors
/// The caller's: flags that make no run. The environment's: something that is needed cannot be built or run.
pub(crate) fn run(args: &Args) -> anyhow::Result<bool> {
    ensure!(
        args.nodes > 0 && args.rooms > 0 && args.rate > 0 && args.publishers > 0,
        "there must be something to do"
    );
    let root = project::root()?;
    let server = match &args.server {
        Some(server) => server.clone(),
        None => project::build("fanfare", &["--profile", &args.profile, "-p", "fanfare"])?,
    };
    let example = ["--profile", &args.profile, "-p", "sio-client", "--example", "watch_rooms"];
    let ours = if args.clients > 0 { Some(project::build("watch_rooms", &example)?) } else { None };
    if args.stock > 0 {
        install(&root)?;
    }

    let then = Cpu::now()?;
    let folder = std::env::temp_dir().join(format!("fanfare-cluster-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let redis = if args.nodes > 1 { Some(Redis::start(&folder)?) } else { None };
    let mut nodes = Vec::new();
    for nth in 0..args.nodes {
        let folder = folder.join(format!("node-{nth}"));
        nodes.push(Node::start(&server, folder, redis.as_ref().map(Redis::url), args.drain_rate)?);
    }
    let addresses: Vec<SocketAddr> = nodes.iter().map(|node| node.address).collect();
    let rooms: Vec<Box<str>> = (0..args.rooms).map(|nth| format!("project:soak-{nth}").into()).collect();

    // A room without events has no log yet, and whoever joins it no place to go on from.
    let mut first = Publisher {
        lines: Lines::to(&addresses),
        rooms: rooms.clone(),
        number: 0,
        of: 1,
        every: Duration::ZERO,
    };
    for nth in 0..rooms.len() {
        first.publish((FIRST * rooms.len() + nth) as u64)?;
    }
    let (tell, told) = channel();
    let mut watching = Vec::new();
    if let Some(program) = ours {
        for first in (0..args.clients).step_by(WATCHERS_MAX as usize) {
            let (command, count) = (&mut Command::new(&program), WATCHERS_MAX.min(args.clients - first));
            watching
                .push(Watchers::start(watch(command, count, first, args, &addresses, &rooms), tell.clone())?);
        }
    }
    for nth in (0..args.stock).step_by(STOCK_MAX as usize) {
        let command = &mut Command::new("node");
        command.current_dir(root.join("bench/soak")).arg("watch.mjs");
        let (count, first) = (STOCK_MAX.min(args.stock - nth), args.clients + nth);
        let command = watch(command, count, first, args, &addresses, &rooms);
        watching.push(Watchers::start(command.arg(args.polling_share.to_string()), tell.clone())?);
    }
    drop(tell);
    let outcome = soak(args, &mut nodes, redis.as_ref(), addresses, rooms, &told);
    drop(watching);
    drop(nodes);
    drop(redis);
    let (counts, ledger) =
        outcome.with_context(|| format!("the servers' logs are in {}", folder.display()))?;
    let used = Cpu::now()?.used_since(then);
    let is_good = report(args, &counts, used, ledger)?;
    if is_good {
        // What stays behind is in nobody's way.
        let _ = std::fs::remove_dir_all(&folder);
    } else {
        writeln!(std::io::stdout(), "the servers' logs are in {}", folder.display())?;
    }
    Ok(is_good)
}

/// Stock clients, from the package registry.
fn install(root: &Path) -> anyhow::Result<()> {
    let folder = root.join("bench/soak");
    if folder.join("node_modules/socket.io-client").exists() {
        return Ok(());
    }
    let status = Command::new("npm").args(["ci", "--no-audit", "--no-fund"]).current_dir(&folder).status();
    ensure!(status.context("cannot run npm")?.success(), "npm ci failed in {}", folder.display());
    Ok(())
}

fn watch<'a>(
    command: &'a mut Command,
    count: u32,
    first: u32,
    args: &Args,
    addresses: &[SocketAddr],
    rooms: &[Box<str>],
) -> &'a mut Command {
    let addresses: Vec<String> = addresses.iter().map(SocketAddr::to_string).collect();
    command.args([count.to_string(), first.to_string()]);
    command.args([args.drop_every.to_string(), args.drop_secs.to_string()]);
    command.args([addresses.join(","), rooms.join(","), args.rooms_each().to_string()])
}

/// The run itself: everybody joins, then it is published while things break, then everything must arrive.
fn soak(
    args: &Args,
    nodes: &mut [Node],
    redis: Option<&Redis>,
    servers: Vec<SocketAddr>,
    rooms: Vec<Box<str>>,
    told: &Receiver<Told>,
) -> anyhow::Result<(Counts, Ledger)> {
    let (mut counts, mut ledger) = (Counts::default(), Ledger::default());
    let mut planted = args.plant_loss;
    let joins = u64::from(args.clients + args.stock) * args.rooms_each() as u64;
    let deadline = Instant::now() + JOIN_LIMIT;
    while counts.joins < joins {
        let left = deadline.saturating_duration_since(Instant::now());
        let told = told
            .recv_timeout(left)
            .map_err(|_| anyhow::anyhow!("{} of {joins} joins came within {JOIN_LIMIT:?}", counts.joins))?;
        note(told, &mut counts, &mut ledger, &mut planted)?;
    }

    let (is_over, (tell, published)) = (AtomicBool::new(false), channel());
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let publishers: Vec<_> = (0..args.publishers)
            .map(|number| {
                let mut publisher = Publisher {
                    lines: Lines::to(&servers),
                    rooms: rooms.clone(),
                    number,
                    of: args.publishers,
                    every: Duration::from_secs_f64(args.publishers as f64 / f64::from(args.rate)),
                };
                let (tell, is_over) = (tell.clone(), &is_over);
                scope.spawn(move || publisher.run(is_over, &tell))
            })
            .collect();
        drop(tell);
        let mut breaking = Breaking::new(args);
        let outcome = (|| {
            let mut progress = begun + PROGRESS_EVERY;
            loop {
                take(told, &published, &mut counts, &mut ledger, &mut planted)?;
                let is_late = begun.elapsed() >= Duration::from_secs(args.seconds);
                if is_late && breaking.is_whole() {
                    return anyhow::Ok(());
                }
                breaking.go_on(nodes, redis, &mut counts, !is_late)?;
                if Instant::now() >= progress {
                    progress += PROGRESS_EVERY;
                    show(&counts, &ledger, begun.elapsed());
                }
            }
        })();
        is_over.store(true, Ordering::Relaxed);
        counts.publishing_secs = begun.elapsed().as_secs_f64();
        outcome?;
        // All that was begun is answered before the books are closed.
        while publishers.iter().any(|publisher| !publisher.is_finished()) {
            take(told, &published, &mut counts, &mut ledger, &mut planted)?;
        }
        for publisher in publishers {
            publisher.join().map_err(|_| anyhow::anyhow!("a publisher panicked"))??;
        }
        let (mut settled, mut before) = (Instant::now(), ledger.sights);
        loop {
            take(told, &published, &mut counts, &mut ledger, &mut planted)?;
            if ledger.sights != before {
                (settled, before) = (Instant::now(), ledger.sights);
            }
            if ledger.awaited() == 0 || settled.elapsed() > SETTLED_AFTER {
                break;
            }
        }
        Ok(())
    })
    .map(|()| (counts, ledger))
}

/// Takes what was published and told for a moment.
fn take(
    told: &Receiver<Told>,
    published: &Receiver<Published>,
    counts: &mut Counts,
    ledger: &mut Ledger,
    planted: &mut bool,
) -> anyhow::Result<()> {
    for one in published.try_iter() {
        counts.published += 1;
        counts.retries += one.retries;
        ledger.answered(&one.room, one.place, one.publication);
    }
    let until = Instant::now() + Duration::from_millis(50);
    loop {
        match told.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(told) => note(told, counts, ledger, planted)?,
            Err(RecvTimeoutError::Timeout) => return Ok(()),
            Err(RecvTimeoutError::Disconnected) => bail!("all watchers have ended"),
        }
        if Instant::now() >= until {
            return Ok(());
        }
    }
}

fn note(told: Told, counts: &mut Counts, ledger: &mut Ledger, planted: &mut bool) -> anyhow::Result<()> {
    match told {
        Told::Joined { watcher, room, place } => {
            counts.joins += 1;
            ledger.joined(watcher, &room, place);
        }
        Told::Saw { watcher, room, place, publication, after_ms } => {
            // One of the middle: the first and the last are easier to miss.
            if *planted && place.seq > 3 {
                *planted = false;
                return Ok(());
            }
            *counts.delays.entry(after_ms).or_default() += 1;
            ledger.saw(watcher, &room, place, publication);
        }
        Told::Refused { watcher, room } => ledger.refused(watcher, &room),
        Told::Noted { watcher, note } => ledger.noted(watcher, note),
        Told::Dropped { watcher } => {
            counts.drops += 1;
            counts.returns.note_dropped(watcher);
        }
        Told::Lost { watcher, at, why } => counts.returns.note_lost(watcher, at, why),
        Told::Back { watcher, at, is_recovered } => {
            counts.returns.note_back(watcher, at);
            *(if is_recovered { &mut counts.recovered } else { &mut counts.afresh }) += 1;
        }
        Told::Ended => bail!("a watching process ended"),
    }
    Ok(())
}

fn show(counts: &Counts, ledger: &Ledger, elapsed: Duration) {
    // Progress that nobody can read is no reason to stop.
    let _ = writeln!(
        std::io::stderr(),
        "{:>4} s: {} published, {} seen, {} awaited, {} drops, {} back, {} kills, {} cuts",
        elapsed.as_secs(),
        counts.published,
        ledger.sights,
        ledger.awaited(),
        counts.drops,
        counts.returns.back(),
        counts.kills,
        counts.cuts,
    );
}

/// Tells how it went; whether it went well.
fn report(args: &Args, counts: &Counts, (machine, run): (u64, u64), ledger: Ledger) -> anyhow::Result<bool> {
    let sights = ledger.sights;
    let (faults, stories) = ledger.close();
    // Only servers that leave in good order have a rate to keep.
    let rate = Some(args.drain_rate).filter(|rate| args.stop && *rate > 0);
    let keeps_rate = rate.map(|rate| counts.returns.keeps(rate));
    let is_good =
        faults.is_empty() && counts.published > 0 && sights > 0 && keeps_rate.is_none_or(|keeps| keeps);
    let faults: BTreeMap<String, u64> =
        faults.into_iter().map(|(fault, count)| (format!("{fault:?}"), count)).collect();
    let figures = json!({
        "nodes": args.nodes, "clients": args.clients, "stock": args.stock, "rooms": args.rooms,
        "seconds": args.seconds, "published": counts.published, "retries": counts.retries, "seen": sights,
        "rate": args.rate, "published_per_sec": (counts.published as f64 / counts.publishing_secs).round(),
        "drops": counts.drops, "recovered": counts.recovered, "afresh": counts.afresh,
        "kills": counts.kills, "cuts": counts.cuts, "lost_by": counts.returns.causes(),
        "lost_per_sec_max": counts.returns.lost_per_sec_max(),
        "back_per_sec_max": counts.returns.back_per_sec_max(), "drain_rate": rate, "keeps_rate": keeps_rate,
        "delay_ms": { "p50": quantile(&counts.delays, 0.5), "p99": quantile(&counts.delays, 0.99),
                      "max": counts.delays.keys().next_back() },
        "cpu_percent": { "machine": machine, "run": run },
        "faults": faults, "stories": stories, "is_good": is_good,
    });
    if let Some(file) = &args.json {
        std::fs::write(file, format!("{figures:#}\n")).with_context(|| file.display().to_string())?;
    }
    writeln!(std::io::stdout(), "{figures:#}")?;
    Ok(is_good)
}

/// The value below which this share of all lies.
fn quantile(counts: &BTreeMap<u64, u64>, share: f64) -> Option<u64> {
    let all: u64 = counts.values().sum();
    let mut below = 0;
    counts.iter().find_map(|(value, count)| {
        below += count;
        (below as f64 >= all as f64 * share).then_some(*value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ledger::{Fault, Place};

    #[test]
    fn quantiles_count_how_often_a_value_came() {
        assert_eq!(quantile(&BTreeMap::new(), 0.5), None);
        let counts = BTreeMap::from([(1, 98), (7, 1), (90, 1)]);
        assert_eq!([0.5, 0.99, 1.0].map(|share| quantile(&counts, share)), [Some(1), Some(7), Some(90)]);
    }

    #[test]
    fn a_planted_loss_is_noticed() {
        for (mut planted, expected) in [(false, BTreeMap::new()), (true, BTreeMap::from([(Fault::Lost, 1)]))]
        {
            let (mut counts, mut ledger) = (Counts::default(), Ledger::default());
            for seq in 0..=9 {
                let (watcher, room, place) = (0, "r".into(), Place { epoch: 1, seq });
                let told = match seq {
                    0 => Told::Joined { watcher, room, place },
                    _ => Told::Saw { watcher, room, place, publication: seq, after_ms: 1 },
                };
                note(told, &mut counts, &mut ledger, &mut planted).unwrap();
            }
            assert_eq!(ledger.close().0, expected);
        }
    }
}
