//! Owns what a batch of commits does to the tables, within a transaction of somebody else's. Does not know threads,
//! queues or when a transaction ends. Invariant: after an error the transaction must be rolled back, and
//! [`Batches::forget`] called.

use std::time::Duration;

use hub::policy::Delivery;
use hub::store::{Append, Commit, IdempotencyKey, Outcome, Placed};
use hub::time::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use crate::body;
use crate::fault::Failure;
use crate::read::newest_order;
use crate::record;
use crate::room::Heads;
use crate::schema::{number, unsigned};

/// How long a key is known.
const KEY_AGE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Keys that one batch takes away at most, beside twice as many as it may add: after a pause they go bit by bit.
const KEYS_DELETED_MAX: usize = 1_000;

/// What the writer remembers from batch to batch.
pub(crate) struct Batches {
    heads: Heads,
    /// The newest order, including those that are not yet committed.
    order: u64,
    /// No key is too old at this time or earlier.
    keys_until: Timestamp,
}

impl Batches {
    /// Reads what there is.
    pub(crate) fn new(tables: &Connection) -> Result<Self, Failure> {
        Ok(Self { heads: Heads::new(), order: newest_order(tables)?, keys_until: Timestamp(0) })
    }

    /// The newest order.
    pub(crate) fn order(&self) -> u64 {
        self.order
    }

    /// Forgets what was done since the last transaction ended; `order` was the newest then.
    pub(crate) fn forget(&mut self, order: u64) {
        self.heads.clear();
        self.order = order;
        self.keys_until = Timestamp(0);
    }

    /// Does a batch.
    pub(crate) fn apply(
        &mut self,
        tables: &Connection,
        now: Timestamp,
        batch: &[Commit],
    ) -> Result<Vec<Outcome>, Failure> {
        let outcomes =
            batch.iter().map(|commit| self.commit(tables, now, commit)).collect::<Result<_, _>>()?;
        self.heads.prune(tables, now)?;
        self.forget_keys(tables, now, batch.len())?;
        Ok(outcomes)
    }

    /// Writes down what the transaction has come to; the last thing before it ends.
    pub(crate) fn finish(&self, tables: &Connection) -> Result<(), Failure> {
        tables.prepare_cached("UPDATE store SET newest_order = ?")?.execute([number(self.order)])?;
        Ok(())
    }

    fn commit(&mut self, tables: &Connection, now: Timestamp, commit: &Commit) -> Result<Outcome, Failure> {
        if let Some(key) = &commit.idempotency
            && let Some(answer) = known(tables, now, key)?
        {
            return Ok(Outcome::Repeated(body::decode_answer(&answer)?));
        }
        let Some(before) = record::check(tables, &commit.changes)? else { return Ok(Outcome::Conflict) };
        for (change, before) in commit.changes.iter().zip(&before) {
            record::apply(tables, change, before.as_ref())?;
        }
        let mut done = Vec::with_capacity(commit.appends.len());
        for append in &commit.appends {
            done.push(self.append(tables, now, append)?);
        }
        if let Some(key) = &commit.idempotency {
            tables.prepare_cached("INSERT OR REPLACE INTO keys VALUES (NULL, ?, ?, ?, ?)")?.execute(
                params![key.scope, key.key, number(now.0), body::encode_answer(&commit.answer, &done)],
            )?;
            self.keys_until = self.keys_until.min(now.plus(KEY_AGE_MAX));
        }
        Ok(Outcome::Done(done))
    }

    fn append(
        &mut self,
        tables: &Connection,
        now: Timestamp,
        append: &Append,
    ) -> Result<(u64, Vec<Placed>), Failure> {
        self.order += 1;
        let numbered = (self.order, append);
        let mut placed = Vec::with_capacity(append.placements.len());
        for placement in &append.placements {
            let (room, retention) = (&placement.room, placement.retention);
            let position = match placement.delivery {
                Delivery::Log => Some(self.heads.append(tables, now, room, retention, numbered)?),
                Delivery::Latest => {
                    self.heads.put_latest(tables, room, retention, numbered)?;
                    None
                }
                Delivery::Volatile => None,
            };
            placed.push(Placed { room: room.clone(), position });
        }
        Ok((self.order, placed))
    }

    fn forget_keys(&mut self, tables: &Connection, now: Timestamp, commits: usize) -> Result<(), Failure> {
        if now <= self.keys_until {
            return Ok(());
        }
        let oldest = number(now.0.saturating_sub(KEY_AGE_MAX.as_millis() as u64));
        tables
            .prepare_cached(
                "DELETE FROM keys WHERE at < ? AND number IN (SELECT number FROM keys ORDER BY number LIMIT ?)",
            )?
            .execute(params![oldest, number((KEYS_DELETED_MAX + 2 * commits) as u64)])?;
        let next: Option<i64> = tables
            .prepare_cached("SELECT at FROM keys ORDER BY number LIMIT 1")?
            .query_row([], |row| row.get(0))
            .optional()?;
        self.keys_until = next.map_or(now, |at| Timestamp(unsigned(at))).plus(KEY_AGE_MAX);
        Ok(())
    }
}

/// What was answered under a key that is known and not too old.
fn known(tables: &Connection, now: Timestamp, key: &IdempotencyKey) -> Result<Option<Vec<u8>>, Failure> {
    let found = tables
        .prepare_cached("SELECT at, answer FROM keys WHERE scope = ? AND name = ?")?
        .query_row(params![key.scope, key.key], |row| {
            Ok((Timestamp(unsigned(row.get(0)?)), row.get::<_, Vec<u8>>(1)?))
        })
        .optional()?;
    Ok(found.filter(|(at, _)| now.since(*at) <= KEY_AGE_MAX).map(|(_, answer)| answer))
}
