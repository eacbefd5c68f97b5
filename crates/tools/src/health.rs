//! Owns how each tool is doing. Does not decide anything by it: a tool that fails is still asked, and shown as failing.

use std::sync::{Mutex, MutexGuard, PoisonError};

use hub::time::Timestamp;
use serde::Serialize;

use crate::step::{Code, Failure};

/// Failures one after the other that make a tool `failing`: one may be chance, and two the same one.
const FAILURES_UNTIL_FAILING: u64 = 3;

/// How a tool is doing, for `/stats`, `/health` and metrics.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ToolStats {
    /// The tool.
    pub id: String,
    /// Its kind.
    pub kind: &'static str,
    /// What its last requests say of it.
    pub health: Health,
    /// Requests that are under way.
    pub running: usize,
    /// Requests that wait for their turn.
    pub waiting: usize,
    /// Requests that were taken on since the start.
    pub accepted: u64,
    /// Of those, answered.
    pub completed: u64,
    /// Of those, failed.
    pub failed: u64,
    /// Of those, cancelled, or left by whoever had asked.
    pub cancelled: u64,
    /// Requests that were not taken on.
    pub refused: u64,
    /// Times that the tool was asked again.
    pub retried: u64,
    /// Failures since the last answer.
    pub consecutive_failures: u64,
    /// The last one.
    pub last_failure: Option<LastFailure>,
}

/// What a tool's last requests say of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// The last one was answered, or there was none.
    Healthy,
    /// The last one failed, or the last two.
    Degraded,
    /// More than that failed.
    Failing,
}

/// A failure as it is remembered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LastFailure {
    /// Its code.
    pub code: &'static str,
    /// What it says.
    pub message: String,
    /// When it was, as RFC 3339.
    pub at: String,
}

/// How a request ended.
#[derive(Clone, Debug)]
pub(crate) enum Ending {
    Completed,
    Failed(Failure),
    /// It failed before the tool was asked, which says nothing of the tool.
    Unserved,
    Cancelled,
}

/// Counts for one tool.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    accepted: u64,
    completed: u64,
    failed: u64,
    cancelled: u64,
    refused: u64,
    retried: u64,
    consecutive_failures: u64,
    last_failure: Option<(Failure, Timestamp)>,
}

impl Tally {
    pub(crate) fn accept(&self) {
        self.lock().accepted += 1;
    }

    pub(crate) fn refuse(&self) {
        self.lock().refused += 1;
    }

    pub(crate) fn retry(&self) {
        self.lock().retried += 1;
    }

    /// Counts an ending; whether it is the one that makes the tool failing.
    pub(crate) fn end(&self, ending: Ending, now: Timestamp) -> bool {
        let mut counts = self.lock();
        match ending {
            Ending::Completed => {
                counts.completed += 1;
                counts.consecutive_failures = 0;
                false
            }
            Ending::Unserved => {
                counts.failed += 1;
                false
            }
            Ending::Cancelled => {
                counts.cancelled += 1;
                false
            }
            Ending::Failed(failure) => {
                counts.failed += 1;
                counts.consecutive_failures += 1;
                counts.last_failure = Some((failure, now));
                counts.consecutive_failures == FAILURES_UNTIL_FAILING
            }
        }
    }

    pub(crate) fn stats(
        &self,
        id: &str,
        kind: &'static str,
        (running, waiting): (usize, usize),
    ) -> ToolStats {
        let counts = self.lock();
        ToolStats {
            id: id.to_owned(),
            kind,
            health: match counts.consecutive_failures {
                0 => Health::Healthy,
                1..FAILURES_UNTIL_FAILING => Health::Degraded,
                _ => Health::Failing,
            },
            running,
            waiting,
            accepted: counts.accepted,
            completed: counts.completed,
            failed: counts.failed,
            cancelled: counts.cancelled,
            refused: counts.refused,
            retried: counts.retried,
            consecutive_failures: counts.consecutive_failures,
            last_failure: counts.last_failure.as_ref().map(|(failure, at)| LastFailure {
                code: Code::as_str(failure.code),
                message: failure.message.clone(),
                at: at.to_string(),
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_in_a_row_make_a_tool_failing_and_one_answer_heals_it() {
        let tally = Tally::default();
        let health = || tally.stats("t", "http", (0, 0)).health;
        let fail = || Ending::Failed(Failure::passing(Code::ToolTimeout, "silent"));
        assert_eq!(health(), Health::Healthy);
        assert!(!tally.end(fail(), Timestamp(0)));
        assert!(!tally.end(Ending::Cancelled, Timestamp(0)));
        assert!(!tally.end(fail(), Timestamp(0)));
        assert!(!tally.end(Ending::Unserved, Timestamp(0)));
        assert_eq!(health(), Health::Degraded);
        assert!(tally.end(fail(), Timestamp(1_000)));
        assert!(!tally.end(fail(), Timestamp(1_000)));
        assert_eq!(health(), Health::Failing);
        let stats = serde_json::to_value(tally.stats("t", "http", (1, 2))).unwrap();
        assert_eq!(stats["health"], "failing");
        assert_eq!(stats["last_failure"]["code"], "tool_timeout");
        assert_eq!(stats["last_failure"]["at"], "1970-01-01T00:00:01.000Z");
        assert!(!tally.end(Ending::Completed, Timestamp(0)));
        assert_eq!(health(), Health::Healthy);
    }
}
