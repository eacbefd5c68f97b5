//! Owns what the writer knows of each room: where its log ends and begins, what it weighs, and what must go. Does not
//! know commits or transactions: whoever rolls one back must [`Heads::clear`], because heads run ahead of the tables.
//!
//! A row of `rooms` is written when a room is new and when its log's beginning moves, not with every event: the end of
//! a log is its last row.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};

use hub::event::Position;
use hub::policy::Retention;
use hub::room::RoomName;
use hub::store::{Append, event_bytes};
use hub::time::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use crate::body::{self, Heading};
use crate::fault::Failure;
use crate::schema::{self, SEQ_MAX, number, place, seq_of, unsigned};

/// Heads of each of two generations. 16,384: rooms that are written to in the same minutes, at a few hundred bytes
/// each; a head that was forgotten costs four look-ups.
const HEADS_MAX: usize = 16_384;

/// The oldest events of a log whose headings a head holds at most. 64: reading them costs one query.
const AHEAD_MAX: usize = 64;

/// Rows below a log's beginning that may wait until they are deleted together: a page of the table or two.
const LEFTOVERS_MAX: u64 = 64;

/// Rows deleted from one room at the end of one batch. 20,000: twice what a batch may add, and some 20 ms.
const DELETED_MAX: u64 = 20_000;

/// Rooms swept in one batch, so that a long pause is not made up for all at once.
const SWEPT_MAX: i64 = 256;

/// The heads of the rooms that were used last, and the times at which rooms want a sweep.
pub(crate) struct Heads {
    young: HashMap<RoomName, Head>,
    old: HashMap<RoomName, Head>,
    /// Rooms that were appended to since the last [`Heads::prune`].
    touched: Vec<RoomName>,
    /// No room has anything too old at this time or earlier.
    quiet_until: Timestamp,
    /// Seeded by the system: what makes epochs differ from those of every other database.
    random: RandomState,
    buffer: Vec<u8>,
}

struct Head {
    id: i64,
    epoch: u64,
    first_seq: u64,
    last_seq: u64,
    /// Bytes of the epoch's events up to the last one.
    through: u64,
    pruned_order: u64,
    pruned_through: u64,
    /// The lowest seq that may have a row; below `first_seq` these are leftovers.
    rows_from: u64,
    age_max: i64,
    expires_at: Option<i64>,
    /// Headings of the first events; empty if they were not read yet.
    oldest: VecDeque<Heading>,
    /// How many headings are read next time.
    ahead: usize,
    latest: Option<Latest>,
    touched: Option<Retention>,
    /// Whether the row of `rooms` says something else.
    is_stale: bool,
}

/// What a room keeps as the latest of each name and key.
#[derive(Clone, Copy)]
struct Latest {
    events: u64,
    bytes: u64,
}

/// What a room may keep.
#[derive(Clone, Copy)]
struct Bounds {
    now: Timestamp,
    events_max: u64,
    bytes_max: u64,
    age_max: u64,
}

impl Bounds {
    fn are_exceeded(self, events: u64, bytes: u64, oldest: Timestamp) -> bool {
        events > self.events_max
            || bytes > self.bytes_max
            || self.now.0.saturating_sub(oldest.0) > self.age_max
    }
}

impl Heads {
    pub(crate) fn new() -> Self {
        Self {
            young: HashMap::new(),
            old: HashMap::new(),
            touched: Vec::new(),
            quiet_until: Timestamp(0),
            random: RandomState::new(),
            buffer: Vec::new(),
        }
    }

