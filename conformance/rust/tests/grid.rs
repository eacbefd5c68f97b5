//! The stock client `rust_socketio` 0.6.0, blocking and async, by its transport settings, against the server under test.
//!
//! Its known faults are stepped around, not tested: one attachment an event, no byte 0x1E in binary, acks nested in one more array,
//! no event with a single text argument and nothing else to tell it from a "message".

use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{channel, Receiver, Sender};
use std::time::Duration;

use rust_socketio::client::Client;
use rust_socketio::{ClientBuilder, Event, Payload, TransportType};
use serde_json::{json, Value};

const PATIENCE: Duration = Duration::from_secs(120);

/// A server under test, killed when dropped.
struct Server {
    child: Child,
    url: String,
    port: u16,
}

impl Server {
    fn start(flags: &[&str]) -> Server {
        Server::start_on(0, flags)
    }

    fn start_on(port: u16, flags: &[&str]) -> Server {
        use std::io::{BufRead, BufReader};
        let reference = format!("node {}/../reference-server.js", env!("CARGO_MANIFEST_DIR"));
        let fixture =
            std::env::var("FANFARE_FIXTURE").ok().filter(|one| !one.is_empty()).unwrap_or(reference);
        let mut child = Command::new("sh")
            .args(["-c", &format!("exec {fixture} \"$@\""), "fixture", "--port", &port.to_string()])
            .args(flags)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the server under test starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().strip_prefix("ready ").and_then(|port| port.parse().ok());
        let port = port.unwrap_or_else(|| panic!("{fixture} did not say that it is ready: {line:?}"));
        Server { child, url: format!("http://127.0.0.1:{port}"), port }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a client was told: the event's name and its arguments, or its bytes.
type Told = (String, Result<Vec<Value>, Vec<u8>>);

fn tell(sender: &Sender<Told>, event: Event, payload: Payload) {
    let told = match payload {
        Payload::Text(values) => Ok(values),
        Payload::Binary(bytes) => Err(bytes.to_vec()),
        other => panic!("an unexpected payload: {other:?}"),
    };
    let _ = sender.send((event.to_string(), told));
}

fn await_event(inbox: &Receiver<Told>, name: &str) -> Result<Vec<Value>, Vec<u8>> {
    loop {
        let (event, told) = inbox.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("no event {name}"));
        if event == name {
            return told;
        }
    }
}

mod blocking {
    use super::*;

    fn connect(
        server: &Server,
        transport: TransportType,
        namespace: &str,
        auth: Value,
    ) -> (Client, Receiver<Told>) {
        let (sender, inbox) = channel();
        let others = sender.clone();
        let opened = sender.clone();
        let failed = sender;
        let client = ClientBuilder::new(server.url.clone())
            .namespace(namespace)
            .transport_type(transport)
            .auth(auth)
            .reconnect_delay(50, 100)
            .on(Event::Connect, move |payload, _| tell(&opened, Event::Connect, payload))
            .on(Event::Error, move |payload, _| tell(&failed, Event::Error, payload))
            .on_any(move |event, payload, _| tell(&others, event, payload))
            .connect()
            .expect("the client connects");
        (client, inbox)
    }

    fn ask(client: &Client, event: &str, payload: impl Into<Payload>) -> Value {
        let (sender, answer) = channel();
        client
            .emit_with_ack(event, payload, PATIENCE, move |payload: Payload, _| {
                let _ = sender.send(payload);
            })
            .unwrap();
        match answer.recv_timeout(PATIENCE).expect("an ack") {
            // The client hands over the arguments as one array.
            Payload::Text(mut values) => values.remove(0),
            other => panic!("an unexpected ack: {other:?}"),
        }
    }

    fn auth_is_read(transport: TransportType) {
        let server = Server::start(&[]);
        let (client, inbox) = connect(&server, transport, "/", json!({"token": "x", "n": [1]}));
        assert_eq!(await_event(&inbox, "auth"), Ok(vec![json!({"token": "x", "n": [1]})]));
        client.disconnect().unwrap();
    }

