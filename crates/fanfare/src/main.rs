//! Real-time server for jobs, agents and workflows, for stock Socket.IO clients.
//!
//! Owns the process: reads the command line, gathers settings, and hands over. Everything else is in the modules.

mod auth;
mod cli;
mod cluster;
mod codes;

mod config;
mod dispatch;
mod drain;
mod event;
mod filters;
mod foreign;
mod limits;
mod logs;
mod rabbitmq;
mod realtime;
mod redis_ingest;
mod rest;

mod run;
mod runners;
mod serve;
mod settings;
mod tally;
mod tls;
mod token;

use std::process::ExitCode;

/// Events are made on one thread and dropped on others, which the system's allocator makes everybody wait for.
#[global_allocator]
static MEMORY: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match cli::main() {
        Ok(code) => code,
        Err(error) => {
            use std::io::Write;
            // To nobody, if stderr is closed.
            let _ = writeln!(std::io::stderr(), "fanfare: {error:#}");
            // 2: what shells and clap use for wrong usage and settings.
            ExitCode::from(2)
        }
    }
}
