//! Owns the questions that are open: to which request which answers have come, and how many are still to come. Does not
//! send anything. Invariant: a question is forgotten as soon as nobody waits for it any more.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use crate::message::Reply;

/// Replies to one question that may wait to be taken; the newest are dropped. 10,000, as many as messages may wait: whoever
/// asked takes them as they come.
const REPLIES_MAX: usize = 10_000;

/// What several servers answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Gathered<T> {
    /// All of it.
    pub found: Vec<T>,
    /// Servers that did not answer in time.
    pub missing: u64,
}

impl<T> Default for Gathered<T> {
    fn default() -> Self {
        Self { found: Vec::new(), missing: 0 }
    }
}

/// How many servers are to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Servers {
    /// So many.
    Count(u64),
    /// In a Cluster nobody can count: whoever answers in time.
    Unknown,
}

impl Servers {
    /// Whether more may answer when so many have.
    pub(crate) fn are_awaited(self, answers: u64) -> bool {
        match self {
            Servers::Count(count) => answers < count,
            Servers::Unknown => true,
        }
    }

    /// How many have not answered when so many have, as far as that is known.
    pub(crate) fn missing(self, answers: u64) -> u64 {
        match self {
            Servers::Count(count) => count.saturating_sub(answers),
            Servers::Unknown => 0,
        }
    }
}

/// Open questions.
#[derive(Clone, Debug, Default)]
pub(crate) struct Questions(Arc<Mutex<HashMap<String, Sender<Reply>>>>);

/// One of them; it ends with this.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) request: String,
    pub(crate) replies: Receiver<Reply>,
    all: Questions,
}

impl Questions {
    pub(crate) fn open(&self, request: String) -> Question {
        let (to, replies) = channel(REPLIES_MAX);
        self.lock().insert(request.clone(), to);
        Question { request, replies, all: self.clone() }
    }

    /// Hands a reply to whoever waits for it, if somebody does. `false`: there was no room.
    pub(crate) fn answer(&self, request: &str, reply: Reply) -> bool {
        let Some(to) = self.lock().get(request).cloned() else { return true };
        // Whoever asked may just have given up.
        !matches!(to.try_send(reply), Err(TrySendError::Full(_)))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Sender<Reply>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        self.all.lock().remove(&self.request);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_hears_its_answers_and_is_forgotten() {
        let questions = Questions::default();
        let mut question = questions.open("q".into());
        assert!(questions.answer("q", Reply::Count(1)) && questions.answer("other", Reply::Count(2)));
        assert_eq!(question.replies.try_recv(), Ok(Reply::Count(1)));
        assert!(question.replies.try_recv().is_err());
        for _ in 0..REPLIES_MAX {
            assert!(questions.answer("q", Reply::Count(3)));
        }
        assert!(!questions.answer("q", Reply::Count(4)), "there is a bound");
        drop(question);
        assert!(questions.lock().is_empty() && questions.answer("q", Reply::Count(5)));
    }
}
