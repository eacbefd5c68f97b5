//! Owns the routes for those who look for a fault in development: who is connected, and a broadcast by hand.
//! They are there only where nobody has to say who they are.

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use hub::room::RoomName;
use serde_json::json;

use super::App;
use super::published::Published;
use crate::auth::{NAMESPACES, principal_of};
use crate::codes::Fault;
use crate::event::Draft;

/// Sockets that one answer shows.
const SOCKETS_SHOWN_MAX: usize = 200;

/// `GET /debug/socketio`
pub(super) async fn show(State(app): State<App>) -> Response {
    let mut total = 0;
    let mut sockets = Vec::new();
    for namespace in NAMESPACES {
        let found = app.server.of(namespace).fetch_sockets().await;
        total += found.len();
        for one in found.into_iter().take(SOCKETS_SHOWN_MAX - sockets.len()) {
            let principal = principal_of(one.socket());
            sockets.push(json!({
                "id": one.id().to_string(),
                "namespace": namespace,
                "user_id": principal.user.as_deref(),
                "session_id": principal.session.as_deref(),
                "recovered": one.socket().recovered(),
                "rooms": one.rooms(),
            }));
        }
    }
    app.answer(Ok((StatusCode::OK, json!({ "total": total, "sockets": sockets }))))
}

/// `POST /debug/socketio/broadcast`: as `POST /api/v1/events`, but to everybody unless something else is said.
pub(super) async fn broadcast(State(app): State<App>, headers: HeaderMap, body: Body) -> Response {
    let outcome = try_broadcast(&app, &headers, body).await;
    app.answer(outcome)
}

async fn try_broadcast(app: &App, headers: &HeaderMap, body: Body) -> Result<(StatusCode, Published), Fault> {
    let body = app.body(body).await?;
    let draft = Draft::parse(&body, app.limits.rooms_per_event_max)?.or_to(RoomName::parse("global")?);
    super::events::publish_draft(app, headers, draft).await
}
