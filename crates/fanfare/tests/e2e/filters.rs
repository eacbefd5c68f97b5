//! Watching a part of a room, live, from its log, and after coming back.

use serde_json::{Value, json};

use crate::fanfare::{DataDir, Fanfare, command};
use crate::presence::user;
use crate::watcher::Watcher;

fn publish(server: &Fanfare, data: &Value) -> u64 {
    let event = json!({ "event": "step", "room": "builds", "data": data });
    let reply = server.post("/api/v1/events", &event.to_string());
    assert_eq!(reply.status, 201, "{}", reply.body);
    reply.json()["seq"].as_u64().expect("a seq")
}

/// A command that succeeds; the numbers of the steps that came with it.
fn ask(watcher: &mut Watcher, argument: &Value) -> (Value, Vec<u64>) {
    let (answer, events) = watcher.ask("subscribe", argument);
    assert_eq!(answer["ok"], true, "{answer}");
    (answer, events.iter().filter(|(name, _)| name == "step").map(|(_, event)| number(event)).collect())
}

fn number(event: &Value) -> u64 {
    event["data"]["n"].as_u64().expect("a number")
}

/// The numbers of the steps that come next, up to one.
fn until(watcher: &mut Watcher, last: u64) -> Vec<u64> {
    let mut numbers = Vec::new();
    while numbers.last() != Some(&last) {
        let (name, event) = watcher.event();
        if name == "step" {
            numbers.push(number(&event));
        }
    }
    numbers
}

#[test]
fn each_watcher_gets_the_part_that_it_asked_for() {
    let server = Fanfare::start(&["--set", "rooms.other={ presence = false }"]);
    let [mut all, mut failed, mut late] = ["a", "b", "c"].map(|id| user(&server, id));
    ask(&mut all, &json!({ "room": "builds" }));
    ask(&mut failed, &json!({ "room": "builds", "filter": { "status": ["error", "end"] } }));
    ask(&mut late, &json!({ "room": "builds", "filter": "minutes > 5 || status == 'end'" }));
    for (n, status, minutes) in [(1, "ok", 1), (2, "error", 2), (3, "ok", 9), (4, "error", 9), (5, "end", 0)]
    {
        publish(&server, &json!({ "n": n, "status": status, "minutes": minutes }));
    }
    assert_eq!(until(&mut all, 5), [1, 2, 3, 4, 5]);
    assert_eq!(until(&mut failed, 5), [2, 4, 5]);
    assert_eq!(until(&mut late, 5), [3, 4, 5]);
    // Another part, with what was of it before; then all of it.
    let (answer, missed) =
        ask(&mut failed, &json!({ "room": "builds", "last": 5, "filter": { "status": "ok" } }));
    assert_eq!((&answer["seq"], &answer["replayed"], missed), (&json!(5), &json!(2), vec![1, 3]));
    let since = json!({ "epoch": answer["epoch"], "seq": 2 });
    let late_ask = json!({ "room": "builds", "since": since, "filter": "minutes > 5 || status == 'end'" });
    let (answer, missed) = ask(&mut late, &late_ask);
    assert_eq!((&answer["recovered"], missed), (&json!(true), vec![3, 4, 5]));
    publish(&server, &json!({ "n": 6, "status": "error", "minutes": 9 }));
    publish(&server, &json!({ "n": 7, "status": "ok", "minutes": 0 }));
    assert_eq!(until(&mut failed, 7), [7]);
    ask(&mut failed, &json!({ "room": "builds" }));
    publish(&server, &json!({ "n": 8, "status": "end", "minutes": 0 }));
    assert_eq!(until(&mut late, 8), [6, 8]);
    assert_eq!(until(&mut failed, 8), [8], "it watches all of it now");
    let (left, _) = late.ask("unsubscribe", &json!({ "room": "builds" }));
    assert_eq!(left["ok"], true);
    publish(&server, &json!({ "n": 9, "status": "end", "minutes": 0 }));
    let pong = late.ask("ping", &json!(1)).1;
    assert!(pong.iter().all(|(name, _)| name == "pong"), "{pong:?}");
    let rooms = server.get("/socket/rooms").json();
    let builds: Vec<&Value> =
        rooms["rooms"].as_array().unwrap().iter().filter(|room| room["room"] == "builds").collect();
    assert_eq!(builds, [&json!({ "room": "builds", "members": 2 })]);
}

#[test]
fn filters_that_make_no_sense_or_are_too_many_are_refused() {
    let server = Fanfare::start(&["--set", "rooms.filters_max=2"]);
    let mut ann = user(&server, "ann");
    let mut code = |filter: Value| {
        let (answer, _) = ann.ask("join_room", &json!({ "room": "builds", "filter": filter }));
        answer["error"]["code"].as_str().unwrap_or("joined").to_owned()
    };
    assert_eq!(code(json!("status ==")), "bad_payload");
    assert_eq!(code(json!(["status"])), "bad_payload");
    assert_eq!(code(json!("x".repeat(3_000))), "too_many");
    assert_eq!(code(json!("(".repeat(20) + "a" + &")".repeat(20))), "too_many");
    assert_eq!([1, 2, 2, 3].map(|n| code(json!({ "n": n }))), ["joined", "joined", "joined", "too_many"]);
    let (answer, _) = ann.ask("subscribe_project", &json!({ "project_id": "p", "filter": { "a": 1 } }));
    assert_eq!(answer["ok"], true, "{answer}");
}

#[test]
fn a_filter_comes_back_with_its_socket() {
    let data = DataDir::new();
    let start = || {
        let mut serve = command(&["serve", "--only", "api", "--api-port", "0"]);
        Fanfare::spawn(serve.env("FANFARE_DATA_DIR", data.path()))
    };
    let server = start();
    let auth = json!({ "userId": "ann", "recovery": true });
    let open = |server: &Fanfare, auth: &Value| {
        Watcher::open(&format!("{}/socket.io/", server.api()), "/", "", &[], auth).expect("it connects")
    };
    let (mut ann, reply) = open(&server, &auth);
    ask(&mut ann, &json!({ "room": "builds", "filter": { "status": "error" } }));
    publish(&server, &json!({ "n": 1, "status": "error" }));
    assert_eq!(until(&mut ann, 1), [1]);
    let back = |ann: &Watcher| {
        let mut auth = auth.clone();
        (auth["pid"], auth["offset"]) = (reply["pid"].clone(), ann.newest_offset().into());
        auth
    };
    // Once to the same process, and once to the next.
    ann.close();
    for (n, status) in [(2, "ok"), (3, "error"), (4, "ok")] {
        publish(&server, &json!({ "n": n, "status": status }));
    }
    let (mut again, recovered) = open(&server, &back(&ann));
    assert_eq!(recovered["pid"], reply["pid"], "it is recovered");
    assert_eq!(until(&mut again, 3), [3]);
    again.close();
    drop(server);
    let server = start();
    for (n, status) in [(5, "ok"), (6, "error")] {
        publish(&server, &json!({ "n": n, "status": status }));
    }
    let (mut restored, recovered) = open(&server, &back(&again));
    assert_eq!(recovered["pid"], reply["pid"], "it is recovered");
    assert_eq!(until(&mut restored, 6), [6]);
    publish(&server, &json!({ "n": 7, "status": "ok" }));
    publish(&server, &json!({ "n": 8, "status": "error" }));
    assert_eq!(until(&mut restored, 8), [8]);
}
