//! Against a server that says what a test tells it to, WebSocket frame by frame.

use serde_json::{Value, json};
use sio_client::args::{Binary, Many, NoArgs, One};
use sio_client::{
    AckFault, Client, ConnectFault, DisconnectReason, EngineFault, Event, Notice, Options, Reconnect,
    Transports,
};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use ws_proto::{Decoder, Message, OpCode, Role, Rules, Step, accept_key, encode_frame};

/// How long anything may take that should happen at once: the machine may be busy, or stand still.
const PATIENCE: Duration = Duration::from_secs(120);
const OPEN: &str =
    r#"0{"sid":"e","upgrades":[],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}"#;
const SHORT: &str =
    r#"0{"sid":"e","upgrades":[],"pingInterval":2000,"pingTimeout":2000,"maxPayload":1000000}"#;

#[tokio::test]
async fn what_was_emitted_is_sent_before_closing() {
    let (server, mut client, mut peer) = joined(options()).await;
    for i in 0..20 {
        client.emit("e", &Many((i, Binary::from(vec![i])))).await.expect("can be sent");
    }
    let closing = tokio::spawn(async move {
        assert!(matches!(recv(&mut client).await, Notice::Connected { .. }));
        client.close().await;
    });
    for i in 0..20 {
        peer.expect(&format!(r#"451-["e",{i},{{"_placeholder":true,"num":0}}]"#)).await;
        assert_eq!(peer.recv().await, Frame::Binary(vec![i]));
    }
    peer.expect("41").await;
    assert_eq!(peer.recv().await, Frame::Close);
    drop(peer);
    timeout(PATIENCE, closing).await.expect("the server has closed, too").expect("no panic");
    drop(server);
}

#[tokio::test]
async fn closing_does_not_wait_for_a_dead_server() {
    let (_server, client, _peer) = joined(options()).await;
    // The bound is 2 s.
    timeout(PATIENCE, client.close()).await.expect("it gives up");
}

#[tokio::test]
async fn a_dropped_client_leaves() {
    let (_server, client, mut peer) = joined(options()).await;
    drop(client);
    peer.expect("41").await;
    assert_eq!(peer.recv().await, Frame::Close);
}

#[tokio::test]
async fn silence_ends_a_connection_and_another_is_made() {
    let (server, connecting) = connect(options()).await;
    let mut peer = server.accept().await;
    peer.send(SHORT).await;
    peer.expect("40").await;
    peer.send(r#"40{"sid":"a"}"#).await;
    let mut client = connecting.await.expect("no panic").expect("let in");
    assert!(matches!(recv(&mut client).await, Notice::Connected { .. }));
    // Longer than the silence that it bears, and each time far from it.
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        peer.send("2").await;
        peer.expect("3").await;
    }
    match recv(&mut client).await {
        Notice::Disconnected { reason: DisconnectReason::PingTimeout, will_reconnect: true } => {}
        other => panic!("{other:?}"),
    }
    let _peer = server.accept_joined(r#"{"sid":"b"}"#).await;
    assert!(matches!(recv(&mut client).await, Notice::Connected { sid, is_recovered: false } if sid == "b"));
}

#[tokio::test]
async fn bytes_that_are_no_packets_end_a_connection() {
    // Each is what comes after the first CONNECT, in a connection of its own.
    let scripts: [&[Frame]; 10] = [
        &[Frame::text("4")],
        &[Frame::text("")],
        &[Frame::text("9")],
        &[Frame::text("42[\"open")],
        &[Frame::text("42[\"connect\"]")],
        &[Frame::text("bAA=A")],
        &[Frame::text(OPEN)],
        &[Frame::Binary(vec![1])],
        &[Frame::text(r#"451-["e"]"#), Frame::text(r#"42["e"]"#)],
        &[Frame::text(r#"451-["e",{"_placeholder":true,"num":1}]"#), Frame::Binary(vec![])],
    ];
    let (server, mut client, mut peer) = joined(options()).await;
    for script in scripts {
        assert!(matches!(recv(&mut client).await, Notice::Connected { .. }));
        peer.send(r#"42["fine"]"#).await;
        for frame in script {
            peer.send_frame(frame).await;
        }
        assert_eq!(event(&mut client).await.name, "fine", "what came before counts");
        match recv(&mut client).await {
            Notice::Disconnected {
                reason: DisconnectReason::Engine(EngineFault::Protocol(_)),
                will_reconnect: true,
            } => {}
            other => panic!("{script:?}: {other:?}"),
        }
        peer = server.accept_joined(r#"{"sid":"s"}"#).await;
    }
    // A frame that is none: a reserved opcode.
    assert!(matches!(recv(&mut client).await, Notice::Connected { .. }));
    peer.stream.write_all(&[0x83, 0]).await.expect("the client is there");
    let lost = recv(&mut client).await;
    assert!(lost_by_protocol(&lost), "{lost:?}");
}

#[tokio::test]
async fn a_connection_that_is_closed_or_torn_is_made_again() {
    let (server, mut client, mut peer) = joined(options()).await;
    for how in ["1", "close", "drop"] {
        assert!(matches!(recv(&mut client).await, Notice::Connected { .. }));
        match how {
            "1" => peer.send("1").await,
            "close" => peer.send_frame(&Frame::Close).await,
            _ => drop(peer),
        }
        match recv(&mut client).await {
            Notice::Disconnected { reason: DisconnectReason::TransportClose, will_reconnect: true } => {}
            Notice::Disconnected { reason: DisconnectReason::Engine(_), will_reconnect: true }
                if how == "drop" => {}
            other => panic!("{how}: {other:?}"),
        }
        peer = server.accept_joined(r#"{"sid":"s"}"#).await;
    }
}

#[tokio::test]
async fn a_server_that_cannot_be_joined_is_a_fault() {
    for (first, expected) in [
        ("6", "server broke the protocol: the first packet is no open packet"),
        ("0{}", "server broke the protocol: open packet: missing field"),
        ("x", "server broke the protocol: unknown packet type 'x' at byte 0"),
        ("1", "transport failed: closed during the handshake"),
    ] {
        let (server, connecting) = connect(options()).await;
        let mut peer = server.accept().await;
        peer.send(first).await;
        let fault = connecting.await.expect("no panic").expect_err("no session");
        assert!(fault.to_string().starts_with(expected), "{first}: {fault}");
    }
    // An older server takes us in without a word of who we are.
    let (server, connecting) = connect(options()).await;
    let mut peer = server.accept().await;
    peer.send(OPEN).await;
    peer.send("40").await;
    let fault = connecting.await.expect("no panic").expect_err("no socket");
    assert!(fault.to_string().contains("CONNECT without a sid"), "{fault}");
    // Other statuses, and a handshake that proves nothing.
    for (response, expected) in [
        ("HTTP/1.1 503 No\r\ncontent-length: 4\r\n\r\nbusy", "server answered with status 503: busy"),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            "server broke the protocol: websocket handshake answered",
        ),
        (
            "HTTP/1.1 101 Ok\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: x\r\n\r\n",
            "server broke the protocol: websocket handshake with a wrong accept key",
        ),
        ("nonsense\r\n\r\n", "transport failed: "),
    ] {
        let (server, connecting) = connect(options()).await;
        let (mut stream, _) = server.listener.accept().await.expect("somebody connects");
        request(&mut stream).await;
        stream.write_all(response.as_bytes()).await.expect("the client is there");
        let fault = connecting.await.expect("no panic").expect_err("no session");
        assert!(fault.to_string().starts_with(expected), "{fault}");
    }
}

#[tokio::test]
async fn a_silent_server_is_waited_for_within_bounds() {
    // Of this the handshake takes a part, too.
    let hasty = Options { connect_timeout: Duration::from_secs(5), ..options() };
    let (server, connecting) = connect(hasty).await;
    let mut peer = server.accept().await;
    peer.send(OPEN).await;
    peer.expect("40").await;
    assert_eq!(connecting.await.expect("no panic").expect_err("no answer"), ConnectFault::TimedOut);
    // Nobody wants the socket any more, so it leaves.
    peer.expect("41").await;
    assert_eq!(peer.recv().await, Frame::Close);
}

#[tokio::test]
async fn events_before_connect_are_delivered_after_it() {
    let (server, connecting) = connect(options()).await;
    let mut peer = server.accept().await;
    peer.send(OPEN).await;
    peer.expect("40").await;
    peer.send(r#"42["early",1]"#).await;
    peer.send(r#"42["early",2]"#).await;
    peer.send(r#"40{"sid":"a"}"#).await;
    let mut client = connecting.await.expect("no panic").expect("let in");
    assert!(matches!(recv(&mut client).await, Notice::Connected { .. }));
    for i in 1..=2 {
        assert_eq!(event(&mut client).await.args::<u8>().expect("fits"), i);
    }

    let (server, connecting) = connect(Options { notices_max: 2, ..options() }).await;
    let mut peer = server.accept().await;
    peer.send(OPEN).await;
    for _ in 0..3 {
        peer.send(r#"42["early"]"#).await;
    }
    let fault = connecting.await.expect("no panic").expect_err("more than may wait");
    assert!(fault.to_string().contains("more than notices_max events"), "{fault}");
}

#[tokio::test]
async fn a_connection_that_returns_says_what_it_had() {
    let auth = json!({"token": "t", "offset": "mine"}).as_object().cloned();
    for (auth, first, again) in [
        (None, r#"40{"recovery":true}"#.to_owned(), r#"40{"recovery":true,"pid":"P","offset":"o2"}"#),
        (
            auth,
            r#"40{"recovery":true,"token":"t","offset":"mine"}"#.to_owned(),
            r#"40{"recovery":true,"pid":"P","offset":"mine","token":"t"}"#,
        ),
    ] {
        let (server, connecting) = connect(Options { auth, recovery: true, ..options() }).await;
        let mut peer = server.accept().await;
        peer.send(OPEN).await;
        peer.expect(&first).await;
        peer.send(r#"40{"sid":"a","pid":"P"}"#).await;
        let mut client = connecting.await.expect("no panic").expect("let in");
        assert!(matches!(recv(&mut client).await, Notice::Connected { is_recovered: false, .. }));
        // The third has no place in the history, nor has the fourth, which wants an answer.
        for text in [r#"42["e","o1"]"#, r#"42["e",1,"o2"]"#, r#"42["e",1]"#, r#"427["e","x"]"#] {
            peer.send(text).await;
            event(&mut client).await;
        }
        drop(peer);
        assert!(matches!(recv(&mut client).await, Notice::Disconnected { will_reconnect: true, .. }));
        let mut peer = server.accept().await;
        peer.send(OPEN).await;
        peer.expect(again).await;
        peer.send(r#"42["missed",2,"o3"]"#).await;
        peer.send(r#"40{"sid":"a","pid":"P"}"#).await;
        assert!(matches!(recv(&mut client).await, Notice::Connected { is_recovered: true, .. }));
        assert_eq!(event(&mut client).await.name, "missed");
        drop(peer);
        // A server that forgot us: a new secret, and nothing is recovered.
        assert!(matches!(recv(&mut client).await, Notice::Disconnected { .. }));
        let mut peer = server.accept().await;
        peer.send(OPEN).await;
        peer.expect(&again.replace("o2", "o3")).await;
        peer.send(r#"40{"sid":"b","pid":"Q"}"#).await;
        assert!(
            matches!(recv(&mut client).await, Notice::Connected { is_recovered: false, sid } if sid == "b")
        );
    }
}

#[tokio::test]
async fn answers_find_their_events() {
    let (server, mut client, mut peer) = joined(options()).await;
    assert!(matches!(recv(&mut client).await, Notice::Connected { .. }));
    let emitter = client.emitter();
    let ask = |name: &'static str| {
        let emitter = emitter.clone();
        tokio::spawn(async move { emitter.emit_with_ack(name, &NoArgs, PATIENCE).await })
    };
    let first = ask("a");
    peer.expect(r#"420["a"]"#).await;
    let second = ask("b");
    peer.expect(r#"421["b"]"#).await;
    for text in [r#"4399["nobody"]"#, r#"43["no id"]"#, "431[2]", r#"431["twice"]"#, "430[1]"] {
        peer.send(text).await;
    }
    assert_eq!(first.await.expect("no panic").expect("answered").args::<u8>().expect("fits"), 1);
    assert_eq!(second.await.expect("no panic").expect("answered").args::<u8>().expect("fits"), 2);
    // An answer to an event of a lost connection goes nowhere.
    peer.send(r#"427["question"]"#).await;
    let mut question = event(&mut client).await;
    let third = ask("c");
    peer.expect(r#"422["c"]"#).await;
    drop(peer);
    assert!(matches!(third.await.expect("no panic"), Err(AckFault::Disconnected)));
    assert!(matches!(recv(&mut client).await, Notice::Disconnected { .. }));
    let mut peer = server.accept_joined(r#"{"sid":"b"}"#).await;
    assert!(matches!(recv(&mut client).await, Notice::Connected { .. }));
    question.ack(&One(1)).await.expect("does nothing");
    client.emit("d", &NoArgs).await.expect("can be sent");
    peer.expect(r#"42["d"]"#).await;
}

#[tokio::test]
async fn an_application_that_does_not_receive_can_still_emit() {
    let few = Options { notices_max: 4, ..options() };
    let (_server, mut client, mut peer) = joined(few).await;
    let sending = async {
        for i in 0..1000 {
            peer.send(&format!(r#"42["e",{i}]"#)).await;
        }
        for i in 0..100 {
            peer.expect(&format!(r#"42["up",{i}]"#)).await;
        }
    };
    let emitting = async {
        // Long enough for every buffer on the way to fill.
        tokio::time::sleep(Duration::from_millis(100)).await;
        for i in 0..100 {
            client.emit("up", &One(i)).await.expect("can be sent");
        }
    };
    timeout(PATIENCE, async { tokio::join!(sending, emitting) }).await.expect("nobody waits for ever");
    assert!(matches!(recv(&mut client).await, Notice::Connected { .. }));
    for i in 0..1000 {
        assert_eq!(event(&mut client).await.args::<u32>().expect("fits"), i);
    }
}

#[tokio::test]
async fn a_full_queue_makes_emitting_wait() {
    let few = Options {
        unsent_max: 2,
        reconnect: Some(Reconnect { delay: PATIENCE, ..Reconnect::default() }),
        ..options()
    };
    let (_server, mut client, peer) = joined(few).await;
    assert!(matches!(recv(&mut client).await, Notice::Connected { .. }));
    drop(peer);
    assert!(matches!(recv(&mut client).await, Notice::Disconnected { .. }));
    let emitting = async {
        for i in 0..100 {
            client.emit("e", &One(i)).await.expect("can be queued");
        }
    };
    assert!(timeout(Duration::from_millis(250), emitting).await.is_err(), "the queue has an end");
}

fn options() -> Options {
    let reconnect = Reconnect { delay: Duration::from_millis(20), jitter: 0.0, ..Reconnect::default() };
    Options {
        transports: Transports::WebSocket,
        reconnect: Some(reconnect),
        recovery: false,
        connect_timeout: PATIENCE,
        ..Options::default()
    }
}

fn lost_by_protocol(notice: &Notice) -> bool {
    matches!(notice, Notice::Disconnected { reason: DisconnectReason::Engine(EngineFault::Protocol(_)), .. })
}

async fn recv(client: &mut Client) -> Notice {
    timeout(PATIENCE, client.recv()).await.expect("something happens").expect("the socket lives")
}

async fn event(client: &mut Client) -> Event {
    match recv(client).await {
        Notice::Event(event) => event,
        other => panic!("{other:?}"),
    }
}

type Connecting = tokio::task::JoinHandle<Result<Client, ConnectFault>>;

/// A server, and a client that is on its way to it.
async fn connect(options: Options) -> (Server, Connecting) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("there are ports");
    let url = format!("ws://{}", listener.local_addr().expect("it is bound"));
    (Server { listener }, tokio::spawn(async move { Client::connect(&url, options).await }))
}

/// A client that was let in, with the notice of it still to be received.
async fn joined(options: Options) -> (Server, Client, Peer) {
    let (server, connecting) = connect(options).await;
    let peer = server.accept_joined(r#"{"sid":"a"}"#).await;
    let client = connecting.await.expect("no panic").expect("let in");
    (server, client, peer)
}

struct Server {
    listener: TcpListener,
}

impl Server {
    /// The next connection, after the WebSocket handshake.
    async fn accept(&self) -> Peer {
        let accepted = timeout(PATIENCE, self.listener.accept()).await.expect("somebody connects");
        let (mut stream, _) = accepted.expect("the listener lives");
        let head = request(&mut stream).await;
        assert!(head.starts_with("GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\n"), "{head}");
        let key = head.lines().find_map(|line| line.strip_prefix("sec-websocket-key: ")).expect("a key");
        let accept = String::from_utf8(accept_key(key).to_vec()).expect("base64");
        let response = format!(
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: {accept}\r\n\r\n"
        );
        stream.write_all(response.as_bytes()).await.expect("the client is there");
        Peer { stream, decoder: Decoder::default(), read: Vec::new() }
    }

    /// The next connection, let into the namespace `/`.
    async fn accept_joined(&self, auth: &str) -> Peer {
        let mut peer = self.accept().await;
        peer.send(OPEN).await;
        let Frame::Text(connect) = peer.recv().await else { panic!("a CONNECT") };
        assert!(connect.starts_with("40"), "{connect}");
        assert!(connect.len() == 2 || serde_json::from_str::<Value>(&connect[2..]).is_ok());
        peer.send(&format!("40{auth}")).await;
        peer
    }
}

/// The head of an HTTP request.
async fn request(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("a whole head"));
    }
    String::from_utf8(head).expect("ASCII")
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Frame {
    Text(String),
    Binary(Vec<u8>),
    Close,
}

impl Frame {
    fn text(text: &str) -> Frame {
        Frame::Text(text.to_owned())
    }
}

struct Peer {
    stream: TcpStream,
    decoder: Decoder,
    read: Vec<u8>,
}

impl Peer {
    async fn send(&mut self, text: &str) {
        self.send_frame(&Frame::text(text)).await;
    }

    async fn send_frame(&mut self, frame: &Frame) {
        let mut out = Vec::new();
        match frame {
            Frame::Text(text) => encode_frame(&mut out, OpCode::Text, text.as_bytes()),
            Frame::Binary(bytes) => encode_frame(&mut out, OpCode::Binary, bytes),
            Frame::Close => encode_frame(&mut out, OpCode::Close, &[]),
        }
        // The client may be gone already; what it then does is what the test is about.
        let _ = self.stream.write_all(&out).await;
    }

    async fn expect(&mut self, text: &str) {
        assert_eq!(self.recv().await, Frame::text(text));
    }

    async fn recv(&mut self) -> Frame {
        timeout(PATIENCE, self.recv_any()).await.expect("the client says something")
    }

    async fn recv_any(&mut self) -> Frame {
        let rules = Rules { role: Role::Server, ..Rules::default() };
        loop {
            let step =
                self.decoder.decode(&mut self.read, &rules, None).expect("the client's frames are right");
            if let Step::Frame { used, message } = step {
                let frame = match message.expect("whole messages") {
                    Message::Text(text) => Frame::text(text),
                    Message::Binary(bytes) => Frame::Binary(bytes.to_vec()),
                    Message::Close(..) => Frame::Close,
                    other => panic!("{other:?}"),
                };
                self.read.drain(..used);
                return frame;
            }
            let n = self.stream.read_buf(&mut self.read).await.expect("the client is there");
            assert!(n > 0, "the client has gone");
        }
    }
}
