//! Owns how tests connect, and how they wait: every wait has a bound, and says what was waited for.

use std::time::Duration;

use engine::Server;
use serde_json::Value;
use sio_client::{Client, ConnectFault, Event, Notice, Options, Reconnect};

/// How long anything may take that should happen at once. Long: the machine may be busy, or stand still.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Limits within which something is to happen that should, and which are waited out for what must not: the next one is
/// taken if the machine was too slow for the one before.
pub(crate) const LIMITS: [Duration; 4] =
    [Duration::from_millis(200), Duration::from_secs(2), Duration::from_secs(10), Duration::from_secs(60)];

/// Listens on a port that the system gives; answers its address as a URL.
pub(crate) async fn listen(server: &Server) -> String {
    let address = server.listen(([127, 0, 0, 1], 0).into()).await.unwrap();
    format!("http://{address}")
}

/// An auth payload.
pub(crate) fn auth(value: Value) -> Option<serde_json::Map<String, Value>> {
    value.as_object().cloned()
}

pub(crate) async fn connect(url: &str) -> Client {
    connect_with(url, |_| {}).await
}

/// Connects, with options changed from these: a quick first return, and the defaults of stock clients.
pub(crate) async fn connect_with(url: &str, change: impl FnOnce(&mut Options)) -> Client {
    try_connect(url, change).await.unwrap()
}

pub(crate) async fn try_connect(
    url: &str,
    change: impl FnOnce(&mut Options),
) -> Result<Client, ConnectFault> {
    let delay = Duration::from_millis(50);
    let reconnect = Some(Reconnect { delay, ..Reconnect::default() });
    let mut options = Options { reconnect, connect_timeout: PATIENCE, ..Options::default() };
    change(&mut options);
    let mut client = Client::connect(url, options).await?;
    match client.recv().await {
        Some(Notice::Connected { .. }) => Ok(client),
        other => panic!("{other:?} instead of a connection"),
    }
}

/// Whatever comes next.
pub(crate) async fn notice(client: &mut Client) -> Notice {
    let notice = tokio::time::timeout(PATIENCE, client.recv()).await;
    notice.expect("a notice in time").expect("a socket that has not ended")
}

/// The next event, whatever it is. Anything else fails the test.
#[track_caller]
pub(crate) fn next_event(client: &mut Client) -> impl Future<Output = Event> {
    let caller = std::panic::Location::caller();
    async move {
        match notice(client).await {
            Notice::Event(event) => event,
            other => panic!("{other:?} instead of an event, at {caller}"),
        }
    }
}

/// The next event, which must be called `name`.
#[track_caller]
pub(crate) fn event(client: &mut Client, name: &str) -> impl Future<Output = Event> {
    let caller = std::panic::Location::caller();
    async move {
        match notice(client).await {
            Notice::Event(event) if event.name == name => event,
            other => panic!("{other:?} instead of {name}, at {caller}"),
        }
    }
}

/// Waits for the loss of the connection, passing over events before it.
pub(crate) async fn disconnected(client: &mut Client) -> sio_client::DisconnectReason {
    loop {
        match notice(client).await {
            Notice::Disconnected { reason, .. } => return reason,
            Notice::Event(_) => {}
            other => panic!("{other:?} instead of a loss"),
        }
    }
}

/// Whether nothing comes for a moment.
pub(crate) async fn quiet(client: &mut Client) -> bool {
    tokio::time::timeout(Duration::from_millis(100), client.recv()).await.is_err()
}

/// Waits until something holds, looking again and again.
pub(crate) async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let looking = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, looking).await.is_ok(), "in time: {what}");
}
