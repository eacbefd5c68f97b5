//! Settings from files, variables and flags, and what is refused.

use std::path::PathBuf;
use std::process::Output;

use crate::fanfare::{Fanfare, command};

#[test]
fn settings_come_from_a_file_the_environment_and_flags() {
    let file =
        write("layers.toml", "[api]\nport = 0\n[realtime]\nenabled = false\n[rest]\nbatch_events_max = 1\n");
    let mut serve = command(&["serve", "--config", file.to_str().unwrap()]);
    serve.env("FANFARE_REST__BATCH_EVENTS_MAX", "2").env("SOCKET_PING_INTERVAL", "1500");
    let server = Fanfare::spawn(&mut serve);
    assert!(server.address("realtime").is_none());
    let event = r#"{"event":"e","room":"global"}"#;
    assert_eq!(server.post("/api/v1/events/batch", &format!("{event}\n{event}")).status, 201);
    assert_eq!(server.post("/api/v1/events/batch", &format!("{event}\n{event}\n{event}")).status, 422);
    assert!(server.get("/socket.io/?EIO=4&transport=polling").body.contains("\"pingInterval\":1500"));
}

#[test]
fn unknown_keys_are_errors_that_name_the_nearest_known_one() {
    let file = write("typo.toml", "[socketio]\nping_intervall = \"1s\"\n");
    let file = file.to_str().unwrap();
    for arguments in [&["serve", "--config", file][..], &["config", "check", file]] {
        refused(
            &command(arguments).output().unwrap(),
            &["typo.toml", "socketio.ping_intervall", "`socketio.ping_interval`"],
        );
    }
    let output = command(&["config", "check"]).env("FANFARE_API__PROT", "1").output().unwrap();
    refused(&output, &["FANFARE_API__PROT", "`api.port`"]);
    refused(&command(&["serve", "--set", "api.prot=1"]).output().unwrap(), &["--set api.prot", "`api.port`"]);
    refused(&command(&["serve", "--config", "/no/such.toml"]).output().unwrap(), &["/no/such.toml"]);
}

#[test]
fn the_printed_manual_is_a_file_that_passes_the_check() {
    let manual = command(&["config", "default"]).output().unwrap();
    assert!(manual.status.success());
    let text = String::from_utf8(manual.stdout).unwrap();
    for part in ["[api]", "port = 8000", "port = 7000", "ping_interval = \"25s\"", "# Origins whose pages"] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
    let file = write("manual.toml", &text);
    let check = command(&["config", "check", file.to_str().unwrap()]).output().unwrap();
    assert!(check.status.success(), "{check:?}");
}

#[test]
fn an_address_that_others_can_reach_is_refused_unless_insecure() {
    let output =
        command(&["serve", "--only", "api", "--api-host", "0.0.0.0", "--api-port", "0"]).output().unwrap();
    refused(&output, &["api: 0.0.0.0:0", "--insecure"]);
    let output = command(&["serve", "--api-port", "0"]).env("SOCKETIO_HOST", "::").output().unwrap();
    refused(&output, &["realtime: [::]:", "--insecure"]);
    let server = Fanfare::start(&["--only", "api", "--api-host", "0.0.0.0", "--insecure"]);
    assert_eq!(server.get("/livez").status, 200);
}

#[test]
fn a_port_that_is_taken_is_an_error_even_if_another_fanfare_has_it() {
    let first = Fanfare::start(&["--only", "api"]);
    let port = first.api().rsplit(':').next().unwrap().to_owned();
    let second = command(&["serve", "--only", "api", "--api-port", &port]).output().unwrap();
    refused(&second, &[&port, "--api-port"]);
}

#[track_caller]
fn refused(output: &Output, with: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{text}");
    for part in with {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
}

fn write(name: &str, text: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, text).unwrap();
    path
}
