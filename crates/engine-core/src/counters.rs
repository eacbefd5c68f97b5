//! Owns what the shard has counted since it began. Plain numbers: the driver copies them out when asked.

/// Totals since the shard began. Gauges are computed from state, see [`Shard::gauges`](crate::Shard::gauges).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Sessions opened by polling.
    pub sessions_opened_polling: u64,
    /// Sessions opened by WebSocket.
    pub sessions_opened_websocket: u64,
    /// Sessions closed, for any reason.
    pub sessions_closed: u64,
    /// Polling sessions that moved to WebSocket.
    pub upgrades: u64,
    /// Upgrades that were begun and did not finish.
    pub upgrades_failed: u64,
    /// Sockets accepted into a namespace, recovered ones included.
    pub sockets_connected: u64,
    /// Sockets recovered.
    pub sockets_recovered: u64,
    /// Sockets that the application gave back.
    pub sockets_restored: u64,
    /// Recoveries asked for that could not be granted.
    pub recoveries_refused: u64,
    /// CONNECT packets refused by the application.
    pub sockets_refused: u64,
    /// Events received.
    pub events_in: u64,
    /// Events queued to sockets: one for each recipient.
    pub events_out: u64,
    /// Acks received that somebody waited for.
    pub acks_in: u64,
    /// Volatile events not sent because the recipient was not writable.
    pub volatile_dropped: u64,
    /// Sessions closed because their outbox was full.
    pub outboxes_full: u64,
    /// Sessions closed because no pong came in time.
    pub ping_timeouts: u64,
    /// Sessions closed because no namespace was joined in time.
    pub connect_timeouts: u64,
    /// WebSocket frames that broke RFC 6455 or a limit.
    pub faults_websocket: u64,
    /// Engine.IO packets or payloads that could not be decoded, or came at the wrong time.
    pub faults_engine: u64,
    /// Socket.IO packets that could not be decoded, or came at the wrong time.
    pub faults_socket: u64,
    /// Second GETs or POSTs of one session.
    pub faults_overlap: u64,
    /// Requests refused at the handshake, or naming no session.
    pub requests_refused: u64,
    /// WebSocket bytes read.
    pub bytes_in: u64,
    /// WebSocket and polling bytes handed to the driver.
    pub bytes_out: u64,
}

impl Counters {
    /// Each counter with a metric-style name, in a fixed order.
    #[must_use]
    pub fn named(&self) -> [(&'static str, u64); 24] {
        [
            ("sessions_opened_polling", self.sessions_opened_polling),
            ("sessions_opened_websocket", self.sessions_opened_websocket),
            ("sessions_closed", self.sessions_closed),
            ("upgrades", self.upgrades),
            ("upgrades_failed", self.upgrades_failed),
            ("sockets_connected", self.sockets_connected),
            ("sockets_recovered", self.sockets_recovered),
            ("sockets_restored", self.sockets_restored),
            ("recoveries_refused", self.recoveries_refused),
            ("sockets_refused", self.sockets_refused),
            ("events_in", self.events_in),
            ("events_out", self.events_out),
            ("acks_in", self.acks_in),
            ("volatile_dropped", self.volatile_dropped),
            ("outboxes_full", self.outboxes_full),
            ("ping_timeouts", self.ping_timeouts),
            ("connect_timeouts", self.connect_timeouts),
            ("faults_websocket", self.faults_websocket),
            ("faults_engine", self.faults_engine),
            ("faults_socket", self.faults_socket),
            ("faults_overlap", self.faults_overlap),
            ("requests_refused", self.requests_refused),
            ("bytes_in", self.bytes_in),
            ("bytes_out", self.bytes_out),
        ]
    }
}

/// What the shard holds right now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Live sessions.
    pub sessions: usize,
    /// Of these, on WebSocket.
    pub sessions_websocket: usize,
    /// Sockets connected to a namespace.
    pub sockets: usize,
    /// Lost sockets that may still be recovered.
    pub sockets_lost: usize,
    /// Rooms with members, sockets' own rooms apart; those that only lost sockets are in, included: they are held.
    pub rooms: usize,
    /// Events kept for recovery.
    pub log_events: usize,
    /// Bytes kept for recovery.
    pub log_bytes: usize,
    /// Emits whose ack is awaited.
    pub acks_awaited: usize,
    /// WebSocket links, those that are about to close included.
    pub links: usize,
    /// Notes about sockets that moved between shards, where one born here is, and ids made elsewhere; and sockets that
    /// the application is asked for.
    pub notes: usize,
}
