//! Owns events that are to be published later: how they are put aside, listed and cancelled.
//! Does not publish them; the dispatcher does when their moment comes.

use std::sync::atomic::{AtomicUsize, Ordering};

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use hub::outgoing::Outgoing;
use hub::record::State as _;
use hub::schedule::{self, Planned, Schedule, ScheduleLimits};
use hub::store::{IdempotencyKey, Listing, RecordKind};
use hub::time::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::App;
use super::listing::{self, Page};
use crate::codes::Fault;
use crate::dispatch::{Underway, record_rule};

/// Records that are counted at once.
const COUNTED_AT_ONCE: usize = 1_000;

/// How many records of one kind there are, or more: what was found at the last count, and every one that was made since.
/// Those that have gone meanwhile are noticed when the number reaches its bound, and everything is counted anew.
#[derive(Debug)]
pub(crate) struct Count(AtomicUsize);

impl Default for Count {
    fn default() -> Self {
        // Nothing has been counted yet.
        Self(AtomicUsize::new(usize::MAX))
    }
}

impl Count {
    /// An upper bound of how many there are; exact where it matters.
    pub(super) async fn count(&self, app: &App, kind: RecordKind, max: usize) -> Result<usize, Fault> {
        let known = self.0.load(Ordering::Relaxed);
        if known < max {
            return Ok(known);
        }
        let store = app.hub.dispatcher().store();
        let (mut count, mut after) = (0, None);
        while count < max {
            let listing = Listing { after, limit: COUNTED_AT_ONCE, ..Listing::default() };
            let records = store.list(kind, listing).await?;
            count += records.len();
            match records.last() {
                Some(last) if records.len() == COUNTED_AT_ONCE => {
                    after = Some((last.state.created_at, last.key.id.clone()));
                }
                _ => break,
            }
        }
        self.0.store(count, Ordering::Relaxed);
        Ok(count)
    }

    /// There is one more.
    pub(super) fn add_one(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Puts an event aside until its moment; one whose moment has passed is published at once.
///
/// # Errors
/// [`crate::codes::Code::TooMany`] if too many wait, or as [`crate::dispatch::Dispatcher::begin`].
pub(crate) async fn begin(
    app: &App,
    idempotency: Option<IdempotencyKey>,
    event: Outgoing,
    deliver_at: Timestamp,
) -> Result<Underway, Fault> {
    plan(app, idempotency, Planned { event, deliver_at, letter: None }).await
}

/// As [`begin`], also for a notification.
///
/// # Errors
/// As there.
pub(super) async fn plan(
    app: &App,
    idempotency: Option<IdempotencyKey>,
    planned: Planned,
) -> Result<Underway, Fault> {
    let limits = ScheduleLimits::default();
    let waiting = app.schedules.count(app, RecordKind::Schedule, limits.waiting_max).await?;
    let id = Uuid::now_v7().to_string();
    let key = Schedule::key_of(&id);
    let rule = record_rule::<Schedule, _, _>(
        move |present, now| schedule::schedule(present, now, &id, planned.clone(), waiting, &limits),
        |schedule| {
            let view = schedule.view();
            json!({ "id": view.id, "deliver_at": view.deliver_at })
        },
    );
    let underway = app.hub.dispatcher().begin(Some(key), idempotency, rule)?;
    app.schedules.add_one();
    Ok(underway)
}

/// Which schedules.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    limit: Option<usize>,
    after: Option<String>,
}

/// `GET /api/v1/schedules`
pub(super) async fn list(State(app): State<App>, which: Result<Query<Which>, QueryRejection>) -> Response {
    let outcome = try_list(&app, which).await;
    app.answer(outcome)
}

async fn try_list(
    app: &App,
    which: Result<Query<Which>, QueryRejection>,
) -> Result<(StatusCode, Value), Fault> {
    let Query(which) = which.map_err(listing::bad_query)?;
    let page = Page { after: which.after, limit: which.limit, since: None };
    listing::page(app, "schedules", page.listing(None, None)?, view).await
}

/// `DELETE /api/v1/schedules/{id}`
pub(super) async fn cancel(State(app): State<App>, Path(id): Path<String>, headers: HeaderMap) -> Response {
    let rule = record_rule::<Schedule, _, _>(|present, _| schedule::cancel(present), view);
    let outcome = app.change(&headers, Schedule::key_of(&id), rule).await;
    app.answer(outcome.map(|committed| (StatusCode::OK, committed.answer)))
}

fn view(schedule: &Schedule) -> Value {
    serde_json::to_value(schedule.view()).unwrap_or_default()
}
