//! Several servers with one Redis, as their users meet them: one server, whichever of them somebody asks, and whatever
//! happens to one of them or to Redis.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Instant;

use serde_json::{Value, json};
use testkit::proxy::Proxy;
use testkit::redis::RedisServer;

use crate::fanfare::{Fanfare, PATIENCE, command, until};
use crate::installed::{javascript, succeed};
use crate::watcher::Watcher;

/// Nodes of one server.
struct Nodes {
    redis: RedisServer,
    nodes: Vec<Fanfare>,
}

impl Nodes {
    fn start(count: usize) -> Self {
        // None counts as dead because the machine stands still.
        Self::start_with(count, "cluster.lease=60s")
    }

    fn start_with(count: usize, setting: &str) -> Self {
        let redis = RedisServer::start_durable();
        let nodes = (0..count).map(|_| node(&redis, setting)).collect();
        let nodes = Self { redis, nodes };
        nodes.know_each_other(count);
        nodes
    }

    fn know_each_other(&self, count: usize) {
        for node in &self.nodes {
            until(PATIENCE, "the nodes know each other", || known_to(node) == count);
        }
    }
}

fn node(redis: &RedisServer, setting: &str) -> Fanfare {
    let mut command = command(&["serve", "--api-port", "0", "--realtime-port", "0"]);
    command.env("REDIS_URL", format!("redis://127.0.0.1:{}", redis.port()));
    Fanfare::spawn(command.args(["--set", setting]))
}

fn known_to(node: &Fanfare) -> usize {
    node.get("/health").json()["checks"]["redis"]["nodes"].as_array().map_or(0, Vec::len)
}

fn publish(node: &Fanfare, room: &str, data: impl Into<Value>) -> Value {
    let reply =
        node.post("/api/v1/events", &json!({ "event": "n", "room": room, "data": data.into() }).to_string());
    assert_eq!(reply.status, 201, "{}", reply.body);
    reply.json()
}

/// A user at a node, past the greeting, in no room yet but their own.
fn user(node: &Fanfare, name: &str) -> Watcher {
    let url = format!("{}/ws/socket.io/", node.api());
    let (mut watcher, _) = Watcher::open(&url, "/", "", &[], &json!({ "userId": name }))
        .unwrap_or_else(|refusal| panic!("{refusal}"));
    assert_eq!(watcher.event().0, "connection_established");
    watcher
}

fn join(watcher: &mut Watcher, asked: &Value) -> (Value, Vec<(String, Value)>) {
    let (joined, before) = watcher.ask("join_room", asked);
    assert_eq!(joined["ok"], true, "{joined}");
    (joined, before)
}

/// The next event of this name.
fn next(watcher: &mut Watcher, name: &str) -> Value {
    loop {
        let (is, data) = watcher.event();
        if is == name {
            return data;
        }
    }
}

fn seq_of(event: &Value) -> u64 {
    event["seq"].as_u64().unwrap_or_else(|| panic!("an event of a log: {event}"))
}

