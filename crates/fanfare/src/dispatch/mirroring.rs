//! Owns what servers of other making get of an event: the same as our sockets. Does not know how it gets there.
//! Invariant: as for ours, each of their sockets gets an event once, however many of its rooms it is in.

use hub::event::{Audience, Shape};
use hub::room::{RoomKind, RoomName};

use super::fanout::{Delivery, ROOM_NAMESPACES};
use crate::foreign::{Foreign, To};

/// Sends an event to the sockets of others.
pub(super) fn mirror(foreign: &Foreign, delivery: &Delivery) {
    let namespaces: &[&str] = match delivery.audience {
        Audience::Rooms => &ROOM_NAMESPACES,
        Audience::Root => &["/"],
        Audience::Ws => &["/ws"],
        Audience::Logs => &["/logs"],
        Audience::Admin => &["/admin"],
    };
    for namespace in namespaces.iter().filter(|namespace| foreign.is_wanted(namespace)) {
        let is_alike = delivery.event.shape == Shape::Flat || delivery.audience != Audience::Rooms;
        if is_alike {
            send(foreign, delivery, namespace, &names(&delivery.rooms), &[], None);
            continue;
        }
        // As `fanout` does it: the dashboard shows an event as the room has it where that belongs.
        let (mirrors, mains): (Vec<_>, Vec<_>) = delivery
            .rooms
            .iter()
            .partition(|room| room.kind() == RoomKind::Dashboard && delivery.rooms.len() > 1);
        let mut told: Vec<&str> = mirrors.iter().map(|room| room.as_str()).collect();
        for (nth, room) in mains.into_iter().enumerate() {
            if nth == 0 {
                let rooms: Vec<&str> = std::iter::once(room.as_str()).chain(told.iter().copied()).collect();
                send(foreign, delivery, namespace, &rooms, &[], Some(room));
            } else {
                send(foreign, delivery, namespace, &[room.as_str()], &told, Some(room));
            }
            told.push(room.as_str());
        }
    }
}

fn send(
    foreign: &Foreign,
    delivery: &Delivery,
    namespace: &str,
    rooms: &[&str],
    told: &[&str],
    shown: Option<&RoomName>,
) {
    let placed = |room: &&RoomName| delivery.placed.iter().find(|placed| placed.room == **room);
    let position = shown.as_ref().and_then(placed).and_then(|placed| placed.position);
    let except: Vec<&str> = names(&delivery.except).into_iter().chain(told.iter().copied()).collect();
    let to = To { namespace, rooms, except: &except, is_volatile: delivery.is_volatile };
    foreign.mirror(to, &delivery.event.name, &delivery.event.argument(shown, position));
}

fn names(rooms: &[RoomName]) -> Vec<&str> {
    rooms.iter().map(RoomName::as_str).collect()
}
