//! Owns how a publisher behaves: bounds, time-outs, patience. Does not read them from anywhere.

use std::fmt;
use std::time::Duration;

/// How a publisher behaves. The defaults suit a backend beside its server.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The API key, with the scope `publish`; none where no authentication is configured.
    pub api_key: Option<ApiKey>,
    /// Time that one request may take, from connecting to the last byte of the answer. Default 10 s. Lower: a slow
    /// server gets the same request again and again. Higher: a dead one is noticed late.
    pub request_timeout: Duration,
    /// First wait after a failure; doubled each time. Default 100 ms.
    pub retry_first: Duration,
    /// Longest wait after a failure, unless the server asks for more. Default 10 s. Higher: a server that is back waits
    /// for its events.
    pub retry_max: Duration,
    /// How long the same request is tried again. Default 5 min. When it ends, whoever waits gets
    /// [`crate::Error::Unavailable`], and what nobody waits for is counted as lost.
    pub give_up_after: Duration,
    /// Bytes of events that wait to be sent, and as many again of lines of logs. Default 16 MiB. When full, what comes
    /// next is refused with [`crate::Error::Full`]; [`crate::Publisher::publish`] waits for room instead.
    pub buffer_bytes_max: usize,
    /// Events or lines of one request. Default 500; the server takes 1,000 by default.
    pub batch_items_max: usize,
    /// Bytes of one request. Default 500,000; the server takes 1,000,000 by default.
    pub batch_bytes_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            api_key: None,
            request_timeout: Duration::from_secs(10),
            retry_first: Duration::from_millis(100),
            retry_max: Duration::from_secs(10),
            give_up_after: Duration::from_secs(300),
            buffer_bytes_max: 16 << 20,
            batch_items_max: 500,
            batch_bytes_max: 500_000,
        }
    }
}

/// An API key, which nothing prints.
#[derive(Clone)]
pub struct ApiKey(String);

impl ApiKey {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl<T: Into<String>> From<T> for ApiKey {
    fn from(key: T) -> Self {
        Self(key.into())
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}
