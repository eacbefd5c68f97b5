//! Limits as whoever exceeds them meets them: refused with a code and a time, while everybody else goes on.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::auth::{Guarded, KEY, token, with};
use crate::fanfare::{Fanfare, PATIENCE, Reply, agent, until};
use crate::watcher::Watcher;

/// Attempts within which a bucket of a few must be empty. They come faster than it fills, also if the machine stands still
/// for a while.
const ATTEMPTS_MAX: usize = 500;

/// Repeats until it is refused; answers how often it was not, and the refusal.
fn until_refused<T>(mut attempt: impl FnMut() -> Option<T>) -> (usize, T) {
    for nth in 0..ATTEMPTS_MAX {
        if let Some(refusal) = attempt() {
            return (nth, refusal);
        }
    }
    panic!("never refused");
}

/// What was beyond a limit, by the figures and by the metrics, which must agree.
fn counted(guarded: &Guarded, limit: &str) -> u64 {
    let stats = guarded.request("GET", "/stats", Some(KEY), "").json();
    let metrics = guarded.request("GET", "/metrics", Some(KEY), "").body;
    let line = format!("fanfare_limited_total{{limit=\"{limit}\"}} {}", stats["limited"][limit]);
    assert!(metrics.contains(&line), "{line} is not in {metrics}");
    stats["limited"][limit].as_u64().expect("a number")
}

/// The error of a command's answer, if it has one.
fn error(answer: &Value) -> Option<Value> {
    answer.get("error").cloned()
}

#[test]
fn a_socket_that_sends_too_many_commands_is_told_when_to_go_on() {
    let guarded = Guarded::start("limit-socket", &["limits.commands_per_socket=1", "limits.burst=4s"]);
    let ann = with(&token("ann", &json!({})));
    let (mut busy, _) = guarded.connect("/", &ann).unwrap();
    let (mut calm, _) = guarded.connect("/", &ann).unwrap();
    let (passed, refusal) = until_refused(|| error(&busy.ask("ping", &json!(1)).0));
    assert!(passed >= 4, "{passed}");
    assert_eq!((&refusal["code"], &refusal["retry_after"]), (&json!("rate_limited"), &json!(1)));
    assert!(refusal["message"].as_str().unwrap().contains("limits.commands_per_socket"), "{refusal}");
    // Also what is no command, and what asks for no ack.
    let (_, told) = until_refused(|| {
        busy.emit("no_such_command", &json!({}));
        let (name, told) = busy.event();
        assert_eq!(name, "error");
        (told["code"] == "rate_limited").then_some(told)
    });
    assert_eq!((&told["command"], &told["retry_after"]), (&json!("no_such_command"), &json!(1)));
    assert_eq!(calm.ask("ping", &json!(1)).0["ok"], true, "another socket of the same user");
    std::thread::sleep(Duration::from_millis(2100));
    assert_eq!(busy.ask("ping", &json!(1)).0["ok"], true, "it comes back");
    assert!(counted(&guarded, "commands_per_socket") >= 2);
    let stats = guarded.request("GET", "/stats", Some(KEY), "").json();
    assert!(stats["errors"]["rate_limited"].as_u64() >= Some(2), "{stats}");
}

#[test]
fn sockets_of_one_user_share_an_allowance_and_others_do_not() {
    let guarded = Guarded::start("limit-user", &["limits.commands_per_user=1", "limits.burst=60s"]);
    let (ann, bob) = (with(&token("ann", &json!({}))), with(&token("bob", &json!({}))));
    let mut anns: Vec<Watcher> =
        ["/", "/ws", "/logs"].map(|namespace| guarded.connect(namespace, &ann).unwrap().0).into();
    let (mut other, _) = guarded.connect("/", &bob).unwrap();
    let mut turn = 0;
    let (passed, refusal) = until_refused(|| {
        turn += 1;
        error(&anns[turn % 3].ask("ping", &json!(1)).0)
    });
    let emptied = Instant::now();
    assert!(passed >= 60, "{passed}");
    assert_eq!(refusal["code"], "rate_limited");
    assert!(refusal["message"].as_str().unwrap().contains("limits.commands_per_user"), "{refusal}");
    assert_eq!(other.ask("ping", &json!(1)).0["ok"], true);
    // A new socket brings no new allowance.
    drop(anns);
    let (mut again, _) = guarded.connect("/", &ann).unwrap();
    let (passed, _) = until_refused(|| error(&again.ask("ping", &json!(1)).0));
    // What has come back since is no new allowance; only a machine that stands still for a minute shows nothing.
    assert!((passed as f64) <= emptied.elapsed().as_secs_f64() + 1.0, "{passed}");
    assert!(counted(&guarded, "commands_per_user") >= 2);
}

