//! Owns how an event reaches the sockets: which namespaces, which rooms, and what each of them gets to read.
//! Does not keep anything. Invariant: an event reaches one socket once, however many of its rooms it is in.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use engine::{Broadcaster, Server};
use hub::event::{Audience, Event};
use hub::room::RoomName;
use hub::store::Placed;
use serde_json::value::RawValue;

use crate::filters::Filters;

/// The namespaces that share the rooms.
pub(crate) const ROOM_NAMESPACES: [&str; 2] = ["/", "/ws"];

/// One event on its way to the sockets of this process.
pub(super) struct Delivery {
    pub(super) event: Arc<Event>,
    pub(super) audience: Audience,
    pub(super) rooms: Vec<RoomName>,
    /// Where it was put in those of its rooms that keep it.
    pub(super) placed: Vec<Placed>,
    /// Sockets that do not get it, by room or id.
    pub(super) except: Vec<RoomName>,
    /// Whoever is slow may miss it.
    pub(super) is_volatile: bool,
    /// Not for those who come back later.
    pub(super) is_transient: bool,
    /// `None`: it is not kept.
    pub(super) order: Option<u64>,
}

impl Delivery {
    /// An event that is not kept, or not yet. `away_max`: how long a lost socket may come back.
    pub(super) fn new(
        event: Arc<Event>,
        audience: Audience,
        rooms: Vec<RoomName>,
        except: Vec<RoomName>,
        is_volatile: bool,
        away_max: Duration,
    ) -> Self {
        // What is of no use any more by the time somebody may still come back is not given back to anybody.
        let is_transient = event.expires_at.is_some_and(|end| is_volatile || end.since(event.at) < away_max);
        let is_volatile = is_volatile && event.expires_at.is_none();
        Self { event, audience, rooms, placed: Vec::new(), except, is_volatile, is_transient, order: None }
    }

    /// The same as it was kept: its order, and where it was put.
    pub(super) fn placed_at(self, place: Option<(u64, Vec<Placed>)>) -> Self {
        match place {
            Some((order, placed)) => Self { order: Some(order), placed, ..self },
            None => self,
        }
    }

    /// The namespaces of those who hear of it.
    pub(super) fn namespaces(&self) -> &'static [&'static str] {
        match self.audience {
            Audience::Rooms => &ROOM_NAMESPACES,
            Audience::Root => &["/"],
            Audience::Ws => &["/ws"],
            Audience::Logs => &["/logs"],
            Audience::Admin => &["/admin"],
        }
    }

    /// What is read of it as an event of the room `shown`, with its place there; or as one of none.
    pub(super) fn argument(&self, shown: Option<&RoomName>) -> Cow<'_, RawValue> {
        let placed = shown.and_then(|room| self.placed.iter().find(|placed| placed.room == *room));
        self.event.argument(shown, placed.and_then(|placed| placed.position))
    }
}

/// Sends an event to everyone it is for.
pub(super) async fn send(server: &Server, filters: &Filters, delivery: &Delivery) {
    if delivery.audience == Audience::Rooms {
        return send_to_rooms(server, filters, delivery).await;
    }
    for namespace in delivery.namespaces() {
        let everyone = flagged(server.of(namespace), filters, delivery).to(names(&delivery.rooms));
        if everyone.is_wanted() {
            emit(&everyone, &delivery.event, &delivery.argument(None)).await;
        }
    }
}

async fn send_to_rooms(server: &Server, filters: &Filters, delivery: &Delivery) {
    let plan = delivery.plan();
    // Where the members of each room are that want it.
    let reach = filters.reach(&delivery.event, &plan.rooms);
    let members =
        |rooms: Range<usize>| -> Vec<&str> { reach[rooms].iter().flatten().map(|name| &**name).collect() };
    for step in plan.steps {
        let (told, to) = (members(0..step.to.start), members(step.to));
        send_to_members(server, filters, delivery, &to, &told, step.shown).await;
    }
}

/// Sends to the members of `rooms` that are in none of `others`, rooms of the engine both, in all namespaces: what those
/// in `shown` get to read.
async fn send_to_members(
    server: &Server,
    filters: &Filters,
    delivery: &Delivery,
    rooms: &[&str],
    others: &[&str],
    shown: Option<&RoomName>,
) {
    // Written for the first who wants it: most events of a busy server are for rooms that nobody watches.
    let mut argument = None;
    for namespace in delivery.namespaces() {
        if !rooms.iter().any(|room| server.has_members(namespace, room)) {
            continue;
        }
        let argument = argument.get_or_insert_with(|| delivery.argument(shown));
        let members = flagged(server.of(namespace), filters, delivery).to(rooms).except(others);
        emit(&members, &delivery.event, argument).await;
    }
}

fn flagged(broadcaster: Broadcaster, filters: &Filters, delivery: &Delivery) -> Broadcaster {
    let broadcaster = broadcaster.except(filters.names_of(&delivery.except));
    let broadcaster = match delivery.order {
        Some(order) => broadcaster.order(order),
        None => broadcaster,
    };
    let broadcaster = if delivery.is_transient { broadcaster.transient() } else { broadcaster };
    if delivery.is_volatile { broadcaster.volatile() } else { broadcaster }
}

fn names(rooms: &[RoomName]) -> Vec<&str> {
    rooms.iter().map(RoomName::as_str).collect()
}

async fn emit(to: &Broadcaster, event: &Event, argument: &RawValue) {
    if let Err(error) = to.emit_waiting(&event.name, argument).await {
        // Names are checked where events come in, and a server that stops sends nothing more.
        tracing::warn!(event = &*event.name, %error, "an event could not be sent");
    }
}
