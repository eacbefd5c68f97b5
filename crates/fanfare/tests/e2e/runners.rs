//! Runners that hear by webhook what people decide.

use std::sync::atomic::{AtomicU64, Ordering};

use ring::hmac;
use serde_json::{Value, json};

use crate::backend::Backend;
use crate::fanfare::{DataDir, Fanfare, PATIENCE, command, until};

const SECRET: &str = "what-signs-the-webhooks-of-a-test";

/// A server whose runners listen at `backend`.
fn start(backend: &Backend, data: &DataDir) -> Fanfare {
    let mut serve = command(&["serve", "--only", "api", "--api-port", "0"]);
    serve.args(["--set", &format!("runs.webhook={}", backend.url("/hook"))]);
    serve.env("FANFARE_RUNS__WEBHOOK_SECRET", SECRET).env("FANFARE_DATA_DIR", data.path());
    Fanfare::spawn(&mut serve)
}

/// Starts a run that waits, and approves it.
fn approve(server: &Fanfare, id: &str) {
    let new = json!({ "thread_id": id }).to_string();
    assert_eq!(server.post("/api/v1/runs", &new).status, 201);
    let waits = r#"{"status":"waiting_approval"}"#;
    assert_eq!(server.post(&format!("/api/v1/runs/{id}/status"), waits).status, 200);
    let approval = json!({ "thread_id": id, "approved": true, "comment": "go" }).to_string();
    assert_eq!(server.post("/approve", &approval).status, 200);
}

/// What the runner still has to be told.
fn waiting(server: &Fanfare, id: &str) -> Vec<Value> {
    let reply = server.get(&format!("/api/v1/runs/{id}/control"));
    assert_eq!(reply.status, 200, "{}", reply.body);
    reply.json()["commands"].as_array().expect("commands").clone()
}

#[test]
fn a_runner_is_told_by_webhook_until_it_has_answered() {
    let attempts = AtomicU64::new(0);
    let backend = Backend::start(move |_, _| match attempts.fetch_add(1, Ordering::Relaxed) {
        0 => (500, String::new()),
        _ => (204, String::new()),
    });
    let server = start(&backend, &DataDir::new());
    approve(&server, "r");
    until(PATIENCE, "the command has arrived", || waiting(&server, "r").is_empty());
    let stop = server.post("/api/v1/runs/r/control", r#"{"verb":"pause"}"#);
    assert_eq!(stop.status, 202, "{}", stop.body);
    until(PATIENCE, "and the next one", || waiting(&server, "r").is_empty());
    let told = backend.asked("/hook");
    let verbs: Vec<&Value> = told.iter().map(|told| &told["command"]["verb"]).collect();
    assert_eq!(verbs, ["approve", "approve", "pause"], "the first was refused");
    assert_eq!((&told[1]["thread_id"], &told[1]["command"]["comment"]), (&json!("r"), &json!("go")));
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    for (told, signature) in told.iter().zip(backend.signatures()) {
        let expected = hmac::sign(&key, told.to_string().as_bytes());
        let digits: String = expected.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(signature, format!("sha256={digits}"));
    }
    assert_eq!(backend.signatures().len(), 3);
}

#[test]
fn what_a_killed_server_could_not_tell_its_successor_does() {
    let data = DataDir::new();
    let deaf = Backend::start(|_, _| (503, String::new()));
    let server = start(&deaf, &data);
    approve(&server, "r");
    until(PATIENCE, "it has been tried", || !deaf.asked("/hook").is_empty());
    // Going out of scope, it is killed.
    drop(server);
    let backend = Backend::start(|_, _| (200, "ok".to_owned()));
    let server = start(&backend, &data);
    until(PATIENCE, "the command has arrived", || waiting(&server, "r").is_empty());
    assert_eq!(backend.asked("/hook")[0]["command"]["verb"], "approve");
}
