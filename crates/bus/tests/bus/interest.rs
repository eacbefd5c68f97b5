//! Who wants what: what nobody wants is not told, and what somebody wants comes to nobody else.

use bus::Channel;
use hub::event::Audience;
use testkit::contract::sample::{event, logged};
use testkit::redis::{RedisServer, until};

use crate::node::{Node, channel, keep, store};

/// How often something was published on this server.
fn published(server: &RedisServer) -> u64 {
    let stats = server.ask(&["INFO", "commandstats"]);
    let line = stats.lines().find_map(|line| line.strip_prefix("cmdstat_spublish:calls="));
    line.and_then(|rest| rest.split(',').next()).map_or(0, |calls| calls.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn telling_what_nobody_wants_costs_no_command() {
    let server = RedisServer::start();
    let address = server.address();
    let (one, other) = (Node::open(&address).await, Node::open(&address).await);
    // Its own interest is nobody else's.
    one.bus.listen(&[channel("a")]).await.unwrap();
    one.settle().await;
    let tell_many = async || {
        let before = published(&server);
        for _ in 0..1_000 {
            one.tell(&["a", "b"], "e").await;
        }
        published(&server) - before
    };
    // Marks are published all the while, a few in a second.
    let count = tell_many().await;
    assert!(count < 300, "{count} commands for what nobody wants");
    assert!(!one.bus.is_wanted_elsewhere(&channel("a")));
    other.bus.listen(&[channel("b")]).await.unwrap();
    until("the interest is known", || one.bus.is_wanted_elsewhere(&channel("b")));
    assert!(tell_many().await >= 1_000);
    other.settle().await;
    assert_eq!(other.names().len(), 1_000);
    other.bus.unlisten(&[channel("b")]);
    until("it is known that nobody listens", || {
        let unwanted = server.ask(&["PUBSUB", "SHARDNUMSUB", "{fanfare}:room:b"]);
        unwanted.ends_with(" 0")
    });
    one.tell(&["b"], "e").await;
    assert!(!one.bus.is_wanted_elsewhere(&channel("b")));
    let count = tell_many().await;
    assert!(count < 300, "{count} commands for what nobody wants any more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn a_node_that_comes_learns_who_listens_and_is_told_of_others() {
    let server = RedisServer::start_with(&["--save", ""]);
    let address = server.address();
    // A prefix that means something in patterns.
    let open = async || Node::open_with(&address, |options| options.prefix = "a*[b]?".to_owned()).await;
    let first = open().await;
    let channels = [channel("a"), Channel::Everyone(Audience::Ws)];
    first.bus.listen(&channels).await.unwrap();
    let foreign = Node::open(&address).await;
    foreign.bus.listen(&[channel("foreign")]).await.unwrap();
    let second = open().await;
    for wanted in &channels {
        assert!(second.bus.is_wanted_elsewhere(wanted), "{wanted:?}");
    }
    assert!(!second.bus.is_wanted_elsewhere(&channel("foreign")));
    assert!(!second.bus.is_wanted_elsewhere(&channel("b")));
    second.tell(&["a"], "e").await;
    first.settle().await;
    assert_eq!((first.names().len(), foreign.names().len()), (1, 0));
    assert_eq!(second.bus.nodes().len(), 2, "another deployment is another cluster");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn interest_is_known_again_after_a_cut() {
    let server = RedisServer::start();
    let address = server.address();
    let (one, other) = (Node::open(&address).await, Node::open(&address).await);
    one.bus.listen(&[channel("a")]).await.unwrap();
    for _ in 0..5 {
        let before = (one.resumed(), other.resumed());
        let killed: u32 = server.ask(&["CLIENT", "KILL", "TYPE", "pubsub"]).parse().unwrap();
        assert!(killed >= 1);
        until("both are connected again", || one.resumed() > before.0 && other.resumed() > before.1);
        one.settle().await;
        other.settle().await;
        assert!(other.bus.is_wanted_elsewhere(&channel("a")));
        assert!(!other.bus.is_wanted_elsewhere(&channel("b")));
        let heard = one.names().len();
        other.tell(&["a", "b"], "e").await;
        one.settle().await;
        assert_eq!(one.names().len(), heard + 1);
    }
    assert_eq!(one.bus.listening(), [channel("a")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn of_sixteen_nodes_only_the_one_that_listens_hears() {
    let server = RedisServer::start();
    let address = server.address();
    let store = store(&address).await;
    let mut nodes = Vec::new();
    for _ in 0..16 {
        nodes.push(Node::open(&address).await);
    }
    nodes[0].bus.listen(&[channel("a")]).await.unwrap();
    until("all know", || nodes[1..].iter().all(|node| node.bus.is_wanted_elsewhere(&channel("a"))));
    for node in &nodes[1..] {
        for _ in 0..10 {
            node.tell(&["a", "b"], "told").await;
        }
        keep(&store, logged("a", event("kept", "1"))).await;
    }
    for node in &nodes {
        node.settle().await;
    }
    assert_eq!(nodes[0].names().len(), 15 * 11);
    for node in &nodes[1..] {
        assert!(node.names().is_empty());
        assert_eq!(node.bus.health().counts.messages_in, 0);
        assert_eq!(node.bus.nodes().len(), 16);
    }
}
