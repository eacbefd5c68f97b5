//! Owns how a server that is told to stop lets its connections go: how fast, and what sockets are told first. Does not know
//! signals, nor how sessions are closed; that is the engine's `Server::drain`.

use std::num::NonZeroU32;
use std::time::Duration;

use engine::Server;
use serde_json::json;

/// Between telling sockets and letting the first of them go: what is on its way to one that goes is dropped.
const LEAD: Duration = Duration::from_millis(200);

/// How much of the rate is used. Clients wait for a moment of random length before they come back, so in some seconds more
/// come than went.
const SHARE: f64 = 0.8;

/// How fast connections are let go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// Time that it takes however few they are.
    pub(crate) time: Duration,
    /// How many may go in a second; `None` is as many as there are.
    pub(crate) per_second_max: Option<NonZeroU32>,
    /// Time that `per_second_max` may lengthen it to.
    pub(crate) time_max: Duration,
}

impl Pace {
    /// How long it takes to let go of so many, `LEAD` included.
    pub(crate) fn takes(&self, connections: usize) -> Duration {
        let Some(per_second_max) = self.per_second_max else { return self.time };
        let needed =
            LEAD + Duration::from_secs_f64(connections as f64 / (SHARE * f64::from(per_second_max.get())));
        self.time.max(needed.min(self.time_max))
    }
}

/// Tells all sockets that the server stops, and lets them go one after the other. New sessions are refused meanwhile.
pub(crate) async fn drain(server: &Server, pace: &Pace) {
    let stats = server.stats(false).await;
    // Who must come back because this server stops: its own, and those of other nodes whose WebSocket goes through it.
    let connections = stats.held(|gauges| gauges.sessions) + stats.tunnels;
    let within = pace.takes(connections);
    tracing::info!(connections, within = %humantime::format_duration(within), "letting connections go");
    let told = json!({ "reason": "shutdown", "reconnect_in_ms": within.as_millis() });
    for namespace in stats.namespaces.keys() {
        // Not for those who come back: it is over by then.
        if let Err(error) = server.of(namespace).transient().emit("server_shutdown", &told) {
            tracing::debug!(namespace, %error, "sockets could not be told of the end");
        }
    }
    if !within.is_zero() {
        tokio::time::sleep(LEAD.min(within)).await;
    }
    server.drain(within.saturating_sub(LEAD)).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_connections_take_longer_up_to_a_bound() {
        let second = Duration::from_secs(1);
        let pace = |per_second_max| Pace {
            time: 10 * second,
            per_second_max: NonZeroU32::new(per_second_max),
            time_max: 60 * second,
        };
        for (per_second_max, connections, takes) in
            [(0, 1_000_000, 10), (100, 0, 10), (100, 700, 10), (100, 1_600, 20), (100, 1_000_000, 60)]
        {
            let lead = if (11..60).contains(&takes) { LEAD } else { Duration::ZERO };
            assert_eq!(
                pace(per_second_max).takes(connections),
                takes * second + lead,
                "{per_second_max} {connections}"
            );
        }
        let patient = Pace { time: 90 * second, ..pace(1) };
        assert_eq!(patient.takes(1_000), 90 * second, "who asks for longer gets it");
    }
}
