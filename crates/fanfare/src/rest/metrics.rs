//! Owns the figures as Prometheus reads them. Does not keep any: each scrape is written from what is true then.
//! `docs/OPERATING.md` lists them all, which a test below holds against what is written.

mod cluster;
mod families;
mod sources;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use engine::Stats;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, text};
use prometheus_client::registry::Registry;
use queues::Report;
use tools::ToolStats;

use self::families::{by_label, counter, gauge, gauge_by_label};
use super::App;
use crate::codes::{Code, Fault};
use crate::dispatch::Figures;
use crate::foreign::ForeignReport;

/// `GET /metrics`
pub(super) async fn metrics(State(app): State<App>) -> Response {
    let stats = app.server.stats(false).await;
    let dispatcher = app.hub.dispatcher();
    let scrape = Scrape {
        stats,
        uptime_s: app.tally.uptime_s(),
        events_published: app.tally.events_published.load(Ordering::Relaxed),
        requests: app.tally.requests.load(Ordering::Relaxed),
        commands: app.tally.commands(),
        faults: app.tally.faults(),
        limited: app.hub.limits.refused().collect(),
        operations_waiting: dispatcher.waiting(),
        order_sent: dispatcher.sent_order(),
        is_store_failing: dispatcher.is_failing(),
        cluster: dispatcher.cluster().map(|cluster| cluster.figures()),
        tools: app.hub.tool_stats(),
        queues: app.queues.reports(),
        redis_ingest: app.redis_ingest.reports(),
        adapter: app.foreign.report(),
    };
    match scrape.write() {
        Ok(body) => ([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], body)
            .into_response(),
        Err(error) => {
            app.refuse(Fault::new(Code::Internal, format!("metrics could not be written: {error}")))
        }
    }
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
    operations_waiting: usize,
    order_sent: u64,
    is_store_failing: bool,
    cluster: Option<Figures>,
    tools: Vec<ToolStats>,
    queues: Vec<Report>,
    redis_ingest: Vec<Report>,
    adapter: Option<ForeignReport>,
}

impl Scrape {
    fn write(self) -> Result<String, std::fmt::Error> {
        let mut registry = Registry::with_prefix("fanfare");
        registry.register_collector(Box::new(self));
        let mut body = String::new();
        text::encode(&mut body, &registry)?;
        Ok(body)
    }
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        gauge(&mut encoder, "uptime_seconds", "Time since the process began", self.uptime_s)?;
        let gauges: [(&str, &str, usize); 13] = [
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
            (
                "websocket_links",
                "WebSocket links, those about to close included",
                self.stats.held(|gauges| gauges.links),
            ),
            (
                "recovery_notes",
                "Notes about sockets that moved or are asked for",
                self.stats.held(|gauges| gauges.notes),
            ),
            ("operations_waiting", "What waits to be kept", self.operations_waiting),
            ("tunnels", "WebSockets of other nodes' sessions that go through this one", self.stats.tunnels),
        ];
        for (name, help, value) in gauges {
            gauge(&mut encoder, name, help, value as u64)?;
        }
        let by_namespace: BTreeMap<_, _> = self.stats.namespaces.iter().collect();
        let by_namespace = by_namespace.into_iter().map(|(name, count)| (name.as_str(), *count as u64));
        gauge_by_label(&mut encoder, "namespace_sockets", "Sockets by namespace", "namespace", by_namespace)?;
        gauge(&mut encoder, "order_sent", "Number of the newest event that was sent", self.order_sent)?;
        let is_failing = u64::from(self.is_store_failing);
        gauge(&mut encoder, "store_failing", "Whether the last commit failed: 1 if so", is_failing)?;

