//! Owns questions of one node to others: those that wait for answers here, and those of others that wait to be answered.
//! Does not know what is asked. Invariant: a question ends, answered or not, when its patience does.

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::node::NodeId;

/// What nodes have answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    /// Who has answered, and what, as it came.
    pub answers: Vec<(NodeId, Bytes)>,
    /// Live nodes that have not answered in time, or that went before they did.
    pub missing: Vec<NodeId>,
}

/// A question of another node. Dropped without an answer, whoever asks waits in vain, and is told so in time.
#[derive(Debug)]
pub struct Request {
    /// Who asks.
    pub from: NodeId,
    /// What is asked.
    pub body: Bytes,
}

impl Request {
    /// Answers it. Does not wait: an answer that cannot be sent is as one that is lost.
    pub fn answer(self, body: Bytes) {
        let _ = body;
    }
}

/// Questions of other nodes, in the order in which they come.
#[derive(Debug)]
pub struct Requests {
    pub(crate) waiting: mpsc::Receiver<Request>,
}

impl Requests {
    /// The next question; `None` when the bus is closed, or somebody else has its number.
    pub async fn next(&mut self) -> Option<Request> {
        self.waiting.recv().await
    }
}
