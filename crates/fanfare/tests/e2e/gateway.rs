//! What is said to users, later or from templates; and known events, which are checked.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::fanfare::{DataDir, Fanfare, PATIENCE, Reply, agent, command, until};
use crate::watcher::Watcher;

const EVENTS: &str = "/api/v1/events";

/// How far ahead something is put off that must still be put off a little later: the next is tried if the machine was too
/// slow for the one before.
const AHEADS: [Duration; 4] = [
    Duration::from_millis(1_500),
    Duration::from_secs(10),
    Duration::from_secs(60),
    Duration::from_secs(3_600),
];

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
    let late = later("late", "2020-01-01T00:00:00Z");
    assert!(late["seq"].is_u64(), "its moment has passed: it is published at once: {late}");
    assert_eq!(socket.event().0, "late");
    let mut aheads = AHEADS.into_iter();
    let far = loop {
        let ahead = aheads.next().expect("an hour is too short for this machine");
        let soon = later("soon", &at(ahead));
        let far = later("far", &at(Duration::from_secs(36_000)));
        let listed = server.get("/api/v1/schedules").json();
        let ids: Vec<&Value> = listed["schedules"].as_array().unwrap().iter().map(|one| &one["id"]).collect();
        if ids == [&far["id"], &soon["id"]] {
            assert_eq!(listed["schedules"][0]["event"], "far", "the newest first");
            break far;
        }
        assert_eq!(ids, [&far["id"]], "the machine was too slow, its moment has passed: {listed}");
        assert_eq!(socket.event().0, "soon");
        server.delete(&format!("/api/v1/schedules/{}", far["id"].as_str().unwrap()));
    };

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
    let mut newest = 0;
    for (nth, ahead) in AHEADS.into_iter().enumerate() {
        newest = nth;
        let server = start();
        let moment = SystemTime::now() + ahead;
        let body = json!({
            "event": "later", "room": "global", "data": nth, "deliver_at": at(ahead),
            "idempotency_key": format!("once-{nth}"),
        });
        let first = server.post(EVENTS, &body.to_string());
        let again = server.post(EVENTS, &body.to_string());
        assert_eq!((first.status, again.status), (201, 200), "{}", again.body);
        assert_eq!(first.json(), again.json());
        server.terminate();
        // Else the machine was too slow, and it may have been published already.
        if SystemTime::now() < moment {
            break;
        }
    }

    // Its moment may come before anybody watches; the log tells.
    let server = start();
    let published = || {
        let log = server.log("global");
        log.iter().filter(|event| event["event"] == "later" && event["data"] == newest).count()
    };
    until(PATIENCE, "its moment comes", || published() > 0);
    assert_eq!(server.get("/api/v1/schedules").json()["schedules"], json!([]));
    assert_eq!(published(), 1, "it was published once");
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

#[test]
fn a_notification_waits_for_its_user_and_is_told_once() {
    let data = DataDir::new();
    let start = || {
        let mut command = command(&["serve", "--api-port", "0", "--realtime-port", "0"]);
        Fanfare::spawn(command.env("FANFARE_DATA_DIR", data.path()))
    };
    let server = start();
    for (path, title) in [("/api/v1/notifications", "first"), ("/socket/notifications", "second")] {
        let body = json!({ "userId": "ann", "title": title, "message": "m", "data": { "a": 1 } });
        let reply = server.post(path, &body.to_string());
        assert_eq!(reply.status, 201, "{}", reply.body);
        assert!(reply.json()["id"].is_string(), "{}", reply.body);
    }
    server.terminate();

    let server = start();
    let mut stranger = user(&server, "bob");
    let mut ann = user(&server, "ann");
    for title in ["first", "second"] {
        let (name, notification) = ann.event();
        assert_eq!((name.as_str(), &notification["title"]), ("notification", &json!(title)));
        assert_eq!((&notification["level"], &notification["data"]), (&json!("info"), &json!({ "a": 1 })));
    }
    let live = json!({ "userId": "ann", "title": "live", "message": "m", "level": "warning" });
    let reply = server.post("/api/v1/notifications", &live.to_string());
    let (name, notification) = ann.event();
    assert_eq!((name.as_str(), &notification["title"]), ("notification", &json!("live")));
    assert_eq!(notification["id"], reply.json()["id"]);
    ann.close();

    let mut again = user(&server, "ann");
    server.post("/api/v1/announcements", &json!({ "title": "all", "message": "m" }).to_string());
    for socket in [&mut again, &mut stranger] {
        let (name, announcement) = socket.event();
        assert_eq!(
            (name.as_str(), &announcement["title"]),
            ("announcement", &json!("all")),
            "nothing is told twice"
        );
    }
}

