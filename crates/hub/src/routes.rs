//! Owns the table of the HTTP interface: every route, what it takes and answers, who may use it, how it refuses.
//! Does not serve anything; whoever does is compared with this table.

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::Value;

use crate::principal::Scope;
use crate::rest;

/// A method of HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Method {
    /// Reads.
    Get,
    /// Does something.
    Post,
    /// Sets something.
    Put,
    /// Takes something away.
    Delete,
}

impl Method {
    /// The name, in lower case.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Method::Get => "get",
            Method::Post => "post",
            Method::Put => "put",
            Method::Delete => "delete",
        }
    }
}

/// Who may use a route where authentication is configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// Everybody.
    Open,
    /// A key with the scope, or an admin's token.
    Key(Scope),
    /// Whoever signs the body with the webhook's secret.
    Signed,
}

/// A parameter of the query.
#[derive(Clone, Copy, Debug)]
pub struct Parameter {
    /// Its name.
    pub name: &'static str,
    /// What it means.
    pub about: &'static str,
    /// `string` or `integer`.
    pub kind: &'static str,
}

/// A body that a route takes.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// In which forms.
    pub media: &'static [&'static str],
    /// Its schema; several at once for NDJSON, where it is that of a line.
    pub schema: fn(&mut SchemaGenerator) -> Schema,
    /// Whether a JSON array of such bodies is meant.
    pub is_list: bool,
}

/// What a route answers when all is well.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// In which form.
    pub media: &'static str,
    /// Its schema.
    pub schema: fn(&mut SchemaGenerator) -> Schema,
}

/// A route.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// Its method.
    pub method: Method,
    /// Its path; what stands in braces is a parameter.
    pub path: &'static str,
    /// Other paths of the same.
    pub aliases: &'static [&'static str],
    /// What it belongs to.
    pub tag: &'static str,
    /// What it does, in a sentence.
    pub about: &'static str,
    /// Who may.
    pub door: Door,
    /// What the query may say.
    pub query: &'static [Parameter],
    /// What it takes.
    pub request: Option<Request>,
    /// What it answers.
    pub answer: Answer,
    /// How it refuses, by codes of [`CODES`], beyond what all routes of its sort do; see [`Route::codes`].
    pub refuses: &'static [&'static str],
    /// Whether it is there in development only.
    pub is_dev: bool,
}

/// A code that peers compare with.
#[derive(Clone, Copy, Debug)]
pub struct Code {
    /// The code.
    pub code: &'static str,
    /// The status that goes with it.
    pub status: u16,
    /// Whether the same request may succeed later, unchanged.
    pub may_retry: bool,
}

const fn code(code: &'static str, status: u16, may_retry: bool) -> Code {
    Code { code, status, may_retry }
}

/// The codes by which routes refuse.
pub const CODES: &[Code] = &[
    code("bad_request", 400, false),
    code("unauthorized", 401, false),
    code("forbidden", 403, false),
    code("not_found", 404, false),
    code("body_timeout", 408, true),
    code("already_exists", 409, false),
    code("wrong_state", 409, false),
    code("body_too_large", 413, false),
    code("bad_event_name", 422, false),
    code("bad_payload", 422, false),
    code("bad_room_name", 422, false),
    code("bad_target", 422, false),
    code("data_too_deep", 422, false),
    code("too_many", 422, false),
    code("unknown_namespace", 422, false),
    code("rate_limited", 429, true),
    code("internal", 500, true),
    code("busy", 503, true),
];

const PUBLISHING: &[&str] = &[
    "bad_event_name",
    "bad_payload",
    "bad_room_name",
    "bad_target",
    "busy",
    "data_too_deep",
    "not_found",
    "too_many",
    "unknown_namespace",
];
const CHANGING: &[&str] = &["bad_payload", "busy", "not_found", "wrong_state"];
const CONTROLLING: &[&str] = &["bad_payload", "busy", "not_found", "too_many", "wrong_state"];
const CREATING: &[&str] = &["already_exists", "bad_payload", "busy"];
const READING: &[&str] = &["bad_payload", "busy"];
const FINDING: &[&str] = &["busy", "not_found"];
const IN_ROOMS: &[&str] = &["bad_payload", "bad_room_name", "busy"];

