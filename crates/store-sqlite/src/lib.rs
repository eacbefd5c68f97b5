//! Keeps logs and records in one SQLite file: [`SqliteStore`] is the [`Store`] of a server that stands alone.
//!
//! Owns how they are kept; does not know the rules, which are `hub`'s, nor the time, which comes with each batch.
//! Invariant: what was answered is on disk. One thread writes; each transaction takes all batches that wait (group
//! commit), and an answer leaves when its transaction is durable. A few threads read, each seeing one moment; readers
//! and the writer do not wait for each other (write-ahead log).
//!
//! What SQLite and the disk do wrong becomes a [`hub::store::StoreFault`]. After one nothing of that batch is kept, and
//! the next batch is tried as if nothing had been: a disk that has space again needs no restart.
//!
//! The file never shrinks; space that became free is used again. Beside it lie `-wal` and `-shm`, which belong to it
//! while the store is open, and `.lock`, by which a second process is refused.
//!
//! ```no_run
//! # async fn demo() -> Result<(), Box<dyn std::error::Error>> {
//! use hub::store::Store;
//! let store = store_sqlite::SqliteStore::open(store_sqlite::Options::new("fanfare-data/fanfare.db"))?;
//! println!("{:?}", store.health().await?);
//! store.close();
//! # Ok(()) }
//! ```

mod batch;
mod body;
mod checkpoint;
mod fault;
mod health;
mod lock;
mod read;
mod reader;
mod record;
mod room;
mod schema;
mod writer;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use hub::room::RoomName;
use hub::store::{
    Answer, Commit, Found, IdempotencyKey, Kept, Listing, Outcome, Page, Record, RecordKey, RecordKind, Span,
    Store, StoreHealth,
};
use hub::time::Timestamp;

use crate::checkpoint::Checkpointer;
pub use crate::fault::OpenFault;
use crate::health::Health;
use crate::lock::Lock;
use crate::reader::Readers;
use crate::writer::Writer;

/// Where and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// The database. The folder is made if there is none.
    pub path: PathBuf,
    /// What an answer promises. Default [`Synchronous::Full`].
    pub synchronous: Synchronous,
    /// Bytes that the file may grow to; beyond them commits are refused as [`hub::store::StoreFault::Full`]. Its
    /// write-ahead log comes on top, some 70 MB. Default: as much as the disk has. Lower than what there is already:
    /// only space that becomes free is used.
    pub bytes_max: Option<u64>,
    /// Threads that read, at least 1. Default 2. More: many returning sockets are served at once, each thread with a
    /// cache of 8 MB.
    pub readers: usize,
}

/// What an answered commit survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Synchronous {
    /// The loss of power: every transaction waits for the disk.
    Full,
    /// The end of the process. If power is lost, the last commits before it may be, too; the rest stays consistent.
    Normal,
}

impl Options {
    /// The defaults, for this file.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), synchronous: Synchronous::Full, bytes_max: None, readers: 2 }
    }
}

/// A store in a file. See the crate.
pub struct SqliteStore {
    path: PathBuf,
    writer: Writer,
    readers: Readers,
    health: Arc<Health>,
    /// Taken by [`SqliteStore::close`].
    running: Mutex<Option<Running>>,
}

/// What runs while the store is open.
struct Running {
    writer: JoinHandle<()>,
    /// Ends after the writer, which owns the way to it.
    checkpointer: JoinHandle<()>,
    readers: Vec<JoinHandle<()>>,
    /// Last: nobody may open the file before we have let go of it.
    _lock: Lock,
}

