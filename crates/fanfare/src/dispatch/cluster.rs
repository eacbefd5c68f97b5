//! Owns this process's part in a server of several nodes: which rooms it hears of, how far it has heard, and what it
//! tells the others. Does not send anything to sockets. Invariant: a room is heard before anybody reads its log to join.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bus::{Bus, BusHealth, Channel, Message, NodeInfo};
use engine::Sid;
use hub::event::Audience;
use hub::room::RoomName;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::Attachment;
use super::fanout::Delivery;
use crate::codes::{Code, Fault};

/// How long a room is heard although nobody is in it: whoever is about to join has been that long on the way.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// How long a join waits until what was published before it has been heard.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(10);

/// Time until that is tried again after a connection broke.
const SETTLE_RETRY: Duration = Duration::from_millis(100);

/// What the task that hears the other nodes is asked to do in its turn.
pub(super) enum Errand {
    /// A watcher gets its place.
    Attach(Attachment),
    /// Everything up to this order has been heard.
    Heard(u64),
}

/// The other nodes, as the dispatcher deals with them.
pub(crate) struct Cluster {
    bus: Bus,
    errands: mpsc::Sender<Errand>,
    /// The rooms that are heard, and when somebody last wanted them.
    wanted: Mutex<HashMap<RoomName, Instant>>,
    pub(super) repairs: Repairs,
}

/// What was made up for after something had not been heard, as it is counted.
#[derive(Debug, Default)]
pub(super) struct Repairs {
    /// How often.
    pub(super) count: AtomicU64,
    /// Events that were read from the store then.
    pub(super) events: AtomicU64,
    /// Rooms of which something was gone, so that their members had to begin anew.
    pub(super) rooms_lost: AtomicU64,
}

/// How it is with the other nodes, in numbers.
#[derive(Clone, Debug)]
pub(crate) struct Figures {
    /// As the bus sees it.
    pub(crate) health: BusHealth,
    /// Rooms that are heard.
    pub(crate) rooms_heard: usize,
    /// How often was made up for what had not been heard.
    pub(crate) repairs: u64,
    /// Events that were read from the store then.
    pub(crate) repaired_events: u64,
    /// Rooms of which something was gone then.
    pub(crate) rooms_lost: u64,
}

impl Figures {
    /// Why the other nodes are not heard; `None` if they are.
    pub(crate) fn complaint(&self) -> Option<String> {
        complaint_of(&self.health)
    }
}

impl Cluster {
    pub(super) fn new(bus: Bus, errands: mpsc::Sender<Errand>) -> Self {
        Self { bus, errands, wanted: Mutex::default(), repairs: Repairs::default() }
    }

    /// Hears from now on what is for everybody.
    pub(super) async fn hear_everyone(&self) {
        let audiences = [Audience::Root, Audience::Ws, Audience::Admin, Audience::Rooms];
        let audiences = audiences.map(Channel::Everyone);
        if let Err(fault) = self.bus.listen(&audiences).await {
            tracing::debug!(%fault, "what is for everybody is not heard yet");
        }
    }

    /// This node's number.
    pub(crate) fn node(&self) -> u16 {
        self.bus.node().0
    }

    /// Whether no other node has a lower number.
    pub(crate) fn is_foremost(&self) -> bool {
        let own = self.bus.node();
        self.bus.nodes().iter().all(|node| own <= node.id)
    }

    /// The way to the other nodes.
    pub(crate) fn bus(&self) -> &Bus {
        &self.bus
    }

    /// Hears of these rooms from now on; answers those that were not heard before. To be called before their logs are
    /// read, or somebody joins.
    pub(super) async fn hear(&self, rooms: &[RoomName]) -> Vec<RoomName> {
        let now = Instant::now();
        let mut new = Vec::new();
        {
            let mut wanted = self.wanted();
            for room in rooms {
                if wanted.insert(room.clone(), now).is_none() {
                    new.push(room.clone());
                }
            }
        }
        let channels: Vec<Channel> = rooms.iter().cloned().map(Channel::Room).collect();
        if let Err(fault) = self.bus.listen(&channels).await {
            // The bus listens when it is there again, and then everything is read that came meanwhile.
            tracing::debug!(%fault, "a room is not heard yet");
        }
        new
    }

    /// Waits until everything that was published before this call has been sent to the sockets here.
    ///
    /// # Errors
    /// [`Code::StoreUnavailable`]: nothing is heard from Redis at the moment.
    pub(super) async fn settle(&self) -> Result<(), Fault> {
        let deaf = |why: String| {
            let message = format!("this node does not hear from Redis ({why}); try again in a moment");
            Fault::new(Code::StoreUnavailable, message).retry_in(Duration::from_secs(1))
        };
        let mut why = "nothing comes".to_owned();
        let settled = tokio::time::timeout(SETTLE_TIMEOUT, async {
            // A fence is lost with its connection; what was missed then is made up for before the next one passes.
            while let Err(fault) = self.bus.fence().await {
                why = fault.to_string();
                tokio::time::sleep(SETTLE_RETRY).await;
            }
        });
        settled.await.map_err(|_| deaf(why))
    }

