//! Project chores, run as `cargo xtask CHORE`: benchmarks, the tests, the tidy check and the table of
//! allowed dependencies.
//!
//! Nothing here is part of the product. Exits with 0 when all is well, 1 when a check or a target was missed, 2 when a
//! chore could not be done.

mod bench;
mod cluster;
mod deny;
mod features;
mod harness;
mod layers;
mod project;
mod suite;
mod tidy;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Measure the engine against the floor and its peers.
    Bench(Box<bench::Args>),
    /// Break several servers under load, and see whether everybody got everything once, in order.
    Cluster(cluster::Args),
    /// Check licences and sources of everything that is linked in, with cargo-deny.
    Deny(deny::Args),
    /// Check what the style guide leaves to machines.
    Tidy,
    /// Compare the crates' dependencies with the table of allowed ones.
    Layers,
    /// Run every test there is, installing what they need.
    Test(suite::Args),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().chore {
        Chore::Bench(args) => bench::run(&args),
        Chore::Cluster(args) => cluster::run(&args),
        Chore::Deny(args) => deny::run(&args),
        Chore::Tidy => project::root().and_then(|root| tell("tidy", &tidy::check(&root)?)),
        Chore::Test(args) => project::root().and_then(|root| suite::run(&args, &root)),
        Chore::Layers => layers::check().and_then(|faults| tell("layers", &faults)),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            // When stderr is gone too, the exit code has to do.
            let _ = writeln!(std::io::stderr(), "xtask: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Prints a check's findings; whether there were none.
fn tell(check: &str, faults: &[String]) -> anyhow::Result<bool> {
    let mut out = std::io::stdout().lock();
    for fault in faults {
        writeln!(out, "{fault}")?;
    }
    match faults.len() {
        0 => writeln!(out, "{check}: ok")?,
        n => writeln!(out, "{check}: {n} to mend")?,
    }
    Ok(faults.is_empty())
}