    fn values_come_back(transport: TransportType) {
        let server = Server::start(&[]);
        let (client, inbox) = connect(&server, transport, "/", json!({}));
        await_event(&inbox, "auth").unwrap();
        let values = vec![
            json!(1),
            json!(-0.5),
            json!("🎺 grüße"),
            json!({"a": {"b": [null, true]}}),
            json!([[]]),
            json!("a\u{1e}b"),
        ];
        client.emit("message", Payload::Text(values.clone())).unwrap();
        assert_eq!(await_event(&inbox, "message-back"), Ok(values));
        client.disconnect().unwrap();
    }

    fn acks_come_back(transport: TransportType) {
        let server = Server::start(&[]);
        let (client, inbox) = connect(&server, transport, "/", json!({}));
        await_event(&inbox, "auth").unwrap();
        assert_eq!(ask(&client, "message-with-ack", json!({"n": 7})), json!([{"n": 7}]));
        client.disconnect().unwrap();
    }

    fn bytes_come_back(transport: TransportType) {
        let server = Server::start(&[]);
        let (client, inbox) = connect(&server, transport, "/", json!({}));
        await_event(&inbox, "auth").unwrap();
        client.emit("message", vec![1_u8, 2, 3, 100]).unwrap();
        assert_eq!(await_event(&inbox, "message-back"), Err(vec![1, 2, 3, 100]));
        client.emit("bin", json!(16)).unwrap();
        assert_eq!(await_event(&inbox, "bin"), Err((0..16).collect()));
        client.disconnect().unwrap();
    }

    fn a_custom_namespace_works(transport: TransportType) {
        let server = Server::start(&[]);
        let (client, inbox) = connect(&server, transport, "/custom", json!({"who": "me"}));
        assert_eq!(await_event(&inbox, "auth"), Ok(vec![json!({"who": "me"})]));
        client.emit("message", json!([1])).unwrap();
        assert!(await_event(&inbox, "message-back").is_ok());
        client.disconnect().unwrap();
    }

    fn a_refusal_is_told(transport: TransportType) {
        let server = Server::start(&[]);
        let (client, inbox) = connect(&server, transport, "/guarded", json!({"token": "wrong"}));
        let told = format!("{:?}", await_event(&inbox, "error"));
        assert!(told.contains("not authorized"), "{told}");
        let _ = client.disconnect();
    }

    fn a_burst_stays_in_order(transport: TransportType) {
        let server = Server::start(&[]);
        let (client, inbox) = connect(&server, transport, "/", json!({}));
        await_event(&inbox, "auth").unwrap();
        client.emit("burst", json!(300)).unwrap();
        for expected in 0..300 {
            assert_eq!(await_event(&inbox, "burst"), Ok(vec![json!(expected)]));
        }
        client.disconnect().unwrap();
    }

    fn heartbeats_keep_it(transport: TransportType) {
        let server = Server::start(&["--ping-interval", "300", "--ping-timeout", "3000"]);
        let (client, inbox) = connect(&server, transport, "/", json!({}));
        await_event(&inbox, "auth").unwrap();
        std::thread::sleep(Duration::from_millis(4000));
        assert_eq!(ask(&client, "message-with-ack", json!(1)), json!([1]));
        assert!(
            !inbox.try_iter().any(|(event, _)| event == "close" || event == "auth"),
            "it reconnected meanwhile"
        );
        client.disconnect().unwrap();
    }

    fn it_reconnects(transport: TransportType) {
        let server = Server::start(&[]);
        let (client, inbox) = connect(&server, transport, "/", json!({}));
        await_event(&inbox, "auth").unwrap();
        let port = server.port;
        drop(server);
        let _again = Server::start_on(port, &[]);
        await_event(&inbox, "auth").unwrap();
        let _ = client.disconnect();
    }

    /// One module for each transport setting, one test for each behaviour.
    macro_rules! grid {
        ($($setting:ident: $transport:expr;)*) => {$(
            mod $setting {
                use super::*;
                grid!(@tests $transport; auth_is_read values_come_back acks_come_back bytes_come_back a_custom_namespace_works
                    a_refusal_is_told a_burst_stays_in_order heartbeats_keep_it it_reconnects);
            }
        )*};
        (@tests $transport:expr; $($behaviour:ident)*) => {$(
            #[test]
            fn $behaviour() {
                super::$behaviour($transport);
            }
        )*};
    }
    grid! {
        default_transports: TransportType::Any;
        polling_only: TransportType::Polling;
        websocket_only: TransportType::Websocket;
        websocket_by_upgrade: TransportType::WebsocketUpgrade;
    }
}

mod asynchronous {
    use super::*;
    use futures_util::FutureExt;
    use rust_socketio::asynchronous::{Client, ClientBuilder};

