//! The ways in beside a plain listener: TLS, an application on the same port, and somebody else's router.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use engine::{NoArgs, One, PeerAddress, Server, Serving};
use sio_client::Transports;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::peers::{PATIENCE, connect_with, event, until};

fn echoing() -> Server {
    Server::builder()
        .shards(2)
        .namespace("/", |ns| {
            ns.on_raw("echo", |socket, event| event.answer_same(socket));
            ns.on("secure", |socket, ()| async move { socket.handshake().is_secure() });
            ns.on("address", |socket, ()| async move {
                socket.handshake().address().map_or(String::new(), |address| address.ip().to_string())
            });
        })
        .build()
        .unwrap()
}

/// The whole reply to a plain GET.
async fn fetch(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    exchange(&mut stream, path).await
}

async fn exchange(stream: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin), path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut reply = String::new();
    // A peer may end TLS without saying so; what came before counts.
    let _ = stream.read_to_string(&mut reply).await;
    reply
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_serves_all_other_paths_of_the_same_port() {
    let server = echoing();
    let app = Router::new().route("/hello", get(|| async { "hello from the application" }));
    let any = ([127, 0, 0, 1], 0).into();
    let address = server.listen_with(any, Serving::default().application(app)).await.unwrap();
    assert!(fetch(address, "/hello").await.ends_with("hello from the application"));
    assert!(fetch(address, "/gone").await.starts_with("HTTP/1.1 404"));
    let client = connect_with(&format!("http://{address}"), |_| {}).await;
    let echoed: String = client.emit_with_ack("echo", &One("x"), PATIENCE).await.unwrap().args().unwrap();
    assert_eq!(echoed, "x");
    server.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_engine_is_mounted_into_a_router_with_all_its_transports() {
    let server = echoing();
    let told: SocketAddr = ([192, 0, 2, 7], 7).into();
    let app = Router::new()
        .route("/hello", get(|| async { "hello" }))
        .route_service("/socket.io/", server.service())
        .layer(axum::Extension(PeerAddress(told)));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move { axum::serve(listener, app).await });
    assert!(fetch(address, "/hello").await.ends_with("hello"));
    for transports in [Transports::WebSocket, Transports::Polling, Transports::Upgrade] {
        let url = format!("http://{address}");
        let mut client = connect_with(&url, |options| options.transports = transports).await;
        let echoed: String = client.emit_with_ack("echo", &One("x"), PATIENCE).await.unwrap().args().unwrap();
        assert_eq!(echoed, "x");
        let seen: String = client.emit_with_ack("address", &NoArgs, PATIENCE).await.unwrap().args().unwrap();
        assert_eq!(seen, "192.0.2.7");
        server.emit("news", &transports_name(transports)).unwrap();
        assert_eq!(event(&mut client, "news").await.args::<String>().unwrap(), transports_name(transports));
        if transports == Transports::Upgrade {
            until("it is upgraded", async || server.stats(false).await.total(|it| it.upgrades) == 1).await;
        }
        client.close().await;
    }
    assert_eq!(server.stats(false).await.total(|it| it.sessions_opened_websocket), 1);
    serving.abort();
    server.shutdown(Duration::ZERO).await;
}

fn transports_name(transports: Transports) -> &'static str {
    match transports {
        Transports::WebSocket => "websocket",
        Transports::Polling => "polling",
        Transports::Upgrade => "upgrade",
    }
}

#[cfg(feature = "tls")]
mod tls {
    use std::sync::Arc;

    use rustls::pki_types::{PrivatePkcs8KeyDer, ServerName};
    use tokio_rustls::TlsConnector;
    use tokio_rustls::client::TlsStream;
    use ws_proto::{Decoder, Message, OpCode, Role, Rules, Step};

    use super::*;

    /// A listener's settings with a certificate for `localhost` made now, and a connector that trusts it.
    fn certified() -> (Arc<rustls::ServerConfig>, TlsConnector) {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let certificate = made.cert.der().clone();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key.into())
            .unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate).unwrap();
        let trusting = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        (Arc::new(config), TlsConnector::from(Arc::new(trusting)))
    }

    async fn open(connector: &TlsConnector, address: SocketAddr) -> TlsStream<TcpStream> {
        let tcp = TcpStream::connect(address).await.unwrap();
        connector.connect(ServerName::try_from("localhost").unwrap(), tcp).await.unwrap()
    }

    /// Reads until the stream has brought a whole text message; answers it.
    async fn read_text(
        stream: &mut TlsStream<TcpStream>,
        buf: &mut Vec<u8>,
        decoder: &mut Decoder,
    ) -> String {
        let rules = Rules { role: Role::Client, ..Rules::default() };
        loop {
            if let Step::Frame { used, message } = decoder.decode(buf, &rules, None).unwrap() {
                let text = match message {
                    Some(Message::Text(text)) => Some(text.to_owned()),
                    other => panic!("{other:?} instead of a text"),
                };
                buf.drain(..used);
                if let Some(text) = text {
                    return text;
                }
            }
            assert_ne!(stream.read_buf(buf).await.unwrap(), 0, "the server has hung up");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn polling_and_websocket_pass_through_tls() {
        let server = echoing();
        let (config, connector) = certified();
        let serving = Serving::default().tls(move || config.clone());
        let address = server.listen_with(([127, 0, 0, 1], 0).into(), serving).await.unwrap();

        let mut polling = open(&connector, address).await;
        let reply = exchange(&mut polling, "/socket.io/?EIO=4&transport=polling").await;
        assert!(reply.starts_with("HTTP/1.1 200") && reply.contains("\r\n\r\n0{\"sid\":\""), "{reply}");

        let mut link = open(&connector, address).await;
        let request = "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\
            Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
        link.write_all(request.as_bytes()).await.unwrap();
        let mut buf = Vec::new();
        let end = loop {
            assert_ne!(link.read_buf(&mut buf).await.unwrap(), 0);
            if let Some(at) = buf.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
        };
        assert!(buf.starts_with(b"HTTP/1.1 101"));
        buf.drain(..end);
        let mut decoder = Decoder::default();
        assert!(read_text(&mut link, &mut buf, &mut decoder).await.starts_with("0{"));
        // Larger than a TLS record, so that one message takes several.
        let long = "x".repeat(100_000);
        let mut bytes = Vec::new();
        for packet in ["40", "420[\"secure\"]", &format!("421[\"echo\",\"{long}\"]")] {
            ws_proto::encode_frame_masked(&mut bytes, OpCode::Text, packet.as_bytes(), [9, 8, 7, 6]);
        }
        link.write_all(&bytes[..2 + 4 + 2]).await.unwrap();
        assert!(read_text(&mut link, &mut buf, &mut decoder).await.starts_with("40{"));
        link.write_all(&bytes[2 + 4 + 2..]).await.unwrap();
        assert_eq!(read_text(&mut link, &mut buf, &mut decoder).await, "430[true]");
        assert_eq!(read_text(&mut link, &mut buf, &mut decoder).await, format!("431[\"{long}\"]"));

        // Whoever does not speak TLS learns nothing and harms nobody.
        assert_eq!(fetch(address, "/socket.io/?EIO=4&transport=polling").await.find("sid"), None);
        server.shutdown(Duration::ZERO).await;
    }
}
