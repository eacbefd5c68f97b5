//! What the server does when its disk is full, its folder may not be written, or its database is damaged: it says so,
//! refuses what it cannot keep, goes on with the rest, and recovers.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::fanfare::{DataDir, Fanfare, PATIENCE, Reply, command};
use crate::watcher::Watcher;

const EVENTS: &str = "/api/v1/events";

#[test]
fn a_database_that_may_not_grow_refuses_what_it_cannot_keep_and_goes_on_delivering() {
    let data = DataDir::new();
    let start = |bytes_max: &str| {
        let mut serve = command(&["serve", "--only", "api", "--api-port", "0", "--set", bytes_max]);
        Fanfare::spawn(serve.env("FANFARE_DATA_DIR", data.path()))
    };
    let server = start("store.bytes_max=600000");
    let answered = fill(&server);
    what_is_not_kept_goes_on(&server);
    assert_eq!(logged(&server), answered, "what was answered is kept, what was refused is not");
    drop(server);
    let server = start("store.bytes_max=0");
    assert_eq!(logged(&server), answered);
    assert_eq!(publish(&server).status, 201);
    assert_eq!(server.get("/health").json()["status"], "healthy");
}

#[test]
fn a_full_disk_is_told_and_with_space_again_the_server_recovers_by_itself() {
    let data = DataDir::new();
    fs::create_dir_all(data.path()).unwrap();
    // A small disk of its own; it is gone when the server ends.
    let script =
        r#"mount -t tmpfs -o size=8m none "$0" && head -c 3000000 /dev/zero > "$0/ballast" && exec "$@""#;
    let on_small_disk = |inner: &Command| {
        let mut outer = Command::new("unshare");
        outer.args(["--mount", "--map-root-user", "sh", "-c", script]).arg(data.path());
        like(&mut outer, inner);
        outer
    };
    let probe = on_small_disk(&Command::new("true")).output();
    if !probe.as_ref().is_ok_and(|probe| probe.status.success()) {
        // Where nobody may mount, the test above has to do.
        let version = command(&["--version"]).output().unwrap();
        assert!(version.status.success(), "{probe:?}, and the binary does not run either");
        return;
    }
    let mut serve = command(&["serve", "--only", "api", "--api-port", "0"]);
    serve.env("FANFARE_DATA_DIR", data.path());
    let server = Fanfare::spawn(&mut on_small_disk(&serve));
    let answered = fill(&server);
    what_is_not_kept_goes_on(&server);
    let inside = data.path().strip_prefix("/").expect("an absolute path");
    fs::remove_file(Path::new(&format!("/proc/{}/root", server.pid())).join(inside).join("ballast"))
        .expect("the ballast goes");
    assert_eq!(publish(&server).status, 201, "there is space again");
    let health = server.get("/health").json();
    assert_eq!(
        (&health["status"], &health["checks"]["store"]["complaint"]),
        (&json!("healthy"), &Value::Null)
    );
    assert_eq!(logged(&server), answered + 1);
}

