//! Owns the routes of jobs. Does not decide what a job may become; that is the hub's.

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use hub::job::{self, Heartbeat, Job, JobCommand, JobLimits, NewJob, ProgressUpdate, StatusUpdate};
use hub::json::Json;
use hub::record::State as _;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use uuid::Uuid;

use super::App;
use super::listing::{self, Page};
use crate::codes::{Code, Fault};
use crate::dispatch::record_rule;

/// `POST /api/v1/jobs`
pub(super) async fn create(State(app): State<App>, headers: HeaderMap, body: Body) -> Response {
    let outcome = try_create(&app, &headers, body).await;
    app.answer(outcome)
}

async fn try_create(app: &App, headers: &HeaderMap, body: Body) -> Result<(StatusCode, Value), Fault> {
    let new: NewJob = app.read(body).await?;
    let id = new.job_id.as_deref().map_or_else(|| Uuid::now_v7().to_string(), str::to_owned);
    let key = Job::key_of(&id);
    let limits = JobLimits { kept: app.limits.jobs_kept, ..JobLimits::default() };
    let rule = record_rule::<Job, _, _>(
        move |present, now| job::create(present, now, &id, new.clone(), &limits),
        view,
    );
    let committed = app.change(headers, key, rule).await?;
    Ok((StatusCode::CREATED, committed.answer))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Completion {
    result: Option<Json>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Failure {
    error: Box<str>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Cancellation {
    reason: Option<Box<str>>,
}

/// `POST /api/v1/jobs/{id}/{status,progress,heartbeat,complete,fail,cancel}`
pub(super) async fn command(
    State(app): State<App>,
    Path((id, verb)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let outcome = try_command(&app, &id, &verb, &headers, body).await;
    app.answer(outcome)
}

async fn try_command(
    app: &App,
    id: &str,
    verb: &str,
    headers: &HeaderMap,
    body: Body,
) -> Result<(StatusCode, Value), Fault> {
    let body = app.body(body).await?;
    let command = match verb {
        "status" => JobCommand::Status(parse::<StatusUpdate>(&body)?),
        "progress" => JobCommand::Progress(parse::<ProgressUpdate>(&body)?),
        "heartbeat" => JobCommand::Heartbeat(parse::<Heartbeat>(&body)?),
        "complete" => JobCommand::Complete { result: parse::<Completion>(&body)?.result },
        "fail" => JobCommand::Fail { error: parse::<Failure>(&body)?.error },
        "cancel" => JobCommand::Cancel { reason: parse::<Cancellation>(&body)?.reason },
        _ => return Err(Fault::new(Code::NotFound, "there is nothing at this path")),
    };
    let limits = JobLimits::default();
    let rule = record_rule::<Job, _, _>(
        move |present, now| job::apply(present, now, command.clone(), &limits),
        view,
    );
    let committed = app.change(headers, Job::key_of(id), rule).await?;
    Ok((StatusCode::OK, committed.answer))
}

/// A body that may be missing where nothing in it must be there.
fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Fault> {
    let body = if body.trim_ascii().is_empty() { b"{}" } else { body };
    super::parse(body)
}

/// `GET /api/v1/jobs/{id}`
pub(super) async fn show(State(app): State<App>, Path(id): Path<String>) -> Response {
    let outcome = listing::find::<Job>(&app, &id).await;
    app.answer(outcome.map(|job| (StatusCode::OK, view(&job))))
}

/// Which jobs.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    project_id: Option<String>,
    status: Option<String>,
    since: Option<String>,
    limit: Option<usize>,
    after: Option<String>,
}

/// `GET /api/v1/jobs`
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
    listing::page(app, "jobs", page.listing(which.project_id, which.status)?, view).await
}

fn view(job: &Job) -> Value {
    serde_json::to_value(job.view()).unwrap_or_default()
}
