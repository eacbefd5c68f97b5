//! Owns what a node hears, in one order, as its one reader takes it. Does not know where it comes from.

use std::sync::Arc;

use store_redis::bus::{Message, decode_message};
use tokio::sync::oneshot;

use crate::inbox::Taken;
use crate::node::NodeInfo;
use crate::shared::Shared;

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
    /// A mark, and what tells when it is passed.
    pub(crate) fn new() -> (Self, oneshot::Receiver<()>) {
        let (passed, passing) = oneshot::channel();
        (Self { passed }, passing)
    }

    /// Says that everything before it has been dealt with.
    pub fn pass(self) {
        // Nobody waits any more: as good.
        let _ = self.passed.send(());
    }
}

/// What a node hears. There is one reader.
#[derive(Debug)]
pub struct Feed {
    pub(crate) shared: Arc<Shared>,
}

impl Feed {
    /// The next news; `None` when the bus is closed, or somebody else has its number. May be given up while it waits:
    /// nothing is lost by that.
    pub async fn next(&mut self) -> Option<News> {
        loop {
            match self.shared.inbox.take() {
                Taken::Event(bytes) => match decode_message(&bytes) {
                    Ok(message) => return Some(News::Event(Box::new(message))),
                    Err(why) => self.shared.complain(&why),
                },
                Taken::News(news) => return Some(news),
                Taken::Nothing => self.shared.inbox.came.notified().await,
                Taken::Ended => return None,
            }
        }
    }
}
