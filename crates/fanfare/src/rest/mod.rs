//! Owns the routes of both listeners, and what all of them share: the body limit, origins, errors as JSON.
//! Does not know Socket.IO. Invariant: every refusal is `{error: {code, message}}` with a code from `codes.rs`.

mod assets;
mod debug;
mod events;
mod github;
mod health;
mod jobs;
mod listing;
mod metrics;
mod notifications;
mod published;
mod rooms;
mod runs;
mod schedules;
mod schemas;
mod stats;
mod templates;
mod users;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_TYPE, HOST, HeaderValue, ORIGIN, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use engine::Server;
use hub::principal::Principal;
use hub::store::{IdempotencyKey, RecordKey};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::error::Category;

use crate::auth::{self, Authenticator};
use crate::codes::{Code, Fault};
use crate::config::{Github, Origins, RestLimits};
use crate::dispatch::{Committed, Rule};
use crate::event::IDEMPOTENCY_KEY_BYTES_MAX;
use crate::foreign::Foreign;
use crate::rabbitmq::Watch;
use crate::realtime::Hub;
use crate::tally::Tally;

pub(crate) use assets::CLIENT_PATHS;
pub(crate) use events::{complete, split};
pub(crate) use runs::approval_rule;
pub(crate) use schedules::begin as schedule;
pub(crate) use stats::{Rates, sample};

/// What every route reads.
#[derive(Clone)]
pub(crate) struct App {
    /// The engine.
    pub(crate) server: Server,
    /// What routes work on.
    pub(crate) hub: Arc<Hub>,
    /// Bounds of requests.
    pub(crate) limits: RestLimits,
    /// Which pages may use the server.
    pub(crate) origins: Arc<Origins>,
    /// Headers for these pages.
    pub(crate) cors: engine::Cors,
    /// Who may do what.
    pub(crate) auth: Arc<Authenticator>,
    /// What is counted.
    pub(crate) tally: Arc<Tally>,
    /// Events a second, lately.
    pub(crate) rates: Arc<Rates>,
    /// Whose webhooks are taken, if any are.
    pub(crate) github: Arc<Option<Github>>,
    /// How the queues of RabbitMQ are doing.
    pub(crate) queues: Watch,
    /// How the streams and channels of Redis are doing that events are taken from.
    pub(crate) redis_ingest: Watch,
    /// Servers of other making.
    pub(crate) foreign: Foreign,
    /// How many events wait for their moment.
    pub(crate) schedules: Arc<schedules::Count>,
    /// How many rooms were made by hand.
    pub(crate) made_rooms: Arc<schedules::Count>,
    /// Whether new work is welcome; false while shutting down.
    pub(crate) is_ready: Arc<AtomicBool>,
    /// The port of the listener that this copy serves.
    pub(crate) port: Arc<AtomicU16>,
}

