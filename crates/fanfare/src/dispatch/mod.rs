//! Owns the one path on which logs grow: operations in order, each decided, committed, sent out, answered.
//! Does not know HTTP, sockets' commands or what records mean. Invariant: events reach the shards in the order in
//! which the store committed them, and what was answered is kept.
//!
//! One task takes the operations that have come, looks up the records they need, runs their rules, commits all of
//! them at once, and only then sends the events out and answers. While it waits for the disk the next operations
//! gather, so the batches grow with the load. A watcher is attached in the same order: it is given what the log has,
//! then joins, so nothing is missed or repeated between the two.

mod fanout;
mod ids;
mod outlet;
mod recent;
mod records;
mod turn;

pub(crate) use fanout::ROOM_NAMESPACES;
pub(crate) use records::{due_rule, record_rule};
pub(crate) use turn::position_json;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use engine::{RestoreRequest, Server, Sid, Socket};
use hub::event::{EventId, Position};
use hub::outgoing::Outgoing;
use hub::policy::Policies;
use hub::room::RoomName;
use hub::store::{IdempotencyKey, Kept, Page, Placed, Record, RecordKey, RecordKind, RecordState, Store};
use hub::time::Timestamp;
use serde_json::Value;
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::auth::Identity;
use crate::codes::{Code, Fault};
use crate::filters::{Channel, Filters};

/// Operations that may wait, and events in them. 16,384: at 100,000 a second, what comes in the time of a slow disk's flush; beyond it
/// publishers are told to try again.
const OPERATIONS_MAX: usize = 16_384;

/// Events that a socket that comes back may have missed, whatever its outbox takes. 100,000: five seconds at 20,000 a
/// second, and some 100 MB while they are on their way.
const RESTORED_MAX: usize = 100_000;

/// Bytes that an event takes at least in an outbox: more events than fit there need not be read.
const RESTORED_BYTES_MIN: usize = 32;

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
    /// Who waits for a record to change.
    waiting: Mutex<HashMap<RecordKey, Vec<oneshot::Sender<()>>>>,
}

impl Shared {
    /// A record has changed: whoever waits for that may look.
    pub(super) fn tell_changed(&self, key: &RecordKey) {
        if let Ok(mut waiting) = self.waiting.lock()
            && let Some(all) = waiting.remove(key)
        {
            for one in all {
                let _ = one.send(());
            }
        }
    }
}

/// The way to the dispatcher. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Dispatcher {
    shared: Arc<Shared>,
    operations: mpsc::Sender<Operation>,
    /// Room for events that wait: as many as operations.
    places: Arc<Semaphore>,
}

impl Dispatcher {
    /// Starts the task. It ends when the last handle is gone and all operations are done.
    pub(crate) fn start(
        server: Server,
        store: Arc<dyn Store>,
        policies: Arc<Policies>,
        filters: Filters,
        outbox_bytes_max: usize,
        away_max: Duration,
        due_rules: Vec<(RecordKind, DueRule)>,
    ) -> Self {
        let (operations, waiting) = mpsc::channel(OPERATIONS_MAX);
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
            waiting: Mutex::default(),
        });
        tokio::spawn(turn::run(shared.clone(), waiting));
        Self { shared, operations, places: Arc::new(Semaphore::new(OPERATIONS_MAX)) }
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
        let joining = Attachment::Join { socket, room, channel, replay, reply };
        self.operations.send(Operation::Attach(joining)).await.map_err(|_| busy())?;
        outcome.await.map_err(|_| busy())?
    }

    /// Resolves when a record changes after this call.
    pub(crate) fn changed(&self, key: &RecordKey) -> oneshot::Receiver<()> {
        let (sender, changed) = oneshot::channel();
        if let Ok(mut waiting) = self.shared.waiting.lock() {
            let all = waiting.entry(key.clone()).or_default();
            // Those who gave up are let go when the next one comes.
            all.retain(|one| !one.is_closed());
            all.push(sender);
        }
        changed
    }

    /// Gives a socket back to its peer in its turn, with what it missed.
    ///
    /// # Errors
    /// Some of what it missed is gone, or the peer is.
    pub(crate) async fn restore(&self, asking: Asking) -> Result<(), Fault> {
        let Asking { request, sid, rooms, channels, order, state } = asking;
        // Read here and not in its turn, where everybody would wait for it.
        let read_order = self.sent_order();
        let names = rooms.iter().map(|(room, _)| room.clone()).collect();
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
        let returning = Attachment::Restore(Box::new(returning));
        self.operations.send(Operation::Attach(returning)).await.map_err(|_| busy())?;
        outcome.await.map_err(|_| busy())?
    }

    async fn read_missed(&self, rooms: Vec<RoomName>, order: u64) -> Result<Vec<Kept>, Fault> {
        let missed = self.shared.store.read_after_order(rooms, order, self.shared.restored_max).await?;
        missed.ok_or_else(|| gone(self.shared.restored_max))
    }

    /// The store, for whoever reads.
    pub(crate) fn store(&self) -> &Arc<dyn Store> {
        &self.shared.store
    }

    /// Who wants what of rooms.
    pub(crate) fn filters(&self) -> &Filters {
        &self.shared.filters
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
