//! Owns what servers of other making get of an event: the same as our sockets. Does not know how it gets there.
//! Invariant: as for ours, each of their sockets gets an event once, however many of its rooms it is in.

use hub::room::RoomName;

use super::fanout::Delivery;
use crate::foreign::{Foreign, To};

/// Sends an event to the sockets of others.
pub(super) fn mirror(foreign: &Foreign, delivery: &Delivery) {
    let namespaces = || delivery.namespaces().iter().filter(|namespace| foreign.is_wanted(namespace));
    if namespaces().next().is_none() {
        return;
    }
    let plan = delivery.plan();
    for step in plan.steps {
        let (told, to) = (&plan.rooms[..step.to.start], &plan.rooms[step.to]);
        let rooms: Vec<&str> = to.iter().map(|room| room.as_str()).collect();
        let told = told.iter().map(|room| room.as_str());
        let except: Vec<&str> = delivery.except.iter().map(RoomName::as_str).chain(told).collect();
        let argument = delivery.argument(step.shown);
        for namespace in namespaces() {
            let to = To { namespace, rooms: &rooms, except: &except, is_volatile: delivery.is_volatile };
            foreign.mirror(to, &delivery.event.name, &argument);
        }
    }
}
