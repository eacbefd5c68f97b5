//! Owns the settings of tools as people write them, and their conversion into what the crate uses. Does not read files
//! or the environment: whoever converts says how a variable is looked up.
//!
//! The manual of each key is its doc comment; `docs/TOOLS.md` has examples.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use http::header::{AUTHORIZATION, HeaderName, HeaderValue};
use http::{HeaderMap, Uri};
use serde::{Deserialize, Serialize};

use crate::secret::Secret;

/// One tool, `[tools.<id>]`. Keys that the tool's kind has no use for are refused.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ToolSettings {
    /// What it is: "http", "openai", "amqp" or "echo". There is no default.
    pub kind: String,
    /// Where it is. `http`: the address that requests are posted to; it must be given. `openai`: the endpoint's base,
    /// to which `/chat/completions` is added. Default for `openai`: `https://api.openai.com/v1`.
    pub url: Option<String>,
    /// Key that is sent as `Authorization: Bearer`. Default: none. Better kept in the environment: `api_key_env`.
    pub api_key: Option<Secret>,
    /// Environment variable that holds the key. Default: none.
    pub api_key_env: Option<String>,
    /// Further headers of each request. Their values are treated as secrets. Default: none.
    pub headers: BTreeMap<String, Secret>,
    /// PEM file with certificates of authorities that are trusted beside the public ones. Default: none.
    pub ca_file: Option<PathBuf>,
    /// `amqp`: the queue that takes requests; it must be given.
    pub request_queue: Option<String>,
    /// `amqp`: the exchange that requests are published to, with the queue's name as routing key. Default: the broker's
    /// default exchange, which knows every queue by its name.
    pub exchange: Option<String>,
    /// `amqp`: the broker, such as `amqp://user:password@host/vhost`. Default: that of the server's own queues.
    pub broker: Option<Secret>,
    /// `openai`: the model; it must be given.
    pub model: Option<String>,
    /// `openai`: the system prompt. Default: none.
    pub system: Option<String>,
    /// `openai`: further members of the request's body, such as `temperature`; they replace ours of the same name,
    /// except `messages` and `stream`. Default: none.
    pub parameters: serde_json::Map<String, serde_json::Value>,
    /// `openai`: whether the endpoint is asked to tell what an answer has cost (`stream_options`). Default: true. Turn
    /// it off for an endpoint that refuses the request because of it.
    pub reports_usage: Option<bool>,
    /// `openai`: how many earlier messages of the conversation a request may bring along as `history`. More are
    /// refused. 0: none, each request stands alone. Default: 20. Higher: askers decide what you pay for.
    pub history_messages_max: Option<usize>,
    /// `echo`: whether the answer comes word by word. Default: false.
    pub stream: Option<bool>,
    /// `echo`: time from word to word. Default: "20ms".
    pub word_delay: Option<String>,
    /// Shortest time from one piece of streamed text to the next; what comes in between is joined. Default: "33ms",
    /// thirty events a second. Lower: more events for the same text. Higher: text comes in jerks. "0s": as it comes.
    pub delta_window: String,
    /// Time that a connection may take. Default: "5s". Lower: far endpoints fail. Higher: dead ones are noticed late.
    pub connect_timeout: String,
    /// Time from a request to the first byte of its answer's body. Default: "60s". Lower: long prompts fail. Higher:
    /// hung tools hold their places.
    pub first_byte_timeout: String,
    /// Silence allowed within an answer. Default: "60s". Comments of an event stream count as a sign of life.
    pub idle_timeout: String,
    /// Time that a request may take in all, with its repetitions, without its wait in the queue. Default: "10m".
    pub total_timeout: String,
    /// How often a request is sent again after a failure, as long as nothing of the answer was passed on. Default: 2.
    /// Only failures that may pass count: no connection, 408, 425, 429, 502, 503, 504; for `openai` also 500, 529, a
    /// broken connection and silence, since asking twice does no harm there.
    pub retries: u32,
    /// Pause before the first repetition; it doubles each time, and up to half of it is left to chance. A longer
    /// `Retry-After` of the tool holds instead. Default: "500ms".
    pub retry_delay: String,
    /// Longest pause. A tool that wants a longer one is not asked again. Default: "30s".
    pub retry_delay_max: String,
    /// Requests that are under way at once. Default: 16. Further ones wait.
    pub concurrency: usize,
    /// Requests of one user that are under way at once. Default: 4. Further ones wait, without holding up others.
    pub concurrency_per_user: usize,
    /// Requests that wait. Default: 64. Further ones are refused with `tool_busy`. 0: none waits.
    pub queue: usize,
    /// Requests of one user that wait. Default: 8. Further ones are refused with `tool_busy`.
    pub queue_per_user: usize,
    /// How long a request may wait; then it fails with `tool_busy`. Default: "30s".
    pub queue_timeout: String,
    /// Bytes of a request's message, history and what else it brings. More is refused with `tool_message_too_large`.
    /// Default: 100000.
    pub message_bytes_max: usize,
    /// Bytes of an answer's text, and of anything that must be held to read it. A longer one fails with
    /// `tool_answer_too_large`. Default: 262144, a quarter of what may wait for a session by default.
    pub answer_bytes_max: usize,
}

