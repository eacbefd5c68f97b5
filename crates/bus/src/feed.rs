//! Owns what a node hears, in one order, as its one reader takes it. Does not know where it comes from.

use store_redis::bus::Message;
use tokio::sync::{mpsc, oneshot};

use crate::node::NodeInfo;

/// What has happened.
#[derive(Debug)]
pub enum News {
    /// Some node has told of an event. Kept ones come in the order of their `order`, also this node's own; those that are
    /// not kept come from other nodes only.
    Event(Box<Message>),
    /// Somebody wants to know when everything before this has been dealt with.
    Fence(Fence),
    /// There is a new connection, on which everything that is wanted is subscribed, or too much was waiting to be taken.
    /// Anything may have been missed before this, nothing after. What was kept meanwhile is in the store. The first thing
    /// ever is this, too.
    Resumed,
    /// A node has come.
    NodeCame(NodeInfo),
    /// A node has gone: it said so, or its lease has ended.
    NodeGone(NodeInfo),
}

/// A mark in the feed. Dropped without being passed, whoever waits for it is told that it failed.
#[derive(Debug)]
pub struct Fence {
    passed: oneshot::Sender<()>,
}

impl Fence {
    /// Says that everything before it has been dealt with.
    pub fn pass(self) {
        // Nobody waits any more: as good.
        let _ = self.passed.send(());
    }
}

/// What a node hears. There is one reader.
#[derive(Debug)]
pub struct Feed {
    pub(crate) news: mpsc::Receiver<News>,
}

impl Feed {
    /// The next news; `None` when the bus is closed, or somebody else has its number. May be given up while it waits:
    /// nothing is lost by that.
    pub async fn next(&mut self) -> Option<News> {
        self.news.recv().await
    }
}
