//! The load generator against its own floor, as processes on real sockets: what is counted must add up, and what is
//! lost must be noticed. Asserts no times: the machine may be busy.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

const LOADGEN: &str = env!("CARGO_BIN_EXE_loadgen");

/// A floor that runs; it is killed when dropped.
struct Floor {
    child: Child,
    port: u16,
}

impl Floor {
    fn start(flags: &[&str]) -> Self {
        let port = free_port();
        let mut child = Command::new(LOADGEN)
            .args(["floor", "--port", &port.to_string()])
            .args(flags)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the floor starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("stdout is piped");
        BufReader::new(stdout).read_line(&mut line).expect("the floor speaks");
        assert_eq!(line, "ready\n");
        Self { child, port }
    }

    /// Runs a scenario and returns its exit code and its report.
    fn load(&self, flags: &str) -> (Option<i32>, Value) {
        let output = Command::new(LOADGEN)
            .args(flags.split_whitespace())
            .args(["--json", "--url", &format!("http://127.0.0.1:{}", self.port)])
            .args(["--pid", &self.child.id().to_string()])
            .output()
            .expect("the load generator runs");
        let report = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stderr)));
        (output.status.code(), report)
    }

    /// Runs a scenario that must find nothing wrong, and returns its report.
    fn load_cleanly(&self, flags: &str) -> Value {
        let (code, report) = self.load(flags);
        for fault in ["missing", "bad", "dropped", "failed"] {
            assert_eq!(report[fault], 0, "{fault} in {report}");
        }
        assert_eq!(code, Some(0), "{report}");
        assert!(report["server_cpu_us_per_unit"].as_f64().is_some_and(|us| us > 0.0), "{report}");
        report
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        // Both fail only when it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("a bound address").port()
}

#[test]
fn every_publication_reaches_every_subscriber_of_its_room() {
    for flags in [&[][..], &["--batched"]] {
        let floor = Floor::start(flags);
        // 50 publications go to each of 2 rooms with 5 members.
        let report = floor.load_cleanly("fanout --conns 10 --rooms 2 --msgs 100");
        assert_eq!(report["units"], 500);
        let report = floor.load_cleanly("fanout --conns 3 --msgs 40 --size 70000 --window 8 --mask");
        assert_eq!(report["units"], 120);
        let report = floor.load_cleanly("fanout --conns 5 --msgs 20 --rate 1000");
        assert_eq!(report["units"], 100);
        let report = floor.load_cleanly("fanout --conns 5 --secs 0.2 --loose");
        assert!(report["units"].as_u64() > Some(0), "{report}");
    }
}

#[test]
fn echoes_come_back() {
    let floor = Floor::start(&[]);
    let report = floor.load_cleanly("echo --conns 10 --window 4 --secs 0.3 --mask");
    assert!(report["units"].as_u64() >= Some(40), "{report}");
}

#[test]
fn ingested_events_are_counted() {
    let floor = Floor::start(&[]);
    let report = floor.load_cleanly("ingest --conns 2 --msgs 5000 --secs 0.2 --count-event sunk");
    let (units, rounds) = (report["units"].as_u64().unwrap(), report["rounds"].as_u64().unwrap());
    assert_eq!(units, 5000 * rounds);
    assert!(rounds >= 2, "{report}");
}

#[test]
fn connections_come_back_after_a_storm() {
    let floor = Floor::start(&[]);
    for close in ["rst", "fin"] {
        let flags =
            format!("storm --conns 100 --inflight 20 --rounds 2 --join r%ROOM% --rooms 3 --close {close}");
        assert_eq!(floor.load_cleanly(&flags)["units"], 200);
    }
}

#[test]
fn long_polling_subscribers_get_everything_in_order() {
    let floor = Floor::start(&[]);
    let report = floor.load_cleanly("polling --conns 6 --rooms 2 --rate 200 --secs 0.4");
    assert!(report["units"].as_u64() >= Some(3), "{report}");
}

#[test]
fn losses_over_long_polling_are_noticed() {
    let floor = Floor::start(&["--drop-every", "10"]);
    let (code, report) = floor.load("polling --conns 6 --rate 100 --secs 0.5 --warmup 0 --stall 1");
    assert_eq!(code, Some(1), "{report}");
    assert!(report["missing"].as_u64() > Some(0), "{report}");
}

#[test]
fn idle_connections_stay() {
    let floor = Floor::start(&[]);
    let report = floor.load_cleanly("idle --conns 200 --hold 0.1 --join room-%CONN% --src-ips 3");
    assert_eq!(report["units"], 200);
    assert!(report["rss_after_kib"].as_u64() > Some(0), "{report}");
}

#[test]
fn a_silent_subscriber_is_not_counted_as_a_loss() {
    let floor = Floor::start(&[]);
    // The floor cuts nobody off.
    let report = floor.load_cleanly("slow --conns 5 --secs 0.2 --size 2000 --turns 2 --silent-max 0.3");
    assert!(report["units"].as_u64() > Some(0), "{report}");
    assert!(report["rss_growth_kib"].is_i64() && report["p99_ratio"].is_f64(), "{report}");
    assert_eq!(report["silent_cut_off"], 0, "{report}");
    assert!(report["verdict"].as_str().is_some_and(|text| text.starts_with("cut off: no, ")), "{report}");
}

#[test]
fn lost_deliveries_are_noticed() {
    let floor = Floor::start(&["--drop-every", "7"]);
    let (code, report) = floor.load("fanout --conns 10 --msgs 50 --window 50 --stall 2");
    assert_eq!(code, Some(1), "{report}");
    let (missing, units) = (report["missing"].as_u64().unwrap(), report["units"].as_u64().unwrap());
    // Every seventh of 500 was left out: nothing is counted twice and nothing is overlooked.
    assert_eq!((missing, units), (500 / 7, 500 - 500 / 7), "{report}");
    assert_eq!(report["bad"], 0, "{report}");
}

#[test]
fn lost_answers_are_noticed() {
    let floor = Floor::start(&["--drop-every", "100"]);
    let (code, report) = floor.load("echo --conns 4 --window 4 --secs 0.2 --timeout 0.5");
    assert_eq!(code, Some(1), "{report}");
    assert!(report["missing"].as_u64() > Some(0), "{report}");
}

#[test]
fn only_loopback_is_loaded() {
    let output =
        Command::new(LOADGEN).args(["idle", "--url", "http://192.0.2.1:80"]).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(2) && said.contains("not a loopback address"), "{said}");
}

#[test]
fn refused_connections_are_counted_as_failed() {
    let url = format!("http://127.0.0.1:{}", free_port());
    let flags = ["idle", "--conns", "3", "--hold", "0", "--json", "--url", &url];
    let output = Command::new(LOADGEN).args(flags).output().expect("it runs");
    let report: Value = serde_json::from_slice(&output.stdout).expect("a report");
    assert_eq!((output.status.code(), report["failed"].as_u64()), (Some(1), Some(3)), "{report}");
}
