//! Owns the statements about records. Does not know why they change.

use hub::store::{Change, Listing, Record, RecordKey, RecordKind, RecordState};
use hub::time::Timestamp;
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};

use crate::fault::Failure;
use crate::schema::{number, unsigned};

/// What a record was before a change, as far as that decides how it is written.
pub(crate) struct Before {
    version: u64,
    group: String,
    status: String,
    created_at: i64,
    due_at: Option<i64>,
}

/// Whether every change expects what there is, each after those before it; and what there was, for [`apply`].
pub(crate) fn check(tables: &Connection, changes: &[Change]) -> Result<Option<Vec<Option<Before>>>, Failure> {
    let mut all = Vec::with_capacity(changes.len());
    for (at, change) in changes.iter().enumerate() {
        let earlier = changes[..at].iter().rev().find(|earlier| earlier.key == change.key);
        let before = if earlier.is_some() { None } else { load_before(tables, &change.key)? };
        let version = match earlier {
            Some(earlier) => earlier.state.as_ref().map(|_| earlier.expected.unwrap_or(0) + 1),
            None => before.as_ref().map(|before| before.version),
        };
        if version != change.expected {
            return Ok(None);
        }
        all.push(before);
    }
    Ok(Some(all))
}

/// Makes a change that [`check`] has passed.
pub(crate) fn apply(tables: &Connection, change: &Change, before: Option<&Before>) -> Result<(), Failure> {
    let RecordKey { kind, id } = &change.key;
    let kind = kind.as_str();
    match (change.expected, &change.state) {
        (None, None) => {}
        (None, Some(state)) => {
            tables.prepare_cached("INSERT INTO records VALUES (NULL, ?, ?, 1, ?, ?, ?, ?, ?)")?.execute(
                params![
                    kind,
                    id,
                    state.group,
                    state.status,
                    number(state.created_at.0),
                    state.due_at.map(|due| number(due.0)),
                    state.json
                ],
            )?;
        }
        (Some(_), None) => {
            tables
                .prepare_cached("DELETE FROM records WHERE kind = ? AND id = ?")?
                .execute(params![kind, id])?;
        }
        (Some(version), Some(state)) => {
            let version = number(version.saturating_add(1));
            let due_at = state.due_at.map(|due| number(due.0));
            let is_same = |before: &&Before| {
                before.group == *state.group
                    && before.status == *state.status
                    && before.created_at == number(state.created_at.0)
            };
            // SQLite writes every index that has a column named here, whether the value changes or not; what changes
            // most is in none of them.
            match before.filter(is_same) {
                Some(before) if before.due_at == due_at => tables
                    .prepare_cached("UPDATE records SET version = ?, json = ? WHERE kind = ? AND id = ?")?
                    .execute(params![version, state.json, kind, id])?,
                Some(_) => tables
                    .prepare_cached("UPDATE records SET version = ?, json = ?, due_at = ? WHERE kind = ? AND id = ?")?
                    .execute(params![version, state.json, due_at, kind, id])?,
                None => tables
                    .prepare_cached(
                        "UPDATE records SET version = ?, json = ?, due_at = ?, grp = ?, status = ?, created_at = ?
                         WHERE kind = ? AND id = ?",
                    )?
                    .execute(params![
                        version,
                        state.json,
                        due_at,
                        state.group,
                        state.status,
                        number(state.created_at.0),
                        kind,
                        id
                    ])?,
            };
        }
    }
    Ok(())
}

/// A record as it is kept.
pub(crate) fn load(tables: &Connection, key: &RecordKey) -> Result<Option<Record>, Failure> {
    let record = tables
        .prepare_cached(&format!("SELECT {COLUMNS} FROM records WHERE kind = ? AND id = ?"))?
        .query_row(params![key.kind.as_str(), key.id], read)
        .optional()?;
    record.transpose()
}

/// Records of a kind, the newest first.
pub(crate) fn list(tables: &Connection, kind: RecordKind, listing: &Listing) -> Result<Vec<Record>, Failure> {
    let mut sql = format!("SELECT {COLUMNS} FROM records WHERE kind = ?");
    let mut given: Vec<Value> = vec![kind.as_str().to_owned().into()];
    for (column, wanted) in [("grp", &listing.group), ("status", &listing.status)] {
        let Some(wanted) = wanted else { continue };
        sql += &format!(" AND {column} = ?");
        given.push(wanted.to_string().into());
        if !wanted.is_empty() {
            // Says that the index of those that have one may be used.
            sql += &format!(" AND {column} <> ''");
        }
    }
    if let Some(since) = listing.created_since {
        sql += " AND created_at >= ?";
        given.push(number(since.0).into());
    }
    if let Some((made, id)) = &listing.after {
        sql += " AND (created_at, id) < (?, ?)";
        given.extend([number(made.0).into(), id.to_string().into()]);
    }
    sql += " ORDER BY created_at DESC, id DESC LIMIT ?";
    given.push(number(listing.limit as u64).into());
    collect(tables, &sql, given)
}

/// Records that want attention, the most urgent first.
pub(crate) fn due(tables: &Connection, until: Timestamp, limit: usize) -> Result<Vec<Record>, Failure> {
    let sql = format!("SELECT {COLUMNS} FROM records WHERE due_at <= ? ORDER BY due_at, kind, id LIMIT ?");
    collect(tables, &sql, vec![number(until.0).into(), number(limit as u64).into()])
}

/// When the next record wants attention.
pub(crate) fn next_due(tables: &Connection) -> Result<Option<Timestamp>, Failure> {
    let next: Option<i64> = tables
        .prepare_cached("SELECT min(due_at) FROM records WHERE due_at IS NOT NULL")?
        .query_row([], |row| row.get(0))?;
    Ok(next.map(|at| Timestamp(unsigned(at))))
}

const COLUMNS: &str = "kind, id, version, grp, status, created_at, due_at, json";

fn load_before(tables: &Connection, key: &RecordKey) -> Result<Option<Before>, Failure> {
    let before = tables
        .prepare_cached(
            "SELECT version, grp, status, created_at, due_at FROM records WHERE kind = ? AND id = ?",
        )?
        .query_row(params![key.kind.as_str(), key.id], |row| {
            Ok(Before {
                version: unsigned(row.get(0)?),
                group: row.get(1)?,
                status: row.get(2)?,
                created_at: row.get(3)?,
                due_at: row.get(4)?,
            })
        })
        .optional()?;
    Ok(before)
}

fn collect(tables: &Connection, sql: &str, given: Vec<Value>) -> Result<Vec<Record>, Failure> {
    let mut statement = tables.prepare_cached(sql)?;
    let rows = statement.query_map(params_from_iter(given), read)?;
    let mut records = Vec::new();
    for row in rows {
        records.push(row??);
    }
    Ok(records)
}

fn read(row: &Row<'_>) -> rusqlite::Result<Result<Record, Failure>> {
    let kind: String = row.get(0)?;
    let Some(kind) = RecordKind::ALL.into_iter().find(|known| known.as_str() == kind) else {
        return Ok(Err(Failure::Damaged(format!("a record is of the unknown kind {kind}"))));
    };
    let text = |at| row.get::<_, String>(at).map(String::into_boxed_str);
    let due_at: Option<i64> = row.get(6)?;
    Ok(Ok(Record {
        key: RecordKey { kind, id: text(1)? },
        version: unsigned(row.get(2)?),
        state: RecordState {
            group: text(3)?,
            status: text(4)?,
            created_at: Timestamp(unsigned(row.get(5)?)),
            due_at: due_at.map(|at| Timestamp(unsigned(at))),
            json: text(7)?,
        },
    }))
}
