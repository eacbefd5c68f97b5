//! Owns the questions about logs: each sees the tables as they were at one moment. Does not know threads.

use std::collections::HashSet;

use hub::event::Position;
use hub::room::RoomName;
use hub::store::{Found, IdempotencyKey, Kept, Page, RecordKey, Repeated, Span};
use rusqlite::{Connection, OptionalExtension, params};

use crate::body;
use crate::fault::Failure;
use crate::record;
use crate::schema::{self, SEQ_MAX, number, place, seq_of, unsigned};

struct Room {
    id: i64,
    epoch: u64,
    first_seq: u64,
    pruned_order: u64,
}

/// [`hub::store::Store::look`].
pub(crate) fn look(
    tables: &mut Connection,
    records: &[RecordKey],
    keys: &[IdempotencyKey],
) -> Result<Found, Failure> {
    let moment = tables.transaction()?;
    let records = records.iter().map(|key| record::load(&moment, key)).collect::<Result<_, _>>()?;
    let repeated = keys.iter().map(|key| repeated(&moment, key)).collect::<Result<_, _>>()?;
    Ok(Found { records, repeated })
}

/// [`hub::store::Store::read`].
pub(crate) fn page(tables: &mut Connection, name: &RoomName, span: Span) -> Result<Page, Failure> {
    let moment = tables.transaction()?;
    let order = newest_order(&moment)?;
    let Some(room) = room(&moment, name)? else {
        return Ok(Page { epoch: 0, first_seq: 1, last_seq: 0, order, events: Vec::new() });
    };
    let last_seq = last_seq(&moment, &room)?;
    let (after, limit) = match span {
        Span::After { seq, limit } => (seq, limit),
        Span::Last { limit } => (last_seq.saturating_sub(limit as u64), limit),
    };
    let from = place(room.id, after.saturating_add(1).max(room.first_seq));
    let to = place(room.id, last_seq);
    let mut events = Vec::new();
    // The greatest seq stands for all that are beyond it, too.
    if after < last_seq {
        let mut statement = moment.prepare_cached(
            "SELECT place, body FROM log WHERE place BETWEEN ? AND ? ORDER BY place LIMIT ?",
        )?;
        let mut rows = statement.query(params![from, to, number(limit as u64)])?;
        while let Some(row) = rows.next()? {
            let position = Position { epoch: room.epoch, seq: seq_of(row.get(0)?) };
            let body = row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?;
            events.push(body::decode_event(body, name, Some(position))?);
        }
    }
    Ok(Page { epoch: room.epoch, first_seq: room.first_seq, last_seq, order, events })
}

/// [`hub::store::Store::read_latest`].
pub(crate) fn latest(tables: &mut Connection, name: &RoomName) -> Result<Vec<Kept>, Failure> {
    let moment = tables.transaction()?;
    let mut kept = Vec::new();
    if let Some(room) = room(&moment, name)? {
        latest_after(&moment, name, &room, 0, usize::MAX, &mut |event| kept.push(event))?;
    }
    Ok(kept)
}

/// [`hub::store::Store::read_after_order`].
pub(crate) fn after_order(
    tables: &mut Connection,
    names: &[RoomName],
    order: u64,
    limit: usize,
) -> Result<Option<Vec<Kept>>, Failure> {
    let moment = tables.transaction()?;
    if order > newest_order(&moment)? {
        return Ok(None);
    }
    let mut seen = HashSet::new();
    let mut found: Vec<(usize, Kept)> = Vec::new();
    for (at, name) in names.iter().enumerate() {
        if !seen.insert(name) {
            continue;
        }
        let Some(room) = room(&moment, name)? else { continue };
        if room.pruned_order > order {
            return Ok(None);
        }
        // One more than there may be tells that there is more. From the newest back, because most who ask have
        // missed little.
        let enough = limit.saturating_add(1).saturating_sub(found.len());
        let mut statement = moment.prepare_cached(
            "SELECT place, body FROM log WHERE place BETWEEN ? AND ? ORDER BY place DESC LIMIT ?",
        )?;
        let (from, to) = (place(room.id, room.first_seq), place(room.id, SEQ_MAX));
        let mut rows = statement.query(params![from, to, number(enough as u64)])?;
        while let Some(row) = rows.next()? {
            let body = row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?;
            if body::decode_heading(body)?.order <= order {
                break;
            }
            let position = Position { epoch: room.epoch, seq: seq_of(row.get(0)?) };
            found.push((at, body::decode_event(body, name, Some(position))?));
        }
        let enough = limit.saturating_add(1).saturating_sub(found.len());
        latest_after(&moment, name, &room, order, enough, &mut |event| found.push((at, event)))?;
        if found.len() > limit {
            return Ok(None);
        }
    }
    found.sort_by_key(|(at, kept)| (kept.order, *at));
    Ok(Some(found.into_iter().map(|(_, kept)| kept).collect()))
}

/// The newest order of all.
pub(crate) fn newest_order(tables: &Connection) -> Result<u64, Failure> {
    let order = tables.prepare_cached("SELECT newest_order FROM store")?.query_row([], |row| row.get(0))?;
    Ok(unsigned(order))
}

/// What was answered to the first request of a key.
fn repeated(tables: &Connection, key: &IdempotencyKey) -> Result<Option<Repeated>, Failure> {
    let answer: Option<Result<Repeated, Failure>> = tables
        .prepare_cached("SELECT answer FROM keys WHERE scope = ? AND name = ?")?
        .query_row(params![key.scope, key.key], |row| Ok(body::decode_answer(row.get_ref(0)?.as_blob()?)))
        .optional()?;
    answer.transpose()
}

fn room(tables: &Connection, name: &RoomName) -> Result<Option<Room>, Failure> {
    let room = tables
        .prepare_cached("SELECT id, epoch, first_seq, pruned_order FROM rooms WHERE name = ?")?
        .query_row([name.as_str()], |row| {
            let first_seq = unsigned(row.get(2)?);
            let (epoch, pruned_order) = (unsigned(row.get(1)?), unsigned(row.get(3)?));
            Ok(Room { id: row.get(0)?, epoch, first_seq, pruned_order })
        })
        .optional()?;
    match room {
        Some(room) if !schema::is_room(room.id) || room.first_seq == 0 => {
            Err(Failure::Damaged(format!("room {name} has a row that cannot be")))
        }
        room => Ok(room),
    }
}

fn last_seq(tables: &Connection, room: &Room) -> Result<u64, Failure> {
    let last: Option<i64> = tables
        .prepare_cached("SELECT max(place) FROM log WHERE place BETWEEN ? AND ?")?
        .query_row([place(room.id, room.first_seq), place(room.id, SEQ_MAX)], |row| row.get(0))?;
    Ok(last.map_or(room.first_seq - 1, seq_of))
}

fn latest_after(
    tables: &Connection,
    name: &RoomName,
    room: &Room,
    order: u64,
    limit: usize,
    take: &mut dyn FnMut(Kept),
) -> Result<(), Failure> {
    let mut statement =
        tables.prepare_cached("SELECT body FROM latest WHERE room = ? AND ord > ? ORDER BY ord LIMIT ?")?;
    let mut rows = statement.query(params![room.id, number(order), number(limit as u64)])?;
    while let Some(row) = rows.next()? {
        let body = row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?;
        take(body::decode_event(body, name, None)?);
    }
    Ok(())
}
