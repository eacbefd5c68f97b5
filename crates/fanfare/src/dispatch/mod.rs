//! Owns the one path on which logs grow: operations in order, each decided, committed, sent out, answered.
//! Does not know HTTP, sockets' commands or what records mean. Invariant: events reach the shards in the order in
//! which the store committed them, and what was answered is kept.
//!
//! One task takes the operations that have come, looks up the records they need, runs their rules, commits all of
//! them at once, and only then sends the events out and answers. While it waits for the disk the next operations
//! gather, so the batches grow with the load. A watcher is attached in the same order: it is given what the log has,
//! then joins, so nothing is missed or repeated between the two.

mod cluster;
mod draft;
mod fanout;
mod feed;
mod ids;
mod lane;
mod mirroring;
mod outlet;
mod plan;
mod recent;
mod records;
mod turn;
mod waiters;

pub(crate) use cluster::{Cluster, Figures};
pub(crate) use fanout::ROOM_NAMESPACES;
pub(crate) use feed::NodeNews;
pub(crate) use records::{due_rule, record_rule};
pub(crate) use turn::position_json;
pub(crate) use waiters::Changed;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bus::{Bus, Feed};
use engine::{RestoreRequest, Server, Sid, Socket};
use hub::event::{EventId, Position};
use hub::outgoing::Outgoing;
use hub::policy::Policies;
use hub::room::RoomName;
use hub::store::{
    IdempotencyKey, Kept, Page, Placed, Record, RecordKey, RecordKind, RecordState, Span, Store,
};
use hub::time::Timestamp;
use serde_json::Value;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use self::feed::Hearing;
use self::lane::{Lane, Reach};
use self::outlet::Outlet;
use self::waiters::Waiters;
use crate::auth::Identity;
use crate::codes::{Code, Fault};
use crate::filters::{Channel, Filters};
use crate::foreign::Foreign;

/// Operations that may wait, and events in them. 16,384: at 100,000 a second, what comes in the time of a slow disk's flush; beyond it
/// publishers are told to try again.
const OPERATIONS_MAX: usize = 16_384;

/// Events that a socket that comes back may have missed, whatever its outbox takes. 100,000: five seconds at 20,000 a
/// second, and some 100 MB while they are on their way.
const RESTORED_MAX: usize = 100_000;

/// Bytes that an event takes at least in an outbox: more events than fit there need not be read.
const RESTORED_BYTES_MIN: usize = 32;

/// How often a record is looked at that another node may change.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What a rule decides.
#[derive(Debug, Default)]
pub(crate) struct Decision {
    /// What becomes of the record.
    pub(crate) next: Next,
    /// The events that tell of it.
    pub(crate) events: Vec<Outgoing>,
    /// What is answered; also to a repetition.
    pub(crate) answer: Value,
}

/// What becomes of a record.
#[derive(Debug, Default)]
pub(crate) enum Next {
    /// It stays as it is, also if it is not there.
    #[default]
    Same,
    /// It becomes this.
    Become(RecordState),
    /// It goes.
    Gone,
}

/// Decides on a record as it is. May run more than once, on newer states.
pub(crate) type Rule =
    Box<dyn FnMut(Option<&Record>, Timestamp) -> Result<Decision, hub::fault::Fault> + Send + Sync>;

/// What is done when a record's time has come.
pub(crate) type DueRule =
    Arc<dyn Fn(&Record, Timestamp) -> Result<Decision, hub::fault::Fault> + Send + Sync>;

/// What an operation has come to.
#[derive(Clone, Debug)]
pub(crate) struct Committed {
    /// The ids of its events.
    pub(crate) ids: Vec<EventId>,
    /// Where each was put; nothing for events that no room keeps.
    pub(crate) placed: Vec<Vec<Placed>>,
    /// What the rule answered.
    pub(crate) answer: Value,
    /// It had been done before, under the same key.
    pub(crate) is_repetition: bool,
}

/// What a watcher is given before it joins.
#[derive(Debug)]
pub(crate) enum Replay {
    /// Nothing; but it is told where the log stands.
    Nothing(Page),
    /// A part of the log, up to its end at the time of reading.
    Log(Page),
    /// Nothing: the room keeps nothing.
    Unkept,
    /// The latest of everything, and the store's order before they were read.
    Latest(Vec<Kept>, u64),
}

