//! `fanfare run`: real commands, watched.

use std::process::{Command, Stdio};

use serde_json::{Value, json};
use testkit::port::Port;

use crate::auth::{Guarded, KEY};
use crate::fanfare::{Fanfare, PATIENCE, command, signal, until};
use crate::watcher::Watcher;

/// `fanfare run` of a shell script for project `p` as job `j`.
fn run(url: &str, script: &str) -> Command {
    run_with(url, &[], script)
}

/// The same with more options.
fn run_with(url: &str, options: &[&str], script: &str) -> Command {
    let mut run = command(&["run", "--project", "p", "--job", "j", "--name", "script", "--url", url]);
    run.args(options).args(["--", "sh", "-c", script]);
    run
}

/// The record of job `j`.
fn record(server: &Fanfare) -> Value {
    server.get("/api/v1/jobs/j").json()
}

/// A socket in the rooms of the project and of the job.
fn watch(server: &Fanfare) -> Watcher {
    let (mut socket, _) = Watcher::connect(server.api(), "/socket.io/", "/");
    for room in ["project:p", "job:j"] {
        assert_eq!(socket.ask("subscribe", &json!({ "room": room })).0["ok"], true);
    }
    socket
}

/// All events up to the job's end.
fn until_end(socket: &mut Watcher) -> Vec<(String, Value)> {
    let mut events = Vec::new();
    loop {
        // Events of jobs and logs travel flat.
        let (name, data) = socket.event();
        assert_eq!(data["job_id"], "j");
        assert_ne!(
            events.last(),
            Some(&(name.clone(), data.clone())),
            "once, although the socket is in both rooms"
        );
        let is_end = matches!(data["status"].as_str(), Some("success" | "error" | "cancelled"));
        events.push((name, data));
        if is_end {
            return events;
        }
    }
}

fn named<'a>(events: &'a [(String, Value)], name: &str) -> Vec<&'a Value> {
    events.iter().filter(|(found, _)| found == name).map(|(_, data)| data).collect()
}

