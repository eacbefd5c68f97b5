//! Owns the order of one queue's messages when the store fails in the middle of them: those that have their places behind
//! one that could not be kept are refused, too, so that none passes it. Does not know what messages are.
//!
//! The dispatcher takes operations in batches; a large one may fail where the small one after it does not, such as when
//! the disk is nearly full. Rules run when their batch's turn has come, and the batch before is through by then: so they
//! see whether it failed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use hub::fault::{Fault as RuleFault, Refusal};
use queues::Turn;

use crate::codes::{Code, Fault};
use crate::dispatch::{Dispatcher, Rule};

/// What a message is told that has one before it which could not be kept.
const BEHIND: &str = "an earlier message could not be kept";

/// The order of one queue.
#[derive(Debug, Default)]
pub(super) struct Lane {
    /// The newest round in which something was refused, counted from 1; 0 if there is none.
    broken: AtomicU64,
}

/// What lets the operations of one message through, as long as nothing before it was refused.
#[derive(Clone)]
pub(super) struct Pass {
    lane: Arc<Lane>,
    dispatcher: Dispatcher,
    turn: Turn,
    is_refused: Arc<AtomicBool>,
}

impl Lane {
    /// Lets a message begin.
    ///
    /// # Errors
    /// [`Code::StoreUnavailable`] if it must not pass one that could not be kept.
    pub(super) fn enter(self: &Arc<Self>, dispatcher: &Dispatcher, turn: Turn) -> Result<Pass, Fault> {
        let pass = Pass {
            lane: self.clone(),
            dispatcher: dispatcher.clone(),
            turn,
            is_refused: Arc::new(AtomicBool::new(false)),
        };
        if pass.is_behind() { Err(Fault::new(Code::StoreUnavailable, BEHIND)) } else { Ok(pass) }
    }

    /// Whether a message of this turn must wait, given how the store is.
    fn must_wait(&self, turn: Turn, is_failing: bool) -> bool {
        let round = turn.round + 1;
        if is_failing && !turn.is_first {
            self.broken.fetch_max(round, Ordering::Relaxed);
        }
        self.broken.load(Ordering::Relaxed) >= round
    }
}

impl Pass {
    /// A rule that refuses what must wait; else it decides as `rule` does.
    pub(super) fn guard(&self, mut rule: Rule) -> Rule {
        let pass = self.clone();
        Box::new(move |record, now| {
            if pass.is_behind() {
                pass.is_refused.store(true, Ordering::Relaxed);
                return Err(RuleFault::new(Refusal::WrongState, BEHIND));
            }
            rule(record, now)
        })
    }

    /// What a refusal of its operations means.
    pub(super) fn explain(&self, fault: Fault) -> Fault {
        if self.is_refused.load(Ordering::Relaxed) {
            Fault::new(Code::StoreUnavailable, BEHIND)
        } else {
            fault
        }
    }

    fn is_behind(&self) -> bool {
        self.lane.must_wait(self.turn, self.dispatcher.is_failing())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_round_passes_one_that_was_refused() {
        let lane = Lane::default();
        let turn = |round, is_first| Turn { round, is_first };
        assert!(!lane.must_wait(turn(0, true), false));
        assert!(!lane.must_wait(turn(0, false), false));
        assert!(lane.must_wait(turn(0, false), true), "the store has failed");
        assert!(lane.must_wait(turn(0, false), false), "it is well again, but one was refused");
        assert!(!lane.must_wait(turn(1, true), true), "the first of a round finds out");
        assert!(!lane.must_wait(turn(1, false), false));
        assert!(lane.must_wait(turn(0, false), false), "of an older round");
    }
}