impl App {
    /// All routes: the api listener's.
    pub(crate) fn api(self) -> Router {
        let router = Router::new()
            .route("/", get(assets::page))
            .route("/ui", get(assets::page))
            .route("/ui/{file}", get(assets::page_file))
            .route("/livez", get(health::live))
            .route("/readyz", get(health::ready))
            .route("/metrics", get(metrics::metrics))
            .route("/api/v1/events", post(events::publish_one))
            .route("/api/v1/events/batch", post(events::publish_batch))
            .route("/api/v1/schedules", get(schedules::list))
            .route("/api/v1/schedules/{id}", delete(schedules::cancel))
            .route("/api/v1/templates", get(templates::list))
            .route(
                "/api/v1/templates/{name}",
                get(templates::show).put(templates::put).delete(templates::remove),
            )
            .route("/api/v1/jobs", get(jobs::list).post(jobs::create))
            .route("/api/v1/jobs/{id}", get(jobs::show))
            .route("/api/v1/jobs/{id}/{verb}", post(jobs::command))
            .route("/api/v1/runs", get(runs::list).post(runs::start))
            .route("/api/v1/runs/start", post(runs::start))
            .route("/start", post(runs::start))
            .route("/api/v1/runs/approve", post(runs::approve))
            .route("/approve", post(runs::approve))
            .route("/api/v1/runs/{thread_id}", get(runs::show))
            .route("/api/v1/runs/status/{thread_id}", get(runs::show))
            .route("/status/{thread_id}", get(runs::show))
            .route("/api/v1/runs/{thread_id}/status", post(runs::update))
            .route("/api/v1/runs/{thread_id}/approve", post(runs::approve_one))
            .route("/api/v1/runs/{thread_id}/control", get(runs::controls).post(runs::control))
            .route("/api/v1/logs", post(runs::logs))
            .route("/api/v1/users", get(users::users))
            .route("/socket/users", get(users::users))
            .route("/api/v1/users/{id}/connected", get(users::connected))
            .route("/socket/users/{id}/connected", get(users::connected))
            .route("/api/v1/rooms", get(users::rooms).post(users::make))
            .route("/socket/rooms", get(users::rooms).post(users::make))
            .route("/api/v1/rooms/join", post(users::join))
            .route("/socket/rooms/join", post(users::join))
            .route("/api/v1/rooms/leave", post(users::leave))
            .route("/socket/rooms/leave", post(users::leave))
            .route("/api/v1/rooms/message", post(users::message))
            .route("/socket/rooms/message", post(users::message))
            .route("/api/v1/notifications", post(notifications::notify))
            .route("/socket/notifications", post(notifications::notify))
            .route("/api/v1/announcements", post(notifications::announce))
            .route("/webhooks/github", post(github::webhook))
            .route("/socket/health", get(health::health))
            .route("/api/v1/schemas", get(schemas::bundle))
            .route("/api/v1/schemas/{event}", get(schemas::one))
            .route("/api/v1/asyncapi.json", get(schemas::asyncapi))
            .route("/api/v1/openapi.json", get(schemas::openapi))
            .route("/api/v1/rooms/{room}/events", get(rooms::events))
            .route("/api/v1/rooms/{room}/presence", get(rooms::presence))
            .route("/api/v1/revocations", post(auth::revoke))
            .route("/api/v1/websocket/stats", get(stats::stats))
            .route("/socket/stats", get(stats::stats));
        let router = if self.auth.is_open() {
            router
                .route("/debug/socketio", get(debug::show))
                .route("/debug/socketio/broadcast", post(debug::broadcast))
        } else {
            router
        };
        self.finish(router)
    }

    /// The realtime listener's routes.
    pub(crate) fn realtime(self) -> Router {
        self.finish(Router::new())
    }

    fn finish(self, mut router: Router<App>) -> Router {
        for path in CLIENT_PATHS {
            router = router.route(path, get(assets::client_file));
        }
        router
            .route("/health", get(health::health))
            .route("/stats", get(stats::stats))
            .fallback(async |State(app): State<App>| {
                app.refuse(Fault::new(Code::NotFound, "there is nothing at this path"))
            })
            .method_not_allowed_fallback(async |State(app): State<App>| {
                app.refuse(Fault::new(Code::MethodNotAllowed, "this path takes another method"))
            })
            .layer(from_fn_with_state(self.clone(), guard))
            .with_state(self)
    }

    /// Answers what a route has come to.
    fn answer(&self, outcome: Result<(StatusCode, impl Serialize), Fault>) -> Response {
        match outcome {
            Ok((status, body)) => json(status, &body),
            Err(fault) => self.refuse(fault),
        }
    }