const LIMIT: Parameter = Parameter { name: "limit", about: "How many at most.", kind: "integer" };
const AFTER: Parameter =
    Parameter { name: "after", about: "What the page before gave as `next`.", kind: "string" };
const STATUS: Parameter = Parameter { name: "status", about: "Only those with this status.", kind: "string" };
const SINCE: Parameter =
    Parameter { name: "since", about: "Only those made then or later, in RFC 3339.", kind: "string" };
const PROJECT_ID: Parameter =
    Parameter { name: "project_id", about: "Only those of this project.", kind: "string" };
const AFTER_SEQ: Parameter =
    Parameter { name: "after", about: "The last seq that is known.", kind: "integer" };
const WAIT: Parameter =
    Parameter { name: "wait", about: "How long to wait for something, such as `30s`.", kind: "string" };
const AFTER_COMMAND: Parameter = Parameter {
    name: "after",
    about: "The last command that has arrived; it and those before it are not told again.",
    kind: "string",
};

const JSON: &str = "application/json";
const JSON_ONLY: &[&str] = &[JSON];
const MANY: &[&str] = &[JSON, "application/x-ndjson"];

const fn route(method: Method, path: &'static str, tag: &'static str, about: &'static str) -> Route {
    Route {
        method,
        path,
        aliases: &[],
        tag,
        about,
        door: Door::Open,
        query: &[],
        request: None,
        answer: Answer { status: 200, media: JSON, schema: |generator| generator.subschema_for::<Value>() },
        refuses: &[],
        is_dev: false,
    }
}

const fn get(path: &'static str, tag: &'static str, about: &'static str) -> Route {
    route(Method::Get, path, tag, about)
}

const fn post(path: &'static str, tag: &'static str, about: &'static str) -> Route {
    route(Method::Post, path, tag, about)
}

impl Route {
    const fn also(self, aliases: &'static [&'static str]) -> Self {
        Self { aliases, ..self }
    }

    const fn needs(self, scope: Scope) -> Self {
        Self { door: Door::Key(scope), ..self }
    }

    const fn query(self, query: &'static [Parameter]) -> Self {
        Self { query, ..self }
    }

    const fn takes<T: JsonSchema>(self) -> Self {
        let schema = |generator: &mut SchemaGenerator| generator.subschema_for::<T>();
        Self { request: Some(Request { media: JSON_ONLY, schema, is_list: false }), ..self }
    }

    const fn takes_many<T: JsonSchema>(self) -> Self {
        let schema = |generator: &mut SchemaGenerator| generator.subschema_for::<T>();
        Self { request: Some(Request { media: MANY, schema, is_list: true }), ..self }
    }

    const fn answers<T: JsonSchema>(self, status: u16) -> Self {
        let schema = |generator: &mut SchemaGenerator| generator.subschema_for::<T>();
        Self { answer: Answer { status, media: JSON, schema }, ..self }
    }

    const fn answers_text(self) -> Self {
        let schema = |generator: &mut SchemaGenerator| generator.subschema_for::<String>();
        Self { answer: Answer { status: 200, media: "text/plain", schema }, ..self }
    }

    const fn refuses(self, refuses: &'static [&'static str]) -> Self {
        Self { refuses, ..self }
    }

    /// Every way in which it refuses, sorted by status.
    #[must_use]
    pub fn codes(&self) -> Vec<&'static Code> {
        let of_door: &[&str] = match self.door {
            Door::Open => &[],
            Door::Key(_) => &["forbidden", "rate_limited", "unauthorized"],
            Door::Signed => &["unauthorized"],
        };
        let of_body: &[&str] = match self.request {
            Some(_) => &["bad_request", "body_timeout", "body_too_large"],
            None => &[],
        };
        let is_mine =
            |code: &&Code| [self.refuses, of_door, of_body].iter().any(|codes| codes.contains(&code.code));
        CODES.iter().filter(is_mine).collect()
    }

    /// Its paths, the canonical one first.
    pub fn paths(&self) -> impl Iterator<Item = &'static str> {
        std::iter::once(self.path).chain(self.aliases.iter().copied())
    }

    /// Whether it takes the header `Idempotency-Key`: the same request again does nothing, and is answered alike.
    /// Publications carry a key each, in the body.
    #[must_use]
    pub fn takes_idempotency_key(&self) -> bool {
        match (self.method, self.door) {
            (Method::Post, Door::Key(Scope::Publish)) => self.tag != "events",
            _ => false,
        }
    }
}

