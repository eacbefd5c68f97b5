//! Makes several Fanfare servers one: each is a **node**, and the [`Bus`] is how it tells the others what happens, hears of
//! what they tell, and knows who is there.
//!
//! Owns channels, leases and connections; does not know sockets, rooms' members, or what is done with an event. Invariant:
//! between two [`News::Resumed`] nothing that was published on a channel is missing from the [`Feed`], and kept events come
//! in the order of the store.
//!
//! Whoever lets a socket join a room listens to the room's channel, reads its log, waits for a fence, and then attaches the
//! socket: whatever was published before it was attached has been read, or has gone by in the feed. The feed must be
//! read all the while:
//!
//! ```no_run
//! # async fn demo(store: store_redis::RedisStore) -> Result<(), Box<dyn std::error::Error>> {
//! use bus::{Bus, Channel, News, Options};
//! use hub::room::RoomName;
//! let address = store_redis::Address::parse("redis://127.0.0.1:6379")?;
//! let (bus, mut feed, _requests) = Bus::open(Options::new(address, "host-1/4711")).await?;
//! let room = RoomName::parse("tasks")?;
//! bus.listen(&[Channel::Room(room)]).await?;
//! while let Some(news) = feed.next().await {
//!     match news {
//!         News::Event(message) => println!("{} {:?}", message.event.name, message.order),
//!         // Everything before it was dealt with, above.
//!         News::Fence(fence) => fence.pass(),
//!         // Read from the store what the rooms got after the last order that was dealt with.
//!         News::Resumed => println!("something may have been missed"),
//!         News::NodeCame(info) => println!("{} is there", info.id),
//!         News::NodeGone(info) => println!("{} is gone", info.id),
//!     }
//! }
//! # Ok(()) }
//! ```

mod asking;
mod canary;
mod channel;
mod ear;
mod fault;
mod feed;
mod fences;
mod health;
mod inbox;
mod interest;
mod lease;
mod letter;
mod node;
mod pause;
mod publisher;
mod roster;
mod shared;
mod wishes;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use hub::time::Timestamp;
pub use store_redis::OpenFault;
pub use store_redis::bus::Message;
use store_redis::bus::encode_message;
use store_redis::link::Link;
use store_redis::{Address, Failure, Terms};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

use crate::asking::REQUESTS_MAX;
pub use crate::asking::{Answers, Request, Requests};
pub use crate::channel::Channel;
pub use crate::fault::BusFault;
pub use crate::feed::{Feed, Fence, News};
use crate::health::Tally;
pub use crate::health::{BusHealth, Counts, Deaf, DeafCause};
use crate::letter::Letter;
pub use crate::node::{NodeId, NodeInfo};
use crate::publisher::Publisher;
use crate::shared::{Parts, Shared};
use crate::wishes::Listens;

/// Where and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where Redis is, and how it is reached.
    pub terms: Terms,
    /// What all keys and channels begin with, in braces; the same as the store's. Default `fanfare`.
    pub prefix: String,
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
            terms: Terms::new(address),
            prefix: "fanfare".to_owned(),
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
pub struct Bus {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    tasks: Mutex<Vec<AbortHandle>>,
}

