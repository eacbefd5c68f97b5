//! Owns whether the server is well, as probes ask for it.

use std::sync::atomic::Ordering;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value, json};

use super::App;

/// `GET /health`
pub(super) async fn health(State(app): State<App>) -> Response {
    let stats = app.server.stats(false).await;
    let sockets = stats.held(|gauges| gauges.sockets);
    let of = |namespace: &str| stats.namespaces.get(namespace).copied().unwrap_or(0);
    let dispatcher = app.hub.dispatcher();
    let store = dispatcher.store().health().await;
    let (complaint, order, bytes) = match store {
        Ok(health) => (health.complaint, health.order, health.bytes),
        Err(fault) => (Some(fault.to_string()), 0, None),
    };
    // What is there goes on being delivered; what is to be kept is refused.
    let is_store_failing = complaint.is_some() || dispatcher.is_failing();
    let rabbitmq = app.queues.check("queues");
    let redis_ingest = app.redis_ingest.check("sources");
    let redis = dispatcher.cluster().map(|cluster| cluster.check());
    let adapter = app.foreign.report().map(|report| json!(report));
    let is_bad = |check: &Option<Value>| check.as_ref().is_some_and(|check| check["status"] != "ok");
    let is_degraded =
        is_store_failing || [&rabbitmq, &redis_ingest, &redis, &adapter].into_iter().any(is_bad);
    let mut body = json!({
        "status": if is_degraded { "degraded" } else { "healthy" },
        "service": "socketio",
        "port": app.port.load(Ordering::Relaxed),
        "uptime_s": app.tally.uptime_s(),
        "version": env!("CARGO_PKG_VERSION"),
        "connections": {
            "log_connections": of("/logs"),
            "admin_connections": of("/admin"),
            "total_connections": sockets,
        },
        "checks": {
            "socketio_manager": {
                "active_connections": sockets,
                "rooms": stats.held(|gauges| gauges.rooms),
            },
            "store": {
                "status": if is_store_failing { "failing" } else { "ok" },
                "complaint": complaint,
                "order": order,
                "bytes": bytes,
                "operations_waiting": dispatcher.waiting(),
            },
        },
    });
    let checks =
        [("rabbitmq", rabbitmq), ("redis_ingest", redis_ingest), ("redis", redis), ("adapter", adapter)];
    for (name, check) in checks {
        if let Some(check) = check {
            body["checks"][name] = check;
        }
    }
    super::json(StatusCode::OK, &body)
}

/// `GET /livez`: the process answers.
pub(super) async fn live() -> Response {
    super::json(StatusCode::OK, &json!({ "status": "ok" }))
}

/// `GET /readyz`: the process takes new work; 503 once it is shutting down, or while a queue, a stream or the other nodes
/// that it should hear are not heard.
pub(super) async fn ready(State(app): State<App>) -> Response {
    let deaf = || {
        let nodes = || app.hub.dispatcher().cluster()?.deaf();
        app.queues.deaf().or_else(|| app.redis_ingest.deaf()).or_else(nodes)
    };
    let (status, body) = if !app.is_ready.load(Ordering::Relaxed) {
        (StatusCode::SERVICE_UNAVAILABLE, json!({ "status": "draining" }))
    } else if let Some(complaint) = deaf() {
        (StatusCode::SERVICE_UNAVAILABLE, json!({ "status": "deaf", "complaint": complaint }))
    } else {
        (StatusCode::OK, json!({ "status": "ready" }))
    };
    super::json(status, &body)
}
