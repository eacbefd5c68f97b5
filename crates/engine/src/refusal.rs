//! Owns what a peer is told that may not join a namespace.

use serde::Serialize;
use serde_json::Value;

/// Why a CONNECT is refused. The peer gets CONNECT_ERROR with the message and, if given, the data; nothing else
/// leaves the server. SIO5 "Connection to a namespace".
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    pub(crate) message: String,
    pub(crate) data: Option<Value>,
}

impl Refusal {
    /// A refusal with a text, which clients see as `error.message`.
    #[must_use]
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), data: None }
    }

    /// Adds what clients see as `error.data`. A value that cannot be written as JSON is left out.
    #[must_use]
    pub fn with_data(mut self, data: impl Serialize) -> Self {
        self.data = serde_json::to_value(data).ok();
        self
    }

    /// The text.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Refusal {}
