//! Links that are lost, slow, too many, or sent away.

use std::time::Duration;

use engine::{One, Reason, Recovery, Server};
use sio_client::{Notice, Options, Transports};
use testkit::port::Port;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::peers::{PATIENCE, connect, connect_with, event, listen, notice, until};

/// Sockets are in the room `all`; `fall` cuts the caller's link and emits `missed` while it is away.
fn falling(recovery: Option<Recovery>) -> Server {
    let mut builder = Server::builder().shards(4);
    if let Some(recovery) = recovery {
        builder = builder.recovery(recovery);
    }
    builder
        .namespace("/", |ns| {
            ns.on("join", |socket, ()| async move { socket.join("all") });
            ns.on("fall", |socket, ()| async move {
                socket.sever();
                socket.within("all").emit("missed", "this").unwrap();
            });
        })
        .build()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn with_recovery_a_lost_socket_gets_its_id_rooms_and_missed_events_back() {
    let server = falling(Some(Recovery::default()));
    let url = listen(&server).await;
    // The system spreads connections over the shards, so most of these come back to another one than they left.
    for _ in 0..12 {
        let mut client = connect_with(&url, |options| options.transports = Transports::WebSocket).await;
        client.emit_with_ack("join", &One(()), PATIENCE).await.unwrap();
        let before = client.sid().unwrap();
        client.emit("fall", &One(())).await.unwrap();
        assert!(matches!(notice(&mut client).await, Notice::Disconnected { will_reconnect: true, .. }));
        match notice(&mut client).await {
            Notice::Connected { sid, is_recovered } => assert_eq!((sid, is_recovered), (before, true)),
            other => panic!("{other:?}"),
        }
        // The offset travels as one more argument.
        let missed = event(&mut client, "missed").await.values().unwrap();
        assert_eq!(missed[0], "this");
        server.to("all").emit("live", &1).unwrap();
        assert_eq!(event(&mut client, "live").await.values().unwrap()[0], 1);
        client.close().await;
    }
    let left = async || server.stats(false).await.held(|it| it.sockets + it.sockets_lost);
    until("all have left for good", async || left().await == 0).await;
    assert_eq!(server.stats(false).await.total(|it| it.sockets_recovered), 12);
    server.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_recovery_a_lost_socket_comes_back_as_a_new_one() {
    let server = falling(None);
    let url = listen(&server).await;
    let mut client = connect(&url).await;
    client.emit_with_ack("join", &One(()), PATIENCE).await.unwrap();
    let before = client.sid().unwrap();
    client.emit("fall", &One(())).await.unwrap();
    assert!(matches!(notice(&mut client).await, Notice::Disconnected { will_reconnect: true, .. }));
    match notice(&mut client).await {
        Notice::Connected { sid, is_recovered } => assert!(sid != before && !is_recovered),
        other => panic!("{other:?}"),
    }
    server.of("/").emit("live", &1).unwrap();
    assert_eq!(event(&mut client, "live").await.args::<u32>().unwrap(), 1);
    assert_eq!(server.to("all").fetch_sockets().await.len(), 0);
    server.shutdown(Duration::ZERO).await;
}

/// Has disconnects reported.
fn reporting() -> (engine::Builder, mpsc::UnboundedReceiver<Reason>) {
    let (to, reasons) = mpsc::unbounded_channel();
    let builder = Server::builder().namespace("/", |ns| {
        ns.on_disconnect(move |_, reason, _| {
            let to = to.clone();
            async move { to.send(reason).unwrap() }
        });
    });
    (builder, reasons)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_read_is_dropped_and_the_others_go_on() {
    let (builder, mut reasons) = reporting();
    let server = builder.shards(1).outbox_bytes_max(256 * 1024).build().unwrap();
    let url = listen(&server).await;
    let mut reader = connect_with(&url, |options| options.transports = Transports::WebSocket).await;
    // A WebSocket that joins and then never reads again.
    let mut lazy = TcpStream::connect(url.trim_start_matches("http://")).await.unwrap();
    socket2::SockRef::from(&lazy).set_recv_buffer_size(4096).unwrap();
    let request = "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\
        Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
    let mut bytes = request.as_bytes().to_vec();
    ws_proto::encode_frame_masked(&mut bytes, ws_proto::OpCode::Text, b"40", [1, 2, 3, 4]);
    lazy.write_all(&bytes).await.unwrap();
    until("both are there", async || server.of("/").fetch_sockets().await.len() == 2).await;
    // 64 MiB at the most: what the kernel takes for a peer that does not read is far less.
    let text = "x".repeat(64 * 1024);
    let mut sent = 0;
    let reason = loop {
        if let Ok(reason) = reasons.try_recv() {
            break reason;
        }
        assert!(sent < 1024, "still there after {sent} events");
        server.of("/").emit("much", &text).unwrap();
        sent += 1;
        event(&mut reader, "much").await;
    };
    assert_eq!(reason, Reason::OutboxFull);
    assert_eq!(reason.as_str(), "outbox full");
    assert_eq!(server.stats(false).await.total(|it| it.outboxes_full), 1);
    server.of("/").emit("still here", &1).unwrap();
    event(&mut reader, "still here").await;
    server.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_sends_everyone_away_and_frees_the_port() {
    let (builder, mut reasons) = reporting();
    let server = builder.shards(2).build().unwrap();
    let port = Port::hold();
    let url = format!("http://{}", server.listen(port.address()).await.unwrap());
    let mut clients = Vec::new();
    for transports in [Transports::WebSocket, Transports::Polling, Transports::WebSocket, Transports::Upgrade]
    {
        clients.push(connect_with(&url, |options| options.transports = transports).await);
    }
    let begun = std::time::Instant::now();
    server.shutdown(Duration::from_millis(400)).await;
    // Two shards send one away each in every tenth of a second.
    assert!(begun.elapsed() >= Duration::from_millis(100), "they are not sent away all at once");
    for _ in &clients {
        assert_eq!(reasons.recv().await.unwrap(), Reason::ServerShuttingDown);
    }
    for client in &mut clients {
        assert!(matches!(notice(client).await, Notice::Disconnected { will_reconnect: true, .. }));
    }
    let address = url.trim_start_matches("http://");
    until("nobody listens", async || TcpStream::connect(address).await.is_err()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_drains_refuses_new_sessions_and_serves_those_it_has() {
    let server = Server::builder().build().unwrap();
    let url = listen(&server).await;
    let mut stays = connect_with(&url, |options| options.transports = Transports::Polling).await;
    let mut goes = connect_with(&url, |options| options.transports = Transports::Polling).await;
    // Two sessions over a minute: one goes at once, the other in the middle of it.
    let draining = tokio::spawn({
        let server = server.clone();
        async move { server.drain(Duration::from_secs(60)).await }
    });
    let gone = tokio::select! {
        notice = notice(&mut goes) => notice,
        notice = notice(&mut stays) => {
            std::mem::swap(&mut goes, &mut stays);
            notice
        }
    };
    assert!(matches!(gone, Notice::Disconnected { will_reconnect: true, .. }), "{gone:?}");

    let address = url.trim_start_matches("http://").to_owned();
    for request in [
        "GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
        "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    ] {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert!(
            answer.contains("retry-after: 1\r\n") && answer.contains("the server is shutting down"),
            "{answer}"
        );
    }
    server.of("/").emit("still", &1).unwrap();
    event(&mut stays, "still").await;
    draining.abort();
    server.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_another_server_has_is_refused() {
    let (first, second) = (falling(None), falling(None));
    let port = Port::hold();
    let address = first.listen(port.address()).await.unwrap();
    let refused = second.listen(address).await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::AddrInUse);
    first.shutdown(Duration::ZERO).await;
    // What is left of the first one's connections is no reason to wait.
    until("the second has the port", async || second.listen(address).await.is_ok()).await;
    second.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_beyond_the_bound_wait_until_others_go() {
    let server = Server::builder().shards(1).connections_max(2).build().unwrap();
    let address = server.listen(([127, 0, 0, 1], 0).into()).await.unwrap();
    let ask = async |stream: &mut TcpStream| {
        stream.write_all(b"GET /elsewhere HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut start = [0; 12];
        stream.read_exact(&mut start).await.unwrap();
        assert_eq!(&start, b"HTTP/1.1 404");
    };
    let mut served = Vec::new();
    // One more for each shard than the bound says: the shard is about to accept it when the bound is reached.
    for _ in 0..3 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        ask(&mut stream).await;
        served.push(stream);
    }
    let mut waiting = TcpStream::connect(address).await.unwrap();
    let waiting = tokio::spawn(async move { ask(&mut waiting).await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!waiting.is_finished());
    assert_eq!(server.stats(false).await.connections, 3);
    served.truncate(1);
    waiting.await.unwrap();
    server.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn websockets_count_towards_the_bound_of_connections() {
    let server = Server::builder().shards(1).connections_max(1).build().unwrap();
    let url = listen(&server).await;
    let by_websocket = |options: &mut Options| options.transports = Transports::WebSocket;
    // One more than the bound says: see above.
    let served = [connect_with(&url, by_websocket).await, connect_with(&url, by_websocket).await];
    // HTTP lets go of a connection a moment after it has become a link.
    until("each connection counts once", async || server.stats(false).await.connections == 2).await;
    let waiting = tokio::spawn(async move { connect_with(&url, by_websocket).await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!waiting.is_finished());
    assert_eq!(server.stats(false).await.held(|it| it.sessions_websocket), 2);
    drop(served);
    let late = waiting.await.unwrap();
    until("those that left count no more", async || server.stats(false).await.connections == 1).await;
    drop(late);
    until("nobody is left", async || server.stats(false).await.connections == 0).await;
    server.shutdown(Duration::ZERO).await;
}