#[test]
#[ignore = "starts redis-server"]
fn several_nodes_are_one_server() {
    let nodes = Nodes::start(3);
    let [one, two, three] = &nodes.nodes[..] else { unreachable!("three were started") };
    let (mut ann, mut bob) = (user(one, "ann"), user(two, "bob"));
    for watcher in [&mut ann, &mut bob] {
        join(watcher, &json!({ "room": "project:p" }));
    }
    // A log has one order, wherever something is published.
    for (seq, node) in (1_u64..).zip([three, one, two, three]) {
        publish(node, "project:p", seq);
        for watcher in [&mut ann, &mut bob] {
            let event = next(watcher, "n");
            assert_eq!((seq_of(&event), &event["data"]), (seq, &json!(seq)));
        }
    }
    let (history, _) = bob.ask("history", &json!({ "room": "project:p" }));
    assert_eq!(history["last_seq"], 4, "{history}");
    // What nobody keeps reaches everybody, too.
    let unkept =
        json!({ "event": "v", "room": "project:p", "data": 5, "volatile": true, "ttl": 30 }).to_string();
    assert_eq!(one.post("/api/v1/events", &unkept).status, 201);
    for watcher in [&mut ann, &mut bob] {
        assert_eq!(next(watcher, "v")["data"], 5);
    }
    // Who comes later gets what they ask for, then what happens.
    let mut cid = user(three, "cid");
    let (joined, before) = join(&mut cid, &json!({ "room": "project:p", "last": 2 }));
    let seqs: Vec<u64> =
        before.iter().filter(|(name, _)| name == "n").map(|(_, event)| seq_of(event)).collect();
    assert_eq!((seqs, &joined["seq"]), (vec![3, 4], &json!(4)));
    publish(two, "project:p", 6);
    for watcher in [&mut ann, &mut bob, &mut cid] {
        assert_eq!(seq_of(&next(watcher, "n")), 5);
    }
    // Whichever node is asked knows who is there; one that cannot answer in time is left out.
    for node in [one, two, three] {
        until(PATIENCE, "all users are found", || {
            let users = node.get("/socket/users").json();
            let users = users["users"].as_array().into_iter().flatten();
            users.filter_map(|user| user["userId"].as_str()).eq(["ann", "bob", "cid"])
        });
        until(PATIENCE, "a user is found", || {
            let found = node.get("/socket/users/bob/connected").json();
            found == json!({ "connected": true, "connections": 1 })
        });
        until(PATIENCE, "all members are counted", || {
            let rooms = node.get("/socket/rooms").json();
            let rooms = rooms["rooms"].as_array().into_iter().flatten();
            let mut members = rooms.filter(|room| room["room"] == "project:p");
            members.next() == Some(&json!({ "room": "project:p", "members": 3 })) && members.next().is_none()
        });
    }
    // What an operator does holds for sockets of all nodes.
    let moved = json!({ "room": "war-room", "userId": "bob" }).to_string();
    until(PATIENCE, "it is moved", || {
        let reply = one.post("/socket/rooms/join", &moved);
        assert_eq!(reply.status, 200, "{}", reply.body);
        reply.json()["sockets"] == 1
    });
    publish(three, "war-room", 1);
    assert_eq!(next(&mut bob, "n")["data"], 1);
    // A notification finds its user, and does not wait for one who is there.
    let letter = json!({ "userId": "cid", "title": "hello", "message": "there" }).to_string();
    let reply = one.post("/api/v1/notifications", &letter);
    assert!(reply.status < 300, "{}", reply.body);
    assert_eq!(next(&mut cid, "notification")["title"], "hello");
}

#[test]
#[ignore = "starts redis-server"]
fn who_is_there_is_known_on_all_nodes_and_the_dead_leave() {
    // Longer than a machine stands still, and short enough to be waited for.
    let mut nodes = Nodes::start_with(2, "cluster.lease=10s");
    let other = nodes.nodes.pop().expect("two were started");
    let one = &nodes.nodes[0];
    let mut ann = user(one, "ann");
    join(&mut ann, &json!({ "room": "team:t" }));
    let mut bob = user(&other, "bob");
    join(&mut bob, &json!({ "room": "team:t" }));
    // A node that begins to hear a room asks who is there, for a moment.
    while bob.ask("presence", &json!({ "room": "team:t" })).0["users"] != json!(["ann", "bob"]) {}
    let (joined, _) = join(&mut bob, &json!({ "room": "team:t" }));
    assert_eq!(joined["members"], 2, "{joined}");
    let change = next(&mut ann, "presence_joined");
    assert_eq!((&change["user_id"], &change["users"]), (&json!("bob"), &json!(2)));
    let (present, _) = ann.ask("presence", &json!({ "room": "team:t" }));
    assert_eq!(present["users"], json!(["ann", "bob"]), "{present}");
    // Signal 9: nobody says goodbye.
    drop(other);
    let change = next(&mut ann, "presence_left");
    assert_eq!((&change["user_id"], &change["users"]), (&json!("bob"), &json!(1)));
    let (present, _) = ann.ask("presence", &json!({ "room": "team:t" }));
    assert_eq!((&present["users"], &present["connection_count"]), (&json!(["ann"]), &json!(1)), "{present}");
    until(PATIENCE, "it is alone", || known_to(one) == 1);
}