#[test]
fn a_user_has_only_so_many_sockets() {
    let guarded = Guarded::start("limit-sockets", &["limits.sockets_per_user=2"]);
    let (ann, bob) = (with(&token("ann", &json!({}))), with(&token("bob", &json!({}))));
    let (first, _) = guarded.connect("/", &ann).unwrap();
    let (_second, _) = guarded.connect("/ws", &ann).unwrap();
    let url = format!("{}/socket.io/", guarded.server.api());
    for namespace in ["/", "/ws", "/logs"] {
        let refusal = Watcher::open(&url, namespace, "", &[], &ann).err().expect("a refusal");
        assert_eq!(refusal["data"], json!({ "code": "too_many_sockets", "retry_after": 1 }), "{namespace}");
    }
    assert!(guarded.connect("/", &bob).is_ok());
    assert_eq!(counted(&guarded, "sockets_per_user"), 3);
    first.close();
    until(PATIENCE, "the place of a socket that went is free", || guarded.connect("/", &ann).is_ok());
}

#[test]
fn whoever_knocks_too_often_waits_outside() {
    let server = Fanfare::start(&[
        "--only",
        "api",
        "--set",
        "limits.handshakes_per_address=1",
        "--set",
        "limits.burst=3s",
    ]);
    let url = format!("{}/socket.io/?EIO=4&transport=polling", server.api());
    let open = || Reply::of(agent().get(&url).call().expect("an answer"));
    let (passed, refusal) = until_refused(|| Some(open()).filter(|reply| reply.status != 200));
    assert!(passed >= 3, "{passed}");
    // EIO4 "Handshake": refused by the server's own judgement.
    assert_eq!((refusal.status, &refusal.json()["code"]), (403, &json!(4)));
    let message = refusal.json()["message"].as_str().expect("a text").to_owned();
    assert!(message.starts_with("rate_limited: ") && message.ends_with("try again in 1 s"), "{message}");
    assert_eq!(server.get("/livez").status, 200, "requests are something else");

    // A session that is in cannot go on to knock from there. Where all namespaces were open once more because the
    // machine was slow, another session begins.
    let mut session = String::new();
    let mut namespaces = [].iter();
    let (_, told) = until_refused(|| {
        let namespace = namespaces.next().copied().unwrap_or_else(|| {
            let (_, open) = until_refused(|| {
                std::thread::sleep(Duration::from_millis(300));
                Some(open()).filter(|reply| reply.status == 200)
            });
            let open: Value = serde_json::from_str(&open.body[1..]).expect("json");
            session = format!("{url}&sid={}", open["sid"].as_str().expect("a sid"));
            namespaces = ["/ws,", "/logs,", "/admin,"].iter();
            ""
        });
        agent().post(&session).send(format!("40{namespace}")).expect("an answer");
        let told = Reply::of(agent().get(&session).call().expect("an answer"));
        assert_eq!(told.status, 200);
        Some(told.body).filter(|told| told.contains(&format!("44{namespace}{{")))
    });
    assert!(told.contains(r#""data":{"code":"rate_limited","retry_after":1}"#), "{told}");
    let stats = server.get("/stats").json();
    assert!(stats["limited"]["handshakes_per_address"].as_u64() >= Some(2), "{stats}");
    assert_eq!(stats["limited"]["handshakes_per_address"], stats["errors"]["rate_limited"]);
}

#[test]
fn a_key_that_asks_too_much_gets_429_and_a_time() {
    let guarded = Guarded::start("limit-requests", &["limits.requests_per_key=1", "limits.burst=8s"]);
    let ask = |key: &str| guarded.request("GET", "/api/v1/rooms", Some(key), "");
    let admin = token("root", &json!({ "roles": ["admin"] }));
    let (passed, refused) = until_refused(|| Some(ask(&admin)).filter(|reply| reply.status != 200));
    assert!(passed >= 8, "{passed}");
    assert_eq!(refused.refusal(), (429, "rate_limited".to_owned()));
    assert_eq!((refused.header("retry-after"), &refused.json()["error"]["retry_after"]), ("1", &json!(1)));
    assert_eq!(ask(KEY).status, 200, "another key");
    assert_eq!(guarded.request("GET", "/health", Some(&admin), "").status, 200, "anybody may ask");
    assert!(counted(&guarded, "requests_per_key") >= 1);
}

#[test]
fn events_of_a_key_are_counted_one_by_one() {
    let guarded = Guarded::start("limit-events", &["limits.events_per_key=2", "limits.burst=10s"]);
    let batch = |count: usize| vec![r#"{"event":"e","room":"global"}"#; count].join("\n");
    let publish = |path: &str, body: &str| guarded.request("POST", path, Some(KEY), body);
    let refused = publish("/api/v1/events/batch", &batch(21));
    assert_eq!(refused.refusal(), (422, "too_many".to_owned()));
    assert_eq!(publish("/api/v1/events/batch", &batch(20)).status, 201);
    let refused = publish("/api/v1/events/batch", &batch(20));
    assert_eq!(refused.refusal(), (429, "rate_limited".to_owned()));
    let wait: u64 = refused.header("retry-after").parse().expect("seconds");
    assert!((1..=10).contains(&wait), "20 events at 2 a second, some of which came back: {wait}");
    let (_, refused) =
        until_refused(|| Some(publish("/api/v1/events", &batch(1))).filter(|reply| reply.status != 201));
    assert_eq!((refused.status, refused.header("retry-after")), (429, "1"));
    let lines = vec![r#"{"text":"line"}"#; 20].join("\n");
    assert_eq!(publish("/api/v1/logs", &lines).status, 429);
    assert_eq!(counted(&guarded, "events_per_key"), 4);
}
