//! Owns the route that GitHub's webhooks come to. Does not know what they mean; that is the hub's.
//! Invariant: nothing of a body is read before its signature was checked.

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use hub::event::Audience;
use hub::github::{self, Webhook};
use hub::payload::Id;
use hub::room::{RoomKind, RoomName};
use hub::store::IdempotencyKey;
use serde_json::value::to_raw_value;
use serde_json::{Value, json};

use super::App;
use crate::codes::{Code, Fault};
use crate::event::{IDEMPOTENCY_KEY_BYTES_MAX, checked};

/// `POST /webhooks/github`
pub(super) async fn webhook(State(app): State<App>, headers: HeaderMap, body: Body) -> Response {
    let outcome = try_webhook(&app, &headers, body).await;
    app.answer(outcome)
}

async fn try_webhook(app: &App, headers: &HeaderMap, body: Body) -> Result<(StatusCode, Value), Fault> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let Some(github) = &*app.github else {
        return Err(Fault::new(Code::NotFound, "webhooks of GitHub are not taken: github.secret is not set"));
    };
    let body = app.body(body).await?;
    ::auth::webhook::verify_github(&github.secret, header("x-hub-signature-256"), &body)?;
    let event = header("x-github-event").unwrap_or_default();
    // Names of repositories do not depend on the case.
    let project_of = |name: &str| github.repositories.get(&name.to_lowercase()).map(Id::from);
    let (name, project, data) = match github::translate(event, &body, project_of)? {
        Webhook::Event { name, project, data } => (name, project, data),
        Webhook::Ignored(why) => return Ok((StatusCode::ACCEPTED, json!({ "ignored": why.to_string() }))),
    };
    let data =
        to_raw_value(&data).map_err(|error| Fault::new(Code::Internal, format!("no JSON: {error}")))?;
    let rooms = vec![RoomName::of(RoomKind::Project, project.as_str())?];
    let outgoing = checked(name.to_owned(), data, Some((Audience::Rooms, rooms)))?;
    // GitHub delivers again what seemed to fail, under the same id.
    let delivery =
        header("x-github-delivery").filter(|id| (1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&id.len()));
    let key = delivery.map(|id| IdempotencyKey { scope: "github".into(), key: id.into() });
    let committed = app.hub.dispatcher().publish(key, vec![outgoing])?.done().await?;
    let id = committed.ids.first().map(ToString::to_string);
    Ok((StatusCode::ACCEPTED, json!({ "event": name, "id": id })))
}
