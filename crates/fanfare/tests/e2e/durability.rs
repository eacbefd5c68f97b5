//! Nothing that was answered is lost, and every watcher sees each event once: with the server killed again and again,
//! with watchers that come at any moment, with publishers that repeat themselves.
//!
//! Short by itself. `FANFARE_ROUNDS=20` kills twenty times instead of three; `FANFARE_WATCHERS=500` has as many watchers
//! join a busy room instead of 40. See CONTRIBUTING.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};
use testkit::port::Port;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use ureq::Agent;

use crate::fanfare::{DataDir, Fanfare, PATIENCE, agent, command, until};
use crate::installed::javascript;
use crate::ledger::{self, Way};

const BATCH: &str = "/api/v1/events/batch";
const ROOM: &str = "project:kept";

/// Time between two events of one of the four publishers: 22,000 a second together, where the machine can.
const PUBLISH_INTERVAL: Duration = Duration::from_micros(180);

#[test]
fn what_was_answered_survives_being_killed_and_watchers_see_it_once() {
    let kept = Kept::new();
    let mut server = kept.start();
    let runtime = Runtime::new().unwrap();
    let (end, is_end) = watch::channel(None);
    let (joined, mut joins) = mpsc::channel(16);
    let mut watchers = JoinSet::new();
    for way in [Way::Since, Way::Since, Way::Recovery, Way::Recovery] {
        let watching = ledger::watch(server.api().into(), ROOM.into(), way, joined.clone(), is_end.clone());
        watchers.spawn_on(watching, runtime.handle());
    }
    for _ in 0..4 {
        runtime.block_on(joins.recv()).expect("a watcher has joined");
    }
    let mut log = Log::default();
    for round in 0..rounds() {
        server = kept.kill_while_publishing(server, &mut log, round, 200);
    }
    let last = log.publish_one(&server);
    end.send(Some(last)).unwrap();
    while let Some(seen) = runtime.block_on(watchers.join_next()) {
        assert_eq!(seen.expect("no panic").unwrap_or_else(|fault| panic!("{fault}")), last);
    }
    assert!(log.answered > 0);
}

#[test]
#[ignore = "installs socket.io-client with npm"]
fn the_stock_javascript_client_misses_nothing_of_a_server_that_is_killed() {
    let folder = javascript();
    let kept = Kept::new();
    let mut server = kept.start();
    let mut node = Command::new("node");
    node.current_dir(&folder).args(["durability.mjs", server.api(), ROOM]).stdout(Stdio::piped());
    let mut node = node.stderr(Stdio::piped()).spawn().expect("node starts");
    let mut lines = BufReader::new(node.stdout.take().expect("piped")).lines();
    assert_eq!(lines.next().and_then(Result::ok).as_deref(), Some("ready"));
    let mut log = Log::default();
    for round in 0..rounds() {
        server = kept.kill_while_publishing(server, &mut log, round, 20);
    }
    let last = log.publish_one(&server);
    let told: Vec<String> = lines.map_while(Result::ok).collect();
    let mut complaint = String::new();
    node.stderr.take().expect("piped").read_to_string(&mut complaint).expect("text");
    assert!(node.wait().expect("it ends").success(), "{told:?}\n{complaint}");
    assert_eq!(told, [format!("done {last}")]);
}

#[test]
fn watchers_that_join_a_busy_room_see_an_unbroken_sequence() {
    let watchers_max = number("FANFARE_WATCHERS", 40);
    let kept = Kept::new();
    let server = kept.start();
    let (url, runtime) = (server.api().to_owned(), Runtime::new().unwrap());
    let is_over = Arc::new(AtomicU64::new(0));
    let publisher = std::thread::spawn({
        let (url, is_over) = (url.clone(), is_over.clone());
        move || {
            let (http, mut published, begin) = (agent(), 0_u64, Instant::now());
            while is_over.load(Ordering::Relaxed) == 0 {
                let answered = post_batch(&http, &url, &lines(20, |nth| format!("{published}-{nth}")));
                published += answered.expect("the server stays").len() as u64;
                // 2,000 a second where the machine can; there is no hurry.
                let due = Duration::from_micros(published * 500);
                std::thread::sleep(due.saturating_sub(begin.elapsed()));
            }
        }
    });
    let (end, is_end) = watch::channel(None);
    let (joined, mut joins) = mpsc::channel(watchers_max as usize);
    let mut watchers = JoinSet::new();
    for nth in 0..watchers_max {
        let way = [Way::Since, Way::Last(50), Way::Plain, Way::Last(1_000)][nth as usize % 4];
        let watching = ledger::watch(url.clone(), ROOM.into(), way, joined.clone(), is_end.clone());
        // At any moment of two seconds: a prime scatters them.
        let moment = Duration::from_micros(nth * 7_919_000 % 2_000_000);
        let watching = async move {
            tokio::time::sleep(moment).await;
            watching.await
        };
        watchers.spawn_on(watching, runtime.handle());
    }
    for _ in 0..watchers_max {
        let next = async {
            tokio::select! {
                Some(()) = joins.recv() => {}
                Some(ended) = watchers.join_next() => panic!("{ended:?}"),
            }
        };
        runtime.block_on(next);
    }
    is_over.store(1, Ordering::Relaxed);
    publisher.join().expect("no panic");
    let last = Log::default().publish_one(&server);
    end.send(Some(last)).unwrap();
    while let Some(seen) = runtime.block_on(watchers.join_next()) {
        assert_eq!(seen.expect("no panic").unwrap_or_else(|fault| panic!("{fault}")), last);
    }
}