/// Where a watcher has joined.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attached {
    /// The newest event of the log at that moment; seq 0 if there has been none, `None` if the room has no log.
    pub(crate) position: Option<Position>,
    /// Events that it was given.
    pub(crate) replayed: usize,
}

/// One thing to be done in its turn.
pub(super) enum Operation {
    Change {
        key: Option<RecordKey>,
        idempotency: Option<IdempotencyKey>,
        rule: Rule,
        reply: Option<oneshot::Sender<Result<Committed, Fault>>>,
    },
    Attach(Attachment),
}

/// A socket that is given its place among the watchers.
pub(super) enum Attachment {
    /// It joins a room, after what the log has for it.
    Join {
        socket: Socket,
        room: RoomName,
        /// What it wants of the room, if not all.
        channel: Option<Arc<Channel>>,
        replay: Replay,
        reply: oneshot::Sender<Result<Attached, Fault>>,
    },
    /// It comes back.
    Restore(Box<Returning>),
}

/// A socket that asks to come back from what is kept of it.
pub(crate) struct Asking {
    /// The peer that waits.
    pub(crate) request: RestoreRequest,
    /// Its public id.
    pub(crate) sid: Sid,
    /// Its rooms, each with the order up to which nothing in it is for the socket.
    pub(crate) rooms: Vec<(RoomName, u64)>,
    /// The rooms of which it wants only a part.
    pub(crate) channels: HashMap<RoomName, Arc<Channel>>,
    /// The order up to which it has everything.
    pub(crate) order: u64,
    /// What goes along with it.
    pub(crate) state: Arc<Identity>,
}

/// The same with its place in the order.
pub(crate) struct Returning {
    /// The peer that waits.
    pub(crate) request: RestoreRequest,
    /// Its public id.
    pub(crate) sid: Sid,
    /// Its rooms, each with the order up to which nothing in it is for the socket.
    pub(crate) rooms: Vec<(RoomName, u64)>,
    /// The rooms of which it wants only a part.
    pub(crate) channels: HashMap<RoomName, Arc<Channel>>,
    /// The order up to which it has everything.
    pub(crate) order: u64,
    /// What goes along with it.
    pub(crate) state: Arc<Identity>,
    /// What it missed, up to [`Returning::read_order`].
    pub(super) missed: Vec<Kept>,
    /// The order up to which `missed` has everything.
    pub(super) read_order: u64,
    pub(super) reply: oneshot::Sender<Result<(), Fault>>,
}

impl Returning {
    /// Whether an event of a room is one that the socket missed.
    pub(super) fn has_missed(&self, Kept { room, order, event, .. }: &Kept) -> bool {
        *order > self.order
            && self.rooms.iter().any(|(own, since)| own == room && order > since)
            && self.channels.get(room).is_none_or(|channel| channel.lets_pass(event))
    }

    /// The engine's rooms that it comes back to.
    pub(super) fn names(&self) -> Vec<String> {
        let name = |room| self.channels.get(room).map_or(RoomName::as_str(room), |channel| channel.name());
        self.rooms.iter().map(|(room, _)| name(room).to_owned()).collect()
    }
}

/// What the dispatcher and its users share.
pub(super) struct Shared {
    pub(super) server: Server,
    pub(super) store: Arc<dyn Store>,
    pub(super) policies: Arc<Policies>,
    /// Events that a socket that comes back may have missed. Who missed more begins anew.
    pub(super) restored_max: usize,
    pub(super) filters: Filters,
    /// How long a lost socket may come back.
    pub(super) away_max: Duration,
    /// The newest order that has been sent out.
    pub(super) sent_order: AtomicU64,
    /// Whether the last commit failed.
    pub(super) is_failing: AtomicBool,
    pub(super) due_rules: Vec<(RecordKind, DueRule)>,
    /// The other nodes, if this server is one of several.
    pub(super) cluster: Option<Arc<Cluster>>,
    /// Who waits for a record to change.
    waiters: Arc<Waiters>,
    /// Servers of other making, once it is known whether there may be any.
    foreign: OnceLock<Foreign>,
}

impl Shared {
    /// The newest order that the store has given; `None` if it cannot be asked.
    pub(super) async fn store_order(&self) -> Option<u64> {
        // Whichever room is asked for: a read tells the order before it.
        let page = self.store.read(RoomName::parse("global").ok()?, Span::Last { limit: 0 }).await;
        Some(page.ok()?.order)
    }

