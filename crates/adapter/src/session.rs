//! Owns one connection of a peer: what is subscribed to, what comes in, what goes out, and looks at who listens. Does not
//! know what messages mean. Invariant: what waits here is bounded; a peer that cannot follow drops the newest and counts it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{PushInfo, PushKind, RedisError, Value};
use store_redis::Push;
use tokio::sync::{mpsc, watch};

use crate::family::{Outgoing, Way};
use crate::peer::Shared;
use crate::report::Counts;

/// Messages that may wait to be handled. 10,000: a second of a busy cluster.
const INBOX_MAX: usize = 10_000;

/// Bytes that these may have together.
const INBOX_BYTES_MAX: usize = 64 << 20;

/// Messages that are published by one command after the other without waiting in between.
const PIPELINE_MAX: usize = 256;

/// Time in which a command must be answered.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(5);

/// How often it is looked who listens. Lower: more commands. Higher: who has just begun to listen misses more.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// How often it is looked which rooms have members here, where rooms have channels.
const ROOMS_EVERY: Duration = Duration::from_millis(300);

/// A message that came.
struct Came {
    way: Way,
    channel: String,
    body: Vec<u8>,
}

/// What waits to be handled.
#[derive(Default)]
struct Waiting {
    /// Bytes of all of it.
    bytes: AtomicUsize,
    /// Messages that may change who is in which room, the one that is being handled included: until they are through,
    /// nobody can say whom the next one is for.
    changes: AtomicUsize,
}

/// What the connection tells.
enum News {
    Came(Came),
    Cut,
}

/// Connects, and is a peer until it is stopped.
///
/// # Errors
/// The connection does not serve any more, for the reason that is told.
pub(crate) async fn run(
    shared: &Arc<Shared>,
    outbox: &mut mpsc::Receiver<Outgoing>,
    stopped: &mut watch::Receiver<bool>,
) -> Result<(), String> {
    let (to, inbox) = mpsc::channel(INBOX_MAX);
    let waiting = Arc::new(Waiting::default());
    let push = Push::new(hearing(shared.clone(), to, waiting.clone()));
    // Whoever has the counted channel has all that is sharded.
    let key = shared.family.counted(0);
    let mut connection = shared.connector.connect(&key, COMMAND_TIMEOUT, Some(push)).await?;
    shared.is_cluster.store(is_cluster(&mut connection).await?, Ordering::Relaxed);
    for (way, channel) in shared.family.subscriptions() {
        subscribe(&mut connection, way.subscribe(), &channel).await?;
    }
    look(shared, &mut connection).await?;
    Counts::add(&shared.counts.connections);
    shared.counts.complain(None);
    shared.hold(Some(connection.clone()));
    tracing::info!(redis = shared.connector.shown(), "a peer of other Socket.IO servers");
    let outcome = tokio::select! {
        outcome = read(shared, inbox, &waiting) => outcome,
        outcome = write(shared, outbox, connection.clone()) => outcome,
        outcome = look_on(shared, connection.clone()) => outcome,
        outcome = follow_rooms(shared, connection) => outcome,
        _ = stopped.wait_for(|is_stopped| *is_stopped) => Ok(()),
    };
    shared.hold(None);
    outcome
}

/// Takes what a connection hears, as far as it may be for somebody here.
fn hearing(
    shared: Arc<Shared>,
    to: mpsc::Sender<News>,
    waiting: Arc<Waiting>,
) -> impl Fn(PushInfo) + Send + Sync + 'static {
    move |info| {
        if info.kind == PushKind::Disconnection {
            // If there is no room the next look finds out.
            let _ = to.try_send(News::Cut);
            return;
        }
        let Some(came) = came(info) else { return };
        let changes = usize::from(is_change(&shared, &came));
        if waiting.changes.load(Ordering::Acquire) == 0 && !may_be_for_us(&shared, &came) {
            return;
        }
        let bytes = came.body.len();
        let is_full = waiting.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes > INBOX_BYTES_MAX;
        waiting.changes.fetch_add(changes, Ordering::Release);
        if is_full || to.try_send(News::Came(came)).is_err() {
            waiting.bytes.fetch_sub(bytes, Ordering::Relaxed);
            waiting.changes.fetch_sub(changes, Ordering::Release);
            Counts::add(&shared.counts.dropped);
        }
    }
}

/// Whether a message may be for somebody here, as far as its channel tells.
fn may_be_for_us(shared: &Shared, came: &Came) -> bool {
    let Some(origin) = shared.family.origin(came.way, &came.channel) else { return false };
    match (origin.namespace, origin.room) {
        (Some(place), Some(room)) => shared.local.may_have(&shared.family.namespaces[place].0, Some(room)),
        (_, None) | (None, _) => true,
    }
}

/// Whether a message may change who is in which room: what is for one room only is an event.
fn is_change(shared: &Shared, came: &Came) -> bool {
    shared.family.origin(came.way, &came.channel).is_some_and(|origin| origin.room.is_none())
}

/// The message of a push: `channel, body`, or `pattern, channel, body`.
fn came(info: PushInfo) -> Option<Came> {
    let way = match info.kind {
        PushKind::Message => Way::Plain,
        PushKind::PMessage => Way::Pattern,
        PushKind::SMessage => Way::Shard,
        _ => return None,
    };
    let mut parts = info.data.into_iter().rev();
    match (parts.next(), parts.next()) {
        (Some(Value::BulkString(body)), Some(Value::BulkString(channel))) => {
            Some(Came { way, channel: String::from_utf8(channel).ok()?, body })
        }
        _ => None,
    }
}