impl Bus {
    /// Connects, draws a number that nobody has, registers, and keeps the lease from then on. To be called in a runtime
    /// of tokio with time and I/O, on which the tasks of the bus run.
    ///
    /// # Errors
    /// [`OpenFault`]: the environment's fault, or a prefix that makes no sense.
    pub async fn open(options: Options) -> Result<(Bus, Feed, Requests), OpenFault> {
        let link = Arc::new(Link::of(options.terms.clone(), &options.prefix)?);
        let unusable = |failure: Failure| OpenFault::Unreachable {
            address: options.terms.address.to_string(),
            why: failure.why(),
        };
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let info = NodeInfo {
            id: NodeId(0),
            name: options.name.clone(),
            version: options.version.clone(),
            reach: options.reach,
            since: Timestamp(u64::try_from(since.as_millis()).unwrap_or(0)),
        };
        let me = lease::draw(&link, info, options.lease).await.map_err(unusable)?;
        let tally = Arc::new(Tally::default());
        let (publisher, publishing) = Publisher::new(Arc::clone(&link), Arc::clone(&tally));
        let (requests, waiting) = mpsc::channel(REQUESTS_MAX);
        let nonce = pause::random();
        let prefix = options.prefix.clone();
        let parts = Parts { prefix, me, link, publisher, tally, requests, nonce };
        let shared = Arc::new(Shared::new(parts));
        let bus = Bus { inner: Arc::new(Inner { shared: Arc::clone(&shared), tasks: Mutex::default() }) };
        bus.run(publishing);
        let (first, connected) = oneshot::channel();
        bus.run(ear::run(Arc::clone(&shared), first));
        let connected = connected.await.unwrap_or_else(|_| Err(Failure::Refused("it has ended".to_owned())));
        let looked = match connected {
            Ok(()) => lease::look(&shared, true).await,
            Err(failure) => Err(failure),
        };
        if let Err(failure) = looked {
            // The lease ends by itself if this fails, too.
            let _ = lease::leave(&shared.link, &shared.me).await;
            return Err(unusable(failure));
        }
        lease::announce(&shared).await;
        bus.run({
            let shared = Arc::clone(&shared);
            async move { shared.fences.run(&shared).await }
        });
        bus.run({
            let shared = Arc::clone(&shared);
            async move { canary::run(&shared).await }
        });
        bus.run({
            let shared = Arc::clone(&shared);
            async move {
                lease::keep(&shared, options.lease).await;
                tracing::error!(
                    "another server has the number {} of this one, which must start anew",
                    shared.me.id
                );
                shared.status.supersede();
                shared.end();
            }
        });
        Ok((bus, Feed { shared }, Requests { waiting }))
    }

