//! Owns how what a rule wants to be told becomes an event: it gets its id and its moment, and it is looked up how its
//! rooms keep it. Does not commit or send.

use std::sync::Arc;

use engine::Sid;
use hub::event::{Audience, Event};
use hub::outgoing::Outgoing;
use hub::policy::Delivery as Keeping;
use hub::room::RoomName;
use hub::store::{Append, Placement, Route};
use hub::time::Timestamp;

use super::Shared;
use super::fanout::Delivery;
use super::ids::Ids;

/// An event with its id and moment.
pub(super) struct Prepared {
    pub(super) delivery: Delivery,
    /// Index among the commit's appends, if it is kept.
    pub(super) append: Option<usize>,
}

/// Makes events, for one task.
pub(super) struct Drafts {
    shared: Arc<Shared>,
    ids: Ids,
}

impl Drafts {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, ids: Ids::default() }
    }

    /// Makes an event. If a room keeps it, it is put to `appends` as well.
    pub(super) fn prepare(
        &mut self,
        now: Timestamp,
        outgoing: Outgoing,
        appends: &mut Vec<Append>,
    ) -> Prepared {
        let Outgoing { name, data, shape, audience, rooms, except, key, volatile, ttl } = outgoing;
        let event = Event {
            id: self.ids.next(now),
            name: (&*name).into(),
            data: data.0,
            at: now,
            shape,
            expires_at: ttl.map(|ttl| now.plus(ttl.span())),
        };
        let mut placements = Vec::new();
        // The rooms of other audiences are channels, which keep nothing.
        for room in rooms.iter().filter(|_| !volatile && audience == Audience::Rooms) {
            let policy = self.shared.policies.of(room);
            if policy.delivery != Keeping::Volatile && !is_connection(room) {
                placements.push(Placement {
                    room: room.clone(),
                    delivery: policy.delivery,
                    retention: policy.retention,
                });
            }
        }
        let append = (!placements.is_empty()).then(|| {
            // Other nodes send it to all of its rooms, also those that keep nothing.
            let route = self.shared.cluster.as_ref().map(|cluster| Route {
                origin: cluster.node(),
                rooms: rooms.clone(),
                except: except.clone(),
            });
            appends.push(Append { event: event.clone(), audience, placements, key, route });
            appends.len() - 1
        });
        let away_max = self.shared.away_max;
        let delivery = Delivery::new(Arc::new(event), audience, rooms, except, volatile, away_max);
        Prepared { delivery, append }
    }
}

/// Whether a room is a connection's own. Those keep nothing: their names do not come again.
fn is_connection(room: &RoomName) -> bool {
    Sid::parse(room.as_str()).is_some()
}

impl Shared {
    /// Whether a room keeps an event.
    pub(super) fn keeps(&self, outgoing: &Outgoing) -> bool {
        let keeps =
            |room: &RoomName| self.policies.of(room).delivery != Keeping::Volatile && !is_connection(room);
        !outgoing.volatile && outgoing.audience == Audience::Rooms && outgoing.rooms.iter().any(keeps)
    }
}
