//! Owns the figures as JSON: what the engine and the tally hold, and events a second.
//! Does not know the Prometheus text; that is `metrics.rs`.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use engine::Server;
use serde_json::{Map, Value, json};

use super::App;
use crate::event::timestamp;

/// Rooms that one reply lists, the largest first.
const ROOMS_LISTED_MAX: usize = 200;

/// Time between two looks at the counters. Lower: nervous figures. Higher: late ones.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);

/// Events in and out a second, over the last sample.
#[derive(Default)]
pub(crate) struct Rates(Mutex<(f64, f64)>);

/// Keeps the rates current until the process ends.
pub(crate) async fn sample(server: Server, rates: Arc<Rates>) {
    let mut ticks = tokio::time::interval(SAMPLE_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut last: Option<(Instant, u64, u64)> = None;
    loop {
        ticks.tick().await;
        let stats = server.stats(false).await;
        let now = Instant::now();
        let events_in = stats.total(|counters| counters.events_in);
        let events_out = stats.total(|counters| counters.events_out);
        if let Some((then, in_then, out_then)) = last {
            let seconds = now.duration_since(then).as_secs_f64();
            // Whole events in a second, far below 2^52; tenths are more than people read.
            let rate =
                |now: u64, then: u64| (now.saturating_sub(then) as f64 / seconds * 10.0).round() / 10.0;
            if let Ok(mut rates) = rates.0.lock() {
                *rates = (rate(events_in, in_then), rate(events_out, out_then));
            }
        }
        last = Some((now, events_in, events_out));
    }
}

/// `GET /stats`
pub(super) async fn stats(State(app): State<App>) -> Response {
    let stats = app.server.stats(true).await;
    let (in_per_second, out_per_second) = app.rates.0.lock().map(|rates| *rates).unwrap_or_default();
    let sessions = stats.held(|gauges| gauges.sessions);
    let websocket = stats.held(|gauges| gauges.sessions_websocket);
    // Rooms that only lost sockets are in are kept for them, but nobody is there.
    let mut rooms: Vec<_> = stats.rooms.iter().filter(|(_, members)| **members > 0).collect();
    let rooms_total = rooms.len();
    rooms.sort_unstable_by(|(a, members_a), (b, members_b)| members_b.cmp(members_a).then(a.cmp(b)));
    rooms.truncate(ROOMS_LISTED_MAX);
    let rooms: Vec<Value> = rooms
        .into_iter()
        .map(|((namespace, room), members)| json!({ "namespace": namespace, "room": room, "members": members }))
        .collect();
    let mut counters: Map<String, Value> = Map::new();
    for shard in &stats.counters {
        for (name, count) in shard.named() {
            let total = counters.get(name).and_then(Value::as_u64).unwrap_or(0) + count;
            counters.insert(name.to_owned(), total.into());
        }
    }
    let faults: Map<String, Value> = app
        .tally
        .faults()
        .into_iter()
        .map(|(code, count)| (code.as_str().to_owned(), count.into()))
        .collect();
    let commands: Map<String, Value> =
        app.tally.commands().into_iter().map(|(name, count)| (name.to_owned(), count.into())).collect();
    let body = json!({
        "timestamp": timestamp(),
        "uptime_s": app.tally.uptime_s(),
        "version": env!("CARGO_PKG_VERSION"),
        // These figures are this node's own.
        "cluster": app.hub.dispatcher().cluster().map(|cluster| cluster.check()),
        "connections": {
            "total_connections": stats.held(|gauges| gauges.sockets),
            "sessions": sessions,
            "by_namespace": stats.namespaces.iter().filter(|(_, count)| **count > 0).collect::<BTreeMap<_, _>>(),
            "by_transport": { "websocket": websocket, "polling": sessions.saturating_sub(websocket) },
            "recoverable": stats.held(|gauges| gauges.sockets_lost),
            "tcp": stats.connections,
        },
        "rooms": { "total": rooms_total, "largest": rooms },
        "events": {
            "published": app.tally.events_published.load(Ordering::Relaxed),
            "in": stats.total(|counters| counters.events_in),
            "out": stats.total(|counters| counters.events_out),
            "in_per_second": in_per_second,
            "out_per_second": out_per_second,
        },
        "requests": app.tally.requests.load(Ordering::Relaxed),
        "commands": commands,
        "errors": faults,
        "limited": app.hub.limits.refused().collect::<BTreeMap<_, _>>(),
        "recovery_log": {
            "events": stats.held(|gauges| gauges.log_events),
            "bytes": stats.held(|gauges| gauges.log_bytes),
        },
        "mailbox_refusals": stats.mailbox_refusals,
        // Requests of sessions that live on other nodes.
        "forwarded": {
            "requests": stats.requests_forwarded,
            "unreachable": stats.requests_unreachable,
            "tunnels": stats.tunnels,
        },
        "tools": app.hub.tool_stats(),
        "rabbitmq": app.queues.reports(),
        "redis_ingest": app.redis_ingest.reports(),
        "adapter": app.foreign.report(),
        "counters": counters,
    });
    super::json(StatusCode::OK, &body)
}
