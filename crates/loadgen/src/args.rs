//! The command line: every flag, its unit and its default.

use std::time::Duration;

use anyhow::ensure;
use clap::{Args, Parser, Subcommand};

use crate::swarm::{Join, Load, Masks, Pace};
use crate::target::{RawTarget, STAMP_BYTES, Target, payload_json};
use crate::usage;

/// Puts a Socket.IO server on this machine under load and judges what it sends.
#[derive(Parser)]
#[command(version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The scenarios.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Open many connections and leave them alone: what do they cost?
    Idle(IdleArgs),
    /// Publish to rooms and count the deliveries.
    Fanout(FanoutArgs),
    /// Acknowledged round trips on many connections.
    Echo(EchoArgs),
    /// Send events as fast as the server takes them.
    Ingest(IngestArgs),
    /// Publish batches over HTTP, on connections that stay open: events answered, and how long each batch took.
    Publish(PublishArgs),
    /// Subscribers over HTTP long-polling: deliveries, polls, order.
    Polling(FanoutArgs),
    /// Fan-out with one subscriber that stops to read, in turns: does the server grow, do the others wait?
    Slow(SlowArgs),
    /// Cut all connections at once and open them again.
    Storm(StormArgs),
    /// The server that does the least: one send(2) for each delivery, no parser. The yardstick of the others.
    Floor(FloorArgs),
}

/// Flags of every scenario.
#[derive(Args)]
pub(crate) struct Common {
    /// Where the server is; loopback only.
    #[arg(long, default_value = "http://127.0.0.1:3000")]
    pub(crate) url: String,
    /// Another server of the same cluster: connections go to all of them in turn. May be repeated.
    #[arg(long)]
    pub(crate) also: Vec<String>,
    /// Path of the Engine.IO endpoint.
    #[arg(long, default_value = "/socket.io/")]
    pub(crate) path: String,
    /// Namespace to connect to.
    #[arg(long, default_value = "/")]
    pub(crate) ns: String,
    /// JSON object for the CONNECT packet; %CONN% becomes the connection's number.
    #[arg(long)]
    pub(crate) auth: Option<String>,
    /// name=value added to the query string; may be repeated.
    #[arg(long)]
    pub(crate) query: Vec<String>,
    /// Processes of the server, separated by commas: their CPU time and memory are reported.
    #[arg(long, value_delimiter = ',')]
    pub(crate) pid: Vec<u32>,
    /// One JSON object instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
    /// A name for the report.
    #[arg(long)]
    pub(crate) label: Option<String>,
    /// Source addresses to spread connections over, from 127.0.0.2 on; 0 takes one per 12,000 connections.
    #[arg(long, default_value_t = 0)]
    pub(crate) src_ips: usize,
    /// Seconds allowed to connect all, and to wait for what is under way at the end.
    #[arg(long, default_value_t = 30.0)]
    pub(crate) timeout: f64,
    /// Handshakes under way at once.
    #[arg(long, default_value_t = 256)]
    pub(crate) inflight: usize,
    /// Mask frames with changing keys instead of the zero key.
    #[arg(long)]
    pub(crate) mask: bool,
    /// Accept more around a payload than the fixture sends, and any answer to a join.
    #[arg(long)]
    pub(crate) loose: bool,
    /// Event that the server sends by itself, as a greeting, and that does not count; may be repeated.
    #[arg(long)]
    pub(crate) ignore: Vec<String>,
    /// Event that joins a room; it must be acknowledged.
    #[arg(long, default_value = "join")]
    pub(crate) join_event: String,
    /// Argument of the join event; %ROOM% and %CONN% are replaced.
    #[arg(long, default_value = r#"{"room":"%ROOM%"}"#)]
    pub(crate) join_arg: String,
}

/// Flags of `idle`.
#[derive(Args)]
pub(crate) struct IdleArgs {
    #[command(flatten)]
    pub(crate) common: Common,
    #[arg(long, default_value_t = 10_000)]
    pub(crate) conns: usize,
    /// Seconds to hold them.
    #[arg(long, default_value_t = 30.0)]
    pub(crate) hold: f64,
    /// Let each connection join the room of this name; %CONN% is its number, %ROOM% that number modulo --rooms.
    #[arg(long)]
    pub(crate) join: Option<String>,
    /// Rooms to spread over.
    #[arg(long, default_value_t = 1)]
    pub(crate) rooms: usize,
}

