//! The load generator against its own floor, as processes on real sockets: what is counted must add up, and what is
//! lost must be noticed. Asserts no times: the machine may be busy.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use testkit::port::Port;

const LOADGEN: &str = env!("CARGO_BIN_EXE_loadgen");

/// A floor that runs; it is killed when dropped.
struct Floor {
    child: Child,
    port: Port,
}

impl Floor {
    fn start(flags: &[&str]) -> Self {
        let port = Port::hold();
        let mut child = Command::new(LOADGEN)
            .args(["floor", "--port", &port.number().to_string()])
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
        // Longer than a busy machine stands still.
        self.load_for("120", flags)
    }

    /// The same, waiting for so many seconds for what is under way.
    fn load_for(&self, timeout: &str, flags: &str) -> (Option<i32>, Value) {
        let output = Command::new(LOADGEN)
            .args(flags.split_whitespace())
            .args(["--json", "--url", &format!("http://{}", self.port.address())])
            .args(["--timeout", timeout])
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
        let has_cpu = report["server_cpu_us_per_unit"].as_f64().is_some_and(|us| us > 0.0);
        assert!(has_cpu || report["units"] == 0, "{report}");
        report
    }

    /// The same for a scenario that measures for a while: for longer if the machine was too slow to count as much.
    fn measure_cleanly(&self, flags: &str, what: &str, least: u64) -> Value {
        let mut report = Value::Null;
        for seconds in [0.3, 3.0, 30.0] {
            report = self.load_cleanly(&format!("{flags} --secs {seconds}"));
            if report[what].as_u64() >= Some(least) {
                return report;
            }
        }
        panic!("less than {least} {what}: {report}");
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        // Both fail only when it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn every_publication_reaches_every_subscriber_of_its_room() {
    for flags in [&[][..], &["--batched"]] {
        let floor = Floor::start(flags);
        // 50 publications go to each of 2 rooms with 5 members.
        let report = floor.load_cleanly("fanout --conns 10 --rooms 2 --msgs 100 --stall 120");
        assert_eq!(report["units"], 500);
        let report =
            floor.load_cleanly("fanout --conns 3 --msgs 40 --size 70000 --window 8 --mask --stall 120");
        assert_eq!(report["units"], 120);
        let report = floor.load_cleanly("fanout --conns 5 --msgs 20 --rate 1000 --stall 120");
        assert_eq!(report["units"], 100);
        floor.measure_cleanly("fanout --conns 5 --loose --stall 120", "units", 1);
    }
}

#[test]
fn echoes_come_back() {
    let floor = Floor::start(&[]);
    floor.measure_cleanly("echo --conns 10 --window 4 --mask", "units", 40);
}

#[test]
fn ingested_events_are_counted() {
    let floor = Floor::start(&[]);
    let report = floor.measure_cleanly("ingest --conns 2 --msgs 5000 --count-event sunk", "rounds", 2);
    let (units, rounds) = (report["units"].as_u64().unwrap(), report["rounds"].as_u64().unwrap());
    assert_eq!(units, 5000 * rounds);
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
    floor.measure_cleanly("polling --conns 6 --rooms 2 --rate 200 --stall 120", "units", 3);
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
    let flags = "slow --conns 5 --size 2000 --turns 2 --silent-max 0.3 --stall 120";
    let report = floor.measure_cleanly(flags, "units", 1);
    assert!(report["rss_growth_kib"].is_i64() && report["p99_ratio"].is_f64(), "{report}");
    assert_eq!(report["silent_cut_off"], 0, "{report}");
    assert!(report["verdict"].as_str().is_some_and(|text| text.starts_with("cut off: no, ")), "{report}");
}

#[test]
fn lost_deliveries_are_noticed() {
    let floor = Floor::start(&["--drop-every", "7"]);
    let (code, report) = floor.load("fanout --conns 10 --msgs 50 --window 50 --stall 10");
    assert_eq!(code, Some(1), "{report}");
    let (missing, units) = (report["missing"].as_u64().unwrap(), report["units"].as_u64().unwrap());
    // Every seventh of 500 was left out: nothing is counted twice and nothing is overlooked.
    assert_eq!((missing, units), (500 / 7, 500 - 500 / 7), "{report}");
    assert_eq!(report["bad"], 0, "{report}");
}

#[test]
fn lost_answers_are_noticed() {
    let floor = Floor::start(&["--drop-every", "100"]);
    let (code, report) = floor.load_for("0.5", "echo --conns 4 --window 4 --secs 0.2");
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
    let nobody = Port::hold();
    let url = format!("http://{}", nobody.address());
    let flags = ["idle", "--conns", "3", "--hold", "0", "--json", "--url", &url];
    let output = Command::new(LOADGEN).args(flags).output().expect("it runs");
    let report: Value = serde_json::from_slice(&output.stdout).expect("a report");
    assert_eq!((output.status.code(), report["failed"].as_u64()), (Some(1), Some(3)), "{report}");
}