async fn read(
    shared: &Arc<Shared>,
    mut inbox: mpsc::Receiver<News>,
    waiting: &Waiting,
) -> Result<(), String> {
    while let Some(News::Came(came)) = inbox.recv().await {
        waiting.bytes.fetch_sub(came.body.len(), Ordering::Relaxed);
        if may_be_for_us(shared, &came) {
            match shared.family.decode(came.way, &came.channel, &came.body) {
                Ok(Some(incoming)) => shared.handle(incoming).await,
                Ok(None) => {}
                Err(why) => {
                    Counts::add(&shared.counts.undecodable);
                    let channel = came.channel.as_str();
                    tracing::debug!(channel, why, "a message of another server is not understood");
                }
            }
        }
        waiting.changes.fetch_sub(usize::from(is_change(shared, &came)), Ordering::Release);
    }
    Err("the connection is gone".to_owned())
}

async fn write(
    shared: &Shared,
    outbox: &mut mpsc::Receiver<Outgoing>,
    mut connection: MultiplexedConnection,
) -> Result<(), String> {
    let mut waiting = Vec::with_capacity(PIPELINE_MAX);
    while outbox.recv_many(&mut waiting, PIPELINE_MAX).await > 0 {
        let mut pipeline = redis::pipe();
        for Outgoing { is_sharded, channel, body } in &waiting {
            pipeline.cmd(if *is_sharded { "SPUBLISH" } else { "PUBLISH" }).arg(channel).arg(body);
        }
        pipeline.query_async::<Value>(&mut connection).await.map_err(said)?;
        shared.counts.sent.fetch_add(waiting.len() as u64, Ordering::Relaxed);
        waiting.clear();
    }
    // Nobody is left who might send.
    std::future::pending().await
}

async fn look_on(shared: &Shared, mut connection: MultiplexedConnection) -> Result<(), String> {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        look(shared, &mut connection).await?;
    }
}

/// Counts who listens, others and our own apart.
async fn look(shared: &Shared, connection: &mut MultiplexedConnection) -> Result<(), String> {
    let family = &shared.family;
    for (place, (namespace, _)) in family.namespaces.iter().enumerate() {
        let all = listeners(connection, family.is_sharded(), &family.counted(place)).await?;
        let ours = listeners(connection, false, &family.marker(namespace)).await?;
        shared.others[place].store(all.saturating_sub(ours), Ordering::Relaxed);
    }
    if let Some(channel) = &family.python {
        let all = listeners(connection, false, channel).await?;
        let ours = listeners(connection, false, &crate::family::Family::python_marker(channel)).await?;
        shared.python_others.store(all.saturating_sub(ours), Ordering::Relaxed);
    }
    Ok(())
}

/// How many connections listen to a channel, patterns not counted.
pub(crate) async fn listeners(
    connection: &mut MultiplexedConnection,
    is_sharded: bool,
    channel: &str,
) -> Result<u64, String> {
    let mut count = redis::cmd("PUBSUB");
    count.arg(if is_sharded { "SHARDNUMSUB" } else { "NUMSUB" }).arg(channel);
    let answer: Value = count.query_async(connection).await.map_err(said)?;
    let number = |value: &Value| match value {
        Value::Int(number) => u64::try_from(*number).ok(),
        _ => None,
    };
    // RESP3 may say it as a map.
    let count = match &answer {
        Value::Array(parts) => parts.get(1).and_then(number),
        Value::Map(pairs) => pairs.first().and_then(|(_, count)| number(count)),
        _ => None,
    };
    count.ok_or_else(|| format!("PUBSUB answers {answer:?}"))
}

/// Listens to the channels of rooms that have members here, where rooms have channels.
async fn follow_rooms(shared: &Shared, mut connection: MultiplexedConnection) -> Result<(), String> {
    if !shared.family.has_room_channels() {
        return std::future::pending().await;
    }
    let mut heard = BTreeSet::new();
    loop {
        let mut wanted = BTreeSet::new();
        for (place, (namespace, _)) in shared.family.namespaces.iter().enumerate() {
            if shared.others[place].load(Ordering::Relaxed) > 0 {
                let rooms = shared.local.rooms(namespace).await;
                wanted.extend(rooms.iter().filter_map(|room| shared.family.room_channel(namespace, room)));
            }
        }
        for channel in wanted.difference(&heard) {
            subscribe(&mut connection, "SSUBSCRIBE", channel).await?;
        }
        for channel in heard.difference(&wanted) {
            subscribe(&mut connection, "SUNSUBSCRIBE", channel).await?;
        }
        heard = wanted;
        tokio::time::sleep(ROOMS_EVERY).await;
    }
}

async fn subscribe(connection: &mut MultiplexedConnection, word: &str, channel: &str) -> Result<(), String> {
    let mut command = redis::cmd(word);
    command.arg(channel);
    command.query_async::<Value>(connection).await.map(drop).map_err(said)
}

async fn is_cluster(connection: &mut MultiplexedConnection) -> Result<bool, String> {
    let mut info = redis::cmd("INFO");
    info.arg("cluster");
    let told: String = info.query_async(connection).await.map_err(said)?;
    Ok(told.contains("cluster_enabled:1"))
}

fn said(error: RedisError) -> String {
    error.to_string()
}
