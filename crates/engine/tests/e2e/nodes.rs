//! Several nodes behind a load balancer that knows nothing of sessions: whichever gets a request passes it on.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use engine::{Binary, Builder, Many, NoArgs, One, Reason, Recovery, RecoveryId, Server, Socket};
use http::HeaderValue;
use http::header::CONNECTION;
use serde_json::{Value, json};
use sio_client::{Client, Options, Transports};
use testkit::port::Port;
use testkit::proxy::Proxy;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::peers::{LIMITS, PATIENCE, auth, connect_with, disconnected, event, listen, quiet, until};

const PAUSE: Duration = Duration::from_millis(20);

/// One node: its listeners stand behind proxies, so that it can die without a word.
struct Node {
    server: Server,
    public: Option<Proxy>,
    internal: Option<Proxy>,
}

/// Nodes 1, 2 … that know each other, and a balancer in front of them, which takes connections in turn.
struct Nodes {
    nodes: Vec<Node>,
    balancer: Proxy,
}

type Addresses = Arc<Mutex<BTreeMap<u16, SocketAddr>>>;

impl Nodes {
    async fn start(count: u16) -> Self {
        let addresses = Addresses::default();
        let mut nodes = Vec::new();
        for number in 1..=count {
            let known = addresses.clone();
            let builder = Server::builder()
                .shards(2)
                .node(number)
                .forward(move |node| known.lock().unwrap().get(&node).copied())
                // Each request comes over a connection of its own, and so to another node.
                .headers(|headers, _| drop(headers.insert(CONNECTION, HeaderValue::from_static("close"))));
            let server = speaking(builder, number).build().unwrap();
            let at = ([127, 0, 0, 1], 0).into();
            let public = Proxy::start([server.listen(at).await.unwrap()]).unwrap();
            let internal = Proxy::start([server.listen_internal(at).await.unwrap()]).unwrap();
            addresses.lock().unwrap().insert(number, internal.address());
            nodes.push(Node { server, public: Some(public), internal: Some(internal) });
        }
        let targets: Vec<SocketAddr> =
            nodes.iter().flat_map(|node| &node.public).map(Proxy::address).collect();
        Self { nodes, balancer: Proxy::start(targets).unwrap() }
    }

    fn url(&self) -> String {
        format!("http://{}", self.balancer.address())
    }

    /// Where the nodes are reached.
    fn publics(&self) -> Vec<SocketAddr> {
        self.nodes.iter().flat_map(|node| &node.public).map(Proxy::address).collect()
    }

    /// A client of each node, with the node's number. Who comes through the balancer after them comes to any node.
    async fn clients_everywhere(&self, transports: Transports) -> Vec<(Client, u16)> {
        let publics = self.publics();
        let mut clients = Vec::new();
        for (number, public) in (1..).zip(&publics) {
            self.balancer.set_targets([*public]);
            let client = connect_with(&self.url(), by(transports)).await;
            assert_eq!(node_of(&client).await, number);
            clients.push((client, number));
        }
        self.balancer.set_targets(publics);
        clients
    }

    fn kill(&mut self, number: u16) {
        let node = &mut self.nodes[usize::from(number) - 1];
        (node.public, node.internal) = (None, None);
    }

    async fn sum(&self, read: impl Fn(&engine::Stats) -> u64) -> u64 {
        let mut sum = 0;
        for node in &self.nodes {
            sum += read(&node.server.stats(false).await);
        }
        sum
    }

    async fn shutdown(self) {
        for node in self.nodes {
            node.server.shutdown(Duration::ZERO).await;
        }
    }
}

/// `node` tells the number of the node, `echo` answers what it got, `push` emits bytes.
fn speaking(builder: Builder, number: u16) -> Builder {
    builder.namespace("/", move |ns| {
        ns.on("node", move |_, ()| async move { number });
        ns.on_raw("echo", |socket, event| event.answer_same(socket));
        ns.on("push", |socket: Socket, count: usize| async move {
            socket.emit("pushed", &Binary(vec![7; count].into())).unwrap();
        });
    })
}

fn by(transports: Transports) -> impl FnOnce(&mut Options) {
    move |options| options.transports = transports
}

async fn node_of(client: &Client) -> u16 {
    client.emit_with_ack("node", &NoArgs, PATIENCE).await.unwrap().args().unwrap()
}

