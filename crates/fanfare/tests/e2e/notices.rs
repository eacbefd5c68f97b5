//! What is told later, what has arrived, and what operators hear.

use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};

use crate::fanfare::{DataDir, Fanfare, command};
use crate::presence::user;
use crate::watcher::Watcher;

fn notify(server: &Fanfare, title: &str, deliver_at: Option<Duration>) -> Value {
    let mut body = json!({ "userId": "ann", "title": title, "message": "m" });
    if let Some(ahead) = deliver_at {
        body["deliver_at"] = humantime::format_rfc3339_millis(SystemTime::now() + ahead).to_string().into();
    }
    let reply = server.post("/api/v1/notifications", &body.to_string());
    assert_eq!(reply.status, 201, "{}", reply.body);
    reply.json()
}

/// The title and id of the next notification.
fn notified(watcher: &mut Watcher) -> (Value, Value) {
    loop {
        let (name, data) = watcher.event();
        if name == "notification" {
            return (data["title"].clone(), data["id"].clone());
        }
    }
}

#[test]
fn a_notification_waits_for_its_moment_whoever_is_there() {
    let data = DataDir::new();
    let start = || {
        let mut serve = command(&["serve", "--only", "api", "--api-port", "0"]);
        Fanfare::spawn(serve.env("FANFARE_DATA_DIR", data.path()))
    };
    let server = start();
    let mut ann = user(&server, "ann");
    let cancelled = notify(&server, "cancelled", Some(Duration::from_secs(3_600)));
    let listed = server.get("/api/v1/schedules").json();
    let event = |nth: usize| (&listed["schedules"][nth]["event"], &listed["schedules"][nth]["rooms"]);
    assert_eq!(event(0), (&json!("notification"), &json!(["user:ann"])), "{listed}");
    let gone = server.delete(&format!("/api/v1/schedules/{}", cancelled["id"].as_str().unwrap()));
    assert_eq!(gone.status, 200, "{}", gone.body);
    // If the machine was so slow that its moment came before the next was said, it is put off for longer.
    let mut aheads = [1, 10, 60].map(Duration::from_secs).into_iter();
    loop {
        let ahead = aheads.next().expect("a minute is too short for this machine");
        let (begun, soon) = (Instant::now(), notify(&server, "soon", Some(ahead)));
        assert!(soon["deliver_at"].is_string(), "{soon}");
        notify(&server, "now", None);
        let was_in_time = begun.elapsed() < ahead;
        let told = [notified(&mut ann), notified(&mut ann)];
        if was_in_time {
            assert_eq!((&told[0].0, &told[1]), (&json!("now"), &(json!("soon"), soon["id"].clone())));
            break;
        }
    }
    // Its moment passes while the server is down, and ann is away.
    let ahead = Duration::from_secs(4);
    notify(&server, "later", Some(ahead));
    drop(server);
    std::thread::sleep(ahead);
    let server = start();
    while server.get("/api/v1/schedules").json()["schedules"] != json!([]) {
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut ann = user(&server, "ann");
    // What she was told before the end may be told again: nobody knows whether it has arrived.
    while notified(&mut ann).0 != "later" {}
}

#[test]
fn what_a_client_acknowledges_has_arrived() {
    let server = Fanfare::start(&[]);
    let mut ann = user(&server, "ann");
    for title in ["first", "second", "third"] {
        notify(&server, title, None);
    }
    let ids = [(); 3].map(|()| notified(&mut ann).1);
    let mut acknowledge = |argument: Value| ann.ask("notification_ack", &argument).0;
    assert_eq!(acknowledge(json!({ "id": ids[0] }))["delivered"], 1);
    assert_eq!(acknowledge(json!({ "ids": [ids[0], ids[1], "other"] }))["delivered"], 1);
    assert_eq!(acknowledge(json!({}))["error"]["code"], "bad_payload");
    let ids: Vec<String> = (0..300).map(|nth| nth.to_string()).collect();
    assert_eq!(acknowledge(json!({ "ids": ids }))["error"]["code"], "too_many");
    let (mut nobody, _) = Watcher::connect(server.api(), "/socket.io/", "/");
    assert_eq!(nobody.ask("notification_ack", &json!({ "id": "x" })).0["error"]["code"], "forbidden");
    // It is lost without a word: what was not acknowledged is told again, and only that.
    drop(ann);
    let mut other = user(&server, "ann");
    notify(&server, "fourth", None);
    let next = notified(&mut other).0;
    assert!(next == "third" || next == "fourth", "{next}");
}

#[test]
fn operators_hear_of_jobs_and_connections() {
    let server = Fanfare::start(&[]);
    let (mut operator, _) = Watcher::connect(server.api(), "/socket.io/", "/admin");
    let mut next = |kind: &str| loop {
        let (name, event) = operator.event();
        assert_eq!(name, "admin_event");
        if event["type"] == kind {
            return event["data"].clone();
        }
    };
    let ann = user(&server, "ann");
    let came = next("connection_event");
    let told = (&came["event"], &came["user_id"], &came["namespace"]);
    assert_eq!(told, (&json!("connected"), &json!("ann"), &json!("/")));
    ann.close();
    let gone = next("connection_event");
    assert_eq!((&gone["event"], &gone["connection_id"]), (&json!("disconnected"), &came["connection_id"]));
    assert!(gone["reason"].is_string(), "{gone}");
    let new = json!({ "job_id": "j", "project_id": "p" }).to_string();
    assert_eq!(server.post("/api/v1/jobs", &new).status, 201);
    assert_eq!(server.post("/api/v1/jobs/j/fail", r#"{"error":"e"}"#).status, 200);
    let told = [next("job_event"), next("job_event")];
    assert_eq!([&told[0]["status"], &told[1]["status"]], ["queued", "error"]);
    assert_eq!((&told[1]["project_id"], &told[1]["error"]), (&json!("p"), &json!("e")));
}

#[test]
fn jobs_and_runs_are_forgotten_when_their_time_is_up() {
    let server = Fanfare::start(&["--set", "forget.jobs=300ms", "--set", "forget.runs=300ms"]);
    for (path, body) in [
        ("/api/v1/jobs", r#"{"job_id":"done","project_id":"p"}"#),
        ("/api/v1/jobs", r#"{"job_id":"open","project_id":"p"}"#),
        ("/start", r#"{"thread_id":"done"}"#),
        ("/start", r#"{"thread_id":"open"}"#),
    ] {
        assert_eq!(server.post(path, body).status, 201, "{path} {body}");
    }
    assert_eq!(server.post("/api/v1/jobs/done/complete", "").status, 200);
    assert_eq!(server.post("/api/v1/runs/done/status", r#"{"status":"completed"}"#).status, 200);
    for path in ["/api/v1/jobs/done", "/api/v1/runs/done"] {
        while server.get(path).status != 404 {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    assert_eq!(server.get("/api/v1/jobs/open").status, 200);
    assert_eq!(server.get("/status/open").status, 200);
}
