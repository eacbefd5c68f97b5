//! Against a stock Socket.IO server on Node.

use serde_json::{Value, json};
use sio_client::args::{Binary, Many, NoArgs, One};
use sio_client::{
    AckFault, Client, ConnectFault, DisconnectReason, EmitFault, Event, Notice, Options, Parser, Reconnect,
    Refusal, Transports,
};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;
use tokio::net::TcpSocket;
use tokio::time::timeout;

/// How long anything may take that should happen at once: the machine may be busy, or stand still.
const PATIENCE: Duration = Duration::from_secs(120);
const TRANSPORTS: [Transports; 3] = [Transports::WebSocket, Transports::Polling, Transports::Upgrade];

#[tokio::test]
#[ignore = "needs node, see main.rs"]
async fn events_answers_and_binary_values_pass_both_ways_over_every_transport_and_parser() {
    for parser in [Parser::Json, Parser::Msgpack] {
        let server = Server::start(parser, &[]);
        for transports in TRANSPORTS {
            let options = Options { transports, parser, ..Options::default() };
            let mut client = server.connect(options).await;
            let sid = connected(&mut client).await.0;
            assert_eq!(client.sid(), Some(sid));

            let args = json!([1, "2", {"3": [true, null, 1.5]}, "é😀\u{1e}"]);
            client.emit("echo", &Many(&args)).await.expect("can be sent");
            assert_eq!(json!(event(&mut client, "echo").await.values().expect("values")), args);

            let reply = client.emit_with_ack("echo", &Many((7, "x")), PATIENCE).await.expect("answered");
            assert_eq!(reply.args::<(u8, String)>().expect("fits"), (7, "x".into()));
            let reply = client.emit_with_ack("echo", &NoArgs, PATIENCE).await.expect("answered");
            assert!(reply.values().expect("values").is_empty());

            let binary = Binary::from(vec![0x41, 0x1e, 0x42, 0xff]);
            let bytes = Many((json!({"a": 1}), &binary, Binary::default()));
            let reply = client.emit_with_ack("echo", &bytes, PATIENCE).await.expect("answered");
            let (object, first, second): (Value, Binary, Binary) = reply.args().expect("fits");
            assert_eq!((object, first, second.len()), (json!({"a": 1}), binary.clone(), 0));
            client.emit("echo", &Many((1, &binary))).await.expect("can be sent");
            let echoed: (u8, Binary) = event(&mut client, "echo").await.args().expect("fits");
            assert_eq!(echoed, (1, binary));

            client.emit("ask me", &One("name")).await.expect("can be sent");
            let mut question = event(&mut client, "question").await;
            assert!(question.wants_ack());
            assert_eq!(question.args::<String>().expect("fits"), "name");
            question.ack(&Many(("Ada", Binary::from(vec![1])))).await.expect("can be sent");
            assert!(!question.wants_ack());
            question.ack(&One("again")).await.expect("does nothing");
            let (name, bytes): (String, Binary) = event(&mut client, "answered").await.args().expect("fits");
            assert_eq!((name.as_str(), &*bytes), ("Ada", &[1][..]));

            client.close().await;
        }
    }
}

#[tokio::test]
#[ignore = "needs node, see main.rs"]
async fn the_handshake_brings_auth_query_and_headers() {
    let server = Server::start(Parser::Json, &[]);
    for transports in TRANSPORTS {
        let options = Options {
            transports,
            auth: json!({"token": "t"}).as_object().cloned(),
            query: vec![("room".into(), "a b&c".into())],
            headers: vec![("x-test".into(), "yes".into())],
            ..Options::default()
        };
        let mut client = server.connect(options).await;
        connected(&mut client).await;
        if transports == Transports::Upgrade {
            until_transport(&client, "websocket").await;
        }
        let seen = handshake(&client).await;
        assert_eq!(seen["auth"], json!({"recovery": true, "token": "t"}));
        assert_eq!(seen["query"]["room"], "a b&c");
        assert_eq!(seen["header"], "yes");
        assert_eq!(seen["id"].as_str().map(str::to_owned), client.sid());
        let expected = if transports == Transports::Polling { "polling" } else { "websocket" };
        assert_eq!(seen["transport"], expected);
        client.close().await;
    }
}

