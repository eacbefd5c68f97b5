//! Owns how an event reaches the sockets: which namespaces, which rooms, and what each of them gets to read.
//! Does not keep anything. Invariant: an event reaches one socket once, however many of its rooms it is in.

use engine::{Broadcaster, Server};
use hub::event::{Audience, Event, Shape};
use hub::room::{RoomKind, RoomName};
use hub::store::Placed;
use serde_json::value::RawValue;

use crate::filters::Filters;

/// The namespaces that share the rooms.
pub(crate) const ROOM_NAMESPACES: [&str; 2] = ["/", "/ws"];

/// One event on its way.
pub(super) struct Delivery<'a> {
    pub(super) event: &'a Event,
    pub(super) audience: Audience,
    pub(super) rooms: &'a [RoomName],
    pub(super) placed: &'a [Placed],
    /// Sockets that do not get it, by room or id.
    pub(super) except: &'a [RoomName],
    pub(super) is_volatile: bool,
    /// Not for those who come back later.
    pub(super) is_transient: bool,
    /// Who wants what of these rooms.
    pub(super) filters: &'a Filters,
    /// `None`: it is not kept.
    pub(super) order: Option<u64>,
}

/// Sends an event to everyone it is for.
pub(super) async fn send(server: &Server, delivery: &Delivery<'_>) {
    let namespace = match delivery.audience {
        Audience::Rooms => {
            for namespace in ROOM_NAMESPACES {
                send_to_rooms(&server.of(namespace), delivery).await;
            }
            return;
        }
        Audience::Root => "/",
        Audience::Ws => "/ws",
        Audience::Logs => "/logs",
        Audience::Admin => "/admin",
    };
    let everyone = flagged(server.of(namespace), delivery).to(names(delivery.rooms));
    if !everyone.is_wanted() {
        return;
    }
    emit(&everyone, delivery.event, &delivery.event.argument(None, None)).await;
}

async fn send_to_rooms(everyone: &Broadcaster, delivery: &Delivery<'_>) {
    let event = delivery.event;
    let everyone = flagged(everyone.clone(), delivery);
    let position = |room: &RoomName| {
        delivery.placed.iter().find(|placed| placed.room == *room).and_then(|placed| placed.position)
    };
    // Where the members of each room are that want it.
    let reach = delivery.filters.reach(event, delivery.rooms);
    if event.shape == Shape::Flat {
        let members = everyone.to(reach.concat());
        if members.is_wanted() {
            emit(&members, event, &event.data).await;
        }
        return;
    }
    // The dashboard mirrors: it shows an event as the room has it where that belongs.
    let (mirrors, mains): (Vec<_>, Vec<_>) = delivery
        .rooms
        .iter()
        .zip(&reach)
        .partition(|(room, _)| room.kind() == RoomKind::Dashboard && delivery.rooms.len() > 1);
    let mut told: Vec<&str> =
        mirrors.iter().flat_map(|(_, names)| names.iter()).map(|name| &**name).collect();
    for (nth, (room, names)) in mains.into_iter().enumerate() {
        let names = names.iter().map(|name| &**name);
        let mut members = everyone.clone().to(names.clone().collect::<Vec<_>>());
        if nth == 0 {
            members = members.to(&told[..]);
        } else {
            // Those who are in an earlier one, or in a mirror, have it already.
            members = members.except(&told[..]);
        }
        told.extend(names);
        if members.is_wanted() {
            emit(&members, event, &event.argument(Some(room), position(room))).await;
        }
    }
}

fn flagged(broadcaster: Broadcaster, delivery: &Delivery<'_>) -> Broadcaster {
    let broadcaster = broadcaster.except(delivery.filters.names_of(delivery.except));
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
