//! Owns how it is with the other nodes of a server, as metrics. Does not find out.

use std::fmt::Result;

use prometheus_client::encoding::DescriptorEncoder;

use super::families::{by_label, counter, gauge, seconds};
use crate::dispatch::Figures;

/// Writes the figures of a node.
pub(super) fn encode(encoder: &mut DescriptorEncoder<'_>, figures: &Figures) -> Result {
    let Figures { health, rooms_heard, repairs, repaired_events, rooms_lost } = figures;
    let is_heard = u64::from(figures.complaint().is_none());
    gauge(encoder, "cluster_heard", "Whether other nodes are heard: 1 if so", is_heard)?;
    gauge(encoder, "cluster_nodes", "Live nodes, this one included", health.nodes as u64)?;
    gauge(encoder, "cluster_rooms_heard", "Rooms that this node hears of", *rooms_heard as u64)?;
    // Before the first mark has come back there is nothing to tell.
    if let Some(trip) = health.canary_trip {
        let help = "Time that the last mark took from this node through Redis and its own feed";
        seconds(encoder, "cluster_canary_seconds", help, trip)?;
    }
    if let Some(age) = health.canary_age {
        seconds(encoder, "cluster_canary_age_seconds", "Time since the last mark came back", age)?;
    }
    let counts = health.counts;
    let outcomes = [
        ("in", counts.messages_in),
        ("out", counts.messages_out),
        ("repeated", counts.repeats),
        ("undecodable", counts.undecodable),
    ];
    by_label(encoder, "cluster_messages", "Messages of nodes over Redis", "outcome", outcomes.into_iter())?;
    for (name, help, value) in [
        ("cluster_cuts", "Connections that other nodes were heard on, and that broke", counts.cuts),
        (
            "cluster_overflows",
            "Times that all that waited was dropped, and read from the store",
            counts.overflows,
        ),
        ("cluster_requests_dropped", "Questions of other nodes that were dropped", counts.requests_dropped),
        ("cluster_repairs", "Times that what had not been heard was read from the store", *repairs),
        ("cluster_repaired_events", "Events that were read then", *repaired_events),
        ("cluster_rooms_lost", "Rooms of which something was gone then", *rooms_lost),
    ] {
        counter(encoder, name, help, value)?;
    }
    Ok(())
}
