//! Owns when a user's notifications are told, and when they count as delivered. Does not know what an inbox is; that is
//! the hub's. Invariant: what has not arrived for certain stays in the inbox.
//!
//! A client may say that it has got one, by `notification_ack`. The ack of Socket.IO itself is not asked for: an event that
//! awaits one could not be given again to a socket that comes back.
//!
//! Of a client that says nothing, nothing tells that an event has arrived, but this proves it: a socket that leaves in good order has read what came
//! before, and one that still lives after a ping and its time-out has answered a ping that came after. So whatever was
//! told is held here with the sockets that were there; then it leaves the inbox, or is told to whoever has come since.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use engine::{Event, Namespace, Reason, Socket};
use hub::notification::{self, Arrival, Inbox, Message, NotificationLimits};
use hub::principal::PrincipalKind;
use hub::record::{State as _, Step};
use hub::room::{RoomKind, RoomName};
use hub::schedule::{self, Letter, Schedule};
use hub::store::{IdempotencyKey, Record};
use hub::time::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::Hub;
use super::caller::{Caller, argument};
use crate::auth::principal_of;
use crate::codes::{Code, Fault};
use crate::dispatch::{Committed, Rule, record_rule};

/// Users whose notifications are on their way. 100,000: beyond it nothing is lost, but told again on return.
const USERS_MAX: usize = 100_000;

/// Times that a user was told something, held at once; an inbox has fewer notifications.
const TOLD_MAX: usize = 256;

/// What is on its way, by user.
#[derive(Default)]
pub(crate) struct Inboxes(Mutex<HashMap<Box<str>, Vec<Told>>>);

/// Notifications that were told.
struct Told {
    ids: Vec<String>,
    /// The sockets that were there.
    sockets: Arc<BTreeSet<String>>,
    at: Instant,
}

/// The argument of `notification_ack`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Acknowledgement {
    id: Option<String>,
    ids: Option<Vec<String>>,
}

pub(super) fn register(namespace: &mut Namespace, hub: &Arc<Hub>) {
    let hub = hub.clone();
    namespace.on_raw("notification_ack", move |socket, event| {
        let Some(caller) = Caller::admit(socket, event, &hub) else { return };
        let outcome = acknowledged(event).and_then(|ids| {
            let principal = principal_of(socket);
            let user = principal.user.clone().filter(|_| principal.kind != PrincipalKind::Key);
            let nobody = || Fault::new(Code::Forbidden, "nobody in particular has no notifications");
            Ok((user.ok_or_else(nobody)?, ids))
        });
        match outcome {
            Ok((user, ids)) => {
                let worker = hub.clone();
                hub.in_turn(socket, caller, move |caller| async move {
                    let outcome = worker.acknowledge(&user, ids).await;
                    caller.finish(outcome);
                });
            }
            Err(fault) => caller.refuse(&fault),
        }
    });
}

fn acknowledged(event: &Event<'_>) -> Result<Vec<String>, Fault> {
    let ids = match argument(event, "{id} or {ids}")? {
        Acknowledgement { id: Some(id), ids: None } => vec![id],
        Acknowledgement { id: None, ids: Some(ids) } => ids,
        Acknowledgement { .. } => {
            return Err(Fault::new(Code::BadPayload, "give `id` or `ids`, one of them"));
        }
    };
    if ids.len() > TOLD_MAX {
        return Err(Fault::new(Code::TooMany, format!("{} ids exceed {TOLD_MAX}", ids.len())));
    }
    Ok(ids)
}

impl Hub {
    /// Notifies a user, at once or when they come.
    ///
    /// # Errors
    /// The rule's refusals, or as [`crate::dispatch::Dispatcher::change`].
    pub(crate) async fn notify(
        self: &Arc<Self>,
        user: &str,
        message: Message,
        idempotency: Option<IdempotencyKey>,
    ) -> Result<Committed, Fault> {
        self.notify_as(user, Uuid::now_v7().to_string(), message, idempotency).await
    }

    async fn notify_as(
        self: &Arc<Self>,
        user: &str,
        id: String,
        message: Message,
        idempotency: Option<IdempotencyKey>,
    ) -> Result<Committed, Fault> {
        let room = RoomName::of(RoomKind::User, user)?;
        let sockets = self.sockets_in(&room).await;
        let is_present = !sockets.is_empty();
        let (owner, known_as) = (user.to_owned(), id.clone());
        let rule = record_rule::<Inbox, _, _>(
            move |present, now| {
                let limits = NotificationLimits::default();
                notification::push(present, now, &owner, (id.as_str(), message.clone()), is_present, &limits)
            },
            {
                let id = known_as.clone();
                move |_| json!({ "id": id })
            },
        );
        let committed = self.dispatcher().change(Some(Inbox::key_of(user)), idempotency, rule).await?;
        if committed.is_repetition {
            return Ok(committed);
        }
        if is_present {
            self.note_told(user, vec![known_as], sockets);
        } else {
            // Whoever came between the look and the commit found nothing.
            let sockets = self.sockets_in(&room).await;
            if !sockets.is_empty() {
                self.tell_waiting(user, Arrival::Recovered, sockets).await?;
            }
        }
        Ok(committed)
    }

