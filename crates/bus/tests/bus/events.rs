//! Events: all, once, in order, whatever happens to connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bus::{Bus, Channel, News, Options};
use hub::event::Audience;
use hub::policy::Delivery;
use hub::room::RoomName;
use hub::store::{Store, StoreFault};
use store_redis::{Address, RedisStore};
use testkit::contract::sample::{event, logged, placed, room};
use testkit::redis::{RedisServer, until};

use crate::node::{LIMIT, Node, channel, keep, store};

const ROOMS: [&str; 4] = ["a", "b", "c", "d"];

/// A node that gives what is kept to its sockets as the binary does, and writes down the orders.
async fn watch(address: &str, store: Arc<RedisStore>) -> (Bus, tokio::task::JoinHandle<Vec<u64>>) {
    let options = Options::new(Address::parse(address).unwrap(), format!("watch-{:p}", &address));
    let (bus, mut feed, _requests) = Bus::open(options).await.unwrap();
    let rooms: Vec<RoomName> = ROOMS.iter().map(|name| room(name)).collect();
    let channels: Vec<Channel> = rooms.iter().cloned().map(Channel::Room).collect();
    bus.listen(&channels).await.unwrap();
    let reading = tokio::spawn(async move {
        let mut orders = Vec::new();
        let mut last = 0;
        while let Some(news) = feed.next().await {
            match news {
                News::Event(message) => {
                    let order = message.order.expect("only kept events are told");
                    if &*message.event.name == "end" {
                        break;
                    }
                    if order > last {
                        orders.push(order);
                        last = order;
                    }
                }
                News::Resumed => {
                    let missed = loop {
                        // What makes connections break may keep the store from answering.
                        match store.read_after_order(rooms.clone(), last, 100_000).await {
                            Ok(missed) => break missed,
                            Err(StoreFault::Unavailable(_)) => {
                                tokio::time::sleep(Duration::from_millis(20)).await
                            }
                            Err(fault) => panic!("{fault}"),
                        }
                    };
                    for kept in missed.expect("nothing is pruned") {
                        // Once for each room that has it.
                        if kept.order > last && &*kept.event.name != "end" {
                            orders.push(kept.order);
                            last = kept.order;
                        }
                    }
                }
                News::Fence(fence) => fence.pass(),
                News::NodeCame(_) | News::NodeGone(_) => {}
            }
        }
        orders
    });
    (bus, reading)
}