        counter(&mut encoder, "events_published", "Events published over HTTP", self.events_published)?;
        counter(&mut encoder, "http_requests", "HTTP requests that were not Socket.IO's", self.requests)?;
        let counters = [
            ("mailbox_refusals", "Orders refused by a busy shard", self.stats.mailbox_refusals),
            ("handler_panics", "Handlers and middlewares that panicked at once", self.stats.panics),
            ("requests_forwarded", "Requests passed on to other nodes", self.stats.requests_forwarded),
            (
                "requests_unreachable",
                "Requests for nodes that nobody knew or could reach",
                self.stats.requests_unreachable,
            ),
        ];
        for (name, help, value) in counters {
            counter(&mut encoder, name, help, value)?;
        }
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
        if let Some(figures) = &self.cluster {
            cluster::encode(&mut encoder, figures)?;
        }
        sources::encode_tools(&mut encoder, &self.tools)?;
        sources::encode_queues(&mut encoder, "rabbitmq", "queue", &self.queues)?;
        sources::encode_queues(&mut encoder, "redis_ingest", "source", &self.redis_ingest)?;
        if let Some(report) = &self.adapter {
            sources::encode_adapter(&mut encoder, report)?;
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use bus::{BusHealth, Counts};
    use queues::Health;

    use super::*;

    /// One of everything.
    fn full() -> Scrape {
        let mut stats = Stats { counters: vec![Default::default()], ..Stats::default() };
        stats.namespaces.insert("/ws".to_owned(), 2);
        let health = Health::new("q", "h");
        health.dropped.store(3, Ordering::Relaxed);
        let adapter = adapter::Report {
            status: "ok",
            complaint: None,
            redis: "h".to_owned(),
            others: [("/".to_owned(), 1)].into(),
            received: 4,
            sent: 5,
            server_side: 0,
            undecodable: 0,
            dropped: 0,
            connections: 1,
        };
        Scrape {
            stats,
            uptime_s: 1,
            events_published: 0,
            requests: 0,
            commands: vec![("ping", 1)],
            faults: vec![(Code::Busy, 1)],
            limited: vec![("handshakes_per_address", 0)],
            operations_waiting: 0,
            order_sent: 7,
            is_store_failing: true,
            cluster: Some(Figures {
                health: BusHealth {
                    is_connected: true,
                    deaf: None,
                    canary_age: Some(Duration::from_secs(1)),
                    canary_trip: Some(Duration::from_millis(250)),
                    is_superseded: false,
                    nodes: 3,
                    counts: Counts { messages_in: 6, cuts: 2, ..Counts::default() },
                },
                rooms_heard: 8,
                repairs: 2,
                repaired_events: 9,
                rooms_lost: 0,
            }),
            tools: vec![ToolStats {
                id: "t".to_owned(),
                kind: "http",
                health: tools::Health::Failing,
                running: 1,
                waiting: 0,
                accepted: 4,
                completed: 1,
                failed: 3,
                cancelled: 0,
                refused: 0,
                retried: 0,
                consecutive_failures: 3,
                last_failure: None,
            }],
            queues: vec![health.report()],
            redis_ingest: vec![health.report()],
            adapter: Some(ForeignReport { peer: adapter, refused: 1 }),
        }
    }

    /// `name{label, label}` of a line.
    fn family(line: &str) -> String {
        let sample = line.rsplit_once(' ').expect("a value").0;
        match sample.split_once('{') {
            None => sample.to_owned(),
            Some((name, labels)) => {
                let labels = labels.trim_end_matches('}').split(',');
                let names: Vec<&str> = labels.filter_map(|label| Some(label.split_once('=')?.0)).collect();
                format!("{name}{{{}}}", names.join(", "))
            }
        }
    }

    #[test]
    fn the_list_in_the_docs_is_what_is_written() {
        let body = full().write().unwrap();
        let written: BTreeSet<String> =
            body.lines().filter(|line| !line.starts_with('#')).map(family).collect();
        let docs = include_str!("../../../../docs/OPERATING.md");
        let section = docs.split("\n## Figures\n").nth(1).and_then(|rest| rest.split("\n## ").next());
        let lines = section.expect("a section").lines().filter(|line| line.starts_with("fanfare_"));
        let listed: BTreeSet<String> = lines.map(str::to_owned).collect();
        let (missing, stale): (Vec<_>, Vec<_>) =
            (written.difference(&listed).collect(), listed.difference(&written).collect());
        assert!(missing.is_empty() && stale.is_empty(), "not in the docs: {missing:?}, not here: {stale:?}");
    }

    #[test]
    fn figures_of_what_is_not_there_are_left_out_and_those_of_what_is_are_told() {
        let body = full().write().unwrap();
        for line in [
            "fanfare_cluster_heard 1",
            "fanfare_cluster_nodes 3",
            "fanfare_cluster_canary_seconds 0.25",
            "fanfare_cluster_messages_total{outcome=\"in\"} 6",
            "fanfare_cluster_cuts_total 2",
            "fanfare_cluster_repaired_events_total 9",
            "fanfare_store_failing 1",
            "fanfare_redis_ingest_messages_total{source=\"q\",outcome=\"dropped\"} 3",
            "fanfare_rabbitmq_heard{queue=\"q\"} 0",
            "fanfare_adapter_messages_total{outcome=\"refused\"} 1",
            "fanfare_adapter_others{namespace=\"/\"} 1",
            "fanfare_tool_healthy{tool=\"t\"} 0",
            "fanfare_tool_requests_total{tool=\"t\",outcome=\"failed\"} 3",
        ] {
            assert!(body.lines().any(|found| found == line), "{line} is missing in\n{body}");
        }
        let alone = Scrape { cluster: None, adapter: None, ..full() }.write().unwrap();
        assert!(!alone.contains("fanfare_cluster_") && !alone.contains("fanfare_adapter_"), "{alone}");
    }
}