impl Default for ToolSettings {
    fn default() -> Self {
        Self {
            kind: String::new(),
            url: None,
            api_key: None,
            api_key_env: None,
            headers: BTreeMap::new(),
            ca_file: None,
            request_queue: None,
            exchange: None,
            broker: None,
            model: None,
            system: None,
            parameters: serde_json::Map::new(),
            reports_usage: None,
            history_messages_max: None,
            stream: None,
            word_delay: None,
            delta_window: "33ms".into(),
            connect_timeout: "5s".into(),
            first_byte_timeout: "60s".into(),
            idle_timeout: "60s".into(),
            total_timeout: "10m".into(),
            retries: 2,
            retry_delay: "500ms".into(),
            retry_delay_max: "30s".into(),
            concurrency: 16,
            concurrency_per_user: 4,
            queue: 64,
            queue_per_user: 8,
            queue_timeout: "30s".into(),
            message_bytes_max: 100_000,
            answer_bytes_max: 262_144,
        }
    }
}

/// Settings that cannot be used. Whoever wrote them is at fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingsFault {
    /// The key, such as `tools.gpt.url`.
    pub key: String,
    /// The value, and what would be right.
    pub complaint: String,
}

impl std::fmt::Display for SettingsFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.key, self.complaint)
    }
}

impl std::error::Error for SettingsFault {}

/// One tool, ready to be used.
#[derive(Clone, Debug)]
pub struct ToolConfig {
    pub(crate) kind: Kind,
    pub(crate) limits: Limits,
}

#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Echo { word_delay: Option<Duration> },
    Http(Endpoint),
    Openai { endpoint: Endpoint, chat: Chat },
    Amqp(Place),
}

/// Where a tool waits for messages.
#[derive(Clone, Debug, PartialEq)]
pub struct Place {
    /// The broker's address; `None` for that of the server's own queues.
    pub broker: Option<Secret>,
    /// The exchange that requests are published to; empty for the default one.
    pub exchange: String,
    /// The queue that takes them, and the routing key.
    pub request_queue: String,
}

/// Where requests go.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    pub(crate) url: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) ca_file: Option<PathBuf>,
}

/// What a chat request is made of, beside what is asked.
#[derive(Clone, Debug)]
pub(crate) struct Chat {
    pub(crate) model: String,
    pub(crate) system: Option<String>,
    pub(crate) parameters: serde_json::Map<String, serde_json::Value>,
    pub(crate) reports_usage: bool,
    pub(crate) history_messages_max: usize,
}

/// Bounds; [`ToolSettings`] tells what each is.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    pub(crate) delta_window: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) first_byte_timeout: Duration,
    pub(crate) idle_timeout: Duration,
    pub(crate) total_timeout: Duration,
    pub(crate) retries: u32,
    pub(crate) retry_delay: Duration,
    pub(crate) retry_delay_max: Duration,
    pub(crate) concurrency: usize,
    pub(crate) concurrency_per_user: usize,
    pub(crate) queue: usize,
    pub(crate) queue_per_user: usize,
    pub(crate) queue_timeout: Duration,
    pub(crate) message_bytes_max: usize,
    pub(crate) answer_bytes_max: usize,
}