#[test]
fn a_command_keeps_its_output_and_exit_code_and_is_watched() {
    let server = Fanfare::start(&["--only", "api"]);
    let mut socket = watch(&server);
    let script = "printf '\\033[31mred\\033[0m\\n'; echo 'warning: late' >&2; cat; printf 'no end'; exit 7";
    let mut child = run(server.api(), script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"from stdin\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(output.stdout, b"\x1b[31mred\x1b[0m\nfrom stdin\nno end");
    assert_eq!(output.stderr, b"warning: late\n");

    let events = until_end(&mut socket);
    let statuses = named(&events, "agent_status");
    let names: Vec<_> = statuses.iter().map(|status| status["status"].as_str().unwrap()).collect();
    assert_eq!(names, ["queued", "running", "error"]);
    assert_eq!(
        (&statuses[2]["event"], &statuses[2]["error"]),
        (&json!("status_change"), &json!("exit code 7"))
    );
    let job = record(&server);
    assert_eq!((&job["meta"]["name"], &job["kind"]), (&json!("script"), &json!("command")));
    assert_eq!((&job["status"], &job["error"]), (&json!("error"), &json!("exit code 7")));
    let lines = |stream: &str| -> Vec<(String, String)> {
        let of_stream = named(&events, "log").into_iter().filter(|line| line["stream"] == stream);
        of_stream
            .map(|line| {
                (line["level"].as_str().unwrap().to_owned(), line["text"].as_str().unwrap().to_owned())
            })
            .collect()
    };
    let info = |text: &str| ("INFO".to_owned(), text.to_owned());
    assert_eq!(lines("stdout"), [info("red"), info("from stdin"), info("no end")]);
    assert_eq!(lines("stderr"), [("WARNING".to_owned(), "warning: late".to_owned())]);
}

#[test]
fn a_progress_bar_becomes_progress_that_never_goes_back() {
    let server = Fanfare::start(&["--only", "api"]);
    let mut socket = watch(&server);
    // What follows too fast is told of by its newest: the rest waits until the first has been seen.
    let script = "printf '\\r  0%%|'; read line; \
        for n in 10 20 5 30 40 50 60 70 80 90; do printf '\\r%3d%%|###' $n; sleep 0.1; done; echo";
    let mut child =
        run(server.api(), script).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("it runs");
    let mut events = Vec::new();
    while events.last().is_none_or(|(name, _)| name != "agent_progress") {
        events.push(socket.event());
    }
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"\n").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    events.extend(until_end(&mut socket));
    let updates = named(&events, "agent_progress");
    let figures: Vec<f64> = updates.iter().map(|update| update["progress"].as_f64().unwrap()).collect();
    assert!(figures.len() >= 2 && figures.len() <= 11, "{figures:?}");
    assert_eq!((figures[0], figures[figures.len() - 1]), (0.0, 90.0), "{figures:?}");
    assert!(figures.windows(2).all(|pair| pair[0] < pair[1]), "{figures:?}");
    assert_eq!(updates[0]["event"], "progress_update");
    let end = &events.last().unwrap().1;
    assert_eq!((&end["status"], &end["result"]["exit_code"]), (&json!("success"), &json!(0)));
    assert!(end["result"]["duration_ms"].as_u64().is_some_and(|millis| millis >= 1_000), "{end}");
    let job = record(&server);
    assert_eq!((&job["status"], &job["progress"]), (&json!("success"), &json!(90)));
}

#[test]
fn a_real_build_is_published_line_by_line() {
    let server = Fanfare::start(&["--only", "api"]);
    let mut socket = watch(&server);
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("hello");
    std::fs::create_dir_all(folder.join("src")).unwrap();
    let manifest = "[package]\nname = \"hello\"\nedition = \"2024\"\n[workspace]\n";
    std::fs::write(folder.join("Cargo.toml"), manifest).unwrap();
    std::fs::write(folder.join("src/main.rs"), "fn main() { let unused = 1; println!(\"{}\", oops); }")
        .unwrap();
    let script = format!("cargo build --offline --manifest-path {}/Cargo.toml", folder.display());
    let output = run(server.api(), &script).env("CARGO_TARGET_DIR", folder.join("target")).output().unwrap();
    assert_eq!(output.status.code(), Some(101));
    let events = until_end(&mut socket);
    let errors: Vec<_> = named(&events, "log").into_iter().filter(|line| line["level"] == "ERROR").collect();
    assert!(
        errors.iter().any(|line| line["text"].as_str().unwrap().starts_with("error[E0425]")),
        "{events:?}"
    );
}

#[test]
fn commands_that_cannot_run_or_are_killed_end_as_in_a_shell() {
    let server = Fanfare::start(&["--only", "api"]);
    let mut socket = watch(&server);
    assert_eq!(run(server.api(), "kill -9 $$").output().unwrap().status.code(), Some(137));
    let end = until_end(&mut socket).pop().unwrap().1;
    assert_eq!((&end["status"], &end["error"]), (&json!("error"), &json!("killed by signal 9")));
    let mut missing =
        command(&["run", "--project", "p", "--job", "k", "--url", server.api(), "--", "no-such-command"]);
    assert_eq!(missing.output().unwrap().status.code(), Some(127));
    let error = server.get("/api/v1/jobs/k").json()["error"].clone();
    assert!(error.as_str().unwrap().starts_with("no-such-command: "), "{error}");
    for (option, value) in [("--url", "ftp://x"), ("--api-key", "a\nb"), ("--job", "a\nb")] {
        let bad = command(&["run", "--project", "p", option, value, "--", "echo", "ran"]).output().unwrap();
        assert_eq!((bad.status.code(), bad.stdout.as_slice()), (Some(2), &b""[..]), "{option}");
    }
}

#[test]
fn an_id_is_for_one_job_unless_somebody_has_queued_it() {
    let server = Fanfare::start(&["--only", "api"]);
    let queued = r#"{"job_id":"j","project_id":"p","kind":"nightly","meta":{"by":"ann"}}"#;
    assert_eq!(server.post("/api/v1/jobs", queued).status, 201);
    let output = run(server.api(), "echo once").output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    let job = record(&server);
    assert_eq!((&job["status"], &job["kind"]), (&json!("success"), &json!("nightly")));
    let output = run(server.api(), "echo twice; exit 4").output().unwrap();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(4), &b"twice\n"[..]));
    let note = String::from_utf8_lossy(&output.stderr);
    assert!(note.contains("job `j` of project `p` is already success; give another --job"), "{note}");
    assert_eq!(record(&server), job);
}

