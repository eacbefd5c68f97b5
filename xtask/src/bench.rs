//! `cargo xtask bench`: every workload against the floor, ours and the peers, interleaved, as ratios.
//!
//! Owns the order of the runs and what is made of their figures. What a workload is lies in `workload.rs`, how a server
//! is started in `server.rs`, how results look in `table.rs`. Each run has a fresh server process: memory and caches of
//! an earlier one would count for the next.

mod server;
mod table;
mod workload;

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, bail};
use serde_json::{Value, json};

use crate::cluster::Redis;
use crate::project;
use server::{Core, Running, Server};
use workload::{Beside, CLUSTER, PRODUCT, WORKLOADS, Workload};

/// Servers of a cluster; ports are taken so many at a time.
const NODES: u16 = 3;

/// Flags of the chore.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Runs of each workload against each server; medians are shown.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Only these workloads.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Compare with these too: batched (the floor, joining what one read causes), node, python, socketioxide.
    #[arg(long, value_delimiter = ',')]
    peers: Vec<String>,
    /// Install the peers first, from the package registries.
    #[arg(long)]
    install_peers: bool,
    /// This command instead of the engine's fixture; {port} is replaced, or the port is appended.
    #[arg(long)]
    server: Option<String>,
    /// Measure the whole product, its store included, instead of the engine.
    #[arg(long, conflicts_with_all = ["server", "peers", "install_peers", "without_ours"])]
    product: bool,
    /// Measure three servers with one Redis beside three of Socket.IO for Node with its Redis adapter. Needs redis-server.
    #[arg(long, conflicts_with_all = ["server", "peers", "without_ours", "product"])]
    cluster: bool,
    /// Leave the engine's fixture out.
    #[arg(long)]
    without_ours: bool,
    /// Short runs, for a first look: one each, and a second of work.
    #[arg(long)]
    quick: bool,
    /// Cargo profile of the engine's fixture and the load generator.
    #[arg(long, default_value = "release")]
    profile: String,
    /// Write all figures to this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// First of the ports that servers listen on.
    #[arg(long, default_value_t = 17_880)]
    port: u16,
    /// Core of the server.
    #[arg(long, default_value_t = 0)]
    server_core: usize,
    /// Core of the load generator.
    #[arg(long, default_value_t = 1)]
    load_core: usize,
    /// List the workloads and their targets.
    #[arg(long)]
    list: bool,
}

/// What one run of a workload against a server gave.
#[derive(Clone, Debug)]
pub(crate) enum Run {
    /// The load generator's report, faults included.
    Report(Value),
    /// It could not be run to its end.
    Failed(String),
}

impl Run {
    /// A figure of the report.
    fn figure(&self, key: &str) -> Option<f64> {
        match self {
            Self::Report(report) => report[key].as_f64(),
            Self::Failed(_) => None,
        }
    }

    /// Missing, malformed, dropped and failed, together.
    fn faults(&self) -> u64 {
        ["missing", "bad", "dropped", "failed"].iter().filter_map(|k| self.figure(k)).sum::<f64>() as u64
    }
}

/// All runs of one workload against one server, in order.
pub(crate) struct Series {
    server: String,
    runs: Vec<Run>,
}

impl Series {
    /// The median of a figure over the runs that have it.
    fn median(&self, key: &str) -> Option<f64> {
        median(self.runs.iter().filter_map(|r| r.figure(key)).collect())
    }

    /// The median of the runs' ratios to the same run of `floor`.
    fn ratio(&self, floor: &Self, key: &str) -> Option<f64> {
        let ratios = self.runs.iter().zip(&floor.runs).filter_map(|(a, b)| {
            let below = b.figure(key).filter(|b| *b > 0.0)?;
            Some(a.figure(key)? / below)
        });
        median(ratios.collect())
    }

    fn faults(&self) -> u64 {
        self.runs.iter().map(Run::faults).sum()
    }

    /// Why runs failed, if any did.
    fn failure(&self) -> Option<&str> {
        self.runs.iter().find_map(|r| match r {
            Run::Failed(why) => Some(why.as_str()),
            Run::Report(_) => None,
        })
    }
}

fn median(mut figures: Vec<f64>) -> Option<f64> {
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    match figures.len() {
        0 => None,
        n if n % 2 == 1 => Some(figures[middle]),
        _ => Some((figures[middle - 1] + figures[middle]) / 2.0),
    }
}