    /// Forgets everything: the tables hold.
    pub(crate) fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
        self.touched.clear();
        self.quiet_until = Timestamp(0);
    }

    /// Puts an event at the end of a room's log.
    pub(crate) fn append(
        &mut self,
        tables: &Connection,
        now: Timestamp,
        name: &RoomName,
        retention: Retention,
        (order, event): (u64, &Append),
    ) -> Result<Position, Failure> {
        self.bring(tables, name, retention)?;
        let head = self.young.get_mut(name).expect("invariant: it was brought");
        if head.epoch == 0 || head.last_seq >= SEQ_MAX {
            head.begin_epoch(tables, order, epoch(&self.random, now))?;
        }
        head.last_seq += 1;
        head.through = head.through.saturating_add(event_bytes(&event.event));
        let heading = Heading { order, through: head.through, at: event.event.at };
        body::encode_event(&mut self.buffer, heading, event);
        tables
            .prepare_cached("INSERT INTO log (place, body) VALUES (?, ?)")?
            .execute(params![place(head.id, head.last_seq), self.buffer])?;
        let before = head.last_seq - head.first_seq;
        if head.oldest.len() < AHEAD_MAX && head.oldest.len() as u64 == before {
            head.oldest.push_back(heading);
        }
        Ok(Position { epoch: head.epoch, seq: head.last_seq })
    }

    /// Makes an event the latest of its name and key in a room.
    pub(crate) fn put_latest(
        &mut self,
        tables: &Connection,
        name: &RoomName,
        retention: Retention,
        (order, append): (u64, &Append),
    ) -> Result<(), Failure> {
        self.bring(tables, name, retention)?;
        let head = self.young.get_mut(name).expect("invariant: it was brought");
        let mut latest = head.latest(tables)?;
        let before: Option<i64> = tables
            .prepare_cached("SELECT bytes FROM latest WHERE room = ? AND name = ? AND key = ?")?
            .query_row(params![head.id, append.event.name, append.key], |row| row.get(0))
            .optional()?;
        let bytes = event_bytes(&append.event);
        latest.events += u64::from(before.is_none());
        latest.bytes = latest.bytes.saturating_sub(before.map_or(0, unsigned)).saturating_add(bytes);
        head.latest = Some(latest);
        let heading = Heading { order, through: 0, at: append.event.at };
        body::encode_event(&mut self.buffer, heading, append);
        tables
            .prepare_cached(
                "INSERT INTO latest (room, name, key, ord, at, bytes, body) VALUES (?, ?, ?, ?, ?, ?, ?)
                 ON CONFLICT (room, name, key) DO UPDATE
                 SET ord = excluded.ord, at = excluded.at, bytes = excluded.bytes, body = excluded.body",
            )?
            .execute(params![
                head.id,
                append.event.name,
                append.key,
                number(order),
                number(append.event.at.0),
                number(bytes),
                self.buffer
            ])?;
        Ok(())
    }

    /// Ends a batch: takes what retention does not allow from the rooms that were appended to, and what has become too
    /// old from others.
    pub(crate) fn prune(&mut self, tables: &Connection, now: Timestamp) -> Result<(), Failure> {
        for name in std::mem::take(&mut self.touched) {
            let head = self.young.get_mut(&name).or_else(|| self.old.get_mut(&name));
            let head = head.expect("invariant: heads of touched rooms stay until they are pruned");
            let Some(retention) = head.touched.take() else { continue };
            let age_max = u64::try_from(retention.age_max.as_millis()).unwrap_or(u64::MAX);
            if head.age_max != number(age_max) {
                head.age_max = number(age_max);
                head.is_stale = true;
            }
            let Retention { events_max, bytes_max, .. } = retention;
            head.prune(tables, Bounds { now, events_max, bytes_max, age_max })?;
            let expires_at = head.expiry(tables)?;
            // The row may name an earlier time than need be: a sweep in vain costs less than a row with every batch.
            if expires_at.is_some_and(|at| head.expires_at.is_none_or(|known| at < known)) {
                head.expires_at = expires_at;
                head.is_stale = true;
            }
            self.quiet_until = self.quiet_until.min(Timestamp(head.expires_at.map_or(u64::MAX, unsigned)));
            head.save(tables)?;
        }
        if now > self.quiet_until {
            self.sweep(tables, now)?;
        }
        // Not before: touched rooms must not be forgotten.
        if self.young.len() > HEADS_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        Ok(())
    }

    fn sweep(&mut self, tables: &Connection, now: Timestamp) -> Result<(), Failure> {
        let names = tables
            .prepare_cached("SELECT name FROM rooms WHERE expires_at < ? ORDER BY expires_at LIMIT ?")?
            .query_map(params![number(now.0), SWEPT_MAX], |row| row.get(0))?
            .collect::<Result<Vec<String>, _>>()?;
        for name in names {
            let name = body::room_name(&name)?;
            let mut loaded;
            let head = match self.young.get_mut(&name).or_else(|| self.old.get_mut(&name)) {
                Some(head) => head,
                None => {
                    loaded = Head::load(tables, &name)?;
                    &mut loaded
                }
            };
            let age_max = if head.age_max == i64::MAX { u64::MAX } else { unsigned(head.age_max) };
            head.prune(tables, Bounds { now, events_max: u64::MAX, bytes_max: u64::MAX, age_max })?;
            let expires_at = head.expiry(tables)?;
            head.is_stale |= head.expires_at != expires_at;
            head.expires_at = expires_at;
            head.save(tables)?;
        }
        let next: Option<i64> = tables
            .prepare_cached("SELECT min(expires_at) FROM rooms WHERE expires_at IS NOT NULL")?
            .query_row([], |row| row.get(0))?;
        self.quiet_until = Timestamp(next.map_or(u64::MAX, unsigned));
        Ok(())
    }

    /// Sees to it that a room's head is among the young, and remembers that the room is appended to.
    fn bring(&mut self, tables: &Connection, name: &RoomName, retention: Retention) -> Result<(), Failure> {
        if !self.young.contains_key(name) {
            let head = match self.old.remove(name) {
                Some(head) => head,
                None => Head::load(tables, name)?,
            };
            self.young.insert(name.clone(), head);
        }
        let head = self.young.get_mut(name).expect("invariant: it was just put there");
        if head.touched.replace(retention).is_none() {
            self.touched.push(name.clone());
        }
        Ok(())
    }
}