/// The routes.
pub const ROUTES: &[Route] = &[
    // Events.
    post("/api/v1/events", "events", "Publishes one event.")
        .needs(Scope::Publish)
        .takes::<rest::Publication>()
        .answers::<rest::Published>(201)
        .refuses(PUBLISHING),
    post("/api/v1/events/batch", "events", "Publishes many events, or none if one of them is refused.")
        .needs(Scope::Publish)
        .takes_many::<rest::Publication>()
        .answers::<rest::PublishedBatch>(201)
        .refuses(PUBLISHING),
    get("/api/v1/rooms/{room}/events", "events", "Reads a room's log, the oldest event first.")
        .needs(Scope::Read)
        .query(&[AFTER_SEQ, LIMIT])
        .answers::<rest::LogPage>(200)
        .refuses(IN_ROOMS),
    get("/api/v1/schedules", "events", "Lists events that are to be published later.")
        .needs(Scope::Read)
        .query(&[LIMIT, AFTER])
        .answers::<rest::ScheduledPage>(200)
        .refuses(READING),
    route(
        Method::Delete,
        "/api/v1/schedules/{id}",
        "events",
        "Cancels an event that is to be published later.",
    )
    .needs(Scope::Publish)
    .answers::<rest::Scheduled>(200)
    .refuses(FINDING),
    get("/api/v1/templates", "events", "Lists templates.")
        .needs(Scope::Read)
        .answers::<rest::TemplateList>(200)
        .refuses(READING),
    get("/api/v1/templates/{name}", "events", "Shows a template.")
        .needs(Scope::Read)
        .answers::<rest::Template>(200)
        .refuses(FINDING),
    route(Method::Put, "/api/v1/templates/{name}", "events", "Makes or replaces a template.")
        .needs(Scope::Admin)
        .takes::<rest::Template>()
        .answers::<rest::Template>(200)
        .refuses(READING),
    route(Method::Delete, "/api/v1/templates/{name}", "events", "Takes a template away.")
        .needs(Scope::Admin)
        .answers::<rest::Template>(200)
        .refuses(FINDING),
    post("/webhooks/github", "events", "Takes a webhook of GitHub.")
        .takes::<Value>()
        .answers::<rest::WebhookAnswer>(202)
        .refuses(READING)
        .signed(),
    // Jobs.
    post("/api/v1/jobs", "jobs", "Tracks a job for its project.")
        .needs(Scope::Publish)
        .takes::<rest::NewJob>()
        .answers::<rest::Job>(201)
        .refuses(CREATING),
    get("/api/v1/jobs", "jobs", "Lists jobs, the newest first.")
        .needs(Scope::Read)
        .query(&[PROJECT_ID, STATUS, SINCE, LIMIT, AFTER])
        .answers::<rest::JobPage>(200)
        .refuses(READING),
    get("/api/v1/jobs/{id}", "jobs", "Shows a job.")
        .needs(Scope::Read)
        .answers::<rest::Job>(200)
        .refuses(FINDING),
    post("/api/v1/jobs/{id}/status", "jobs", "Says what a job is now.")
        .needs(Scope::Publish)
        .takes::<rest::JobStatusUpdate>()
        .answers::<rest::Job>(200)
        .refuses(CHANGING),
    post(
        "/api/v1/jobs/{id}/progress",
        "jobs",
        "Says how far a job has come; told at most once each interval.",
    )
    .needs(Scope::Publish)
    .takes::<rest::JobProgressUpdate>()
    .answers::<rest::Job>(200)
    .refuses(CHANGING),
    post("/api/v1/jobs/{id}/heartbeat", "jobs", "Says that somebody still works at a job.")
        .needs(Scope::Publish)
        .takes::<rest::JobHeartbeat>()
        .answers::<rest::Job>(200)
        .refuses(CHANGING),
    post("/api/v1/jobs/{id}/complete", "jobs", "Ends a job well.")
        .needs(Scope::Publish)
        .takes::<rest::JobCompletion>()
        .answers::<rest::Job>(200)
        .refuses(CHANGING),
    post("/api/v1/jobs/{id}/fail", "jobs", "Ends a job badly.")
        .needs(Scope::Publish)
        .takes::<rest::JobFailure>()
        .answers::<rest::Job>(200)
        .refuses(CHANGING),
    post("/api/v1/jobs/{id}/cancel", "jobs", "Ends a job without an outcome.")
        .needs(Scope::Publish)
        .takes::<rest::JobCancellation>()
        .answers::<rest::Job>(200)
        .refuses(CHANGING),
    // Runs and logs.
    post("/api/v1/runs", "runs", "Begins a run.")
        .also(&["/start", "/api/v1/runs/start"])
        .needs(Scope::Publish)
        .takes::<rest::NewRun>()
        .answers::<rest::Run>(201)
        .refuses(CREATING),
    get("/api/v1/runs", "runs", "Lists runs, the newest first.")
        .needs(Scope::Read)
        .query(&[STATUS, SINCE, LIMIT, AFTER])
        .answers::<rest::RunPage>(200)
        .refuses(READING),
    get("/api/v1/runs/{thread_id}", "runs", "Shows a run.")
        .also(&["/status/{thread_id}", "/api/v1/runs/status/{thread_id}"])
        .needs(Scope::Read)
        .answers::<rest::Run>(200)
        .refuses(FINDING),
    post("/api/v1/runs/{thread_id}/status", "runs", "Says what a run is now.")
        .needs(Scope::Publish)
        .takes::<rest::RunUpdate>()
        .answers::<rest::Run>(200)
        .refuses(CHANGING),
    post(
        "/api/v1/runs/{thread_id}/approve",
        "runs",
        "Answers a run that waits for approval; the path names it.",
    )
    .needs(Scope::Publish)
    .takes::<rest::Approval>()
    .answers::<rest::Run>(200)
    .refuses(CHANGING),
    post("/api/v1/runs/approve", "runs", "Answers a run that waits for approval; the body names it.")
        .also(&["/approve"])
        .needs(Scope::Publish)
        .takes::<rest::Approval>()
        .answers::<rest::Run>(200)
        .refuses(CHANGING),
    get("/api/v1/runs/{thread_id}/control", "runs", "Waits until a run is told to do something.")
        .needs(Scope::Publish)
        .query(&[WAIT, AFTER_COMMAND])
        .answers::<rest::RunControl>(200)
        .refuses(CHANGING),
    post("/api/v1/runs/{thread_id}/control", "runs", "Tells a run to do something.")
        .needs(Scope::Publish)
        .takes::<rest::NewControlCommand>()
        .answers::<rest::Run>(200)
        .refuses(CONTROLLING),
    post("/api/v1/logs", "runs", "Takes lines of logs: one, a JSON array, or NDJSON.")
        .needs(Scope::Publish)
        .takes_many::<rest::LogLine>()
        .answers::<rest::Accepted>(202)
        .refuses(READING),
    // Users and rooms.
    get("/api/v1/users", "users", "Lists users who are connected.")
        .also(&["/socket/users"])
        .needs(Scope::Read)
        .answers::<rest::UserList>(200),
    get("/api/v1/users/{id}/connected", "users", "Says whether a user is connected.")
        .also(&["/socket/users/{id}/connected"])
        .needs(Scope::Read)
        .answers::<rest::Connected>(200),
    get("/api/v1/rooms", "rooms", "Lists rooms.")
        .also(&["/socket/rooms"])
        .needs(Scope::Read)
        .answers::<rest::RoomList>(200),
    get("/api/v1/rooms/{room}/presence", "rooms", "Says who is in a room: users and connections.")
        .needs(Scope::Read)
        .refuses(&["bad_room_name"]),
    post("/api/v1/revocations", "users", "Takes back what a user, a session or a token (`jti`) proved.")
        .needs(Scope::Admin)
        .takes::<Value>()
        .refuses(READING),
    post("/api/v1/rooms", "rooms", "Makes a room.")
        .also(&["/socket/rooms"])
        .needs(Scope::Admin)
        .takes::<rest::NewRoom>()
        .answers::<rest::RoomState>(201)
        .refuses(IN_ROOMS),
    post("/api/v1/rooms/join", "rooms", "Moves the live sockets of a user or session into a room.")
        .also(&["/socket/rooms/join"])
        .needs(Scope::Admin)
        .takes::<rest::RoomMove>()
        .answers::<rest::Moved>(200)
        .refuses(IN_ROOMS),
    post("/api/v1/rooms/leave", "rooms", "Moves the live sockets of a user or session out of a room.")
        .also(&["/socket/rooms/leave"])
        .needs(Scope::Admin)
        .takes::<rest::RoomMove>()
        .answers::<rest::Moved>(200)
        .refuses(IN_ROOMS),
    post("/api/v1/rooms/message", "rooms", "Publishes an event to a room.")
        .also(&["/socket/rooms/message"])
        .needs(Scope::Publish)
        .takes::<rest::RoomMessage>()
        .answers::<rest::Published>(201)
        .refuses(PUBLISHING),
    post("/api/v1/notifications", "users", "Notifies a user, now or on return.")
        .also(&["/socket/notifications"])
        .needs(Scope::Publish)
        .takes::<rest::NewNotification>()
        .answers::<rest::Published>(201)
        .refuses(READING),
    post("/api/v1/announcements", "users", "Tells everybody something.")
        .needs(Scope::Publish)
        .takes::<rest::NewAnnouncement>()
        .answers::<rest::Published>(201)
        .refuses(READING),
    // Documents.
    get("/api/v1/schemas", "documents", "Shows the schemas of all events and commands.").needs(Scope::Read),
    get("/api/v1/schemas/{event}", "documents", "Shows the schema of one event or command.")
        .needs(Scope::Read)
        .refuses(&["not_found"]),
    get("/api/v1/asyncapi.json", "documents", "Describes what travels over Socket.IO.").needs(Scope::Read),
    get("/api/v1/openapi.json", "documents", "Describes this interface.").needs(Scope::Read),
    // Watching it.
    get("/health", "operation", "Says how the server is doing.")
        .also(&["/socket/health"])
        .answers::<rest::Health>(200),
    get("/livez", "operation", "Says that the process is there.").answers_text(),
    get("/readyz", "operation", "Says whether new work is welcome.").answers_text().refuses(&["busy"]),
    get("/stats", "operation", "Counts connections, rooms and events.")
        .also(&["/api/v1/websocket/stats", "/socket/stats"])
        .needs(Scope::Read),
    get("/metrics", "operation", "Shows metrics in the text format of Prometheus.")
        .needs(Scope::Read)
        .answers_text(),
    get("/debug/socketio", "operation", "Shows connections and rooms.").dev(),
    post("/debug/socketio/broadcast", "operation", "Publishes an event to everybody.")
        .takes::<rest::Publication>()
        .answers::<rest::Published>(201)
        .refuses(PUBLISHING)
        .dev(),
];

