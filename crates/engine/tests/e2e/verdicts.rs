//! Who comes back while something of an earlier connection is still under way: verdicts of middlewares, handlers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use engine::{ConnectRequest, NoArgs, Recovery, Refusal, Server, Socket};
use serde_json::{Value, json};
use sio_client::{Client, ConnectFault, Options, Transports};
use tokio::sync::{Notify, mpsc};

use crate::peers::{PATIENCE, auth, connect_with, event, listen, quiet, try_connect, until};

/// Middlewares and handlers wait here until the test lets them go on.
#[derive(Clone)]
struct Gates {
    begun: mpsc::UnboundedSender<String>,
    open: Arc<Mutex<HashMap<String, Arc<Notify>>>>,
}

impl Gates {
    fn new() -> (Self, mpsc::UnboundedReceiver<String>) {
        let (begun, news) = mpsc::unbounded_channel();
        (Self { begun, open: Arc::default() }, news)
    }

    fn gate(&self, name: &str) -> Arc<Notify> {
        self.open.lock().unwrap().entry(name.to_owned()).or_default().clone()
    }

    /// Says that `name` is here, and waits until it is let through.
    async fn pass(&self, name: &str) {
        let _ = self.begun.send(name.to_owned());
        self.gate(name).notified().await;
    }
}

async fn judge(gates: Gates, request: Arc<ConnectRequest>) -> Result<(), Refusal> {
    let auth: Value = request.auth().unwrap_or_default();
    if let Some(name) = auth["gate"].as_str() {
        gates.pass(name).await;
    }
    match auth["verdict"].as_str() {
        Some("no") => Err(Refusal::new("not you")),
        Some("afresh") => {
            request.start_over();
            Ok(())
        }
        _ => Ok(()),
    }
}

/// One shard; `secret` tells the caller's secret, `fall` cuts its link, `linger` does something to it only when let through.
fn server(gates: &Gates) -> Server {
    let (judges, lingerers) = (gates.clone(), gates.clone());
    Server::builder()
        .shards(1)
        .recovery(Recovery::default())
        .namespace("/", move |ns| {
            ns.middleware(move |request| judge(judges.clone(), request));
            ns.on("secret", |socket: Socket, ()| async move { socket.recovery_id().unwrap().expose() });
            ns.on("fall", |socket: Socket, ()| async move { socket.sever() });
            ns.on("linger", move |socket: Socket, ()| {
                let gates = lingerers.clone();
                async move {
                    gates.pass("linger").await;
                    let _ = socket.emit("late", &1);
                    socket.join("late");
                    let _ = gates.begun.send("lingered".to_owned());
                }
            });
        })
        .build()
        .unwrap()
}

fn options(auth_payload: Value) -> impl FnOnce(&mut Options) {
    |options| {
        (options.transports, options.reconnect) = (Transports::WebSocket, None);
        options.auth = auth(auth_payload);
    }
}

async fn secret(client: &Client) -> String {
    client.emit_with_ack("secret", &NoArgs, PATIENCE).await.unwrap().args().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verdict_is_for_the_peer_that_it_was_asked_about_and_for_no_other_with_its_secret() {
    let (gates, mut begun) = Gates::new();
    let server = server(&gates);
    let url = listen(&server).await;
    let first = connect_with(&url, options(json!({"recovery": true}))).await;
    let pid = secret(&first).await;
    first.emit("fall", &NoArgs).await.unwrap();
    until("it is lost", async || server.stats(false).await.held(|it| it.sockets_lost) == 1).await;
    let coming =
        |gate: &str, verdict: &str| json!({"recovery": true, "pid": pid, "gate": gate, "verdict": verdict});
    // One that would be let in goes before it is.
    let (target, payload) = (url.clone(), coming("welcome", "yes"));
    let welcome = tokio::spawn(async move { try_connect(&target, options(payload)).await.is_ok() });
    assert_eq!(begun.recv().await.as_deref(), Some("welcome"));
    welcome.abort();
    assert!(welcome.await.is_err());
    until("it has gone", async || server.stats(false).await.held(|it| it.sessions) == 0).await;
    assert_eq!(server.stats(false).await.held(|it| it.sockets_lost), 1, "it is lost again");
    // One that will be turned away waits for its own verdict.
    let (target, payload) = (url.clone(), coming("wrong", "no"));
    let wrong = tokio::spawn(async move { try_connect(&target, options(payload)).await.map(|_| ()) });
    assert_eq!(begun.recv().await.as_deref(), Some("wrong"));
    gates.gate("welcome").notify_one();
    for _ in 0..50 {
        assert_eq!(server.stats(false).await.held(|it| it.sockets), 0, "nobody has said that it may come in");
    }
    gates.gate("wrong").notify_one();
    assert!(matches!(wrong.await.unwrap(), Err(ConnectFault::Refused(_))));
    server.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_of_the_socket_that_was_reaches_nobody_who_began_anew_in_its_place() {
    let (gates, mut begun) = Gates::new();
    let server = server(&gates);
    let url = listen(&server).await;
    let first = connect_with(&url, options(json!({"recovery": true}))).await;
    let pid = secret(&first).await;
    first.emit("linger", &NoArgs).await.unwrap();
    assert_eq!(begun.recv().await.as_deref(), Some("linger"));
    first.emit("fall", &NoArgs).await.unwrap();
    until("it is lost", async || server.stats(false).await.held(|it| it.sockets_lost) == 1).await;
    let payload = json!({"recovery": true, "pid": pid, "verdict": "afresh"});
    let mut second = connect_with(&url, options(payload)).await;
    assert_ne!(secret(&second).await, pid);
    let sockets = server.of("/").fetch_sockets().await;
    assert_eq!(sockets.len(), 1);
    assert!(!sockets[0].socket().recovered());
    gates.gate("linger").notify_one();
    assert_eq!(begun.recv().await.as_deref(), Some("lingered"));
    sockets[0].socket().emit("own", &2).unwrap();
    event(&mut second, "own").await;
    assert!(quiet(&mut second).await);
    assert_eq!(server.to("late").fetch_sockets().await.len(), 0);
    assert_eq!(server.stats(false).await.held(|it| it.sockets_lost), 0, "nothing is left of the first");
    server.shutdown(Duration::ZERO).await;
}
