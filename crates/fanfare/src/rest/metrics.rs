//! Owns the figures as Prometheus reads them. Does not keep any: each scrape is written from what is true then.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use engine::Stats;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use queues::Report;

use super::App;
use crate::codes::{Code, Fault};

/// `GET /metrics`
pub(super) async fn metrics(State(app): State<App>) -> Response {
    let stats = app.server.stats(false).await;
    let mut registry = Registry::with_prefix("fanfare");
    registry.register_collector(Box::new(Scrape {
        stats,
        uptime_s: app.tally.uptime_s(),
        events_published: app.tally.events_published.load(Ordering::Relaxed),
        requests: app.tally.requests.load(Ordering::Relaxed),
        commands: app.tally.commands(),
        faults: app.tally.faults(),
        limited: app.hub.limits.refused().collect(),
        queues: app.queues.reports(),
        redis_ingest: app.redis_ingest.reports(),
        adapter: app.foreign.report(),
    }));
    let mut body = String::new();
    if let Err(error) = text::encode(&mut body, &registry) {
        return app.refuse(Fault::new(Code::Internal, format!("metrics could not be written: {error}")));
    }
    ([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], body).into_response()
}

/// Everything at one moment.
#[derive(Debug)]
struct Scrape {
    stats: Stats,
    uptime_s: u64,
    events_published: u64,
    requests: u64,
    commands: Vec<(&'static str, u64)>,
    faults: Vec<(Code, u64)>,
    limited: Vec<(&'static str, u64)>,
    queues: Vec<Report>,
    redis_ingest: Vec<Report>,
    adapter: Option<adapter::Report>,
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        gauge(&mut encoder, "uptime_seconds", "Time since the process began", self.uptime_s)?;
        let gauges: [(&str, &str, usize); 9] = [
            ("sockets", "Sockets connected to a namespace", self.stats.held(|gauges| gauges.sockets)),
            ("sessions", "Live Engine.IO sessions", self.stats.held(|gauges| gauges.sessions)),
            (
                "sessions_websocket",
                "Of these, on WebSocket",
                self.stats.held(|gauges| gauges.sessions_websocket),
            ),
            (
                "sockets_recoverable",
                "Lost sockets that may come back",
                self.stats.held(|gauges| gauges.sockets_lost),
            ),
            ("rooms", "Rooms with members", self.stats.held(|gauges| gauges.rooms)),
            ("recovery_log_events", "Events kept for recovery", self.stats.held(|gauges| gauges.log_events)),
            ("recovery_log_bytes", "Bytes kept for recovery", self.stats.held(|gauges| gauges.log_bytes)),
            ("acks_awaited", "Emits whose ack is awaited", self.stats.held(|gauges| gauges.acks_awaited)),
            ("tcp_connections", "TCP connections, WebSocket links included", self.stats.connections),
        ];
        for (name, help, value) in gauges {
            gauge(&mut encoder, name, help, value as u64)?;
        }
        let by_namespace: BTreeMap<_, _> = self.stats.namespaces.iter().collect();
        let mut family = encoder.encode_descriptor(
            "namespace_sockets",
            "Sockets by namespace",
            None,
            MetricType::Gauge,
        )?;
        for (namespace, count) in by_namespace {
            let labels = [("namespace", namespace.as_str())];
            ConstGauge::<u64>::new(*count as u64).encode(family.encode_family(&labels)?)?;
        }

        counter(&mut encoder, "events_published", "Events published over HTTP", self.events_published)?;
        counter(&mut encoder, "http_requests", "HTTP requests that were not Socket.IO's", self.requests)?;
        counter(
            &mut encoder,
            "mailbox_refusals",
            "Orders refused by a busy shard",
            self.stats.mailbox_refusals,
        )?;
        by_label(
            &mut encoder,
            "commands",
            "Commands from sockets",
            "command",
            self.commands.iter().copied(),
        )?;
        let refusals = self.faults.iter().map(|(code, count)| (code.as_str(), *count));
        by_label(&mut encoder, "refusals", "Requests and commands refused", "code", refusals)?;
        let limited = self.limited.iter().copied();
        by_label(&mut encoder, "limited", "What was beyond a limit", "limit", limited)?;
        by_queue(&mut encoder, "rabbitmq", "queue", &self.queues)?;
        by_queue(&mut encoder, "redis_ingest", "source", &self.redis_ingest)?;
        if let Some(report) = &self.adapter {
            let outcomes = [
                ("received", report.received),
                ("sent", report.sent),
                ("server_side", report.server_side),
                ("undecodable", report.undecodable),
                ("dropped", report.dropped),
            ];
            let help = "Messages of other Socket.IO servers over Redis";
            by_label(&mut encoder, "adapter_messages", help, "outcome", outcomes.into_iter())?;
            gauge(
                &mut encoder,
                "adapter_heard",
                "Whether they are heard: 1 if so",
                u64::from(report.status == "ok"),
            )?;
        }

        let mut totals: Vec<(&'static str, u64)> = Vec::new();
        for shard in &self.stats.counters {
            for (nth, (name, count)) in shard.named().into_iter().enumerate() {
                match totals.get_mut(nth) {
                    Some(total) => total.1 += count,
                    None => totals.push((name, count)),
                }
            }
        }
        // What peers broke is one metric with a label, whatever the engine learns to tell apart.
        let faults = totals.iter().filter_map(|(name, count)| Some((name.strip_prefix("faults_")?, *count)));
        by_label(&mut encoder, "faults", "Protocol faults of peers", "kind", faults)?;
        for (name, count) in totals.iter().filter(|(name, _)| !name.starts_with("faults_")) {
            counter(&mut encoder, name, &format!("Engine total, {}", name.replace('_', " ")), *count)?;
        }
        Ok(())
    }
}

/// What queues brought, by queue and by what became of it; the label that names one is `label`.
fn by_queue(
    encoder: &mut DescriptorEncoder<'_>,
    prefix: &str,
    label: &str,
    queues: &[Report],
) -> std::fmt::Result {
    let (name, help) = (format!("{prefix}_messages"), "Messages taken, by what became of them");
    let mut family = encoder.encode_descriptor(&name, help, None, MetricType::Counter)?;
    for Report { queue, kept, repeated, ignored, dead, .. } in queues {
        for (outcome, count) in [("kept", kept), ("repeated", repeated), ("ignored", ignored), ("dead", dead)]
        {
            let labels = [(label, queue.as_str()), ("outcome", outcome)];
            ConstCounter::<u64>::new(*count).encode(family.encode_family(&labels)?)?;
        }
    }
    let (name, help) = (format!("{prefix}_heard"), format!("Whether a {label} is heard: 1 if it is"));
    let mut family = encoder.encode_descriptor(&name, &help, None, MetricType::Gauge)?;
    for report in queues {
        let labels = [(label, report.queue.as_str())];
        ConstGauge::<u64>::new(u64::from(report.status == "ok")).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> std::fmt::Result {
    let metric = ConstGauge::<u64>::new(value);
    metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
}

fn counter(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> std::fmt::Result {
    let metric = ConstCounter::<u64>::new(value);
    metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
}

fn by_label<'a>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    label: &str,
    values: impl Iterator<Item = (&'a str, u64)>,
) -> std::fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (value, count) in values {
        ConstCounter::<u64>::new(count).encode(family.encode_family(&[(label, value)])?)?;
    }
    Ok(())
}
