//! Who is there, as members of a room and watchers of agents are told.

use serde_json::{Value, json};

use crate::auth::{Guarded, token, with};
use crate::fanfare::{DataDir, Fanfare};
use crate::watcher::Watcher;

/// A socket of a user in a server that asks nobody who they are.
pub(crate) fn user(server: &Fanfare, id: &str) -> Watcher {
    let url = format!("{}/socket.io/", server.api());
    let opened = Watcher::open(&url, "/", "", &[], &json!({ "userId": id }));
    let (mut watcher, _) = opened.unwrap_or_else(|refusal| panic!("{refusal}"));
    assert_eq!(watcher.event().1["user_id"], id);
    watcher
}

/// A command that must succeed while nothing else is told.
fn quietly(watcher: &mut Watcher, command: &str, argument: &Value) -> Value {
    let (answer, mut events) = watcher.ask(command, argument);
    events.retain(|(name, _)| name != "room_joined" && name != "room_left");
    assert_eq!((&answer["ok"], events.len()), (&json!(true), 0), "{answer} {events:?}");
    answer
}

fn change(watcher: &mut Watcher) -> (String, Value, Value, Value) {
    let (name, data) = watcher.event();
    (name, data["user_id"].clone(), data["users"].clone(), data["connections"].clone())
}

#[test]
fn members_are_told_of_users_not_of_their_sockets() {
    let server = Fanfare::start(&["--set", "presence.grace=100ms"]);
    let room = json!({ "room": "project:p" });
    let mut bob = user(&server, "bob");
    assert_eq!(quietly(&mut bob, "join_room", &room)["members"], 1);
    let (mut ann, mut other) = (user(&server, "ann"), user(&server, "ann"));
    assert_eq!(quietly(&mut ann, "subscribe", &room)["members"], 2);
    assert_eq!(change(&mut bob), ("presence_joined".into(), json!("ann"), json!(2), json!(2)));
    assert_eq!(quietly(&mut other, "subscribe_project", &json!({ "project_id": "p" }))["members"], 3);
    let there = quietly(&mut bob, "presence", &room);
    assert_eq!((&there["users"], &there["user_count"]), (&json!(["ann", "bob"]), &json!(2)));
    let users: Vec<&Value> =
        there["connections"].as_array().unwrap().iter().map(|one| &one["user_id"]).collect();
    assert_eq!(users.iter().filter(|user| **user == "ann").count(), 2, "{there}");
    assert_eq!(server.get("/api/v1/rooms/project:p/presence").json()["connection_count"], 3);
    quietly(&mut ann, "leave_room", &room);
    other.close();
    // The next that is told is that both are gone; what came between was nobody's business.
    assert_eq!(change(&mut bob), ("presence_left".into(), json!("ann"), json!(1), json!(1)));
    quietly(&mut ann, "join_room", &room);
    assert_eq!(change(&mut bob).0, "presence_joined");
    quietly(&mut ann, "leave_room", &room);
    assert_eq!(change(&mut bob).0, "presence_left", "whoever asks to leave has left");
}

#[test]
fn who_reconnects_has_never_been_away() {
    let server = Fanfare::start(&["--set", "presence.grace=10m"]);
    let room = json!({ "room": "project:p" });
    let (mut bob, mut ann) = (user(&server, "bob"), user(&server, "ann"));
    quietly(&mut bob, "join_room", &room);
    quietly(&mut ann, "join_room", &room);
    assert_eq!(change(&mut bob).0, "presence_joined");
    ann.close();
    let there = loop {
        let there = quietly(&mut bob, "presence", &room);
        if there["connection_count"] == 1 {
            break there;
        }
    };
    assert_eq!(there["users"], json!(["ann", "bob"]), "she may be on her way");
    let mut ann = user(&server, "ann");
    quietly(&mut ann, "join_room", &room);
    quietly(&mut ann, "leave_room", &room);
    assert_eq!(change(&mut bob).0, "presence_left", "nothing else was told");
}

