//! Owns the routes by which users are told something: one user, or all of them. Does not know who is there.

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use hub::json::Json;
use hub::notification::{self, Message, NotificationLimits};
use hub::schedule;
use hub::store::IdempotencyKey;
use serde::Deserialize;
use uuid::Uuid;

use super::App;
use super::published::Published;
use crate::codes::Fault;
use crate::event::moment;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewNotification {
    #[serde(rename = "userId")]
    user_id: String,
    title: Box<str>,
    message: Box<str>,
    level: Option<Box<str>>,
    data: Option<Json>,
    deliver_at: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewAnnouncement {
    title: Box<str>,
    message: Box<str>,
    level: Option<Box<str>>,
    data: Option<Json>,
    deliver_at: Option<String>,
}

/// `POST /api/v1/notifications`
pub(super) async fn notify(State(app): State<App>, headers: HeaderMap, body: Body) -> Response {
    let outcome = try_notify(&app, &headers, body).await;
    app.answer(outcome)
}

async fn try_notify(app: &App, headers: &HeaderMap, body: Body) -> Result<(StatusCode, Published), Fault> {
    let NewNotification { user_id, title, message, level, data, deliver_at } = app.read(body).await?;
    check_data(data.as_ref())?;
    let idempotency = super::idempotency_header(headers)?
        .map(|name| IdempotencyKey { scope: format!("notification:{user_id}").into(), key: name.into() });
    let message = Message { title, message, level, data };
    let deliver_at = deliver_at.as_deref().map(moment).transpose()?;
    let committed = match deliver_at.filter(|at| *at > crate::event::now()) {
        None => app.hub.notify(&user_id, message, idempotency).await?,
        Some(at) => {
            notification::check(&message, &NotificationLimits::default())?;
            let planned = schedule::letter(&user_id, message, at)?;
            super::schedules::plan(app, idempotency, planned).await?.done().await?
        }
    };
    let status = if committed.is_repetition { StatusCode::OK } else { StatusCode::CREATED };
    Ok((status, Published(committed)))
}

/// `POST /api/v1/announcements`
pub(super) async fn announce(State(app): State<App>, headers: HeaderMap, body: Body) -> Response {
    let outcome = try_announce(&app, &headers, body).await;
    app.answer(outcome)
}

async fn try_announce(app: &App, headers: &HeaderMap, body: Body) -> Result<(StatusCode, Published), Fault> {
    let NewAnnouncement { title, message, level, data, deliver_at } = app.read(body).await?;
    check_data(data.as_ref())?;
    let deliver_at = deliver_at.as_deref().map(moment).transpose()?;
    let now = crate::event::now();
    let id = Uuid::now_v7().to_string();
    let message = Message { title, message, level, data };
    // What is said later is dated when it is said.
    let at = deliver_at.map_or(now, |at| at.max(now));
    let outgoing = notification::announce(at, &id, message, &NotificationLimits::default())?;
    super::events::publish(app, headers, outgoing, deliver_at).await
}

fn check_data(data: Option<&Json>) -> Result<(), Fault> {
    data.map_or(Ok(()), |data| crate::event::check_depth(&data.0))
}
