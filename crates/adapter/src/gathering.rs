//! Owns the questions that are open: to which request which answers have come, and how many are still to come. Does not send anything. Invariant: a
//! question is forgotten as soon as nobody waits for it any more.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::message::Reply;

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
pub(crate) struct Questions(Arc<Mutex<HashMap<String, UnboundedSender<Reply>>>>);

/// One of them; it ends with this.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) request: String,
    pub(crate) replies: UnboundedReceiver<Reply>,
    all: Questions,
}

impl Questions {
    pub(crate) fn open(&self, request: String) -> Question {
        let (to, replies) = unbounded_channel();
        self.lock().insert(request.clone(), to);
        Question { request, replies, all: self.clone() }
    }

    /// Hands a reply to whoever waits for it.
    pub(crate) fn answer(&self, request: &str, reply: Reply) {
        if let Some(to) = self.lock().get(request) {
            // Whoever asked may just have given up.
            let _ = to.send(reply);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, UnboundedSender<Reply>>> {
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
        questions.answer("q", Reply::Count(1));
        questions.answer("other", Reply::Count(2));
        assert_eq!(question.replies.try_recv(), Ok(Reply::Count(1)));
        assert!(question.replies.try_recv().is_err());
        drop(question);
        assert!(questions.lock().is_empty());
    }
}
