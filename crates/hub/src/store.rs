//! Owns the port to whatever keeps logs and records: what is asked of it, and what it answers.
//! Does not know how anything is kept. Invariant: a [`Commit`] is all or nothing, and what was answered survives the
//! process.
//!
//! The port's contract, in the order in which its users meet it:
//!
//! 1. [`Store::look`] reads records and answers given earlier under idempotency keys.
//! 2. [`Store::commit`] takes a batch. Its commits are applied in order, each whole or not at all; when it answers, all
//!    that is [`Outcome::Done`] is durable. Within a batch a later commit sees what an earlier one did.
//! 3. Every event of every commit gets an **order**: a number that grows over the whole store. The events of one room
//!    have the same order by `order` and by `seq`.
//! 4. [`Store::read`] reads one room's log, [`Store::read_after_order`] what several rooms got since an order.
//!
//! 5. A batch ends with pruning: each room that it appended to keeps what the [`Retention`] of the last of these appends
//!    allows, and other rooms lose what has become too old for theirs, soon if not at once. The oldest go first, by
//!    `seq` in logs and by `order` among the latest of each name and key. Numbers never go back: a log that has been
//!    emptied goes on after its last seq, in the same epoch.
//!
//! One suite (`testkit::contract::store`) runs against every implementation.

use std::pin::Pin;

use crate::event::{Audience, Event, Position};
use crate::policy::{Delivery, Retention};
use crate::room::RoomName;
use crate::time::Timestamp;

/// What the port's methods answer: a future that may wait for a disk or a network.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreFault>> + Send + 'a>>;

/// Why a store could not do what was asked. The environment's fault; nothing of the call has happened unless said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreFault {
    /// It cannot be used now, and may be later: locked, restarting, its queue full.
    Unavailable(String),
    /// There is no room left, or it may only be read: somebody must act.
    Full(String),
    /// What is kept cannot be understood: somebody must act.
    Corrupt(String),
}

impl std::fmt::Display for StoreFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            StoreFault::Unavailable(why) => write!(f, "the store is not available: {why}"),
            StoreFault::Full(why) => write!(f, "the store cannot take more: {why}"),
            StoreFault::Corrupt(why) => write!(f, "the store is damaged: {why}"),
        }
    }
}

impl std::error::Error for StoreFault {}

/// What sort of thing a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RecordKind {
    /// A job.
    Job,
    /// A run.
    Run,
    /// A notification that is kept for a user until it is delivered.
    Notification,
    /// An event that is to be published later.
    Schedule,
    /// A template that events are rendered from.
    Template,
    /// A token, user or session that was revoked.
    Revocation,
    /// A socket that may come back: its secret, rooms and principal.
    Session,
    /// A room that was made by hand, and what it was given.
    Room,
    /// An agent that is there, or was a moment ago.
    Agent,
}

impl RecordKind {
    /// Every kind there is.
    pub const ALL: [RecordKind; 9] = [
        RecordKind::Job,
        RecordKind::Run,
        RecordKind::Notification,
        RecordKind::Schedule,
        RecordKind::Template,
        RecordKind::Revocation,
        RecordKind::Session,
        RecordKind::Room,
        RecordKind::Agent,
    ];

    /// The name by which stores keep it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            RecordKind::Job => "job",
            RecordKind::Run => "run",
            RecordKind::Notification => "notification",
            RecordKind::Schedule => "schedule",
            RecordKind::Template => "template",
            RecordKind::Revocation => "revocation",
            RecordKind::Session => "session",
            RecordKind::Room => "room",
            RecordKind::Agent => "agent",
        }
    }
}

/// Which record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordKey {
    /// What sort.
    pub kind: RecordKind,
    /// Its id, unique among its sort. At most 200 bytes.
    pub id: Box<str>,
}

