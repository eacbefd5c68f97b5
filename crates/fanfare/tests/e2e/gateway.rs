//! What is said to users, later or from templates; and known events, which are checked.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::fanfare::{DataDir, Fanfare, command};
use crate::watcher::Watcher;

const EVENTS: &str = "/api/v1/events";

#[test]
fn known_events_are_checked_and_go_where_their_data_says() {
    let server = Fanfare::start(&[]);
    let (mut socket, _) = Watcher::connect(server.api(), "/socket.io/", "/");
    socket.ask("subscribe", &json!({ "room": "job:j1" }));
    socket.ask("subscribe", &json!({ "room": "project:p1" }));
    let status = json!({ "job_id": "j1", "status": "running", "project_id": "p1" });
    let reply = server.post(EVENTS, &json!({ "event": "agent_status", "data": status }).to_string());
    assert_eq!(reply.status, 201, "{}", reply.body);
    assert_eq!(socket.event(), ("agent_status".to_owned(), status), "flat, and once in two rooms");

    let update = json!({ "agent_id": "a", "status": "active" });
    let reply = server.post(EVENTS, &json!({ "event": "agent_status_update", "data": update }).to_string());
    assert_eq!(reply.status, 201, "{}", reply.body);
    let (name, wrapped) = socket.event();
    assert_eq!((name.as_str(), &wrapped["data"]), ("agent_status_update", &update), "the dashboard has it");

    let bad = json!({ "event": "agent_progress", "data": { "job_id": "j1", "progress": 101 } });
    let reply = server.post(EVENTS, &bad.to_string());
    assert_eq!(reply.refusal(), (422, "bad_payload".to_owned()));
    assert!(reply.body.contains("agent_progress: progress"), "{}", reply.body);
    let bad = json!({ "room": "r", "event": "agent_progress", "data": { "progress": 1 } });
    let reply = server.post("/socket/rooms/message", &bad.to_string());
    assert_eq!(reply.refusal(), (422, "bad_payload".to_owned()));
    let command = json!({ "event": "join_room", "room": "global", "data": { "room": "a" } });
    assert_eq!(server.post(EVENTS, &command.to_string()).refusal(), (422, "bad_event_name".to_owned()));
}

#[test]
fn an_event_waits_for_its_moment_and_can_be_cancelled() {
    let server = Fanfare::start(&[]);
    let (mut socket, _) = Watcher::connect(server.api(), "/socket.io/", "/");
    let later = |name: &str, at: &str| {
        let body = json!({ "event": name, "data": 1, "room": "global", "deliver_at": at });
        let reply = server.post(EVENTS, &body.to_string());
        assert_eq!(reply.status, 201, "{}", reply.body);
        reply.json()
    };
    let soon = later("soon", &at(Duration::from_millis(600)));
    let far = later("far", &at(Duration::from_secs(3_600)));
    let late = later("late", "2020-01-01T00:00:00Z");
    assert!(late["seq"].is_u64(), "its moment has passed: it is published at once: {late}");
    assert_eq!(socket.event().0, "late");
    let listed = server.get("/api/v1/schedules").json();
    let ids: Vec<&Value> = listed["schedules"].as_array().unwrap().iter().map(|one| &one["id"]).collect();
    assert_eq!(ids, [&far["id"], &soon["id"]], "the newest first: {listed}");
    assert_eq!(listed["schedules"][0]["event"], "far");

    let path = format!("/api/v1/schedules/{}", far["id"].as_str().unwrap());
    let cancelled = server.delete(&path);
    assert_eq!((cancelled.status, &cancelled.json()["event"]), (200, &json!("far")));
    assert_eq!(server.delete(&path).refusal(), (404, "not_found".to_owned()));
    let (name, wrapped) = socket.event();
    assert_eq!((name.as_str(), &wrapped["data"]), ("soon", &json!(1)));
    assert_eq!(server.get("/api/v1/schedules").json()["schedules"], json!([]));

    let bad = json!({ "event": "e", "room": "global", "deliver_at": "tomorrow" });
    assert_eq!(server.post(EVENTS, &bad.to_string()).refusal(), (400, "bad_request".to_owned()));
}

