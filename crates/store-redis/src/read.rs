//! Owns the questions about logs, records and health, and how the answers of the scripts are read. Does not know who asks.
//!
//! A question whose answer is long is asked in parts, each of bounded work for the server. What must be of one moment is
//! tied together by what never changes: an order, and a place in the log of one epoch.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use hub::event::Position;
use hub::room::RoomName;
use hub::store::{
    Found, IdempotencyKey, Kept, Listing, Page, Record, RecordKey, RecordKind, Span, StoreHealth,
};
use hub::time::Timestamp;
use redis::{Cmd, Value};

use crate::body;
use crate::fault::Failure;
use crate::health::Health;
use crate::keys::Keys;
use crate::link::Link;
use crate::record::{self, Part};
use crate::script::{self, Script};

/// How often a log is read from the beginning because it was pruned or begun anew meanwhile.
const BEGINNINGS_MAX: usize = 16;

/// Entries asked for in one part, at most; the scripts have bounds of their own.
const PART_MAX: usize = 1_000;

/// Asks.
pub(crate) struct Reads {
    pub(crate) link: Link,
    pub(crate) keys: Keys,
    pub(crate) health: Arc<Health>,
}

impl Reads {
    /// [`hub::store::Store::look`].
    pub(crate) async fn look(
        &self,
        records: Vec<RecordKey>,
        keys: Vec<IdempotencyKey>,
    ) -> Result<Found, Failure> {
        let mut found = Found::default();
        if !records.is_empty() {
            let mut command = redis::cmd("MGET");
            for key in &records {
                command.arg(self.keys.record(key));
            }
            for (key, value) in records.into_iter().zip(list(self.send(&command).await?)?) {
                found.records.push(match optional(value)? {
                    Some(value) => Some(record::decode(key, &value)?),
                    None => None,
                });
            }
        }
        if !keys.is_empty() {
            let mut command = redis::cmd("HMGET");
            command.arg(self.keys.of("keys"));
            for key in &keys {
                command.arg(body::key_field(key));
            }
            for value in list(self.send(&command).await?)? {
                let answer = optional(value)?.map(|value| body::decode_answer(&value));
                found.repeated.push(answer.transpose()?);
            }
        }
        Ok(found)
    }

    /// [`hub::store::Store::read`].
    pub(crate) async fn page(&self, room: RoomName, span: Span) -> Result<Page, Failure> {
        for _ in 0..BEGINNINGS_MAX {
            if let Some(page) = self.page_of_one_moment(&room, span).await? {
                return Ok(page);
            }
        }
        Err(Failure::Refused(format!("the log of {room} is pruned faster than it is read")))
    }

    /// The page, unless what it reads goes while it does.
    async fn page_of_one_moment(&self, room: &RoomName, span: Span) -> Result<Option<Page>, Failure> {
        let (begin, limit) = match span {
            Span::After { seq, limit } => (seq.to_string(), limit),
            Span::Last { limit } => (format!("-{limit}"), limit),
        };
        let mut part = self.log_part(room, &begin, limit).await?;
        self.health.see(part.order);
        let mut page = Page {
            epoch: part.epoch,
            first_seq: part.first_seq,
            last_seq: part.last_seq,
            order: part.order,
            events: Vec::new(),
        };
        loop {
            let from = part.from;
            let got = part.values.len() as u64;
            for (seq, value) in (from..=page.last_seq).zip(&part.values) {
                let position = Some(Position { epoch: page.epoch, seq });
                page.events.push(body::decode_kept(value, room, position)?);
            }
            let next = from + got;
            if got == 0 || page.events.len() >= limit || next > page.last_seq {
                return Ok(Some(page));
            }
            part = self.log_part(room, &(next - 1).to_string(), limit - page.events.len()).await?;
            if part.epoch != page.epoch || part.from != next {
                return Ok(None);
            }
        }
    }

    async fn log_part(&self, room: &RoomName, begin: &str, limit: usize) -> Result<LogPart, Failure> {
        let arguments =
            [room.as_str(), begin, &limit.min(PART_MAX).to_string()].map(|text| text.as_bytes().to_vec());
        let mut values = texts(self.call(&script::PAGE, &arguments).await?)?;
        if values.len() < 5 {
            return Err(short());
        }
        let rest = values.split_off(5);
        let [order, epoch, first_seq, last_seq, from] = numbers(&values)?.try_into().map_err(|_| short())?;
        Ok(LogPart { order, epoch, first_seq, last_seq, from, values: rest })
    }

    /// [`hub::store::Store::read_latest`].
    pub(crate) async fn latest(&self, room: RoomName) -> Result<Vec<Kept>, Failure> {
        // One that is replaced while others are read comes again, newer.
        let mut latest = BTreeMap::new();
        let mut after = 0;
        loop {
            let part = self.latest_part(&room, after, PART_MAX).await?;
            let Some((_, last)) = part.last() else { break };
            after = last.order;
            latest.extend(part);
        }
        let mut kept: Vec<Kept> = latest.into_values().collect();
        kept.sort_by_key(|kept| kept.order);
        Ok(kept)
    }