    /// This node's number.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.shared().me.id
    }

    /// The nodes that live, this one included, by number.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeInfo> {
        let mut nodes = self.shared().others();
        nodes.push(self.shared().me.clone());
        nodes.sort_by_key(|info| info.id);
        nodes
    }

    /// Subscribes to these channels, and tells the others. When it returns, what is published on them from now on comes by
    /// the feed; other nodes hear a moment later that they may tell what is not kept. A channel may be named again; it
    /// counts once.
    ///
    /// # Errors
    /// [`BusFault::Down`], at once, if there is no connection: the wish is kept, and fulfilled before the next
    /// [`News::Resumed`]. [`BusFault::Closed`].
    pub async fn listen(&self, channels: &[Channel]) -> Result<(), BusFault> {
        match self.shared().wishes.want(channels)? {
            Some(waiting) => waiting.await.unwrap_or(Err(BusFault::Closed)),
            None => Ok(()),
        }
    }

    /// Takes the wish for these channels back. Some of what was published before may come still.
    pub fn unlisten(&self, channels: &[Channel]) {
        self.shared().wishes.drop(channels);
    }

    /// The channels that are wanted, connected or not, in no order.
    #[must_use]
    pub fn listening(&self) -> Vec<Channel> {
        self.shared().wishes.all()
    }

    /// Waits until everything that was published before the call, on channels that are subscribed, has been taken out of
    /// the feed, and its reader has passed the mark behind it. Calls at the same time share one mark.
    ///
    /// # Errors
    /// [`BusFault::Down`]: the mark is lost, with whatever connection; what was missed is missed. [`BusFault::Closed`].
    pub async fn fence(&self) -> Result<(), BusFault> {
        self.shared().fences.pass().await
    }

    /// Whether another node listens to this channel, as far as is known here: yes, if it is not known.
    #[must_use]
    pub fn is_wanted_elsewhere(&self, channel: &Channel) -> bool {
        self.shared().interest.find(channel).is_some()
    }

    /// Tells an event that is not kept to the nodes that listen to any of these channels; each gets it once, and in the
    /// order in which this node tells. It does not come back to this node. The message must be of this node's number, and
    /// its `order` none; the caller's fault otherwise, and nobody may get it.
    ///
    /// # Errors
    /// [`BusFault`]: some may not have been told. It is not tried again.
    pub async fn tell(&self, channels: &[Channel], message: &Message) -> Result<(), BusFault> {
        debug_assert!(message.order.is_none() && message.origin == self.node().0, "{message:?}");
        let shared = self.open_shared()?;
        let mut wanted = Vec::new();
        for channel in channels {
            if let Some(found) = shared.interest.find(channel) {
                wanted.push((channel, found, shared.wishes.listens(channel)));
            }
        }
        if wanted.is_empty() {
            return Ok(());
        }
        let names = wanted.iter().map(|(channel, ..)| channel.name(&shared.prefix)).collect();
        let sending = {
            // What is numbered first is queued first: others drop what comes with a lower number.
            let mut turn = shared.turn.lock().unwrap_or_else(PoisonError::into_inner);
            *turn += 1;
            shared.publisher.queue(names, encode_message(message, *turn))?
        };
        let receivers = publisher::sent(sending).await?;
        for ((channel, found, before), receivers) in wanted.into_iter().zip(receivers) {
            // One of them is this node itself, if it listens all the while.
            let is_own = before == Listens::Yes && shared.wishes.listens(channel) == Listens::Yes;
            if receivers <= u64::from(is_own) {
                shared.interest.forget(channel, found);
            }
        }
        Ok(())
    }

    /// Asks all other nodes that live, and waits until all have answered or gone, or `patience` is over.
    pub async fn ask_all(&self, body: Bytes, patience: Duration) -> Answers {
        let shared = self.shared();
        let others: Vec<NodeId> = shared.others().into_iter().map(|info| info.id).collect();
        if others.is_empty() || self.open_shared().is_err() {
            return Answers { answers: Vec::new(), missing: others };
        }
        self.question(shared.common_channel(), others, body, patience).await.0
    }

    /// Asks one other node.
    ///
    /// # Errors
    /// [`BusFault::NoSuchNode`], also for this node's own number; [`BusFault::NoAnswer`] when `patience` is over, or at
    /// once if the node does not listen now; and what [`Bus::tell`] says.
    pub async fn ask(&self, node: NodeId, body: Bytes, patience: Duration) -> Result<Bytes, BusFault> {
        let shared = self.open_shared()?;
        if !shared.has_node(node) {
            return Err(BusFault::NoSuchNode(node));
        }
        let (answers, sent) = self.question(shared.node_channel(node), vec![node], body, patience).await;
        match answers.answers.into_iter().next() {
            Some((_, answer)) => Ok(answer),
            None => Err(sent.err().unwrap_or(BusFault::NoAnswer)),
        }
    }

    /// How it is doing.
    #[must_use]
    pub fn health(&self) -> BusHealth {
        let shared = self.shared();
        shared.status.health(shared.others().len() + 1, &shared.tally)
    }

    /// Leaves: gives the lease up, tells the others, who need not wait for its end, and ends the feed. Calls after it
    /// fail.
    pub async fn close(&self) {
        let shared = self.shared();
        let tasks = std::mem::take(&mut *self.inner.tasks());
        let mut tasks = tasks.into_iter();
        // It is needed for the last word.
        let publishing = tasks.next();
        tasks.for_each(|task| task.abort());
        shared.end();
        if publishing.is_none() {
            return;
        }
        match lease::leave(&shared.link, &shared.me).await {
            Ok(()) => {
                let gone = Letter::Gone(shared.me.name.clone());
                if let Err(fault) = shared.publish_letter(shared.common_channel(), &gone).await {
                    tracing::debug!("that this server leaves is not told: {fault}");
                }
            }
            Err(failure) => tracing::debug!("the lease of this server is left to end: {}", failure.why()),
        }
        publishing.into_iter().for_each(|task| task.abort());
    }

    async fn question(
        &self,
        channel: String,
        whom: Vec<NodeId>,
        body: Bytes,
        patience: Duration,
    ) -> (Answers, Result<(), BusFault>) {
        let shared = self.shared();
        let mut asked = shared.questions.ask(whom);
        let letter = Letter::Question { number: asked.number, body };
        let asking = async {
            match shared.publish_letter(channel, &letter).await? {
                0 => Err(BusFault::NoAnswer),
                // It ends without a word only with the question itself.
                _ => (&mut asked.done).await.map_err(|_| BusFault::NoAnswer),
            }
        };
        // Whoever has not answered by then is among the missing.
        let sent = tokio::time::timeout(patience, asking).await.unwrap_or(Err(BusFault::NoAnswer));
        (asked.answers(), sent)
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.inner.shared
    }

    fn open_shared(&self) -> Result<&Arc<Shared>, BusFault> {
        let shared = self.shared();
        if shared.inbox.is_ended() { Err(BusFault::Closed) } else { Ok(shared) }
    }

    fn run(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.inner.tasks().push(tokio::spawn(task).abort_handle());
    }
}

impl Inner {
    fn tasks(&self) -> MutexGuard<'_, Vec<AbortHandle>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.end();
        self.tasks().drain(..).for_each(|task| task.abort());
    }
}
