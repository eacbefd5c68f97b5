//! Owns the shard's settings: every limit, its default, and what happens when it is reached.
//! Does not know where settings come from.

use std::time::Duration;

use sio_proto::Parser;

/// Settings of one shard. All shards of a server share one value.
#[derive(Clone, Debug)]
pub struct Config {
    /// Silence between a pong (or the handshake) and the next ping. Default 25 s. Lower: more packets from idle
    /// sessions. Higher: proxies that cut idle links after 30 s or 60 s start to do so. EIO4 "Heartbeat".
    pub ping_interval: Duration,
    /// Silence allowed after a ping. Default 20 s. Lower: phones reconnect in loops. Higher: dead sessions hold
    /// memory. EIO4 "Heartbeat".
    pub ping_timeout: Duration,
    /// Time a WebSocket that wants to take over a polling session has to do so. Default 10 s; when it is over the
    /// WebSocket is closed and the session lives on by polling. EIO4 "Upgrade".
    pub upgrade_timeout: Duration,
    /// Time a new session has to join its first namespace. Default 45 s; then the session is closed.
    pub connect_timeout: Duration,
    /// How long a closing polling session waits for the GET that takes its last packets. Default 30 s.
    pub close_grace: Duration,
    /// Largest WebSocket message and POST body accepted, in bytes. Default 1,000,000 (`maxHttpBufferSize`).
    /// A larger message closes its session; a larger body is refused with 413 and the session lives.
    pub payload_bytes_max: usize,
    /// Most packets in one POST body. Default 10,000; more is a bad payload.
    pub post_packets_max: usize,
    /// Most packets in one polling reply. Default 16, because python-engineio drops a session that gets more.
    pub poll_packets_max: usize,
    /// Bytes of polling reply after which the rest waits for the next GET. Default 1,000,000. The first packet is
    /// always sent.
    pub poll_bytes_max: usize,
    /// Bytes that may wait for one session that does not read. Default 1 MiB. When full, the session is closed with
    /// [`Reason::OutboxFull`](crate::Reason::OutboxFull); volatile events are dropped long before.
    pub outbox_bytes_max: usize,
    /// Rooms one socket may be in, its own apart. Default 1,024; a further join is refused.
    pub rooms_per_socket_max: usize,
    /// Namespaces one session may be in. Default 64; a further CONNECT is refused with CONNECT_ERROR.
    pub namespaces_per_session_max: usize,
    /// Acks one socket may owe us. Default 4,096; a further emit with ack fails at once.
    pub acks_per_socket_max: u32,
    /// Which transports new sessions may use. Default both.
    pub transports: Transports,
    /// Whether a polling session is offered a WebSocket. Default true.
    pub allow_upgrades: bool,
    /// Engine.IO alone: messages go to the application as they are, and there are no namespaces. Default false.
    pub raw_messages: bool,
    /// The Socket.IO parser, the same for every connection. Default [`Parser::Json`].
    pub parser: Parser,
    /// Limits on single Socket.IO packets.
    pub packets: sio_proto::Limits,
    /// WebSocket compression: text and binary frames of at least this many bytes are deflated for links that agreed
    /// to it. Default `None`: compression is never agreed to. RFC 7692.
    pub deflate_threshold: Option<usize>,
    /// Connection state recovery. Default `None`: no socket gets a `pid`.
    pub recovery: Option<Recovery>,
    /// How long the application may take to give back a socket that no shard knows any more. Default `None`: it is not
    /// asked, and such a peer connects as new at once. When the time is up it does so, too.
    pub restore_timeout: Option<Duration>,
    /// How many shards there are. Ids of an earlier process that had more are assigned to those that there are. Default
    /// 0: not told, ids are taken as they are.
    pub shards: u16,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            ping_interval: Duration::from_secs(25),
            ping_timeout: Duration::from_secs(20),
            upgrade_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(45),
            close_grace: Duration::from_secs(30),
            payload_bytes_max: 1_000_000,
            post_packets_max: 10_000,
            poll_packets_max: 16,
            poll_bytes_max: 1_000_000,
            outbox_bytes_max: 1 << 20,
            rooms_per_socket_max: 1_024,
            namespaces_per_session_max: 64,
            acks_per_socket_max: 4_096,
            transports: Transports::default(),
            allow_upgrades: true,
            raw_messages: false,
            parser: Parser::Json,
            packets: sio_proto::Limits::default(),
            deflate_threshold: None,
            recovery: None,
            restore_timeout: None,
            shards: 0,
        }
    }
}

/// Transports that a new session may open with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transports {
    /// HTTP long-polling.
    pub polling: bool,
    /// WebSocket.
    pub websocket: bool,
}

impl Default for Transports {
    fn default() -> Self {
        Self { polling: true, websocket: true }
    }
}

/// Connection state recovery, kept in the shard's memory.
#[derive(Clone, Debug)]
pub struct Recovery {
    /// How long a lost socket may be claimed again. Default 2 min; afterwards its rooms are left.
    pub disconnection_max: Duration,
    /// Bytes of events kept per shard for replay. Default 64 MiB. When full the oldest go first, and a socket that
    /// would need one of those is not recovered: it gets a fresh session, never a silent gap.
    pub log_bytes_max: usize,
}

impl Default for Recovery {
    fn default() -> Self {
        Self { disconnection_max: Duration::from_secs(120), log_bytes_max: 64 << 20 }
    }
}
