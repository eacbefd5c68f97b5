//! Owns what is heard from all nodes: kept events leave for the sockets here in the order in which Redis has them, and what
//! was missed while nothing was heard is read from the store before anything newer. Does not commit.
//!
//! Every node hears its own events, too, so that all send in one order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bus::{Feed, Message, News, NodeInfo};
use hub::event::Event;
use hub::room::RoomName;
use hub::store::{Kept, Placed};
use tokio::sync::mpsc;

use super::Shared;
use super::cluster::{Cluster, Errand};
use super::fanout::{Delivery, ROOM_NAMESPACES};
use super::outlet::Outlet;

/// Errands that may wait. They are answered one by one, so whoever has them done waits meanwhile.
pub(super) const ERRANDS_MAX: usize = 4_096;

/// Errands that are taken at once.
const ERRANDS_PER_TURN: usize = 256;

/// Events that are read after a cut, over all rooms: some 100 MB. If there were more, each room is read by itself.
const REPAIRED_MAX: usize = 100_000;

/// Time until a store that cannot be read is asked again.
const RETRY: Duration = Duration::from_millis(500);

/// How often it is noted how far everything has been heard, so that a repair begins there.
const HEARD_EVERY: Duration = Duration::from_secs(2);

/// The first character of the names of what nodes tell each other, and no socket. No event of a publisher has it.
const NOTICE: char = '\u{1f}';

/// What other nodes tell besides events.
#[derive(Debug)]
pub(crate) enum NodeNews {
    /// After nothing was heard for a while.
    Resumed,
    /// Something for this process itself.
    Notice {
        /// The number of the node.
        from: u16,
        /// What it tells.
        event: Event,
    },
    /// It takes part from now on.
    Came(NodeInfo),
    /// It has gone: its sockets are not there any more.
    Gone(NodeInfo),
}

/// The task's state.
pub(super) struct Hearing {
    pub(super) shared: Arc<Shared>,
    pub(super) cluster: Arc<Cluster>,
    pub(super) outlet: Outlet,
    pub(super) feed: Feed,
    pub(super) errands: mpsc::Receiver<Errand>,
    pub(super) on_news: Box<dyn Fn(NodeNews) + Send + Sync>,
}

impl Hearing {
    /// Runs until the bus is closed.
    pub(super) async fn run(mut self) {
        let mut errands = Vec::new();
        let cluster = self.cluster.clone();
        tokio::spawn(async move { cluster.hear_everyone().await });
        loop {
            tokio::select! {
                news = self.feed.next() => match news {
                    Some(news) => self.handle(news).await,
                    None => return,
                },
                count = self.errands.recv_many(&mut errands, ERRANDS_PER_TURN) => {
                    if count == 0 {
                        return;
                    }
                    self.run_errands(&mut errands).await;
                }
            }
        }
    }

    async fn handle(&mut self, news: News) {
        match news {
            News::Event(message) => self.deliver(*message).await,
            News::Fence(fence) => fence.pass(),
            News::Resumed => {
                self.repair().await;
                (self.on_news)(NodeNews::Resumed);
            }
            News::NodeCame(node) => (self.on_news)(NodeNews::Came(node)),
            News::NodeGone(node) => (self.on_news)(NodeNews::Gone(node)),
        }
    }

    async fn run_errands(&mut self, errands: &mut Vec<Errand>) {
        let mut attachments = Vec::new();
        for errand in errands.drain(..) {
            match errand {
                Errand::Attach(attachment) => attachments.push(attachment),
                Errand::Heard(order) => {
                    self.shared.sent_order.fetch_max(order, Ordering::AcqRel);
                }
            }
        }
        self.outlet.attach_all(attachments).await;
    }

    fn sent_order(&self) -> u64 {
        self.shared.sent_order.load(Ordering::Acquire)
    }

    async fn deliver(&mut self, message: Message) {
        let Message { origin, order, placed, rooms, except, is_volatile, audience, event } = message;
        if event.name.starts_with(NOTICE) {
            return (self.on_news)(NodeNews::Notice { from: origin, event });
        }
        if order.is_some_and(|order| order <= self.sent_order()) {
            // It came by another of its rooms, or was read after a cut.
            return;
        }
        let away_max = self.shared.away_max;
        let delivery = Delivery::new(Arc::new(event), audience, rooms, except, is_volatile, away_max);
        match order {
            Some(order) => self.outlet.send(delivery.placed_at(Some((order, placed)))).await,
            None => self.shared.send_here(&delivery).await,
        }
    }

