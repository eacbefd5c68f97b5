//! Owns how publishing fails, and whose fault it is. Does not know requests.

use std::fmt;

/// Why something did not reach the server, or was not wanted there.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Error {
    /// The caller's fault: the URL is not one of a server.
    BadUrl(String),
    /// The caller's fault: no header can have the API key.
    BadKey,
    /// The caller's fault: publishing begins within a tokio runtime, whose tasks do the sending.
    NoRuntime,
    /// The caller's fault: the server does not want it, and would not want it again either.
    Refused {
        /// The HTTP status.
        status: u16,
        /// What to compare with, such as `bad_payload`.
        code: String,
        /// What to read.
        message: String,
    },
    /// The caller's fault: one event is longer than [`crate::Settings::buffer_bytes_max`].
    TooLarge {
        /// Its bytes.
        bytes: usize,
        /// The bound.
        bytes_max: usize,
    },
    /// The environment's fault: the server is away or slower than what it is sent, and the buffer is full.
    Full {
        /// The bound, [`crate::Settings::buffer_bytes_max`].
        bytes_max: usize,
    },
    /// The environment's fault: the server was away or busy for longer than [`crate::Settings::give_up_after`].
    Unavailable {
        /// How often it was tried.
        attempts: u32,
        /// What went wrong the last time.
        last: String,
    },
    /// The environment's fault: so many events or lines never arrived.
    Lost(u64),
    /// The environment's fault: whoever answered is not such a server.
    BadAnswer(String),
    /// The runtime that did the sending has ended.
    Closed,
}

impl Error {
    /// The code by which the server refused it.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        match self {
            Error::Refused { code, .. } => Some(code),
            Error::BadUrl(_)
            | Error::BadKey
            | Error::NoRuntime
            | Error::TooLarge { .. }
            | Error::Full { .. }
            | Error::Unavailable { .. }
            | Error::Lost(_)
            | Error::BadAnswer(_)
            | Error::Closed => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::BadUrl(why) => write!(f, "not the URL of a server: {why}"),
            Error::BadKey => f.write_str("the API key has characters that no header can have"),
            Error::NoRuntime => f.write_str("publishing begins within a tokio runtime"),
            Error::Refused { status, code, message } => write!(f, "refused with {status} {code}: {message}"),
            Error::TooLarge { bytes, bytes_max } => {
                write!(f, "an event of {bytes} bytes exceeds buffer_bytes_max of {bytes_max}")
            }
            Error::Full { bytes_max } => write!(f, "the buffer of {bytes_max} bytes is full"),
            Error::Unavailable { attempts, last } => {
                write!(f, "the server was not available in {attempts} attempts: {last}")
            }
            Error::Lost(count) => write!(f, "{count} events or lines never arrived"),
            Error::BadAnswer(why) => write!(f, "not the answer of such a server: {why}"),
            Error::Closed => f.write_str("the runtime that did the sending has ended"),
        }
    }
}

impl std::error::Error for Error {}
