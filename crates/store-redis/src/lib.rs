//! Keeps logs and records in Redis: [`RedisStore`] is the [`Store`] of servers that work together.
//!
//! Owns how they are kept; does not know the rules, which are `hub`'s, nor the time, which comes with each batch.
//! Invariant: every step that others could see half done is one script, which Redis runs alone.
//!
//! # Where it is
//!
//! One server, the master that Sentinels name, or a Cluster; see [`Address::parse`]. All keys have one hash tag, the
//! prefix, so that a commit over any records and rooms is one step, and one counter numbers all events. The price: one
//! deployment is kept by one server of a Cluster, whatever its size. Several deployments, with prefixes of their own,
//! spread. Redis 7.0 or newer, with `maxmemory-policy noeviction`.
//!
//! # What an answer promises
//!
//! That Redis has it. Whether Redis still has it after a loss of power is `appendfsync` in its configuration: with
//! `always` an answer comes after the disk has it, with `everysec` up to a second may be lost. Replicas follow a moment
//! later, so a failover may lose what was answered last, unless [`Options::replicas`] says how many must have it first.
//!
//! What a failover has lost is noticed: whoever was told of an order that the database does not reach makes it begin new
//! epochs and pass over a million orders, so that no number means two events, and nobody reads over the gap.
//!
//! # When it fails
//!
//! A commit whose answer is lost (a broken connection, a time-out) is sent again under the same number for as long as
//! [`Options::patience`] allows, and done once. After that it is answered [`StoreFault::Unavailable`] with the words that
//! whether it was done is not known; it is not done later than the next commit. A batch of more than 512 steps is
//! several scripts; if a later one fails, the fault says how many commits are done. `Full`: memory, disk or rights are
//! missing. `Corrupt`: the keys are not as we left them.
//!
//! ```no_run
//! # async fn demo() -> Result<(), Box<dyn std::error::Error>> {
//! use hub::store::Store;
//! let address = store_redis::Address::parse("redis://127.0.0.1:6379")?;
//! let store = store_redis::RedisStore::open(store_redis::Options::new(address))?;
//! println!("{:?}", store.health().await?);
//! store.close();
//! # Ok(()) }
//! ```
//!
//! [`StoreFault::Unavailable`]: hub::store::StoreFault::Unavailable

mod address;
mod body;
pub mod bus;
mod call;
mod connector;
mod fault;
mod health;
mod keys;
pub mod link;
mod msgpack;
mod open;
mod read;
mod record;
mod script;
mod terms;
mod writer;

use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use hub::room::RoomName;
use hub::store::{
    Answer, Commit, Found, IdempotencyKey, Kept, Listing, Outcome, Page, Record, RecordKey, RecordKind, Span,
    Store, StoreHealth,
};
use hub::time::Timestamp;
use tokio::runtime::{Handle, Runtime};

pub use crate::address::Address;
use crate::call::Bounds;
pub use crate::connector::{Connector, Push};
pub use crate::fault::{Failure, OpenFault};
use crate::health::Health;
use crate::keys::Keys;
use crate::link::Link;
use crate::read::Reads;
pub use crate::script::Script;
pub use crate::terms::Terms;
use crate::writer::{Manner, Writer, closed};

/// Where and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where Redis is, and how it is reached.
    pub terms: Terms,
    /// What all keys begin with, in braces; no braces in it. Default `fanfare`. Another one is another store.
    pub prefix: String,
    /// How long a commit is tried before it fails. Default 5 s: a restart or a failover then passes unnoticed. Longer:
    /// whoever publishes waits longer to be told.
    pub patience: Duration,
    /// Replicas that must have a commit before it is answered. Default 0. More than there are: no commit is answered.
    pub replicas: u32,
    /// Whether what is kept is published to other servers if it has a route, see [`bus`]. Default false. Channels know no
    /// numbers of databases: deployments on one server need prefixes of their own.
    pub publishes: bool,
}

impl Options {
    /// The defaults, for this server.
    #[must_use]
    pub fn new(address: Address) -> Self {
        Self {
            terms: Terms::new(address),
            prefix: "fanfare".to_owned(),
            patience: Duration::from_secs(5),
            replicas: 0,
            publishes: false,
        }
    }

    fn manner(&self) -> Manner {
        Manner {
            bounds: Bounds::DEFAULT,
            publishes: self.publishes,
            patience: self.patience,
            replicas: self.replicas,
            // Time to answer must be left.
            replicas_timeout: self.terms.command_timeout / 2,
        }
    }
}

/// A store in Redis. See the crate.
pub struct RedisStore {
    reads: Arc<Reads>,
    writer: Arc<Writer>,
    handle: Handle,
    /// Taken by [`RedisStore::close`].
    running: Mutex<Option<Running>>,
}

/// What runs while the store is open.
struct Running {
    runtime: Runtime,
    /// Ends when the writer has.
    writing: mpsc::Receiver<()>,
}

