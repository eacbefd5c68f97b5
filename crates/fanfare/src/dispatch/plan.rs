//! Owns in which steps an event of several rooms is told: who gets it with which step, and as which room's event they read
//! it. Does not know who is told, our sockets or those of servers of other making. Invariant: whoever is in several of its
//! rooms is told by one step only.

use std::ops::Range;

use hub::event::{Audience, Shape};
use hub::room::{RoomKind, RoomName};

use super::fanout::Delivery;

/// The steps of one event.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    /// All its rooms, in the order in which they are told.
    pub(super) rooms: Vec<&'a RoomName>,
    /// To be taken in their order.
    pub(super) steps: Vec<Step<'a>>,
}

/// Who is told at once, and reads the same.
#[derive(Debug)]
pub(super) struct Step<'a> {
    /// The plan's rooms whose members these are, unless they are in one before: those have it already.
    pub(super) to: Range<usize>,
    /// The room that they read it as an event of; `None` if they do not read of any.
    pub(super) shown: Option<&'a RoomName>,
}

impl Delivery {
    /// How it is told.
    pub(super) fn plan(&self) -> Plan<'_> {
        let mut rooms: Vec<&RoomName> = self.rooms.iter().collect();
        if self.event.shape == Shape::Flat || self.audience != Audience::Rooms {
            // All read the same.
            let all = Step { to: 0..rooms.len(), shown: None };
            return Plan { rooms, steps: vec![all] };
        }
        // The dashboard mirrors: it shows an event as the room has it where that belongs, so it is told with the first.
        rooms.sort_by_key(|room| room.kind() != RoomKind::Dashboard);
        let mirrors = rooms.partition_point(|room| room.kind() == RoomKind::Dashboard);
        let mains = mirrors.min(rooms.len().saturating_sub(1))..rooms.len();
        let step =
            |at: usize| Step { to: if at == mains.start { 0 } else { at }..at + 1, shown: Some(rooms[at]) };
        let steps = mains.clone().map(step).collect();
        Plan { rooms, steps }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use hub::event::{Event, EventId};
    use serde_json::value::to_raw_value;

    use super::*;
    use crate::event::now;

    /// The steps: `told < the others of the step, as shown`.
    fn steps(shape: Shape, audience: Audience, rooms: &[&str]) -> Vec<String> {
        let data = to_raw_value(&1).unwrap().into();
        let event = Event { id: EventId(1), name: "e".into(), data, at: now(), shape, expires_at: None };
        let rooms = rooms.iter().map(|room| RoomName::parse(*room).unwrap()).collect();
        let delivery =
            Delivery::new(Arc::new(event), audience, rooms, Vec::new(), false, Duration::from_secs(1));
        let plan = delivery.plan();
        let names = |range: Range<usize>| {
            let names: Vec<&str> = plan.rooms[range].iter().map(|room| room.as_str()).collect();
            names.join(" ")
        };
        let told = |step: &Step<'_>| {
            let shown = step.shown.map_or("-", RoomName::as_str);
            format!("{} < {} as {shown}", names(0..step.to.start), names(step.to.clone()))
        };
        plan.steps.iter().map(told).collect()
    }

    #[test]
    fn each_room_is_told_by_one_step_and_the_dashboard_with_the_first() {
        let wrapped = |rooms| steps(Shape::Wrapped, Audience::Rooms, rooms);
        assert_eq!(wrapped(&["a"]), [" < a as a"]);
        assert_eq!(wrapped(&["a", "b", "c"]), [" < a as a", "a < b as b", "a b < c as c"]);
        let mirrored = [" < dashboard a as a", "dashboard a < b as b"];
        assert_eq!(wrapped(&["a", "dashboard", "b"]), mirrored);
        assert_eq!(wrapped(&["dashboard"]), [" < dashboard as dashboard"]);
        assert_eq!(wrapped(&["dashboard", "dashboard"]), [" < dashboard dashboard as dashboard"]);
        assert!(wrapped(&[]).is_empty());
    }

    #[test]
    fn what_all_read_alike_is_one_step() {
        assert_eq!(steps(Shape::Flat, Audience::Rooms, &["a", "dashboard"]), [" < a dashboard as -"]);
        assert_eq!(steps(Shape::Wrapped, Audience::Logs, &["a", "b"]), [" < a b as -"]);
        assert_eq!(steps(Shape::Wrapped, Audience::Root, &[]), [" <  as -"]);
    }
}