/// Flags of `fanout` and `polling`, and most of those of `slow`.
#[derive(Args)]
pub(crate) struct FanoutArgs {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Subscribers; the publisher is one connection more.
    #[arg(long, default_value_t = 1000)]
    pub(crate) conns: usize,
    /// Rooms that the subscribers are spread over; publications go round them.
    #[arg(long, default_value_t = 1)]
    pub(crate) rooms: usize,
    /// Payload bytes, at least 12.
    #[arg(long, default_value_t = 64)]
    pub(crate) size: usize,
    /// Closed loop: publications under way at once.
    #[arg(long, default_value_t = 4, conflicts_with = "rate")]
    pub(crate) window: usize,
    /// Open loop: publications per second, whether or not earlier ones have arrived.
    #[arg(long)]
    pub(crate) rate: Option<f64>,
    /// Seconds to measure.
    #[arg(long, default_value_t = 3.0)]
    pub(crate) secs: f64,
    /// Publish this many, and measure from the first to the last, instead of for --secs.
    #[arg(long)]
    pub(crate) msgs: Option<u32>,
    /// Seconds to run before measuring; none with --msgs.
    #[arg(long, default_value_t = 0.3)]
    pub(crate) warmup: f64,
    /// Seconds without any delivery after which what is under way counts as missing.
    #[arg(long, default_value_t = 3.0)]
    pub(crate) stall: f64,
    /// Name of a room; %ROOM% is its number.
    #[arg(long, default_value = "room-%ROOM%")]
    pub(crate) room: String,
    /// Event that publishes.
    #[arg(long, default_value = "pub")]
    pub(crate) pub_event: String,
    /// Argument of the publishing event; %ROOM% is the room's name, %DATA% the payload as a JSON string.
    #[arg(long, default_value = r#"{"room":"%ROOM%","data":%DATA%}"#)]
    pub(crate) pub_arg: String,
    /// Event that delivers.
    #[arg(long, default_value = "msg")]
    pub(crate) msg_event: String,
}

/// Flags of `slow`; --secs is how long all read in each turn.
#[derive(Args)]
pub(crate) struct SlowArgs {
    #[command(flatten)]
    pub(crate) fanout: FanoutArgs,
    /// How often all read and then one does not.
    #[arg(long, default_value_t = 5)]
    pub(crate) turns: usize,
    /// Seconds to wait at most until the server cuts the silent one off.
    #[arg(long, default_value_t = 30.0)]
    pub(crate) silent_max: f64,
    /// Bytes that the server lets wait for one subscriber: by no more may its memory grow.
    #[arg(long, default_value_t = 1 << 20)]
    pub(crate) outbox_max: u64,
}

/// Flags of `echo`.
#[derive(Args)]
pub(crate) struct EchoArgs {
    #[command(flatten)]
    pub(crate) common: Common,
    #[arg(long, default_value_t = 100)]
    pub(crate) conns: usize,
    /// Round trips under way on each connection.
    #[arg(long, default_value_t = 8)]
    pub(crate) window: usize,
    /// Argument bytes, at least 12.
    #[arg(long, default_value_t = 64)]
    pub(crate) size: usize,
    /// Seconds to measure.
    #[arg(long, default_value_t = 3.0)]
    pub(crate) secs: f64,
    /// Seconds to run before measuring.
    #[arg(long, default_value_t = 0.3)]
    pub(crate) warmup: f64,
    /// Event that is echoed.
    #[arg(long, default_value = "echo")]
    pub(crate) echo_event: String,
}

/// Flags of `ingest`.
#[derive(Args)]
pub(crate) struct IngestArgs {
    #[command(flatten)]
    pub(crate) common: Common,
    #[arg(long, default_value_t = 1)]
    pub(crate) conns: usize,
    /// Events of a round; an acknowledged event closes it.
    #[arg(long, default_value_t = 200_000)]
    pub(crate) msgs: u64,
    /// Argument bytes.
    #[arg(long, default_value_t = 128)]
    pub(crate) size: usize,
    /// Begin rounds for this many seconds.
    #[arg(long, default_value_t = 2.0)]
    pub(crate) secs: f64,
    /// Event that is only counted.
    #[arg(long, default_value = "sink")]
    pub(crate) sink_event: String,
    /// Event that is echoed.
    #[arg(long, default_value = "echo")]
    pub(crate) echo_event: String,
    /// Event that is acknowledged with how many sink events the server has counted; then a lost one is noticed.
    #[arg(long)]
    pub(crate) count_event: Option<String>,
}

/// Flags of `publish`.
#[derive(Args)]
pub(crate) struct PublishArgs {
    #[command(flatten)]
    pub(crate) common: Common,
    #[arg(long, default_value_t = 16)]
    pub(crate) conns: usize,
    /// Events of one request.
    #[arg(long, default_value_t = 100)]
    pub(crate) batch: usize,
    /// Bytes of each event's data.
    #[arg(long, default_value_t = 128)]
    pub(crate) size: usize,
    /// Rooms that the requests go round; all events of one are for one room.
    #[arg(long, default_value_t = 1)]
    pub(crate) rooms: usize,
    /// Open loop: events per second, as requests that are due whether or not earlier ones were answered. Without it each
    /// connection has one request under way.
    #[arg(long)]
    pub(crate) rate: Option<f64>,
    /// Seconds to measure.
    #[arg(long, default_value_t = 5.0)]
    pub(crate) secs: f64,
    /// Seconds to run before measuring.
    #[arg(long, default_value_t = 1.0)]
    pub(crate) warmup: f64,
    /// Name of a room; %ROOM% is its number.
    #[arg(long, default_value = "project:%ROOM%")]
    pub(crate) room: String,
    /// Name of the event.
    #[arg(long, default_value = "n")]
    pub(crate) event: String,
    /// Where batches are published.
    #[arg(long, default_value = "/api/v1/events/batch")]
    pub(crate) to: String,
    /// API key, sent as `Authorization: Bearer`.
    #[arg(long)]
    pub(crate) key: Option<String>,
}