impl RedisStore {
    /// Connects, and looks whether the keys are ours. Blocks until then; connections live on a thread of the store's own,
    /// so no runtime is needed.
    ///
    /// # Errors
    /// [`OpenFault`]: the environment's fault, or an address or prefix that makes no sense.
    pub fn open(options: Options) -> Result<Self, OpenFault> {
        let keys = Keys::new(&options.prefix).map_err(OpenFault::Address)?;
        let health = Arc::new(Health::default());
        let unusable = |error: std::io::Error| OpenFault::Unreachable {
            address: options.terms.address.to_string(),
            why: format!("no thread: {error}"),
        };
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        // One: Redis answers one question at a time, too.
        let builder = builder.worker_threads(1).thread_name("store-redis").enable_all();
        let runtime = builder.build().map_err(unusable)?;
        let link = || Link::new(options.terms.clone(), keys.of("store"));
        let reads = Arc::new(Reads { link: link(), keys: keys.clone(), health: Arc::clone(&health) });
        // A connection of its own: a long answer to somebody who reads must not hold up those who write.
        let (writer, work) = Writer::new(link(), options.manner(), health);
        let (opened, opening) = mpsc::channel();
        let asked = Arc::clone(&reads);
        runtime.spawn(async move {
            // Whoever opens waits for it.
            let _ = opened.send(open::check(&asked).await);
        });
        let checked = opening
            .recv()
            .unwrap_or_else(|_| Err(Failure::Refused("the check has failed".to_owned()).into()));
        checked.map_err(|fault| fault.to_open_fault(&options))?;
        let (ended, writing) = mpsc::channel();
        runtime.spawn(async move {
            work.await;
            drop(ended);
        });
        let handle = runtime.handle().clone();
        let running = Mutex::new(Some(Running { runtime, writing }));
        Ok(Self { reads, writer: Arc::new(writer), handle, running })
    }

    /// Ends the store: what was asked before is answered, at the latest when [`Options::patience`] is over. Blocks until
    /// then. Calls after it fail as `Unavailable`. A second call, and the end of a store that was closed, do nothing.
    pub fn close(&self) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Running { runtime, writing }) = running {
            let writer = Arc::clone(&self.writer);
            runtime.spawn(async move { writer.close().await });
            // Nothing is ever sent: it ends when the other side is gone.
            let _ = writing.recv();
            runtime.shutdown_background();
        }
    }

    /// Asks on the store's own thread.
    fn ask<T: Send + 'static, Q>(&self, question: impl FnOnce(Arc<Reads>) -> Q) -> Answer<'_, T>
    where
        Q: Future<Output = Result<T, Failure>> + Send + 'static,
    {
        let question = question(Arc::clone(&self.reads));
        Box::pin(async move {
            match self.handle.spawn(question).await {
                Ok(answer) => answer.map_err(|failure| failure.to_fault()),
                Err(_) => Err(closed()),
            }
        })
    }
}

impl Drop for RedisStore {
    fn drop(&mut self) {
        self.close();
    }
}

impl Store for RedisStore {
    fn look<'a>(&'a self, records: Vec<RecordKey>, keys: Vec<IdempotencyKey>) -> Answer<'a, Found> {
        if records.is_empty() && keys.is_empty() {
            return Box::pin(std::future::ready(Ok(Found::default())));
        }
        self.ask(|reads| async move { reads.look(records, keys).await })
    }

    fn commit<'a>(&'a self, now: Timestamp, batch: Vec<Commit>) -> Answer<'a, Vec<Outcome>> {
        Box::pin(self.writer.commit(now, batch))
    }

    fn read<'a>(&'a self, room: RoomName, span: Span) -> Answer<'a, Page> {
        self.ask(move |reads| async move { reads.page(room, span).await })
    }

    fn read_latest<'a>(&'a self, room: RoomName) -> Answer<'a, Vec<Kept>> {
        self.ask(|reads| async move { reads.latest(room).await })
    }

    fn read_after_order<'a>(
        &'a self,
        rooms: Vec<RoomName>,
        order: u64,
        limit: usize,
    ) -> Answer<'a, Option<Vec<Kept>>> {
        self.ask(move |reads| async move { reads.after_order(rooms, order, limit).await })
    }

    fn list<'a>(&'a self, kind: RecordKind, listing: Listing) -> Answer<'a, Vec<Record>> {
        self.ask(move |reads| async move { reads.list(kind, listing).await })
    }

    fn due<'a>(&'a self, until: Timestamp, limit: usize) -> Answer<'a, Vec<Record>> {
        self.ask(move |reads| async move { reads.due(until, limit).await })
    }

    fn next_due(&self) -> Answer<'_, Option<Timestamp>> {
        self.ask(|reads| async move { reads.next_due().await })
    }

    fn health(&self) -> Answer<'_, StoreHealth> {
        let asked = self.ask(|reads| async move { Ok(reads.health().await) });
        Box::pin(async move {
            // It is how one learns what is wrong, so it works always.
            Ok(asked.await.unwrap_or_else(|fault| StoreHealth {
                complaint: Some(fault.to_string()),
                bytes: None,
                order: self.reads.health.order(),
            }))
        })
    }
}