#[tokio::test]
#[ignore = "needs node, see main.rs"]
async fn polling_goes_on_where_no_websocket_is_offered() {
    let server = Server::start(Parser::Json, &[("TRANSPORTS", "polling")]);
    let mut client = server.connect(Options::default()).await;
    connected(&mut client).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(handshake(&client).await["transport"], "polling");
    let options = Options { transports: Transports::WebSocket, ..Options::default() };
    match Client::connect(&server.url, options).await {
        Err(ConnectFault::Engine(fault)) => assert!(fault.to_string().contains("status 400"), "{fault}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
#[ignore = "needs node, see main.rs"]
async fn bursts_keep_their_order_while_transports_change() {
    let server = Server::start(Parser::Json, &[]);
    for transports in TRANSPORTS {
        let options = Options { transports, notices_max: 16, ..Options::default() };
        let mut client = server.connect(options).await;
        connected(&mut client).await;
        let emitter = client.emitter();
        let sending = tokio::spawn(async move {
            for i in 0..1000_u32 {
                emitter.emit("echo", &One(i)).await.expect("can be sent");
            }
        });
        for i in 0..1000 {
            assert_eq!(event(&mut client, "echo").await.args::<u32>().expect("fits"), i, "{transports:?}");
        }
        sending.await.expect("the sender ended well");
        client.emit("burst", &One(1000)).await.expect("can be sent");
        for i in 0..1000 {
            assert_eq!(event(&mut client, "tick").await.args::<u32>().expect("fits"), i, "{transports:?}");
        }
        client.close().await;
    }
}

#[tokio::test]
#[ignore = "needs node, see main.rs"]
async fn large_messages_pass() {
    let server = Server::start(Parser::Json, &[]);
    for transports in TRANSPORTS {
        let mut client = server.connect(Options { transports, ..Options::default() }).await;
        connected(&mut client).await;
        let (text, bytes) = ("ä".repeat(400_000), Binary::from(vec![7; 1_000_000]));
        let reply = client.emit_with_ack("echo", &Many((&text, &bytes)), PATIENCE).await.expect("answered");
        assert_eq!(reply.args::<(String, Binary)>().expect("fits"), (text, bytes));
        client.close().await;
    }
}

#[tokio::test]
#[ignore = "needs node, see main.rs"]
async fn a_quiet_connection_lives_on_heartbeats() {
    let server = Server::start(Parser::Json, &[("PING_INTERVAL", "300"), ("PING_TIMEOUT", "4000")]);
    for transports in TRANSPORTS {
        let mut client = server.connect(Options { transports, ..Options::default() }).await;
        let (sid, _) = connected(&mut client).await;
        // Many intervals of 300 ms; one ping without an answer would end it after 4 s.
        assert!(timeout(Duration::from_secs(6), client.recv()).await.is_err(), "nothing happens");
        assert_eq!(handshake(&client).await["id"], sid);
        client.close().await;
    }
}

#[tokio::test]
#[ignore = "needs node, see main.rs"]
async fn namespaces_share_a_connection() {
    let server = Server::start(Parser::Json, &[]);
    let mut root = server.connect(Options::default()).await;
    connected(&mut root).await;
    let auth = json!({"as": "guest"}).as_object().cloned();
    let mut chat = root.join("/chat", auth).await.expect("exists");
    connected(&mut chat).await;
    assert_ne!(root.sid(), chat.sid());
    assert_eq!(handshake(&chat).await["auth"], json!({"recovery": true, "as": "guest"}));
    chat.emit("echo", &One("c")).await.expect("can be sent");
    root.emit("echo", &One("r")).await.expect("can be sent");
    assert_eq!(event(&mut chat, "echo").await.args::<String>().expect("fits"), "c");
    assert_eq!(event(&mut root, "echo").await.args::<String>().expect("fits"), "r");

    let refused = root.join("/closed", None).await.expect_err("members only");
    let refusal = Refusal { message: "members only".into(), data: Some(json!({"why": 3})) };
    assert_eq!(refused, ConnectFault::Refused(refusal));
    let unknown = root.join("/nope", None).await.expect_err("does not exist");
    assert_eq!(unknown, ConnectFault::Refused(Refusal { message: "Invalid namespace".into(), data: None }));
    assert!(matches!(root.join("nope", None).await, Err(ConnectFault::Options(_))));

    // Leaving one does not touch the other, and one can come back.
    let emitter = chat.emitter();
    chat.close().await;
    assert!(matches!(emitter.emit("echo", &One(1)).await, Err(EmitFault::Closed)));
    // A stock server takes a CONNECT right behind the DISCONNECT for a second one.
    handshake(&root).await;
    let mut chat = root.join("/chat", None).await.expect("exists");
    connected(&mut chat).await;
    drop(root);
    chat.emit("echo", &One("still")).await.expect("can be sent");
    assert_eq!(event(&mut chat, "echo").await.args::<String>().expect("fits"), "still");
}

#[tokio::test]
#[ignore = "needs node, see main.rs"]
async fn a_lost_connection_is_made_again_with_a_new_id() {
    let server = Server::start(Parser::Json, &[]);
    for transports in TRANSPORTS {
        let mut client =
            server.connect(Options { transports, reconnect: quickly(), ..Options::default() }).await;
        let (sid, _) = connected(&mut client).await;
        if transports == Transports::Upgrade {
            until_transport(&client, "websocket").await;
        }
        let emitter = client.emitter();
        let pending = tokio::spawn(async move { emitter.emit_with_ack("never", &NoArgs, PATIENCE).await });
        client.emit("cut", &One("none")).await.expect("can be sent");
        match recv(&mut client).await {
            Notice::Disconnected { will_reconnect: true, reason } => assert!(
                matches!(reason, DisconnectReason::TransportClose | DisconnectReason::Engine(_)),
                "{reason}"
            ),
            other => panic!("{other:?}"),
        }
        assert_eq!(client.sid(), None);
        // Kept until there is a connection.
        client.emit("echo", &One("kept")).await.expect("can be queued");
        let (again, is_recovered) = connected(&mut client).await;
        assert_ne!(again, sid);
        assert!(!is_recovered);
        assert_eq!(event(&mut client, "echo").await.args::<String>().expect("fits"), "kept");
        assert!(matches!(pending.await.expect("no panic"), Err(AckFault::Disconnected)));
        client.close().await;
    }
}

#[tokio::test]
#[ignore = "needs node, see main.rs"]
async fn missed_events_are_recovered_where_the_server_keeps_them() {
    for parser in [Parser::Json, Parser::Msgpack] {
        let server = Server::start(parser, &[("RECOVERY", "1")]);
        for transports in TRANSPORTS {
            let options = Options { transports, parser, reconnect: quickly(), ..Options::default() };
            let mut client = server.connect(options).await;
            let (sid, _) = connected(&mut client).await;
            if transports == Transports::Upgrade {
                until_transport(&client, "websocket").await;
            }
            client.emit_with_ack("join", &One("r"), PATIENCE).await.expect("joined");
            client.emit("echo", &One(json!({}))).await.expect("can be sent");
            // The place in the history comes as one more argument.
            let (_, offset): (Value, String) = event(&mut client, "echo").await.args().expect("fits");
            assert!(!offset.is_empty());

            client.emit("cut", &One("r")).await.expect("can be sent");
            assert!(matches!(recv(&mut client).await, Notice::Disconnected { will_reconnect: true, .. }));
            assert_eq!(connected(&mut client).await, (sid, true));
            let first: (u8, String) = event(&mut client, "missed").await.args().expect("fits");
            let second: (Binary, String) = event(&mut client, "missed").await.args().expect("fits");
            assert_eq!((first.0, &*second.0), (1, &[2][..]));
            assert_eq!(handshake(&client).await["recovered"], true);
            let rooms = client.emit_with_ack("data", &NoArgs, PATIENCE).await.expect("answered");
            assert_eq!(rooms.args::<Vec<String>>().expect("fits"), ["r"]);
            client.close().await;
        }
    }
}

#[tokio::test]
#[ignore = "needs node, see main.rs"]
async fn recovery_can_be_declined() {
    let server = Server::start(Parser::Json, &[("RECOVERY", "1")]);
    let options = Options { recovery: false, reconnect: quickly(), ..Options::default() };
    let mut client = server.connect(options).await;
    let (sid, _) = connected(&mut client).await;
    client.emit("echo", &One(1)).await.expect("can be sent");
    event(&mut client, "echo").await;
    client.emit("cut", &One("r")).await.expect("can be sent");
    assert!(matches!(recv(&mut client).await, Notice::Disconnected { will_reconnect: true, .. }));
    let (again, is_recovered) = connected(&mut client).await;
    assert!(again != sid && !is_recovered);
    assert_eq!(handshake(&client).await["auth"], json!({}));
}

#[tokio::test]
#[ignore = "needs node, see main.rs"]
async fn a_disconnect_by_the_server_is_final() {
    let server = Server::start(Parser::Json, &[]);
    for (transports, how) in [
        (Transports::WebSocket, "kick"),
        (Transports::WebSocket, "kick all"),
        (Transports::Polling, "kick"),
        (Transports::Polling, "kick all"),
    ] {
        let mut client =
            server.connect(Options { transports, reconnect: quickly(), ..Options::default() }).await;
        connected(&mut client).await;
        client.emit(how, &NoArgs).await.expect("can be sent");
        match recv(&mut client).await {
            Notice::Disconnected { reason: DisconnectReason::Server, will_reconnect: false } => {}
            other => panic!("{other:?}"),
        }
        assert!(timeout(PATIENCE, client.recv()).await.expect("at once").is_none());
        assert!(matches!(client.emit("echo", &NoArgs).await, Err(EmitFault::Closed)));
        let fault = client.emit_with_ack("echo", &NoArgs, PATIENCE).await.expect_err("ended");
        assert!(matches!(fault, AckFault::Emit(EmitFault::Closed)), "{fault}");
        assert!(matches!(client.join("/chat", None).await, Err(ConnectFault::Closed)));
    }
}

#[tokio::test]
#[ignore = "needs node, see main.rs"]
async fn an_answer_that_does_not_come_is_not_waited_for() {
    let server = Server::start(Parser::Json, &[]);
    let client = server.connect(Options::default()).await;
    for _ in 0..200 {
        let fault =
            client.emit_with_ack("never", &NoArgs, Duration::from_millis(1)).await.expect_err("never");
        assert!(matches!(fault, AckFault::TimedOut), "{fault}");
    }
}

#[tokio::test]
#[ignore = "needs node, see main.rs"]
async fn attempts_to_come_back_have_an_end() {
    // Nobody else gets its port when it has gone.
    let held = TcpSocket::new_v4().expect("a socket");
    held.set_reuseaddr(true).expect("a setting of the socket");
    held.bind("127.0.0.1:0".parse().expect("an address")).expect("some port is free");
    let port = held.local_addr().expect("it is bound").port().to_string();
    let mut server = Server::start(Parser::Json, &[("PORT", &port)]);
    let reconnect = quickly().map(|policy| Reconnect { attempts_max: Some(3), ..policy });
    let mut client = server.connect(Options { reconnect, ..Options::default() }).await;
    connected(&mut client).await;
    server.stop();
    assert!(matches!(recv(&mut client).await, Notice::Disconnected { will_reconnect: true, .. }));
    assert!(matches!(recv(&mut client).await, Notice::GaveUp));
    assert!(timeout(PATIENCE, client.recv()).await.expect("at once").is_none());
    let refused = Client::connect(&server.url, Options::default()).await.expect_err("nobody listens");
    assert!(matches!(refused, ConnectFault::Engine(_)), "{refused}");
}

fn quickly() -> Option<Reconnect> {
    Some(Reconnect {
        delay: Duration::from_millis(150),
        delay_max: Duration::from_millis(300),
        ..Reconnect::default()
    })
}

async fn recv(client: &mut Client) -> Notice {
    timeout(PATIENCE, client.recv()).await.expect("something happens").expect("the socket lives")
}

async fn connected(client: &mut Client) -> (String, bool) {
    match recv(client).await {
        Notice::Connected { sid, is_recovered } => (sid, is_recovered),
        other => panic!("{other:?}"),
    }
}

async fn event(client: &mut Client, name: &str) -> Event {
    match recv(client).await {
        Notice::Event(event) if event.name == name => event,
        other => panic!("{other:?} instead of {name}"),
    }
}

async fn handshake(client: &Client) -> Value {
    let reply = client.emit_with_ack("handshake", &NoArgs, PATIENCE).await.expect("answered");
    reply.args().expect("an object")
}

async fn until_transport(client: &Client, name: &str) {
    let looking = async {
        while handshake(client).await["transport"] != name {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(timeout(PATIENCE, looking).await.is_ok(), "never on {name}");
}

struct Server {
    process: Child,
    url: String,
}

impl Server {
    fn start(parser: Parser, environment: &[(&str, &str)]) -> Server {
        static STARTED: AtomicU16 = AtomicU16::new(0);
        let base = std::env::var("TEST_PORT_BASE").ok().and_then(|base| base.parse::<u16>().ok());
        let port = base.map_or(0, |base| base + STARTED.fetch_add(1, Ordering::Relaxed));
        let mut process = Command::new("node")
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/server.cjs"))
            .env("PORT", port.to_string())
            .env("PARSER", if parser == Parser::Msgpack { "msgpack" } else { "" })
            .envs(environment.iter().copied())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node can be started");
        let mut line = String::new();
        let output = process.stdout.take().expect("it was piped");
        BufReader::new(output).read_line(&mut line).expect("the server says its port");
        Server { process, url: format!("http://127.0.0.1:{}", line.trim()) }
    }

    async fn connect(&self, options: Options) -> Client {
        let options = Options { connect_timeout: PATIENCE, ..options };
        Client::connect(&self.url, options).await.expect("the server is there")
    }

    fn stop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}
