//! Owns the events that were sent out lately: what a watcher needs whose part of the log was read a moment before its
//! turn. Does not know the store. Invariant: holds every kept event after [`Recent::since`], in order.

use std::collections::VecDeque;
use std::sync::Arc;

use hub::event::{Audience, Event, Position};
use hub::room::RoomName;
use hub::store::{Kept, Placed};

/// Events held. 4,096: a store's read takes a few milliseconds, in which 100,000 a second are some hundreds.
const EVENTS_MAX: usize = 4_096;

/// Bytes of their data.
const BYTES_MAX: usize = 16 << 20;

/// An event that was sent out.
pub(super) struct Sent {
    pub(super) order: u64,
    pub(super) event: Arc<Event>,
    pub(super) placed: Vec<Placed>,
}

/// The events that were sent out lately.
#[derive(Default)]
pub(super) struct Recent {
    events: VecDeque<Sent>,
    bytes: usize,
    since: u64,
}

impl Recent {
    /// Everything after this order is here.
    pub(super) fn since(&self) -> u64 {
        self.since
    }

    pub(super) fn push(&mut self, sent: Sent) {
        self.bytes += weight(&sent);
        self.events.push_back(sent);
        while self.events.len() > EVENTS_MAX || self.bytes > BYTES_MAX {
            let Some(oldest) = self.events.pop_front() else { break };
            self.bytes -= weight(&oldest);
            self.since = oldest.order;
        }
    }

    /// What a room has got after an order, oldest first.
    pub(super) fn after<'a>(
        &'a self,
        order: u64,
        room: &'a RoomName,
    ) -> impl Iterator<Item = (&'a Sent, Option<Position>)> {
        let first = self.events.partition_point(|sent| sent.order <= order);
        self.events.range(first..).filter_map(move |sent| {
            let placed = sent.placed.iter().find(|placed| placed.room == *room)?;
            Some((sent, placed.position))
        })
    }

    /// What several rooms have got after an order, oldest first: an event of several of them once for each, in their
    /// order.
    pub(super) fn of<'a>(
        &'a self,
        order: u64,
        rooms: impl Iterator<Item = &'a RoomName> + Clone + 'a,
    ) -> impl Iterator<Item = Kept> + 'a {
        let first = self.events.partition_point(|sent| sent.order <= order);
        self.events.range(first..).flat_map(move |sent| {
            rooms.clone().filter_map(|room| {
                let placed = sent.placed.iter().find(|placed| placed.room == *room)?;
                Some(Kept {
                    room: placed.room.clone(),
                    position: placed.position,
                    order: sent.order,
                    event: (*sent.event).clone(),
                    // Nothing else is kept.
                    audience: Audience::Rooms,
                })
            })
        })
    }
}

fn weight(sent: &Sent) -> usize {
    sent.event.data.get().len() + 200
}
