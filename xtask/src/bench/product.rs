//! `cargo xtask bench --product`: what the whole server does, store and authentication included, beside what it is to do.
//!
//! Owns the scenarios, their aims and their table. How a server is started lies in `server.rs`. Each scenario has a fresh
//! server, one core and an empty store.

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};

use super::server::{Core, Running, Server};
use super::{Args, finish, machine};
use crate::project;

/// The secret that tokens of the guarded scenarios are signed with.
const SECRET: &str = "what-signs-the-tokens-of-a-benchmark";

/// How long a load may take to open its connections before the next begins.
const OPENING: Duration = Duration::from_secs(8);

/// What is asked of a server, and what it is to answer.
struct Scenario {
    name: &'static str,
    what: &'static str,
    /// Whether everybody must show a token.
    is_guarded: bool,
    /// Settings beside the defaults: one machine plays many users.
    settings: &'static [&'static str],
    /// Arguments of the load generator. Those before the last stay while the last is measured. `%SECS%`, `%HOLD%`,
    /// `%CONNS%` and `%TOKEN%` are replaced.
    loads: &'static [&'static [&'static str]],
    figures: &'static [Figure],
}

/// A figure of one load's report.
struct Figure {
    label: &'static str,
    load: usize,
    key: &'static str,
    unit: &'static str,
    aim: Aim,
}

/// What a figure is to be.
#[derive(Clone, Copy)]
enum Aim {
    AtLeast(f64),
    AtMost(f64),
}

impl Aim {
    fn is_met(self, value: f64) -> bool {
        match self {
            Aim::AtLeast(least) => value >= least,
            Aim::AtMost(most) => value <= most,
        }
    }
}

impl std::fmt::Display for Aim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Aim::AtLeast(least) => write!(f, "≥ {}", number(*least)),
            Aim::AtMost(most) => write!(f, "≤ {}", number(*most)),
        }
    }
}

/// Rooms of a watcher on `/`: `global`, `dashboard`, and the user's own.
const IDLE: &[&str] = &["idle", "--conns", "%CONNS%", "--hold", "%HOLD%", "--auth", r#"{"token":"%TOKEN%"}"#];

/// A socket on `/ws` publishes to the room `tasks`, which is kept; sockets there are in no room that mirrors it.
const TASKS: [&str; 18] = [
    "--ns",
    "/ws",
    "--loose",
    "--join-event",
    "subscribe",
    "--room",
    "tasks",
    "--pub-event",
    "task_update",
    "--pub-arg",
    r#"{"task_id":"t","status":"running","note":%DATA%}"#,
    "--msg-event",
    "task_update",
    "--secs",
    "%SECS%",
    "--auth",
    r#"{"token":"%TOKEN%"}"#,
    "--rate",
];

const WATCHERS: &[&str] = &join(["fanout", "--conns", "%CONNS%"], TASKS, ["5"]);
const STREAM: &[&str] = &join(["fanout", "--conns", "1"], TASKS, ["5000"]);

/// All users are one, and its sockets come from one address.
const ONE_USER: &[&str] = &[
    "limits.sockets_per_user=30000",
    "limits.handshakes_per_address=20000",
    "limits.commands_per_socket=20000",
    "limits.commands_per_user=50000",
];

const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "publish",
        what: "batches of 100 events over HTTP, as fast as they are answered",
        is_guarded: false,
        settings: &[],
        loads: &[&["publish", "--conns", "16", "--batch", "100", "--secs", "%SECS%"]],
        figures: &[Figure {
            label: "events kept and answered per second",
            load: 0,
            key: "per_sec_at_least",
            unit: "/s",
            aim: Aim::AtLeast(100_000.0),
        }],
    },
    Scenario {
        name: "publish-10000",
        what: "batches of 100 events over HTTP, 10,000 events a second",
        is_guarded: false,
        settings: &[],
        loads: &[&["publish", "--conns", "16", "--batch", "100", "--rate", "10000", "--secs", "%SECS%"]],
        figures: &[Figure {
            label: "time to an answer, 99th percentile",
            load: 0,
            key: "p99_ms",
            unit: "ms",
            aim: Aim::AtMost(50.0),
        }],
    },
    Scenario {
        name: "watchers",
        what: "10,000 sockets watch a room that gets five events a second",
        is_guarded: true,
        settings: ONE_USER,
        loads: &[WATCHERS],
        figures: &[Figure {
            label: "time to a delivery, 99th percentile",
            load: 0,
            key: "p99_ms",
            unit: "ms",
            aim: Aim::AtMost(50.0),
        }],
    },
    Scenario {
        name: "headline",
        what: "10,000 sockets with a token, each in three rooms, and 5,000 messages a second on one connection",
        is_guarded: true,
        settings: ONE_USER,
        loads: &[IDLE, STREAM],
        figures: &[
            Figure {
                label: "memory of a connection",
                load: 0,
                key: "rss_kib_per_conn",
                unit: "KiB",
                aim: Aim::AtMost(4.0),
            },
            Figure {
                label: "messages on one connection per second",
                load: 1,
                key: "per_sec_at_least",
                unit: "/s",
                aim: Aim::AtLeast(4_950.0),
            },
            Figure {
                label: "time to a delivery, 99th percentile",
                load: 1,
                key: "p99_ms",
                unit: "ms",
                aim: Aim::AtMost(50.0),
            },
        ],
    },
    Scenario {
        name: "idle",
        what: "10,000 sockets with a token, of which nobody says anything",
        is_guarded: true,
        settings: ONE_USER,
        loads: &[IDLE],
        figures: &[Figure {
            label: "of a core, for all of them",
            load: 0,
            key: "hold_cpu_pct",
            unit: "%",
            // 1 % for each 1,000.
            aim: Aim::AtMost(10.0),
        }],
    },
];