    /// Puts a notification whose moment has come into its user's inbox. May be called again until it is there.
    pub(crate) fn deliver_letter(self: &Arc<Self>, record: &Record, now: Timestamp) {
        let Ok(schedule) = Schedule::from_record(&record.state) else { return };
        let Some(Letter { user_id, message }) = schedule.letter(now).cloned() else { return };
        let (hub, id) = (self.clone(), schedule.id().to_owned());
        self.control.spawn(async move {
            let idempotency = IdempotencyKey { scope: "schedule".into(), key: id.as_str().into() };
            let told = hub.notify_as(&user_id, id.clone(), message, Some(idempotency)).await;
            let done = match told {
                Ok(_) => {
                    let rule = record_rule::<Schedule, _, _>(|_, _| Ok(schedule::deliver()), |_| Value::Null);
                    hub.dispatcher().change(Some(Schedule::key_of(&id)), None, rule).await.map(|_| ())
                }
                Err(fault) => Err(fault),
            };
            if let Err(fault) = done {
                // Its record wants attention again soon.
                tracing::warn!(
                    code = fault.code.as_str(),
                    message = fault.message,
                    "a notification still waits"
                );
            }
        });
    }

    /// A user's client has got these notifications. Answers how many of them had been waiting.
    ///
    /// # Errors
    /// As [`crate::dispatch::Dispatcher::change`].
    pub(super) async fn acknowledge(&self, user: &str, ids: Vec<String>) -> Result<Value, Fault> {
        if let Ok(mut inboxes) = self.inboxes.0.lock()
            && let Some(told) = inboxes.get_mut(user)
        {
            for told in told {
                told.ids.retain(|id| !ids.contains(id));
            }
        }
        let waited = Arc::new(AtomicUsize::new(0));
        let counted = waited.clone();
        let rule = record_rule::<Inbox, _, _>(
            move |present, _| {
                let Some(inbox) = present else { return Ok(Step { next: None, events: Vec::new() }) };
                let ids: BTreeSet<&str> = ids.iter().map(String::as_str).collect();
                let waiting = inbox.waiting().filter(|waiting| ids.contains(&*waiting.id)).count();
                counted.store(waiting, Ordering::Relaxed);
                Ok(notification::deliver(inbox, &ids, &NotificationLimits::default()))
            },
            |_| Value::Null,
        );
        self.dispatcher().change(Some(Inbox::key_of(user)), None, rule).await?;
        Ok(json!({ "delivered": waited.load(Ordering::Relaxed) }))
    }

    /// Gives a socket that has just been welcomed what waits for its user.
    pub(crate) async fn hand_over(self: &Arc<Self>, socket: &Socket) {
        let principal = principal_of(socket);
        let Some(user) = principal.user.as_deref().filter(|_| principal.kind != PrincipalKind::Key) else {
            return;
        };
        if let Err(fault) = self.try_hand_over(socket, user).await {
            tracing::warn!(code = fault.code.as_str(), message = fault.message, "notifications still wait");
        }
    }

    async fn try_hand_over(self: &Arc<Self>, socket: &Socket, user: &str) -> Result<(), Fault> {
        let Ok(room) = RoomName::of(RoomKind::User, user) else { return Ok(()) };
        let found = self.dispatcher().store().look(vec![Inbox::key_of(user)], Vec::new()).await;
        if found?.records.iter().all(Option::is_none) {
            return Ok(());
        }
        let sockets = self.sockets_in(&room).await;
        if !sockets.contains(&socket.id().to_string()) {
            return Ok(());
        }
        // Others of the same user are being told already; one that recovered has got it from the log.
        let is_first = !socket.recovered() && sockets.len() == 1;
        let arrival = if is_first { Arrival::New } else { Arrival::Recovered };
        self.tell_waiting(user, arrival, sockets).await
    }

