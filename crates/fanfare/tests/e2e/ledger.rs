//! Owns how a test watches a room: sockets that come back after a loss, and a ledger that knows what must come next.
//! Does not know what is published, nor when a server goes.

use std::time::Duration;

use serde_json::{Value, json};
use sio_client::args::One;
use sio_client::{Client, Emitter, Notice, Options, Reconnect, Transports};
use tokio::sync::watch;

/// Time that nothing may come while something must. Long: a test machine may be busy with other things.
const PATIENCE: Duration = Duration::from_secs(240);

/// How a watcher gets what it did not see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// It subscribes again after each loss with `since`, and reads pages of `history` if that is too much at once.
    Since,
    /// It asks for recovery and never subscribes again.
    Recovery,
    /// It joins once, with at least the newest so many.
    Last(u64),
    /// It joins once, and wants what comes from then on.
    Plain,
}

/// What the end of a test is known by: the seq of the last event that must be seen.
pub(crate) type End = watch::Receiver<Option<u64>>;

/// Where a watcher is in a room's log.
#[derive(Debug, Default)]
struct Ledger {
    epoch: u64,
    /// The last seq that was seen; `None` until it is known where the watcher begins.
    last: Option<u64>,
}

impl Ledger {
    /// Takes the next event.
    ///
    /// # Errors
    /// It is not the next.
    fn take(&mut self, epoch: u64, seq: u64) -> Result<(), String> {
        if self.epoch != 0 && self.epoch != epoch {
            return Err(format!("epoch {epoch} follows {}", self.epoch));
        }
        self.epoch = epoch;
        match self.last {
            Some(last) if seq != last + 1 => Err(format!("{seq} follows {last}")),
            Some(_) | None => {
                self.last = Some(seq);
                Ok(())
            }
        }
    }
}

/// What the server answered to a join, and which connection was meant.
struct Joined {
    connection: u32,
    answer: Value,
}

/// Watches a room until its end. `joined` is told when the watcher is in it for the first time.
///
/// # Errors
/// An event is missing, comes twice or out of order; or a socket that must be recovered is not.
pub(crate) async fn watch(
    url: String,
    room: String,
    way: Way,
    joined: tokio::sync::mpsc::Sender<()>,
    mut end: End,
) -> Result<u64, String> {
    let recovery = way == Way::Recovery;
    let options = Options {
        transports: Transports::WebSocket,
        recovery,
        reconnect: Some(Reconnect {
            delay: Duration::from_millis(50),
            delay_max: Duration::from_millis(200),
            ..Reconnect::default()
        }),
        connect_timeout: PATIENCE,
        // What comes while a page of history is read.
        notices_max: 100_000,
        ..Options::default()
    };
    let mut client = Client::connect(&url, options).await.map_err(|fault| format!("{fault:?}"))?;
    let emitter = client.emitter();
    let (answered, mut answers) = tokio::sync::mpsc::channel::<Joined>(8);
    let mut ledger = Ledger { epoch: 0, last: (way == Way::Since).then_some(0) };
    let mut held: Option<Vec<(u64, u64)>> = Some(Vec::new());
    let mut connection = 0;
    loop {
        let is_through = |ledger: &Ledger, end: Option<u64>| end.is_some_and(|end| ledger.last >= Some(end));
        if held.is_none() && is_through(&ledger, *end.borrow()) {
            client.close().await;
            return Ok(ledger.last.unwrap_or(0));
        }
        tokio::select! {
            notice = client.recv() => match notice.ok_or("the socket has ended")? {
                Notice::Connected { is_recovered, .. } => {
                    connection += 1;
                    if way == Way::Recovery && connection > 1 {
                        if !is_recovered {
                            return Err(format!("connection {connection} was not recovered, after {ledger:?}"));
                        }
                        continue;
                    }
                    held = Some(Vec::new());
                    subscribe(&emitter, &room, way, &ledger, connection, answered.clone());
                }
                Notice::Event(event) => {
                    let arguments = event.values().map_err(|fault| format!("{fault:?}"))?;
                    let Some((epoch, seq)) = position(&arguments[0], &room) else { continue };
                    match &mut held {
                        Some(held) => held.push((epoch, seq)),
                        None => ledger.take(epoch, seq)?,
                    }
                }
                Notice::Disconnected { .. } => {}
                other => return Err(format!("{other:?}")),
            },
            Some(Joined { connection: of, answer }) = answers.recv() => {
                if of != connection {
                    continue;
                }
                let at = answer["seq"].as_u64().ok_or_else(|| format!("no seq: {answer}"))?;
                let replayed = answer["replayed"].as_u64().unwrap_or(0);
                match way {
                    Way::Since if answer["recovered"] != true => {
                        if !read_history(&emitter, &room, &mut ledger, at).await? {
                            continue;
                        }
                    }
                    Way::Since => {}
                    Way::Recovery | Way::Plain if replayed > 0 => return Err("nothing was asked for".to_owned()),
                    // What has come between the reading of the log and the join comes on top.
                    Way::Last(count) if replayed < count.min(at) => {
                        return Err(format!("{replayed} of the last {count}, at {at}"));
                    }
                    Way::Recovery | Way::Plain | Way::Last(_) => ledger.last = Some(at - replayed),
                }
                for (epoch, seq) in held.take().unwrap_or_default() {
                    ledger.take(epoch, seq)?;
                }
                // Whoever counts the joins may have stopped.
                let _ = joined.try_send(());
            }
            changed = end.changed() => changed.map_err(|_| "the test has given up".to_owned())?,
            () = tokio::time::sleep(PATIENCE) => return Err(format!("nothing comes any more after {ledger:?}")),
        }
    }
}

