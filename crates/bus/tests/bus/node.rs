//! A node as tests see it: a bus, and a reader that writes down what it is told.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bus::{Bus, Channel, Message, News, NodeId, Options, Requests};
use hub::event::{Audience, Event};
use hub::store::{Append, Commit, Outcome, Route, Store};
use store_redis::{Address, RedisStore};
use testkit::contract::sample::{NOW, event, events, room};
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// How long a test waits for what must happen.
pub(crate) const LIMIT: Duration = Duration::from_secs(180);

/// Something that was heard.
#[derive(Clone, Debug)]
pub(crate) enum Heard {
    Event(Box<Message>),
    Resumed,
    Came(NodeId),
    Gone(NodeId),
}

/// A bus and its reader.
pub(crate) struct Node {
    pub(crate) bus: Bus,
    pub(crate) requests: Option<Requests>,
    heard: Arc<Mutex<Vec<Heard>>>,
    is_held: watch::Sender<bool>,
    reader: AbortHandle,
}

impl Node {
    pub(crate) async fn open(address: &str) -> Self {
        Self::open_with(address, |_| {}).await
    }

    pub(crate) async fn open_with(address: &str, change: impl FnOnce(&mut Options)) -> Self {
        static OPENED: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = OPENED.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = format!("node-{number}-{}", std::process::id());
        let mut options = Options::new(Address::parse(address).unwrap(), name);
        // None is gone, and nothing is given up, because the machine stands still.
        options.lease = LIMIT;
        options.terms.connect_timeout = Duration::from_secs(30);
        options.terms.command_timeout = Duration::from_secs(30);
        change(&mut options);
        let (bus, mut feed, requests) = Bus::open(options).await.unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let (is_held, mut holding) = watch::channel(false);
        let writing = Arc::clone(&heard);
        let reader = tokio::spawn(async move {
            while let Some(news) = feed.next().await {
                // Whoever holds it has gone: read on.
                let _ = holding.wait_for(|is_held| !is_held).await;
                let news = match news {
                    News::Event(message) => Heard::Event(message),
                    News::Resumed => Heard::Resumed,
                    News::NodeCame(info) => Heard::Came(info.id),
                    News::NodeGone(info) => Heard::Gone(info.id),
                    News::Fence(fence) => {
                        fence.pass();
                        continue;
                    }
                };
                writing.lock().unwrap_or_else(PoisonError::into_inner).push(news);
            }
        });
        Self { bus, requests: Some(requests), heard, is_held, reader: reader.abort_handle() }
    }

    /// Reads no further, or goes on.
    pub(crate) fn set_held(&self, is_held: bool) {
        self.is_held.send_replace(is_held);
    }

    /// Whether the feed has ended.
    pub(crate) fn is_ended(&self) -> bool {
        self.reader.is_finished()
    }

    pub(crate) fn heard(&self) -> Vec<Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Names of the events that were heard.
    pub(crate) fn names(&self) -> Vec<String> {
        let name = |heard| match heard {
            Heard::Event(message) => Some(message.event.name.to_string()),
            Heard::Resumed | Heard::Came(_) | Heard::Gone(_) => None,
        };
        self.heard().into_iter().filter_map(name).collect()
    }

    pub(crate) fn resumed(&self) -> usize {
        self.heard().iter().filter(|heard| matches!(heard, Heard::Resumed)).count()
    }

    pub(crate) fn saw(&self, what: impl Fn(&Heard) -> bool) -> bool {
        self.heard().iter().any(what)
    }

    pub(crate) fn has_seen_go(&self, node: NodeId) -> bool {
        self.saw(|heard| matches!(heard, Heard::Gone(gone) if *gone == node))
    }

    /// Waits until this node is heard by itself again after whatever was done to it.
    pub(crate) async fn settle(&self) {
        tokio::time::timeout(LIMIT, async {
            while self.bus.fence().await.is_err() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await
        .expect("a mark passes");
    }

    /// Tells an event of this name to rooms, until it could be told.
    pub(crate) async fn tell(&self, rooms: &[&str], name: &str) {
        let channels = rooms.iter().map(|name| channel(name)).collect::<Vec<_>>();
        self.bus.tell(&channels, &self.message(rooms, event(name, "1"))).await.unwrap();
    }

    /// An event for rooms that is not kept.
    pub(crate) fn message(&self, rooms: &[&str], event: Event) -> Message {
        Message {
            origin: self.bus.node().0,
            order: None,
            placed: Vec::new(),
            rooms: rooms.iter().map(|name| room(name)).collect(),
            except: vec![room("but")],
            is_volatile: true,
            audience: Audience::Rooms,
            event,
        }
    }
}

pub(crate) fn channel(name: &str) -> Channel {
    Channel::Room(room(name))
}

/// A store that publishes.
pub(crate) async fn store(address: &str) -> Arc<RedisStore> {
    let address = Address::parse(address).unwrap();
    let options =
        store_redis::Options { publishes: true, patience: LIMIT, ..store_redis::Options::new(address) };
    let opened = tokio::task::spawn_blocking(move || RedisStore::open(options)).await;
    Arc::new(opened.unwrap().unwrap())
}

/// Keeps an event, and has it told to its rooms: its order.
pub(crate) async fn keep(store: &RedisStore, append: Append) -> u64 {
    let rooms = append.placements.iter().map(|placement| placement.room.clone()).collect();
    let route = Some(Route { origin: 1, rooms, except: Vec::new() });
    let commit: Commit = events(vec![Append { route, ..append }]);
    match &store.commit(NOW, vec![commit]).await.unwrap()[..] {
        [Outcome::Done(done)] => done[0].0,
        other => panic!("{other:?}"),
    }
}