#[test]
fn increments_from_many_publishers_add_up_however_often_some_are_repeated() {
    const PUBLISHERS: u64 = 50;
    const EACH: u64 = 200;
    let server = Fanfare::start(&[]);
    let new = json!({ "job_id": "sum", "project_id": "p", "min_update_interval": 0.05 });
    assert_eq!(server.post("/api/v1/jobs", &new.to_string()).status, 201);
    let running = server.post("/api/v1/jobs/sum/status", &json!({ "status": "running" }).to_string());
    assert_eq!(running.status, 200, "{}", running.body);
    let url = format!("{}/api/v1/jobs/sum/progress", server.api());
    let publishers: Vec<_> = (0..PUBLISHERS)
        .map(|publisher| {
            let url = url.clone();
            std::thread::spawn(move || {
                let http = agent();
                for nth in 0..EACH {
                    let key = format!("{publisher}-{nth}");
                    // Every twentieth is sent twice: the first answer might have been lost.
                    for _ in 0..1 + u64::from(nth % 20 == publisher % 20) {
                        let answer = http
                            .post(&url)
                            .header("idempotency-key", &key)
                            .send(r#"{"increment":0.005}"#)
                            .expect("an answer");
                        assert_eq!(answer.status(), 200);
                    }
                }
            })
        })
        .collect();
    for publisher in publishers {
        publisher.join().expect("no panic");
    }
    let told = |body: &str| serde_json::from_str::<Value>(body).expect("json");
    let completed = server.post("/api/v1/jobs/sum/cancel", "{}");
    assert_eq!(completed.status, 200, "{}", completed.body);
    let job = told(&server.get("/api/v1/jobs/sum").body);
    // 10,000 times 0.005: what has no place in a binary fraction adds up all the same.
    assert_eq!(job["progress"], 50, "{job}");
    for (verb, body) in [("complete", "{}"), ("fail", r#"{"error":"late"}"#), ("cancel", "{}")] {
        let again = server.post(&format!("/api/v1/jobs/sum/{verb}"), body);
        assert_eq!(again.refusal(), (409, "wrong_state".to_owned()));
    }
    let mut log = Log::default();
    let events = log.read_on(&server, "job:sum");
    let texts: Vec<(String, String)> = events
        .iter()
        .map(|event| (event["event"].as_str().expect("a name").to_owned(), event["data"].to_string()))
        .collect();
    let texts = texts.iter().map(|(name, data)| (name.as_str(), data.as_str()));
    let folded = hub::job::fold(texts).expect("events of a job").expect("a job");
    let folded = serde_json::to_value(folded).unwrap();
    for field in ["status", "progress", "message", "result", "error"] {
        assert_eq!(folded.get(field), job.get(field), "{field} of {folded} and {job}");
    }
}

/// A data folder and a port that servers come back to.
struct Kept {
    data: DataDir,
    port: Port,
}

impl Kept {
    fn new() -> Self {
        Self { data: DataDir::new(), port: Port::hold() }
    }

    /// Starts a server on the data of the one before, at its address.
    fn start(&self) -> Fanfare {
        let mut serve = command(&["serve", "--only", "api"]);
        // All of the log is compared, so all of it is kept.
        serve.args(["--set", "rooms.events_max=100000000", "--set", "rooms.bytes_max=100000000000"]);
        // Watchers on a busy machine may be slow, and are not to be let go of for that.
        serve.args(["--set", "socketio.outbox_bytes_max=67108864"]);
        serve.args(["--api-port", &self.port.number().to_string()]);
        Fanfare::spawn(serve.env("FANFARE_DATA_DIR", self.data.path()))
    }

    /// Kills a server in the middle of batches from four publishers, starts it again, and compares its log with what
    /// it had answered.
    fn kill_while_publishing(&self, server: Fanfare, log: &mut Log, round: u64, batch: u64) -> Fanfare {
        let (told, url) = (Arc::new(Mutex::new(BTreeMap::new())), server.api().to_owned());
        let began = Instant::now();
        let publishers: Vec<_> = (0..4)
            .map(|publisher| {
                let (told, url) = (told.clone(), url.clone());
                std::thread::spawn(move || {
                    publish_until_gone(&url, &format!("{round}-{publisher}"), batch, &told)
                })
            })
            .collect();
        // Something has been answered, and then 20 to 400 ms more, by the clock's last digits.
        until(PATIENCE, "something is answered", || !told.lock().expect("no panic").is_empty());
        let chance = u64::from(SystemTime::UNIX_EPOCH.elapsed().expect("a clock").subsec_micros());
        std::thread::sleep(Duration::from_millis(20 + chance % 380));
        log.published_for += began.elapsed();
        // Going out of scope, it is killed: signal 9.
        drop(server);
        for publisher in publishers {
            publisher.join().expect("no panic");
        }
        let server = self.start();
        let mut told = told.lock().expect("no panic");
        assert!(!told.is_empty(), "round {round}: nothing was answered");
        log.answered += told.len() as u64;
        for event in log.read_on(&server, ROOM) {
            if let Some((id, data)) = told.remove(&event["seq"].as_u64().expect("a seq")) {
                assert_eq!((event["id"].as_str(), event["data"].as_str()), (Some(&*id), Some(&*data)));
            }
        }
        assert!(
            told.is_empty(),
            "round {round}: {} answered and lost, first {:?}",
            told.len(),
            told.first_key_value()
        );
        server
    }
}

/// A room's log, read on and on.
#[derive(Default)]
struct Log {
    epoch: Option<u64>,
    last: u64,
    /// Events that publishers got an answer for.
    answered: u64,
    /// Time for which publishers published.
    published_for: Duration,
}

impl Drop for Log {
    #[expect(clippy::print_stdout, reason = "a figure that belongs to what was shown")]
    fn drop(&mut self) {
        let seconds = self.published_for.as_secs_f64();
        if seconds > 0.0 {
            // Shown with `--nocapture`, and when something has failed.
            println!(
                "answered {} events in {seconds:.1} s: {:.0}/s",
                self.answered,
                self.answered as f64 / seconds
            );
        }
    }
}

impl Log {
    /// Reads what has come since. Asserts that it has no gap and no repeat, and that the epoch stays.
    fn read_on(&mut self, server: &Fanfare, room: &str) -> Vec<Value> {
        let mut all = Vec::new();
        loop {
            let reply = server.get(&format!("/api/v1/rooms/{room}/events?after={}&limit=1000", self.last));
            assert_eq!(reply.status, 200, "{}", reply.body);
            let page = reply.json();
            let events = page["events"].as_array().expect("events").clone();
            if events.is_empty() {
                assert_eq!(page["last_seq"], self.last, "the log ends where its last event is");
                return all;
            }
            let epoch = page["epoch"].as_u64().expect("an epoch");
            assert_eq!(*self.epoch.get_or_insert(epoch), epoch, "the log is the same");
            for event in &events {
                assert_eq!(event["seq"].as_u64(), Some(self.last + 1), "no gap, no repeat");
                self.last += 1;
            }
            all.extend(events);
        }
    }

    /// Publishes the last event of a test, and answers its seq.
    fn publish_one(&self, server: &Fanfare) -> u64 {
        let event = json!({ "event": "n", "data": "end", "room": ROOM });
        let reply = server.post("/api/v1/events", &event.to_string());
        assert_eq!(reply.status, 201, "{}", reply.body);
        reply.json()["seq"].as_u64().expect("a seq")
    }
}

/// Publishes batches until the server is gone; notes what it answered: id and data by seq.
fn publish_until_gone(url: &str, name: &str, batch: u64, told: &Mutex<BTreeMap<u64, (String, String)>>) {
    let (http, begin) = (agent(), Instant::now());
    for turn in 0_u64.. {
        let due = PUBLISH_INTERVAL * u32::try_from(turn * batch).expect("a short test");
        std::thread::sleep(due.saturating_sub(begin.elapsed()));
        let data = |nth| format!("{name}-{turn}-{nth}");
        let Some(answered) = post_batch(&http, url, &lines(batch, data)) else { return };
        let mut told = told.lock().expect("no panic");
        for (nth, event) in answered.iter().enumerate() {
            let (Some(seq), Some(id)) = (event["seq"].as_u64(), event["id"].as_str()) else {
                panic!("{event}")
            };
            let before = told.insert(seq, (id.to_owned(), data(nth as u64)));
            assert_eq!(before, None, "seq {seq} was answered twice");
        }
    }
}

/// A batch as lines.
fn lines(count: u64, data: impl Fn(u64) -> String) -> String {
    let line = |nth| json!({ "event": "n", "data": data(nth), "room": ROOM }).to_string() + "\n";
    (0..count).map(line).collect()
}

/// What a batch was answered; `None` if the server did not, or had no room for it.
fn post_batch(http: &Agent, url: &str, body: &str) -> Option<Vec<Value>> {
    let mut answer = http.post(format!("{url}{BATCH}")).send(body).ok()?;
    let status = answer.status();
    let text = answer.body_mut().read_to_string().ok()?;
    assert_eq!(status, 201, "{text}");
    let mut answer: Value = serde_json::from_str(&text).ok()?;
    match answer["events"].take() {
        Value::Array(events) => Some(events),
        other => panic!("{other}"),
    }
}

fn rounds() -> u64 {
    number("FANFARE_ROUNDS", 3)
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().expect("a number"))
}