#[test]
#[ignore = "starts redis-server"]
fn sockets_come_back_at_another_node_with_what_they_missed() {
    let nodes = Nodes::start(3);
    let [one, two, three] = &nodes.nodes[..] else { unreachable!("three were started") };
    let url = |node: &Fanfare| format!("{}/ws/socket.io/", node.api());
    let auth = json!({ "userId": "ann", "recovery": true });
    let (mut ann, reply) = Watcher::open(&url(one), "/", "", &[], &auth).unwrap();
    ann.event();
    join(&mut ann, &json!({ "room": "project:p" }));
    publish(two, "project:p", 1);
    assert_eq!(next(&mut ann, "n")["data"], 1);
    let back = |ann: &Watcher, node: &Fanfare| {
        let mut auth = json!({ "userId": "ann", "recovery": true, "pid": reply["pid"] });
        auth["offset"] = ann.newest_offset().into();
        Watcher::open(&url(node), "/", "", &[], &auth).unwrap()
    };
    // Away, then at another node.
    ann.close();
    publish(two, "project:p", 2);
    publish(three, "project:p", 3);
    let (mut ann, recovered) = back(&ann, two);
    assert_eq!((&recovered["pid"], &recovered["sid"]), (&reply["pid"], &reply["sid"]), "it is recovered");
    assert_eq!(
        [next(&mut ann, "n")["data"].clone(), next(&mut ann, "n")["data"].clone()],
        [json!(2), json!(3)]
    );
    publish(one, "project:p", 4);
    assert_eq!(next(&mut ann, "n")["data"], 4);
    // Still there as far as that node knows, and already at the next one.
    let (mut again, recovered) = back(&ann, three);
    assert_eq!(recovered["pid"], reply["pid"], "it is taken over");
    publish(one, "project:p", 5);
    assert_eq!(next(&mut again, "n")["data"], 5);
    until(PATIENCE, "it is in one place only", || {
        one.get("/socket/users/ann/connected").json()["connections"] == 1
    });
    // A node that died has taken nothing with it.
    let [one, two, three] = <[Fanfare; 3]>::try_from(nodes.nodes).ok().unwrap();
    drop(three);
    publish(&one, "project:p", 6);
    let (mut again, recovered) = back(&again, &two);
    assert_eq!(recovered["pid"], reply["pid"], "it comes back from what Redis has");
    assert_eq!(next(&mut again, "n")["data"], 6);
}