/// A number that no other log has, as far as chance and the clock allow. Below 2^53, because programs that keep every
/// number as a double read it. Never 0.
fn epoch(random: &RandomState, now: Timestamp) -> u64 {
    // A thousand rooms begun in one millisecond must differ no less: the hasher has a secret, and the counter moves.
    static BEGUN: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let count = BEGUN.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let hash = random.hash_one((now.0, count));
    (hash >> 11).max(1)
}

impl Head {
    /// Reads what the tables say of a room; makes its row if there is none.
    fn load(tables: &Connection, name: &RoomName) -> Result<Self, Failure> {
        let row = tables
            .prepare_cached(
                "SELECT id, epoch, first_seq, pruned_order, pruned_through, age_max, expires_at
                 FROM rooms WHERE name = ?",
            )?
            .query_row([name.as_str()], |row| {
                let first_seq = unsigned(row.get(2)?);
                Ok(Head {
                    id: row.get(0)?,
                    epoch: unsigned(row.get(1)?),
                    first_seq,
                    last_seq: first_seq.saturating_sub(1),
                    through: unsigned(row.get(4)?),
                    pruned_order: unsigned(row.get(3)?),
                    pruned_through: unsigned(row.get(4)?),
                    rows_from: first_seq,
                    age_max: row.get(5)?,
                    expires_at: row.get(6)?,
                    oldest: VecDeque::new(),
                    ahead: 1,
                    latest: None,
                    touched: None,
                    is_stale: false,
                })
            })
            .optional()?;
        let Some(mut head) = row else { return Self::begin(tables, name) };
        if !schema::is_room(head.id) || head.first_seq == 0 {
            return Err(Failure::Damaged(format!("room {name} has a row that cannot be")));
        }
        let (from, to) = (place(head.id, 0), place(head.id, SEQ_MAX));
        let lowest: Option<i64> = tables
            .prepare_cached("SELECT min(place) FROM log WHERE place BETWEEN ? AND ?")?
            .query_row([from, to], |row| row.get(0))?;
        head.rows_from = lowest.map_or(head.first_seq, seq_of).min(head.first_seq);
        let last = tables
            .prepare_cached(
                "SELECT place, body FROM log WHERE place BETWEEN ? AND ? ORDER BY place DESC LIMIT 1",
            )?
            .query_row([place(head.id, head.first_seq), to], |row| {
                Ok((seq_of(row.get(0)?), body::decode_heading(row.get_ref(1)?.as_blob()?)))
            })
            .optional()?;
        if let Some((seq, heading)) = last {
            (head.last_seq, head.through) = (seq, heading?.through);
        }
        Ok(head)
    }

