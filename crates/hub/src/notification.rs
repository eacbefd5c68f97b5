//! Owns what waits for a user until it is delivered, and announcements to all. Does not know whether anybody is there;
//! whoever knows says so.
//!
//! Each user has one [`Inbox`]. A notification is put into it with [`push`]: told at once if the user is there, else on
//! [`hand_over`] when the user's first socket comes. It stays until [`deliver`] says that it has arrived. So:
//!
//! - each is told **with** the log exactly once, when it is first sent to somebody;
//! - one that was told and has not arrived is told again to a socket that begins anew, outside of the log, under the same
//!   id. A socket that recovers gets it from the log instead, so nothing is told twice to one that counts.
//!
//! When an inbox is full, or a notification too old, the oldest go, and [`Inbox::dropped`] counts them.

use std::collections::BTreeSet;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::bound;
use crate::fault::{Fault, Refusal};
use crate::json::Json;
use crate::outgoing::Outgoing;
use crate::record::{State, Step};
use crate::room::{RoomKind, RoomName};
use crate::store::RecordKind;
use crate::time::Timestamp;

/// The event that brings a notification.
pub const NOTIFICATION: &str = "notification";
/// The event that brings an announcement.
pub const ANNOUNCEMENT: &str = "announcement";

/// Bounds of notifications and inboxes.
#[derive(Clone, Debug)]
pub struct NotificationLimits {
    /// Bytes of an id. Default 100. Longer: refused.
    pub id_bytes_max: usize,
    /// Bytes of a title. Default 200. Longer: refused.
    pub title_bytes_max: usize,
    /// Bytes of a message. Default 4 KiB. Longer: refused.
    pub message_bytes_max: usize,
    /// Bytes of a level's name. Default 20. Longer: refused.
    pub level_bytes_max: usize,
    /// Bytes of the data as JSON. Default 16 KiB. Longer: refused.
    pub data_bytes_max: usize,
    /// Notifications that wait for one user; at least one does. Default 100. More: the oldest goes.
    pub waiting_max: usize,
    /// Bytes of JSON that wait for one user, not counting the newest notification. Default 128 KiB. More: the oldest go.
    pub waiting_bytes_max: usize,
    /// How long one waits. Default 30 days. Older: it goes.
    pub age_max: Duration,
}

impl Default for NotificationLimits {
    fn default() -> Self {
        Self {
            id_bytes_max: 100,
            title_bytes_max: 200,
            message_bytes_max: 4 << 10,
            level_bytes_max: 20,
            data_bytes_max: 16 << 10,
            waiting_max: 100,
            waiting_bytes_max: 128 << 10,
            age_max: Duration::from_secs(30 * 86_400),
        }
    }
}

/// What is said to a user or to all, as publishers write it; for a user beside `userId`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Message {
    /// What it is about.
    pub title: Box<str>,
    /// What it says.
    pub message: Box<str>,
    /// How much it matters, such as `info`, `warning` or `error`; without it, `info`.
    pub level: Option<Box<str>>,
    /// Whatever goes with it.
    pub data: Option<Json>,
}

/// The data of [`NOTIFICATION`] and [`ANNOUNCEMENT`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Notification {
    /// Its id: a client that sees it twice knows it by this.
    pub id: Box<str>,
    /// What it is about.
    pub title: Box<str>,
    /// What it says.
    pub message: Box<str>,
    /// How much it matters.
    pub level: Box<str>,
    /// Whatever goes with it.
    pub data: Option<Json>,
    /// When it was made, in RFC 3339.
    pub timestamp: String,
}

/// What waits for a user.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Inbox {
    user_id: Box<str>,
    /// The oldest first.
    waiting: Vec<Waiting>,
    dropped: u64,
    created_at: Timestamp,
    /// When the oldest is too old.
    due_at: Option<Timestamp>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Waiting {
    notification: Notification,
    since: Timestamp,
    bytes: usize,
    is_told: bool,
}

/// How the user's first socket came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// It knows nothing.
    New,
    /// It got from the log what was told while it was away.
    Recovered,
}

impl State for Inbox {
    const KIND: RecordKind = RecordKind::Notification;

    fn id(&self) -> &str {
        &self.user_id
    }

    fn group(&self) -> &str {
        &self.user_id
    }

    fn status(&self) -> &'static str {
        "waiting"
    }

    fn created_at(&self) -> Timestamp {
        self.created_at
    }

    fn due_at(&self) -> Option<Timestamp> {
        self.due_at
    }
}

impl Inbox {
    /// What waits, the oldest first.
    pub fn waiting(&self) -> impl ExactSizeIterator<Item = &Notification> {
        self.waiting.iter().map(|waiting| &waiting.notification)
    }

    /// How many went undelivered since the inbox was last empty.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }
}

