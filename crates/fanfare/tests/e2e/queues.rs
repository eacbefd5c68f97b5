//! RabbitMQ in front of the binary: a real broker, stock publishers, and whatever goes wrong on the way.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::broker::{Broker, wait};
use crate::fanfare::{DataDir, Fanfare, command};
use crate::installed::{javascript_of, succeed};
use crate::watcher::Watcher;

const QUEUE: &str = "fanfare.events";
const DEAD: &str = "fanfare.dead";
const ROOM: &str = "project:queue";

/// Messages of the great draining; every 500th is poison.
const MESSAGES: u64 = 10_000;

#[test]
#[ignore = "starts rabbitmq-server, installs pika with pip"]
fn ten_thousand_messages_are_kept_once_while_server_and_broker_come_and_go() {
    let mut broker = Broker::start();
    let data = DataDir::new();
    let start = |broker: &Broker| serve(broker, &data, &["--set", "rabbitmq.prefetch=200"]);
    // The queues are there before anything is published.
    let server = start(&broker);
    wait("it takes messages", || queue_status(&server) == "ok");
    drop(server);
    broker.python(&["publish", "0", &MESSAGES.to_string()]);
    let mut kept = 0;
    for round in 0..5 {
        let server = start(&broker);
        let goal = (kept + 1_000).min(MESSAGES - MESSAGES / 500);
        wait("it keeps what the queue brings", || last_seq(&server) >= goal);
        kept = last_seq(&server);
        if round == 2 {
            broker.restart();
            wait("it takes messages again", || last_seq(&server) > kept || kept >= MESSAGES - MESSAGES / 500);
            kept = last_seq(&server);
        }
        // Signal 9.
        drop(server);
    }
    let server = start(&broker);
    wait("the queue is empty", || {
        let check = server.get("/health").json()["checks"]["rabbitmq"]["queues"][0].clone();
        check["underway"] == 0 && broker.python(&["count", QUEUE]) == "0\n"
    });
    let expected: Vec<u64> = (0..MESSAGES).filter(|number| number % 500 != 499).collect();
    wait("all are kept", || last_seq(&server) >= expected.len() as u64);
    let numbers: Vec<u64> =
        log(&server).iter().map(|event| event["data"].as_u64().expect("a number")).collect();
    assert_eq!(numbers.len(), expected.len(), "each is there once");
    assert_eq!(numbers, expected, "in the order in which they were published");
    assert_eq!(server.terminate(), Some(0));
    assert_eq!(broker.python(&["count", QUEUE]), "0\n", "nothing was left unacknowledged");

    let dead = taken(&broker, DEAD);
    let mut reasons: Vec<(String, String)> = dead
        .iter()
        .map(|message| {
            let header = |name: &str| message["headers"][name].as_str().unwrap_or_default().to_owned();
            assert_eq!(header("x-fanfare-queue"), QUEUE);
            assert!(!header("x-fanfare-reason").is_empty(), "{message}");
            (message["body"].as_str().expect("a body").to_owned(), header("x-fanfare-code"))
        })
        .collect();
    reasons.sort();
    // One that was buried a moment before a kill may be buried twice; none may be missing.
    reasons.dedup();
    let of = |code: &str| reasons.iter().filter(|(_, its)| its == code).count();
    assert_eq!((of("bad_request"), of("bad_payload")), (10, 1), "{reasons:?}");
    assert!(dead.len() >= 20, "{}", dead.len());
}

