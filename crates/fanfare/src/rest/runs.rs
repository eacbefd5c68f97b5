//! Owns the routes of runs and log lines. Does not decide what a run may become; that is the hub's.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use hub::log_line::{LogLimits, LogLine, RawLogLine};
use hub::principal::Principal;
use hub::record::State as _;
use hub::run::{self, Approval, ControlRequest, NewRun, Run, RunLimits, RunUpdate};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::App;
use super::listing::{self, Page};
use crate::codes::{Code, Fault};
use crate::dispatch::record_rule;

/// The longest that a runner may wait for a command: proxies cut requests that are silent for a minute.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// `POST /start`, `POST /api/v1/runs`
pub(super) async fn start(State(app): State<App>, headers: HeaderMap, body: Body) -> Response {
    let outcome = try_start(&app, &headers, body).await;
    app.answer(outcome)
}

async fn try_start(app: &App, headers: &HeaderMap, body: Body) -> Result<(StatusCode, Value), Fault> {
    let new: NewRun = app.read(body).await?;
    let id = new.thread_id.as_deref().map_or_else(|| Uuid::now_v7().to_string(), str::to_owned);
    let key = Run::key_of(&id);
    let limits = RunLimits { kept: app.limits.runs_kept, ..RunLimits::default() };
    let rule = record_rule::<Run, _, _>(
        move |present, now| run::start(present, now, &id, new.clone(), &limits),
        view,
    );
    let committed = app.change(headers, key, rule).await?;
    Ok((StatusCode::CREATED, committed.answer))
}

/// `GET /status/{thread_id}`, `GET /api/v1/runs/{thread_id}`
pub(super) async fn show(State(app): State<App>, Path(id): Path<String>) -> Response {
    let outcome = listing::find::<Run>(&app, &id).await;
    app.answer(outcome.map(|run| (StatusCode::OK, view(&run))))
}

/// Which runs.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    status: Option<String>,
    since: Option<String>,
    limit: Option<usize>,
    after: Option<String>,
}

/// `GET /api/v1/runs`
pub(super) async fn list(State(app): State<App>, which: Result<Query<Which>, QueryRejection>) -> Response {
    let outcome = try_list(&app, which).await;
    app.answer(outcome)
}

async fn try_list(
    app: &App,
    which: Result<Query<Which>, QueryRejection>,
) -> Result<(StatusCode, Value), Fault> {
    let Query(which) = which.map_err(listing::bad_query)?;
    let page = Page { after: which.after, limit: which.limit, since: which.since };
    listing::page(app, "runs", page.listing(None, which.status)?, view).await
}

/// `POST /api/v1/runs/{thread_id}/status`
pub(super) async fn update(
    State(app): State<App>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let outcome = async {
        let update: RunUpdate = app.read(body).await?;
        let limits = RunLimits::default();
        let rule = record_rule::<Run, _, _>(
            move |present, now| run::update(present, now, update.clone(), &limits),
            view,
        );
        Ok((StatusCode::OK, app.change(&headers, Run::key_of(&id), rule).await?.answer))
    };
    app.answer(outcome.await)
}

/// `POST /approve`: the body names the run.
pub(super) async fn approve(State(app): State<App>, headers: HeaderMap, body: Body) -> Response {
    let outcome = async {
        let approval: Approval = app.read(body).await?;
        decide(&app, &headers, approval).await
    };
    app.answer(outcome.await)
}

/// `POST /api/v1/runs/{thread_id}/approve`: the path names the run.
pub(super) async fn approve_one(
    State(app): State<App>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let outcome = async {
        let mut fields: Map<String, Value> = app.read(body).await?;
        match fields.get("thread_id").and_then(Value::as_str) {
            Some(named) if named != id => {
                return Err(Fault::new(Code::BadPayload, "the path and `thread_id` name different runs"));
            }
            _ => fields.insert("thread_id".into(), id.into()),
        };
        decide(&app, &headers, super::parse_value(Value::Object(fields))?).await
    };
    app.answer(outcome.await)
}

async fn decide(app: &App, headers: &HeaderMap, approval: Approval) -> Result<(StatusCode, Value), Fault> {
    let run = approval.thread_id.clone();
    let committed = app.change(headers, Run::key_of(&run), approval_rule(approval, None)).await?;
    app.hub.tell_runner(&run);
    Ok((StatusCode::OK, committed.answer))
}

