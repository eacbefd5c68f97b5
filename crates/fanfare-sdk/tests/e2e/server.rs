//! Owns a server that speaks the HTTP interface from memory, as far as publishers need it, and the troubles that it can
//! be given. Does not know Socket.IO.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use fanfare_sdk::{Publisher, Settings};
use hub::schema::inspect;
use serde_json::value::to_raw_value;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

/// What happens to one request.
#[derive(Clone, Debug)]
pub(crate) enum Trouble {
    /// Nothing is done, and this is answered.
    Refuse(u16, Value),
    /// It is done, and nobody is ever told.
    DoAndHang,
    /// It is done when somebody lets it.
    Held(Arc<Notify>),
}

/// A request that has come.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) at: Instant,
    /// Method, path and query.
    pub(crate) what: String,
    pub(crate) key: Option<String>,
    pub(crate) authorization: Option<String>,
    /// The values of the body: one, or one a line.
    pub(crate) values: Vec<Value>,
}

#[derive(Default)]
pub(crate) struct World {
    pub(crate) troubles: VecDeque<Trouble>,
    pub(crate) seen: Vec<Seen>,
    /// Events as they were published: name, rooms, data.
    pub(crate) events: Vec<(String, Vec<String>, Value)>,
    pub(crate) lines: Vec<Value>,
    pub(crate) jobs: BTreeMap<String, Value>,
    /// Commands for runs, told once asked for.
    pub(crate) commands: Vec<Value>,
    /// What was answered under idempotency keys.
    answers: BTreeMap<String, (u16, Value)>,
}

pub(crate) struct Server {
    pub(crate) url: String,
    world: Arc<Mutex<World>>,
    task: AbortHandle,
}

impl Server {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let world = Arc::new(Mutex::new(World::default()));
        let router = Router::new().fallback(serve).with_state(world.clone());
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() }).abort_handle();
        Self { url, world, task }
    }

    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    pub(crate) fn trouble(&self, trouble: Trouble) {
        self.world().troubles.push_back(trouble);
    }

    /// The next request is done when this is told.
    pub(crate) fn hold_next(&self) -> Arc<Notify> {
        let gate = Arc::new(Notify::new());
        self.trouble(Trouble::Held(gate.clone()));
        gate
    }

    /// A publisher that waits for answers as long as it takes, and repeats at once what was refused.
    pub(crate) fn publisher(&self) -> Publisher {
        Publisher::with_settings(&self.url, patient()).unwrap()
    }

    /// A publisher that waits a quarter of a second for an answer, and then asks again.
    pub(crate) fn hasty_publisher(&self) -> Publisher {
        let settings = Settings { request_timeout: Duration::from_millis(250), ..patient() };
        Publisher::with_settings(&self.url, settings).unwrap()
    }

    /// Waits until so many requests have come for a path.
    pub(crate) async fn until_counted(&self, what: &str, count: usize) {
        until(what, || self.count(what) >= count).await;
    }

    /// Names of the events that were published, in their order.
    pub(crate) fn names(&self) -> Vec<String> {
        self.world().events.iter().map(|(name, ..)| name.clone()).collect()
    }

    /// How many requests have come for a path.
    pub(crate) fn count(&self, what: &str) -> usize {
        self.world().seen.iter().filter(|seen| seen.what == what).count()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Longer than anything takes on a machine that is busy, or stands still for a while.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) fn patient() -> Settings {
    Settings {
        request_timeout: PATIENCE,
        retry_first: Duration::from_millis(10),
        retry_max: Duration::from_millis(50),
        give_up_after: PATIENCE,
        ..Settings::default()
    }
}

/// Waits until something is so.
pub(crate) async fn until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The refusal of a busy server.
pub(crate) fn busy(retry_after: f64) -> Trouble {
    let error = json!({"error": {"code": "busy", "message": "come back", "retry_after": retry_after}});
    Trouble::Refuse(503, error)
}

