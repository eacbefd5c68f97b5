//! Load generator that speaks the Socket.IO wire directly and watches its own saturation.
//!
//! One thread, raw epoll, loopback only. Exits with 0 when every delivery arrived as it should, 1 when something was
//! missing or wrong, 2 when it could not run. Linux only: it reads `/proc` and uses epoll.

#[cfg(not(target_os = "linux"))]
compile_error!("loadgen needs Linux: epoll, and /proc for CPU time and memory");

mod args;
mod floor;
mod http;
mod progress;
mod reactor;
mod report;
mod scenario;
mod swarm;
mod target;
mod usage;
mod wire;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use crate::args::{Cli, Command};

fn main() -> ExitCode {
    match run(&Cli::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            // When stderr is gone too, the exit code has to do.
            let _ = writeln!(std::io::stderr(), "loadgen: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Runs a command; whether its findings are clean.
fn run(command: &Command) -> anyhow::Result<bool> {
    let (report, common) = match command {
        Command::Floor(args) => return floor::run(args).map(|()| true),
        Command::Idle(args) => (scenario::idle::run(args)?, &args.common),
        Command::Fanout(args) => (scenario::fanout::run(args)?, &args.common),
        Command::Echo(args) => (scenario::echo::run(args)?, &args.common),
        Command::Ingest(args) => (scenario::ingest::run(args)?, &args.common),
        Command::Publish(args) => (scenario::publish::run(args)?, &args.common),
        Command::Polling(args) => (scenario::polling::run(args)?, &args.common),
        Command::Slow(args) => (scenario::slow::run(args)?, &args.fanout.common),
        Command::Storm(args) => (scenario::storm::run(args)?, &args.common),
    };
    let mut out = std::io::stdout().lock();
    if common.json {
        report.write_json(&mut out)?
    } else {
        report.write_table(&mut out)?
    }
    Ok(report.is_clean())
}