    /// Answers a fault, and counts it.
    pub(crate) fn refuse(&self, fault: Fault) -> Response {
        self.tally.count_fault(fault.code);
        tracing::debug!(code = fault.code.as_str(), message = fault.message, "request refused");
        let status = StatusCode::from_u16(fault.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = json(status, &serde_json::json!({ "error": fault.to_json() }));
        if let Some(seconds) = fault.retry_after {
            response.headers_mut().insert(RETRY_AFTER, seconds.into());
        }
        if status == StatusCode::UNAUTHORIZED {
            // RFC 9110 §11.6.1: a 401 says by what means it can be avoided.
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }

    /// Decides on a record, once for each idempotency key.
    async fn change(&self, headers: &HeaderMap, key: RecordKey, rule: Rule) -> Result<Committed, Fault> {
        let idempotency = idempotency_header(headers)?.map(|name| IdempotencyKey {
            // A key belongs to one record: the same one for another means something else.
            scope: format!("{}:{}", key.kind.as_str(), key.id).into(),
            key: name.into(),
        });
        self.hub.dispatcher().change(Some(key), idempotency, rule).await
    }

    /// Reads a request's body as a `T`.
    async fn read<T: DeserializeOwned>(&self, body: Body) -> Result<T, Fault> {
        parse(&self.body(body).await?)
    }

    /// Reads a request's body whole.
    ///
    /// # Errors
    /// It is too long, too slow, or breaks off.
    pub(crate) async fn body(&self, body: Body) -> Result<Bytes, Fault> {
        let max = self.limits.body_bytes_max;
        let reading = axum::body::to_bytes(body, max);
        match tokio::time::timeout(self.limits.body_timeout, reading).await {
            Ok(Ok(bytes)) => Ok(bytes),
            Ok(Err(error)) => Err(match std::error::Error::source(&error) {
                // The bound is the one cause that has this name; all others are a peer that broke off.
                Some(source) if source.to_string().contains("length limit") => Fault::new(
                    Code::BodyTooLarge,
                    format!("the body exceeds rest.body_bytes_max of {max} bytes"),
                ),
                _ => Fault::new(Code::BadRequest, "the body broke off"),
            }),
            Err(_) => {
                let within = humantime::format_duration(self.limits.body_timeout);
                Err(Fault::new(Code::BodyTimeout, format!("the body did not arrive within {within}")))
            }
        }
    }
}

/// Reads JSON: what is none is a bad request, what does not fit is a bad payload.
fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Fault> {
    serde_json::from_slice(body).map_err(|error| {
        let code = match error.classify() {
            Category::Data => Code::BadPayload,
            Category::Syntax | Category::Eof | Category::Io => Code::BadRequest,
        };
        Fault::new(code, format!("the body does not fit: {error}"))
    })
}

fn parse_value<T: DeserializeOwned>(value: serde_json::Value) -> Result<T, Fault> {
    serde_json::from_value(value)
        .map_err(|error| Fault::new(Code::BadPayload, format!("the body does not fit: {error}")))
}

/// The header by which a repeated request is known, if there is one.
fn idempotency_header(headers: &HeaderMap) -> Result<Option<String>, Fault> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let key = value.to_str().ok().filter(|key| (1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&key.len()));
    match key {
        Some(key) => Ok(Some(key.to_owned())),
        None => {
            let bounds =
                format!("Idempotency-Key has 1 to {IDEMPOTENCY_KEY_BYTES_MAX} visible ASCII characters");
            Err(Fault::new(Code::BadRequest, bounds))
        }
    }
}

/// A JSON response.
pub(crate) fn json(status: StatusCode, body: &impl Serialize) -> Response {
    let body = serde_json::to_vec(body).expect("invariant: answers have string keys");
    (status, [(CONTENT_TYPE, "application/json")], body).into_response()
}

/// Sees every request first: pages of strange origins are refused, those of known ones get their headers, and whoever
/// must say who they are has to.
///
/// Without this, any page that somebody opens could publish to a server on their own machine: browsers send simple
/// requests everywhere, and only keep the reply from the page.
async fn guard(State(app): State<App>, mut request: Request, next: Next) -> Response {
    app.tally.requests.fetch_add(1, Ordering::Relaxed);
    let headers = request.headers().clone();
    if !is_origin_allowed(&app.origins, &headers) {
        return app.refuse(Fault::new(Code::OriginNotAllowed, ORIGIN_ADVICE));
    }
    if !is_text(request.uri().path()) {
        return app.refuse(Fault::new(Code::BadRequest, "the path is not UTF-8"));
    }
    if request.method() == Method::OPTIONS && headers.contains_key(ORIGIN) {
        let mut response = StatusCode::NO_CONTENT.into_response();
        app.cors.apply_preflight(&headers, response.headers_mut());
        return response;
    }
    let checked = auth::check(&app.auth, &mut request).await.and_then(|()| {
        let principal = request.extensions().get::<Arc<Principal>>();
        principal.map_or(Ok(()), |principal| app.hub.limits.request(principal))
    });
    let mut response = match checked {
        Ok(()) => next.run(request).await,
        Err(fault) => app.refuse(fault),
    };
    app.cors.apply(&headers, response.headers_mut());
    response
}

/// Whether a path is text once its escapes are undone (RFC 3986 §2.1). What is no escape stands for itself.
fn is_text(path: &str) -> bool {
    let bytes = path.as_bytes();
    let digit = |at: usize| bytes.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        match (bytes[at], digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                plain.push((high * 16 + low) as u8);
                at += 3;
            }
            (byte, _, _) => {
                plain.push(byte);
                at += 1;
            }
        }
    }
    std::str::from_utf8(&plain).is_ok()
}