    async fn latest_part(
        &self,
        room: &RoomName,
        after: u64,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Kept)>, Failure> {
        let arguments =
            [room.as_str(), &after.to_string(), &limit.to_string()].map(|text| text.as_bytes().to_vec());
        let mut values = texts(self.call(&script::LATEST, &arguments).await?)?.into_iter();
        let order = values.next().ok_or_else(short)?;
        self.health.see(number(&order)?);
        let mut latest = Vec::new();
        while let Some(field) = values.next() {
            let value = values.next().ok_or_else(short)?;
            latest.push((field, body::decode_kept(&value, room, None)?));
        }
        Ok(latest)
    }

    /// [`hub::store::Store::read_after_order`].
    ///
    /// From the end of each log back to the order: the entries have it, and all that is read is wanted, but for the last.
    pub(crate) async fn after_order(
        &self,
        rooms: Vec<RoomName>,
        order: u64,
        limit: usize,
    ) -> Result<Option<Vec<Kept>>, Failure> {
        let mut seen = HashSet::new();
        let rooms: Vec<RoomName> = rooms.into_iter().filter(|room| seen.insert(room.clone())).collect();
        let arguments: Vec<Vec<u8>> = rooms.iter().map(|room| room.as_str().as_bytes().to_vec()).collect();
        // What we are told while this is under way is newer than the answer, and means nothing.
        let known = self.health.order();
        let values = numbers(&texts(self.call(&script::HEADS, &arguments).await?)?)?;
        let [newest, lost, ref heads @ ..] = values[..] else { return Err(short()) };
        // Less than we had been told ourselves: a failover has lost something, and nobody has written since.
        let is_behind = newest < known;
        self.health.see(newest);
        if is_behind || order > newest || order < lost {
            return Ok(None);
        }
        let mut found: Vec<(usize, Kept)> = Vec::new();
        for (at, (room, head)) in rooms.iter().zip(heads.chunks_exact(3)).enumerate() {
            let (pruned_order, newest_logged, newest_latest) = (head[0], head[1], head[2]);
            if pruned_order > order {
                return Ok(None);
            }
            // What has come since the heads were read is later than this answer.
            let mut take = |kept: Kept| {
                if kept.order <= newest {
                    found.push((at, kept));
                }
                found.len() > limit
            };
            if newest_logged > order && !self.log_after(room, order, limit, &mut take).await? {
                return Ok(None);
            }
            if newest_latest > order {
                let mut after = order;
                loop {
                    let part = self.latest_part(room, after, PART_MAX.min(limit.saturating_add(1))).await?;
                    let Some((_, last)) = part.last() else { break };
                    after = last.order;
                    for (_, kept) in part {
                        if take(kept) {
                            return Ok(None);
                        }
                    }
                }
            }
        }
        found.sort_by_key(|(at, kept)| (kept.order, *at));
        Ok(Some(found.into_iter().map(|(_, kept)| kept).collect()))
    }

    /// Gives what a log got after an order, the newest first; whether that was all. `take` says when there is too much.
    async fn log_after(
        &self,
        room: &RoomName,
        order: u64,
        limit: usize,
        take: &mut (impl FnMut(Kept) -> bool + Send),
    ) -> Result<bool, Failure> {
        let (mut before, mut known_epoch) = (0, None);
        // Small at first: most have missed little.
        let mut part = 32;
        loop {
            let arguments =
                [order, before, part.min(limit.saturating_add(1)) as u64].map(|number| number.to_string());
            let arguments: Vec<Vec<u8>> = [room.as_str()]
                .into_iter()
                .chain(arguments.iter().map(String::as_str))
                .map(Vec::from)
                .collect();
            let mut head = texts(self.call(&script::TAIL, &arguments).await?)?;
            if head.len() < 4 {
                return Err(short());
            }
            let values = head.split_off(4);
            let [epoch, pruned_order, is_all, from] = numbers(&head)?.try_into().map_err(|_| short())?;
            if pruned_order > order || *known_epoch.get_or_insert(epoch) != epoch {
                return Ok(false);
            }
            let count = values.len() as u64;
            for (back, value) in (0..count).zip(values) {
                let position = Some(Position { epoch, seq: from.saturating_sub(back) });
                if take(body::decode_kept(&value, room, position)?) {
                    return Ok(false);
                }
            }
            if is_all == 1 {
                return Ok(true);
            }
            before = (from + 1).saturating_sub(count);
            part = PART_MAX;
        }
    }

    /// [`hub::store::Store::list`].
    pub(crate) async fn list(&self, kind: RecordKind, listing: Listing) -> Result<Vec<Record>, Failure> {
        self.records(Part::of_kind(kind, &listing), listing.limit).await
    }