/// What kinds there are, for complaints.
const KINDS: &str = r#""http", "openai", "amqp", "echo""#;

const OPENAI_URL: &str = "https://api.openai.com/v1";

/// An id is part of events, settings and logs: bytes at most.
const ID_BYTES_MAX: usize = 100;

impl ToolConfig {
    /// A tool that answers what it is asked: the tool `echo`, which is there in dev without configuration.
    #[must_use]
    pub fn echo() -> Self {
        let settings = ToolSettings { kind: "echo".into(), ..ToolSettings::default() };
        settings.into_config("echo", &|_| None).expect("invariant: the defaults can be used")
    }

    /// The kind's name.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self.kind {
            Kind::Echo { .. } => "echo",
            Kind::Http(_) => "http",
            Kind::Openai { .. } => "openai",
            Kind::Amqp(_) => "amqp",
        }
    }
}

impl ToolSettings {
    /// Converts them. `variable` looks up an environment variable.
    ///
    /// # Errors
    /// Whoever wrote the settings is at fault; the fault names the key and says what would be right.
    pub fn into_config(
        self,
        id: &str,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<ToolConfig, SettingsFault> {
        let fault =
            |key: &str, complaint: String| SettingsFault { key: format!("tools.{id}.{key}"), complaint };
        if id.is_empty() || id.len() > ID_BYTES_MAX || id.chars().any(char::is_control) {
            let complaint = format!("a tool's id has 1 to {ID_BYTES_MAX} bytes and no control characters");
            return Err(SettingsFault { key: format!("tools.{id:?}"), complaint });
        }
        if let Some(key) = self.useless_key() {
            return Err(fault(key, format!("has no meaning for a tool of kind {:?}", self.kind)));
        }
        let limits = self.limits().map_err(|(key, complaint)| fault(key, complaint))?;
        let kind = match &*self.kind {
            "echo" => {
                let delay = self.word_delay.as_deref().unwrap_or("20ms");
                let delay =
                    duration("word_delay", delay).map_err(|(key, complaint)| fault(key, complaint))?;
                Kind::Echo { word_delay: self.stream.unwrap_or(false).then_some(delay) }
            }
            "http" => {
                let url = self.url.clone().ok_or_else(|| {
                    fault(
                        "url",
                        "is missing; say where requests are posted to, such as \"http://127.0.0.1:9000/ask\""
                            .into(),
                    )
                })?;
                Kind::Http(self.endpoint(&url, variable).map_err(|(key, complaint)| fault(key, complaint))?)
            }
            "openai" => {
                let model = self.model.clone().filter(|model| !model.is_empty()).ok_or_else(|| {
                    fault("model", "is missing; say which model answers, as the endpoint calls it".into())
                })?;
                for key in ["messages", "stream"] {
                    if self.parameters.contains_key(key) {
                        return Err(fault(
                            "parameters",
                            format!("must not have {key:?}, which each request makes"),
                        ));
                    }
                }
                let base = self.url.as_deref().unwrap_or(OPENAI_URL).trim_end_matches('/');
                let base = base.strip_suffix("/chat/completions").unwrap_or(base);
                let url = format!("{base}/chat/completions");
                let endpoint =
                    self.endpoint(&url, variable).map_err(|(key, complaint)| fault(key, complaint))?;
                let chat = Chat {
                    model,
                    system: self.system,
                    parameters: self.parameters,
                    reports_usage: self.reports_usage.unwrap_or(true),
                    history_messages_max: self.history_messages_max.unwrap_or(20),
                };
                Kind::Openai { endpoint, chat }
            }
            "amqp" => {
                let queue =
                    self.request_queue.clone().filter(|queue| !queue.is_empty()).ok_or_else(|| {
                        fault("request_queue", "is missing; say which queue takes requests".into())
                    })?;
                let exchange = self.exchange.clone().unwrap_or_default();
                Kind::Amqp(Place { broker: self.broker.clone(), exchange, request_queue: queue })
            }
            "" => return Err(fault("kind", format!("is missing; one of {KINDS}"))),
            other => return Err(fault("kind", format!("is {other:?}; one of {KINDS}"))),
        };
        Ok(ToolConfig { kind, limits })
    }

    /// A key that is set although the kind has no use for it.
    fn useless_key(&self) -> Option<&'static str> {
        let (is_echo, is_openai, is_amqp) = (self.kind == "echo", self.kind == "openai", self.kind == "amqp");
        let is_http = !is_echo && !is_amqp;
        let keys = [
            ("url", self.url.is_some(), is_http),
            ("api_key", self.api_key.is_some(), is_http),
            ("api_key_env", self.api_key_env.is_some(), is_http),
            ("headers", !self.headers.is_empty(), is_http),
            ("ca_file", self.ca_file.is_some(), is_http),
            ("request_queue", self.request_queue.is_some(), is_amqp),
            ("exchange", self.exchange.is_some(), is_amqp),
            ("broker", self.broker.is_some(), is_amqp),
            ("model", self.model.is_some(), is_openai),
            ("system", self.system.is_some(), is_openai),
            ("parameters", !self.parameters.is_empty(), is_openai),
            ("reports_usage", self.reports_usage.is_some(), is_openai),
            ("history_messages_max", self.history_messages_max.is_some(), is_openai),
            ("stream", self.stream.is_some(), is_echo),
            ("word_delay", self.word_delay.is_some(), is_echo),
        ];
        let is_known = ["http", "openai", "amqp", "echo"].contains(&&*self.kind);
        keys.iter().find(|(_, is_set, is_used)| is_known && *is_set && !is_used).map(|(key, ..)| *key)
    }