#[test]
#[ignore = "starts redis-server"]
fn what_was_missed_while_redis_was_not_heard_is_made_up_for() {
    let nodes = Nodes::start(2);
    let (one, two) = (&nodes.nodes[0], &nodes.nodes[1]);
    let (mut ann, mut bob) = (user(one, "ann"), user(two, "bob"));
    for watcher in [&mut ann, &mut bob] {
        join(watcher, &json!({ "room": "project:p" }));
    }
    for number in 1..=300_u64 {
        if number % 50 == 0 {
            // Whoever listens is cut off, in the middle of it.
            let _ = nodes.redis.ask(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        }
        publish(if number % 2 == 0 { one } else { two }, "project:p", number);
    }
    for watcher in [&mut ann, &mut bob] {
        for number in 1..=300 {
            let event = next(watcher, "n");
            assert_eq!((seq_of(&event), &event["data"]), (number, &json!(number)));
        }
    }
    let check = one.get("/health").json()["checks"]["redis"].clone();
    for node in [one, two] {
        // Cuts are counted when they are noticed, repairs when they are done.
        until(PATIENCE, "what was cut is heard again, and that was counted", || {
            let repairs = node.figure("fanfare_cluster_repairs_total");
            repairs > 1.0 && node.figure("fanfare_cluster_cuts_total") > 0.0
        });
        until(PATIENCE, "it is heard again", || node.figure("fanfare_cluster_heard") == 1.0);
        assert!(node.figure("fanfare_cluster_canary_seconds") > 0.0);
        assert_eq!(node.figure("fanfare_cluster_nodes"), 2.0);
        assert!(node.figure(r#"fanfare_cluster_messages_total{outcome="in"}"#) > 0.0);
        assert_eq!(node.figure("fanfare_cluster_rooms_lost_total"), 0.0);
    }
    assert!(check["cuts"].as_u64().is_some_and(|cuts| cuts > 0) && check["repairs"]["count"] != 0, "{check}");
}

#[test]
#[ignore = "starts redis-server"]
fn without_redis_those_who_are_there_go_on_and_nothing_is_lost() {
    let mut nodes = Nodes::start(1);
    let Nodes { redis, nodes } = &mut nodes;
    let one = &nodes[0];
    let mut ann = user(one, "ann");
    join(&mut ann, &json!({ "room": "project:p" }));
    publish(one, "project:p", 1);
    assert_eq!(next(&mut ann, "n")["data"], 1);
    redis.kill();
    until(PATIENCE, "it says that it is degraded", || one.get("/health").json()["status"] == "degraded");
    let event = json!({ "event": "n", "room": "project:p", "data": 2 }).to_string();
    let refused = one.post("/api/v1/events", &event);
    assert_eq!(refused.refusal().0, 503, "{}", refused.body);
    assert!(!refused.header("retry-after").is_empty());
    let unkept =
        json!({ "event": "v", "room": "project:p", "data": 3, "volatile": true, "ttl": 30 }).to_string();
    assert_eq!(one.post("/api/v1/events", &unkept).status, 201);
    assert_eq!(next(&mut ann, "v")["data"], 3);
    until(PATIENCE, "it says that it does not hear", || one.get("/readyz").status == 503);
    redis.restart();
    until(PATIENCE, "it is well again", || {
        one.get("/health").json()["status"] == "healthy" && one.get("/readyz").status == 200
    });
    publish(one, "project:p", 4);
    assert_eq!(next(&mut ann, "n")["data"], 4);
}

/// The nodes' addresses behind one, which takes them in turn.
fn in_turn(nodes: &[Fanfare]) -> Proxy {
    let targets: Vec<SocketAddr> = nodes
        .iter()
        .map(|node| node.api().trim_start_matches("http://").parse().expect("an address"))
        .collect();
    Proxy::start(targets).expect("a port")
}

#[test]
#[ignore = "starts redis-server, installs socket.io-client with npm"]
fn no_session_is_lost_behind_a_proxy_that_knows_none() {
    let folder = javascript();
    let nodes = Nodes::start(3);
    let proxy = in_turn(&nodes.nodes);
    let apis: Vec<&str> = nodes.nodes.iter().map(Fanfare::api).collect();
    let seconds = std::env::var("FANFARE_SECONDS").unwrap_or_else(|_| "10".to_owned());
    for transport in ["polling", "both"] {
        let mut script = Command::new("node");
        let url = format!("http://{}", proxy.address());
        script.current_dir(&folder).args(["round-robin.mjs", &url, &apis.join(","), &seconds, transport]);
        let told = succeed(&mut script);
        assert!(told.ends_with("done\n"), "{told}");
    }
    assert!(proxy.accepted() > 100, "requests went to all nodes in turn");
}

#[test]
#[ignore = "starts redis-server"]
fn who_has_nobody_in_a_room_hears_nothing_of_it() {
    const EVENTS: u64 = 200;
    let nodes = Nodes::start(16);
    let [first, .., last] = &nodes.nodes[..] else { unreachable!("sixteen were started") };
    let heard = |node: &Fanfare| {
        let check = node.get("/health").json()["checks"]["redis"]["messages"]["in"].clone();
        check.as_u64().expect("a count")
    };
    let mut ann = user(first, "ann");
    join(&mut ann, &json!({ "room": "project:p" }));
    let before: Vec<u64> = nodes.nodes[1..].iter().map(heard).collect();
    for number in 0..EVENTS {
        publish(last, "project:p", number);
        let unkept = json!({ "event": "v", "room": "project:p", "data": number, "volatile": true });
        assert_eq!(last.post("/api/v1/events", &unkept.to_string()).status, 201);
    }
    for number in 0..EVENTS {
        assert_eq!(next(&mut ann, "n")["data"], number);
    }
    let after: Vec<u64> = nodes.nodes[1..].iter().map(heard).collect();
    assert_eq!(before, after, "fifteen nodes have nobody there");
    // Where nobody at all is, Redis is not even asked.
    let commands = || -> u64 {
        let stats = nodes.redis.ask(&["INFO", "commandstats"]);
        let spublish = stats.lines().find(|line| line.starts_with("cmdstat_spublish:"));
        let calls = spublish.and_then(|line| line.split(['=', ',']).nth(1));
        calls.and_then(|calls| calls.trim().parse().ok()).unwrap_or(0)
    };
    // Nodes look after themselves meanwhile: each sends itself something every two seconds, and that is all.
    let (before, begun) = (commands(), Instant::now());
    for number in 0..2_000 {
        let unkept = json!({ "event": "v", "room": "nobody-is-here", "data": number, "volatile": true });
        assert_eq!(last.post("/api/v1/events", &unkept.to_string()).status, 201);
    }
    let own = 16 * 4 * (1 + begun.elapsed().as_secs());
    let told = commands() - before;
    assert!(told <= own, "{told} messages while {own} are the nodes' own");
}
