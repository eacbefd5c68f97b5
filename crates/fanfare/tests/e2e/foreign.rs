//! Servers and emitters of other making beside the binary, with the packages as they are: Node's adapters and emitter, and
//! python-socketio. The scripts assert for themselves; see `tests/adapter-js` and `tests/redis-python`.

use std::process::Command;

use serde_json::{Value, json};
use testkit::redis::RedisServer;

use crate::broker::wait;
use crate::fanfare::{Fanfare, command};
use crate::installed::{javascript_of, python_of, succeed};
use crate::peers::NodeServer;
use crate::watcher::Watcher;

#[test]
#[ignore = "starts redis-server, installs @socket.io/redis-emitter with npm"]
fn an_emitter_in_node_reaches_watchers() {
    let redis = RedisServer::start();
    let server = serve(&redis, &[]);
    shows_all(&mut node("emitter.mjs", &redis, &server, &[]));
}

#[test]
#[ignore = "starts redis-server, installs socket.io and its adapter with npm"]
fn a_node_server_with_the_classic_adapter_and_ours_are_one_cluster() {
    let mut redis = RedisServer::start();
    let server = serve(&redis, &[]);
    shows_all(&mut node("cluster.mjs", &redis, &server, &["classic"]));
    // The same after a restart, on new subscriptions, each made once.
    redis.kill();
    wait("it notices", || status(&server) == "connecting");
    redis.restart();
    wait("it is back", || status(&server) == "ok");
    shows_all(&mut node("cluster.mjs", &redis, &server, &["classic"]));
    let listeners = || redis.ask(&["PUBSUB", "NUMSUB", "socket.io-request#/#"]);
    // Redis notices a moment later who has gone.
    wait("only ours is left", || listeners() == "socket.io-request#/# 1");
    assert_eq!(server.terminate(), Some(0));
    wait("nobody is left", || listeners() == "socket.io-request#/# 0");
}

#[test]
#[ignore = "starts redis-server, installs socket.io and its adapter with npm"]
fn a_node_server_with_the_sharded_adapter_and_ours_are_one_cluster() {
    let redis = RedisServer::start();
    for kind in ["sharded", "sharded-static"] {
        let server = serve(&redis, &[&format!("adapter.kind={kind}")]);
        shows_all(&mut node("cluster.mjs", &redis, &server, &[kind]));
    }
}

#[test]
#[ignore = "starts redis-server, installs python-socketio with pip"]
fn python_emitters_and_servers_are_understood() {
    let redis = RedisServer::start();
    let server = serve(&redis, &[]);
    let folder = python_of("redis-python");
    let mut python = Command::new(folder.join(".venv/bin/python"));
    python.current_dir(&folder).args(["manager.py", &redis.address(), server.api()]);
    shows_all(&mut python);
}