#[test]
fn what_waits_survives_the_server_and_a_repeated_request_waits_once() {
    let data = DataDir::new();
    let start = || {
        let mut command = command(&["serve", "--api-port", "0", "--realtime-port", "0"]);
        Fanfare::spawn(command.env("FANFARE_DATA_DIR", data.path()))
    };
    let server = start();
    let body = json!({
        "event": "later", "room": "global", "deliver_at": at(Duration::from_millis(1_500)), "idempotency_key": "once",
    });
    let first = server.post(EVENTS, &body.to_string());
    let again = server.post(EVENTS, &body.to_string());
    assert_eq!((first.status, again.status), (201, 200), "{}", again.body);
    assert_eq!(first.json(), again.json());
    server.terminate();

    let server = start();
    let (mut socket, _) = Watcher::connect(server.api(), "/socket.io/", "/");
    assert_eq!(socket.event().0, "later");
    server.post(EVENTS, &json!({ "event": "last", "room": "global" }).to_string());
    assert_eq!(socket.event().0, "last", "it was published once");
}

#[test]
fn a_template_is_kept_filled_and_removed() {
    let server = Fanfare::start(&[]);
    let (mut socket, _) = Watcher::connect(server.api(), "/socket.io/", "/");
    let path = "/api/v1/templates/build-done";
    let template = json!({
        "event": "build", "data": { "text": "Build {{n}} of {{repo.name}} is done", "n": "{{n}}" },
    });
    let made = server.put(path, &template.to_string());
    assert_eq!(made.status, 200, "{}", made.body);
    assert_eq!(made.json()["placeholders"], json!(["n", "repo.name"]));
    assert_eq!(server.get(path).json(), made.json());
    assert_eq!(server.get("/api/v1/templates").json()["templates"], json!([made.json()]));
    assert_eq!(server.put(path, &made.body).status, 200, "what was read can be put back");

    let values = json!({ "n": 7, "repo": { "name": "fanfare" } });
    let publication = json!({ "template": "build-done", "room": "global", "data": values });
    assert_eq!(server.post(EVENTS, &publication.to_string()).status, 201);
    let (name, wrapped) = socket.event();
    let expected = json!({ "text": "Build 7 of fanfare is done", "n": 7 });
    assert_eq!((name.as_str(), &wrapped["data"]), ("build", &expected));
    let batch = json!([publication, { "event": "plain", "room": "global" }]);
    assert_eq!(server.post("/api/v1/events/batch", &batch.to_string()).status, 201);
    assert_eq!((socket.event().0.as_str(), socket.event().0.as_str()), ("build", "plain"));

    let missing = json!({ "template": "build-done", "room": "global", "data": { "n": 7 } });
    assert_eq!(server.post(EVENTS, &missing.to_string()).refusal(), (422, "bad_payload".to_owned()));
    let unknown = json!({ "template": "nothing", "room": "global" });
    assert_eq!(server.post(EVENTS, &unknown.to_string()).refusal(), (404, "not_found".to_owned()));
    let open = json!({ "event": "e", "data": "{{unclosed" });
    assert_eq!(server.put(path, &open.to_string()).refusal(), (422, "bad_payload".to_owned()));
    assert_eq!(server.delete(path).status, 200);
    assert_eq!(server.delete(path).refusal(), (404, "not_found".to_owned()));
    assert_eq!(server.post(EVENTS, &publication.to_string()).refusal(), (404, "not_found".to_owned()));
}

/// A moment from now on, in RFC 3339.
fn at(ahead: Duration) -> String {
    humantime::format_rfc3339_millis(SystemTime::now() + ahead).to_string()
}
