//! Owns lines of logs on their way to the server. Does not know where they come from.

use std::time::SystemTime;

use hub::rest::LogLine;
use hub::time::Timestamp;

use crate::error::Error;
use crate::publisher::Publisher;

/// Lines of logs. They wait in a buffer beside that of events; when it is full, what comes next is refused.
#[derive(Clone, Debug)]
pub struct Logs {
    publisher: Publisher,
}

impl Logs {
    pub(crate) fn new(publisher: Publisher) -> Self {
        Self { publisher }
    }

    /// Hands a line over, and does not wait. One without a timestamp gets the present one.
    ///
    /// # Errors
    /// As [`Publisher::enqueue`].
    pub fn log(&self, mut line: LogLine) -> Result<(), Error> {
        line.timestamp.get_or_insert_with(|| Timestamp::of(SystemTime::now()).to_string());
        let json = serde_json::to_string(&line).expect("invariant: lines are texts");
        self.publisher.lines()?.try_push(json)
    }

    /// Starts what sends lines, so that they can be handed over from outside of the runtime, too.
    ///
    /// # Errors
    /// [`Error::NoRuntime`].
    pub fn start(&self) -> Result<(), Error> {
        self.publisher.lines().map(|_| ())
    }
}
