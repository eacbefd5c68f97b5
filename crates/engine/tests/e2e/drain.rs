//! What passes through a node that drains, on its way to sessions of another one: who is told to find another way, and when.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use engine::Server;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::peers::until;

const PATIENCE: Duration = Duration::from_secs(30);
/// As long as no test takes.
const HOUR: Duration = Duration::from_secs(3600);

/// One node and where it listens.
struct Node {
    server: Server,
    public: SocketAddr,
}

/// Two that know each other.
async fn nodes() -> [Node; 2] {
    let addresses = Arc::new(Mutex::new(BTreeMap::new()));
    let start = async |number| {
        let known = addresses.clone();
        let builder = Server::builder().shards(2).node(number);
        let builder = builder.forward(move |node| known.lock().unwrap().get(&node).copied());
        let server = builder.namespace("/", |_| ()).build().unwrap();
        let at = ([127, 0, 0, 1], 0).into();
        let internal = server.listen_internal(at).await.unwrap();
        addresses.lock().unwrap().insert(number, internal);
        Node { public: server.listen(at).await.unwrap(), server }
    };
    [start(1).await, start(2).await]
}

impl Node {
    /// Begins to drain, over a time that does not end, or a short one.
    fn drain(&self, within: Duration) -> JoinHandle<()> {
        let server = self.server.clone();
        tokio::spawn(async move { server.drain(within).await })
    }

    async fn tunnels(&self) -> usize {
        self.server.stats(false).await.tunnels
    }
}

/// A connection that is kept.
struct Peer(TcpStream);

impl Peer {
    async fn of(node: &Node) -> Self {
        Self(TcpStream::connect(node.public).await.unwrap())
    }

    async fn send(&mut self, method: &str, query: &str, more: &str) {
        let head = format!("{method} /socket.io/?EIO=4&{query} HTTP/1.1\r\nHost: there\r\n{more}\r\n");
        self.0.write_all(head.as_bytes()).await.unwrap();
    }

