//! The names of the transports. Does not know which of them a server enables.

/// How a session's packets travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TransportKind {
    /// HTTP long-polling.
    Polling,
    /// One WebSocket connection.
    WebSocket,
}

impl TransportKind {
    /// The transport with this name in a query; names are lower-case.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "polling" => Some(Self::Polling),
            "websocket" => Some(Self::WebSocket),
            _ => None,
        }
    }

    /// The name in a query and in the open packet.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Polling => "polling",
            Self::WebSocket => "websocket",
        }
    }
}
