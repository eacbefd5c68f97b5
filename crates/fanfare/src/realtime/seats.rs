//! Owns how nodes know who is in the rooms that they hear: each tells of its own sockets, and asks about those of others
//! when it begins to hear a room, after a cut, and now and then. Does not decide what is told of it; that is
//! `hub::presence`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bus::{Channel, NodeId};
use engine::Sid;
use hub::event::Event;
use hub::outgoing::Outgoing;
use hub::presence::Party;
use hub::room::RoomName;
use serde::{Deserialize, Serialize};

use super::Hub;
use super::peers::Question;
use super::presence::Seat;
use crate::dispatch::ROOM_NAMESPACES;

/// How often it is asked anew who is in the rooms that are heard, in case something of it was lost on the way.
const RECOUNT_EVERY: Duration = Duration::from_secs(60);

/// The event by which nodes tell each other who is in a room. No event of a publisher has such a name.
const SEAT: &str = "\u{1f}seat";

/// A socket that has come into a room, or left it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct SeatChange {
    sid: Box<str>,
    namespace: Box<str>,
    room: Box<str>,
    user: Option<Box<str>>,
    is_here: bool,
}

impl SeatChange {
    fn new(seat: Seat, party: &Party, room: &RoomName, is_here: bool) -> Self {
        let user = match party {
            Party::Anonymous => None,
            // Whether it is an agent's matters at its own node only.
            Party::User(user) | Party::Agent(user) => Some(user.clone()),
        };
        let (sid, namespace) = (seat.sid.to_string().into(), seat.namespace.into());
        Self { sid, namespace, room: room.as_str().into(), user, is_here }
    }

    /// `None`: a newer version of the program told something that this one does not know.
    fn read(self, node: u16) -> Option<(Seat, Party, RoomName, bool)> {
        let namespace = ROOM_NAMESPACES.into_iter().find(|namespace| **namespace == *self.namespace)?;
        let seat = Seat { sid: Sid::parse(&self.sid)?, node, namespace };
        let party = self.user.map_or(Party::Anonymous, Party::User);
        Some((seat, party, RoomName::parse(self.room).ok()?, self.is_here))
    }
}

impl Hub {
    /// Another node has told something that is for this process.
    pub(super) fn handle_notice(&self, from: u16, event: &Event) {
        if &*event.name != SEAT {
            return;
        }
        let change: Option<SeatChange> = serde_json::from_str(event.data.get()).ok();
        if let Some((seat, party, room, is_here)) = change.and_then(|change| change.read(from)) {
            self.note_elsewhere(seat, party, &room, is_here);
        }
    }

    /// Tells the nodes that hear a room that one of ours has come or gone.
    pub(super) fn tell_nodes(&self, seat: Seat, party: &Party, room: &RoomName, is_here: bool) {
        let Some(cluster) = self.dispatcher().cluster() else { return };
        if !cluster.bus().is_wanted_elsewhere(&Channel::Room(room.clone())) {
            return;
        }
        let change = SeatChange::new(seat, party, room, is_here);
        let notice = Outgoing::flat(SEAT, &change, vec![room.clone()]).volatile();
        if let Err(fault) = self.dispatcher().publish_elsewhere(vec![notice]) {
            // They ask again within a minute.
            tracing::debug!(message = fault.message, "nodes are not told who is there");
        }
    }

    /// Hears of rooms from now on, also from other nodes. To be called before anybody joins them or reads their logs.
    pub(crate) async fn hear(&self, rooms: &[RoomName]) {
        let new = self.dispatcher().hear(rooms).await;
        let counted: Vec<RoomName> = new.into_iter().filter(|room| self.has_presence(room)).collect();
        if !counted.is_empty() {
            self.count_in(&counted).await;
        }
    }

    /// Learns who is in rooms elsewhere.
    async fn count_in(&self, rooms: &[RoomName]) {
        let names = rooms.iter().map(|room| room.as_str().into()).collect();
        let answers: Vec<(NodeId, Vec<SeatChange>)> = self.ask_nodes(&Question::Seats { rooms: names }).await;
        for (node, seats) in answers {
            let seats: BTreeSet<(Seat, Party, RoomName)> = seats
                .into_iter()
                .filter_map(|seat| seat.read(node.0))
                .map(|(seat, party, room, _)| (seat, party, room))
                .collect();
            for room in rooms {
                let known = self.attendance.seats_in(room);
                for seat in known.into_iter().filter(|seat| seat.node == node.0) {
                    if !seats.iter().any(|(is, _, at)| *is == seat && at == room) {
                        self.note_elsewhere(seat, Party::Anonymous, room, false);
                    }
                }
            }
            for (seat, party, room) in seats {
                self.note_elsewhere(seat, party, &room, true);
            }
        }
    }

    /// Asks anew who is in the rooms that are heard, now and then. Never ends.
    pub(crate) async fn recount_rooms(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(RECOUNT_EVERY);
        ticks.tick().await;
        loop {
            ticks.tick().await;
            self.recount().await;
        }
    }

    pub(super) async fn recount(&self) {
        let Some(cluster) = self.dispatcher().cluster() else { return };
        let rooms: Vec<RoomName> =
            cluster.rooms().into_iter().filter(|room| self.has_presence(room)).collect();
        if !rooms.is_empty() {
            self.count_in(&rooms).await;
        }
    }

    /// A socket of another node has come into a room or left it.
    fn note_elsewhere(&self, seat: Seat, party: Party, room: &RoomName, is_here: bool) {
        self.attendance.note_elsewhere(Instant::now(), seat, party, room, is_here, |changes| {
            self.tell_presence(changes, None);
        });
    }

    pub(super) fn own_seats(&self, rooms: impl Iterator<Item = RoomName>) -> Vec<SeatChange> {
        let own = self.node();
        let seats = rooms.flat_map(|room| {
            let seats = self.attendance.parties_in(&room);
            seats.into_iter().map(move |(seat, party)| (seat, party, room.clone()))
        });
        seats
            .filter(|(seat, ..)| seat.node == own)
            .map(|(seat, party, room)| SeatChange::new(seat, &party, &room, true))
            .collect()
    }
}
