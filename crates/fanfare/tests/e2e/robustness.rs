//! What does not fit, for every command, event and route that there is: refused with a code and words, never a fault of
//! the server, never the end of a socket.

use hub::routes::{Method, ROUTES};
use hub::schema::{self, Direction};
use serde_json::{Value, json};
use ureq::http::Request;

use crate::fanfare::{Fanfare, Reply, agent};
use crate::watcher::Watcher;

/// Arguments that hardly any command takes.
fn misfits() -> Vec<Value> {
    let deep = (0..61).fold(json!(1), |inner, _| json!([inner]));
    vec![
        Value::Null,
        json!(1),
        json!(-1.5e300),
        json!(true),
        json!(""),
        json!("text"),
        json!([]),
        json!([[1, "a"], { "a": null }]),
        json!({}),
        json!({ "": "" }),
        json!({ "room": 1 }),
        json!({ "room": "" }),
        json!({ "room": "x".repeat(5_000) }),
        json!({ "room": "agents", "since": "yesterday" }),
        json!({ "room": "agents", "since": { "epoch": -1, "seq": 1e99 } }),
        json!({ "room": "agents", "last": -1 }),
        json!({ "room": "agents", "last": 18_446_744_073_709_551_615_u64 }),
        json!({ "room": "agents", "limit": -1 }),
        json!({ "project_id": {} }),
        json!({ "project_id": "\u{0}" }),
        json!({ "token": "x" }),
        json!({ "token": "x".repeat(100_000) }),
        json!({ "thread_id": [], "approved": "perhaps" }),
        json!({ "thread_id": "nobody", "approved": true }),
        json!({ "toolId": 1, "message": 2, "requestId": 3 }),
        json!({ "toolId": "nobody", "message": "m", "requestId": "r" }),
        json!({ "level": "LOUD" }),
        json!({ "deep": deep }),
    ]
}

#[test]
fn every_command_refuses_what_does_not_fit_and_the_socket_lives() {
    let server = Fanfare::start(&["--only", "api"]);
    let commands: Vec<&str> = schema::events()
        .filter(|event| event.direction == Direction::Command || event.is_publishable())
        .map(|event| event.name)
        .collect();
    assert!(commands.contains(&"join_room") && commands.contains(&"task_update"), "{commands:?}");
    for namespace in ["/", "/ws", "/logs", "/admin"] {
        let mut socket =
            Watcher::open(&format!("{}/socket.io/", server.api()), namespace, "", &[], &Value::Null)
                .unwrap_or_else(|refusal| panic!("{namespace}: {refusal}"))
                .0;
        for command in &commands {
            let mut calls: Vec<Vec<Value>> = misfits().into_iter().map(|misfit| vec![misfit]).collect();
            calls.push(Vec::new());
            calls.push(vec![json!({}), json!({}), json!({})]);
            for arguments in calls {
                let (answer, _) = socket.ask_with(command, &arguments);
                let error = &answer["error"];
                let is_told = answer["ok"] == true
                    || (error["code"].as_str().is_some_and(|code| !code.is_empty() && code != "internal")
                        && error["message"].as_str().is_some_and(|message| !message.is_empty()));
                assert!(is_told, "{namespace} {command} {arguments:.80?}: {answer}");
            }
        }
        assert_eq!(socket.ask("ping", &json!("still here")).0["echo"], "still here");
    }
}

#[test]
fn every_event_with_data_that_does_not_fit_is_refused_or_kept_as_it_is() {
    let server = Fanfare::start(&["--only", "api"]);
    for event in schema::events() {
        for data in misfits() {
            let body = json!({ "event": event.name, "room": "global", "data": data });
            let reply = server.post("/api/v1/events", &body.to_string());
            if reply.status != 201 {
                refused(&format!("{} {:.80}", event.name, data.to_string()), &reply);
            }
        }
    }
}

#[test]
fn every_route_refuses_what_does_not_fit() {
    let server = Fanfare::start(&["--only", "api", "--set", "rest.body_bytes_max=50000"]);
    let http = agent();
    let ask = |method: Method, path: &str, body: &[u8]| {
        let request = Request::builder()
            .method(method.as_str().to_uppercase().as_str())
            .uri(format!("{}{path}", server.api()))
            .body(body)
            .expect("a request");
        let reply = Reply::of(http.run(request).expect("an answer"));
        assert!(reply.status < 500, "{method:?} {path}: {reply:?}");
        if reply.status >= 400 {
            refused(&format!("{method:?} {path}"), &reply);
        }
        reply
    };
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let nonsense: [&[u8]; 8] = [
        b"{",
        b"nonsense",
        &[0xff, 0xfe, 0],
        b"{\"a\":}",
        b"1",
        b"\"text\"",
        deep.as_bytes(),
        b"{\"no such field\":1}",
    ];
    let long = "x".repeat(3_000);
    let parameters = ["nobody", "%ff%fe", "%00", "..%2f..", "%F0%9F%8E%BA", long.as_str()];
    for route in ROUTES.iter().filter(|route| !route.is_dev) {
        for path in route.paths() {
            let filled = |with: &str| {
                let parts = path.split('/').map(|part| if part.starts_with('{') { with } else { part });
                parts.collect::<Vec<_>>().join("/")
            };
            if route.request.is_some() {
                for body in nonsense {
                    let reply = ask(route.method, &filled("nobody"), body);
                    assert!(reply.status >= 400, "{path} {:.40?}: {reply:?}", String::from_utf8_lossy(body));
                }
                ask(route.method, &filled("nobody"), b"");
                ask(route.method, &filled("nobody"), b"{}");
                ask(route.method, &filled("nobody"), &vec![b' '; 60_000]);
            }
            if path.contains('{') {
                for parameter in parameters {
                    ask(route.method, &filled(parameter), b"{}");
                }
            }
            for query in
                ["limit=x&after=x&last=x&wait=x&since=x&status=x", "limit=-1", "%ff=%ff", "limit=0&wait=0s"]
            {
                let body: &[u8] = if route.request.is_some() { b"{" } else { b"" };
                ask(route.method, &format!("{}?{query}", filled("nobody")), body);
            }
        }
    }
    assert_eq!(server.get("/livez").status, 200);
}

/// Asserts that a refusal has a code, words, and a status of the caller's fault.
#[track_caller]
fn refused(what: &str, reply: &Reply) {
    let (status, code) = reply.refusal();
    assert!((400..500).contains(&status) && !code.is_empty(), "{what}: {reply:?}");
}
