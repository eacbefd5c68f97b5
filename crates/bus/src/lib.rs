//! Makes several Fanfare servers one: each is a **node**, and the [`Bus`] is how it tells the others what happens, hears of
//! what they tell, and knows who is there.
//!
//! Owns channels, leases and connections; does not know sockets, rooms' members, or what is done with an event. Invariant:
//! between two [`News::Resumed`] nothing that was published on a channel is missing from the [`Feed`], and kept events come
//! in the order of the store.

mod asking;
mod channel;
mod fault;
mod feed;
mod health;
mod node;

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use store_redis::Address;
pub use store_redis::OpenFault;
pub use store_redis::bus::Message;

pub use crate::asking::{Answers, Request, Requests};
pub use crate::channel::Channel;
pub use crate::fault::BusFault;
pub use crate::feed::{Feed, Fence, News};
pub use crate::health::{BusHealth, Counts, Deaf, DeafCause};
pub use crate::node::{NodeId, NodeInfo};

/// Where and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where Redis is.
    pub address: Address,
    /// What all keys and channels begin with, in braces; the same as the store's. Default `fanfare`.
    pub prefix: String,
    /// Certificates of authorities that the server's must be of, in PEM, for addresses with TLS. Default: those that the
    /// machine trusts.
    pub tls_root: Option<Vec<u8>>,
    /// Time in which a connection must be made, asking Sentinels or a Cluster included. Default 5 s.
    pub connect_timeout: Duration,
    /// Time in which a command must be answered. Default 5 s.
    pub command_timeout: Duration,
    /// How long a node that says nothing counts as there. Default 10 s. Lower: a node that Redis keeps waiting is thought
    /// to be gone. Higher: what a dead node had is held for longer.
    pub lease: Duration,
    /// What tells this process from all others, ever.
    pub name: Box<str>,
    /// The version of this program, for the others to see.
    pub version: Box<str>,
    /// Where other nodes may send HTTP requests that are meant for this one.
    pub reach: Option<SocketAddr>,
}

impl Options {
    /// The defaults, for this server, as the process of this name.
    #[must_use]
    pub fn new(address: Address, name: impl Into<Box<str>>) -> Self {
        Self {
            address,
            prefix: "fanfare".to_owned(),
            tls_root: None,
            connect_timeout: Duration::from_secs(5),
            command_timeout: Duration::from_secs(5),
            lease: Duration::from_secs(10),
            name: name.into(),
            version: env!("CARGO_PKG_VERSION").into(),
            reach: None,
        }
    }
}

/// A node's place among the others. Cheap to clone. When the last clone is dropped it ends without a word, and the others
/// find out when its lease does; [`Bus::close`] tells them.
#[derive(Clone, Debug)]
pub struct Bus {}

impl Bus {
    /// Connects, draws a number that nobody has, registers, and keeps the lease from then on. To be called in a runtime
    /// of tokio with time and I/O, on which the tasks of the bus run.
    ///
    /// # Errors
    /// [`OpenFault`]: the environment's fault, or a prefix that makes no sense.
    pub async fn open(options: Options) -> Result<(Bus, Feed, Requests), OpenFault> {
        let address = options.address.to_string();
        Err(OpenFault::Unreachable { address, why: "there is no bus yet".to_owned() })
    }

    /// This node's number.
    #[must_use]
    pub fn node(&self) -> NodeId {
        NodeId(0)
    }

    /// The nodes that live, this one included, by number.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeInfo> {
        Vec::new()
    }

    /// Subscribes to these channels, and tells the others. When it returns, what is published on them from now on comes by
    /// the feed. A channel may be named again; it counts once.
    ///
    /// # Errors
    /// [`BusFault::Down`], at once, if there is no connection: the wish is kept, and fulfilled before the next
    /// [`News::Resumed`]. [`BusFault::Closed`].
    pub async fn listen(&self, channels: &[Channel]) -> Result<(), BusFault> {
        let _ = channels;
        Err(BusFault::Closed)
    }

    /// Takes the wish for these channels back. Some of what was published before may come still.
    pub fn unlisten(&self, channels: &[Channel]) {
        let _ = channels;
    }

    /// The channels that are wanted, connected or not, in no order.
    #[must_use]
    pub fn listening(&self) -> Vec<Channel> {
        Vec::new()
    }

    /// Waits until everything that was published before the call, on channels that are subscribed, has been taken out of
    /// the feed, and its reader has passed the mark behind it. Calls at the same time share one mark.
    ///
    /// # Errors
    /// [`BusFault::Down`]: the mark is lost, with whatever connection; what was missed is missed. [`BusFault::Closed`].
    pub async fn fence(&self) -> Result<(), BusFault> {
        Err(BusFault::Closed)
    }

    /// Whether another node listens to this channel, as far as is known here: yes, if it is not known.
    #[must_use]
    pub fn is_wanted_elsewhere(&self, channel: &Channel) -> bool {
        let _ = channel;
        false
    }

    /// Tells an event that is not kept to the nodes that listen to any of these channels; each gets it once, and in the
    /// order in which this node tells. The message's `order` must be `None`. It does not come back to this node.
    ///
    /// # Errors
    /// [`BusFault`]: some may not have been told. It is not tried again.
    pub async fn tell(&self, channels: &[Channel], message: &Message) -> Result<(), BusFault> {
        let _ = (channels, message);
        Err(BusFault::Closed)
    }

    /// Asks all other nodes that live.
    pub async fn ask_all(&self, body: Bytes, patience: Duration) -> Answers {
        let _ = (body, patience);
        Answers::default()
    }

    /// Asks one node.
    ///
    /// # Errors
    /// [`BusFault::NoSuchNode`], [`BusFault::NoAnswer`] within `patience`, and what [`Bus::tell`] says.
    pub async fn ask(&self, node: NodeId, body: Bytes, patience: Duration) -> Result<Bytes, BusFault> {
        let _ = (body, patience);
        Err(BusFault::NoSuchNode(node))
    }

    /// How it is doing.
    #[must_use]
    pub fn health(&self) -> BusHealth {
        BusHealth {
            is_connected: false,
            deaf: None,
            canary_age: None,
            is_superseded: false,
            nodes: 0,
            counts: health::Tally::default().counts(),
        }
    }

    /// Leaves: gives the lease up, tells the others, who need not wait for its end, and ends the feed. Calls after it
    /// fail.
    pub async fn close(&self) {}
}