/// What a page is told whose origin is not allowed.
pub(crate) const ORIGIN_ADVICE: &str = "this page's origin is not in cors.origins";

/// Whether a request comes from no page at all, one of the server's own, or one of the list.
pub(crate) fn is_origin_allowed(origins: &Origins, headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(ORIGIN) else { return true };
    let Ok(origin) = origin.to_str().map(str::to_ascii_lowercase) else { return false };
    let own = headers.get(HOST).and_then(|host| host.to_str().ok()).map(str::to_ascii_lowercase);
    if own.is_some() && origin.split_once("://").map(|(_, host)| host) == own.as_deref() {
        return true;
    }
    match origins {
        Origins::Any => true,
        Origins::List(list) => list.contains(&origin),
    }
}

/// Headers for pages of these origins.
pub(crate) fn cors(origins: &Origins) -> engine::Cors {
    let cors = match origins {
        Origins::Any => engine::Cors::new(engine::Origins::Any),
        // Credentials: cookies of a proxy in front have to reach it.
        Origins::List(list) => engine::Cors::new(engine::Origins::List(list.clone())).credentials(true),
    };
    // Ten minutes: one question in that time, and a changed list is soon believed.
    cors.max_age_seconds(600)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_text_or_not_after_its_escapes() {
        for text in ["/", "/a%20b", "/%e2%82%ac", "/100%", "/%zz", "/%4", "/\u{fc}"] {
            assert!(is_text(text), "{text}");
        }
        for other in ["/%ff", "/a%e2%82", "/%C3/x"] {
            assert!(!is_text(other), "{other}");
        }
    }

    #[test]
    fn own_pages_and_listed_ones_may_use_the_server() {
        let list = Origins::List(vec!["http://localhost:3000".to_owned()]);
        let allows = |origin: Option<&str>, host: &str| {
            let mut headers = HeaderMap::new();
            if let Some(origin) = origin {
                headers.insert(ORIGIN, origin.parse().unwrap());
            }
            headers.insert(HOST, host.parse().unwrap());
            is_origin_allowed(&list, &headers)
        };
        assert!(allows(None, "127.0.0.1:8000"));
        assert!(allows(Some("http://127.0.0.1:8000"), "127.0.0.1:8000"));
        assert!(allows(Some("http://LOCALHOST:3000"), "127.0.0.1:8000"));
        assert!(!allows(Some("http://127.0.0.1:9000"), "127.0.0.1:8000"));
        assert!(!allows(Some("https://evil.example"), "127.0.0.1:8000"));
        assert!(!allows(Some("null"), "127.0.0.1:8000"));
    }
}