impl SqliteStore {
    /// Opens a database, or makes it. Blocks while tables are brought up to date, and while the log of a process that
    /// was killed is read again.
    ///
    /// # Errors
    /// [`OpenFault`]: the environment's fault.
    pub fn open(options: Options) -> Result<Self, OpenFault> {
        let path = options.path.clone();
        let unusable =
            |error: std::io::Error| OpenFault::Unusable { path: path.clone(), why: error.to_string() };
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(unusable)?;
        }
        let lock = Lock::take(&path)?;
        let connection = schema::open_writer(&options)?;
        let readers = (0..options.readers.max(1)).map(|_| schema::open_reader(&options));
        let readers = readers.collect::<Result<_, _>>()?;
        let health = Arc::new(Health::default());
        let (readers, reader_threads) = Readers::start(readers, Arc::clone(&health)).map_err(unusable)?;
        let (checkpointer, checkpoint_thread) =
            Checkpointer::start(schema::open_checkpointer(&options)?).map_err(unusable)?;
        let (writer, writer_thread) = Writer::start(connection, checkpointer, Arc::clone(&health))
            .map_err(|failure| failure.to_open_fault(path.clone()))?;
        let running = Running {
            writer: writer_thread,
            checkpointer: checkpoint_thread,
            readers: reader_threads,
            _lock: lock,
        };
        Ok(Self { path, writer, readers, health, running: Mutex::new(Some(running)) })
    }

    /// Ends the store: what was asked before is answered, the write-ahead log is copied into the file, and the file is
    /// free for another process. Blocks until then. Calls after it fail as `Unavailable`. A second call, and the end of
    /// a store that was closed, do nothing.
    pub fn close(&self) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(running) = running {
            self.readers.close(running.readers.len());
            for thread in running.readers {
                // One that has panicked has said so.
                let _ = thread.join();
            }
            // After the readers, because they could keep the log from being copied.
            self.writer.close();
            let _ = running.writer.join();
            let _ = running.checkpointer.join();
        }
    }

    /// Why nothing can be written any more, if the writer is gone.
    fn stopped(&self) -> Option<&'static str> {
        match &*self.running.lock().unwrap_or_else(PoisonError::into_inner) {
            None => Some("the store is closed"),
            Some(running) if running.writer.is_finished() => {
                Some("the store's writer has failed; start anew")
            }
            Some(_) => None,
        }
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        self.close();
    }
}

impl Store for SqliteStore {
    fn look<'a>(&'a self, records: Vec<RecordKey>, keys: Vec<IdempotencyKey>) -> Answer<'a, Found> {
        if records.is_empty() && keys.is_empty() {
            return Box::pin(std::future::ready(Ok(Found::default())));
        }
        Box::pin(self.readers.ask(move |tables| read::look(tables, &records, &keys)))
    }

    fn commit<'a>(&'a self, now: Timestamp, batch: Vec<Commit>) -> Answer<'a, Vec<Outcome>> {
        Box::pin(self.writer.commit(now, batch))
    }

    fn read<'a>(&'a self, room: RoomName, span: Span) -> Answer<'a, Page> {
        Box::pin(self.readers.ask(move |tables| read::page(tables, &room, span)))
    }

    fn read_latest<'a>(&'a self, room: RoomName) -> Answer<'a, Vec<Kept>> {
        Box::pin(self.readers.ask(move |tables| read::latest(tables, &room)))
    }

    fn read_after_order<'a>(
        &'a self,
        rooms: Vec<RoomName>,
        order: u64,
        limit: usize,
    ) -> Answer<'a, Option<Vec<Kept>>> {
        Box::pin(self.readers.ask(move |tables| read::after_order(tables, &rooms, order, limit)))
    }

    fn list<'a>(&'a self, kind: RecordKind, listing: Listing) -> Answer<'a, Vec<Record>> {
        Box::pin(self.readers.ask(move |tables| record::list(tables, kind, &listing)))
    }

    fn due<'a>(&'a self, until: Timestamp, limit: usize) -> Answer<'a, Vec<Record>> {
        Box::pin(self.readers.ask(move |tables| record::due(tables, until, limit)))
    }

    fn next_due(&self) -> Answer<'_, Option<Timestamp>> {
        Box::pin(self.readers.ask(|tables| record::next_due(tables)))
    }

    fn health(&self) -> Answer<'_, StoreHealth> {
        let health = StoreHealth {
            complaint: self.stopped().map(ToOwned::to_owned).or_else(|| self.health.complaint()),
            bytes: schema::bytes_of(&self.path),
            order: self.health.order(),
        };
        Box::pin(std::future::ready(Ok(health)))
    }
}