#[test]
#[ignore = "starts rabbitmq-server, installs aio-pika with pip and amqplib with npm"]
fn stock_publishers_in_python_and_javascript_reach_watchers() {
    let broker = Broker::start();
    let data = DataDir::new();
    let server = serve(&broker, &data, &[]);
    wait("it takes messages", || queue_status(&server) == "ok");
    let (mut watcher, _) = Watcher::connect(server.api(), "/socket.io/", "/");
    watcher.ask("subscribe", &json!({ "room": ROOM }));
    let folder = javascript_of("amqp-js");
    let mut node = Command::new("node");
    assert_eq!(succeed(node.current_dir(&folder).args(["publish.mjs", &broker.url(), "3"])), "done\n");
    broker.python(&["aio", "2"]);
    broker.python(&["same", "3"]);
    let expected = [json!("node-0"), json!("node-1"), json!("node-2"), json!(0), json!(1)];
    for data in &expected {
        let (name, wrapped) = watcher.event();
        assert_eq!((name.as_str(), &wrapped["data"]), ("n", data), "{wrapped}");
    }
    for _ in 0..3 {
        assert_eq!(watcher.event().0, "tick", "what is the same and comes for the first time counts");
    }
    wait("all are acknowledged", || {
        let report = server.get("/stats").json()["rabbitmq"][0].clone();
        report["kept"] == 7 && report["underway"] == 0
    });
    let metrics = server.get("/metrics").body;
    let line = r#"fanfare_rabbitmq_messages_total{queue="fanfare.events",outcome="kept"} 7"#;
    assert!(metrics.lines().any(|found| found == line), "{metrics}");
    // What a client said over the other way counts once, too.
    let event = json!({ "event": "n", "room": ROOM, "data": "http", "idempotency_key": "key-7" });
    assert_eq!(server.post("/api/v1/events", &event.to_string()).status, 201);
    broker.python(&["publish", "7", "8"]);
    wait("it is known", || server.get("/stats").json()["rabbitmq"][0]["repeated"] == 1);
    assert_eq!(log(&server).len(), 9);
}

#[test]
#[ignore = "starts rabbitmq-server, installs pika with pip"]
fn raw_bodies_go_where_the_message_says_and_no_further_than_is_allowed() {
    let broker = Broker::start();
    let data = DataDir::new();
    let settings = [
        "rabbitmq.mode=raw",
        "rabbitmq.exchange=ci",
        "rabbitmq.event={type}",
        "rabbitmq.room=project:{header.project}",
        "rabbitmq.rooms=project:acme",
    ];
    let settings: Vec<&str> = settings.into_iter().flat_map(|setting| ["--set", setting]).collect();
    let server = serve(&broker, &data, &settings);
    wait("it takes messages", || queue_status(&server) == "ok");
    let (mut watcher, _) = Watcher::connect(server.api(), "/socket.io/", "/");
    watcher.ask("subscribe", &json!({ "room": "project:acme" }));
    broker.python(&["raw", QUEUE]);
    let (name, wrapped) = watcher.event();
    assert_eq!((name.as_str(), &wrapped["data"]), ("built", &json!([1, { "any": "json" }])));
    wait("the others are dead", || server.get("/stats").json()["rabbitmq"][0]["dead"] == 2);
    let codes: Vec<(Value, Value)> = taken(&broker, DEAD)
        .into_iter()
        .map(|message| (message["message_id"].clone(), message["headers"]["x-fanfare-code"].clone()))
        .collect();
    assert_eq!(codes, [(json!("raw-2"), json!("bad_target")), (json!("raw-3"), json!("forbidden"))]);
    let other = server.get("/api/v1/rooms/project:other/events").json();
    assert_eq!(other["events"], json!([]), "projects are apart: {other}");
}

#[test]
#[ignore = "starts rabbitmq-server, installs pika with pip"]
fn a_broker_is_reached_over_tls_if_its_certificate_is_trusted() {
    let broker = Broker::start();
    let data = DataDir::new();
    let url = format!("rabbitmq.url={}", broker.tls_url());
    let certificate = format!("rabbitmq.ca_file={}", broker.certificate().display());
    let server = serve(&broker, &data, &["--set", &url]);
    wait("the certificate is refused", || {
        let check = server.get("/health").json()["checks"]["rabbitmq"].take();
        check["complaint"].as_str().is_some_and(|why| why.contains("UnknownIssuer"))
    });
    drop(server);
    let server = serve(&broker, &data, &["--set", &url, "--set", &certificate]);
    wait("it takes messages", || queue_status(&server) == "ok");
    broker.python(&["publish", "0", "5"]);
    wait("messages come", || last_seq(&server) == 5);
}