const fn join(
    [a, b, c]: [&'static str; 3],
    middle: [&'static str; 18],
    [last]: [&'static str; 1],
) -> [&'static str; 22] {
    let mut all = [last; 22];
    (all[0], all[1], all[2]) = (a, b, c);
    let mut at = 0;
    while at < middle.len() {
        all[3 + at] = middle[at];
        at += 1;
    }
    all
}

/// Runs all scenarios, or those that are named; whether every aim was met and nothing was lost.
///
/// # Errors
/// The caller's: a name that is none. The environment's: something does not compile or start.
pub(super) fn run(args: &Args) -> anyhow::Result<bool> {
    let names: Vec<_> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
    if let Some(unknown) = args.only.iter().find(|name| !names.contains(&name.as_str())) {
        bail!("no scenario is called {unknown}; there are {}", names.join(", "));
    }
    let loadgen = project::build("loadgen", &["--profile", &args.profile, "-p", "loadgen"])?;
    let fanfare = project::build("fanfare", &["--profile", &args.profile, "-p", "fanfare"])?;
    let mut out = std::io::stdout();
    let mut results = Vec::new();
    let mut is_good = true;
    let is_wanted =
        |scenario: &&Scenario| args.only.is_empty() || args.only.iter().any(|it| it == scenario.name);
    for (nth, scenario) in (0..).zip(SCENARIOS.iter().filter(is_wanted)) {
        writeln!(out, "\n{}  {}", scenario.name, scenario.what)?;
        let reports = measure(args, scenario, &loadgen, &fanfare, args.port + nth)
            .with_context(|| format!("{} could not be run", scenario.name))?;
        // Not `bad`: the product greets, which the load generator takes for a fault. A bad delivery is a missing one, too.
        let lost: u64 = ["missing", "dropped", "failed"]
            .iter()
            .flat_map(|key| reports.iter().filter_map(|report| report[*key].as_u64()))
            .sum();
        if lost > 0 {
            is_good = false;
            writeln!(out, "  wrong: {lost} deliveries or connections were lost")?;
        }
        let mut figures = Vec::new();
        for Figure { label, load, key, unit, aim } in scenario.figures {
            let value = reports[*load][key].as_f64();
            let is_met = value.is_some_and(|value| aim.is_met(value));
            is_good &= is_met;
            let shown = value.map_or_else(|| "–".to_owned(), number);
            let verdict = if is_met { "met" } else { "missed" };
            writeln!(out, "  {label:<40}{shown:>10} {unit:<4} aim {aim} {unit}, {verdict}")?;
            figures.push(json!({
                "figure": label, "value": value, "unit": unit, "aim": aim.to_string(), "is_met": is_met,
            }));
        }
        results.push(json!({
            "scenario": scenario.name, "what": scenario.what, "figures": figures, "reports": reports,
        }));
    }
    if let Some(file) = &args.json {
        let all = json!({"machine": machine(), "quick": args.quick, "product": results});
        std::fs::write(file, format!("{all:#}\n"))
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(is_good)
}

/// Runs a scenario; the reports of its loads, in their order.
fn measure(
    args: &Args,
    scenario: &Scenario,
    loadgen: &Path,
    fanfare: &Path,
    port: u16,
) -> anyhow::Result<Vec<Value>> {
    // Beside what is measured, because a store in memory would not be one.
    let data = fanfare.with_file_name(format!("bench-{}-{}", scenario.name, std::process::id()));
    let secret = scenario.is_guarded.then_some(("JWT_SECRET", SECRET));
    let server = Server::product(fanfare, &data, secret, scenario.settings);
    let reports = (|| {
        let token = if scenario.is_guarded { token(fanfare)? } else { String::new() };
        let running = server.start(port, Core(args.server_core))?;
        let fill = |argument: &&str| {
            let [secs, hold, conns] = if args.quick { ["1", "12", "1000"] } else { ["5", "20", "10000"] };
            let filled = argument.replace("%SECS%", secs).replace("%HOLD%", hold).replace("%CONNS%", conns);
            filled.replace("%TOKEN%", &token)
        };
        let mut loads = Vec::new();
        for (nth, arguments) in scenario.loads.iter().enumerate() {
            if nth > 0 {
                std::thread::sleep(OPENING);
            }
            let arguments: Vec<_> = arguments.iter().map(fill).collect();
            loads.push(start(Core(args.load_core), loadgen, &arguments, port, &running)?);
        }
        loads.into_iter().map(finish).collect()
    })();
    // What was never made cannot be removed.
    let _ = std::fs::remove_dir_all(&data);
    reports
}

fn start(
    core: Core,
    loadgen: &Path,
    arguments: &[String],
    port: u16,
    running: &Running,
) -> anyhow::Result<Child> {
    let mut load = Command::new(loadgen);
    load.args(arguments).args(["--json", "--pid", &running.pid().to_string()]);
    load.args(["--url", &format!("http://127.0.0.1:{port}")]);
    core.spawn(load.stdout(Stdio::piped()).stderr(Stdio::piped()))
}

/// A token of the one user that a machine plays.
fn token(fanfare: &Path) -> anyhow::Result<String> {
    let made =
        Command::new(fanfare).args(["token", "make", "--sub", "bench"]).env("JWT_SECRET", SECRET).output()?;
    ensure!(made.status.success(), "no token: {}", String::from_utf8_lossy(&made.stderr).trim());
    Ok(String::from_utf8(made.stdout)?.trim().to_owned())
}

/// A figure with as many digits as it deserves.
fn number(value: f64) -> String {
    match value.abs() {
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_is_one_of_a_load() {
        for scenario in SCENARIOS {
            assert!(
                scenario.figures.iter().all(|figure| figure.load < scenario.loads.len()),
                "{}",
                scenario.name
            );
        }
        assert_eq!(WATCHERS.last(), Some(&"5"));
        assert_eq!(STREAM[1..4], ["--conns", "1", "--ns"]);
    }

    #[test]
    fn aims_are_met_at_their_bound() {
        assert!(Aim::AtLeast(5.0).is_met(5.0) && !Aim::AtLeast(5.0).is_met(4.9));
        assert!(Aim::AtMost(5.0).is_met(5.0) && !Aim::AtMost(5.0).is_met(5.1));
        assert_eq!([number(123_456.7), number(12.34), number(4.0)], ["123457", "12.3", "4.00"]);
    }
}
