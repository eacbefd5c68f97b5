//! Owns the listening to one channel, or to a pattern of channels: what comes is kept in the order in which it comes. Does
//! not know what messages mean. Invariant: what waits here is bounded; Redis does not repeat what is dropped.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use queues::{Health, Identity, Intake, random};
use redis::aio::MultiplexedConnection;
use redis::{PushInfo, PushKind, Value};
use store_redis::{Connector, Push};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::batch::{End, Held, Keeper, count};
use super::config::ChannelSource;
use super::stream::{burial, said, unnamed};
use super::turns::Turns;
use super::{Reader, until_stopped};

/// Messages that may wait to be kept. When there are more, the newest are dropped, and counted. 10,000: a second's worth of
/// a store that is busy.
const WAITING_MAX: usize = 10_000;

/// Bytes that these may have together; the same.
const WAITING_BYTES_MAX: usize = 64 << 20;

/// Time in which a command must be answered.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(5);

/// A message as it came.
struct Heard {
    channel: String,
    body: Vec<u8>,
}

/// What the connection tells.
enum News {
    Heard(Heard),
    Cut,
}

/// What the connection has told, and was not taken yet.
struct Inbox {
    news: mpsc::Receiver<News>,
    bytes: Arc<AtomicUsize>,
}

impl Inbox {
    /// Makes room for what comes next.
    fn taken(&self, heard: Heard) -> Heard {
        self.bytes.fetch_sub(heard.body.len(), Ordering::Relaxed);
        heard
    }
}

/// Listens to one channel.
pub(super) struct ChannelReader {
    connector: Connector,
    source: ChannelSource,
    keeper: Keeper,
    health: Arc<Health>,
    turns: Turns,
    /// What is read and not kept yet, also over a cut.
    waiting: VecDeque<Held<Heard>>,
    /// How many came before, so that no two have one name.
    number: u64,
}

impl ChannelReader {
    pub(super) fn new(
        connector: Connector,
        source: ChannelSource,
        intake: Arc<dyn Intake>,
        health: Arc<Health>,
    ) -> Self {
        let keeper = Keeper::new(intake, health.clone());
        let turns = Turns::new(&source.channel);
        Self { connector, source, keeper, health, turns, waiting: VecDeque::new(), number: random() }
    }

    /// Connects and subscribes; what is published from then on comes from the inbox.
    async fn open(&self) -> Result<(MultiplexedConnection, Inbox), String> {
        let (to, news) = mpsc::channel(WAITING_MAX);
        let inbox = Inbox { news, bytes: Arc::default() };
        let (bytes, health) = (inbox.bytes.clone(), self.health.clone());
        let push = Push::new(move |info| {
            let one = match info.kind {
                // If there is no room the next look finds out.
                PushKind::Disconnection => return drop(to.try_send(News::Cut)),
                PushKind::Message | PushKind::PMessage => heard(info),
                _ => None,
            };
            let Some(one) = one else { return };
            let size = one.body.len();
            let is_full = bytes.fetch_add(size, Ordering::Relaxed) + size > WAITING_BYTES_MAX;
            if is_full || to.try_send(News::Heard(one)).is_err() {
                bytes.fetch_sub(size, Ordering::Relaxed);
                count(&health.dropped);
            }
        });
        let key = Turns::key(&self.source.channel);
        let mut connection = self.connector.connect(&key, COMMAND_TIMEOUT, Some(push)).await?;
        let command = if self.source.is_pattern { "PSUBSCRIBE" } else { "SUBSCRIBE" };
        let mut subscribe = redis::cmd(command);
        subscribe.arg(&self.source.channel);
        subscribe.query_async::<Value>(&mut connection).await.map_err(said)?;
        Ok((connection, inbox))
    }

    /// Whether what comes is ours to keep.
    fn is_our_turn(&self) -> bool {
        !self.source.takes_turns || self.turns.is_ours()
    }

    fn take(&mut self, heard: Heard) {
        count(&self.health.received);
        self.health.heard();
        if !self.is_our_turn() {
            return count(&self.health.ignored);
        }
        count(&self.health.underway);
        let message = unnamed(heard.body.clone());
        self.number = self.number.wrapping_add(1);
        let identity = Identity::Twin(format!("{:016x}", self.number));
        self.waiting.push_back(Held::new(heard, message, identity));
    }

