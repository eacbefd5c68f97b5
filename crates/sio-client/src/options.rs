//! What the application chooses about a connection.

use serde_json::{Map, Value};
use sio_proto::Parser;
use std::time::Duration;

/// Which transports may carry the connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transports {
    /// A WebSocket from the start.
    WebSocket,
    /// HTTP long polling throughout.
    Polling,
    /// Long polling at first, and a WebSocket as soon as one is found to work. What stock clients do.
    #[default]
    Upgrade,
}

/// When to try again after a connection is lost. The first attempt of [`Client::connect`](crate::Client::connect) is never repeated.
#[derive(Clone, Debug, PartialEq)]
pub struct Reconnect {
    /// The first wait. Default 1 s; each further one is twice as long.
    pub delay: Duration,
    /// The longest wait. Default 5 s.
    pub delay_max: Duration,
    /// Attempts in a row before giving up; none for no end. Default none.
    pub attempts_max: Option<u32>,
    /// By how much of itself a wait is lengthened or shortened at random, 0 to 1. Default 0.5, so that clients that lost a server
    /// together do not come back together.
    pub jitter: f64,
}

impl Default for Reconnect {
    fn default() -> Self {
        Reconnect {
            delay: Duration::from_secs(1),
            delay_max: Duration::from_secs(5),
            attempts_max: None,
            jitter: 0.5,
        }
    }
}

/// How to connect. The defaults are those of stock clients.
#[derive(Clone, Debug)]
pub struct Options {
    /// The namespace of the first socket, with its leading slash. Default `/`.
    pub namespace: String,
    /// What the server's application sees as `auth`. Default none.
    pub auth: Option<Map<String, Value>>,
    /// Default [`Transports::Upgrade`].
    pub transports: Transports,
    /// Where the server listens. Default `/socket.io/`.
    pub path: String,
    /// Headers of every HTTP request, the WebSocket's handshake included. Default none.
    pub headers: Vec<(String, String)>,
    /// Pairs put before the protocol's own in the query of every request, not yet escaped. Default none.
    pub query: Vec<(String, String)>,
    /// Default [`Some`]; with none, the first loss is final.
    pub reconnect: Option<Reconnect>,
    /// Whether to ask for missed events after a loss, of servers that offer it. Default true.
    ///
    /// The server's application then sees `recovery: true` in `auth`, unless [`Options::auth`] has a word of its own on that.
    /// Such servers append each event's place in the history as one more argument, a text, which the application sees too.
    pub recovery: bool,
    /// The server's encoding of packets. Default [`Parser::Json`].
    pub parser: Parser,
    /// For everything up to the server's answer to a CONNECT. Default 20 s.
    pub connect_timeout: Duration,
    /// Bytes of one message, or of one polling reply. Default 16 MiB; the server's larger ones end the connection.
    pub message_bytes_max: usize,
    /// Notices that wait for the application. Default 1024. When it is reached nothing more is read, for any namespace, until the
    /// application catches up; if it does not, the server takes us for dead after its heartbeat's time-out.
    pub notices_max: usize,
    /// Events and answers that wait for a connection. Default 1024. When it is reached, emitting waits.
    pub unsent_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            namespace: "/".into(),
            auth: None,
            transports: Transports::default(),
            path: "/socket.io/".into(),
            headers: Vec::new(),
            query: Vec::new(),
            reconnect: Some(Reconnect::default()),
            recovery: true,
            parser: Parser::default(),
            connect_timeout: Duration::from_secs(20),
            message_bytes_max: 16 << 20,
            notices_max: 1024,
            unsent_max: 1024,
        }
    }
}