/// The rule of an approval, for routes and the command.
pub(crate) fn approval_rule(approval: Approval, by: Option<Box<str>>) -> crate::dispatch::Rule {
    let limits = RunLimits::default();
    record_rule::<Run, _, _>(
        move |present, now| run::approve(present, now, approval.clone(), by.as_deref(), &limits),
        view,
    )
}

/// `POST /api/v1/runs/{thread_id}/control`
pub(super) async fn control(
    State(app): State<App>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let outcome = async {
        let request: ControlRequest = app.read(body).await?;
        let limits = RunLimits::default();
        let rule = record_rule::<Run, _, _>(
            move |present, now| run::control(present, now, request.clone(), None, &limits),
            view,
        );
        let committed = app.change(&headers, Run::key_of(&id), rule).await?;
        app.hub.tell_runner(&id);
        Ok((StatusCode::ACCEPTED, committed.answer))
    };
    app.answer(outcome.await)
}

/// What a runner waits for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wait {
    wait: Option<String>,
    after: Option<u64>,
}

/// `GET /api/v1/runs/{thread_id}/control?wait=30s&after=ID`
pub(super) async fn controls(
    State(app): State<App>,
    Path(id): Path<String>,
    wait: Result<Query<Wait>, QueryRejection>,
) -> Response {
    let outcome = try_controls(&app, &id, wait).await;
    app.answer(outcome)
}

async fn try_controls(
    app: &App,
    id: &str,
    wait: Result<Query<Wait>, QueryRejection>,
) -> Result<(StatusCode, Value), Fault> {
    let Query(wait) = wait.map_err(listing::bad_query)?;
    let span = match wait.wait.as_deref() {
        None => Duration::ZERO,
        Some(text) => humantime::parse_duration(text)
            .map_err(|error| Fault::new(Code::BadRequest, format!("`wait` is a time such as 30s: {error}")))?
            .min(WAIT_MAX),
    };
    let until = tokio::time::Instant::now() + span;
    let key = Run::key_of(id);
    let after = wait.after.unwrap_or(0);
    if after > 0 {
        // Asking for what follows says that the rest has arrived.
        let rule = record_rule::<Run, _, _>(move |present, _| run::acknowledge(present, after), view);
        app.hub.dispatcher().change(Some(key.clone()), None, rule).await?;
    }
    loop {
        // Registered before the look, so that a change right after it is noticed.
        let changed = app.hub.dispatcher().changed(&key);
        let run: Run = listing::find(app, id).await?;
        let commands = run.controls(after);
        if !commands.is_empty() || tokio::time::Instant::now() >= until {
            return Ok((StatusCode::OK, json!({ "commands": commands })));
        }
        app.hub.dispatcher().wait_changed(changed, until).await;
    }
}

/// `POST /api/v1/logs`: one line, a JSON array, or NDJSON.
pub(super) async fn logs(
    State(app): State<App>,
    Extension(principal): Extension<Arc<Principal>>,
    body: Body,
) -> Response {
    let outcome = try_logs(&app, &principal, body).await;
    app.answer(outcome)
}

async fn try_logs(app: &App, principal: &Principal, body: Body) -> Result<(StatusCode, Value), Fault> {
    let body = app.body(body).await?;
    let texts = super::events::split(&body, app.limits.batch_events_max)?;
    let limits = LogLimits::default();
    let now = crate::event::now();
    let mut events = Vec::with_capacity(texts.len());
    for (nth, text) in texts.into_iter().enumerate() {
        let line = super::parse::<RawLogLine>(text).and_then(|raw| Ok(LogLine::new(now, raw, &limits)?));
        let line = line.map_err(|fault| Fault::new(fault.code, format!("line {nth}: {}", fault.message)))?;
        events.push(crate::realtime::log_event(&line)?);
    }
    let accepted = events.len();
    app.hub.limits.events(principal, accepted)?;
    app.hub.dispatcher().publish(None, events)?.done().await?;
    Ok((StatusCode::ACCEPTED, json!({ "accepted": accepted })))
}

fn view(run: &Run) -> Value {
    serde_json::to_value(run.view()).unwrap_or_default()
}
