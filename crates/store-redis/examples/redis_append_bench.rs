//! How many events a second are appended, and how long a commit takes:
//! `redis_append_bench [--batch 1000] [--bytes 150] [--rooms 10] [--keep 100000] [--seconds 5] [--callers 1] [--address URL]
//! [--fsync no|everysec|always] [--publishes]`.
//!
//! Each caller commits batch after batch and waits for each answer, as a dispatcher does; every commit is one event of
//! `--bytes` bytes of data, the rooms in turn. Without `--address` a server is started, with `--fsync` as its
//! `appendfsync`, or without a log on its disk. Prints one line, and what the server says of the scripts' times, in µs.

#![allow(clippy::print_stdout, reason = "a benchmark tells its figures")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use hub::policy::Retention;
use hub::store::{Append, Commit, Store};
use hub::time::Timestamp;
use store_redis::{Address, Options, RedisStore};
use testkit::contract::sample::{AMPLE, event, events, logged, retained};
use testkit::contract::wait;
use testkit::redis::RedisServer;

fn main() {
    let mut given: BTreeMap<String, String> = BTreeMap::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = if name == "--publishes" { String::new() } else { arguments.next().expect("a value") };
        given.insert(name, value);
    }
    let number = |name: &str, default: u64| -> u64 {
        given.get(name).map_or(default, |value| value.parse().expect("a number"))
    };
    let (batch, bytes, rooms) = (number("--batch", 1_000), number("--bytes", 150), number("--rooms", 10));
    let (keep, seconds, callers) =
        (number("--keep", 100_000), number("--seconds", 5), number("--callers", 1));

    let server = match (given.get("--address"), given.get("--fsync").map(String::as_str)) {
        (Some(_), _) => None,
        (None, None | Some("none")) => Some(RedisServer::start()),
        (None, Some(fsync)) => {
            Some(RedisServer::start_with(&["--save", "", "--appendonly", "yes", "--appendfsync", fsync]))
        }
    };
    let address = server.as_ref().map_or_else(|| given["--address"].clone(), RedisServer::address);
    let options = Options {
        publishes: given.contains_key("--publishes"),
        ..Options::new(Address::parse(&address).expect("an address"))
    };
    let store = RedisStore::open(options).expect("a store");

    let data = format!("\"{}\"", "x".repeat(usize::try_from(bytes).expect("a size").saturating_sub(2)));
    let retention = Retention { events_max: keep, ..AMPLE };
    let samples: Vec<Append> = (0..rooms)
        .map(|room| retained(logged(&format!("room:{room}"), event("task_update", &data)), retention))
        .collect();
    let start = Instant::now();
    let until = start + Duration::from_secs(seconds);
    let mut times: Vec<Duration> = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..callers)
            .map(|caller| {
                let (store, samples) = (&store, &samples);
                scope.spawn(move || append(store, samples, (batch, caller), until))
            })
            .collect();
        callers.into_iter().flat_map(|caller| caller.join().expect("a caller")).collect()
    });
    let took = start.elapsed();
    times.sort_unstable();
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e3;
    let appended = times.len() as u64 * batch;
    println!(
        "{:.0} appends/s: {appended} of {bytes} bytes in {:.1} s, batches of {batch}, {rooms} rooms, {callers} callers; commit p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms; {} MB",
        appended as f64 / took.as_secs_f64(),
        took.as_secs_f64(),
        at(0.5),
        at(0.99),
        at(1.0),
        wait(store.health()).expect("health").bytes.unwrap_or(0) >> 20,
    );
    if let Some(server) = &server {
        let stats = server.ask(&["INFO", "commandstats"]);
        let latency = server.ask(&["INFO", "latencystats"]);
        for line in stats.lines().chain(latency.lines()).filter(|line| line.contains("evalsha")) {
            println!("{line}");
        }
    }
}

/// Commits until the time is over; how long each commit took.
fn append(
    store: &RedisStore,
    samples: &[Append],
    (batch, caller): (u64, u64),
    until: Instant,
) -> Vec<Duration> {
    let mut times = Vec::new();
    let mut turn = caller as usize;
    while Instant::now() < until {
        let now = Timestamp::of(SystemTime::now());
        let commits: Vec<Commit> = (0..batch)
            .map(|_| {
                turn += 1;
                let mut append = samples[turn % samples.len()].clone();
                append.event.at = now;
                events(vec![append])
            })
            .collect();
        let start = Instant::now();
        wait(store.commit(now, commits)).expect("a commit");
        times.push(start.elapsed());
    }
    times
}
