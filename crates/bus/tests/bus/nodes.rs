//! Who is there: leases, and what becomes of a node that leaves, dies, or is forgotten.

use std::collections::BTreeSet;
use std::time::Duration;

use bus::{BusFault, NodeId};
use testkit::contract::sample::event;
use testkit::redis::{RedisServer, until};

use crate::node::{Heard, Node, channel};

/// Long enough for a machine so busy that it renews seconds late.
const LEASE: Duration = Duration::from_secs(8);

async fn open(address: &str) -> Node {
    Node::open_with(address, |options| options.lease = LEASE).await
}

fn lease_of(node: NodeId) -> String {
    format!("{{fanfare}}:lease:{node}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn nodes_know_each_other_and_who_leaves_is_gone_at_once() {
    let server = RedisServer::start();
    let address = server.address();
    let reach = "127.0.0.1:4001".parse().unwrap();
    let one = Node::open(&address).await;
    let other = Node::open_with(&address, |options| {
        options.reach = Some(reach);
        options.version = "9.8.7".into();
        // It would be there for an hour if it did not say that it leaves.
        options.lease = Duration::from_secs(3_600);
    })
    .await;
    assert_ne!(one.bus.node(), other.bus.node());
    let id = other.bus.node();
    for (node, of) in [(&one, id), (&other, one.bus.node())] {
        until("both hear of each other", || {
            node.saw(|heard| matches!(heard, Heard::Came(came) if *came == of))
        });
    }
    let ids: BTreeSet<NodeId> = [one.bus.node(), id].into();
    for node in [&one, &other] {
        let nodes = node.bus.nodes();
        assert_eq!(nodes.iter().map(|info| info.id).collect::<BTreeSet<_>>(), ids);
        let info = nodes.iter().find(|info| info.id == id).unwrap();
        assert_eq!((info.reach, &*info.version), (Some(reach), "9.8.7"));
    }
    other.bus.close().await;
    until("the second is gone", || one.has_seen_go(id));
    assert_eq!(one.bus.nodes().len(), 1);
    assert_eq!(server.ask(&["EXISTS", &lease_of(id)]), "0");
    until("its feed ends", || other.is_ended());
    assert_eq!(other.bus.listen(&[channel("a")]).await, Err(BusFault::Closed));
    assert_eq!(other.bus.fence().await, Err(BusFault::Closed));
    let told = other.bus.tell(&[channel("a")], &other.message(&["a"], event("e", "1"))).await;
    assert_eq!(told, Err(BusFault::Closed));
    other.bus.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn a_dead_node_is_gone_when_its_lease_has_ended_and_not_before() {
    let server = RedisServer::start();
    let address = server.address();
    let (one, steady, dead) = (open(&address).await, open(&address).await, open(&address).await);
    let id = dead.bus.node();
    // Longer than a lease: renewing keeps all there.
    tokio::time::sleep(LEASE + LEASE / 2).await;
    assert!(!one.saw(|heard| matches!(heard, Heard::Gone(_))));
    drop(dead);
    let mut had_lease = true;
    until("the dead node is gone", || {
        let is_gone = one.has_seen_go(id);
        // Looked at after the news, so that a lease that is there now was there then.
        had_lease = server.ask(&["EXISTS", &lease_of(id)]) == "1";
        assert!(!(is_gone && had_lease), "it has its lease, and is thought to be gone");
        is_gone
    });
    assert!(!had_lease);
    assert!(!one.has_seen_go(steady.bus.node()));
    assert_eq!(one.bus.nodes().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn what_redis_forgets_is_nobodys_death() {
    let server = RedisServer::start();
    let address = server.address();
    let (one, other) = (open(&address).await, open(&address).await);
    assert_eq!(server.ask(&["FLUSHALL"]), "OK");
    let leases = [&one, &other].map(|node| lease_of(node.bus.node()));
    until("both have registered again", || leases.iter().all(|lease| server.ask(&["EXISTS", lease]) == "1"));
    tokio::time::sleep(LEASE).await;
    for node in [&one, &other] {
        assert!(!node.saw(|heard| matches!(heard, Heard::Gone(_))));
        assert_eq!(node.bus.nodes().len(), 2);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn whoever_loses_their_number_stops() {
    let server = RedisServer::start();
    let mut node = open(&server.address()).await;
    assert!(!node.bus.health().is_superseded);
    assert_eq!(server.ask(&["SET", &lease_of(node.bus.node()), "somebody else"]), "OK");
    until("the feed ends", || node.is_ended());
    assert!(node.requests.as_mut().unwrap().next().await.is_none());
    assert!(node.bus.health().is_superseded);
    assert_eq!(node.bus.listen(&[channel("a")]).await, Err(BusFault::Closed));
}
