//! Redis in front of the binary: a real server, the stock client of Python, and whatever goes wrong on the way.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::{Value, json};
use testkit::redis::{RedisCluster, RedisServer};

use crate::broker::wait;
use crate::fanfare::{DataDir, Fanfare, command};
use crate::installed::{python_of, succeed};
use crate::watcher::Watcher;

const STREAM: &str = "app.events";
const DEAD: &str = "{app.events}.dead";
const ROOM: &str = "project:redis";

/// Entries of the great draining; every 500th is poison.
const ENTRIES: u64 = 10_000;

#[test]
#[ignore = "starts redis-server, installs redis with pip"]
fn ten_thousand_entries_are_kept_once_while_server_and_redis_come_and_go() {
    let mut redis = RedisServer::start_durable();
    let data = DataDir::new();
    python(&redis, &["stream", STREAM, "0", &ENTRIES.to_string()]);
    let expected: Vec<u64> = (0..ENTRIES).filter(|number| number % 500 != 499).collect();
    let start = |redis: &RedisServer| serve(redis, &data, &[stream(), "redis_ingest.batch=100".into()]);
    let mut kept = 0;
    for round in 0..5 {
        let server = start(&redis);
        let goal = (kept + 1_000).min(expected.len() as u64);
        wait("it keeps what the stream brings", || server.last_seq(ROOM) >= goal);
        if round == 2 {
            redis.kill();
            wait("it notices", || status(&server) != "ok");
            redis.restart();
            let before = server.last_seq(ROOM);
            wait("it goes on", || server.last_seq(ROOM) > before || before >= expected.len() as u64);
        }
        kept = server.last_seq(ROOM);
        // Signal 9.
        drop(server);
    }
    let server = start(&redis);
    wait("all are kept", || server.last_seq(ROOM) >= expected.len() as u64);
    wait("nothing is pending", || pending(&redis) == "0");
    wait("the poison is found", || redis.ask(&["XLEN", DEAD]) == (ENTRIES / 500).to_string());
    let numbers: Vec<u64> =
        server.log(ROOM).iter().map(|event| event["data"].as_u64().expect("a number")).collect();
    assert_eq!(numbers.len(), expected.len(), "each is there once");
    assert_eq!(numbers, expected, "in the order of the stream");
    assert_eq!(server.terminate(), Some(0));
    assert_eq!(pending(&redis), "0");
    wait("who goes in order leaves no name", || {
        redis.ask(&["XINFO", "CONSUMERS", STREAM, "fanfare"]).is_empty()
    });
    let dead = redis.ask(&["XRANGE", DEAD, "-", "+"]);
    let told = |what: &str| dead.matches(what).count();
    assert_eq!((told("x-fanfare-code bad_request"), told("x-fanfare-code bad_payload")), (10, 10), "{dead}");
    assert_eq!((told("x-fanfare-stream app.events"), told("json {nonsense")), (20, 10), "{dead}");
}