#[test]
fn a_guarded_server_is_told_with_its_key() {
    let guarded = Guarded::start("run", &[]);
    let url = guarded.server.api();
    let run_keyed = |key: Option<&str>| {
        let mut run = run(url, "echo out; exit 5");
        if let Some(key) = key {
            run.env("FANFARE_API_KEY", key);
        }
        let output = run.output().unwrap();
        assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(5), &b"out\n"[..]));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    for (key, code) in [(None, "token_missing"), (Some("a-key-that-nobody-has-made-here"), "token_malformed")]
    {
        let note = run_keyed(key);
        assert!(note.starts_with("fanfare: 4 events did not reach http://"), "{note}");
        assert!(note.contains(&format!("refused with 401 {code}: ")), "{note}");
        assert!(note.contains("; --api-key or FANFARE_API_KEY takes a key"), "{note}");
        assert!(!note.contains("nobody-has-made"), "{note}");
        assert_eq!(guarded.request("GET", "/api/v1/jobs/j", Some(KEY), "").status, 404);
    }
    assert_eq!(run_keyed(Some(KEY)), "");
    let job = guarded.request("GET", "/api/v1/jobs/j", Some(KEY), "").json();
    assert_eq!((&job["status"], &job["error"]), (&json!("error"), &json!("exit code 5")));
    let log = guarded.request("GET", "/api/v1/rooms/project:p/events", Some(KEY), "").json();
    assert!(log["events"].as_array().unwrap().iter().any(|event| event["data"]["text"] == "out"), "{log}");
}

#[test]
fn a_job_whose_runner_was_killed_is_stalled() {
    let server = Fanfare::start(&["--only", "api"]);
    let mut socket = watch(&server);
    let mut child = run_with(server.api(), &["--heartbeat", "500ms"], "echo ready; cat")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while socket.event().1["text"] != "ready" {}
    signal(&child, rustix::process::Signal::KILL);
    assert_eq!(child.wait().unwrap().code(), None);
    // It may have been thought so before, for a while, on a machine that stood still.
    while !matches!(socket.event().1["status"].as_str(), Some("stalled" | "lost")) {}
    assert!(matches!(record(&server)["status"].as_str(), Some("stalled" | "lost")));
}

#[test]
fn signals_are_passed_on() {
    let server = Fanfare::start(&["--only", "api"]);
    let mut socket = watch(&server);
    let script = "trap 'echo stopping; exit 9' TERM; echo ready; while :; do sleep 0.05; done";
    let mut child = run(server.api(), script).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while socket.event().1["text"] != "ready" {}
    signal(&child, rustix::process::Signal::TERM);
    assert_eq!(child.wait().unwrap().code(), Some(9));
    let events = until_end(&mut socket);
    assert_eq!(named(&events, "log")[0]["text"], "stopping");
    assert_eq!(record(&server)["error"], "exit code 9");
}

#[test]
fn a_command_that_was_asked_to_stop_and_did_is_cancelled() {
    let server = Fanfare::start(&["--only", "api"]);
    let mut socket = watch(&server);
    let script = "echo ready; while :; do sleep 0.05; done";
    let mut child = run(server.api(), script).stdout(Stdio::null()).spawn().unwrap();
    while socket.event().1["text"] != "ready" {}
    signal(&child, rustix::process::Signal::TERM);
    assert_eq!(child.wait().unwrap().code(), Some(128 + 15));
    let job = record(&server);
    assert_eq!((&job["status"], &job["error"]), (&json!("cancelled"), &json!("killed by signal 15")));
}

#[test]
fn without_a_server_the_command_runs_and_says_what_was_lost() {
    let nobody = Port::hold();
    let output = run(&format!("http://{}", nobody.address()), "echo out; exit 3").output().unwrap();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(3), &b"out\n"[..]));
    let note = String::from_utf8_lossy(&output.stderr);
    assert!(note.contains("fanfare: 4 events did not reach"), "{note}");
}

#[test]
fn lines_wait_for_a_server_that_comes_later() {
    let port = Port::hold();
    let url = format!("http://{}", port.address());
    let mut child = run(&url, "echo early; read line; echo late")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let server =
        Fanfare::spawn(&mut command(&["serve", "--only", "api", "--api-port", &port.number().to_string()]));
    // The early line may come before anybody watches; the log tells that it came.
    until(PATIENCE, "queued, running and a line", || server.last_seq("job:j") == 3);
    let mut socket = watch(&server);
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(0), &b"early\nlate\n"[..]));
    assert!(output.stderr.is_empty(), "nothing was lost: {}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(named(&until_end(&mut socket), "log")[0]["text"], "late");
}
