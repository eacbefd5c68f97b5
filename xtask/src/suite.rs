//! Owns the one command that runs every test: its steps, what each needs on a bare machine, and the summary.
//! Does not know what the tests check. Invariant: a failed step does not keep the later ones from running.

use std::io::Write;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::harness::Report;
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
    /// A test that fails once is failed, even if it passes the second time.
    #[arg(long)]
    strict: bool,
}

/// One step: commands that must all succeed.
struct Step {
    name: &'static str,
    about: &'static str,
    commands: &'static [&'static [&'static str]],
    /// Environment of the commands, beside what there is.
    environment: &'static [(&'static str, &'static str)],
}

/// In an order that tells of the cheapest mistakes first. `{target}` is cargo's target folder. All build the whole
/// workspace, even for the tests of one crate: with other sets of features the dependencies would be built again.
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
        commands: &[&[
            "cargo",
            "test",
            "--workspace",
            "--locked",
            "--no-fail-fast",
            "--test",
            "bus",
            "--test",
            "contract",
            "--test",
            "faults",
            "--test",
            "model",
            "--",
            "--ignored",
        ]],
        environment: &[],
    },
    Step {
        name: "conformance",
        about: "stock clients in JavaScript, Python and Rust, and raw wire, against the engine",
        commands: &[
            &["cargo", "build", "--workspace", "--example", "conformance", "--locked"],
            &["bash", "conformance/run.sh"],
        ],
        environment: &[("FANFARE_FIXTURE", "{target}/debug/examples/conformance")],
    },
    Step {
        name: "product",
        about: "the binary with stock clients, a real browser and a real broker; our client with the reference server",
        commands: &[&[
            "cargo",
            "test",
            "--workspace",
            "--locked",
            "--no-fail-fast",
            "--test",
            "e2e",
            "--",
            "--ignored",
        ]],
        environment: &[("NODE_PATH", "{root}/conformance/node_modules")],
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
    let mut unsteady = Vec::new();
    for (index, step) in chosen.iter().enumerate() {
        writeln!(out, "\n=== {} of {}: {} ({})", index + 1, chosen.len(), step.name, step.about)?;
        out.flush()?;
        let begun = Instant::now();
        let passed = step.commands.iter().all(|words| {
            let place = Place { step, root, target };
            let second_chance = !args.strict && words.starts_with(&["cargo", "test"]);
            if second_chance { place.test(words, &mut unsteady) } else { place.run(words) }
        });
        results.push((step, passed, begun.elapsed()));
    }
    writeln!(out, "\n=== summary")?;
    for (step, passed, took) in &results {
        let verdict = if *passed { "ok" } else { "FAILED" };
        writeln!(out, "{:<12} {verdict:<7} {:>6.1} s", step.name, took.as_secs_f64())?;
    }
    for name in &unsteady {
        writeln!(
            out,
            "UNSTEADY: {name} failed, and passed when it was run once more: a fault of the test or of what it tests"
        )?;
    }
    let failed = results.iter().filter(|(_, passed, _)| !passed).count();
    writeln!(out, "{} passed, {failed} failed", results.len() - failed)?;
    Ok(failed == 0)
}

/// Where the commands of a step run.
struct Place<'a> {
    step: &'a Step,
    root: &'a Path,
    target: &'a str,
}

impl Place<'_> {
    fn command(&self, words: &[&str]) -> Command {
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
        let program = if words[0] == "cargo" { cargo.as_str() } else { words[0] };
        let mut command = Command::new(program);
        command.args(&words[1..]).current_dir(self.root);
        for (name, value) in self.step.environment {
            let value = value.replace("{target}", self.target);
            command.env(name, value.replace("{root}", &self.root.to_string_lossy()));
        }
        command
    }

    /// Whether the command succeeded.
    fn run(&self, words: &[&str]) -> bool {
        self.judge(words, self.command(words).status())
    }

    /// Whether all tests of a `cargo test` passed. Those that failed are run once more; those that pass then are added
    /// to `unsteady`.
    fn test(&self, words: &[&str], unsteady: &mut Vec<String>) -> bool {
        let first = Report::of(&mut self.command(words));
        let (report, status) = match first {
            Ok(ran) => ran,
            Err(error) => return self.judge(words, Err(error)),
        };
        if self.judge(words, Ok(status)) {
            return true;
        }
        let Some(failed) = report.failed() else { return false };
        let mut again: Vec<&str> = words.to_vec();
        if !again.contains(&"--") {
            again.extend(["--tests", "--"]);
        }
        again.push("--exact");
        again.extend(failed.iter().map(String::as_str));
        // When stderr is gone, the summary has to do.
        let _ = writeln!(std::io::stderr(), "{}: once more: {}", self.step.name, failed.join(", "));
        let second = Report::of(&mut self.command(&again));
        let ran_all = second.as_ref().is_ok_and(|(report, _)| report.passed >= failed.len());
        let passed = self.judge(&again, second.map(|(_, status)| status)) && ran_all;
        if passed {
            unsteady.extend_from_slice(failed);
        }
        passed
    }

    fn judge(&self, words: &[&str], outcome: std::io::Result<ExitStatus>) -> bool {
        let passed = matches!(&outcome, Ok(status) if status.success());
        if !passed {
            let why = outcome.map_or_else(|error| error.to_string(), |status| status.to_string());
            // When stderr is gone too, the summary has to do.
            let _ = writeln!(std::io::stderr(), "{}: {} ended with {why}", self.step.name, words.join(" "));
        }
        passed
    }
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