async fn serve(State(world): State<Arc<Mutex<World>>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let Ok(body) = to_bytes(body, 1_000_000).await else { return answer(413, error("body_too_large")) };
    let header = |name: &str| head.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    let is_lines = header("content-type").as_deref() == Some("application/x-ndjson");
    let seen = Seen {
        at: Instant::now(),
        what: format!("{} {}", head.method, head.uri),
        key: header("idempotency-key"),
        authorization: header("authorization"),
        values: read(&body, is_lines),
    };
    let trouble = {
        let mut world = world.lock().unwrap();
        world.seen.push(seen.clone());
        world.troubles.pop_front()
    };
    match trouble {
        Some(Trouble::Refuse(status, body)) => answer(status, body),
        Some(Trouble::Held(gate)) => {
            gate.notified().await;
            let (status, body) = world.lock().unwrap().repeat_or_do(&seen);
            answer(status, body)
        }
        Some(Trouble::DoAndHang) => {
            world.lock().unwrap().repeat_or_do(&seen);
            std::future::pending().await
        }
        None => {
            if let Some(wait) = waits(&seen.what)
                && world.lock().unwrap().commands.is_empty()
            {
                tokio::time::sleep(wait).await;
            }
            let (status, body) = world.lock().unwrap().repeat_or_do(&seen);
            answer(status, body)
        }
    }
}

fn read(body: &Bytes, is_lines: bool) -> Vec<Value> {
    if is_lines {
        let lines = body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| serde_json::from_slice(line).unwrap()).collect()
    } else if body.is_empty() {
        Vec::new()
    } else {
        vec![serde_json::from_slice(body).unwrap()]
    }
}

/// How long a request wants to wait.
fn waits(what: &str) -> Option<Duration> {
    let (_, wait) = what.split_once("wait=")?;
    let millis = wait.split('&').next()?.strip_suffix("ms")?;
    Some(Duration::from_millis(millis.parse().unwrap()))
}

fn answer(status: u16, body: Value) -> Response {
    let status = axum::http::StatusCode::from_u16(status).unwrap();
    (status, [("content-type", "application/json")], body.to_string()).into_response()
}

fn error(code: &str) -> Value {
    json!({"error": {"code": code, "message": "as the test wants it"}})
}

impl World {
    fn repeat_or_do(&mut self, seen: &Seen) -> (u16, Value) {
        let Some(key) = &seen.key else { return self.act(seen) };
        if let Some(answer) = self.answers.get(key) {
            return answer.clone();
        }
        let answer = self.act(seen);
        self.answers.insert(key.clone(), answer.clone());
        answer
    }

    fn act(&mut self, seen: &Seen) -> (u16, Value) {
        let path = seen.what.split('?').next().unwrap();
        let parts: Vec<_> = path.split('/').collect();
        match parts.as_slice() {
            ["POST ", "api", "v1", "events", "batch"] => self.publish(&seen.values),
            ["POST ", "api", "v1", "logs"] => {
                self.lines.extend(seen.values.iter().cloned());
                (202, json!({"accepted": seen.values.len()}))
            }
            ["POST ", "api", "v1", "jobs"] => {
                let mut job = seen.values[0].clone();
                let number = self.jobs.len() + 1;
                let id = job["job_id"].as_str().map_or(format!("job-{number}"), str::to_owned);
                job["job_id"] = json!(id);
                job["status"] = json!("queued");
                job["progress"] = json!(0.0);
                job["created_at"] = json!("2024-01-15T10:30:00.000Z");
                self.jobs.insert(id, job.clone());
                (201, job)
            }
            ["GET ", "api", "v1", "jobs"] => (200, json!({"jobs": self.jobs.values().collect::<Vec<_>>()})),
            ["GET ", "api", "v1", "jobs", id] => match self.jobs.get(*id) {
                Some(job) => (200, job.clone()),
                None => (404, error("not_found")),
            },
            ["POST ", "api", "v1", "jobs", id, verb] => self.change_job(id, verb, &seen.values[0]),
            ["POST ", "api", "v1", "runs"] => (201, json!({"thread_id": "run-1", "status": "started"})),
            ["POST ", "api", "v1", "runs", id, "status"] => {
                (200, json!({"thread_id": id, "status": seen.values[0]["status"]}))
            }
            ["POST ", "api", "v1", "runs", id, "approve"] => {
                let verb = if seen.values[0]["approved"] == json!(true) { "approve" } else { "reject" };
                let number = self.commands.len() + 1;
                self.commands.push(json!({"id": format!("c{number}"), "verb": verb}));
                (200, json!({"thread_id": id, "status": "approved"}))
            }
            ["POST ", "api", "v1", "runs", id, "control"] => {
                let number = self.commands.len() + 1;
                self.commands.push(json!({"id": format!("c{number}"), "verb": seen.values[0]["verb"]}));
                (200, json!({"thread_id": id, "status": "running"}))
            }
            ["GET ", "api", "v1", "runs", _, "control"] => {
                if seen.what.ends_with("after=c1") {
                    self.commands.clear();
                }
                (200, json!({"commands": self.commands}))
            }
            ["POST ", "api", "v1", "notifications"] => (201, json!({"id": "n1"})),
            _ => (404, error("not_found")),
        }
    }