/// Puts a notification into its user's inbox. `id`: a new one, or what the publisher calls it. `is_present`: whether the
/// user has a socket.
///
/// The same id again, while the first still waits, changes nothing and tells nothing.
///
/// # Errors
/// The peer's fault: [`Refusal::BadRoomName`] for a user's id that makes no room's name, [`Refusal::AlreadyExists`] if
/// another notification waits under this id, [`Refusal::TooMany`] or [`Refusal::BadPayload`] for what is beyond `limits`.
pub fn push(
    present: Option<&Inbox>,
    now: Timestamp,
    user_id: &str,
    (id, message): (&str, Message),
    is_present: bool,
    limits: &NotificationLimits,
) -> Result<Step<Inbox>, Fault> {
    let room = RoomName::of(RoomKind::User, user_id)?;
    let notification = written(now, id, message, limits)?;
    let mut inbox = match present {
        Some(inbox) => inbox.clone(),
        None => {
            Inbox { user_id: user_id.into(), waiting: Vec::new(), dropped: 0, created_at: now, due_at: None }
        }
    };
    if let Some(Waiting { notification: known, .. }) =
        inbox.waiting.iter().find(|waiting| *waiting.notification.id == *id)
    {
        // When it was made is ours, not the publisher's.
        let again = Notification { timestamp: known.timestamp.clone(), ..notification };
        if *known == again {
            return Ok(Step::quiet(inbox));
        }
        let complaint = format!("another notification waits as `{id}`");
        return Err(Fault::new(Refusal::AlreadyExists, complaint));
    }
    let bytes = bound::json("a notification", &notification, usize::MAX)?;
    let event = Outgoing::flat(NOTIFICATION, &notification, vec![room]).keyed(id);
    inbox.waiting.push(Waiting { notification, since: now, bytes, is_told: is_present });
    drop_old(&mut inbox, now, limits);
    drop_surplus(&mut inbox, limits);
    Ok(Step { next: kept(inbox, limits), events: if is_present { vec![event] } else { Vec::new() } })
}

/// Tells what waits, to the user's first socket.
#[must_use]
pub fn hand_over(
    present: &Inbox,
    now: Timestamp,
    arrival: Arrival,
    limits: &NotificationLimits,
) -> Step<Inbox> {
    let mut inbox = present.clone();
    drop_old(&mut inbox, now, limits);
    let room = RoomName::of(RoomKind::User, &inbox.user_id)
        .expect("invariant: the id was checked at the first push");
    let mut events = Vec::new();
    for Waiting { notification, is_told, .. } in &mut inbox.waiting {
        let event = Outgoing::flat(NOTIFICATION, notification, vec![room.clone()]).keyed(&notification.id);
        match (*is_told, arrival) {
            (false, Arrival::New | Arrival::Recovered) => events.push(event),
            (true, Arrival::New) => events.push(event.volatile()),
            (true, Arrival::Recovered) => {}
        }
        *is_told = true;
    }
    Step { next: kept(inbox, limits), events }
}

/// Takes away what has arrived. Ids that do not wait here are ignored: two sockets of one user both say so.
#[must_use]
pub fn deliver(present: &Inbox, ids: &BTreeSet<&str>, limits: &NotificationLimits) -> Step<Inbox> {
    let mut inbox = present.clone();
    inbox.waiting.retain(|waiting| !ids.contains(&*waiting.notification.id));
    Step { next: kept(inbox, limits), events: Vec::new() }
}

/// Takes away what is too old.
#[must_use]
pub fn due(present: &Inbox, now: Timestamp, limits: &NotificationLimits) -> Step<Inbox> {
    let mut inbox = present.clone();
    drop_old(&mut inbox, now, limits);
    Step { next: kept(inbox, limits), events: Vec::new() }
}

/// Tells everybody something. Nothing waits for those who are away; the log of `global` has it.
///
/// # Errors
/// The peer's fault: [`Refusal::TooMany`] or [`Refusal::BadPayload`] for what is beyond `limits`.
pub fn announce(
    now: Timestamp,
    id: &str,
    message: Message,
    limits: &NotificationLimits,
) -> Result<Outgoing, Fault> {
    let announcement = written(now, id, message, limits)?;
    let everybody = vec![RoomName::parse("global")?];
    Ok(Outgoing::flat(ANNOUNCEMENT, &announcement, everybody).keyed(id))
}

/// Whether a message keeps the bounds, for one that is told later.
///
/// # Errors
/// The peer's fault: [`Refusal::TooMany`] or [`Refusal::BadPayload`] for what is beyond `limits`.
pub fn check(message: &Message, limits: &NotificationLimits) -> Result<(), Fault> {
    written(Timestamp(0), "later", message.clone(), limits).map(|_| ())
}

fn written(
    now: Timestamp,
    id: &str,
    message: Message,
    limits: &NotificationLimits,
) -> Result<Notification, Fault> {
    let Message { title, message, level, data } = message;
    let level = level.unwrap_or_else(|| "info".into());
    bound::name("`id`", id, limits.id_bytes_max)?;
    bound::text("`title`", &title, limits.title_bytes_max)?;
    bound::text("`message`", &message, limits.message_bytes_max)?;
    bound::name("`level`", &level, limits.level_bytes_max)?;
    if let Some(data) = &data {
        bound::text("`data`", data.get(), limits.data_bytes_max)?;
    }
    Ok(Notification { id: id.into(), title, message, level, data, timestamp: now.to_string() })
}

fn drop_old(inbox: &mut Inbox, now: Timestamp, limits: &NotificationLimits) {
    let before = inbox.waiting.len();
    inbox.waiting.retain(|waiting| now.since(waiting.since) < limits.age_max);
    inbox.dropped += (before - inbox.waiting.len()) as u64;
}

/// The newest always stays.
fn drop_surplus(inbox: &mut Inbox, limits: &NotificationLimits) {
    let mut bytes = 0;
    let fit = inbox.waiting.iter().rev().skip(1).take_while(|waiting| {
        bytes += waiting.bytes;
        bytes <= limits.waiting_bytes_max
    });
    let stay = 1 + fit.take(limits.waiting_max.saturating_sub(1)).count();
    let surplus = inbox.waiting.len().saturating_sub(stay);
    inbox.waiting.drain(..surplus);
    inbox.dropped += surplus as u64;
}

/// An empty inbox is none.
fn kept(inbox: Inbox, limits: &NotificationLimits) -> Option<Inbox> {
    let oldest = inbox.waiting.iter().map(|waiting| waiting.since).min()?;
    Some(Inbox { due_at: Some(oldest.plus(limits.age_max)), ..inbox })
}