/// What a record is, and what it can be found by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordState {
    /// The state as JSON; the store does not read it.
    pub json: Box<str>,
    /// What it belongs to: a job's project, a notification's user. Empty if nothing.
    pub group: Box<str>,
    /// What it has become, such as `running`. Empty if that has no meaning.
    pub status: Box<str>,
    /// When it was made: lists are ordered by it.
    pub created_at: Timestamp,
    /// When it wants attention next, if ever.
    pub due_at: Option<Timestamp>,
}

/// A record as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Which one.
    pub key: RecordKey,
    /// How often it has changed: 1 when it is new.
    pub version: u64,
    /// What it is.
    pub state: RecordState,
}

/// One record's change.
#[derive(Clone, Debug)]
pub struct Change {
    /// Which record.
    pub key: RecordKey,
    /// The version that the change was decided on; `None`: there was no such record.
    pub expected: Option<u64>,
    /// What it becomes; `None` takes it away.
    pub state: Option<RecordState>,
}

/// One room that an event goes to, and how that keeps it.
#[derive(Clone, Debug)]
pub struct Placement {
    /// The room.
    pub room: RoomName,
    /// How it is kept there.
    pub delivery: Delivery,
    /// How much of the log is kept.
    pub retention: Retention,
}

/// An event that is to be kept.
#[derive(Clone, Debug)]
pub struct Append {
    /// The event.
    pub event: Event,
    /// Who hears of it.
    pub audience: Audience,
    /// Where it is kept, each room once. Placements that are [`Delivery::Volatile`] are not given to stores, which
    /// would keep nothing of them.
    pub placements: Vec<Placement>,
    /// What "the newest of each" means in rooms of [`Delivery::Latest`], beside the event's name; empty if it has no
    /// key.
    pub key: Box<str>,
    /// Whom else the event is told, by stores that tell other servers; the others ignore it. `None` where nobody else
    /// listens.
    pub route: Option<Route>,
}

/// What other servers must know of an event that is kept, beside the event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The number of the server that publishes it.
    pub origin: u16,
    /// All rooms it goes to, in their order, each once: also those that keep nothing.
    pub rooms: Vec<RoomName>,
    /// Rooms whose members do not get it.
    pub except: Vec<RoomName>,
}

/// The same request again is known by this.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdempotencyKey {
    /// Who asks: keys of one publisher mean nothing to another.
    pub scope: Box<str>,
    /// What they call the request. At most 200 bytes.
    pub key: Box<str>,
}

/// Changes and events that belong together.
#[derive(Clone, Debug, Default)]
pub struct Commit {
    /// If this key was committed before, nothing is done and [`Outcome::Repeated`] is answered.
    pub idempotency: Option<IdempotencyKey>,
    /// What is answered to a repetition: JSON, opaque to the store, which puts [`Placed`] beside it.
    pub answer: Box<str>,
    /// Records that change, one after the other: a second change of one record expects the version after the first.
    pub changes: Vec<Change>,
    /// Events that tell of it.
    pub appends: Vec<Append>,
}

/// Where an event was put in one room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The room.
    pub room: RoomName,
    /// Where; `None` in rooms without a log.
    pub position: Option<Position>,
}

/// What a commit has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is done and durable: for each append, its order and where it was put, as its placements name the rooms.
    Done(Vec<(u64, Vec<Placed>)>),
    /// A record was not as expected: nothing was done.
    Conflict,
    /// It was done before: the answer of that time, and where its events were put.
    Repeated(Repeated),
}

/// What was answered to the first request of an idempotency key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repeated {
    /// [`Commit::answer`] of that time.
    pub answer: Box<str>,
    /// For each append, where it was put.
    pub placed: Vec<Vec<Placed>>,
}

/// An event as a log has it.
#[derive(Clone, Debug)]
pub struct Kept {
    /// The room whose log it is from.
    pub room: RoomName,
    /// Where it stands; `None` for one of a room that keeps the latest only.
    pub position: Option<Position>,
    /// Its number among all events of the store.
    pub order: u64,
    /// The event.
    pub event: Event,
    /// Who hears of it.
    pub audience: Audience,
}

