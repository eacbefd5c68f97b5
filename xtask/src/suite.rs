//! Owns the one command that runs every test: its steps, what each needs on a bare machine, and the summary.
//! Does not know what the tests check. Invariant: a failed step does not keep the later ones from running.

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::project;

/// Options of `cargo xtask test`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only these steps, separated by commas.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// All steps but these.
    #[arg(long, value_delimiter = ',')]
    skip: Vec<String>,
    /// List the steps.
    #[arg(long)]
    list: bool,
}

/// One step: commands that must all succeed.
struct Step {
    name: &'static str,
    about: &'static str,
    commands: &'static [&'static [&'static str]],
    /// Environment of the commands, beside what there is.
    environment: &'static [(&'static str, &'static str)],
}

/// In an order that tells of the cheapest mistakes first. `{target}` is cargo's target folder.
const STEPS: &[Step] = &[
    Step {
        name: "setup",
        about: "install what the tests need and the machine has not",
        commands: &[&["bash", "xtask/setup.sh"]],
        environment: &[],
    },
    Step {
        name: "format",
        about: "rustfmt",
        commands: &[&["cargo", "fmt", "--all", "--check"]],
        environment: &[],
    },
    Step {
        name: "lint",
        about: "clippy with warnings denied, house rules, layers",
        commands: &[
            &["cargo", "clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"],
            &["cargo", "xtask", "tidy"],
            &["cargo", "xtask", "layers"],
        ],
        environment: &[],
    },
    Step {
        name: "unit",
        about: "all tests that need nothing but Rust: codecs, shard, simulator, corpora, docs",
        commands: &[&["cargo", "test", "--workspace", "--locked", "--no-fail-fast"]],
        environment: &[],
    },
    Step {
        name: "docs",
        about: "documentation builds without a warning",
        commands: &[&["cargo", "doc", "--workspace", "--no-deps", "--locked"]],
        environment: &[("RUSTDOCFLAGS", "-D warnings")],
    },
    Step {
        name: "redis",
        about: "the store in Redis and the bus: alone, behind Sentinels, in a Cluster; kills and failovers",
        commands: &[
            &["cargo", "test", "-p", "store-redis", "--locked", "--", "--include-ignored"],
            &["cargo", "test", "-p", "bus", "--locked", "--", "--include-ignored"],
        ],
        environment: &[],
    },
    Step {
        name: "conformance",
        about: "stock clients in JavaScript, Python and Rust, and raw wire, against the engine",
        commands: &[
            &["cargo", "build", "--profile", "quick", "-p", "engine", "--example", "conformance", "--locked"],
            &["bash", "conformance/run.sh"],
        ],
        environment: &[("FANFARE_FIXTURE", "{target}/quick/examples/conformance")],
    },
    Step {
        name: "client",
        about: "our client against the reference server",
        commands: &[&[
            "cargo",
            "test",
            "-p",
            "sio-client",
            "--locked",
            "--test",
            "e2e",
            "--",
            "--include-ignored",
        ]],
        environment: &[("NODE_PATH", "{root}/conformance/node_modules")],
    },
    Step {
        name: "product",
        about: "the binary with stock clients, a real browser and a real broker",
        commands: &[&["cargo", "test", "-p", "fanfare", "--locked", "--", "--include-ignored"]],
        environment: &[],
    },
];

/// Runs the chosen steps; whether all went well.
///
/// # Errors
/// A step that does not exist, or cargo's target folder cannot be found out.
pub(crate) fn run(args: &Args, root: &Path) -> anyhow::Result<bool> {
    let mut out = std::io::stdout();
    for name in args.only.iter().chain(&args.skip) {
        if !STEPS.iter().any(|step| step.name == name) {
            bail!("no step is called {name}; see --list");
        }
    }
    let chosen: Vec<&Step> = STEPS
        .iter()
        .filter(|step| args.only.is_empty() || args.only.iter().any(|name| name == step.name))
        .filter(|step| !args.skip.iter().any(|name| name == step.name))
        .collect();
    if args.list {
        for step in STEPS {
            writeln!(out, "{:<12} {}", step.name, step.about)?;
        }
        return Ok(true);
    }
    let metadata = project::metadata()?;
    let target = metadata["target_directory"].as_str().context("cargo metadata names no target folder")?;
    let mut results: Vec<(&Step, bool, Duration)> = Vec::new();
    for (index, step) in chosen.iter().enumerate() {
        writeln!(out, "\n=== {} of {}: {} ({})", index + 1, chosen.len(), step.name, step.about)?;
        out.flush()?;
        let begun = Instant::now();
        let passed = step.commands.iter().all(|command| run_command(command, step, root, target));
        results.push((step, passed, begun.elapsed()));
    }
    writeln!(out, "\n=== summary")?;
    for (step, passed, took) in &results {
        let verdict = if *passed { "ok" } else { "FAILED" };
        writeln!(out, "{:<12} {verdict:<7} {:>6.1} s", step.name, took.as_secs_f64())?;
    }
    let failed = results.iter().filter(|(_, passed, _)| !passed).count();
    writeln!(out, "{} passed, {failed} failed", results.len() - failed)?;
    Ok(failed == 0)
}

fn run_command(words: &[&str], step: &Step, root: &Path, target: &str) -> bool {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let program = if words[0] == "cargo" { cargo.as_str() } else { words[0] };
    let mut command = Command::new(program);
    command.args(&words[1..]).current_dir(root);
    for (name, value) in step.environment {
        command.env(name, value.replace("{target}", target).replace("{root}", &root.to_string_lossy()));
    }
    let outcome = command.status();
    let passed = matches!(&outcome, Ok(status) if status.success());
    if !passed {
        let why = outcome.map_or_else(|error| error.to_string(), |status| status.to_string());
        // When stderr is gone too, the summary has to do.
        let _ = writeln!(std::io::stderr(), "{}: {} ended with {why}", step.name, words.join(" "));
    }
    passed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_have_names_of_their_own_and_something_to_do() {
        for (index, step) in STEPS.iter().enumerate() {
            assert!(!step.commands.is_empty(), "{}", step.name);
            assert!(STEPS[..index].iter().all(|other| other.name != step.name), "{}", step.name);
        }
    }
}