    async fn connect(
        server: &Server,
        transport: TransportType,
        namespace: &str,
        auth: Value,
    ) -> (Client, Receiver<Told>) {
        let (sender, inbox) = channel();
        let failed = sender.clone();
        let client = ClientBuilder::new(server.url.clone())
            .namespace(namespace)
            .transport_type(transport)
            .auth(auth)
            .on(Event::Error, move |payload, _| {
                tell(&failed, Event::Error, payload);
                async {}.boxed()
            })
            .on_any(move |event, payload, _| {
                tell(&sender, event, payload);
                async {}.boxed()
            })
            .connect()
            .await
            .expect("the client connects");
        (client, inbox)
    }

    async fn next(
        inbox: Receiver<Told>,
        name: &'static str,
    ) -> (Receiver<Told>, Result<Vec<Value>, Vec<u8>>) {
        tokio::task::spawn_blocking(move || {
            let told = await_event(&inbox, name);
            (inbox, told)
        })
        .await
        .unwrap()
    }

    async fn it_talks(transport: TransportType) {
        let server = Server::start(&[]);
        let (client, inbox) = connect(&server, transport, "/", json!({"token": "x"})).await;
        let (inbox, auth) = next(inbox, "auth").await;
        assert_eq!(auth, Ok(vec![json!({"token": "x"})]));
        let values = vec![json!(1), json!("🎺 grüße"), json!({"a": [null, true]})];
        client.emit("message", Payload::Text(values.clone())).await.unwrap();
        let (inbox, back) = next(inbox, "message-back").await;
        assert_eq!(back, Ok(values));
        client.emit("message", vec![1_u8, 2, 3, 100]).await.unwrap();
        let (inbox, back) = next(inbox, "message-back").await;
        assert_eq!(back, Err(vec![1, 2, 3, 100]));
        client.emit("burst", json!(100)).await.unwrap();
        let mut inbox = inbox;
        for expected in 0..100 {
            let told;
            (inbox, told) = next(inbox, "burst").await;
            assert_eq!(told, Ok(vec![json!(expected)]));
        }
        client.disconnect().await.unwrap();
    }

    async fn it_gets_acks(transport: TransportType) {
        let server = Server::start(&[]);
        let (client, inbox) = connect(&server, transport, "/custom", json!({})).await;
        let (_inbox, _) = next(inbox, "auth").await;
        let (sender, answer) = channel();
        client
            .emit_with_ack("message-with-ack", json!({"n": 7}), PATIENCE, move |payload: Payload, _| {
                let _ = sender.send(format!("{payload:?}"));
                async {}.boxed()
            })
            .await
            .unwrap();
        let told = tokio::task::spawn_blocking(move || answer.recv_timeout(PATIENCE))
            .await
            .unwrap()
            .expect("an ack");
        assert!(told.contains("\"n\": Number(7)"), "{told}");
        client.disconnect().await.unwrap();
    }

    async fn a_refusal_is_told(transport: TransportType) {
        let server = Server::start(&[]);
        let (client, inbox) = connect(&server, transport, "/guarded", json!({"token": "wrong"})).await;
        let (_inbox, told) = next(inbox, "error").await;
        assert!(format!("{told:?}").contains("not authorized"), "{told:?}");
        let _ = client.disconnect().await;
    }

    macro_rules! grid {
        ($($setting:ident: $transport:expr;)*) => {$(
            mod $setting {
                use super::*;
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn it_talks() {
                    super::it_talks($transport).await;
                }
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn it_gets_acks() {
                    super::it_gets_acks($transport).await;
                }
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn a_refusal_is_told() {
                    super::a_refusal_is_told($transport).await;
                }
            }
        )*};
    }
    grid! {
        default_transports: TransportType::Any;
        polling_only: TransportType::Polling;
        websocket_only: TransportType::Websocket;
        websocket_by_upgrade: TransportType::WebsocketUpgrade;
    }
}
