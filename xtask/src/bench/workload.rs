//! The workloads and the targets that the engine must meet in them: data.

/// The figure that is compared with the floor: server CPU for each unit of work, kernel included.
pub(super) const COST: &str = "server_cpu_us_per_unit";

/// Something to measure.
pub(super) struct Workload {
    pub(super) name: &'static str,
    /// What it is, for people.
    pub(super) what: &'static str,
    /// The load generator's flags, without the duration.
    flags: &'static [&'static str],
    /// The same for a peer, if that speaks otherwise.
    peer_flags: Option<&'static [&'static str]>,
    /// Others who are connected meanwhile.
    pub(super) beside: Option<Beside>,
    length: Length,
    /// Figures shown for this workload only: heading and key.
    pub(super) figures: &'static [(&'static str, &'static str)],
    pub(super) targets: &'static [Target],
}

/// Connections that another load generator holds.
#[derive(Clone, Copy)]
pub(super) struct Beside {
    pub(super) conns: usize,
    /// The load generator's flags.
    pub(super) flags: &'static [&'static str],
}

/// The flag that says how long to measure, if there is one; its value, and its value in a quick run.
enum Length {
    Fixed,
    Seconds { flag: &'static str, full: &'static str, quick: &'static str },
}

/// What must hold for ours.
#[derive(Clone, Copy, Debug)]
pub(super) enum Target {
    /// CPU for each unit of work at most this multiple of the floor's.
    CostToFloor(f64),
    /// A figure of the report at most this.
    AtMost { key: &'static str, bound: f64, label: &'static str },
    /// A figure of the report at least this.
    AtLeast { key: &'static str, bound: f64, label: &'static str },
}

const THREE_SECONDS: Length = Length::Seconds { flag: "--secs", full: "3", quick: "1" };

const LATENCY: &[(&str, &str)] = &[("p50 ms", "p50_ms"), ("p99 ms", "p99_ms")];

/// All workloads, in the order in which they are run.
pub(super) const WORKLOADS: &[Workload] = &[
    Workload {
        name: "fanout-1000-w4",
        what: "1,000 subscribers, one room, 64 bytes, 4 publications under way",
        flags: &["fanout", "--conns", "1000", "--rooms", "1", "--size", "64", "--window", "4"],
        peer_flags: None,
        beside: None,
        length: THREE_SECONDS,
        figures: LATENCY,
        targets: &[Target::CostToFloor(0.45)],
    },
    Workload {
        name: "fanout-10000x100",
        what: "10,000 subscribers in 100 rooms, 64 bytes, 4 publications under way",
        flags: &["fanout", "--conns", "10000", "--rooms", "100", "--size", "64", "--window", "4"],
        peer_flags: None,
        beside: None,
        length: THREE_SECONDS,
        figures: LATENCY,
        targets: &[Target::CostToFloor(1.2)],
    },
    Workload {
        name: "open-loop-100",
        what: "1,000 subscribers, one room, 64 bytes, 100 publications a second",
        flags: &["fanout", "--conns", "1000", "--rooms", "1", "--size", "64", "--rate", "100"],
        peer_flags: None,
        beside: None,
        length: THREE_SECONDS,
        figures: LATENCY,
        targets: &[Target::CostToFloor(1.1)],
    },
    Workload {
        name: "echo-100x8",
        what: "100 connections, 8 acknowledged round trips under way on each, 64 bytes",
        flags: &["echo", "--conns", "100", "--window", "8", "--size", "64"],
        peer_flags: None,
        beside: None,
        length: THREE_SECONDS,
        figures: LATENCY,
        targets: &[],
    },
    Workload {
        name: "echo-1000x1",
        what: "1,000 connections, one acknowledged round trip under way on each, 64 bytes",
        flags: &["echo", "--conns", "1000", "--window", "1", "--size", "64"],
        peer_flags: None,
        beside: None,
        length: THREE_SECONDS,
        figures: LATENCY,
        targets: &[Target::CostToFloor(1.4)],
    },
    Workload {
        name: "ingest",
        what: "one connection, rounds of 200,000 events of 128 bytes",
        flags: &["ingest", "--conns", "1", "--msgs", "200000", "--size", "128"],
        peer_flags: None,
        beside: None,
        length: Length::Seconds { flag: "--secs", full: "2", quick: "0.5" },
        figures: &[],
        targets: &[Target::AtLeast { key: "per_sec_at_least", bound: 4e6, label: "events per second" }],
    },
    Workload {
        name: "storm-5000",
        what: "5,000 connections reset at once and opened again, 512 handshakes under way",
        flags: &["storm", "--conns", "5000", "--inflight", "512"],
        peer_flags: None,
        beside: None,
        length: Length::Fixed,
        figures: &[("back s", "all_back_secs"), ("p99 ms", "p99_ms")],
        targets: &[],
    },
    Workload {
        name: "storm-10000",
        what: "10,000 connections reset at once and opened again, 512 handshakes under way",
        flags: &["storm", "--conns", "10000", "--inflight", "512"],
        peer_flags: None,
        beside: None,
        length: Length::Fixed,
        figures: &[("back s", "all_back_secs"), ("p99 ms", "p99_ms")],
        targets: &[Target::AtMost { key: "all_back_secs", bound: 1.0, label: "seconds until all are back" }],
    },
    Workload {
        name: "idle-18000",
        what: "18,000 connections that only stay",
        flags: &["idle", "--conns", "18000", "--timeout", "60"],
        // 30 s: longer than the ping interval, so that every connection has had a heartbeat.
        peer_flags: None,
        beside: None,
        length: Length::Seconds { flag: "--hold", full: "30", quick: "2" },
        figures: &[("KiB each", "rss_kib_per_conn"), ("hold %", "hold_cpu_pct")],
        targets: &[
            Target::AtMost { key: "rss_kib_per_conn", bound: 2.0, label: "KiB per connection" },
            Target::AtMost { key: "hold_cpu_pct", bound: 2.0, label: "% of a core for heartbeats" },
        ],
    },
];

/// What every socket is told first.
const GREETING: &str = "connection_established";

/// Watchers of the room `agents`, and a socket that sends it updates.
macro_rules! watching {
    ($($flag:literal),*) => {
        [
            "fanout", "--ns", "/ws", "--loose", "--ignore", GREETING,
            "--join-event", "subscribe", "--join-arg", r#"{"room":"agents"}"#,
            "--pub-event", "agent_status_update", "--msg-event", "agent_status_update",
            "--pub-arg", r#"{"agent_id":"a","status":"idle","note":%DATA%}"#,
            $($flag),*
        ]
    };
}

/// Whoever connects as a user with a session is in three rooms: `global`, and one of each.
const AS_USERS: &str = r#"{"userId":"u%CONN%","sessionId":"s%CONN%"}"#;

/// What the whole product is measured with, its store included.
pub(super) const PRODUCT: &[Workload] = &[
    Workload {
        name: "publish-batches",
        what: "16 publishers over HTTP, batches of 100 events of 128 bytes, as fast as they are answered",
        flags: &["publish", "--conns", "16", "--batch", "100"],
        peer_flags: None,
        beside: None,
        length: THREE_SECONDS,
        figures: LATENCY,
        targets: &[Target::AtLeast { key: "per_sec", bound: 1e5, label: "events kept per second" }],
    },
    Workload {
        name: "publish-10000",
        what: "the same at 10,000 events a second",
        flags: &["publish", "--conns", "16", "--batch", "100", "--rate", "10000"],
        peer_flags: None,
        beside: None,
        length: THREE_SECONDS,
        figures: LATENCY,
        targets: &[Target::AtMost { key: "p99_ms", bound: 50.0, label: "ms until 99 % are answered" }],
    },
    Workload {
        name: "publish-by-socket",
        what: "one socket, 2,048 updates of 64 bytes under way, each kept and sent to one watcher",
        flags: &watching!["--conns", "1", "--window", "2048"],
        peer_flags: None,
        beside: None,
        length: THREE_SECONDS,
        figures: LATENCY,
        targets: &[],
    },
    Workload {
        name: "watchers-10000",
        what: "10,000 watchers of one room, 5 updates of 64 bytes a second, each kept",
        flags: &watching!["--conns", "10000", "--rate", "5"],
        peer_flags: None,
        beside: None,
        length: THREE_SECONDS,
        figures: LATENCY,
        targets: &[],
    },
    Workload {
        name: "headline",
        what: "5,000 updates a second from one socket to another, with 10,000 users connected",
        flags: &watching!["--conns", "1", "--rate", "5000"],
        peer_flags: None,
        beside: Some(Beside {
            conns: 10_000,
            flags: &["idle", "--conns", "10000", "--ns", "/ws", "--auth", AS_USERS, "--ignore", GREETING],
        }),
        length: THREE_SECONDS,
        figures: LATENCY,
        targets: &[Target::AtMost { key: "p99_ms", bound: 50.0, label: "ms until 99 % have arrived" }],
    },
    Workload {
        name: "users-10000",
        what: "10,000 users, each in three rooms, that only stay",
        flags: &["idle", "--conns", "10000", "--ns", "/ws", "--auth", AS_USERS, "--ignore", GREETING],
        peer_flags: None,
        beside: None,
        length: Length::Seconds { flag: "--hold", full: "30", quick: "2" },
        figures: &[("KiB each", "rss_kib_per_conn"), ("hold %", "hold_cpu_pct")],
        targets: &[
            Target::AtMost { key: "rss_kib_per_conn", bound: 4.0, label: "KiB per connection" },
            Target::AtMost { key: "hold_cpu_pct", bound: 10.0, label: "% of a core for heartbeats" },
        ],
    },
];

/// What three servers with one Redis are measured with, beside Socket.IO for Node with its Redis adapter. The publisher and
/// a third of the watchers are at one server; with a single watcher both are at different ones.
pub(super) const CLUSTER: &[Workload] = &[
    Workload {
        name: "cluster-latency",
        what: "200 updates of 64 bytes a second, from a socket of one server to a socket of another",
        flags: &watching!["--conns", "1", "--rate", "200"],
        peer_flags: Some(&["fanout", "--conns", "1", "--rate", "200"]),
        beside: None,
        length: THREE_SECONDS,
        figures: LATENCY,
        targets: &[],
    },
    Workload {
        name: "cluster-publish",
        what: "the same as fast as they arrive, 512 under way",
        flags: &watching!["--conns", "1", "--window", "512"],
        peer_flags: Some(&["fanout", "--conns", "1", "--window", "512"]),
        beside: None,
        length: THREE_SECONDS,
        figures: LATENCY,
        targets: &[],
    },
    Workload {
        name: "cluster-fanout",
        what: "900 watchers of one room at three servers, 4 updates of 64 bytes under way",
        flags: &watching!["--conns", "900", "--window", "4"],
        peer_flags: Some(&["fanout", "--conns", "900", "--window", "4"]),
        beside: None,
        length: THREE_SECONDS,
        figures: LATENCY,
        targets: &[Target::CostToFloor(0.334)],
    },
];

impl Workload {
    /// The load generator's arguments, against ours or a peer.
    pub(super) fn arguments(&self, is_peer: bool, is_quick: bool) -> Vec<&'static str> {
        let mut arguments = self.peer_flags.filter(|_| is_peer).unwrap_or(self.flags).to_vec();
        match self.length {
            Length::Fixed => {}
            Length::Seconds { flag, full, quick } => {
                arguments.extend([flag, if is_quick { quick } else { full }])
            }
        }
        arguments
    }
}

impl Target {
    /// Whether `value` meets it.
    pub(super) fn is_met(&self, value: f64) -> bool {
        match *self {
            Self::CostToFloor(bound) | Self::AtMost { bound, .. } => value <= bound,
            Self::AtLeast { bound, .. } => value >= bound,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_met_from_the_right_side() {
        assert!(Target::CostToFloor(1.2).is_met(1.2) && !Target::CostToFloor(1.2).is_met(1.21));
        let least = Target::AtLeast { key: "x", bound: 4.0, label: "x" };
        assert!(least.is_met(4.0) && !least.is_met(3.9));
    }

    #[test]
    fn quick_runs_differ_in_length_only() {
        for workload in WORKLOADS.iter().chain(PRODUCT).chain(CLUSTER) {
            let (full, quick) = (workload.arguments(false, false), workload.arguments(false, true));
            assert_eq!(full.len(), quick.len());
            assert!(full.iter().zip(&quick).filter(|(a, b)| a != b).count() <= 1, "{}", workload.name);
        }
    }
}
