//! Plays many runs of the simulator: `simulate --seeds 0..10000`, or `simulate --seed 7` for one;
//! `--shards 1` overrules what the seed says. `simulate --seed 7 --story SID` tells what happened to one socket.
//! Knows nothing of what a run does. Ends with 1 at the first run that goes wrong.
#![expect(clippy::print_stderr, reason = "it is a program for a terminal")]

use std::process::ExitCode;
use std::time::Instant;

fn main() -> ExitCode {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    let mut shards = None;
    if let Some(at) = args.iter().position(|arg| arg == "--shards") {
        shards = args.get(at + 1).and_then(|count| count.parse().ok());
        args.drain(at..(at + 2).min(args.len()));
    }
    let mut sid = None;
    if let Some(at) = args.iter().position(|arg| arg == "--story") {
        sid = args.get(at + 1).cloned();
        args.drain(at..(at + 2).min(args.len()));
    }
    let range = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--seed", seed] => seed.parse().ok().map(|seed: u64| seed..seed + 1),
        ["--seeds", range] => {
            range.split_once("..").and_then(|(from, to)| Some(from.parse().ok()?..to.parse().ok()?))
        }
        _ => None,
    };
    let Some(range) = range else {
        eprintln!("usage: simulate [--shards N] [--story SID] --seed N | --seeds A..B");
        return ExitCode::from(2);
    };
    if let Some(sid) = sid {
        let (outcome, story) = testkit::simulator::run_telling(range.start, shards, &sid);
        for line in story {
            eprintln!("{line}");
        }
        return match outcome {
            Ok(_) => ExitCode::SUCCESS,
            Err(problem) => {
                eprintln!("{problem}");
                ExitCode::FAILURE
            }
        };
    }
    let began = Instant::now();
    let mut failed = 0;
    let mut total = testkit::simulator::Summary::default();
    for seed in range.clone() {
        match std::panic::catch_unwind(|| testkit::simulator::run_on(seed, shards)) {
            Ok(Ok(summary)) => {
                total.delivered += summary.delivered;
                total.recovered += summary.recovered;
                total.moved += summary.moved;
                total.refused += summary.refused;
                total.heard += summary.heard;
            }
            Ok(Err(problem)) => {
                failed += 1;
                eprintln!("\n{}", problem.chars().take(1_500).collect::<String>());
            }
            Err(_) => {
                failed += 1;
                eprintln!("\nseed {seed}: panicked");
            }
        }
        if (seed + 1) % 50 == 0 || seed + 1 == range.end {
            eprint!(
                "\r{} of {} runs in {:.0?}, {failed} failed; {total:?}",
                seed + 1 - range.start,
                range.end - range.start,
                began.elapsed()
            );
        }
        if failed >= 5 {
            break;
        }
    }
    eprintln!();
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
