//! Owns the tables, their versions, and how a connection is set up. Does not know what is put into them.
//!
//! | table | a row is |
//! |---|---|
//! | `store` | the one that holds the newest order |
//! | `rooms` | a room that something was kept for, once; it stays when its log empties, so that seqs go on |
//! | `log` | an event in a room's log. `place` is the room's id and the seq, see [`place`]: a room's events lie side by side |
//! | `latest` | the newest event of a name and key in a room |
//! | `records` | a record |
//! | `keys` | an idempotency key and what was answered |
//!
//! Times are milliseconds since 1970. Numbers are SQLite's, of 63 bits; what exceeds them is kept as the greatest.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use crate::Options;
use crate::Synchronous;
use crate::fault::{Failure, OpenFault};

/// What tells our files from other SQLite databases: "Fanf" in ASCII.
const APPLICATION_ID: i32 = 0x4661_6e66;

/// Bytes of a page. Known to SQLite only when the file is made.
const PAGE_BYTES: i64 = 4096;

/// Each takes the tables from the version of its index to the next. Never changed once released, only added to.
const MIGRATIONS: &[&str] = &["
    CREATE TABLE store (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        newest_order INTEGER NOT NULL
    ) STRICT;
    INSERT INTO store VALUES (1, 0);

    CREATE TABLE rooms (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        epoch INTEGER NOT NULL,          -- 0: there has been no log
        first_seq INTEGER NOT NULL,      -- rows of log below are no longer kept, even if they are still there
        pruned_order INTEGER NOT NULL,   -- order of the event before first_seq
        pruned_through INTEGER NOT NULL, -- bytes of the epoch's events before first_seq
        age_max INTEGER NOT NULL,        -- of whatever was last put here
        expires_at INTEGER               -- nothing in here becomes too old earlier
    ) STRICT;
    CREATE INDEX rooms_by_expiry ON rooms (expires_at) WHERE expires_at IS NOT NULL;

    CREATE TABLE log (
        place INTEGER PRIMARY KEY,
        body BLOB NOT NULL
    ) STRICT;

    CREATE TABLE latest (
        room INTEGER NOT NULL,
        name TEXT NOT NULL,
        key TEXT NOT NULL,
        ord INTEGER NOT NULL,
        at INTEGER NOT NULL,
        bytes INTEGER NOT NULL,
        body BLOB NOT NULL,
        PRIMARY KEY (room, name, key)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX latest_by_order ON latest (room, ord);

    CREATE TABLE records (
        number INTEGER PRIMARY KEY,
        kind TEXT NOT NULL,
        id TEXT NOT NULL,
        version INTEGER NOT NULL,
        grp TEXT NOT NULL,
        status TEXT NOT NULL,
        created_at INTEGER NOT NULL,
        due_at INTEGER,
        json TEXT NOT NULL,
        UNIQUE (kind, id)
    ) STRICT;
    CREATE INDEX records_by_age ON records (kind, created_at, id);
    CREATE INDEX records_by_group ON records (kind, grp, created_at, id) WHERE grp <> '';
    CREATE INDEX records_by_status ON records (kind, status, created_at, id) WHERE status <> '';
    CREATE INDEX records_by_due ON records (due_at, kind, id) WHERE due_at IS NOT NULL;

    CREATE TABLE keys (
        number INTEGER PRIMARY KEY,      -- grows with time, so the oldest are found first
        scope TEXT NOT NULL,
        name TEXT NOT NULL,
        at INTEGER NOT NULL,
        answer BLOB NOT NULL,
        UNIQUE (scope, name)
    ) STRICT;
"];

/// Bits of [`place`] that are the seq: 4 billion events in one epoch, and 2 billion rooms.
const SEQ_BITS: u32 = 32;

/// The greatest seq of an epoch. A log that goes beyond it begins a new epoch.
pub(crate) const SEQ_MAX: u64 = (1 << SEQ_BITS) - 1;

/// The greatest id of a room.
const ROOM_MAX: i64 = i64::MAX >> SEQ_BITS;

/// Where an event of a room is kept. A seq beyond [`SEQ_MAX`] is taken for that.
pub(crate) fn place(room: i64, seq: u64) -> i64 {
    room << SEQ_BITS | number(seq.min(SEQ_MAX))
}

/// The seq of a place.
pub(crate) fn seq_of(place: i64) -> u64 {
    place.cast_unsigned() & SEQ_MAX
}

/// Whether this is an id that places can be made of.
pub(crate) fn is_room(id: i64) -> bool {
    (1..=ROOM_MAX).contains(&id)
}

/// A number as SQLite keeps it.
pub(crate) fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A number that was kept.
pub(crate) fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

/// Opens a database for writing; makes the tables or brings them up to date.
pub(crate) fn open_writer(options: &Options) -> Result<Connection, OpenFault> {
    let path = &options.path;
    let failed = |failure: Failure| failure.to_open_fault(path.clone());
    let mut connection = open(options, 64 << 20).map_err(failed)?;
    // SQLite opens what it may not write for reading only, and says so at the first write.
    if connection.is_readonly("main").map_err(|error| failed(error.into()))? {
        return Err(OpenFault::Unusable { path: path.clone(), why: "it may only be read".to_owned() });
    }
    let version = |connection: &Connection, pragma: &str| -> Result<i32, OpenFault> {
        connection.pragma_query_value(None, pragma, |row| row.get(0)).map_err(|e| failed(e.into()))
    };
    let found = version(&connection, "user_version")?;
    let application = version(&connection, "application_id")?;
    let tables: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(|e| failed(e.into()))?;
    let is_new = tables == 0 && found == 0 && application == 0;
    if !is_new && application != APPLICATION_ID {
        return Err(OpenFault::Foreign { path: path.clone() });
    }
    let found = usize::try_from(found).unwrap_or(usize::MAX);
    if found > MIGRATIONS.len() {
        let shown = |version: usize| u32::try_from(version).unwrap_or(u32::MAX);
        return Err(OpenFault::Newer {
            path: path.clone(),
            found: shown(found),
            known: shown(MIGRATIONS.len()),
        });
    }
    set_up_writer(&mut connection, options).map_err(failed)?;
    migrate(&mut connection, found).map_err(failed)?;
    Ok(connection)
}

/// Opens a database that [`open_writer`] has prepared, for reading only.
pub(crate) fn open_reader(options: &Options) -> Result<Connection, OpenFault> {
    let prepare = || {
        let connection = open(options, 8 << 20)?;
        connection.pragma_update(None, "query_only", true)?;
        Ok(connection)
    };
    prepare().map_err(|failure: Failure| failure.to_open_fault(options.path.clone()))
}

/// Opens a database that [`open_writer`] has prepared, for copying the write-ahead log into it.
pub(crate) fn open_checkpointer(options: &Options) -> Result<Connection, OpenFault> {
    let prepare = || {
        let connection = open(options, 1 << 20)?;
        set_synchronous(&connection, options.synchronous)?;
        // Until it has read something a connection does not know that there is such a log.
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
        Ok(connection)
    };
    prepare().map_err(|failure: Failure| failure.to_open_fault(options.path.clone()))
}

fn open(options: &Options, cache_bytes: i64) -> Result<Connection, Failure> {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(&options.path, flags)?;
    // Only tools such as the sqlite3 shell can be in the way: our readers never are, and our writer is the only one.
    connection.busy_timeout(Duration::from_secs(5))?;
    // Negative: kibibytes.
    connection.pragma_update(None, "cache_size", -(cache_bytes / 1024))?;
    // More than there are statements.
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

fn set_up_writer(connection: &mut Connection, options: &Options) -> Result<(), Failure> {
    connection.pragma_update(None, "page_size", PAGE_BYTES)?;
    let mode: String = connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    if mode != "wal" {
        return Err(Failure::Sqlite(rusqlite::Error::SqliteFailure(
            rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CANTOPEN),
            Some(format!("this file system takes no write-ahead log, only mode {mode}")),
        )));
    }
    set_synchronous(connection, options.synchronous)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    // A write-ahead log that had to grow beyond this is cut when it is next begun anew.
    connection.pragma_update(None, "journal_size_limit", 128_i64 << 20)?;
    let page_bytes: i64 = connection.pragma_query_value(None, "page_size", |row| row.get(0))?;
    // The greatest that SQLite takes: as good as none.
    let pages_max = options.bytes_max.map_or(4_294_967_294, |bytes| number(bytes) / page_bytes.max(1));
    connection.pragma_update_and_check(None, "max_page_count", pages_max.max(1), |_| Ok(()))?;
    Ok(())
}

fn set_synchronous(connection: &Connection, synchronous: Synchronous) -> Result<(), Failure> {
    let synchronous = match synchronous {
        Synchronous::Full => "FULL",
        Synchronous::Normal => "NORMAL",
    };
    Ok(connection.pragma_update(None, "synchronous", synchronous)?)
}

fn migrate(connection: &mut Connection, found: usize) -> Result<(), Failure> {
    for (at, migration) in MIGRATIONS.iter().enumerate().skip(found) {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute_batch(migration)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", number(at as u64 + 1))?;
        transaction.commit()?;
    }
    Ok(())
}

/// Bytes of the database and its write-ahead log.
pub(crate) fn bytes_of(path: &Path) -> Option<u64> {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    let file = std::fs::metadata(path).ok()?.len();
    // There is none between a clean end and the first write.
    let log = std::fs::metadata(Path::new(&log)).map_or(0, |metadata| metadata.len());
    Some(file + log)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_lie_side_by_side_by_room_and_seq() {
        let places = [(1, 0), (1, 1), (1, SEQ_MAX), (2, 0), (2, 1), (ROOM_MAX, 1), (ROOM_MAX, SEQ_MAX)];
        assert!(places.map(|(room, seq)| place(room, seq)).is_sorted_by(|a, b| a < b));
        assert_eq!(place(ROOM_MAX, SEQ_MAX), i64::MAX);
        for (room, seq) in places {
            assert_eq!(seq_of(place(room, seq)), seq);
        }
        assert_eq!(place(1, u64::MAX), place(1, SEQ_MAX));
        assert!(is_room(1) && is_room(ROOM_MAX) && !is_room(0) && !is_room(ROOM_MAX + 1));
    }
}
