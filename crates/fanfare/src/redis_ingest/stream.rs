//! Owns the reading of one stream by a consumer group: own unfinished entries, those of the dead, new ones. Does not know
//! what entries mean. Invariants: an entry is acknowledged after it is kept, known, or among the dead; the latter in one
//! step.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use queues::{Health, Identity, Intake, Message};
use redis::aio::MultiplexedConnection;
use redis::{Cmd, RedisError, Value};
use store_redis::Connector;
use tokio::sync::watch;

use super::batch::{End, Held, Keeper, count};
use super::config::{DeadLetter, StreamSource};
use super::entry::{self, Entry};
use super::{Reader, until_stopped};

/// How long Redis lets one read wait for new entries. Lower: more commands of an idle server. Higher: a stop takes
/// longer.
const BLOCK: Duration = Duration::from_secs(1);

/// Time in which a command must be answered, beside what it was asked to wait.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);

/// Characters of the reason that goes along with the dead.
const REASON_CHARS_MAX: usize = 500;

/// What an entry without an event is refused with.
const NO_EVENT: &str =
    "an entry has its event, or an array of events, as JSON in the field `json`, or has one field only";

/// Has a consumer go from the group, if it has left nothing unfinished.
const LEAVE: &str = "for _, fields in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do \
    local consumer = {} \
    for i = 1, #fields, 2 do consumer[fields[i]] = fields[i + 1] end \
    if consumer['name'] == ARGV[2] and consumer['pending'] == 0 then \
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2]) end end";

/// Reads one stream.
pub(super) struct StreamReader {
    connector: Connector,
    source: StreamSource,
    keeper: Keeper,
    health: Arc<Health>,
}

impl StreamReader {
    pub(super) fn new(
        connector: Connector,
        source: StreamSource,
        intake: Arc<dyn Intake>,
        health: Arc<Health>,
    ) -> Self {
        Self { connector, source, keeper: Keeper::new(intake, health.clone()), health }
    }

    /// Makes the group, from the stream's beginning, so that what is there already is taken.
    async fn open(&self) -> Result<MultiplexedConnection, String> {
        let StreamSource { stream, group, .. } = &self.source;
        let mut connection = self.connector.connect(stream, BLOCK + COMMAND_TIMEOUT, None).await?;
        let mut make = redis::cmd("XGROUP");
        make.arg("CREATE").arg(stream).arg(group).arg("0").arg("MKSTREAM");
        match make.query_async::<Value>(&mut connection).await {
            Ok(_) => Ok(connection),
            Err(error) if error.code() == Some("BUSYGROUP") => Ok(connection),
            Err(error) => Err(said(error)),
        }
    }

    /// `XREADGROUP`: with `>` new entries, else our own unfinished ones after `after`.
    fn reading(&self, after: &str) -> Cmd {
        let StreamSource { stream, group, consumer, batch, .. } = &self.source;
        let mut read = redis::cmd("XREADGROUP");
        read.arg("GROUP").arg(group).arg(consumer).arg("COUNT").arg(*batch);
        if after == ">" {
            read.arg("BLOCK").arg(BLOCK.as_millis() as u64);
        }
        read.arg("STREAMS").arg(stream).arg(after);
        read
    }

    fn claiming(&self, cursor: &str) -> Cmd {
        let StreamSource { stream, group, consumer, batch, claim_after, .. } = &self.source;
        let mut claim = redis::cmd("XAUTOCLAIM");
        claim.arg(stream).arg(group).arg(consumer).arg(claim_after.as_millis() as u64);
        claim.arg(cursor).arg("COUNT").arg(*batch);
        claim
    }

    /// Takes over what others have left unfinished.
    async fn claim(
        &mut self,
        connection: &mut MultiplexedConnection,
        stopped: &mut watch::Receiver<bool>,
    ) -> Result<(), String> {
        let mut cursor = "0-0".to_owned();
        while !*stopped.borrow() {
            let answer = self.claiming(&cursor).query_async(connection).await.map_err(said)?;
            let (next, entries) = entry::claimed(answer)?;
            self.take(connection, entries, stopped).await?;
            if next == "0-0" {
                break;
            }
            cursor = next;
        }
        Ok(())
    }