/// Keeps events in varying rooms, while something is done to Redis again and again; both nodes have given all in order.
async fn check_order(
    server: Arc<std::sync::Mutex<RedisServer>>,
    events: usize,
    disturb: fn(&mut RedisServer),
) {
    let address = server.lock().unwrap().address();
    let (first, second) = (store(&address).await, store(&address).await);
    let (one, reading_one) = watch(&address, Arc::clone(&first)).await;
    let (other, reading_other) = watch(&address, Arc::clone(&first)).await;
    let (is_over, progress) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let disturbing = {
        let (server, is_over, progress) = (Arc::clone(&server), Arc::clone(&is_over), Arc::clone(&progress));
        tokio::task::spawn_blocking(move || {
            let mut count = 0;
            while !is_over.load(Ordering::Relaxed) || count < 3 {
                let before = progress.load(Ordering::Relaxed);
                disturb(&mut server.lock().unwrap());
                count += 1;
                std::thread::sleep(Duration::from_millis(100));
                // Not again before something has got through: a slow machine needs its time.
                until("something is kept", || {
                    is_over.load(Ordering::Relaxed) || progress.load(Ordering::Relaxed) > before + 10
                });
            }
        })
    };
    let mut writing = Vec::new();
    for (of, store) in [first.clone(), second].into_iter().enumerate() {
        let progress = Arc::clone(&progress);
        writing.push(tokio::spawn(async move {
            let mut orders = Vec::new();
            for at in 0..events {
                let rooms: Vec<(&str, Delivery)> = ROOMS
                    .iter()
                    .enumerate()
                    .filter(|(room, _)| (at + of) % (room + 2) == 0 || *room == at % 4)
                    .map(|(_, room)| (*room, Delivery::Log))
                    .collect();
                orders.push(keep(&store, placed(event("e", &at.to_string()), &rooms)).await);
                progress.fetch_add(1, Ordering::Relaxed);
            }
            orders
        }));
    }
    let mut kept = Vec::new();
    for writing in writing {
        kept.extend(writing.await.unwrap());
    }
    kept.sort_unstable();
    is_over.store(true, Ordering::Relaxed);
    disturbing.await.unwrap();
    // The mark of the end may be lost in a cut, so it is told until it was heard.
    let ending = tokio::spawn(async move {
        loop {
            keep(&first, logged("a", event("end", "0"))).await;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
    for (bus, reading) in [(one, reading_one), (other, reading_other)] {
        let orders = tokio::time::timeout(LIMIT, reading).await.expect("the end comes").unwrap();
        assert_eq!(orders, kept);
        assert!(bus.health().counts.cuts > 0, "{:?}", bus.health());
    }
    ending.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn nothing_is_lost_or_out_of_order_while_connections_are_killed() {
    let server = Arc::new(std::sync::Mutex::new(RedisServer::start()));
    check_order(server, 1_000, |server| {
        // How many it were.
        let _killed = server.ask(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn nothing_is_lost_or_out_of_order_while_redis_restarts() {
    let server = Arc::new(std::sync::Mutex::new(RedisServer::start_durable()));
    check_order(server, 300, |server| {
        server.kill();
        server.restart();
        std::thread::sleep(Duration::from_millis(300));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn a_fence_comes_after_what_was_published_before_it() {
    let server = RedisServer::start();
    let address = server.address();
    let (one, other, store) = (Node::open(&address).await, Node::open(&address).await, store(&address).await);
    one.bus.listen(&[channel("a"), channel("b")]).await.unwrap();
    until("the interest is known", || other.bus.is_wanted_elsewhere(&channel("b")));
    for at in 0..50 {
        let name = at.to_string();
        if at % 2 == 0 {
            other.tell(&["a", "b"], &name).await;
        } else {
            let to = [("a", Delivery::Log), ("b", Delivery::Latest)];
            keep(&store, placed(event(&name, "1"), &to)).await;
        }
        one.bus.fence().await.unwrap();
        assert_eq!(one.names().len(), at + 1, "each once, although two rooms have it");
    }
    let names: Vec<String> = (0..50).map(|at| at.to_string()).collect();
    assert_eq!(one.names(), names);
    assert!(one.bus.health().counts.repeats >= 50);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn a_fence_waits_for_the_reader_and_is_shared() {
    let server = RedisServer::start();
    let node = Node::open(&server.address()).await;
    node.settle().await;
    node.set_held(true);
    let before = node.bus.health().counts.messages_out;
    let passing: Vec<_> = (0..500)
        .map(|_| {
            let bus = node.bus.clone();
            tokio::spawn(async move { bus.fence().await })
        })
        .collect();
    until("a mark is published", || node.bus.health().counts.messages_out > before);
    assert!(passing.iter().all(|passing| !passing.is_finished()));
    node.set_held(false);
    for passing in passing {
        assert_eq!(passing.await.unwrap(), Ok(()));
    }
    let published = node.bus.health().counts.messages_out - before;
    assert!(published < 50, "{published} marks for 500 who wait");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn what_is_told_is_heard_as_it_was_told_and_not_by_whoever_tells() {
    let server = RedisServer::start();
    let address = server.address();
    let (one, other) = (Node::open(&address).await, Node::open(&address).await);
    let everyone = Channel::Everyone(Audience::Logs);
    for node in [&one, &other] {
        node.bus.listen(&[channel("a"), everyone.clone()]).await.unwrap();
    }
    until("the interest is known", || one.bus.is_wanted_elsewhere(&channel("a")));
    let mut message = one.message(&["a", "x"], event("said", r#"{"n":1}"#));
    message.audience = Audience::Logs;
    one.bus.tell(&[everyone, channel("a")], &message).await.unwrap();
    other.settle().await;
    one.settle().await;
    let crate::node::Heard::Event(heard) = other.heard().pop().expect("something is heard") else {
        panic!("{:?}", other.heard());
    };
    assert_eq!(format!("{heard:?}"), format!("{message:?}"));
    assert_eq!((other.names().len(), one.names().len()), (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn what_is_too_much_for_a_reader_is_dropped_and_said() {
    let server = RedisServer::start();
    let address = server.address();
    let (slow, teller) = (Node::open(&address).await, Node::open(&address).await);
    slow.bus.listen(&[channel("a")]).await.unwrap();
    until("the interest is known", || teller.bus.is_wanted_elsewhere(&channel("a")));
    slow.settle().await;
    slow.set_held(true);
    let large = format!("\"{}\"", "x".repeat(2 << 20));
    let message = teller.message(&["a"], event("large", &large));
    for _ in 0..40 {
        teller.bus.tell(&[channel("a")], &message).await.unwrap();
    }
    until("the feed overflows", || slow.bus.health().counts.overflows > 0);
    let before = slow.resumed();
    slow.set_held(false);
    until("the reader is told", || slow.resumed() > before);
    slow.settle().await;
    teller.tell(&["a"], "later").await;
    slow.settle().await;
    assert_eq!(slow.names().last().map(String::as_str), Some("later"));
    assert!(slow.names().len() < 41, "some were dropped");
    let huge = teller.message(&["a"], event("huge", &format!("\"{}\"", "x".repeat(9 << 20))));
    let refused = teller.bus.tell(&[channel("a")], &huge).await.unwrap_err();
    assert!(matches!(refused, bus::BusFault::TooLarge { .. }), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn what_cannot_be_read_is_counted() {
    let server = RedisServer::start();
    let node = Node::open(&server.address()).await;
    node.bus.listen(&[channel("a")]).await.unwrap();
    let own = format!("{{fanfare}}:node:{}", node.bus.node());
    for (channel, message) in [
        ("{fanfare}:room:a", "\u{9}of another time"),
        ("{fanfare}:room:a", ""),
        ("{fanfare}:nodes", "\u{9}"),
        (&own, "\u{1}"),
        // Well up to the event, which is missing.
        ("{fanfare}:room:a", "\u{2}\0\0\0\0\0\0\0\0\0\0\u{1}\0\0\0\0\0\0\0\0\0\0\0\0"),
    ] {
        assert_eq!(server.ask(&["SPUBLISH", channel, message]), "1");
    }
    node.settle().await;
    assert_eq!(node.bus.health().counts.undecodable, 5);
    assert!(node.names().is_empty());
}
