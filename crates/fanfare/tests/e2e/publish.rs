//! Commands of sockets, and events published over HTTP.

use serde_json::{Value, json};

use crate::fanfare::{Fanfare, Reply, agent};
use crate::watcher::Watcher;

const EVENTS: &str = "/api/v1/events";
const BATCH: &str = "/api/v1/events/batch";

#[test]
fn a_socket_is_greeted_with_what_it_is_in() {
    let server = Fanfare::start(&[]);
    for (path, namespace, rooms) in [
        ("/socket.io/", "/", json!(["dashboard", "global"])),
        ("/ws/socket.io/", "/", json!(["dashboard", "global"])),
        ("/socket.io/", "/ws", json!(["global"])),
    ] {
        let (_, greeting) = Watcher::connect(server.api(), path, namespace);
        assert_eq!(greeting["type"], "connection.established");
        assert_eq!(greeting["rooms"], rooms, "{namespace}");
        assert_eq!(greeting["recovered"], false);
        assert_eq!(greeting["connection_id"].as_str().map(str::len), Some(20));
        assert!(is_timestamp(&greeting["server_time"]));
    }
}

#[test]
fn every_command_answers_its_ack() {
    let server = Fanfare::start(&[]);
    for namespace in ["/", "/ws"] {
        let (mut socket, _) = Watcher::connect(server.api(), "/socket.io/", namespace);
        let room = json!({ "room": "agents" });
        let joined = json!({ "ok": true, "room": "agents", "recovered": false, "epoch": 0, "seq": 0 });
        assert_eq!(socket.ask("subscribe", &room), (joined.clone(), vec![]));
        assert_eq!(socket.ask("join_room", &room), (joined, vec![("room_joined".into(), room.clone())]));
        let left = json!({ "ok": true, "room": "agents" });
        assert_eq!(socket.ask("unsubscribe", &room), (left.clone(), vec![]));
        assert_eq!(socket.ask("leave_room", &room), (left, vec![("room_left".into(), room)]));
        let (answer, events) = socket.ask("ping", &json!({ "a": [1, "ü"] }));
        assert_eq!((&answer["ok"], &answer["echo"]), (&json!(true), &json!({ "a": [1, "ü"] })));
        assert!(is_timestamp(&answer["timestamp"]));
        assert_eq!(events.len(), 1);
        assert_eq!((events[0].0.as_str(), &events[0].1["echo"]), ("pong", &json!({ "a": [1, "ü"] })));
    }
}

#[test]
fn a_bad_command_is_refused_and_the_socket_lives() {
    let server = Fanfare::start(&["--set", "socketio.rooms_per_socket_max=3"]);
    let (mut socket, _) = Watcher::connect(server.api(), "/socket.io/", "/");
    let long = "x".repeat(201);
    for (command, payload, code) in [
        ("join_room", json!({}), "bad_payload"),
        ("join_room", json!("agents"), "bad_payload"),
        ("subscribe", json!({ "room": 1 }), "bad_payload"),
        ("leave_room", json!(null), "bad_payload"),
        ("unsubscribe", json!({ "room": ["a"] }), "bad_payload"),
        ("join_room", json!({ "room": "" }), "bad_room_name"),
        ("join_room", json!({ "room": "a\u{7}" }), "bad_room_name"),
        ("subscribe", json!({ "room": long }), "bad_room_name"),
        ("nonsense", json!({}), "unknown_command"),
    ] {
        let (answer, events) = socket.ask(command, &payload);
        assert_eq!(
            (&answer["ok"], &answer["error"]["code"]),
            (&json!(false), &json!(code)),
            "{command} {payload}"
        );
        assert_eq!(events, [], "an ack is answered by the ack alone");
        socket.emit(command, &payload);
        let (name, error) = socket.event();
        assert_eq!(
            (name.as_str(), &error["code"], &error["command"]),
            ("error", &json!(code), &json!(command))
        );
        assert!(error["message"].is_string());
    }
    assert_eq!(socket.ask("subscribe", &json!({ "room": "third" })).0["ok"], true);
    assert_eq!(socket.ask("subscribe", &json!({ "room": "fourth" })).0["error"]["code"], "too_many_rooms");
    assert_eq!(socket.ask("unsubscribe", &json!({ "room": "third" })).0["ok"], true);
    assert_eq!(socket.ask("subscribe", &json!({ "room": "fourth" })).0["ok"], true);
}

