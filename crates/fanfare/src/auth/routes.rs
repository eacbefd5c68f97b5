//! Owns the route that takes proofs back: `POST /api/v1/revocations`. Does not judge proofs.

use std::sync::Arc;

use auth::revocation::{REVOCATIONS_MAX, Revocation, Subject};
use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use engine::Server;
use hub::principal::Principal;
use hub::record::State as _;
use serde_json::json;

use super::commands::principal_of;
use super::{NAMESPACES, audit, now};
use crate::codes::{Code, Fault};
use crate::rest::App;

/// Bytes of what is revoked: no token that holds has a longer user, session or id.
const SUBJECT_BYTES_MAX: usize = 200;

/// `POST /api/v1/revocations` with `{"user": …}`, `{"session": …}` or `{"jti": …}`: sockets that came with it are
/// disconnected, and it is no longer taken. Answers how many sockets that were.
pub(crate) async fn revoke(
    State(app): State<App>,
    Extension(principal): Extension<Arc<Principal>>,
    body: Body,
) -> Response {
    match try_revoke(&app, &principal, body).await {
        Ok(disconnected) => crate::rest::json(StatusCode::OK, &json!({ "disconnected": disconnected })),
        Err(fault) => app.refuse(fault),
    }
}

async fn try_revoke(app: &App, principal: &Principal, body: Body) -> Result<usize, Fault> {
    let body = app.body(body).await?;
    let subject: Subject = serde_json::from_slice(&body).map_err(|_| {
        Fault::new(
            Code::BadRequest,
            "a revocation is one of {\"user\": …}, {\"session\": …} and {\"jti\": …}",
        )
    })?;
    let (kind, id) = match &subject {
        Subject::User(id) => ("user", id.clone()),
        Subject::Session(id) => ("session", id.clone()),
        Subject::Jti(id) => ("jti", id.clone()),
    };
    if id.is_empty() || id.len() > SUBJECT_BYTES_MAX {
        let message = format!("what is revoked has 1 to {SUBJECT_BYTES_MAX} bytes");
        return Err(Fault::new(Code::BadRequest, message));
    }
    let revocation = Revocation { subject, at: now() };
    let kept = app.auth.revoke(revocation.clone()).map_err(|_| {
        Fault::new(
            Code::TooMany,
            format!("there are {REVOCATIONS_MAX} revocations: change the secret instead"),
        )
    })?;
    // It holds already. If it cannot be kept the sender is told so, and sends it again.
    app.hub.dispatcher().change(Some(kept.key()), None, kept.rule()).await?;
    // After it holds: whoever connects from now on is refused, so that none is missed.
    let disconnected =
        disconnect(&app.server, &revocation).await + app.hub.revoke_elsewhere(&revocation).await;
    audit::revoked(principal, kind, &id, disconnected);
    Ok(disconnected)
}

/// Ends the connections of all sockets that a revocation covers.
pub(super) async fn disconnect(server: &Server, revocation: &Revocation) -> usize {
    let mut disconnected = 0;
    for namespace in NAMESPACES {
        for found in server.of(namespace).fetch_sockets().await {
            if revocation.covers(&principal_of(found.socket())) {
                found.socket().disconnect_connection();
                disconnected += 1;
            }
        }
    }
    disconnected
}