    /// [`hub::store::Store::due`].
    pub(crate) async fn due(&self, until: Timestamp, limit: usize) -> Result<Vec<Record>, Failure> {
        self.records(Part::due(until), limit).await
    }

    async fn records(&self, mut part: Part, limit: usize) -> Result<Vec<Record>, Failure> {
        let mut records = Vec::new();
        while records.len() < limit {
            let arguments = part.arguments((limit - records.len()).min(PART_MAX));
            let mut values = texts(self.call(&script::LIST, &arguments).await?)?.into_iter();
            let last = values.next().ok_or_else(short)?;
            while let Some(name) = values.next() {
                let value = values.next().ok_or_else(short)?;
                records.push(record::decode(record::decode_name(&name)?, &value)?);
            }
            if last.is_empty() {
                break;
            }
            part.go_on_after(&last);
        }
        Ok(records)
    }

    /// [`hub::store::Store::next_due`].
    pub(crate) async fn next_due(&self) -> Result<Option<Timestamp>, Failure> {
        let mut command = redis::cmd("ZRANGE");
        command.arg(self.keys.of("due")).arg(0).arg(0);
        let members = texts(self.send(&command).await?)?;
        members.first().map(|member| record::due_time(member)).transpose()
    }

    /// [`hub::store::Store::health`]: what the server says of itself, or why it says nothing.
    pub(crate) async fn health(&self) -> StoreHealth {
        let told = async {
            let order = self.send(redis::cmd("HGET").arg(self.keys.of("store")).arg("order")).await?;
            self.health.see(optional(order)?.map_or(Ok(0), |order| number(&order))?);
            let memory = self.send(redis::cmd("INFO").arg("memory")).await?;
            optional(memory)
        };
        let (memory, failure) = match told.await {
            Ok(memory) => (memory.unwrap_or_default(), None),
            Err(failure) => (Vec::new(), Some(failure.to_fault().to_string())),
        };
        let memory = String::from_utf8_lossy(&memory);
        let field = |name: &str| {
            memory.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim_end)
        };
        let policy = field("maxmemory_policy").filter(|policy| *policy != "noeviction");
        let evicts = policy.filter(|_| field("maxmemory").is_some_and(|bytes| bytes != "0"));
        let complaint = failure.or_else(|| self.health.complaint()).or_else(|| {
            evicts.map(|policy| {
                format!("maxmemory-policy is {policy}: what is kept may vanish; use noeviction")
            })
        });
        let bytes = field("used_memory").and_then(|bytes| bytes.parse().ok());
        StoreHealth { complaint, bytes, order: self.health.order() }
    }

    async fn call(&self, script: &Script, arguments: &[Vec<u8>]) -> Result<Value, Failure> {
        let arguments = arguments.iter().map(Vec::as_slice);
        let held = self.link.hold().await?;
        match self.link.call(&held, script, arguments.clone()).await {
            // The connection may have been a dead one; reading twice does no harm.
            Err(failure) if failure.is_passing() => {
                let held = self.link.hold().await?;
                self.link.call(&held, script, arguments).await
            }
            answer => answer,
        }
    }

    pub(crate) async fn send(&self, command: &Cmd) -> Result<Value, Failure> {
        let held = self.link.hold().await?;
        match self.link.send(&held, command).await {
            Err(failure) if failure.is_passing() => {
                let held = self.link.hold().await?;
                self.link.send(&held, command).await
            }
            answer => answer,
        }
    }
}

/// What `lua/page.lua` answers.
struct LogPart {
    order: u64,
    epoch: u64,
    first_seq: u64,
    last_seq: u64,
    /// Seq of the first value; 0 if there is none.
    from: u64,
    values: Vec<Vec<u8>>,
}

fn list(value: Value) -> Result<Vec<Value>, Failure> {
    match value {
        Value::Array(values) => Ok(values),
        _ => Err(short()),
    }
}

fn optional(value: Value) -> Result<Option<Vec<u8>>, Failure> {
    match value {
        Value::Nil => Ok(None),
        Value::BulkString(bytes) => Ok(Some(bytes)),
        Value::VerbatimString { text, .. } => Ok(Some(text.into_bytes())),
        _ => Err(short()),
    }
}

fn texts(value: Value) -> Result<Vec<Vec<u8>>, Failure> {
    list(value)?.into_iter().map(|value| optional(value)?.ok_or_else(short)).collect()
}

fn number(text: &[u8]) -> Result<u64, Failure> {
    let number = body::text(text)?.parse();
    number.map_err(|_| Failure::Damaged("a number of an answer is none".to_owned()))
}

fn numbers(texts: &[Vec<u8>]) -> Result<Vec<u64>, Failure> {
    texts.iter().map(|text| number(text)).collect()
}

fn short() -> Failure {
    Failure::Damaged("an answer of the server is of another form than was asked for".to_owned())
}