#[test]
#[ignore = "starts redis-server"]
fn what_a_dead_consumer_has_left_is_taken_over_and_keys_count_once() {
    let redis = RedisServer::start();
    let data = DataDir::new();
    assert_eq!(redis.ask(&["XGROUP", "CREATE", STREAM, "fanfare", "0", "MKSTREAM"]), "OK");
    let event = |name: &str| json!({ "event": name, "room": ROOM }).to_string();
    let add = |fields: &[&str]| redis.ask(&[&["XADD", STREAM, "*"], fields].concat());
    for name in ["a", "b", "c"] {
        add(&["json", &event(name)]);
    }
    let group = ["GROUP", "fanfare", "gone"];
    let taken = redis.ask(&[&["XREADGROUP"], &group[..], &["STREAMS", STREAM, ">"]].concat());
    assert_eq!(taken.matches(ROOM).count(), 3, "{taken}");
    // What was deleted before it was kept is not wanted by anybody.
    let last = taken.split(' ').rfind(|word| word.contains('-')).expect("an id").to_owned();
    assert_eq!(redis.ask(&["XDEL", STREAM, &last]), "1");
    let server = serve(&redis, &data, &[stream(), "redis_ingest.claim_after=500ms".into()]);
    add(&["anything", &event("d"), "idempotency_key", "key-1"]);
    add(&["a", "1", "b", "2"]);
    wait("all are kept", || server.last_seq(ROOM) == 3 && pending(&redis) == "0");
    let names = |server: &Fanfare| -> Vec<Value> {
        server.log(ROOM).iter().map(|event| event["event"].clone()).collect()
    };
    let mut sorted: Vec<String> = names(&server).iter().map(ToString::to_string).collect();
    sorted.sort();
    assert_eq!(sorted, [r#""a""#, r#""b""#, r#""d""#]);
    wait("the other is dead", || redis.ask(&["XLEN", DEAD]) == "1");
    assert!(redis.ask(&["XRANGE", DEAD, "-", "+"]).contains("field `json`"));
    // A batch, and an event whose key came over HTTP before.
    let again = json!({ "event": "n", "room": ROOM, "idempotency_key": "key-2" });
    assert_eq!(server.post("/api/v1/events", &again.to_string()).status, 201);
    add(&["json", &format!("[{},{}]", event("e"), event("f"))]);
    add(&["json", &again.to_string()]);
    add(&["json", &event("other"), "idempotency_key", "key-1"]);
    wait("they are known", || {
        let report = server.get("/stats").json()["redis_ingest"][0].clone();
        report["repeated"] == 2 && report["underway"] == 0
    });
    assert_eq!(server.last_seq(ROOM), 6);
    let metrics = server.get("/metrics").body;
    let line = r#"fanfare_redis_ingest_messages_total{source="app.events",outcome="repeated"} 2"#;
    assert!(metrics.lines().any(|found| found == line), "{metrics}");
    wait("all is well", || status(&server) == "ok");
}

#[test]
#[ignore = "starts redis-server, installs redis with pip"]
fn entries_that_cannot_be_kept_now_wait_in_their_order() {
    let redis = RedisServer::start();
    let data = DataDir::new();
    python(&redis, &["stream", STREAM, "0", "3000"]);
    let server = serve(&redis, &data, &[stream(), "store.bytes_max=400000".into()]);
    wait("the store is full", || {
        let health = server.get("/health").json();
        let stream = &health["checks"]["redis_ingest"];
        let is_told = stream["complaint"].as_str().is_some_and(|why| why.starts_with("store_unavailable"));
        health["status"] == "degraded" && stream["status"] == "waiting" && is_told
    });
    assert!(server.last_seq(ROOM) < 2_000, "the store was to be full by then");
    drop(server);
    let server = serve(&redis, &data, &[stream()]);
    wait("all are kept", || server.last_seq(ROOM) >= 2_994 && pending(&redis) == "0");
    let numbers: Vec<u64> =
        server.log(ROOM).iter().map(|event| event["data"].as_u64().expect("a number")).collect();
    let expected: Vec<u64> = (0..3_000).filter(|number| number % 500 != 499).collect();
    assert_eq!(numbers, expected);
}

#[test]
#[ignore = "starts redis-server, installs redis with pip"]
fn servers_at_one_channel_take_turns_and_poison_is_put_aside() {
    let mut redis = RedisServer::start();
    let (here, there) = (DataDir::new(), DataDir::new());
    let settings = ["redis_ingest.channel=app.*", "redis_ingest.dead_letter=dead"].map(String::from);
    let first = serve(&redis, &here, &settings);
    wait("it listens", || status(&first) == "ok");
    let second = serve(&redis, &there, &settings);
    wait("it listens, too", || status(&second) == "ok");
    let (mut watcher, _) = Watcher::connect(first.api(), "/socket.io/", "/");
    watcher.ask("subscribe", &json!({ "room": ROOM }));
    let event = |data: u64| json!({ "event": "n", "room": ROOM, "data": data }).to_string();
    let both = format!("[{},{}]", event(2), event(3));
    python(&redis, &["channel", "app.one", &event(1), "{nonsense", &both, &event(1)]);
    for expected in [1, 2, 3, 1] {
        assert_eq!(watcher.event().1["data"], expected, "equal messages are both meant");
    }
    wait("the poison is put aside", || redis.ask(&["XLEN", "dead"]) == "1");
    let dead = redis.ask(&["XRANGE", "dead", "-", "+"]);
    assert!(dead.contains("x-fanfare-channel app.one") && dead.contains("bad_request"), "{dead}");
    let report = |server: &Fanfare, what: &str| server.get("/stats").json()["redis_ingest"][0][what].clone();
    wait("the other has heard them", || report(&second, "received") == 4 && report(&second, "ignored") == 4);
    assert_eq!(second.last_seq(ROOM), 0);
    // The turn is given back, not waited for.
    assert_eq!(first.terminate(), Some(0));
    let mut number = 10;
    wait("the other takes over", || {
        number += 1;
        python(&redis, &["channel", "app.one", &event(number)]);
        second.last_seq(ROOM) > 0
    });
    redis.kill();
    wait("it notices", || status(&second) != "ok");
    redis.restart();
    let before = second.last_seq(ROOM);
    wait("it listens again", || {
        python(&redis, &["channel", "app.two", &event(99)]);
        second.last_seq(ROOM) > before
    });
}

#[test]
#[ignore = "starts redis-server, installs redis with pip"]
fn nodes_of_one_server_share_a_stream_and_take_over_from_each_other() {
    let redis = RedisServer::start_durable();
    let start = |consumer: &str| {
        let mut serve = command(&["serve", "--only", "api", "--api-port", "0"]);
        serve.env("REDIS_URL", redis.address()).args(["--set", "rooms.events_max=100000"]);
        serve.args(["--set", &stream(), "--set", "redis_ingest.batch=50"]);
        serve.args(["--set", "redis_ingest.claim_after=1s", "--set", "cluster.lease=10s"]);
        Fanfare::spawn(serve.args(["--set", &format!("redis_ingest.consumer={consumer}")]))
    };
    let (first, second) = (start("first"), start("second"));
    python(&redis, &["stream", STREAM, "0", "3000"]);
    wait("they have begun", || second.last_seq(ROOM) >= 500);
    // Signal 9, in the middle of it.
    drop(first);
    python(&redis, &["stream", STREAM, "3000", "5000"]);
    let expected: Vec<u64> = (0..5_000).filter(|number| number % 500 != 499).collect();
    wait("all are kept", || second.last_seq(ROOM) >= expected.len() as u64);
    wait("nothing is pending", || pending(&redis) == "0");
    let mut numbers: Vec<u64> =
        second.log(ROOM).iter().map(|event| event["data"].as_u64().expect("a number")).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, expected, "each is there once");
    // One that two have read, because the first was slow or killed, may be buried by both; none may be missing.
    let dead = redis.ask(&["XRANGE", DEAD, "-", "+"]);
    let words: Vec<&str> = dead.split(' ').collect();
    let ids: BTreeSet<&str> =
        words.windows(2).filter(|pair| pair[0] == "x-fanfare-id").map(|pair| pair[1]).collect();
    assert_eq!(ids.len(), 10, "{dead}");
}

#[test]
#[ignore = "starts redis-servers"]
fn a_redis_cluster_is_as_good_as_one_server() {
    let redis = RedisCluster::start();
    // Whichever node has the key.
    let ask = |words: &[&str]| {
        let answers = redis.nodes.iter().find_map(|node| node.try_ask(words).ok());
        answers.unwrap_or_else(|| panic!("no node takes {words:?}"))
    };
    let data = DataDir::new();
    let mut serve = command(&["serve", "--only", "api", "--api-port", "0"]);
    serve.args(["--set", &stream(), "--set", "redis_ingest.channel=app.channel"]);
    serve.args(["--set", &format!("redis_ingest.url={}", redis.address())]);
    serve.args(["--set", &format!("adapter.url={}", redis.address())]);
    let server = Fanfare::spawn(serve.env("FANFARE_DATA_DIR", data.path()));
    let is_ok = |check: &str| server.get("/health").json()["checks"][check]["status"] == "ok";
    wait("it takes events, and is with the others", || is_ok("redis_ingest") && is_ok("adapter"));
    let (mut watcher, _) = Watcher::connect(server.api(), "/socket.io/", "/");
    watcher.ask("subscribe", &json!({ "room": ROOM }));
    let event = |data: u64| json!({ "event": "n", "room": ROOM, "data": data }).to_string();
    ask(&["XADD", STREAM, "*", "json", &event(1)]);
    assert_eq!(watcher.event().1["data"], 1);
    ask(&["XADD", STREAM, "*", "json", "{nonsense"]);
    wait("the poison is put aside", || ask(&["XLEN", DEAD]) == "1");
    for (data, node) in (2..).zip(&redis.nodes) {
        assert!(node.try_ask(&["PUBLISH", "app.channel", &event(data)]).is_ok());
        assert_eq!(watcher.event().1["data"], data, "messages reach all of a Cluster");
    }
    // An emitter at any of its nodes.
    let bytes = b"\x93\xa7emitter\x82\xa4type\x02\xa4data\x92\xa1e\x07\x81\xa5rooms\x91\xadproject:redis";
    let bytes: String = bytes.iter().map(|byte| format!("\\{byte}")).collect();
    for node in &redis.nodes {
        let publish = format!("return redis.call('PUBLISH', 'socket.io#/#{ROOM}#', '{bytes}')");
        node.try_ask(&["EVAL", &publish, "0"]).expect("it is published");
        let (name, data) = watcher.event();
        assert_eq!((name.as_str(), data), ("e", json!(7)));
    }
}

#[test]
#[ignore = "starts redis-server"]
fn a_redis_that_says_nothing_makes_the_server_unready_until_it_is_back() {
    let redis = RedisServer::start();
    let data = DataDir::new();
    let server = serve(&redis, &data, &[stream(), format!("adapter.url={}", redis.address())]);
    let adapter = || server.get("/health").json()["checks"]["adapter"]["status"].clone();
    wait("it takes events, and is with the others", || status(&server) == "ok" && adapter() == "ok");
    wait("it is ready", || server.get("/readyz").status == 200);
    redis.set_frozen(true);
    wait("it is deaf", || {
        let ready = server.get("/readyz");
        ready.status == 503 && ready.json()["complaint"].as_str().is_some_and(|why| why.contains(STREAM))
    });
    wait("the others are not heard", || adapter() == "connecting");
    assert_eq!(server.post("/api/v1/events", r#"{"event":"n","room":"global"}"#).status, 201);
    redis.set_frozen(false);
    wait("it hears again", || server.get("/readyz").status == 200 && adapter() == "ok");
    redis
        .try_ask(&["XADD", STREAM, "*", "json", &json!({ "event": "n", "room": ROOM }).to_string()])
        .expect("it takes entries");
    wait("entries come", || server.last_seq(ROOM) == 1);
}

/// A server that takes what it is told to from this Redis.
fn serve(redis: &RedisServer, data: &DataDir, settings: &[String]) -> Fanfare {
    let mut serve = command(&["serve", "--only", "api", "--api-port", "0"]);
    serve.args(["--set", "rooms.events_max=100000"]);
    for setting in settings {
        serve.args(["--set", setting]);
    }
    serve.env("FANFARE_DATA_DIR", data.path());
    let url = format!("redis_ingest.url={}", redis.address());
    Fanfare::spawn(serve.args(["--set", &url]))
}

fn stream() -> String {
    format!("redis_ingest.stream={STREAM}")
}

fn status(server: &Fanfare) -> String {
    let check = server.get("/health").json()["checks"]["redis_ingest"].take();
    check["status"].as_str().unwrap_or_default().to_owned()
}

/// How many entries are read and not acknowledged.
fn pending(redis: &RedisServer) -> String {
    let groups = redis.ask(&["XINFO", "GROUPS", STREAM]);
    groups.split(' ').skip_while(|word| *word != "pending").nth(1).unwrap_or_default().to_owned()
}

/// Publishes with the stock client; see `tests/redis-python/publish.py`.
fn python(redis: &RedisServer, arguments: &[&str]) {
    let folder = python_of("redis-python");
    let mut python = Command::new(folder.join(".venv/bin/python"));
    let printed = succeed(python.current_dir(&folder).arg("publish.py").arg(redis.address()).args(arguments));
    assert_eq!(printed, "done\n");
}