    /// The head of a response in lower case, and its body if its length is told.
    async fn response(&mut self) -> (String, String) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.byte().await.expect("a response"));
        }
        let head = String::from_utf8(head).unwrap().to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
        self.0.read_exact(&mut body).await.unwrap();
        (head, String::from_utf8(body).unwrap())
    }

    /// The next byte; `None` when the connection has ended.
    async fn byte(&mut self) -> Option<u8> {
        let mut byte = [0];
        let read = tokio::time::timeout(PATIENCE, self.0.read(&mut byte)).await.expect("it says something");
        (read.unwrap_or(0) == 1).then_some(byte[0])
    }

    /// Opens a polling session, and answers its id.
    async fn open(&mut self) -> String {
        self.send("GET", "transport=polling", "").await;
        let (_, body) = self.response().await;
        let (_, rest) = body.split_once(r#""sid":""#).expect("an open packet");
        rest.split('"').next().unwrap().to_owned()
    }

    async fn ask_upgrade(&mut self, sid: &str) -> String {
        let more = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        self.send("GET", &format!("transport=websocket&sid={sid}"), more).await;
        self.response().await.0
    }

    /// Sends a text frame, masked with zeros.
    async fn say(&mut self, text: &str) {
        let mut frame = vec![0x81, 0x80 | u8::try_from(text.len()).unwrap(), 0, 0, 0, 0];
        frame.extend_from_slice(text.as_bytes());
        self.0.write_all(&frame).await.unwrap();
    }

    /// Reads a text frame, and passes over pings.
    async fn hear(&mut self) -> String {
        loop {
            assert_eq!(self.byte().await, Some(0x81));
            let mut text = vec![0; usize::from(self.byte().await.unwrap())];
            self.0.read_exact(&mut text).await.unwrap();
            if text != b"2" {
                return String::from_utf8(text).unwrap();
            }
        }
    }

    /// A WebSocket of a session of `home` that goes through `way`.
    async fn through(way: &Node, home: &Node) -> Self {
        let sid = Self::of(home).await.open().await;
        let mut peer = Self::of(way).await;
        assert!(peer.ask_upgrade(&sid).await.starts_with("http/1.1 101 "));
        peer.say("2probe").await;
        assert_eq!(peer.hear().await, "3probe");
        peer.say("5").await;
        peer.say("40").await;
        assert!(peer.hear().await.starts_with("40{"));
        peer
    }

    /// Whether it can still join a namespace, an answer that only a living session gives.
    async fn is_served(&mut self) -> bool {
        self.say("40/nowhere,").await;
        self.hear().await.starts_with("44/nowhere,")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_get_that_waits_for_another_node_is_answered_before_the_way_there_ends() {
    let [home, way] = nodes().await;
    let mut direct = Peer::of(&home).await;
    let sid = direct.open().await;
    let poll = format!("transport=polling&sid={sid}");
    let mut passed = Peer::of(&way).await;
    passed.send("GET", &poll, "").await;
    until("it is passed on", async || way.server.stats(false).await.requests_forwarded == 1).await;
    let draining = way.drain(HOUR);
    let (head, body) = passed.response().await;
    assert!(head.starts_with("http/1.1 200 ") && head.contains("connection: close\r\n"), "{head}");
    assert_eq!((body.as_str(), passed.byte().await), ("6", None));
    draining.await.unwrap();
    way.server.shutdown(Duration::ZERO).await;
    // The session has lost nothing but a way.
    direct.send("POST", &poll, "Content-Length: 2\r\n\r\n40").await;
    assert_eq!(direct.response().await.1, "ok");
    direct.send("GET", &poll, "").await;
    assert!(direct.response().await.1.starts_with("40{"));
    home.server.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tunnels_end_in_turn_with_the_sessions_of_the_node_that_drains() {
    let [home, way] = nodes().await;
    let mut oldest = Peer::through(&way, &home).await;
    let mut newest = Peer::through(&way, &home).await;
    until("tunnels are counted", async || way.tunnels().await == 2).await;
    // It lets one go at once, the other in half an hour.
    let draining = way.drain(HOUR);
    assert_eq!(oldest.byte().await, None);
    assert!(newest.is_served().await);
    assert_eq!(way.tunnels().await, 1);

    // No new one begins: it would not last, and a proxy knows a better way.
    let sid = Peer::of(&home).await.open().await;
    let mut late = Peer::of(&way).await;
    let refused = late.ask_upgrade(&sid).await;
    assert!(refused.starts_with("http/1.1 503 ") && refused.contains("retry-after: 1\r\n"), "{refused}");
    let mut elsewhere = Peer::of(&home).await;
    assert!(elsewhere.ask_upgrade(&sid).await.starts_with("http/1.1 101 "));

    draining.abort();
    way.drain(Duration::ZERO).await.unwrap();
    assert_eq!(newest.byte().await, None);
    home.server.shutdown(Duration::ZERO).await;
    way.server.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_drains_lets_its_sessions_and_tunnels_go_one_after_the_other() {
    const EACH: usize = 10;
    let [home, way] = nodes().await;
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    for nth in 0..2 * EACH {
        let is_tunnel = nth % 2 == 0;
        let mut peer = Peer::through(&way, if is_tunnel { &home } else { &way }).await;
        let tell = tell.clone();
        tokio::spawn(async move {
            let mut rest = Vec::new();
            let _ = peer.0.read_to_end(&mut rest).await;
            tell.send(is_tunnel)
        });
    }
    until("tunnels are counted", async || way.tunnels().await == EACH).await;
    // One in each of the steps.
    way.drain(Duration::from_secs(1)).await.unwrap();
    let mut order = Vec::new();
    for _ in 0..2 * EACH {
        order.push(tokio::time::timeout(PATIENCE, told.recv()).await.unwrap().unwrap());
    }
    let early = order[..EACH].iter().filter(|is_tunnel| **is_tunnel).count();
    assert!((2..=EACH - 2).contains(&early), "{order:?}");
    assert_eq!((way.tunnels().await, home.server.stats(false).await.held(|it| it.sessions)), (0, 0));
    home.server.shutdown(Duration::ZERO).await;
    way.server.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_to_a_node_that_drains_close_after_each_answer_unless_they_become_websockets() {
    let [home, way] = nodes().await;
    let (mut kept, mut upgrading) = (Peer::of(&way).await, Peer::of(&way).await);
    let sids = [kept.open().await, upgrading.open().await];
    kept.send("PUT", "", "").await;
    assert!(!kept.response().await.0.contains("connection: close"));
    let draining = way.drain(HOUR);
    until("one of two has gone", async || way.server.stats(false).await.held(|it| it.sessions) == 1).await;
    kept.send("PUT", "", "").await;
    assert!(kept.response().await.0.contains("connection: close\r\n"));
    assert_eq!(kept.byte().await, None);
    let mut switched = 0;
    for sid in sids {
        let head = Peer::of(&way).await.ask_upgrade(&sid).await;
        switched +=
            usize::from(head.starts_with("http/1.1 101 ") && head.contains("connection: upgrade\r\n"));
    }
    assert_eq!(switched, 1, "the one that is left");
    draining.abort();
    for node in [home, way] {
        node.server.shutdown(Duration::ZERO).await;
    }
}