    /// Has other nodes send an event that nobody keeps.
    async fn tell(&self, delivery: &fanout::Delivery) {
        if let Some(cluster) = &self.cluster {
            cluster.tell(delivery).await;
        }
    }

    /// Sends an event that nobody keeps to the sockets here.
    async fn send_here(&self, delivery: &fanout::Delivery) {
        fanout::send(&self.server, &self.filters, delivery).await;
    }

    /// Sends an event that nobody keeps to the sockets here, and has other nodes do so.
    async fn send_unkept(&self, delivery: &fanout::Delivery) {
        self.send_here(delivery).await;
        self.tell(delivery).await;
    }

    /// Servers of other making.
    pub(super) fn foreign(&self) -> &Foreign {
        static NOBODY: Foreign = Foreign::nobody();
        self.foreign.get().unwrap_or(&NOBODY)
    }
}

/// What a dispatcher works with.
pub(crate) struct Terms {
    pub(crate) server: Server,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) policies: Arc<Policies>,
    pub(crate) filters: Filters,
    /// Bytes that wait for one socket.
    pub(crate) outbox_bytes_max: usize,
    /// How long a lost socket may come back.
    pub(crate) away_max: Duration,
    /// What is done when the time of a record has come.
    pub(crate) due_rules: Vec<(RecordKind, DueRule)>,
}

/// The way to the other nodes of a server.
pub(crate) struct Peers {
    /// What is told and asked.
    pub(crate) bus: Bus,
    /// What is heard.
    pub(crate) feed: Feed,
    /// Who hears what the others tell besides events. Must not block.
    pub(crate) on_news: Box<dyn Fn(NodeNews) + Send + Sync>,
}

/// The way to the dispatcher. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Dispatcher {
    shared: Arc<Shared>,
    operations: mpsc::Sender<Operation>,
    /// The way past a store that cannot be reached, where others share it.
    lane: Option<Lane>,
    /// Room for events that wait: as many as operations.
    places: Arc<Semaphore>,
}

impl Dispatcher {
    /// Starts the task. It ends when the last handle is gone and all operations are done. With `peers`, this server is one
    /// of several: what is kept goes out as it is heard from them.
    pub(crate) fn start(terms: Terms, peers: Option<Peers>) -> Self {
        let Terms { server, store, policies, filters, outbox_bytes_max, away_max, due_rules } = terms;
        let (operations, waiting) = mpsc::channel(OPERATIONS_MAX);
        let (errands, awaiting) = mpsc::channel(feed::ERRANDS_MAX);
        let (cluster, heard) = match peers {
            Some(Peers { bus, feed, on_news }) => {
                let cluster = Arc::new(Cluster::new(bus, errands));
                (Some(cluster.clone()), Some((cluster, feed, on_news)))
            }
            None => (None, None),
        };
        let shared = Arc::new(Shared {
            server,
            store,
            policies,
            restored_max: RESTORED_MAX.min(outbox_bytes_max / RESTORED_BYTES_MIN),
            filters,
            away_max,
            sent_order: AtomicU64::new(0),
            is_failing: AtomicBool::new(false),
            due_rules,
            cluster,
            waiters: Arc::default(),
            foreign: OnceLock::new(),
        });
        let outlet = Outlet::new(shared.clone());
        let exit = match heard {
            Some((cluster, feed, on_news)) => {
                tokio::spawn(feed::note_heard(shared.clone(), cluster.clone()));
                let shared = shared.clone();
                let hearing = Hearing { shared, cluster, outlet, feed, errands: awaiting, on_news };
                tokio::spawn(hearing.run());
                None
            }
            None => Some(outlet),
        };
        let lane = shared.cluster.as_ref().map(|_| Lane::start(shared.clone()));
        tokio::spawn(turn::run(shared.clone(), exit, waiting));
        Self { shared, operations, lane, places: Arc::new(Semaphore::new(OPERATIONS_MAX)) }
    }

    /// Decides on a record, or on nothing but the events, and answers when it is kept and sent.
    ///
    /// # Errors
    /// The rule's refusal; [`Code::Busy`] if too much is waiting; [`Code::StoreUnavailable`] if nothing can be kept.
    pub(crate) async fn change(
        &self,
        key: Option<RecordKey>,
        idempotency: Option<IdempotencyKey>,
        rule: Rule,
    ) -> Result<Committed, Fault> {
        self.begin(key, idempotency, rule)?.done().await
    }

