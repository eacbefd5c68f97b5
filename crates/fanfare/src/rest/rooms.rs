//! Owns what can be read of rooms over HTTP: their logs, and who is there.

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use hub::room::RoomName;
use hub::store::Span;
use serde::Deserialize;

use super::App;
use crate::codes::{Code, Fault};
use crate::realtime::HISTORY_EVENTS_MAX;

/// Which part of a log.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Part {
    after: Option<u64>,
    last: Option<usize>,
    limit: Option<usize>,
}

/// `GET /api/v1/rooms/{room}/events?after=SEQ&limit=N`, or `?last=N`
pub(super) async fn events(
    State(app): State<App>,
    Path(room): Path<String>,
    part: Result<Query<Part>, axum::extract::rejection::QueryRejection>,
) -> Response {
    app.answer(read(&app, room, part).await)
}

async fn read(
    app: &App,
    room: String,
    part: Result<Query<Part>, axum::extract::rejection::QueryRejection>,
) -> Result<(StatusCode, serde_json::Value), Fault> {
    let Query(part) = part.map_err(|fault| Fault::new(Code::BadRequest, fault.body_text()))?;
    let limit = part.limit.unwrap_or(100).min(HISTORY_EVENTS_MAX);
    let span = match (part.after, part.last) {
        (Some(_), Some(_)) => return Err(Fault::new(Code::BadRequest, "give `after` or `last`, not both")),
        (None, Some(last)) => Span::Last { limit: last.min(HISTORY_EVENTS_MAX) },
        (after, None) => Span::After { seq: after.unwrap_or(0), limit },
    };
    Ok((StatusCode::OK, app.hub.history(RoomName::parse(room)?, span).await?))
}

/// `GET /api/v1/rooms/{room}/presence`
pub(super) async fn presence(State(app): State<App>, Path(room): Path<String>) -> Response {
    let outcome = match RoomName::parse(room) {
        Ok(room) => Ok((StatusCode::OK, app.hub.presence(&room).await)),
        Err(fault) => Err(fault.into()),
    };
    app.answer(outcome)
}
