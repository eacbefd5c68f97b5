//! Owns questions of one node to others: those that wait for answers here, and those of others that wait to be answered.
//! Does not know what is asked. Invariant: a question ends, answered or not, when its patience does.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use crate::letter::Letter;
use crate::node::NodeId;
use crate::shared::Shared;

/// Questions of other nodes that may wait; more are dropped, and whoever asks finds that out in time. 1,024: each node of
/// a large deployment asks some at a time.
pub(crate) const REQUESTS_MAX: usize = 1_024;

/// What nodes have answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    /// Who has answered, and what, as it came.
    pub answers: Vec<(NodeId, Bytes)>,
    /// Live nodes that have not answered in time, or that went before they did; by number.
    pub missing: Vec<NodeId>,
}

/// A question of another node. Dropped without an answer, whoever asks waits in vain, and is told so in time.
#[derive(Debug)]
pub struct Request {
    /// Who asks.
    pub from: NodeId,
    /// What is asked.
    pub body: Bytes,
    number: u64,
    shared: Arc<Shared>,
}

impl Request {
    pub(crate) fn new(from: NodeId, body: Bytes, number: u64, shared: Arc<Shared>) -> Self {
        Self { from, body, number, shared }
    }

    /// Answers it. Does not wait: an answer that cannot be sent is as one that is lost.
    pub fn answer(self, body: Bytes) {
        let letter = Letter::Answer { number: self.number, body };
        let channel = self.shared.node_channel(self.from);
        let payload = letter.encode(self.shared.me.id, &self.shared.prefix);
        if let Err(fault) = self.shared.publisher.queue(vec![channel], payload) {
            tracing::debug!("an answer to the server {} is not sent: {fault}", self.from);
        }
    }
}

/// Questions of other nodes, in the order in which they come; at most 1,024 wait.
#[derive(Debug)]
pub struct Requests {
    pub(crate) waiting: mpsc::Receiver<Request>,
}

impl Requests {
    /// The next question; `None` when the bus is closed, or somebody else has its number. May be given up while it waits:
    /// nothing is lost by that.
    pub async fn next(&mut self) -> Option<Request> {
        self.waiting.recv().await
    }
}

/// Questions of this node that wait for answers.
#[derive(Debug)]
pub(crate) struct Questions {
    open: Mutex<HashMap<u64, Open>>,
    next: AtomicU64,
}

#[derive(Debug)]
struct Open {
    expected: BTreeSet<NodeId>,
    gone: Vec<NodeId>,
    answers: Vec<(NodeId, Bytes)>,
    /// Taken when nobody is expected any more.
    done: Option<oneshot::Sender<()>>,
}

/// A question that waits; forgotten when it is dropped.
#[derive(Debug)]
pub(crate) struct Asked<'a> {
    questions: &'a Questions,
    pub(crate) number: u64,
    /// Nobody is expected any more.
    pub(crate) done: oneshot::Receiver<()>,
}

impl Questions {
    /// `first`: a number that tells this process's questions from those of whoever had its number.
    pub(crate) fn new(first: u64) -> Self {
        Self { open: Mutex::default(), next: AtomicU64::new(first) }
    }

    /// Waits for answers of these nodes.
    pub(crate) fn ask(&self, whom: impl IntoIterator<Item = NodeId>) -> Asked<'_> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (done, doing) = oneshot::channel();
        let expected = whom.into_iter().collect();
        let open = Open { expected, gone: Vec::new(), answers: Vec::new(), done: Some(done) };
        self.lock().insert(number, open);
        Asked { questions: self, number, done: doing }
    }

    /// A node has answered.
    pub(crate) fn handle_answer(&self, number: u64, from: NodeId, body: Bytes) {
        if let Some(open) = self.lock().get_mut(&number)
            && open.expected.remove(&from)
        {
            open.answers.push((from, body));
            open.end_if_done();
        }
    }

    /// A node has gone: it will not answer.
    pub(crate) fn handle_gone(&self, node: NodeId) {
        for open in self.lock().values_mut() {
            if open.expected.remove(&node) {
                open.gone.push(node);
                open.end_if_done();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    fn end_if_done(&mut self) {
        if self.expected.is_empty()
            && let Some(done) = self.done.take()
        {
            // Whoever no longer waits need not be told.
            let _ = done.send(());
        }
    }
}

impl Asked<'_> {
    /// What has come by now.
    pub(crate) fn answers(self) -> Answers {
        let Some(open) = self.questions.lock().remove(&self.number) else { return Answers::default() };
        let mut missing: Vec<NodeId> = open.expected.into_iter().chain(open.gone).collect();
        missing.sort_unstable();
        Answers { answers: open.answers, missing }
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.questions.lock().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_done_when_all_have_answered_or_gone() {
        let questions = Questions::new(u64::MAX);
        let body = Bytes::from_static(b"yes");
        let mut asked = questions.ask([1, 2, 3].map(NodeId));
        let other = questions.ask([NodeId(1)]);
        questions.handle_answer(asked.number, NodeId(2), body.clone());
        questions.handle_answer(asked.number, NodeId(2), body.clone());
        questions.handle_answer(asked.number, NodeId(9), body.clone());
        questions.handle_gone(NodeId(3));
        assert!(asked.done.try_recv().is_err());
        questions.handle_answer(asked.number, NodeId(1), body.clone());
        assert!(asked.done.try_recv().is_ok());
        let answers = vec![(NodeId(2), body.clone()), (NodeId(1), body)];
        assert_eq!(asked.answers(), Answers { answers, missing: vec![NodeId(3)] });
        assert_eq!(other.answers(), Answers { answers: vec![], missing: vec![NodeId(1)] });
        assert!(questions.lock().is_empty());
    }

    #[test]
    fn a_question_that_is_given_up_is_forgotten() {
        let questions = Questions::new(1);
        drop(questions.ask([NodeId(1)]));
        assert!(questions.lock().is_empty());
    }
}