    fn endpoint(
        &self,
        url: &str,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Endpoint, (&'static str, String)> {
        let uri: Uri = url.parse().map_err(|fault| ("url", format!("{url:?} is no address: {fault}")))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err(("url", format!("{url:?} begins with neither http:// nor https://")));
        }
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        if authority.contains('@') {
            // The address itself is not repeated: it holds a password.
            return Err(("url", "has a user in it; use headers or api_key".into()));
        }
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            let name = HeaderName::try_from(name)
                .map_err(|_| ("headers", format!("{name:?} is no name of a header")))?;
            headers.insert(
                name.clone(),
                header(value, || ("headers", format!("the value of {name} is no header")))?,
            );
        }
        let key = match (&self.api_key, &self.api_key_env) {
            (Some(_), Some(_)) => {
                return Err(("api_key", "is given, and api_key_env too; keep one of them".into()));
            }
            (Some(key), None) => Some(key.clone()),
            (None, Some(name)) => Some(Secret::new(
                variable(name)
                    .filter(|value| !value.is_empty())
                    .ok_or_else(|| ("api_key_env", format!("the environment variable {name} is not set")))?,
            )),
            (None, None) => None,
        };
        if let Some(key) = key {
            let value = Secret::new(format!("Bearer {}", key.reveal().trim()));
            let bad = || ("api_key", "has characters that a header cannot carry".into());
            headers.insert(AUTHORIZATION, header(&value, bad)?);
        }
        Ok(Endpoint { url: uri, headers, ca_file: self.ca_file.clone() })
    }

    fn limits(&self) -> Result<Limits, (&'static str, String)> {
        let counts = [
            ("concurrency", self.concurrency),
            ("concurrency_per_user", self.concurrency_per_user),
            ("message_bytes_max", self.message_bytes_max),
            ("answer_bytes_max", self.answer_bytes_max),
        ];
        if let Some((key, _)) = counts.into_iter().find(|(_, count)| *count == 0) {
            return Err((key, "is 0; at least 1".into()));
        }
        Ok(Limits {
            delta_window: duration_or_none("delta_window", &self.delta_window)?,
            connect_timeout: duration("connect_timeout", &self.connect_timeout)?,
            first_byte_timeout: duration("first_byte_timeout", &self.first_byte_timeout)?,
            idle_timeout: duration("idle_timeout", &self.idle_timeout)?,
            total_timeout: duration("total_timeout", &self.total_timeout)?,
            retries: self.retries,
            retry_delay: duration("retry_delay", &self.retry_delay)?,
            retry_delay_max: duration("retry_delay_max", &self.retry_delay_max)?,
            concurrency: self.concurrency,
            concurrency_per_user: self.concurrency_per_user,
            queue: self.queue,
            queue_per_user: self.queue_per_user,
            queue_timeout: duration("queue_timeout", &self.queue_timeout)?,
            message_bytes_max: self.message_bytes_max,
            answer_bytes_max: self.answer_bytes_max,
        })
    }
}