#[test]
fn rooms_without_presence_tell_nobody() {
    let server = Fanfare::start(&["--set", "rooms.tasks={ presence = true }"]);
    let (mut ann, mut bob) = (user(&server, "ann"), user(&server, "bob"));
    for room in ["agents", "global", "user:ann"] {
        let (answer, _) = ann.ask("presence", &json!({ "room": room }));
        assert_eq!(answer["error"]["code"], "forbidden", "{room}: {answer}");
    }
    let joined = quietly(&mut bob, "join_room", &json!({ "room": "agents" }));
    assert_eq!(joined["members"], Value::Null);
    assert_eq!(quietly(&mut ann, "join_room", &json!({ "room": "agents" }))["members"], Value::Null);
    assert_eq!(quietly(&mut bob, "join_room", &json!({ "room": "tasks" }))["members"], 1);
    assert_eq!(quietly(&mut ann, "join_room", &json!({ "room": "tasks" }))["members"], 2);
    assert_eq!(change(&mut bob).0, "presence_joined", "and nothing of `agents` before it");
    let found = server.get("/api/v1/rooms/agents/presence").json();
    assert_eq!(found["users"], json!(["ann", "bob"]), "operators may look");
}

#[test]
fn large_rooms_are_told_numbers() {
    let settings = ["--set", "presence.named_max=2", "--set", "presence.count_interval=50ms"];
    let server = Fanfare::start(&settings);
    let room = json!({ "room": "project:p" });
    let mut first = user(&server, "u0");
    quietly(&mut first, "join_room", &room);
    let mut others: Vec<Watcher> = (1..6).map(|nth| user(&server, &format!("u{nth}"))).collect();
    for other in &mut others {
        let (answer, _) = other.ask("join_room", &room);
        assert_eq!(answer["ok"], true, "{answer}");
    }
    assert_eq!(change(&mut first), ("presence_joined".into(), json!("u1"), json!(2), json!(2)));
    loop {
        let (name, data) = first.event();
        assert_eq!((name.as_str(), &data["user_id"]), ("presence_count", &Value::Null));
        if data["users"] == 6 {
            break;
        }
    }
    let there = quietly(&mut first, "presence", &room);
    assert_eq!((&there["user_count"], &there["connection_count"]), (&json!(6), &json!(6)));
    assert_eq!((&there["users"], &there["connections"]), (&Value::Null, &Value::Null));
}

/// What a watcher of an agent is told next: the event, and of whom.
fn news(watcher: &mut Watcher) -> (String, String, String) {
    let (name, event) = watcher.event();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    (name, text(&event["room"]), text(&event["data"]["agent_id"]))
}

fn told(name: &str, room: &str) -> (String, String, String) {
    (name.into(), room.into(), "builder".into())
}

#[test]
fn agents_are_told_of_once_and_after_a_restart() {
    let data = DataDir::new();
    let start = |name: &str, grace: &str| {
        let grace = format!("presence.agent_grace={grace}");
        Guarded::start_in(name, data.path(), &[&grace, "rooms.project={ presence = false }"])
    };
    let agent = with(&token("builder", &json!({ "kind": "agent", "projects": ["p"] })));
    let watcher = with(&token("ann", &json!({ "projects": ["p"] })));
    let guarded = start("agents-1", "200ms");
    let mut ann = guarded.connect("/", &watcher).unwrap().0;
    quietly(&mut ann, "subscribe_project", &json!({ "project_id": "p" }));
    let sockets = [0, 1].map(|_| guarded.connect("/", &agent).unwrap().0);
    assert_eq!(news(&mut ann), told("agent.connected", "project:p"));
    for socket in &sockets {
        socket.close();
    }
    assert_eq!(news(&mut ann), told("agent.disconnected", "project:p"));
    let (_back, _) = guarded.connect("/ws", &agent).unwrap();
    assert_eq!(news(&mut ann), told("agent.connected", "project:p"));
    // Killed; the agent does not come back.
    drop(guarded);
    let guarded = start("agents-2", "200ms");
    let mut ann = guarded.connect("/", &watcher).unwrap().0;
    let after = json!({ "room": "project:p", "last": 1 });
    loop {
        // Told when its time is up, whether before the join or after it.
        let (_, events) = ann.ask("subscribe", &after);
        if events.iter().any(|(name, _)| name == "agent.disconnected") {
            break;
        }
    }
    let (_back, _) = guarded.connect("/", &agent).unwrap();
    while news(&mut ann).0 != "agent.connected" {}
    drop(guarded);
    // One that does come back has never been away.
    let guarded = start("agents-3", "10m");
    let (mut back, _) = guarded.connect("/", &agent).unwrap();
    quietly(&mut back, "join_room", &json!({ "room": "project:p" }));
    let newest = quietly(&mut back, "history", &json!({ "room": "project:p", "last": 1 }));
    assert_eq!(newest["events"][0]["event"], "agent.connected");
    assert_eq!(newest["last_seq"], 5, "{newest}");
}