/// Runs the benchmark; whether every target was met and every delivery arrived.
pub(crate) fn run(args: &Args) -> anyhow::Result<bool> {
    let all = match (args.product, args.cluster) {
        (true, _) => PRODUCT,
        (_, true) => CLUSTER,
        _ => WORKLOADS,
    };
    let workloads = select(all, &args.only)?;
    if args.list {
        table::write_targets(&mut std::io::stdout().lock(), &workloads)?;
        return Ok(true);
    }
    let root = project::root()?;
    if args.install_peers {
        let node = ["node".to_owned()];
        server::install(&root, if args.cluster { &node } else { &args.peers })?;
    }
    let loadgen = project::build("loadgen", &["--profile", &args.profile, "-p", "loadgen"])?;
    let servers = servers(args, &root, &loadgen)?;
    let runs = if args.quick { 1 } else { args.runs.max(1) };
    let total = workloads.len() * runs * servers.len();
    let mut port = args.port;
    let mut done = 0;
    let mut results = Vec::new();
    let mut is_good = true;
    let mut out = std::io::stdout();
    let style = table::Style::for_terminal(out.is_terminal());
    for workload in &workloads {
        let mut series: Vec<Series> =
            servers.iter().map(|s| Series { server: s.name.clone(), runs: Vec::new() }).collect();
        for _ in 0..runs {
            for (server, series) in servers.iter().zip(&mut series) {
                done += 1;
                show_progress(done, total, workload.name, &server.name);
                series.runs.push(measure(args, server, workload, &loadgen, port));
                port = port.checked_add(NODES).unwrap_or(args.port);
            }
        }
        clear_progress();
        is_good &= table::write_workload(&mut out, style, workload, &series)?;
        results.push(to_json(workload, &series));
    }
    if let Some(file) = &args.json {
        let all = json!({"machine": machine(), "runs": runs, "quick": args.quick, "workloads": results});
        std::fs::write(file, format!("{all:#}\n"))
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(is_good)
}

fn select(all: &'static [Workload], only: &[String]) -> anyhow::Result<Vec<&'static Workload>> {
    if let Some(unknown) = only.iter().find(|name| all.iter().all(|w| w.name != **name)) {
        let names: Vec<_> = all.iter().map(|w| w.name).collect();
        bail!("no workload is called {unknown}; there are {}", names.join(", "));
    }
    Ok(all.iter().filter(|w| only.is_empty() || only.iter().any(|name| name == w.name)).collect())
}

/// The floor first, ours second, then the peers that were asked for.
fn servers(args: &Args, root: &Path, loadgen: &Path) -> anyhow::Result<Vec<Server>> {
    if args.product {
        let program = project::build("fanfare", &["--profile", &args.profile, "-p", "fanfare"])?;
        return Ok(vec![Server::product("ours", &program)]);
    }
    if args.cluster {
        let program = project::build("fanfare", &["--profile", &args.profile, "-p", "fanfare"])?;
        return Ok(vec![Server::peer(root, "node")?, Server::product("ours", &program)]);
    }
    let mut servers = vec![Server::floor("floor", loadgen, &[])];
    match &args.server {
        Some(command) => servers.push(Server::parse("ours", command)?),
        None if args.without_ours => {}
        None => {
            let fixture = project::build(
                "fixture",
                &["--profile", &args.profile, "-p", "engine", "--example", "fixture"],
            )
            .context("the engine's fixture is what is measured; --server or --without-ours go without it")?;
            servers.push(Server::at("ours", &fixture));
        }
    }
    for peer in &args.peers {
        servers.push(match peer.as_str() {
            "batched" => Server::floor("batched", loadgen, &["--batched"]),
            name => Server::peer(root, name)?,
        });
    }
    Ok(servers)
}

/// One run: a fresh server on its core, the load on another.
fn measure(args: &Args, server: &Server, workload: &Workload, loadgen: &Path, port: u16) -> Run {
    match try_measure(args, server, workload, loadgen, port) {
        Ok(report) => Run::Report(report),
        Err(error) => Run::Failed(format!("{error:#}")),
    }
}

fn try_measure(
    args: &Args,
    server: &Server,
    workload: &Workload,
    loadgen: &Path,
    port: u16,
) -> anyhow::Result<Value> {
    let core = Core(args.server_core);
    let folder = std::env::temp_dir().join(format!("fanfare-bench-redis-{}-{port}", std::process::id()));
    let redis = if args.cluster {
        std::fs::create_dir_all(&folder)?;
        Some(core.with(|| Redis::start(&folder))?)
    } else {
        None
    };
    let url = redis.as_ref().map(Redis::url);
    let running = server.start(port, core, url.as_deref())?;
    let others = if args.cluster { port + 1..port + NODES } else { 0..0 };
    let mut nodes = vec![running.pid().to_string()];
    let mut also = Vec::new();
    for port in others {
        let other = server.start(port, core, url.as_deref())?;
        nodes.push(other.pid().to_string());
        also.push((other, format!("http://127.0.0.1:{port}")));
    }
    let _beside = workload.beside.map(|beside| hold(args, &running, beside, loadgen, port)).transpose()?;
    let mut load = Command::new(loadgen);
    load.args(workload.arguments(server.is_peer, args.quick));
    load.args(["--json", "--label", &server.name, "--pid", &nodes.join(",")]);
    load.args(["--url", &format!("http://127.0.0.1:{port}")]);
    for (_, url) in &also {
        load.args(["--also", url]);
    }
    let child = Core(args.load_core).spawn(load.stdout(Stdio::piped()).stderr(Stdio::piped()))?;
    let output = child.wait_with_output()?;
    if redis.is_some() {
        // What stays behind is in nobody's way.
        let _ = std::fs::remove_dir_all(&folder);
    }
    match output.status.code() {
        // 1: something was missing or wrong, which the report tells.
        Some(0 | 1) => {
            serde_json::from_slice(&output.stdout).context("the load generator's report is no JSON")
        }
        _ => bail!("{}", String::from_utf8_lossy(&output.stderr).trim()),
    }
}

/// A load generator that is ended when dropped.
struct Holding(Child);

impl Drop for Holding {
    fn drop(&mut self) {
        // Both fail only when it is gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Opens connections, and holds them while something else is measured.
fn hold(args: &Args, server: &Running, beside: Beside, loadgen: &Path, port: u16) -> anyhow::Result<Holding> {
    let mut load = Command::new(loadgen);
    load.args(beside.flags).args(["--hold", "60", "--url", &format!("http://127.0.0.1:{port}")]);
    let holding = Core(args.load_core).spawn(load.stdout(Stdio::null()).stderr(Stdio::null()))?;
    let holding = Holding(holding);
    server.wait_for_descriptors(beside.conns)?;
    Ok(holding)
}

fn show_progress(done: usize, total: usize, workload: &str, server: &str) {
    let mut err = std::io::stderr();
    if err.is_terminal() {
        // A lost progress line is no reason to stop.
        let _ = write!(err, "\r\x1b[K{done} of {total}: {workload}, {server}");
    }
}

fn clear_progress() {
    let mut err = std::io::stderr();
    if err.is_terminal() {
        let _ = write!(err, "\r\x1b[K");
    }
}

fn to_json(workload: &Workload, series: &[Series]) -> Value {
    let servers: Vec<Value> = series
        .iter()
        .map(|s| {
            let runs: Vec<Value> = s
                .runs
                .iter()
                .map(|run| match run {
                    Run::Report(report) => report.clone(),
                    Run::Failed(why) => json!({"error": why}),
                })
                .collect();
            json!({
                "server": s.server,
                "cpu_us_per_unit": s.median(workload::COST),
                "cpu_to_floor": s.ratio(&series[0], workload::COST),
                "runs": runs,
            })
        })
        .collect();
    json!({"workload": workload.name, "what": workload.what, "servers": servers})
}

/// What the figures belong to.
fn machine() -> Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let info = read("/proc/cpuinfo");
    let model = info
        .lines()
        .find_map(|l| l.strip_prefix("model name"))
        .map(|l| l.trim_start_matches([' ', '\t', ':']));
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    json!({"cpu": model, "cores": cores, "kernel": read("/proc/sys/kernel/osrelease").trim()})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(figures: &[Option<f64>]) -> Series {
        let run = |f: &Option<f64>| match f {
            Some(f) => Run::Report(json!({"x": f, "missing": 1})),
            None => Run::Failed("no".into()),
        };
        Series { server: "s".into(), runs: figures.iter().map(run).collect() }
    }

    #[test]
    fn medians_take_the_middle() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0]), Some(2.5));
    }

    #[test]
    fn ratios_are_taken_within_a_run() {
        let floor = series(&[Some(1.0), Some(10.0), Some(2.0)]);
        let ours = series(&[Some(2.0), Some(5.0), None]);
        assert_eq!(ours.ratio(&floor, "x"), Some(1.25));
        assert_eq!(ours.failure(), Some("no"));
        assert_eq!(ours.faults(), 2);
        assert_eq!(series(&[None]).ratio(&floor, "x"), None);
    }

    #[test]
    fn unknown_workloads_are_refused() {
        assert!(select(WORKLOADS, &["nothing".into()]).is_err());
        assert!(select(PRODUCT, &["ingest".into()]).is_err());
        assert_eq!(select(WORKLOADS, &["ingest".into()]).unwrap().len(), 1);
        assert_eq!(select(WORKLOADS, &[]).unwrap().len(), WORKLOADS.len());
    }
}