    /// As [`Dispatcher::change`], but answers as soon as the operation has its place in the order.
    ///
    /// # Errors
    /// [`Code::Busy`] if too much is waiting.
    pub(crate) fn begin(
        &self,
        key: Option<RecordKey>,
        idempotency: Option<IdempotencyKey>,
        rule: Rule,
    ) -> Result<Underway, Fault> {
        let (reply, outcome) = oneshot::channel();
        let operation = Operation::Change { key, idempotency, rule, reply: Some(reply) };
        self.operations.try_send(operation).map_err(|_| busy())?;
        Ok(Underway(outcome))
    }

    /// Sends events that no record goes with.
    ///
    /// # Errors
    /// As [`Dispatcher::change`].
    pub(crate) fn publish(
        &self,
        idempotency: Option<IdempotencyKey>,
        mut events: Vec<Outgoing>,
    ) -> Result<Underway, Fault> {
        if let Some(lane) = &self.lane
            && self.is_failing()
            && idempotency.is_none()
        {
            // Nobody who is here shall wait for a store that is not.
            match lane.send(events)? {
                Ok(underway) => return Ok(underway),
                Err(to_keep) => events = to_keep,
            }
        }
        // A batch is one operation, but takes as much room as its events; one that is larger than all of it takes all.
        let count = u32::try_from(events.len().min(OPERATIONS_MAX)).unwrap_or(u32::MAX);
        let place = self.places.clone().try_acquire_many_owned(count).map_err(|_| busy())?;
        let rule: Rule = Box::new(move |_, _| {
            // Held for as long as the operation is.
            let _ = &place;
            // Only what changes a record can meet a conflict and be asked again.
            Ok(Decision { events: std::mem::take(&mut events), ..Decision::default() })
        });
        self.begin(None, idempotency, rule)
    }

    /// Sends events that nobody keeps to the sockets of this process only.
    ///
    /// # Errors
    /// [`Code::Busy`] if too much is waiting.
    pub(crate) fn publish_here(&self, events: Vec<Outgoing>) -> Result<(), Fault> {
        match &self.lane {
            Some(lane) => lane.push(events, Reach::Here).map(drop),
            None => self.publish(None, events).map(drop),
        }
    }

    /// Tells other nodes, and no socket, of something that nobody keeps.
    ///
    /// # Errors
    /// [`Code::Busy`] if too much is waiting.
    pub(crate) fn publish_elsewhere(&self, notices: Vec<Outgoing>) -> Result<(), Fault> {
        self.lane.as_ref().map_or(Ok(()), |lane| lane.push(notices, Reach::Elsewhere).map(drop))
    }

    /// Lets a socket join a room in its turn, after what the log has for it.
    ///
    /// # Errors
    /// [`Code::TooManyRooms`], or [`Code::Busy`].
    pub(crate) async fn attach(
        &self,
        socket: Socket,
        room: RoomName,
        channel: Option<Arc<Channel>>,
        replay: Replay,
    ) -> Result<Attached, Fault> {
        let (reply, outcome) = oneshot::channel();
        self.attach_in_turn(Attachment::Join { socket, room, channel, replay, reply }).await?;
        outcome.await.map_err(|_| busy())?
    }

    async fn attach_in_turn(&self, attachment: Attachment) -> Result<(), Fault> {
        let Some(cluster) = &self.shared.cluster else {
            return self.operations.send(Operation::Attach(attachment)).await.map_err(|_| busy());
        };
        if !matches!(attachment, Attachment::Join { replay: Replay::Unkept, .. }) {
            // What was read may be newer than what was heard until now.
            cluster.settle().await?;
        }
        if cluster.attach(attachment).await { Ok(()) } else { Err(busy()) }
    }

    /// Sees to it that what these rooms get is heard from now on, also from other nodes: whoever reads their logs after
    /// this call, and is attached then, misses nothing.
    /// Answers those that were not heard before.
    pub(crate) async fn hear(&self, rooms: &[RoomName]) -> Vec<RoomName> {
        match &self.shared.cluster {
            Some(cluster) => cluster.hear(rooms).await,
            None => Vec::new(),
        }
    }

    /// The newest order of all: what is read after this call has everything up to it, and what is sent to whoever is
    /// attached then has everything after it.
    pub(crate) async fn newest_order(&self) -> u64 {
        match &self.shared.cluster {
            // Without the store nobody is attached to what it keeps; what was heard is as good as any then.
            Some(_) => self.shared.store_order().await.unwrap_or_else(|| self.sent_order()),
            None => self.sent_order(),
        }
    }