#[test]
fn bad_notifications_are_refused_and_a_repeated_one_is_told_once() {
    let server = Fanfare::start(&[]);
    for (body, code) in [
        (json!({ "title": "t", "message": "m" }), "bad_payload"),
        (json!({ "userId": "", "title": "t", "message": "m" }), "bad_room_name"),
        (json!({ "userId": "u", "title": "t".repeat(300), "message": "m" }), "too_many"),
        (json!({ "userId": "u", "title": "t", "message": "m", "tpyo": 1 }), "bad_payload"),
    ] {
        let reply = server.post("/api/v1/notifications", &body.to_string());
        assert_eq!(reply.refusal(), (422, code.to_owned()), "{body}");
    }
    let mut ann = user(&server, "ann");
    let body = json!({ "userId": "ann", "title": "once", "message": "m" }).to_string();
    let notify = || {
        let request = agent().post(format!("{}/api/v1/notifications", server.api()));
        Reply::of(request.header("Idempotency-Key", "k").send(&body).expect("an answer"))
    };
    let (first, second) = (notify(), notify());
    assert_eq!((first.status, second.status), (201, 200), "{}", second.body);
    assert_eq!(first.json()["id"], second.json()["id"]);
    assert_eq!(ann.event().1["title"], "once");
    let later = json!({ "title": "later", "message": "m", "deliver_at": at(Duration::from_millis(300)) });
    assert_eq!(server.post("/api/v1/announcements", &later.to_string()).status, 201);
    assert_eq!(ann.event().1["title"], "later");
}