    /// Has a watcher attached in its turn. `false`: the server is stopping.
    pub(super) async fn attach(&self, attachment: Attachment) -> bool {
        self.errands.send(Errand::Attach(attachment)).await.is_ok()
    }

    /// Notes that everything up to this order has been heard.
    pub(super) async fn note_heard(&self, order: u64) {
        let _ = self.errands.send(Errand::Heard(order)).await;
    }

    /// Tells other nodes of an event that nobody keeps, if they have anybody for it.
    pub(super) async fn tell(&self, delivery: &Delivery) {
        let channels: Vec<Channel> = match delivery.audience {
            Audience::Admin | Audience::Root | Audience::Ws => vec![Channel::Everyone(delivery.audience)],
            Audience::Logs | Audience::Rooms => delivery.rooms.iter().map(channel_of).collect(),
        };
        let wanted: Vec<Channel> =
            channels.into_iter().filter(|channel| self.bus.is_wanted_elsewhere(channel)).collect();
        if wanted.is_empty() {
            return;
        }
        let message = Message {
            origin: self.node(),
            order: None,
            placed: Vec::new(),
            rooms: delivery.rooms.clone(),
            except: delivery.except.clone(),
            is_volatile: delivery.is_volatile || delivery.is_transient,
            audience: delivery.audience,
            event: (*delivery.event).clone(),
        };
        if let Err(fault) = self.bus.tell(&wanted, &message).await {
            // Nobody counts on what is not kept.
            tracing::debug!(%fault, event = &*delivery.event.name, "other nodes are not told of an event");
        }
    }

    /// How it is with the other nodes, in numbers.
    pub(crate) fn figures(&self) -> Figures {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Figures {
            health: self.bus.health(),
            rooms_heard: self.wanted().len(),
            repairs: count(&self.repairs.count),
            repaired_events: count(&self.repairs.events),
            rooms_lost: count(&self.repairs.rooms_lost),
        }
    }

    /// The same as `/health` and `/stats` tell it, and who the others are.
    pub(crate) fn check(&self) -> Value {
        let figures = self.figures();
        let nodes: Vec<Value> = self.bus.nodes().iter().map(node_json).collect();
        let (counts, complaint) = (figures.health.counts, figures.complaint());
        let millis =
            |span: Option<Duration>| span.map(|span| u64::try_from(span.as_millis()).unwrap_or(u64::MAX));
        json!({
            "status": if complaint.is_some() { "deaf" } else { "ok" },
            "complaint": complaint,
            "node": self.node(),
            "nodes": nodes,
            "rooms_heard": figures.rooms_heard,
            "canary_age_ms": millis(figures.health.canary_age),
            "canary_trip_ms": millis(figures.health.canary_trip),
            "messages": {
                "in": counts.messages_in,
                "out": counts.messages_out,
                "repeats": counts.repeats,
                "undecodable": counts.undecodable,
            },
            "cuts": counts.cuts,
            "repairs": {
                "count": figures.repairs,
                "events": figures.repaired_events,
                "rooms_lost": figures.rooms_lost,
            },
            "overflows": counts.overflows,
            "requests_dropped": counts.requests_dropped,
        })
    }

    /// Why the other nodes are not heard; `None` if they are.
    pub(crate) fn deaf(&self) -> Option<String> {
        complaint_of(&self.bus.health())
    }

    /// Hears no longer of rooms that have had nobody for a while. `is_watched`: whether there may be somebody.
    pub(crate) fn sweep(&self, is_watched: impl Fn(&RoomName) -> bool) {
        let now = Instant::now();
        let mut idle = Vec::new();
        self.wanted().retain(|room, wanted_at| {
            if is_watched(room) {
                *wanted_at = now;
            }
            let stays = now.duration_since(*wanted_at) < IDLE_MAX;
            if !stays {
                idle.push(Channel::Room(room.clone()));
            }
            stays
        });
        if !idle.is_empty() {
            self.bus.unlisten(&idle);
        }
    }

    /// The rooms that are heard.
    pub(crate) fn rooms(&self) -> Vec<RoomName> {
        self.wanted().keys().cloned().collect()
    }

    /// A panic of another thread has left nothing half done: each change is one call.
    fn wanted(&self) -> MutexGuard<'_, HashMap<RoomName, Instant>> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a room's events go. Nobody knows which node has a connection, so what is for one goes to all of them.
fn channel_of(room: &RoomName) -> Channel {
    match Sid::parse(room.as_str()) {
        Some(_) => Channel::Everyone(Audience::Rooms),
        None => Channel::Room(room.clone()),
    }
}

fn complaint_of(health: &BusHealth) -> Option<String> {
    if health.is_superseded {
        return Some("another process has this node's number: it must be started anew".to_owned());
    }
    health.deaf.as_ref().map(|deaf| format!("{}, for {} s", deaf.why, deaf.age.as_secs()))
}

fn node_json(node: &NodeInfo) -> Value {
    json!({
        "node": node.id.0,
        "name": &*node.name,
        "version": &*node.version,
        "address": node.reach,
        "since": node.since.to_string(),
    })
}