async fn echo(client: &Client, value: Value) {
    let answer = client.emit_with_ack("echo", &One(value.clone()), PATIENCE).await.unwrap();
    assert_eq!(answer.values().unwrap(), [value]);
}

/// Asks for bytes until they come as they should.
async fn push(client: &mut Client, count: usize) {
    client.emit("push", &One(count)).await.unwrap();
    let pushed: Binary = event(client, "pushed").await.args().unwrap();
    assert!(pushed.0.len() == count && pushed.0.iter().all(|byte| *byte == 7));
}

#[tokio::test(flavor = "multi_thread")]
async fn polling_sessions_live_although_no_request_finds_their_node_by_itself() {
    let nodes = Nodes::start(3).await;
    let mut clients = nodes.clients_everywhere(Transports::Polling).await;
    for (client, home) in &mut clients {
        let home = *home;
        for number in 0..20 {
            echo(client, json!({"number": number, "text": "ü".repeat(number * 100)})).await;
        }
        push(client, 100_000).await;
        let bytes = Binary(vec![3; 50_000].into());
        let answer = client.emit_with_ack("echo", &One(&bytes), PATIENCE).await.unwrap();
        assert_eq!(answer.args::<Binary>().unwrap().0, bytes.0);
        assert_eq!(node_of(client).await, home, "it is one session");
    }
    assert!(nodes.sum(|it| it.requests_forwarded).await > 50);
    assert_eq!(nodes.sum(|it| it.requests_unreachable).await, 0);
    for (client, _) in clients {
        client.close().await;
    }
    until("sessions are closed", async || nodes.sum(|it| it.held(|it| it.sessions) as u64).await == 0).await;
    nodes.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_that_reaches_another_node_becomes_a_tunnel() {
    let nodes = Nodes::start(3).await;
    let publics = nodes.publics();
    let mut clients = Vec::new();
    for home in [0, 1, 2].repeat(3) {
        // All but the first of its requests come to nodes that do not have the session.
        nodes.balancer.send_next_to(publics[home]);
        nodes.balancer.set_targets([publics[(home + 1) % 3], publics[(home + 2) % 3]]);
        let mut client = connect_with(&nodes.url(), by(Transports::Upgrade)).await;
        for number in 0..20 {
            echo(&client, json!(number)).await;
        }
        push(&mut client, 300_000).await;
        clients.push(client);
    }
    let upgraded =
        async || nodes.sum(|it| it.held(|it| it.sessions_websocket) as u64).await == clients.len() as u64;
    until("all are upgraded", upgraded).await;
    let tunnels = nodes.sum(|it| it.tunnels as u64).await;
    assert_eq!(tunnels, clients.len() as u64, "none has come to the right node");
    for client in &mut clients {
        push(client, 300_000).await;
        echo(client, json!("x".repeat(200_000))).await;
    }
    assert_eq!(nodes.sum(|it| it.requests_unreachable).await, 0);
    for client in clients {
        client.close().await;
    }
    until("tunnels end with their peers", async || nodes.sum(|it| it.tunnels as u64).await == 0).await;
    until("sessions end", async || nodes.sum(|it| it.held(|it| it.sessions) as u64).await == 0).await;
    nodes.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_a_node_that_dies_come_back_on_another() {
    let mut nodes = Nodes::start(2).await;
    let mut lost = nodes.clients_everywhere(Transports::Polling).await;
    let mut unharmed = nodes.clients_everywhere(Transports::WebSocket).await;
    // A polling client may have a request under way at the dying node, wherever its session is.
    lost.extend(unharmed.extract_if(.., |(_, home)| *home == 2));
    nodes.kill(2);
    for (client, _) in &mut lost {
        // As an application does that sends once more what was not answered.
        let back = async {
            loop {
                match client.emit_with_ack("node", &NoArgs, LIMITS[2]).await {
                    Ok(answer) if answer.args::<u16>().unwrap() == 1 => break,
                    Ok(_) | Err(_) => drop(tokio::time::timeout(PAUSE, client.recv()).await),
                }
            }
        };
        assert!(tokio::time::timeout(PATIENCE, back).await.is_ok(), "it is back");
        echo(client, json!("alive")).await;
    }
    for (client, _) in &mut unharmed {
        echo(client, json!("alive")).await;
        assert!(quiet(client).await, "it has noticed nothing");
    }
    nodes.shutdown().await;
}

/// One request over a connection of its own; answers the status, and the rest of the response as text.
async fn request(to: SocketAddr, head: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(to).await.unwrap();
    stream.write_all(format!("{head}\r\nHost: there\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
    let mut response = Vec::new();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut response)).await.unwrap().unwrap();
    let response = String::from_utf8(response).unwrap();
    (response[9..12].parse().unwrap(), response)
}

const UNKNOWN: &str = r#"{"code":1,"message":"Session ID unknown"}"#;

fn poll_of(node: u16) -> String {
    let mut bytes = [9; 15];
    bytes[..2].copy_from_slice(&node.to_be_bytes());
    bytes[2] = 0;
    format!("GET /socket.io/?EIO=4&transport=polling&sid={} HTTP/1.1", engine::Sid::new(bytes))
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_cannot_be_asked_is_as_a_session_that_has_ended() {
    let nobody = Port::hold();
    let closed = nobody.address();
    let server =
        Server::builder().node(1).forward(move |node| (node == 2).then_some(closed)).build().unwrap();
    let address = server.listen(([127, 0, 0, 1], 0).into()).await.unwrap();
    for (node, unreachable) in [(2, 1), (3, 2), (1, 2)] {
        let (status, response) = request(address, &poll_of(node)).await;
        assert_eq!(status, 400);
        assert!(response.ends_with(UNKNOWN), "{response}");
        assert_eq!(server.stats(false).await.requests_unreachable, unreachable);
    }
    assert_eq!(server.stats(false).await.requests_forwarded, 1);
    server.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_internal_listener_answers_for_sessions_of_its_node_and_for_nothing_else() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = asked.clone();
    let nodes = move |node| {
        seen.lock().unwrap().push(node);
        None
    };
    let server = Server::builder().node(1).forward(nodes).build().unwrap();
    let address = server.listen_internal(([127, 0, 0, 1], 0).into()).await.unwrap();
    let (status, response) = request(address, "GET /socket.io/?EIO=4&transport=polling HTTP/1.1").await;
    assert_eq!(status, 403, "{response}");
    assert_eq!(request(address, "GET /health HTTP/1.1").await.0, 404);
    for node in [1, 2] {
        let (status, response) = request(address, &poll_of(node)).await;
        assert_eq!(status, 400);
        assert!(response.ends_with(UNKNOWN), "{response}");
    }
    assert_eq!(*asked.lock().unwrap(), [0; 0], "nothing is passed on twice");
    // Nor is what somebody has passed on to the listener of the public.
    let public = server.listen(([127, 0, 0, 1], 0).into()).await.unwrap();
    let marked = format!("{}\r\nX-Fanfare-Forwarded: 2", poll_of(2));
    assert!(request(public, &marked).await.1.ends_with(UNKNOWN));
    assert_eq!(*asked.lock().unwrap(), [0; 0]);
    server.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_other_node_sees_the_request_as_it_was_and_whose_it_is() {
    let node = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = node.local_addr().unwrap();
    let server = Server::builder()
        .node(1)
        .forward(move |_| Some(address))
        .cors(engine::Cors::new(engine::Origins::Any))
        .build()
        .unwrap();
    let public = server.listen(([127, 0, 0, 1], 0).into()).await.unwrap();
    let head = format!(
        "{}\r\nCookie: a=b\r\nX-Forwarded-For: 192.0.2.1\r\nOrigin: http://page\r\nTE: trailers\r\nKeep-Alive: 1",
        poll_of(7)
    );
    let asking = tokio::spawn(async move { request(public, &head).await });
    let (mut stream, _) = node.accept().await.unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(b"\r\n\r\n") {
        assert_ne!(stream.read_buf(&mut seen).await.unwrap(), 0);
    }
    let seen = String::from_utf8(seen).unwrap().to_lowercase();
    let has = |line: &str| seen.lines().any(|one| one == line);
    assert!(seen.starts_with("get /socket.io/?eio=4&transport=polling&sid="), "{seen}");
    for line in ["host: there", "cookie: a=b", "x-fanfare-forwarded: 1", "origin: http://page"] {
        assert!(has(line), "{line} is not in {seen}");
    }
    assert!(has("x-forwarded-for: 192.0.2.1") && has("x-forwarded-for: 127.0.0.1"), "{seen}");
    for name in ["te:", "keep-alive:", "connection:"] {
        assert!(!seen.lines().any(|line| line.starts_with(name)), "{seen}");
    }
    // A body in pieces, without a length.
    let reply =
        "HTTP/1.1 200 OK\r\nX-Mine: 1\r\nTransfer-Encoding: chunked\r\nKeep-Alive: 5\r\n\r\n2\r\n4h\r\n";
    stream.write_all(reply.as_bytes()).await.unwrap();
    stream.write_all(b"1\r\ni\r\n0\r\n\r\n").await.unwrap();
    let (status, response) = tokio::time::timeout(PATIENCE, asking).await.unwrap().unwrap();
    let response = response.to_lowercase();
    assert_eq!(status, 200);
    assert!(response.contains("x-mine: 1") && response.contains("4h"), "{response}");
    assert_eq!(response.matches("access-control-allow-origin").count(), 1, "{response}");
    assert!(!response.contains("keep-alive: 5"), "{response}");
    server.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_goes_takes_its_request_along() {
    let node = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = node.local_addr().unwrap();
    let server = Server::builder().node(1).forward(move |_| Some(address)).build().unwrap();
    let public = server.listen(([127, 0, 0, 1], 0).into()).await.unwrap();
    let mut peer = TcpStream::connect(public).await.unwrap();
    peer.write_all(format!("{}\r\nHost: there\r\n\r\n", poll_of(7)).as_bytes()).await.unwrap();
    let (mut stream, _) = node.accept().await.unwrap();
    let mut seen = Vec::new();
    assert_ne!(stream.read_buf(&mut seen).await.unwrap(), 0);
    drop(peer);
    let gone = async { while stream.read_buf(&mut seen).await.is_ok_and(|count| count > 0) {} };
    assert!(tokio::time::timeout(PATIENCE, gone).await.is_ok(), "the other node sees it go");
    server.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_is_not_held_up_by_what_waits_for_another_node() {
    let node = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = node.local_addr().unwrap();
    let server = Server::builder().node(1).forward(move |_| Some(address)).build().unwrap();
    let public = server.listen(([127, 0, 0, 1], 0).into()).await.unwrap();
    let asking = tokio::spawn(async move { request(public, &poll_of(7)).await });
    let (silent, _) = node.accept().await.unwrap();
    let stopping = server.shutdown(Duration::ZERO);
    assert!(tokio::time::timeout(PATIENCE, stopping).await.is_ok());
    drop((silent, asking));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_another_node_takes_over_is_given_up_wherever_it_is() {
    let (to, mut reasons) = mpsc::unbounded_channel();
    let server = Server::builder()
        .shards(4)
        .recovery(Recovery::default())
        .namespace("/", move |ns| {
            let to = to.clone();
            ns.on_connect(|socket| async move { socket.join("r") });
            ns.on("secret", |socket: Socket, ()| async move { socket.recovery_id().unwrap().expose() });
            ns.on("fall", |socket: Socket, ()| async move { socket.sever() });
            ns.on_disconnect(move |_, reason, rooms| {
                let _ = to.send((reason, rooms));
                async {}
            });
        })
        .build()
        .unwrap();
    let url = listen(&server).await;
    let connect = async || {
        let change = |options: &mut Options| {
            (options.transports, options.reconnect) = (Transports::WebSocket, None);
            options.auth = auth(json!({"recovery": true}));
        };
        let client = connect_with(&url, change).await;
        let secret = client.emit_with_ack("secret", &NoArgs, PATIENCE).await.unwrap();
        (client, RecoveryId::parse(&secret.args::<String>().unwrap()).unwrap())
    };
    for _ in 0..8 {
        let (mut client, secret) = connect().await;
        assert!(server.release(&secret).await);
        disconnected(&mut client).await;
        assert_eq!(reasons.recv().await, Some((Reason::TakenOver, vec!["r".to_owned()])));
        assert!(!server.release(&secret).await, "it is not here any more");
        let (client, secret) = connect().await;
        client.emit("fall", &Many([0; 0])).await.unwrap();
        assert_eq!(reasons.recv().await.map(|(reason, _)| reason), Some(Reason::TransportClose));
        assert!(server.release(&secret).await);
        assert!(!server.release(&secret).await);
        assert_eq!(server.stats(true).await.held(|it| it.sockets + it.sockets_lost + it.rooms), 0);
    }
    assert!(reasons.try_recv().is_err(), "who was lost has been told of already");
    server.shutdown(Duration::ZERO).await;
}
