//! Silence, slowness, and no Redis at all: they are noticed, said, and over when they are over.

use std::time::Duration;

use bus::{Bus, BusFault, DeafCause, Options};
use bytes::Bytes;
use store_redis::Address;
use testkit::proxy::{Proxy, Silence};
use testkit::redis::{RedisServer, until};

use crate::node::{Node, channel};

/// A node that reaches the server through a proxy, and gives a silent connection up soon.
async fn behind_proxy(server: &RedisServer) -> (Proxy, Node) {
    let proxy = Proxy::start([([127, 0, 0, 1], server.port()).into()]).unwrap();
    let address = format!("redis://{}", proxy.address());
    let node = Node::open_with(&address, |options| {
        options.terms.command_timeout = Duration::from_secs(8);
        options.terms.connect_timeout = Duration::from_secs(8);
    })
    .await;
    (proxy, node)
}

fn why(node: &Node) -> Option<DeafCause> {
    node.bus.health().deaf.map(|deaf| deaf.why)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn a_connection_that_falls_silent_is_noticed_and_replaced() {
    let server = RedisServer::start();
    let (proxy, node) = behind_proxy(&server).await;
    let other = Node::open(&server.address()).await;
    node.bus.listen(&[channel("a")]).await.unwrap();
    node.settle().await;
    until("it hears itself", || why(&node).is_none() && node.bus.health().canary_age.is_some());
    // Whoever subscribes hears nothing; publishing works.
    proxy.set_silence(Silence::WhoeverSaid("SSUBSCRIBE"));
    until("nothing comes, and it is noticed", || why(&node).is_some());
    until("it is given up", || node.bus.health().counts.cuts > 0);
    // That it is silent is the first thing known; that no other connection can be made is found out later.
    assert!(matches!(node.bus.listen(&[channel("b")]).await, Err(BusFault::Down(_))));
    let before = node.resumed();
    proxy.set_silence(Silence::Nobody);
    until("it is heard again", || node.resumed() > before && node.bus.health().deaf.is_none());
    // The wish of the time without a connection is fulfilled, too.
    until("its wishes are known", || other.bus.is_wanted_elsewhere(&channel("b")));
    other.tell(&["a", "b"], "e").await;
    node.settle().await;
    assert_eq!(node.names(), ["e"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn a_way_to_redis_that_falls_silent_is_noticed() {
    let server = RedisServer::start();
    let (proxy, node) = behind_proxy(&server).await;
    let other = Node::open(&server.address()).await;
    until("they know each other", || node.bus.nodes().len() == 2);
    node.settle().await;
    proxy.set_silence(Silence::Everybody);
    // A question ends when its patience does, and not when Redis has been given up.
    let answers = node.bus.ask_all(Bytes::new(), Duration::ZERO).await;
    assert_eq!(answers.missing, [other.bus.node()]);
    let unanswered = node.bus.ask(other.bus.node(), Bytes::new(), Duration::ZERO).await;
    assert_eq!(unanswered, Err(BusFault::NoAnswer));
    until("it is noticed", || matches!(why(&node), Some(DeafCause::NotConnected(_))));
    proxy.set_silence(Silence::Nobody);
    until("it is over", || node.bus.health().deaf.is_none());
    node.settle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn a_reader_that_does_not_read_is_noticed_and_keeps_its_connection() {
    let server = RedisServer::start();
    let node = Node::open(&server.address()).await;
    node.settle().await;
    node.set_held(true);
    until("it is noticed", || why(&node) == Some(DeafCause::SlowConsumer));
    assert!(node.bus.health().is_connected);
    node.set_held(false);
    until("it is over", || node.bus.health().deaf.is_none());
    assert_eq!((node.bus.health().counts.cuts, node.resumed()), (0, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn without_redis_it_is_said_at_once_and_over_when_it_is_back() {
    let mut server = RedisServer::start();
    let address = server.address();
    let node = Node::open(&address).await;
    node.bus.listen(&[channel("a")]).await.unwrap();
    node.settle().await;
    server.kill();
    until("it is noticed", || matches!(why(&node), Some(DeafCause::NotConnected(_))));
    assert!(!node.bus.health().is_connected);
    assert!(matches!(node.bus.listen(&[channel("b")]).await, Err(BusFault::Down(_))));
    assert!(matches!(node.bus.fence().await, Err(BusFault::Down(_))));
    assert!(node.bus.is_wanted_elsewhere(&channel("x")), "who wants what is not known");
    let refused = Bus::open(Options::new(Address::parse(&address).unwrap(), "late")).await;
    assert!(refused.is_err());
    server.restart();
    until("it is back", || node.bus.health().is_connected && node.resumed() >= 2);
    node.settle().await;
    until("it hears itself", || why(&node).is_none());
    let other = Node::open(&address).await;
    for wanted in ["a", "b"] {
        assert!(other.bus.is_wanted_elsewhere(&channel(wanted)), "{wanted}");
    }
    other.tell(&["a", "b"], "e").await;
    node.settle().await;
    assert_eq!(node.names(), ["e"]);
    until("both know each other", || node.bus.nodes().len() == 2 && other.bus.nodes().len() == 2);
}
