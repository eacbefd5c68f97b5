//! Rooms that are made by hand, sockets that operators put into them, and what is shown to whoever comes.

use serde_json::{Value, json};

use crate::auth::{Guarded, KEY, token, with};
use crate::fanfare::{DataDir, Fanfare};
use crate::presence::user;
use crate::watcher::Watcher;

#[test]
fn a_room_that_was_made_is_listed_although_nobody_is_in_it() {
    let server = Fanfare::start(&["--set", "forget.rooms=12s"]);
    let make = |path: &str, room: &str| {
        let reply = server.post(path, &json!({ "room": room }).to_string());
        (reply.status, reply.json())
    };
    assert_eq!(make("/api/v1/rooms", "lounge"), (201, json!({ "room": "lounge", "members": 0 })));
    assert_eq!(make("/socket/rooms", "lounge"), (200, json!({ "room": "lounge", "members": 0 })));
    assert_eq!(make("/socket/rooms", "").1["error"]["code"], "bad_room_name");
    assert_eq!(server.post("/api/v1/rooms", "{}").refusal(), (422, "bad_payload".to_owned()));
    let listed = || {
        let rooms = server.get("/socket/rooms").json();
        rooms["rooms"].as_array().unwrap().iter().find(|room| room["room"] == "lounge").cloned()
    };
    assert_eq!(listed(), Some(json!({ "room": "lounge", "members": 0 })));
    let mut ann = user(&server, "ann");
    ann.ask("join_room", &json!({ "room": "lounge" }));
    assert_eq!(listed(), Some(json!({ "room": "lounge", "members": 1 })));
    ann.ask("leave_room", &json!({ "room": "lounge" }));
    // It goes when its time is up.
    while listed().is_some() {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

fn moved(guarded: &Guarded, way: &str, room: &str) {
    let body = json!({ "userId": "ann", "room": room }).to_string();
    let reply = guarded.request("POST", &format!("/socket/rooms/{way}"), Some(KEY), &body);
    assert_eq!((reply.status, &reply.json()["sockets"]), (200, &json!(1)), "{}", reply.body);
}

fn publish(guarded: &Guarded, room: &str, n: u64) {
    let event = json!({ "event": "news", "room": room, "data": { "n": n } }).to_string();
    assert_eq!(guarded.request("POST", "/api/v1/events", Some(KEY), &event).status, 201);
}

fn news(watcher: &mut Watcher) -> Value {
    let (name, event) = watcher.event();
    assert_eq!(name, "news", "{event}");
    event["data"]["n"].clone()
}

#[test]
fn whom_an_operator_has_brought_in_stays_until_they_leave() {
    let data = DataDir::new();
    let guarded = Guarded::start_in("operator", data.path(), &[]);
    let url = |guarded: &Guarded| format!("{}/socket.io/", guarded.server.api());
    let fresh = || token("ann", &json!({ "projects": ["own"] }));
    let auth = json!({ "token": fresh(), "recovery": true });
    let (mut ann, reply) = Watcher::open(&url(&guarded), "/", "", &[], &auth).unwrap();
    ann.event();
    let (refused, _) = ann.ask("join_room", &json!({ "room": "project:secret" }));
    assert_eq!(refused["error"]["code"], "forbidden");
    moved(&guarded, "join", "project:secret");
    publish(&guarded, "project:secret", 1);
    assert_eq!(news(&mut ann), 1);
    let (refreshed, _) = ann.ask("refresh_token", &with(&fresh()));
    assert_eq!(refreshed["left"], json!([]), "{refreshed}");
    publish(&guarded, "project:secret", 2);
    assert_eq!(news(&mut ann), 2);
    let (history, _) = ann.ask("history", &json!({ "room": "project:secret" }));
    assert_eq!(history["last_seq"], 2, "she may read it as well: {history}");
    // The next process knows of it.
    drop(guarded);
    let guarded = Guarded::start_in("operator-2", data.path(), &[]);
    publish(&guarded, "project:secret", 3);
    let mut back = json!({ "token": fresh(), "recovery": true, "pid": reply["pid"] });
    back["offset"] = ann.newest_offset().into();
    let (mut ann, recovered) = Watcher::open(&url(&guarded), "/", "", &[], &back).unwrap();
    assert_eq!(recovered["pid"], reply["pid"], "it is recovered");
    assert_eq!(news(&mut ann), 3);
    assert_eq!(ann.event().0, "connection_established");
    let (refreshed, _) = ann.ask("refresh_token", &with(&fresh()));
    assert_eq!(refreshed["left"], json!([]), "{refreshed}");
    moved(&guarded, "leave", "project:secret");
    let (refused, _) = ann.ask("join_room", &json!({ "room": "project:secret" }));
    assert_eq!(refused["error"]["code"], "forbidden", "it was hers until she left");
}

#[test]
fn who_lost_a_grant_is_given_nothing_of_what_came_meanwhile() {
    let guarded = Guarded::start("revoked-room", &[]);
    let url = format!("{}/socket.io/", guarded.server.api());
    let granted = |projects: &[&str]| token("ann", &json!({ "projects": projects }));
    let auth = json!({ "token": granted(&["p", "q"]), "recovery": true });
    let (mut ann, reply) = Watcher::open(&url, "/", "", &[], &auth).unwrap();
    ann.event();
    for project in ["p", "q"] {
        assert_eq!(ann.ask("subscribe_project", &json!({ "project_id": project })).0["ok"], true);
    }
    publish(&guarded, "project:p", 1);
    assert_eq!(news(&mut ann), 1);
    ann.close();
    publish(&guarded, "project:p", 2);
    publish(&guarded, "project:q", 3);
    let coming_back = |projects: &[&str]| {
        let mut auth = json!({ "token": granted(projects), "recovery": true, "pid": reply["pid"] });
        auth["offset"] = ann.newest_offset().into();
        Watcher::open(&url, "/", "", &[], &auth).unwrap()
    };
    // Whoever may have it all gets it all; and is away once more.
    let (mut again, recovered) = coming_back(&["p", "q"]);
    assert_eq!(recovered["pid"], reply["pid"]);
    assert_eq!([news(&mut again), news(&mut again)], [json!(2), json!(3)]);
    again.close();
    let (mut other, fresh) = coming_back(&["q"]);
    assert_ne!(fresh["pid"], reply["pid"], "it begins anew");
    let (name, greeting) = other.event();
    assert_eq!((name.as_str(), &greeting["recovered"]), ("connection_established", &json!(false)));
    assert_eq!(greeting["rooms"], json!(["dashboard", "global", "user:ann"]), "and asks for its rooms again");
    assert_eq!(other.ask("subscribe_project", &json!({ "project_id": "q" })).0["ok"], true);
}

#[test]
fn a_dashboard_shows_the_newest_at_once() {
    let server = Fanfare::start(&[]);
    let mut agent = user(&server, "ann");
    for status in ["starting", "busy"] {
        let update = json!({ "agent_id": "a", "status": status });
        assert_eq!(agent.ask("agent_status_update", &update).0["ok"], true);
    }
    let mut page = user(&server, "bob");
    let (name, shown) = page.event();
    assert_eq!((name.as_str(), &shown["data"]["status"]), ("agent_status_update", &json!("busy")));
    assert_eq!(agent.ask("agent_status_update", &json!({ "agent_id": "a", "status": "idle" })).0["ok"], true);
    assert_eq!(page.event().1["data"]["status"], "idle", "each once");
    // The other namespace has no dashboard.
    let (mut plain, _) = Watcher::connect(server.api(), "/socket.io/", "/ws");
    let (_, events) = plain.ask("ping", &json!(null));
    assert_eq!(events.len(), 1, "{events:?}");
}

#[test]
fn what_is_of_no_use_any_more_is_told_to_nobody() {
    let server = Fanfare::start(&["--set", "rooms.other={ presence = false }"]);
    let url = format!("{}/socket.io/", server.api());
    let mut auth = json!({ "userId": "ann", "recovery": true });
    let (mut ann, reply) = Watcher::open(&url, "/", "", &[], &auth).unwrap();
    ann.event();
    ann.ask("subscribe", &json!({ "room": "short" }));
    let publish = |n: u64, ttl: &Value| {
        let mut event = json!({ "event": "news", "room": "short", "data": { "n": n } });
        if !ttl.is_null() {
            event["ttl"] = ttl.clone();
        }
        let reply = server.post("/api/v1/events", &event.to_string());
        assert_eq!(reply.status, 201, "{}", reply.body);
    };
    for (n, ttl) in [(1, json!(0.05)), (2, json!(3_600)), (3, Value::Null)] {
        publish(n, &ttl);
        assert_eq!(news(&mut ann), n, "whoever is there gets it");
    }
    let read = |query: &str| -> Vec<u64> {
        let page = server.get(&format!("/api/v1/rooms/short/events{query}")).json();
        page["events"].as_array().unwrap().iter().map(|event| event["seq"].as_u64().unwrap()).collect()
    };
    while read("") != [2, 3] {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let mut bob = user(&server, "bob");
    let (joined, events) = bob.ask("subscribe", &json!({ "room": "short", "last": 10 }));
    let given: Vec<&Value> = events.iter().map(|(_, event)| &event["seq"]).collect();
    assert_eq!((&joined["seq"], given), (&json!(3), vec![&json!(2), &json!(3)]));
    // Whoever is away for a while is not given what is of use for less than they may be away.
    ann.close();
    for (n, ttl) in [(4, json!(60)), (5, json!(3_600)), (6, json!(60)), (7, Value::Null)] {
        publish(n, &ttl);
    }
    (auth["pid"], auth["offset"]) = (reply["pid"].clone(), ann.newest_offset().into());
    let (mut again, recovered) = Watcher::open(&url, "/", "", &[], &auth).unwrap();
    assert_eq!(recovered["pid"], reply["pid"], "it is recovered");
    assert_eq!([news(&mut again), news(&mut again)], [json!(5), json!(7)]);
    assert_eq!(again.event().0, "connection_established");
}
