//! Our side of the conversation with a server in Node: what we ask it and have it do, with either of its adapters.

use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use adapter::{AckNews, Data, Doing, Kind, Local, Options, Opts, Peer, RemoteSocket};
use serde_json::{Value, json};
use store_redis::{Address, Connector};
use testkit::redis::RedisServer;
use tokio::sync::mpsc::UnboundedSender;

use crate::broker::wait;
use crate::installed::javascript_of;

const LONG: Duration = Duration::from_secs(180);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "starts redis-server, installs socket.io and its adapter with npm"]
async fn a_classic_server_is_asked_and_told() {
    ask_and_tell("classic", Kind::Classic).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "starts redis-server, installs socket.io and its adapter with npm"]
async fn a_sharded_server_is_asked_and_told() {
    ask_and_tell("sharded", Kind::Sharded).await;
}

async fn ask_and_tell(name: &str, kind: Kind) {
    let redis = RedisServer::start();
    let (peer, sibling) = (peer(&redis, kind), peer(&redis, kind));
    let mut node = NodeServer::start(&redis, name);
    let id = node.next()[1].as_str().expect("an id").to_owned();
    wait("it is counted", || [&peer, &sibling].iter().all(|peer| peer.report().others["/"] == 1));

    let args = vec![Data::text("told"), Data::Int(7), Data::Bytes(vec![1, 2].into())];
    peer.mirror("/", &Opts::to(&["nobody"]), vec![Data::text("lost")]);
    peer.mirror("/", &Opts::to(&["blue"]), args.clone());
    let buffer = json!({ "type": "Buffer", "data": [1, 2] });
    assert_eq!(node.next(), json!(["told", 7, buffer]));
    peer.mirror("/", &Opts::to(&["blue", "red"]), vec![Data::text("several")]);
    let except = Opts { except: vec!["blue".into()], ..Opts::default() };
    peer.mirror("/", &except, vec![Data::text("not for them")]);
    peer.mirror("/", &Opts::to(&[&id]), vec![Data::text("own")]);
    assert_eq!(node.next(), json!(["several"]));
    assert_eq!(node.next(), json!(["own"]));

    let sockets = peer.fetch("/", &Opts::default()).await;
    assert_eq!((sockets.found.len(), sockets.missing), (1, 0), "the sibling has answered, with nothing");
    let [RemoteSocket { id: found, handshake, rooms, data }] = &sockets.found[..] else { unreachable!() };
    assert_eq!((found, data), (&id, &json!({ "name": "ann" })));
    assert!(rooms.contains(&"blue".to_owned()) && handshake["headers"].is_object(), "{rooms:?} {handshake}");
    peer.join("/", &Opts::to(&["blue"]), &["vip".to_owned()]);
    let members = async |room: &str| peer.fetch("/", &Opts::to(&[room])).await.found.len();
    while members("vip").await == 0 {}
    let known = peer.rooms("/").await;
    assert_eq!(known.found.contains(&"vip".to_owned()), kind == Kind::Classic, "{known:?}");
    peer.leave("/", &Opts::to(&["blue"]), &["vip".to_owned()]);
    while members("vip").await > 0 {}

    let poll = vec![Data::text("poll"), Data::Int(41)];
    let acks = peer.broadcast_with_acks("/", &Opts::default(), poll.clone(), LONG).await;
    assert_eq!((acks.found, acks.missing), (vec![Data::Int(42)], 0));
    let acks = peer.broadcast_with_acks("/", &Opts::to(&["nobody"]), poll, LONG).await;
    assert_eq!((acks.found.len(), acks.missing), (0, 0));
    let silent = vec![Data::text("silent")];
    let acks = peer.broadcast_with_acks("/", &Opts::default(), silent, Duration::from_secs(2)).await;
    assert_eq!((acks.found.len(), acks.missing), (0, 1));

    peer.server_side("/", vec![Data::text("reload"), Data::Int(5)]);
    assert_eq!(node.next(), json!(["reload", 5]));
    let reload = vec![Data::text("reload"), Data::Int(1)];
    let answers = peer.server_side_with_ack("/", reload).await;
    assert_eq!((answers.missing, answers.found.len()), (0, 2), "of the sibling, too: {:?}", answers.found);
    assert!(answers.found.contains(&Data::Int(2)));
    let unknown = peer.fetch("/unknown", &Opts::default()).await;
    assert!(unknown.found.is_empty());

    peer.disconnect("/", &Opts::to(&["blue"]), true);
    assert_eq!(node.next()[0], "gone");
    assert_eq!(peer.report().undecodable, 0, "{:?}", peer.report());
    assert_eq!(sibling.report().undecodable, 0, "{:?}", sibling.report());
}

fn peer(redis: &RedisServer, kind: Kind) -> Peer {
    let address = Address::parse(&redis.address()).expect("an address");
    let options = Options {
        connector: Connector::new(address, None, LONG),
        kind,
        prefix: "socket.io".to_owned(),
        namespaces: vec!["/".to_owned()],
        python: None,
        patience: LONG,
    };
    Peer::start(options, Arc::new(Nobody))
}

/// A server without sockets.
struct Nobody;

impl Local for Nobody {
    fn may_have(&self, _: &str, _: Option<&str>) -> bool {
        false
    }

    fn broadcast<'a>(&'a self, _: &'a str, _: &'a Opts, _: &'a [Data]) -> Doing<'a, ()> {
        nothing(())
    }

    fn broadcast_with_acks<'a>(
        &'a self,
        _: &'a str,
        _: &'a Opts,
        _: &'a [Data],
        _: Duration,
        news: UnboundedSender<AckNews>,
    ) -> Doing<'a, ()> {
        let _ = news.send(AckNews::Count(0));
        nothing(())
    }

    fn join<'a>(&'a self, _: &'a str, _: &'a Opts, _: &'a [String]) -> Doing<'a, ()> {
        nothing(())
    }

    fn leave<'a>(&'a self, _: &'a str, _: &'a Opts, _: &'a [String]) -> Doing<'a, ()> {
        nothing(())
    }

    fn disconnect<'a>(&'a self, _: &'a str, _: &'a Opts, _: bool) -> Doing<'a, ()> {
        nothing(())
    }

    fn fetch<'a>(&'a self, _: &'a str, _: &'a Opts) -> Doing<'a, Vec<RemoteSocket>> {
        nothing(Vec::new())
    }

    fn rooms<'a>(&'a self, _: &'a str) -> Doing<'a, Vec<String>> {
        nothing(Vec::new())
    }

    fn server_side<'a>(&'a self, _: &'a str, _: &'a [Data]) -> Doing<'a, Data> {
        nothing(Data::Null)
    }
}

fn nothing<'a, T: Send + 'a>(value: T) -> Doing<'a, T> {
    Box::pin(std::future::ready(value))
}

/// A server in Node; it ends when this does.
pub(crate) struct NodeServer {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl NodeServer {
    /// With this adapter; its first line tells its socket's id.
    pub(crate) fn start(redis: &RedisServer, kind: &str) -> Self {
        let folder = javascript_of("adapter-js");
        let mut node = Command::new("node");
        node.current_dir(&folder).args(["server.mjs", &redis.address(), kind]);
        let mut child = node.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("node starts");
        let lines = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
        Self { child, lines }
    }

    /// What its socket gets next: the name, and the arguments.
    pub(crate) fn next(&mut self) -> Value {
        let line = self.lines.next().expect("a line").expect("text");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }
}

impl Drop for NodeServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
