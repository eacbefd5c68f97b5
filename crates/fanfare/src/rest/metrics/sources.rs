//! Owns how queues, streams, tools and servers of other making are doing, as metrics. Does not find out.

use std::fmt::Result;

use prometheus_client::encoding::DescriptorEncoder;
use queues::Report;
use tools::{Health, ToolStats};

use super::families::{by_label, by_outcome, counter, gauge, gauge_by_label};
use crate::foreign::ForeignReport;

/// What queues or streams brought; the label that names one is `label`.
pub(super) fn encode_queues(
    encoder: &mut DescriptorEncoder<'_>,
    prefix: &str,
    label: &str,
    reports: &[Report],
) -> Result {
    let name = |figure: &str| format!("{prefix}_{figure}");
    let of =
        |pick: fn(&Report) -> u64| reports.iter().map(move |report| (report.queue.as_str(), pick(report)));
    let outcomes = reports.iter().map(|report| {
        let outcomes = [
            ("kept", report.kept),
            ("repeated", report.repeated),
            ("ignored", report.ignored),
            ("dead", report.dead),
            ("dropped", report.dropped),
        ];
        (report.queue.as_str(), outcomes)
    });
    by_outcome(encoder, &name("messages"), "Messages taken, by what became of them", label, outcomes)?;
    by_label(encoder, &name("received"), "Messages that came", label, of(|report| report.received))?;
    by_label(
        encoder,
        &name("retries"),
        "Times that one was tried again",
        label,
        of(|report| report.retried),
    )?;
    let help = "Connections that were made";
    by_label(encoder, &name("connections"), help, label, of(|report| report.connections))?;
    let canaries = reports.iter().map(|report| {
        let canaries = [("sent", report.canaries_sent), ("heard", report.canaries_heard)];
        (report.queue.as_str(), canaries)
    });
    by_outcome(encoder, &name("canaries"), "Messages to oneself", label, canaries)?;
    let help = "Messages that are taken and not acknowledged";
    gauge_by_label(encoder, &name("underway"), help, label, of(|report| report.underway))?;
    let help = format!("Whether a {label} is heard: 1 if it is");
    gauge_by_label(encoder, &name("heard"), &help, label, of(|report| u64::from(report.status == "ok")))
}

/// How tools are doing.
pub(super) fn encode_tools(encoder: &mut DescriptorEncoder<'_>, tools: &[ToolStats]) -> Result {
    let of = |pick: fn(&ToolStats) -> u64| tools.iter().map(move |tool| (tool.id.as_str(), pick(tool)));
    let outcomes = tools.iter().map(|tool| {
        let outcomes = [
            ("completed", tool.completed),
            ("failed", tool.failed),
            ("cancelled", tool.cancelled),
            ("refused", tool.refused),
        ];
        (tool.id.as_str(), outcomes)
    });
    by_outcome(encoder, "tool_requests", "Requests to tools, by what became of them", "tool", outcomes)?;
    let help = "Times that a tool was asked again";
    by_label(encoder, "tool_retries", help, "tool", of(|tool| tool.retried))?;
    gauge_by_label(encoder, "tool_running", "Requests under way", "tool", of(|tool| tool.running as u64))?;
    gauge_by_label(encoder, "tool_waiting", "Requests that wait", "tool", of(|tool| tool.waiting as u64))?;
    let help = "Whether a tool answers: 0 after three failures in a row";
    let is_healthy = |tool: &ToolStats| u64::from(tool.health != Health::Failing);
    gauge_by_label(encoder, "tool_healthy", help, "tool", of(is_healthy))
}

/// The conversation with servers of other making.
pub(super) fn encode_adapter(encoder: &mut DescriptorEncoder<'_>, report: &ForeignReport) -> Result {
    let ForeignReport { peer, refused } = report;
    let outcomes = [
        ("received", peer.received),
        ("sent", peer.sent),
        ("server_side", peer.server_side),
        ("undecodable", peer.undecodable),
        ("dropped", peer.dropped),
        ("refused", *refused),
    ];
    let help = "Messages of other Socket.IO servers over Redis";
    by_label(encoder, "adapter_messages", help, "outcome", outcomes.into_iter())?;
    counter(encoder, "adapter_connections", "Connections that were made to Redis", peer.connections)?;
    let others = peer.others.iter().map(|(namespace, count)| (namespace.as_str(), *count));
    gauge_by_label(encoder, "adapter_others", "Other servers that listen", "namespace", others)?;
    let is_heard = u64::from(peer.status == "ok");
    gauge(encoder, "adapter_heard", "Whether they are heard: 1 if so", is_heard)
}