/// Subscribes beside the reading: what is not read keeps the answer from coming.
fn subscribe(
    emitter: &Emitter,
    room: &str,
    way: Way,
    ledger: &Ledger,
    connection: u32,
    answered: tokio::sync::mpsc::Sender<Joined>,
) {
    let wish = match way {
        Way::Since => {
            json!({ "room": room, "since": { "epoch": ledger.epoch, "seq": ledger.last.unwrap_or(0) } })
        }
        Way::Last(count) => json!({ "room": room, "last": count }),
        Way::Recovery | Way::Plain => json!({ "room": room }),
    };
    let emitter = emitter.clone();
    tokio::spawn(async move {
        // Without an answer the server has gone, and another connection follows.
        if let Ok(reply) = emitter.emit_with_ack("subscribe", &One(&wish), PATIENCE).await
            && let Ok(answer) = reply.args::<Value>()
        {
            let _ = answered.send(Joined { connection, answer }).await;
        }
    });
}

/// Reads a log up to a position; whether it got there before the server was gone. What comes live waits in the socket's
/// queue of notices.
async fn read_history(
    emitter: &Emitter,
    room: &str,
    ledger: &mut Ledger,
    until: u64,
) -> Result<bool, String> {
    while ledger.last < Some(until) {
        let since = ledger.last.unwrap_or(0);
        let asked = json!({ "room": room, "since": since, "limit": 500 });
        let Ok(reply) = emitter.emit_with_ack("history", &One(&asked), PATIENCE).await else {
            return Ok(false);
        };
        let page: Value = reply.args().map_err(|fault| format!("{fault:?}"))?;
        let epoch = page["epoch"].as_u64().ok_or_else(|| format!("no epoch: {page}"))?;
        let events = page["events"].as_array().ok_or_else(|| format!("no events: {page}"))?;
        let before = ledger.last;
        for seq in events.iter().filter_map(|event| event["seq"].as_u64()).filter(|seq| *seq <= until) {
            ledger.take(epoch, seq)?;
        }
        if ledger.last == before {
            return Err(format!("history after {since} does not reach {until}"));
        }
    }
    Ok(true)
}

/// Where an event of a room stands; `None` for all others.
fn position(wrapped: &Value, room: &str) -> Option<(u64, u64)> {
    (wrapped["room"] == room).then_some(())?;
    Some((wrapped["epoch"].as_u64()?, wrapped["seq"].as_u64()?))
}

#[test]
fn a_ledger_notices_what_is_missing_or_comes_twice() {
    let mut ledger = Ledger { epoch: 0, last: Some(4) };
    assert_eq!(ledger.take(9, 5), Ok(()));
    assert!(ledger.take(9, 5).is_err());
    assert!(ledger.take(9, 7).is_err());
    assert!(ledger.take(8, 6).is_err());
    assert_eq!(ledger.take(9, 6), Ok(()));
}
