//! Redis behind Sentinels and in a Cluster.

use testkit::contract::sample::{event, logged};
use testkit::redis::{RedisCluster, RedisSentinels, until};

use crate::node::{Node, channel, keep, store};

/// What is kept and what is not reaches both nodes.
async fn check(nodes: [&Node; 2], store: &store_redis::RedisStore, name: &str) {
    for node in nodes {
        node.settle().await;
    }
    until("both know what the other wants", || {
        nodes.iter().all(|node| node.bus.is_wanted_elsewhere(&channel("a")))
    });
    keep(store, logged("a", event(&format!("kept {name}"), "1"))).await;
    nodes[0].tell(&["a"], &format!("told {name}")).await;
    for node in nodes {
        node.settle().await;
        assert!(node.names().contains(&format!("kept {name}")), "{:?}", node.names());
    }
    assert!(nodes[1].names().contains(&format!("told {name}")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn a_cluster_may_move_the_slot() {
    let cluster = RedisCluster::start();
    let address = cluster.address();
    let (one, other, store) = (Node::open(&address).await, Node::open(&address).await, store(&address).await);
    for node in [&one, &other] {
        node.bus.listen(&[channel("a")]).await.unwrap();
    }
    check([&one, &other], &store, "before").await;
    for at in 2..4 {
        cluster.move_slot_of("{fanfare}:store");
        until("both have moved", || one.resumed() >= at && other.resumed() >= at);
        check([&one, &other], &store, &at.to_string()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn a_master_may_be_replaced() {
    let mut servers = RedisSentinels::start();
    let address = servers.address();
    let (one, other, store) = (Node::open(&address).await, Node::open(&address).await, store(&address).await);
    for node in [&one, &other] {
        node.bus.listen(&[channel("a")]).await.unwrap();
    }
    check([&one, &other], &store, "before").await;
    servers.first.kill();
    until("both have found the new master", || one.resumed() >= 2 && other.resumed() >= 2);
    check([&one, &other], &store, "after").await;
    assert_eq!(one.bus.nodes().len(), 2);
}
