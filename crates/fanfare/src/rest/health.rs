//! Owns whether the server is well, as probes ask for it.

use std::sync::atomic::Ordering;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::json;

use super::App;

/// `GET /health`
pub(super) async fn health(State(app): State<App>) -> Response {
    let stats = app.server.stats(false).await;
    let sockets = stats.held(|gauges| gauges.sockets);
    let body = json!({
        "status": "healthy",
        "service": "socketio",
        "port": app.port.load(Ordering::Relaxed),
        "uptime_s": app.tally.uptime_s(),
        "version": env!("CARGO_PKG_VERSION"),
        "connections": { "total_connections": sockets },
        "checks": {
            "socketio_manager": {
                "active_connections": sockets,
                "rooms": stats.held(|gauges| gauges.rooms),
            },
        },
    });
    super::json(StatusCode::OK, &body)
}

/// `GET /livez`: the process answers.
pub(super) async fn live() -> Response {
    super::json(StatusCode::OK, &json!({ "status": "ok" }))
}

/// `GET /readyz`: the process takes new work; 503 once it is shutting down.
pub(super) async fn ready(State(app): State<App>) -> Response {
    if app.is_ready.load(Ordering::Relaxed) {
        super::json(StatusCode::OK, &json!({ "status": "ready" }))
    } else {
        super::json(StatusCode::SERVICE_UNAVAILABLE, &json!({ "status": "draining" }))
    }
}