    /// Makes the row of a new room.
    fn begin(tables: &Connection, name: &RoomName) -> Result<Self, Failure> {
        tables
            .prepare_cached("INSERT INTO rooms VALUES (NULL, ?, 0, 1, 0, 0, ?, NULL)")?
            .execute(params![name.as_str(), i64::MAX])?;
        let id = tables.last_insert_rowid();
        if !schema::is_room(id) {
            return Err(Failure::Damaged(format!("there cannot be a room of number {id}")));
        }
        Ok(Head {
            id,
            epoch: 0,
            first_seq: 1,
            last_seq: 0,
            through: 0,
            pruned_order: 0,
            pruned_through: 0,
            rows_from: 1,
            age_max: i64::MAX,
            expires_at: None,
            oldest: VecDeque::new(),
            ahead: 1,
            latest: None,
            touched: None,
            is_stale: false,
        })
    }

    /// Begins the log, or begins it anew: nothing of another epoch is kept.
    fn begin_epoch(&mut self, tables: &Connection, order: u64, epoch: u64) -> Result<(), Failure> {
        if self.epoch != 0 {
            tables
                .prepare_cached("DELETE FROM log WHERE place BETWEEN ? AND ?")?
                .execute([place(self.id, 0), place(self.id, SEQ_MAX)])?;
            // Whoever asks for what came after an order of the old epoch has missed something.
            self.pruned_order = order.saturating_sub(1);
        }
        self.epoch = epoch;
        (self.first_seq, self.last_seq, self.rows_from) = (1, 0, 1);
        (self.through, self.pruned_through) = (0, 0);
        self.oldest.clear();
        self.is_stale = true;
        Ok(())
    }

    fn latest(&mut self, tables: &Connection) -> Result<Latest, Failure> {
        let latest = match self.latest {
            Some(latest) => latest,
            None => tables
                .prepare_cached("SELECT count(*), coalesce(sum(bytes), 0) FROM latest WHERE room = ?")?
                .query_row([self.id], |row| {
                    Ok(Latest { events: unsigned(row.get(0)?), bytes: unsigned(row.get(1)?) })
                })?,
        };
        self.latest = Some(latest);
        Ok(latest)
    }

    fn prune(&mut self, tables: &Connection, bounds: Bounds) -> Result<(), Failure> {
        while let Some(oldest) = self.oldest(tables)? {
            let events = self.last_seq + 1 - self.first_seq;
            let bytes = self.through.saturating_sub(self.pruned_through);
            if !bounds.are_exceeded(events, bytes, oldest.at) {
                break;
            }
            self.oldest.pop_front();
            self.first_seq += 1;
            (self.pruned_order, self.pruned_through) = (oldest.order, oldest.through);
            self.is_stale = true;
        }
        let leftovers = self.first_seq - self.rows_from;
        let is_empty = self.first_seq > self.last_seq;
        if leftovers >= LEFTOVERS_MAX || (is_empty && leftovers > 0) {
            let end = self.first_seq.min(self.rows_from + DELETED_MAX);
            tables
                .prepare_cached("DELETE FROM log WHERE place >= ? AND place < ?")?
                .execute([place(self.id, self.rows_from), place(self.id, end)])?;
            self.rows_from = end;
        }
        let mut latest = self.latest(tables)?;
        while latest.events > 0 {
            let oldest = tables
                .prepare_cached(
                    "SELECT name, key, at, bytes FROM latest WHERE room = ? ORDER BY ord LIMIT 1",
                )?
                .query_row([self.id], |row| {
                    let (name, key): (String, String) = (row.get(0)?, row.get(1)?);
                    Ok((name, key, Timestamp(unsigned(row.get(2)?)), unsigned(row.get(3)?)))
                })
                .optional()?;
            let Some((name, key, at, bytes)) = oldest else { break };
            if !bounds.are_exceeded(latest.events, latest.bytes, at) {
                break;
            }
            tables
                .prepare_cached("DELETE FROM latest WHERE room = ? AND name = ? AND key = ?")?
                .execute(params![self.id, name, key])?;
            latest = Latest { events: latest.events - 1, bytes: latest.bytes.saturating_sub(bytes) };
            self.latest = Some(latest);
        }
        Ok(())
    }