    /// Notes that a socket has gone: what it was told has arrived, if it went in good order.
    pub(crate) fn note_gone(&self, socket: &Socket, reason: Reason) {
        if !matches!(reason, Reason::ClientNamespaceDisconnect | Reason::TransportClose) {
            return;
        }
        let principal = principal_of(socket);
        let Some(user) = principal.user.as_deref() else { return };
        let own = socket.id().to_string();
        let mut arrived = Vec::new();
        if let Ok(mut inboxes) = self.inboxes.0.lock()
            && let Some(told) = inboxes.get_mut(user)
        {
            told.retain_mut(|told| {
                let is_witness = told.sockets.contains(&own);
                if is_witness {
                    arrived.append(&mut told.ids);
                }
                !is_witness
            });
        }
        self.deliver(user, arrived);
    }

    /// Tells what waits, as far as these sockets do not know it.
    async fn tell_waiting(
        self: &Arc<Self>,
        user: &str,
        arrival: Arrival,
        sockets: BTreeSet<String>,
    ) -> Result<(), Fault> {
        let rule = record_rule::<Inbox, _, _>(
            move |present, now| {
                let limits = NotificationLimits::default();
                Ok(present.map_or(Step { next: None, events: Vec::new() }, |inbox| {
                    notification::hand_over(inbox, now, arrival, &limits)
                }))
            },
            |inbox| inbox.waiting().map(|notification| Value::from(&*notification.id)).collect(),
        );
        let committed = self.dispatcher().change(Some(Inbox::key_of(user)), None, rule).await?;
        let ids: Vec<String> = serde_json::from_value(committed.answer).unwrap_or_default();
        self.note_told(user, ids, sockets);
        Ok(())
    }

    fn note_told(self: &Arc<Self>, user: &str, ids: Vec<String>, sockets: BTreeSet<String>) {
        if ids.is_empty() {
            return;
        }
        let told = Told { ids, sockets: Arc::new(sockets), at: Instant::now() };
        let Ok(mut inboxes) = self.inboxes.0.lock() else { return };
        if let Some(all) = inboxes.get_mut(user) {
            if all.len() < TOLD_MAX {
                all.push(told);
            }
        } else if inboxes.len() < USERS_MAX {
            inboxes.insert(user.into(), vec![told]);
            let hub = self.clone();
            let user = user.to_owned();
            self.control.spawn(async move { hub.follow(&user).await });
        }
    }

    /// Waits for what a user was told to arrive; ends when nothing is on its way any more.
    async fn follow(self: Arc<Self>, user: &str) {
        let Ok(room) = RoomName::of(RoomKind::User, user) else { return };
        loop {
            // Not earlier than the oldest of them, and often enough for the others.
            tokio::time::sleep(self.arrival).await;
            let ripe = {
                let Ok(mut inboxes) = self.inboxes.0.lock() else { return };
                let Some(told) = inboxes.get_mut(user) else { return };
                if told.is_empty() {
                    inboxes.remove(user);
                    return;
                }
                let (ripe, rest) =
                    std::mem::take(told).into_iter().partition(|told| told.at.elapsed() >= self.arrival);
                *told = rest;
                ripe
            };
            self.settle(user, &room, ripe).await;
        }
    }

    async fn settle(self: &Arc<Self>, user: &str, room: &RoomName, ripe: Vec<Told>) {
        let sockets = self.sockets_in(room).await;
        let (arrived, missed): (Vec<Told>, Vec<Told>) =
            ripe.into_iter().partition(|told| !told.sockets.is_disjoint(&sockets));
        self.deliver(user, arrived.into_iter().flat_map(|told| told.ids).collect());
        if !missed.is_empty()
            && !sockets.is_empty()
            && let Err(fault) = self.tell_waiting(user, Arrival::New, sockets).await
        {
            tracing::warn!(code = fault.code.as_str(), message = fault.message, "notifications still wait");
        }
    }

    /// Takes what has arrived out of the inbox, in its turn.
    fn deliver(&self, user: &str, ids: Vec<String>) {
        if ids.is_empty() {
            return;
        }
        let rule: Rule = record_rule::<Inbox, _, _>(
            move |present, _| {
                let ids: BTreeSet<&str> = ids.iter().map(String::as_str).collect();
                Ok(present.map_or(Step { next: None, events: Vec::new() }, |inbox| {
                    notification::deliver(inbox, &ids, &NotificationLimits::default())
                }))
            },
            |_| Value::Null,
        );
        if let Err(fault) = self.dispatcher().begin(Some(Inbox::key_of(user)), None, rule) {
            // They are told again when the user comes back.
            tracing::warn!(code = fault.code.as_str(), message = fault.message, "notifications still wait");
        }
    }

    async fn sockets_in(&self, room: &RoomName) -> BTreeSet<String> {
        self.found(room).await.into_iter().map(|found| found.sid.into()).collect()
    }
}

/// How long it takes until a socket that still lives is known to have read everything.
pub(super) fn arrival(engine: &engine::Config) -> Duration {
    engine.ping_interval + engine.ping_timeout
}