#[test]
fn a_folder_that_may_not_be_written_is_refused_with_words() {
    let data = DataDir::new();
    fs::create_dir_all(data.path()).unwrap();
    let mode = |mode| fs::set_permissions(data.path(), fs::Permissions::from_mode(mode)).unwrap();
    // The program where whoever runs it may read it: the superuser, who is barred from nothing, lends it to nobody.
    let program = data.path().with_extension("program");
    fs::copy(env!("CARGO_BIN_EXE_fanfare"), &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    mode(0o555);
    let inner = command(&["serve", "--only", "api", "--api-port", "0"]);
    let mut serve = Command::new(&program);
    like_without_program(&mut serve, &inner);
    serve.env("FANFARE_DATA_DIR", data.path()).current_dir("/");
    if fs::write(data.path().join("probe"), "").is_ok() {
        serve.uid(65_534).gid(65_534);
    }
    let output = serve.output().unwrap();
    mode(0o755);
    fs::remove_file(program).unwrap();
    refused(&output, &[data.path().to_str().unwrap(), "must be writable"]);
}

#[test]
fn a_file_that_is_no_database_or_another_process_has_is_refused_with_words() {
    let data = DataDir::new();
    fs::create_dir_all(data.path()).unwrap();
    let serve = || {
        let mut serve = command(&["serve", "--only", "api", "--api-port", "0"]);
        serve.env("FANFARE_DATA_DIR", data.path());
        serve
    };
    let database = data.path().join("fanfare.db");
    fs::write(&database, "nonsense ".repeat(2_000)).unwrap();
    refused(&serve().output().unwrap(), &["fanfare.db is damaged", "backup"]);
    fs::remove_file(&database).unwrap();
    let server = Fanfare::spawn(&mut serve());
    refused(&serve().output().unwrap(), &["fanfare.db is in use by process", &server.pid().to_string()]);
}

#[test]
fn a_database_with_a_damaged_part_is_told_and_what_needs_no_store_goes_on() {
    let data = DataDir::new();
    let mut serve = command(&["serve", "--only", "api", "--api-port", "0"]);
    serve.env("FANFARE_DATA_DIR", data.path());
    let server = Fanfare::spawn(&mut serve);
    for _ in 0..50 {
        assert_eq!(publish(&server).status, 201);
    }
    assert_eq!(server.terminate(), Some(0));
    let database = data.path().join("fanfare.db");
    let mut bytes = fs::read(&database).unwrap();
    // The tables' names stay; most of what they hold does not.
    let from = bytes.len() / 4;
    bytes[from..].fill(0xa5);
    fs::write(&database, bytes).unwrap();
    let mut again = command(&["serve", "--only", "api", "--api-port", "0"]);
    again.env("FANFARE_DATA_DIR", data.path());
    let server = Fanfare::spawn(&mut again);
    let reading = server.get("/api/v1/rooms/project:full/events?after=0&limit=1000");
    assert_eq!(reading.refusal(), (503, "store_unavailable".to_owned()));
    let health = server.get("/health").json();
    assert_eq!(health["status"], "degraded", "{health}");
    assert!(health["checks"]["store"]["complaint"].is_string(), "{health}");
    assert_eq!(server.get("/livez").status, 200);
    what_is_volatile_goes_on(&server);
}

/// Publishes until nothing more is kept; answers how many were.
fn fill(server: &Fanfare) -> u64 {
    let (mut answered, mut size) = (0, 20_000);
    while answered < 10_000 {
        let reply = publish_sized(server, size);
        if reply.status == 201 {
            answered += 1;
            continue;
        }
        assert!(answered > 5, "{answered}");
        assert_eq!(reply.refusal(), (503, "store_unavailable".to_owned()));
        assert_eq!(reply.json()["error"]["retry_after"], 1);
        assert_eq!(reply.header("retry-after"), "1");
        let health = server.get("/health").json();
        assert_eq!(health["status"], "degraded", "{health}");
        assert!(health["checks"]["store"]["complaint"].is_string(), "{health}");
        if size == 1 {
            return answered;
        }
        // Where a large one has no place, a small one may.
        size = 1;
    }
    panic!("all of it found a place");
}

/// With a store that keeps nothing: events that nobody keeps are delivered, commands answered.
fn what_is_not_kept_goes_on(server: &Fanfare) {
    let mut watcher = what_is_volatile_goes_on(server);
    for nth in 0..3 {
        let passing = json!({ "event": "p", "data": nth, "namespace": "/" });
        assert_eq!(server.post(EVENTS, &passing.to_string()).status, 201);
        while watcher.event().1["data"] != nth {}
    }
    assert_eq!(watcher.ask("ping", &Value::Null).0["ok"], true);
    let joined = watcher.ask("subscribe", &json!({ "room": "project:full" })).0;
    assert_eq!(joined["ok"], true, "{joined}");
    let update = json!({ "task_id": "t", "status": "running" });
    let refused = watcher.ask("task_update", &update).0;
    assert_eq!(refused["error"]["code"], "store_unavailable", "{refused}");
    assert_eq!(refused["error"]["retry_after"], 1);
}

/// With whatever store: a volatile event is delivered to a socket that listens.
fn what_is_volatile_goes_on(server: &Fanfare) -> Watcher {
    let (mut watcher, _) = Watcher::connect(server.api(), "/socket.io/", "/");
    let listening = std::thread::spawn(move || {
        let (name, _) = watcher.event();
        (watcher, name)
    });
    // Over polling a volatile event is for those whose poll is open: it is sent until it meets one.
    let volatile = json!({ "event": "v", "room": "global", "volatile": true }).to_string();
    let deadline = Instant::now() + PATIENCE;
    while !listening.is_finished() {
        assert!(Instant::now() < deadline, "it meets no open poll");
        assert_eq!(server.post(EVENTS, &volatile).status, 201);
        std::thread::sleep(Duration::from_millis(10));
    }
    let (watcher, name) = listening.join().expect("no panic");
    assert_eq!(name, "v");
    watcher
}

/// Publishes an event of 20 kB that is kept.
fn publish(server: &Fanfare) -> Reply {
    publish_sized(server, 20_000)
}

fn publish_sized(server: &Fanfare, size: usize) -> Reply {
    let event = json!({ "event": "e", "data": "x".repeat(size), "room": "project:full" });
    server.post(EVENTS, &event.to_string())
}

/// Events of the log; asserts that it has no gap.
fn logged(server: &Fanfare) -> u64 {
    let page = server.get("/api/v1/rooms/project:full/events?after=0&limit=1000").json();
    let seqs: Vec<u64> = page["events"]
        .as_array()
        .expect("events")
        .iter()
        .map(|event| event["seq"].as_u64().expect("a seq"))
        .collect();
    assert!(seqs.iter().copied().eq(1..=seqs.len() as u64), "{seqs:?}");
    seqs.len() as u64
}

#[track_caller]
fn refused(output: &Output, parts: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{text}");
    for part in parts {
        assert!(text.contains(part), "`{part}` is missing in\n{text}");
    }
}

/// Lets one command run another as it would have run by itself.
fn like(outer: &mut Command, inner: &Command) {
    outer.arg(inner.get_program());
    like_without_program(outer, inner);
}

/// Gives a command the arguments and the environment of another.
fn like_without_program(outer: &mut Command, inner: &Command) {
    outer.args(inner.get_args());
    for (name, value) in inner.get_envs() {
        match value {
            Some(value) => outer.env(name, value),
            None => outer.env_remove(name),
        };
    }
}