    /// When something in here becomes too old, or must be swept for another reason.
    fn expiry(&mut self, tables: &Connection) -> Result<Option<i64>, Failure> {
        let is_empty = self.first_seq > self.last_seq;
        let leftovers = self.first_seq - self.rows_from;
        if leftovers >= LEFTOVERS_MAX || (is_empty && leftovers > 0) {
            return Ok(Some(0));
        }
        let mut oldest: Option<i64> = self.oldest(tables)?.map(|heading| number(heading.at.0));
        if self.latest(tables)?.events > 0 {
            let latest: Option<i64> = tables
                .prepare_cached("SELECT at FROM latest WHERE room = ? ORDER BY ord LIMIT 1")?
                .query_row([self.id], |row| row.get(0))
                .optional()?;
            oldest = oldest.into_iter().chain(latest).min();
        }
        // What would be swept after the end of time is not swept.
        Ok(oldest.and_then(|at| at.checked_add(self.age_max)))
    }

    /// The heading of the oldest event in the log.
    fn oldest(&mut self, tables: &Connection) -> Result<Option<Heading>, Failure> {
        if self.oldest.is_empty() && self.first_seq <= self.last_seq {
            let mut statement = tables.prepare_cached(
                "SELECT place, body FROM log WHERE place >= ? AND place <= ? ORDER BY place LIMIT ?",
            )?;
            let (from, to) = (place(self.id, self.first_seq), place(self.id, self.last_seq));
            let mut rows = statement.query(params![from, to, number(self.ahead as u64)])?;
            while let Some(row) = rows.next()? {
                let expected = self.first_seq + self.oldest.len() as u64;
                if seq_of(row.get(0)?) != expected {
                    return Err(Failure::Damaged(format!("event {expected} of room {} is missing", self.id)));
                }
                let body = row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?;
                self.oldest.push_back(body::decode_heading(body)?);
            }
            self.ahead = AHEAD_MAX.min(self.ahead * 4);
            if self.oldest.is_empty() {
                return Err(Failure::Damaged(format!(
                    "event {} of room {} is missing",
                    self.first_seq, self.id
                )));
            }
        }
        Ok(self.oldest.front().copied())
    }

    fn save(&mut self, tables: &Connection) -> Result<(), Failure> {
        if self.is_stale {
            tables
                .prepare_cached(
                    "UPDATE rooms SET epoch = ?, first_seq = ?, pruned_order = ?, pruned_through = ?, age_max = ?,
                     expires_at = ? WHERE id = ?",
                )?
                .execute(params![
                    number(self.epoch),
                    number(self.first_seq),
                    number(self.pruned_order),
                    number(self.pruned_through),
                    self.age_max,
                    self.expires_at,
                    self.id
                ])?;
            self.is_stale = false;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_differ_and_fit_a_double() {
        let (one, other) = (RandomState::new(), RandomState::new());
        let epochs: std::collections::BTreeSet<u64> =
            (0..1_000).flat_map(|_| [epoch(&one, Timestamp(7)), epoch(&other, Timestamp(7))]).collect();
        assert_eq!(epochs.len(), 2_000);
        assert!(epochs.iter().all(|epoch| (1..1 << 53).contains(epoch)));
    }
}