    /// Keeps entries, however often it takes, and acknowledges them.
    async fn take(
        &mut self,
        connection: &mut MultiplexedConnection,
        entries: Vec<Entry>,
        stopped: &mut watch::Receiver<bool>,
    ) -> Result<(), String> {
        self.health.heard();
        let (mut waiting, mut settled) = (VecDeque::new(), Vec::new());
        for entry in entries {
            count(&self.health.received);
            match entry.message() {
                Some(message) => {
                    count(&self.health.underway);
                    let identity = Identity::of(&message);
                    waiting.push_back(Held::new(entry, message, identity));
                }
                // Whoever deleted it does not want it to be kept.
                None if entry.fields.is_none() => {
                    count(&self.health.ignored);
                    settled.push(entry.id);
                }
                None => {
                    count(&self.health.dead);
                    self.bury(connection, &entry, "bad_request", NO_EVENT).await?;
                }
            }
        }
        self.acknowledge(connection, &settled).await?;
        while !waiting.is_empty() && !*stopped.borrow() {
            let round = self.keeper.keep(&mut waiting).await;
            let mut settled = Vec::with_capacity(round.ended.len());
            for (entry, end) in round.ended {
                match end {
                    End::Settled => settled.push(entry.id),
                    End::Dead { code, reason } => self.bury(connection, &entry, code, &reason).await?,
                }
            }
            self.acknowledge(connection, &settled).await?;
            if let Some(pause) = round.pause {
                // Who does not listen cannot hear.
                self.health.heard();
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = until_stopped(stopped) => {}
                }
            }
            self.health.heard();
        }
        Ok(())
    }

    /// Leaves the group, so that names that never come back do not gather there.
    async fn leave(&self, connection: &mut MultiplexedConnection) {
        let StreamSource { stream, group, consumer, .. } = &self.source;
        let mut leave = redis::cmd("EVAL");
        leave.arg(LEAVE).arg(1).arg(stream).arg(group).arg(consumer);
        if let Err(error) = leave.query_async::<Value>(connection).await {
            tracing::debug!(stream, %error, "the group still has our name");
        }
    }

    async fn acknowledge(
        &self,
        connection: &mut MultiplexedConnection,
        ids: &[String],
    ) -> Result<(), String> {
        if ids.is_empty() {
            return Ok(());
        }
        let StreamSource { stream, group, .. } = &self.source;
        let mut acknowledge = redis::cmd("XACK");
        acknowledge.arg(stream).arg(group).arg(ids);
        acknowledge.query_async::<Value>(connection).await.map_err(said)?;
        Ok(())
    }

    /// Puts an entry among the dead, and acknowledges it in the same step.
    async fn bury(
        &self,
        connection: &mut MultiplexedConnection,
        entry: &Entry,
        code: &str,
        reason: &str,
    ) -> Result<(), String> {
        let StreamSource { stream, group, dead_letter, .. } = &self.source;
        tracing::warn!(stream, id = entry.id, code, reason, "an entry cannot be kept");
        let fields = entry.fields.as_deref().unwrap_or_default();
        let add = burial(dead_letter, fields, &[("stream", stream), ("id", &entry.id)], code, reason);
        let mut acknowledge = redis::cmd("XACK");
        acknowledge.arg(stream).arg(group).arg(&entry.id);
        let mut step = redis::pipe();
        step.atomic().add_command(add).add_command(acknowledge);
        step.query_async::<Value>(connection).await.map_err(said)?;
        Ok(())
    }
}

impl Reader for StreamReader {
    async fn read(&mut self, stopped: &mut watch::Receiver<bool>) -> Result<(), String> {
        let mut connection = self.open().await?;
        self.health.connected();
        self.health.underway.store(0, std::sync::atomic::Ordering::Relaxed);
        tracing::info!(stream = self.source.stream, redis = self.connector.shown(), "taking events");
        // What we had before a kill or a cut comes first, in its order.
        let mut after = "0".to_owned();
        while !*stopped.borrow() {
            let answer = self.reading(&after).query_async(&mut connection).await.map_err(said)?;
            let entries = entry::read(answer)?;
            let Some(last) = entries.last() else { break };
            after = last.id.clone();
            self.take(&mut connection, entries, stopped).await?;
        }
        let mut claimed_at: Option<Instant> = None;
        while !*stopped.borrow() {
            // Twice in the time, so that nothing waits much longer than it.
            if claimed_at.is_none_or(|at| at.elapsed() >= self.source.claim_after / 2) {
                self.claim(&mut connection, stopped).await?;
                claimed_at = Some(Instant::now());
            }
            let answer = self.reading(">").query_async(&mut connection).await.map_err(said)?;
            self.take(&mut connection, entry::read(answer)?, stopped).await?;
        }
        self.leave(&mut connection).await;
        Ok(())
    }
}

/// The command that puts something among the dead: as it came, where it came from, and why.
pub(super) fn burial(
    dead_letter: &DeadLetter,
    fields: &[(Vec<u8>, Vec<u8>)],
    from: &[(&str, &str)],
    code: &str,
    reason: &str,
) -> Cmd {
    let mut add = redis::cmd("XADD");
    add.arg(&dead_letter.stream).arg("MAXLEN").arg("~").arg(dead_letter.entries_max).arg("*");
    for (name, value) in fields {
        add.arg(name).arg(value);
    }
    for (name, value) in from {
        add.arg(format!("x-fanfare-{name}")).arg(*value);
    }
    let reason: String = reason.chars().take(REASON_CHARS_MAX).collect();
    add.arg("x-fanfare-code").arg(code).arg("x-fanfare-reason").arg(reason);
    add
}

/// What Redis says is wrong.
pub(super) fn said(error: RedisError) -> String {
    error.to_string()
}

/// The message of a body that came without an id: each counts.
pub(super) fn unnamed(body: Vec<u8>) -> Message {
    Message { body, ..Message::default() }
}