fn header(
    value: &Secret,
    fault: impl Fn() -> (&'static str, String),
) -> Result<HeaderValue, (&'static str, String)> {
    let mut value = HeaderValue::from_str(value.reveal()).map_err(|_| fault())?;
    value.set_sensitive(true);
    Ok(value)
}

fn duration(key: &'static str, text: &str) -> Result<Duration, (&'static str, String)> {
    let duration = duration_or_none(key, text)?;
    if duration.is_zero() { Err((key, "is zero; at least \"1ms\"".into())) } else { Ok(duration) }
}

/// A duration that may be zero. A day bounds them all, so that clocks can be added to without care.
fn duration_or_none(key: &'static str, text: &str) -> Result<Duration, (&'static str, String)> {
    let duration = humantime::parse_duration(text)
        .map_err(|fault| (key, format!("{text:?} is no duration such as \"30s\": {fault}")))?;
    if duration > Duration::from_secs(86_400) {
        return Err((key, format!("{text:?} is more than a day")));
    }
    Ok(duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(toml: &str) -> Result<ToolConfig, String> {
        let settings: ToolSettings = toml::from_str(toml).map_err(|fault| fault.message().to_owned())?;
        let variable = |name: &str| (name == "SET").then(|| "sk-env\n".to_owned());
        settings.into_config("t", &variable).map_err(|fault| fault.to_string())
    }

    #[test]
    fn a_chat_tool_needs_a_model_only() {
        let tool = read("kind = \"openai\"\nmodel = \"m\"\napi_key_env = \"SET\"").unwrap();
        let Kind::Openai { endpoint, chat } = &tool.kind else { panic!("{tool:?}") };
        assert_eq!(endpoint.url, "https://api.openai.com/v1/chat/completions");
        assert_eq!(endpoint.headers[AUTHORIZATION], "Bearer sk-env");
        assert!(endpoint.headers[AUTHORIZATION].is_sensitive());
        assert_eq!((chat.history_messages_max, chat.reports_usage), (20, true));
        assert_eq!(tool.limits.delta_window, Duration::from_millis(33));
        assert!(!format!("{tool:?}").contains("sk-env"));
    }

    #[test]
    fn the_base_of_an_endpoint_may_be_written_as_others_write_it() {
        for url in ["http://h:1/v1", "http://h:1/v1/", "http://h:1/v1/chat/completions"] {
            let tool = read(&format!("kind = \"openai\"\nmodel = \"m\"\nurl = \"{url}\"")).unwrap();
            let Kind::Openai { endpoint, .. } = tool.kind else { panic!("{url}") };
            assert_eq!(endpoint.url, "http://h:1/v1/chat/completions");
        }
    }

    #[test]
    fn faults_name_the_key_and_what_would_be_right() {
        for (toml, complaint) in [
            ("", "tools.t.kind: is missing; one of \"http\", \"openai\", \"amqp\", \"echo\""),
            ("kind = \"amqp\"", "tools.t.request_queue: is missing; say which queue"),
            ("kind = \"amqp\"\nrequest_queue = \"q\"\nurl = \"amqp://u:p@h\"", "tools.t.url: has no meaning"),
            ("kind = \"htp\"", "tools.t.kind: is \"htp\"; one of"),
            ("kind = \"http\"", "tools.t.url: is missing; say where"),
            ("kind = \"http\"\nurl = \"ftp://h\"", "begins with neither http:// nor https://"),
            (
                "kind = \"http\"\nurl = \"http://u:p@h\"",
                "tools.t.url: has a user in it; use headers or api_key",
            ),
            (
                "kind = \"http\"\nurl = \"http://h\"\nmodel = \"m\"",
                "tools.t.model: has no meaning for a tool of kind",
            ),
            ("kind = \"openai\"", "tools.t.model: is missing"),
            ("kind = \"openai\"\nmodel = \"m\"\nparameters = { stream = false }", "must not have \"stream\""),
            ("kind = \"openai\"\nmodel = \"m\"\napi_key_env = \"UNSET\"", "variable UNSET is not set"),
            ("kind = \"openai\"\nmodel = \"m\"\napi_key_env = \"SET\"\napi_key = \"k\"", "keep one of them"),
            (
                "kind = \"openai\"\nmodel = \"m\"\napi_key = \"a\\nb\"",
                "characters that a header cannot carry",
            ),
            ("kind = \"echo\"\nidle_timeout = \"soon\"", "tools.t.idle_timeout: \"soon\" is no duration"),
            ("kind = \"echo\"\nidle_timeout = \"0s\"", "tools.t.idle_timeout: is zero"),
            ("kind = \"echo\"\ntotal_timeout = \"2days\"", "is more than a day"),
            ("kind = \"echo\"\nconcurrency = 0", "tools.t.concurrency: is 0; at least 1"),
            ("kind = \"echo\"\nurll = \"x\"", "unknown field `urll`"),
            (
                "kind = \"http\"\nurl = \"http://h\"\nheaders = { \"a b\" = \"c\" }",
                "\"a b\" is no name of a header",
            ),
        ] {
            let fault = read(toml).expect_err(toml);
            assert!(fault.contains(complaint), "{toml}\n{fault}");
            assert!(!fault.contains("u:p"), "{fault}");
        }
        assert!(ToolSettings::default().into_config("", &|_| None).is_err());
    }

    #[test]
    fn the_echo_is_there_without_settings() {
        let Kind::Echo { word_delay } = ToolConfig::echo().kind else { panic!("no echo") };
        assert_eq!(word_delay, None);
        let tool = read("kind = \"echo\"\nstream = true\ndelta_window = \"0s\"").unwrap();
        let Kind::Echo { word_delay } = tool.kind else { panic!("no echo") };
        assert_eq!(word_delay, Some(Duration::from_millis(20)));
    }

    fn manual() -> String {
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/TOOLS.md")).unwrap()
    }

    #[test]
    fn the_manuals_examples_can_be_used() {
        #[derive(Deserialize)]
        struct File {
            tools: BTreeMap<String, ToolSettings>,
        }
        let manual = manual();
        let examples: Vec<&str> =
            manual.split("```toml").skip(1).filter_map(|rest| rest.split("```").next()).collect();
        assert_eq!(examples.len(), 5);
        for example in examples {
            let file: File = toml::from_str(example).expect(example);
            for (id, settings) in file.tools {
                settings.into_config(&id, &|_| Some("key".into())).expect(example);
            }
        }
    }

    #[test]
    fn the_manuals_defaults_are_the_defaults() {
        let defaults = serde_json::to_value(ToolSettings::default()).unwrap();
        let mut count = 0;
        for row in manual().lines().filter(|line| line.starts_with("| `")) {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            let keys: Vec<&str> = cells[1].split('`').skip(1).step_by(2).collect();
            if defaults.get(keys[0]).is_none_or(serde_json::Value::is_null) {
                continue;
            }
            for (key, told) in keys.iter().zip(cells[2].split(", ")) {
                let is_told = match &defaults[key] {
                    serde_json::Value::String(text) => {
                        humantime::parse_duration(text).unwrap() == humantime::parse_duration(told).unwrap()
                    }
                    number => number.as_u64() == told.parse().ok(),
                };
                assert!(is_told, "{key}: the manual says {told}");
                count += 1;
            }
        }
        // All that hold for every kind.
        assert_eq!(count, 15);
    }
}