#[test]
#[ignore = "starts rabbitmq-server, installs pika with pip"]
fn what_cannot_be_kept_now_waits_in_its_order() {
    let broker = Broker::start();
    let data = DataDir::new();
    let server = serve(&broker, &data, &["--set", "store.bytes_max=400000"]);
    wait("it takes messages", || queue_status(&server) == "ok");
    broker.python(&["publish", "0", "3000"]);
    wait("the store is full", || {
        let health = server.get("/health").json();
        let queue = &health["checks"]["rabbitmq"];
        let is_told = queue["complaint"].as_str().is_some_and(|why| why.starts_with("store_unavailable"));
        health["status"] == "degraded" && queue["status"] == "waiting" && is_told
    });
    let kept = last_seq(&server);
    assert!(kept < 2_000, "the store was to be full by then: {kept}");
    let is_poison = |message: &Value| {
        let code = message["headers"]["x-fanfare-code"].as_str();
        code.is_some_and(|code| ["bad_request", "bad_payload"].contains(&code))
    };
    assert!(taken(&broker, DEAD).iter().all(is_poison), "nobody is at fault for a full disk");
    drop(server);
    let server = serve(&broker, &data, &[]);
    wait("all are kept", || last_seq(&server) >= 2_994);
    let numbers: Vec<u64> =
        log(&server).iter().map(|event| event["data"].as_u64().expect("a number")).collect();
    let expected: Vec<u64> = (0..3_000).filter(|number| number % 500 != 499).collect();
    assert_eq!(numbers, expected);
}