    /// All, or none if one of them is bad; one whose key was seen is answered as before.
    fn publish(&mut self, publications: &[Value]) -> (u16, Value) {
        for (nth, publication) in publications.iter().enumerate() {
            let name = publication["event"].as_str().unwrap();
            if let Err(fault) = inspect(name, &to_raw_value(&publication["data"]).unwrap()) {
                let message = format!("event {nth}: {}", fault.message);
                return (422, json!({"error": {"code": fault.refusal.code(), "message": message}}));
            }
        }
        let mut published = Vec::new();
        for publication in publications {
            let key = publication["idempotency_key"].as_str().unwrap().to_owned();
            let answer = match self.answers.get(&key) {
                Some((_, answer)) => answer.clone(),
                None => {
                    self.events.push(event(publication));
                    let answer = json!({"id": key, "epoch": 1, "seq": self.events.len()});
                    self.answers.insert(key, (201, answer.clone()));
                    answer
                }
            };
            published.push(answer);
        }
        (201, json!({"events": published}))
    }

    fn change_job(&mut self, id: &str, verb: &str, body: &Value) -> (u16, Value) {
        let Some(job) = self.jobs.get_mut(id) else { return (404, error("not_found")) };
        if matches!(job["status"].as_str(), Some("success" | "error" | "cancelled")) {
            return (409, error("wrong_state"));
        }
        match verb {
            "status" => job["status"] = body["status"].clone(),
            "progress" => {
                job["status"] = json!("running");
                let present = job["progress"].as_f64().unwrap();
                let sum = present + body["increment"].as_f64().unwrap_or_default();
                job["progress"] = json!(body["progress"].as_f64().unwrap_or(sum).clamp(0.0, 100.0));
                if !body["message"].is_null() {
                    job["message"] = body["message"].clone();
                }
            }
            "complete" => {
                job["status"] = json!("success");
                job["result"] = body["result"].clone();
            }
            "fail" => {
                job["status"] = json!("error");
                job["error"] = body["error"].clone();
            }
            "cancel" => job["status"] = json!("cancelled"),
            "heartbeat" => {}
            _ => return (404, error("not_found")),
        }
        (200, job.clone())
    }
}

/// Name, rooms and data: the rooms that are named, or those that the data says.
fn event(publication: &Value) -> (String, Vec<String>, Value) {
    let name = publication["event"].as_str().unwrap();
    let data = publication["data"].clone();
    let mut rooms: Vec<_> = publication["room"].as_str().map(str::to_owned).into_iter().collect();
    for field in ["user", "project"] {
        rooms.extend(publication[field].as_str().map(|id| format!("{field}:{id}")));
    }
    let many = publication["rooms"].as_array().into_iter().flatten();
    rooms.extend(many.map(|room| room.as_str().unwrap().to_owned()));
    if rooms.is_empty()
        && let Ok(Some(inspected)) = inspect(name, &to_raw_value(&data).unwrap())
    {
        rooms = inspected.rooms.unwrap().iter().map(|room| room.as_str().to_owned()).collect();
    }
    (name.to_owned(), rooms, data)
}
