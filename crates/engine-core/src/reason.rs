//! Owns why a session or a socket ended, in the field's words.
//! Does not decide. Invariant: the texts are those that the reference server gives to applications.

use std::fmt;

/// Why a socket was disconnected, or a session closed. SIO5 "Disconnection".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The peer left the namespace.
    ClientNamespaceDisconnect,
    /// The application disconnected the socket.
    ServerNamespaceDisconnect,
    /// The server is stopping.
    ServerShuttingDown,
    /// No pong in time.
    PingTimeout,
    /// The link was closed, or the peer sent a close packet.
    TransportClose,
    /// The link failed, or its peer broke a transport rule (two GETs at once, an oversized frame …).
    TransportError,
    /// A packet could not be decoded at the Engine.IO level.
    ParseError,
    /// Closed by the engine: a broken Socket.IO rule, no namespace joined in time, or a close by the application.
    ForcedClose,
    /// The peer did not read, and its outbox reached [`Config::outbox_bytes_max`](crate::Config::outbox_bytes_max).
    OutboxFull,
    /// Another node has taken the socket over, with the peer that came back there: see
    /// [`Shard::handle_release`](crate::Shard::handle_release).
    TakenOver,
}

impl Reason {
    /// The text that applications and peers see.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Reason::ClientNamespaceDisconnect => "client namespace disconnect",
            Reason::ServerNamespaceDisconnect => "server namespace disconnect",
            Reason::ServerShuttingDown => "server shutting down",
            Reason::PingTimeout => "ping timeout",
            Reason::TransportClose => "transport close",
            Reason::TransportError => "transport error",
            Reason::ParseError => "parse error",
            Reason::ForcedClose => "forced close",
            Reason::OutboxFull => "outbox full",
            Reason::TakenOver => "taken over",
        }
    }

    /// Whether a socket lost for this reason may be recovered: nobody meant to leave.
    #[must_use]
    pub const fn is_recoverable(self) -> bool {
        match self {
            Reason::TransportError
            | Reason::TransportClose
            | Reason::ForcedClose
            | Reason::PingTimeout
            | Reason::ServerShuttingDown
            | Reason::OutboxFull => true,
            Reason::ClientNamespaceDisconnect
            | Reason::ServerNamespaceDisconnect
            | Reason::ParseError
            | Reason::TakenOver => false,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