    /// Waits from now on for a record to change, whether or not there is one; see [`Dispatcher::wait_changed`].
    pub(crate) fn changed(&self, key: &RecordKey) -> Changed {
        self.shared.waiters.wait(key)
    }

    /// Waits for what [`Dispatcher::changed`] gave, at most until `until`; less if the change may be another node's, of which
    /// nobody is told: so it is to be looked again.
    pub(crate) async fn wait_changed(&self, changed: Changed, until: Instant) {
        let until = match &self.shared.cluster {
            Some(_) => until.min(Instant::now() + LOOK_AGAIN),
            None => until,
        };
        changed.wait(until).await;
    }

    /// Whether what one process is enough for is this one's to do: of several nodes it is that of the lowest number.
    pub(crate) fn is_foremost(&self) -> bool {
        self.shared.cluster.as_ref().is_none_or(|cluster| cluster.is_foremost())
    }

    /// Gives a socket back to its peer in its turn, with what it missed.
    ///
    /// # Errors
    /// Some of what it missed is gone, or the peer is.
    pub(crate) async fn restore(&self, asking: Asking) -> Result<(), Fault> {
        let Asking { request, sid, rooms, channels, order, state } = asking;
        // Read here and not in its turn, where everybody would wait for it.
        let names: Vec<RoomName> = rooms.iter().map(|(room, _)| room.clone()).collect();
        self.hear(&names).await;
        let read_order = self.newest_order().await;
        let mut missed = match self.read_missed(names, order).await {
            Ok(missed) => missed,
            Err(fault) => {
                request.refuse();
                return Err(fault);
            }
        };
        missed.retain(|kept| kept.order <= read_order);
        let (reply, outcome) = oneshot::channel();
        let returning = Returning { request, sid, rooms, channels, order, state, missed, read_order, reply };
        self.attach_in_turn(Attachment::Restore(Box::new(returning))).await?;
        outcome.await.map_err(|_| busy())?
    }

    async fn read_missed(&self, rooms: Vec<RoomName>, order: u64) -> Result<Vec<Kept>, Fault> {
        let missed = self.shared.store.read_after_order(rooms, order, self.shared.restored_max).await?;
        missed.ok_or_else(|| gone(self.shared.restored_max))
    }

    /// Has events also told to servers of other making.
    pub(crate) fn mirror_to(&self, foreign: Foreign) {
        let _ = self.shared.foreign.set(foreign);
    }

    /// The store, for whoever reads.
    pub(crate) fn store(&self) -> &Arc<dyn Store> {
        &self.shared.store
    }

    /// Who wants what of rooms.
    pub(crate) fn filters(&self) -> &Filters {
        &self.shared.filters
    }

    /// The other nodes, if this server is one of several.
    pub(crate) fn cluster(&self) -> Option<&Arc<Cluster>> {
        self.shared.cluster.as_ref()
    }

    /// What holds for rooms.
    pub(crate) fn policies(&self) -> &Policies {
        &self.shared.policies
    }

    /// The newest order that has been sent out: whoever joins later has missed nothing after it.
    pub(crate) fn sent_order(&self) -> u64 {
        self.shared.sent_order.load(Ordering::Acquire)
    }

    /// Whether the store refused the last commit.
    pub(crate) fn is_failing(&self) -> bool {
        self.shared.is_failing.load(Ordering::Relaxed)
    }

    /// Operations that wait for their turn.
    pub(crate) fn waiting(&self) -> usize {
        OPERATIONS_MAX - self.operations.capacity()
    }
}

/// An operation that has its place in the order.
pub(crate) struct Underway(oneshot::Receiver<Result<Committed, Fault>>);

impl Underway {
    /// Waits until it is kept and sent.
    ///
    /// # Errors
    /// As [`Dispatcher::change`].
    pub(crate) async fn done(self) -> Result<Committed, Fault> {
        self.0.await.map_err(|_| Fault::new(Code::Busy, "the server is stopping"))?
    }
}

fn gone(max: usize) -> Fault {
    let message = format!("some of what it missed is no longer kept, or it is more than {max} events");
    Fault::new(Code::NotFound, message)
}

fn busy() -> Fault {
    Fault::new(
        Code::Busy,
        format!("{OPERATIONS_MAX} operations are waiting to be kept; try again in a moment"),
    )
}