#[test]
fn an_event_reaches_its_rooms_once_and_wrapped() {
    let server = Fanfare::start(&[]);
    let (mut member, _) = Watcher::connect(server.api(), "/socket.io/", "/");
    let (mut other_namespace, _) = Watcher::connect(server.api(), "/socket.io/", "/ws");
    let (mut outsider, greeting) = Watcher::connect(server.api(), "/socket.io/", "/");
    for socket in [&mut member, &mut other_namespace] {
        socket.ask("subscribe", &json!({ "room": "a" }));
        socket.ask("subscribe", &json!({ "room": "b" }));
    }
    let data = json!({ "big": 12345678901234567890_u64, "list": [null, 1.5] });
    let reply =
        server.post(EVENTS, &json!({ "event": "news", "data": data, "rooms": ["a", "b"] }).to_string());
    assert_eq!(reply.status, 201);
    let id = reply.json()["id"].clone();
    server.post(EVENTS, &json!({ "event": "last", "room": "global" }).to_string());
    for socket in [&mut member, &mut other_namespace] {
        let (name, wrapped) = socket.event();
        assert_eq!(name, "news");
        assert!(is_timestamp(&wrapped["timestamp"]));
        let (epoch, timestamp) = (&wrapped["epoch"], &wrapped["timestamp"]);
        assert!(epoch.as_u64().is_some_and(|epoch| epoch > 0), "{epoch}");
        let expected = json!({
            "event": "news", "data": data, "room": "a", "id": id, "timestamp": timestamp, "epoch": epoch, "seq": 1,
        });
        assert_eq!(wrapped, expected);
        assert_eq!(socket.event().0, "last", "once, although it is in both rooms");
    }
    assert_eq!(outsider.event().0, "last", "not a member of either");

    let own = greeting["connection_id"].as_str().unwrap();
    let to_all = json!({ "event": "all", "namespace": "/", "except": [own] });
    assert_eq!(server.post(EVENTS, &to_all.to_string()).status, 201);
    assert_eq!(server.post(EVENTS, &json!({ "event": "end", "room": "global" }).to_string()).status, 201);
    let (name, wrapped) = member.event();
    assert_eq!((name.as_str(), &wrapped["room"], &wrapped["data"]), ("all", &Value::Null, &Value::Null));
    assert_eq!(outsider.event().0, "end");
    assert_eq!(other_namespace.event().0, "end");
}

#[test]
fn a_batch_is_an_array_or_lines_and_keeps_its_order() {
    let server = Fanfare::start(&["--set", "rest.batch_events_max=100"]);
    let (mut socket, _) = Watcher::connect(server.api(), "/socket.io/", "/");
    let events: Vec<Value> = (0..100).map(|n| json!({ "event": "n", "data": n, "room": "global" })).collect();
    let lines: String = events.iter().map(|event| format!("{event}\r\n\n")).collect();
    for body in [json!(events).to_string(), lines] {
        let reply = server.post(BATCH, &body);
        assert_eq!(reply.status, 201);
        let ids: Vec<String> = reply.json()["events"]
            .as_array()
            .unwrap()
            .iter()
            .map(|event| event["id"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(ids.len(), 100);
        for (n, id) in ids.iter().enumerate() {
            let (_, wrapped) = socket.event();
            assert_eq!((&wrapped["data"], wrapped["id"].as_str()), (&json!(n), Some(id.as_str())));
        }
    }
    let half_bad = format!("{}\n{}", events[0], json!({ "event": "n", "room": "" }));
    assert_eq!(server.post(BATCH, &half_bad).refusal(), (422, "bad_room_name".to_owned()));
    let too_many = json!((0..101).map(|_| &events[0]).collect::<Vec<_>>());
    assert_eq!(server.post(BATCH, &too_many.to_string()).refusal(), (422, "too_many".to_owned()));
    server.post(EVENTS, &json!({ "event": "last", "room": "global" }).to_string());
    assert_eq!(socket.event().0, "last", "of a bad batch nothing is published");
}

#[test]
fn bad_requests_are_refused_with_their_code() {
    let server = Fanfare::start(&["--set", "rest.body_bytes_max=1000"]);
    let refused = |path: &str, body: &str, status: u16, code: &str| {
        assert_eq!(server.post(path, body).refusal(), (status, code.to_owned()), "{path} {body}");
    };
    for body in
        ["", "{", "[]", "1", "{\"event\":1,\"room\":\"a\"}", "{\"event\":\"e\",\"room\":\"a\",\"typo\":1}"]
    {
        refused(EVENTS, body, 400, "bad_request");
    }
    for body in ["", " ", "[]", "[1]", "[{]", "{\"event\"", "nonsense\n"] {
        refused(BATCH, body, 400, "bad_request");
    }
    refused(EVENTS, "{\"event\":\"e\"}", 422, "bad_target");
    refused(EVENTS, "{\"event\":\"connect\",\"room\":\"a\"}", 422, "bad_event_name");
    refused(EVENTS, "{\"event\":\"e\",\"room\":\"\"}", 422, "bad_room_name");
    refused(EVENTS, "{\"event\":\"e\",\"namespace\":\"/x\"}", 422, "unknown_namespace");
    let deep = format!("{{\"event\":\"e\",\"room\":\"a\",\"data\":{}{}}}", "[".repeat(100), "]".repeat(100));
    refused(EVENTS, &deep, 422, "data_too_deep");
    refused(EVENTS, &"x".repeat(1001), 413, "body_too_large");
    refused("/api/v1/nowhere", "{}", 404, "not_found");
    assert_eq!(server.get(EVENTS).refusal(), (405, "method_not_allowed".to_owned()));
    let not_text = agent().post(format!("{}{EVENTS}", server.api())).send(&[0xff_u8, 0xfe][..]).unwrap();
    assert_eq!(Reply::of(not_text).refusal(), (400, "bad_request".to_owned()));
}

/// RFC 3339, UTC, with milliseconds.
fn is_timestamp(value: &Value) -> bool {
    let text = value.as_str().unwrap_or_default();
    text.len() == 24 && text.ends_with('Z') && humantime::parse_rfc3339(text).is_ok()
}
