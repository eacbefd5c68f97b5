//! Owns a running server: starts the binary on free ports, and kills it when it goes out of scope.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use ureq::Agent;
use ureq::http::Response;

/// How long is waited for what must come about: the machine may be busy, or stand still for a while.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);

/// A command of the binary, with nothing in the environment that it reads.
pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fanfare"));
    command.args(arguments).current_dir(env!("CARGO_TARGET_TMPDIR")).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if ["FANFARE_", "SOCKET", "REST_API_", "JWT_SECRET", "RABBITMQ_", "REDIS_"]
            .iter()
            .any(|prefix| text.starts_with(prefix))
        {
            command.env_remove(&name);
        }
    }
    command
}

/// A folder of its own for each server that names none: several cannot use one.
pub(crate) struct DataDir(std::path::PathBuf);

impl DataDir {
    pub(crate) fn new() -> Self {
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = format!("fanfare-test-{}-{number}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }

    pub(crate) fn path(&self) -> &std::path::Path {
        &self.0
    }
}

impl Drop for DataDir {
    fn drop(&mut self) {
        // What was never made cannot be removed.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A server.
pub(crate) struct Fanfare {
    child: Child,
    addresses: Value,
    _data: DataDir,
}

impl Fanfare {
    /// Starts one with both listeners on free ports.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::spawn(command(&["serve"]).args(["--api-port", "0", "--realtime-port", "0"]).args(arguments))
    }

    /// Starts one as the command says.
    pub(crate) fn spawn(command: &mut Command) -> Self {
        Self::spawn_logging(command, Stdio::null())
    }

    /// As [`Fanfare::spawn`], with its log going there.
    pub(crate) fn spawn_logging(command: &mut Command, log: Stdio) -> Self {
        let data = DataDir::new();
        if !command.get_envs().any(|(name, value)| name == "FANFARE_DATA_DIR" && value.is_some()) {
            command.env("FANFARE_DATA_DIR", data.path());
        }
        // At once, except for tests that look at how it goes.
        if !command.get_args().any(|argument| argument == "--drain") {
            command.args(["--drain", "0s"]);
        }
        // Whoever looks elsewhere for minutes on a slow machine does not lose their sockets.
        if !command.get_envs().any(|(name, _)| name.to_string_lossy().ends_with("PING_TIMEOUT")) {
            command.env("FANFARE_SOCKETIO__PING_TIMEOUT", "10m");
        }
        let mut child = command
            .arg("--print-addresses")
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("the binary starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("stdout is piped");
        BufReader::new(stdout).read_line(&mut line).expect("a line of addresses");
        let addresses = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
        Self { child, addresses, _data: data }
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The api listener's URL.
    pub(crate) fn api(&self) -> &str {
        self.address("api").expect("the api listener is open")
    }

    /// A listener's URL, if it is open.
    pub(crate) fn address(&self, name: &str) -> Option<&str> {
        self.addresses[name].as_str()
    }

    /// GETs a path of the api listener.
    pub(crate) fn get(&self, path: &str) -> Reply {
        let response = agent().get(format!("{}{path}", self.api())).call().expect("an answer");
        Reply::of(response)
    }

    /// One figure of `/metrics`, with its labels if it has any.
    pub(crate) fn figure(&self, name: &str) -> f64 {
        let metrics = self.get("/metrics").body;
        let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("{name} is not in {metrics}")).parse().expect("a number")
    }

    /// POSTs a body to a path of the api listener.
    pub(crate) fn post(&self, path: &str, body: &str) -> Reply {
        let response = agent().post(format!("{}{path}", self.api())).send(body).expect("an answer");
        Reply::of(response)
    }

    /// PUTs a body to a path of the api listener.
    pub(crate) fn put(&self, path: &str, body: &str) -> Reply {
        let response = agent().put(format!("{}{path}", self.api())).send(body).expect("an answer");
        Reply::of(response)
    }

    /// DELETEs a path of the api listener.
    pub(crate) fn delete(&self, path: &str) -> Reply {
        let response = agent().delete(format!("{}{path}", self.api())).call().expect("an answer");
        Reply::of(response)
    }

    /// How many events a room has had.
    pub(crate) fn last_seq(&self, room: &str) -> u64 {
        let page = self.get(&format!("/api/v1/rooms/{room}/events?limit=1")).json();
        page["last_seq"].as_u64().unwrap_or_default()
    }

    /// All events of a room's log.
    pub(crate) fn log(&self, room: &str) -> Vec<Value> {
        let mut all: Vec<Value> = Vec::new();
        loop {
            let page =
                self.get(&format!("/api/v1/rooms/{room}/events?after={}&limit=1000", all.len())).json();
            let events = page["events"].as_array().expect("events");
            if events.is_empty() {
                return all;
            }
            all.extend(events.iter().cloned());
        }
    }

    /// Tells it to stop.
    pub(crate) fn tell_to_stop(&self) {
        signal(&self.child, rustix::process::Signal::TERM);
    }

    /// Tells it to stop, and answers its exit code.
    pub(crate) fn terminate(self) -> Option<i32> {
        self.tell_to_stop();
        self.wait()
    }

    /// Waits for its end, and answers its exit code.
    pub(crate) fn wait(mut self) -> Option<i32> {
        self.child.wait().expect("it ends").code()
    }
}

impl Drop for Fanfare {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal to a child of ours.
pub(crate) fn signal(child: &Child, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).expect("a pid")).expect("a pid");
    rustix::process::kill_process(pid, signal).expect("the signal is sent");
}

/// An HTTP client that takes every status for an answer.
pub(crate) fn agent() -> Agent {
    Agent::config_builder()
        .http_status_as_error(false)
        .proxy(None)
        .timeout_global(Some(PATIENCE))
        .build()
        .new_agent()
}

/// An answer over HTTP.
#[derive(Debug)]
pub(crate) struct Reply {
    /// Its status.
    pub(crate) status: u16,
    /// Its headers.
    pub(crate) headers: ureq::http::HeaderMap,
    /// Its body.
    pub(crate) body: String,
}

impl Reply {
    /// Reads it whole.
    pub(crate) fn of(mut response: Response<ureq::Body>) -> Self {
        let body = response.body_mut().read_to_string().expect("a body");
        Self { status: response.status().as_u16(), headers: response.headers().clone(), body }
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// A header as text; empty if it is not there.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }

    /// Status and code of a refusal, which must have a message, too.
    pub(crate) fn refusal(&self) -> (u16, String) {
        let json = self.json();
        assert!(json["error"]["message"].as_str().is_some_and(|message| !message.is_empty()), "{json}");
        (self.status, json["error"]["code"].as_str().unwrap_or_default().to_owned())
    }
}

/// Looks until something holds, for as long as `patience`.
pub(crate) fn until(patience: Duration, what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + patience;
    while !holds() {
        assert!(Instant::now() < deadline, "in time: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