#[test]
fn tools_come_from_the_file_and_echo_is_for_development() {
    let data = DataDir::new();
    std::fs::create_dir_all(data.path()).expect("a folder");
    let file = data.path().join("fanfare.toml");
    std::fs::write(&file, "[tools.parrot]\nkind = \"echo\"\nword_delay = \"1ms\"\nstream = true\n").unwrap();
    let path = file.to_str().expect("text");
    let server = Fanfare::start(&["--config", path]);
    let ids = |server: &Fanfare| {
        let tools = server.get("/stats").json()["tools"].as_array().expect("a list").clone();
        tools.iter().map(|tool| tool["id"].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(ids(&server), ["echo", "parrot"]);
    let mut ann = user(&server, "ann");
    let request = json!({ "toolId": "parrot", "message": "one two", "requestId": "r1" });
    let (answer, mut events) = ann.ask("ai_request", &request);
    assert_eq!((&answer["ok"], &answer["requestId"]), (&json!(true), &json!("r1")));
    while !events.iter().any(|(name, data)| name == "ai_response" && data["done"] == json!(true)) {
        events.push(ann.event());
    }
    assert_eq!(events[0].0, "status_update", "at once: {events:?}");
    let text: String = events.iter().filter_map(|(_, data)| data["delta"].as_str()).collect();
    assert!(text.contains("one two"), "{events:?}");
    let (answer, _) = ann.ask("ai_request", &json!({ "toolId": "nobody", "message": "m" }));
    assert_eq!(answer["error"]["code"], "unknown_tool");
    ann.emit("ai_request", &json!({ "toolId": "nobody", "message": "m" }));
    let (name, error) = ann.event();
    assert_eq!((name.as_str(), &error["code"]), ("error", &json!("unknown_tool")));

    std::fs::write(&file, "[tools.parrot]\nkind = \"echo\"\nurl = \"http://127.0.0.1/\"\n").unwrap();
    let checked = command(&["config", "check", path]).output().expect("it runs");
    let complaint = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert!(!checked.status.success() && complaint.contains("tools.parrot.url"), "{complaint}");
    let mut guarded = command(&["serve", "--api-port", "0", "--realtime-port", "0"]);
    let guarded = Fanfare::spawn(guarded.env("FANFARE_API_KEY", "the-api-key-of-this-server-here"));
    let stats = agent().get(format!("{}/stats", guarded.api()));
    let stats = stats.header("X-API-Key", "the-api-key-of-this-server-here").call().expect("an answer");
    assert_eq!(Reply::of(stats).json()["tools"], json!([]), "no echo where people must say who they are");
}

#[test]
fn webhooks_of_github_are_checked_and_become_events_of_their_project() {
    let secret = "It's a Secret to Everybody";
    let server = Fanfare::start(&[
        "--set",
        &format!("github.secret={secret}"),
        "--set",
        r#"github.repositories={ "Ann/Website" = "p1" }"#,
    ]);
    let (mut socket, _) = Watcher::connect(server.api(), "/socket.io/", "/");
    socket.ask("subscribe", &json!({ "room": "project:p1" }));
    let send = |event: &str, delivery: &str, body: &str, signature: Option<&str>| {
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret.as_bytes());
        let tag = ring::hmac::sign(&key, body.as_bytes());
        let good: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let good = format!("sha256={good}");
        let request = agent()
            .post(format!("{}/webhooks/github", server.api()))
            .header("X-GitHub-Event", event)
            .header("X-GitHub-Delivery", delivery);
        let request = match signature {
            None => request.header("X-Hub-Signature-256", good),
            Some("") => request,
            Some(other) => request.header("X-Hub-Signature-256", other),
        };
        Reply::of(request.send(body).expect("an answer"))
    };
    let opened = json!({
        "action": "opened", "repository": { "full_name": "ann/website" },
        "pull_request": { "number": 7, "title": "Add a door", "html_url": "https://example.com/7" },
    })
    .to_string();
    assert_eq!(send("pull_request", "1", &opened, Some("")).refusal(), (401, "signature_missing".to_owned()));
    let forged = format!("sha256={}", "0".repeat(64));
    assert_eq!(
        send("pull_request", "1", &opened, Some(&forged)).refusal(),
        (401, "signature_wrong".to_owned())
    );
    for _ in 0..2 {
        let reply = send("pull_request", "1", &opened, None);
        assert_eq!((reply.status, &reply.json()["event"]), (202, &json!("pr.created")), "{}", reply.body);
    }
    let (name, wrapped) = socket.event();
    assert_eq!((name.as_str(), &wrapped["room"]), ("pr.created", &json!("project:p1")));
    assert_eq!(wrapped["data"]["title"], "Add a door");
    let elsewhere = opened.replace("ann/website", "bob/other");
    assert!(send("pull_request", "2", &elsewhere, None).json()["ignored"].is_string());
    assert!(send("ping", "3", "{}", None).json()["ignored"].is_string());
    assert_eq!(send("pull_request", "4", "{", None).refusal(), (422, "bad_payload".to_owned()));
    server.post(EVENTS, &json!({ "event": "last", "room": "global" }).to_string());
    assert_eq!(socket.event().0, "last", "delivered twice, told once");

    let without = Fanfare::start(&[]);
    assert_eq!(without.post("/webhooks/github", "{}").refusal(), (404, "not_found".to_owned()));
}

#[test]
fn in_development_one_may_look_around_and_broadcast() {
    let server = Fanfare::start(&[]);
    let mut ann = user(&server, "ann");
    let shown = server.get("/debug/socketio").json();
    assert_eq!((&shown["total"], &shown["sockets"][0]["user_id"]), (&json!(1), &json!("ann")), "{shown}");
    let reply = server.post("/debug/socketio/broadcast", &json!({ "event": "hello", "data": 1 }).to_string());
    assert_eq!(reply.status, 201, "{}", reply.body);
    assert_eq!(ann.event().0, "hello");
    let mut guarded = command(&["serve", "--api-port", "0", "--realtime-port", "0"]);
    let guarded = Fanfare::spawn(guarded.env("FANFARE_API_KEY", "the-api-key-of-this-server-here"));
    let request = agent().get(format!("{}/debug/socketio", guarded.api()));
    let request = request.header("X-API-Key", "the-api-key-of-this-server-here");
    assert_eq!(Reply::of(request.call().expect("an answer")).refusal(), (404, "not_found".to_owned()));
}

#[test]
fn the_table_of_routes_is_what_the_server_serves() {
    use hub::routes::{Method, ROUTES};
    /// What the server serves for browsers, and a path that stands for several of the table.
    const BEYOND: [&str; 4] = ["/", "/ui", "/ui/{}", "/api/v1/jobs/{}/{}"];
    let server = Fanfare::start(&["--set", "github.secret=secret"]);
    for route in ROUTES {
        for path in route.paths() {
            let filled = pattern(path).replace("{}", "x");
            let query = if path.ends_with("/control") { "?wait=0s" } else { "" };
            let url = format!("{}{filled}{query}", server.api());
            let response = match route.method {
                Method::Get => agent().get(url).call(),
                Method::Post => agent().post(url).send("{}"),
                Method::Put => agent().put(url).send("{}"),
                Method::Delete => agent().delete(url).call(),
            };
            let reply = Reply::of(response.expect("an answer"));
            let is_nowhere = reply.status == 405 || reply.body.contains("there is nothing at this path");
            assert!(!is_nowhere, "{:?} {path}: {}", route.method, reply.body);
        }
    }
    let known: Vec<String> = ROUTES.iter().flat_map(|route| route.paths()).map(pattern).collect();
    let router = include_str!("../../src/rest/mod.rs");
    let mut served = 0;
    for (at, _) in router.match_indices(".route(") {
        // What is not written out there is the client library's.
        let Some(path) =
            router[at + 7..].trim_start().strip_prefix('"').and_then(|rest| rest.split('"').next())
        else {
            continue;
        };
        let path = pattern(path);
        assert!(known.contains(&path) || BEYOND.contains(&&*path), "{path} is served but not in the table");
        served += 1;
    }
    assert!(served > 50, "{served} routes were found");
}

/// A path whose parameters have no names.
fn pattern(path: &str) -> String {
    let parts = path.split('/').map(|part| if part.starts_with('{') { "{}" } else { part });
    parts.collect::<Vec<_>>().join("/")
}

/// Connects as a user, and takes the greeting.
fn user(server: &Fanfare, id: &str) -> Watcher {
    let url = format!("{}/socket.io/", server.api());
    let auth = json!({ "userId": id, "sessionId": format!("{id}-1") });
    let (mut watcher, _) =
        Watcher::open(&url, "/", "", &[], &auth).unwrap_or_else(|refusal| panic!("{refusal}"));
    assert_eq!(watcher.event().1["user_id"], id);
    watcher
}

/// A moment from now on, in RFC 3339.
fn at(ahead: Duration) -> String {
    humantime::format_rfc3339_millis(SystemTime::now() + ahead).to_string()
}