impl Route {
    const fn signed(self) -> Self {
        Self { door: Door::Signed, ..self }
    }

    const fn dev(self) -> Self {
        Self { is_dev: true, ..self }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_path_has_a_method_twice() {
        let mut seen = BTreeSet::new();
        for route in ROUTES {
            for path in route.paths() {
                assert!(path.starts_with('/') && !path.ends_with('/'), "{path}");
                assert!(seen.insert((path, route.method)), "{:?} {path} is there twice", route.method);
            }
        }
    }

    #[test]
    fn refusals_are_codes_of_the_table() {
        for route in ROUTES {
            for code in route.refuses {
                assert!(CODES.iter().any(|known| known.code == *code), "{}: {code}", route.path);
            }
            let statuses: Vec<_> = route.codes().iter().map(|code| code.status).collect();
            assert!(statuses.is_sorted(), "{}", route.path);
        }
    }

    #[test]
    fn aliases_take_the_same_parameters() {
        let parameters = |path: &str| {
            path.split('/').filter(|part| part.starts_with('{')).map(str::to_owned).collect::<Vec<_>>()
        };
        for route in ROUTES {
            for alias in route.aliases {
                assert_eq!(parameters(alias), parameters(route.path), "{alias}");
            }
        }
    }

    #[test]
    fn what_changes_something_for_a_key_is_idempotent_and_the_rest_is_not() {
        let find = |path: &str, method| {
            ROUTES.iter().find(|route| route.path == path && route.method == method).unwrap()
        };
        assert!(find("/api/v1/jobs/{id}/complete", Method::Post).takes_idempotency_key());
        assert!(!find("/api/v1/events", Method::Post).takes_idempotency_key());
        assert!(!find("/api/v1/jobs", Method::Get).takes_idempotency_key());
    }
}