/// Flags of `storm`.
#[derive(Args)]
pub(crate) struct StormArgs {
    #[command(flatten)]
    pub(crate) common: Common,
    #[arg(long, default_value_t = 5000)]
    pub(crate) conns: usize,
    /// How connections are cut: `rst` as by a crash, `fin` in order.
    #[arg(long, default_value = "rst")]
    pub(crate) close: Close,
    /// Let each connection join the room of this name before it counts as back; %CONN% and %ROOM% as for `idle`.
    #[arg(long)]
    pub(crate) join: Option<String>,
    /// Rooms to spread over.
    #[arg(long, default_value_t = 1)]
    pub(crate) rooms: usize,
    /// Storms in a row.
    #[arg(long, default_value_t = 1)]
    pub(crate) rounds: usize,
}

/// How connections are cut.
#[derive(Clone, Copy, clap::ValueEnum)]
pub(crate) enum Close {
    Rst,
    Fin,
}

/// Flags of `floor`.
#[derive(Args)]
pub(crate) struct FloorArgs {
    /// Port to listen on, on 127.0.0.1 and thereby for all of its neighbours.
    #[arg(long)]
    pub(crate) port: u16,
    /// Join the frames made from one read into one send(2) for each connection.
    #[arg(long)]
    pub(crate) batched: bool,
    /// Leave out every N-th delivery and acknowledgement, to prove that it is noticed.
    #[arg(long)]
    pub(crate) drop_every: Option<u64>,
}

/// A number of seconds from the command line.
///
/// # Errors
/// The caller's: negative, not finite, or more than a day.
pub(crate) fn secs(seconds: f64) -> anyhow::Result<Duration> {
    ensure!((0.0..=86_400.0).contains(&seconds), "{seconds} s is not between 0 and a day");
    Ok(Duration::from_secs_f64(seconds))
}

impl FanoutArgs {
    /// What every scenario of this kind needs.
    ///
    /// # Errors
    /// The caller's.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        ensure!(self.size >= STAMP_BYTES, "--size must be at least {STAMP_BYTES}");
        ensure!((1..=self.conns).contains(&self.rooms), "--rooms must be between 1 and --conns");
        ensure!(self.window > 0, "--window must be at least 1");
        Ok(())
    }

    /// The join of the subscribers.
    pub(crate) fn subscription(&self) -> Join {
        self.common.join(&self.room, self.rooms, self.conns)
    }

    /// The packet that publishes to `room`, with a hole for the number.
    pub(crate) fn publication(&self, target: &Target, room: usize) -> String {
        let name = self.subscription().room_of(room);
        let argument = self.pub_arg.replace("%ROOM%", &name).replace("%DATA%", &payload_json(self.size));
        target.event_packet(None, &self.pub_event, &argument)
    }
}

impl Common {
    /// What `conns` connections are opened with.
    pub(crate) fn load(&self, conns: usize, join: Option<Join>) -> anyhow::Result<Load> {
        ensure!(conns > 0, "--conns must be at least 1");
        usage::allow_descriptors(conns)?;
        let masks = if self.mask { Masks::Random(0x9e37_79b9_7f4a_7c15) } else { Masks::Zero };
        let mut load = Load::new(self.target(conns)?, join, masks)?;
        self.ignore.iter().for_each(|event| load.swarm.ignore(event));
        Ok(load)
    }

    /// The target of `conns` connections.
    pub(crate) fn target(&self, conns: usize) -> anyhow::Result<Target> {
        let Self { url, also, path, query, ns: namespace, src_ips, .. } = self;
        Target::parse(&RawTarget {
            url,
            also,
            path,
            query,
            namespace,
            auth: self.auth.as_deref(),
            src_ips: *src_ips,
            conns,
        })
    }

    /// The join of the first `links` connections to `room`, spread over `rooms`.
    pub(crate) fn join(&self, room: &str, rooms: usize, links: usize) -> Join {
        Join {
            event: self.join_event.clone(),
            argument: self.join_arg.clone(),
            room: room.to_owned(),
            rooms,
            links,
            answer: (!self.loose).then(|| r#"["ok"]"#.to_owned()),
        }
    }

    /// How fast connections are opened.
    pub(crate) fn pace(&self) -> anyhow::Result<Pace> {
        ensure!(self.inflight > 0, "--inflight must be at least 1");
        Ok(Pace { inflight: self.inflight, timeout: secs(self.timeout)? })
    }
}