#[test]
#[ignore = "starts rabbitmq-server, installs pika with pip"]
fn a_broker_that_says_nothing_makes_the_server_unready_until_it_is_back() {
    let broker = Broker::start();
    let data = DataDir::new();
    let server = serve(&broker, &data, &[]);
    wait("canaries come", || server.get("/stats").json()["rabbitmq"][0]["canaries_heard"].as_u64() > Some(0));
    wait("it is ready", || server.get("/readyz").status == 200);
    broker.freeze(true);
    wait("it is deaf", || {
        let ready = server.get("/readyz");
        let ready = (ready.status, ready.json());
        ready.0 == 503
            && ready.1["status"] == "deaf"
            && ready.1["complaint"].as_str().is_some_and(|why| why.contains(QUEUE))
    });
    wait("it connects anew", || {
        let complaint = server.get("/readyz").json()["complaint"].take();
        // Whichever is noticed first: that no canary comes, or that the connection shows no sign of life.
        complaint.as_str().is_some_and(|why| !why.ends_with("but no message came through"))
    });
    assert_eq!(server.get("/livez").status, 200, "the process itself is well");
    assert_eq!(server.post("/api/v1/events", r#"{"event":"n","room":"global"}"#).status, 201);
    broker.freeze(false);
    wait("it hears again", || server.get("/readyz").status == 200);
    broker.python(&["publish", "0", "5"]);
    wait("messages come", || last_seq(&server) == 5);
    let connections = server.get("/stats").json()["rabbitmq"][0]["connections"].as_u64();
    assert!(connections > Some(1), "it has connected again: {connections:?}");
    wait("all is well", || queue_status(&server) == "ok");
}

#[test]
#[ignore = "starts rabbitmq-server, installs pika with pip"]
fn a_tool_that_waits_at_a_queue_is_asked_and_heard() {
    let broker = Broker::start();
    let data = DataDir::new();
    let file = data.path().with_extension("toml");
    let text = "[rabbitmq]\nqueue = \"\"\n[tools.sky]\nkind = \"amqp\"\nrequest_queue = \"sky.requests\"\n\
                retry_delay = \"10ms\"\n[tools.nobody]\nkind = \"amqp\"\nrequest_queue = \"nobody.there\"\nretries = 0\n";
    std::fs::write(&file, text).expect("a file");
    let server = serve(&broker, &data, &["--config", file.to_str().expect("text")]);
    let replier = Replier::start(&broker, "sky.requests", 3);
    let (mut watcher, _) = Watcher::connect(server.api(), "/socket.io/", "/");
    let mut ask = |tool: &str, message: &str| {
        let request = json!({ "toolId": tool, "message": message, "requestId": format!("{tool}-{message}") });
        watcher.ask("ai_request", &request);
        let mut told: Vec<String> = Vec::new();
        loop {
            let (name, data) = watcher.event();
            let text = |key: &str| data[key].as_str().unwrap_or_default().to_owned();
            match name.as_str() {
                "ai_response" if data["done"] == true => told.push(format!("message {}", text("message"))),
                "ai_response" => told.push(format!("delta {}", text("delta"))),
                "status_update" => told.push(format!("{} {}", text("status"), text("code"))),
                _ => continue,
            }
            if ["completed", "failed"].contains(&text("status").as_str()) {
                return told;
            }
        }
    };
    let whole = ask("sky", "whole");
    assert_eq!(whole[2..], ["message the sky is blue", "completed "], "{whole:?}");
    let stream = ask("sky", "stream");
    let deltas: String = stream.iter().filter_map(|told| told.strip_prefix("delta ")).collect();
    assert_eq!(deltas, "the sky is blue", "{stream:?}");
    assert!(stream.contains(&"message the sky is blue".to_owned()), "{stream:?}");
    assert_eq!(ask("sky", "fail").last().map(String::as_str), Some("failed tool_failed"));
    replier.end();
    let nobody = ask("nobody", "whole");
    assert_eq!(nobody.last().map(String::as_str), Some("failed tool_failed"), "{nobody:?}");
    // What was not for anybody was not heard by anybody.
    assert!(!format!("{whole:?}{stream:?}").contains("stray"));
    let _ = std::fs::remove_file(file);
}

/// A server that takes messages from this broker.
fn serve(broker: &Broker, data: &DataDir, arguments: &[&str]) -> Fanfare {
    let mut serve = command(&["serve", "--only", "api", "--api-port", "0"]);
    serve.args(["--set", "rooms.events_max=100000", "--set", "rabbitmq.canary_interval=500ms"]);
    serve.args(arguments).env("FANFARE_DATA_DIR", data.path()).env("RABBITMQ_URL", broker.url());
    Fanfare::spawn(&mut serve)
}

fn queue_status(server: &Fanfare) -> String {
    server.get("/health").json()["checks"]["rabbitmq"]["status"].as_str().unwrap_or_default().to_owned()
}

fn last_seq(server: &Fanfare) -> u64 {
    server.last_seq(ROOM)
}

fn log(server: &Fanfare) -> Vec<Value> {
    server.log(ROOM)
}

/// All messages of a queue, taken out of it.
fn taken(broker: &Broker, queue: &str) -> Vec<Value> {
    let lines = broker.python(&["take", queue]);
    lines.lines().map(|line| serde_json::from_str(line).expect("a message")).collect()
}

/// A tool in Python.
struct Replier(Child);

impl Replier {
    fn start(broker: &Broker, queue: &str, count: u64) -> Self {
        let mut python = broker.python_command(&["reply", queue, &count.to_string()]);
        let mut child = python.stdout(Stdio::piped()).spawn().expect("python starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("stdout is piped");
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        assert_eq!(line, "ready\n");
        Self(child)
    }

    /// It has answered as many requests as it was to.
    fn end(mut self) {
        assert!(self.0.wait().expect("it ends").success());
    }
}

impl Drop for Replier {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