#[test]
#[ignore = "starts redis-server"]
fn nothing_is_sent_while_nobody_else_listens_and_servers_of_ours_do_not_hear_each_other_here() {
    let redis = RedisServer::start();
    let (first, second) = (serve(&redis, &[]), serve(&redis, &[]));
    for server in [&first, &second] {
        wait("it looks who listens", || {
            server.get("/stats").json()["adapter"]["others"] == json!({ "/": 0, "/ws": 0, "python": 0 })
        });
    }
    for _ in 0..10 {
        assert_eq!(first.post("/api/v1/events", r#"{"event":"n","room":"global"}"#).status, 201);
    }
    assert_eq!(first.get("/stats").json()["adapter"]["sent"], 0);
    assert!(!redis.ask(&["INFO", "commandstats"]).contains("cmdstat_publish"), "Redis had nothing to do");
    assert_eq!(second.get("/stats").json()["adapter"]["received"], 0);
    let metrics = first.get("/metrics").body;
    assert!(metrics.lines().any(|line| line == "fanfare_adapter_heard 1"), "{metrics}");
}

#[test]
#[ignore = "starts redis-server, installs socket.io and its adapter with npm"]
fn several_nodes_and_a_node_server_tell_each_socket_once() {
    let redis = RedisServer::start();
    let nodes = [0, 1].map(|_| {
        let mut serve = command(&["serve", "--only", "api", "--api-port", "0"]);
        let node = Fanfare::spawn(serve.env("REDIS_URL", redis.address()));
        wait("it is with the others", || status(&node) == "ok");
        node
    });
    let mut other = NodeServer::start(&redis, "classic");
    assert_eq!(other.next()[0], "ready");
    let mut watchers = nodes.each_ref().map(|node| {
        let (mut watcher, _) = Watcher::connect(node.api(), "/socket.io/", "/");
        watcher.ask("subscribe", &json!({ "room": "blue" }));
        wait("they count each other", || node.get("/stats").json()["adapter"]["others"]["/"] == 1);
        watcher
    });
    // What is kept comes back from Redis to all nodes; only one of them tells others of it.
    for (data, node) in (0..20).zip(nodes.iter().cycle()) {
        let event = json!({ "event": "n", "room": "blue", "data": data });
        assert_eq!(node.post("/api/v1/events", &event.to_string()).status, 201);
        assert_eq!(other.next()[1]["data"], data);
    }
    let volatile = json!({ "event": "n", "room": "blue", "data": "volatile", "volatile": true });
    assert_eq!(nodes[0].post("/api/v1/events", &volatile.to_string()).status, 201);
    assert_eq!(other.next()[1]["data"], "volatile");
    // What others say each node hears by itself.
    let event = b"\x93\xa7emitter\x82\xa4type\x02\xa4data\x92\xa1n\x07\x81\xa5rooms\x91\xa4blue";
    let event: String = event.iter().map(|byte| format!("\\{byte}")).collect();
    let publish = format!("return redis.call('PUBLISH', 'socket.io#/#blue#', '{event}')");
    assert_eq!(redis.ask(&["EVAL", &publish, "0"]), "3");
    assert_eq!(other.next(), json!(["n", 7]));
    for watcher in &mut watchers {
        let events = std::iter::repeat_with(|| watcher.event()).filter(|(name, _)| name == "n");
        let data: Vec<Value> = events.map(|(_, data)| data).take(21).collect();
        let kept: Vec<&Value> = data[..20].iter().map(|wrapped| &wrapped["data"]).collect();
        assert_eq!(json!(kept), json!((0..20).collect::<Vec<u64>>()));
        // Whoever polls misses what is volatile.
        assert_eq!(data[20], 7);
    }
}

#[test]
#[ignore = "starts redis-server"]
fn it_may_be_switched_off() {
    let redis = RedisServer::start();
    let server = serve(&redis, &["adapter.enabled=false"]);
    assert!(server.get("/stats").json()["adapter"].is_null());
    assert_eq!(redis.ask(&["PUBSUB", "NUMSUB", "socket.io-request#/#"]), "socket.io-request#/# 0");
}

fn serve(redis: &RedisServer, settings: &[&str]) -> Fanfare {
    let mut serve = command(&["serve", "--only", "api", "--api-port", "0"]);
    for setting in settings {
        serve.args(["--set", setting]);
    }
    // Logs and records stay in a file: whether Redis has them makes no difference to others.
    let url = format!("adapter.url={}", redis.address());
    let server = Fanfare::spawn(serve.args(["--set", &url]));
    if !settings.contains(&"adapter.enabled=false") {
        wait("it is with the others", || status(&server) == "ok");
    }
    server
}

fn status(server: &Fanfare) -> String {
    let check = server.get("/health").json()["checks"]["adapter"].take();
    check["status"].as_str().unwrap_or_default().to_owned()
}

fn node(script: &str, redis: &RedisServer, server: &Fanfare, arguments: &[&str]) -> Command {
    let folder = javascript_of("adapter-js");
    let mut node = Command::new("node");
    node.current_dir(&folder).args([script, &redis.address(), server.api()]).args(arguments);
    node
}

#[track_caller]
fn shows_all(script: &mut Command) {
    assert!(succeed(script).ends_with("done\n"));
}