/// Which part of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// Events after this seq, the oldest first, at most `limit`.
    After {
        /// The last one known.
        seq: u64,
        /// How many.
        limit: usize,
    },
    /// The newest `limit`, the oldest of them first.
    Last {
        /// How many.
        limit: usize,
    },
}

/// What an event counts for in [`Retention::bytes_max`]: the bytes of its name and its data.
#[must_use]
pub fn event_bytes(event: &Event) -> u64 {
    (event.name.len() + event.data.get().len()) as u64
}

/// A part of a log, and what there is around it.
#[derive(Clone, Debug)]
pub struct Page {
    /// The log's epoch; 0 if the room has never had an event.
    pub epoch: u64,
    /// The oldest that is still kept; `last_seq + 1` if none is.
    pub first_seq: u64,
    /// The newest there has been; 0 if there has been none.
    pub last_seq: u64,
    /// The store's newest order at the time of reading: whatever comes later is not in `events`.
    pub order: u64,
    /// What was asked for.
    pub events: Vec<Kept>,
}

/// Which records, ordered by when they were made, then by id; the newest first.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// Only those of this group.
    pub group: Option<Box<str>>,
    /// Only those with this status.
    pub status: Option<Box<str>>,
    /// Only those after this one in the order of the list: (made, id) of the last one seen.
    pub after: Option<(Timestamp, Box<str>)>,
    /// Only those made at this time or later.
    pub created_since: Option<Timestamp>,
    /// How many at most.
    pub limit: usize,
}

/// What [`Store::look`] found, as it was asked for.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The records, `None` for those that are not there.
    pub records: Vec<Option<Record>>,
    /// What was answered before, `None` for keys that are new.
    pub repeated: Vec<Option<Repeated>>,
}

/// How a store is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreHealth {
    /// What is wrong, if something is.
    pub complaint: Option<String>,
    /// Bytes that it takes, where that can be told.
    pub bytes: Option<u64>,
    /// The newest order.
    pub order: u64,
}

/// Whatever keeps logs and records. See the module for the contract.
pub trait Store: Send + Sync {
    /// Reads records, and answers given under keys.
    fn look<'a>(&'a self, records: Vec<RecordKey>, keys: Vec<IdempotencyKey>) -> Answer<'a, Found>;

    /// Applies a batch. `now` is when: events older than their retention go, and keys older than a day.
    fn commit<'a>(&'a self, now: Timestamp, batch: Vec<Commit>) -> Answer<'a, Vec<Outcome>>;

    /// Reads a part of one room's log.
    fn read<'a>(&'a self, room: RoomName, span: Span) -> Answer<'a, Page>;

    /// The latest of each name and key in a room of [`Delivery::Latest`], in the order in which they came.
    fn read_latest<'a>(&'a self, room: RoomName) -> Answer<'a, Vec<Kept>>;

    /// What several rooms have got after `order`, in one order, each event once for each room, and in the order of
    /// `rooms` where it went to several; at most `limit`. Rooms that keep the latest only contribute what is the latest.
    /// `None`: some of a log is no longer kept, or there is more, or `order` is newer than anything in this store.
    fn read_after_order<'a>(
        &'a self,
        rooms: Vec<RoomName>,
        order: u64,
        limit: usize,
    ) -> Answer<'a, Option<Vec<Kept>>>;

    /// Lists records of a kind.
    fn list<'a>(&'a self, kind: RecordKind, listing: Listing) -> Answer<'a, Vec<Record>>;

    /// Records that want attention at `until` or earlier, the most urgent first, then by the names of their kinds and
    /// by id; at most `limit`.
    fn due<'a>(&'a self, until: Timestamp, limit: usize) -> Answer<'a, Vec<Record>>;

    /// When the next record wants attention.
    fn next_due(&self) -> Answer<'_, Option<Timestamp>>;

    /// How it is doing.
    fn health(&self) -> Answer<'_, StoreHealth>;
}