    /// Keeps what waits, as far as that is possible now. Answers when the rest is to be tried.
    async fn keep(&mut self, connection: &mut MultiplexedConnection) -> Result<Option<Instant>, String> {
        let round = self.keeper.keep(&mut self.waiting).await;
        for (heard, end) in round.ended {
            let End::Dead { code, reason } = end else { continue };
            tracing::warn!(channel = heard.channel, code, reason, "a message cannot be kept");
            let fields = [(b"json".to_vec(), heard.body)];
            let from = [("channel", heard.channel.as_str())];
            let add = burial(&self.source.dead_letter, &fields, &from, code, &reason);
            add.query_async::<Value>(connection).await.map_err(said)?;
        }
        // After a failure the rest follows at once when the first of it is kept.
        let pause = round.pause.or((!self.waiting.is_empty()).then_some(Duration::ZERO));
        Ok(pause.map(|pause| Instant::now() + pause))
    }

    /// Sees whether the connection lives, and whose turn it is.
    async fn look(&mut self, connection: &mut MultiplexedConnection) -> Result<(), String> {
        if self.source.takes_turns {
            self.turns.take(connection).await?;
        } else {
            redis::cmd("PING").query_async::<Value>(connection).await.map_err(said)?;
        }
        self.health.heard();
        Ok(())
    }

    async fn listen(
        &mut self,
        connection: &mut MultiplexedConnection,
        mut inbox: Inbox,
        stopped: &mut watch::Receiver<bool>,
    ) -> Result<(), String> {
        let mut looks = tokio::time::interval(Turns::RENEW);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut retry_at = self.keep(connection).await?;
        let mut dropped = self.health.dropped.load(Ordering::Relaxed);
        while !*stopped.borrow() {
            let has_room = retry_at.is_none();
            tokio::select! {
                biased;
                _ = looks.tick() => self.look(connection).await?,
                one = inbox.news.recv(), if has_room => match one {
                    Some(News::Heard(heard)) => {
                        self.take(inbox.taken(heard));
                        // What came along with it is kept along with it.
                        while self.waiting.len() < self.source.batch {
                            match inbox.news.try_recv() {
                                Ok(News::Heard(heard)) => self.take(inbox.taken(heard)),
                                Ok(News::Cut) => return Err("the connection is gone".to_owned()),
                                Err(_) => break,
                            }
                        }
                        retry_at = self.keep(connection).await?;
                    }
                    Some(News::Cut) | None => return Err("the connection is gone".to_owned()),
                },
                () = sleep_until(retry_at.unwrap_or_else(Instant::now)), if retry_at.is_some() => {
                    retry_at = self.keep(connection).await?;
                }
                () = until_stopped(stopped) => {}
            }
            let before = std::mem::replace(&mut dropped, self.health.dropped.load(Ordering::Relaxed));
            let lost = dropped - before;
            if lost > 0 {
                let channel = &self.source.channel;
                tracing::error!(channel, lost, "messages came faster than they can be kept, and are lost");
            }
        }
        Ok(())
    }
}

impl Reader for ChannelReader {
    async fn read(&mut self, stopped: &mut watch::Receiver<bool>) -> Result<(), String> {
        let (mut connection, inbox) = self.open().await?;
        // Before anything is taken: what comes to nobody in turn is lost.
        self.look(&mut connection).await?;
        self.health.connected();
        self.health.underway.store(self.waiting.len() as u64, Ordering::Relaxed);
        tracing::info!(channel = self.source.channel, redis = self.connector.shown(), "taking events");
        self.listen(&mut connection, inbox, stopped).await?;
        if self.source.takes_turns {
            self.turns.give(&mut connection).await;
        }
        Ok(())
    }
}

/// The message of a push: `channel, body`, or `pattern, channel, body`.
fn heard(info: PushInfo) -> Option<Heard> {
    let mut parts = info.data.into_iter().rev();
    match (parts.next(), parts.next()) {
        (Some(Value::BulkString(body)), Some(Value::BulkString(channel))) => {
            Some(Heard { channel: String::from_utf8_lossy(&channel).into_owned(), body })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_taken_from_channels_and_patterns() {
        let word = |text: &str| Value::BulkString(text.into());
        let push = |data| heard(PushInfo { kind: PushKind::Message, data });
        let plain = push(vec![word("c"), word("{}")]).unwrap();
        assert_eq!((plain.channel.as_str(), plain.body.as_slice()), ("c", &b"{}"[..]));
        let pattern = push(vec![word("c*"), word("c1"), word("[]")]).unwrap();
        assert_eq!((pattern.channel.as_str(), pattern.body.as_slice()), ("c1", &b"[]"[..]));
        assert!(push(vec![]).is_none() && push(vec![Value::Nil, Value::Int(1)]).is_none());
    }
}