    /// Sends what was missed while nothing was heard.
    async fn repair(&mut self) {
        let (rooms, since) = (self.cluster.rooms(), self.sent_order());
        let count = match self.read_missed(&rooms, since, REPAIRED_MAX).await {
            Some(missed) => self.send_missed(missed).await,
            None => self.repair_each(&rooms, since).await,
        };
        let repairs = &self.cluster.repairs;
        add(&repairs.count, 1);
        add(&repairs.events, count as u64);
        tracing::info!(events = count, rooms = rooms.len(), "heard from Redis again");
    }

    /// What rooms got after an order, however long it takes until the store can be read: nothing newer is sent meanwhile,
    /// since the order is what everybody counts on. `None`: something is gone, or it is more than `max` events.
    async fn read_missed(&self, rooms: &[RoomName], since: u64, max: usize) -> Option<Vec<Kept>> {
        let mut is_complaining = false;
        loop {
            match self.shared.store.read_after_order(rooms.to_vec(), since, max).await {
                Ok(missed) => return missed,
                Err(fault) => {
                    if !std::mem::replace(&mut is_complaining, true) {
                        tracing::warn!(%fault, "what was missed cannot be read yet");
                    }
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    /// Sends what one read has found, each event once.
    async fn send_missed(&mut self, missed: Vec<Kept>) -> usize {
        let mut events: BTreeMap<u64, (Kept, Vec<Placed>)> = BTreeMap::new();
        for kept in missed {
            let placed = Placed { room: kept.room.clone(), position: kept.position };
            events.entry(kept.order).or_insert_with(|| (kept, Vec::new())).1.push(placed);
        }
        let (count, away_max) = (events.len(), self.shared.away_max);
        for (order, (kept, placed)) in events {
            let rooms = placed.iter().map(|placed| placed.room.clone()).collect();
            // Whom it was not for is not kept: they get it as well.
            let delivery =
                Delivery::new(Arc::new(kept.event), kept.audience, rooms, Vec::new(), false, away_max);
            self.outlet.send(delivery.placed_at(Some((order, placed)))).await;
        }
        count
    }

    /// The same, each room read by itself, if together they missed too much or something is gone. Whoever is in a room of
    /// which something is gone is cut off: it comes back, and is told that it has to begin anew.
    async fn repair_each(&mut self, rooms: &[RoomName], since: u64) -> usize {
        let mut all = Vec::new();
        for room in rooms {
            let max = REPAIRED_MAX.saturating_sub(all.len());
            match self.read_missed(std::slice::from_ref(room), since, max).await {
                Some(missed) => all.extend(missed),
                None => {
                    tracing::warn!(%room, "events are gone that this node did not hear; its members begin anew");
                    add(&self.cluster.repairs.rooms_lost, 1);
                    self.cut_off(room).await;
                }
            }
        }
        // All of them together, in the order of the store.
        self.send_missed(all).await
    }

    async fn cut_off(&self, room: &RoomName) {
        let names = self.shared.filters.names_of(std::slice::from_ref(room));
        for namespace in ROOM_NAMESPACES {
            for member in self.shared.server.of(namespace).to(&names[..]).fetch_sockets().await {
                // Forgotten here, it can only come back by what the store still has.
                match member.socket().recovery_id() {
                    Some(secret) => drop(self.shared.server.release(&secret).await),
                    None => member.socket().sever(),
                }
            }
        }
    }
}

fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

/// Notes now and then how far everything has been heard. Never ends.
pub(super) async fn note_heard(shared: Arc<Shared>, cluster: Arc<Cluster>) {
    let mut ticks = tokio::time::interval(HEARD_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(order) = shared.store_order().await else { continue };
        // Everything up to that was published before the fence.
        if cluster.settle().await.is_ok() {
            cluster.note_heard(order).await;
        }
    }
}
