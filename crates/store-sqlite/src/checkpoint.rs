//! Owns the thread that copies the write-ahead log into the database while the writer goes on. Does not decide when.
//!
//! The log can only be begun anew when all of it is copied and nobody adds to it, so the writer finishes what this
//! thread has begun: the few pages that came in the meantime.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use rusqlite::Connection;

/// The way to the thread, which ends when this is dropped.
pub(crate) struct Checkpointer {
    /// Room for one: there is nothing to be gained by a second copy before the first is done.
    wake: SyncSender<()>,
    is_busy: Arc<AtomicBool>,
}

impl Checkpointer {
    /// Starts the thread.
    pub(crate) fn start(connection: Connection) -> std::io::Result<(Self, JoinHandle<()>)> {
        let (wake, woken) = sync_channel(1);
        let is_busy = Arc::new(AtomicBool::new(false));
        let busy = Arc::clone(&is_busy);
        let thread = std::thread::Builder::new().name("store-checkpoint".to_owned());
        let thread = thread.spawn(move || run(&connection, &woken, &busy))?;
        Ok((Self { wake, is_busy }, thread))
    }

    /// Begins to copy what is in the log now.
    pub(crate) fn begin(&self) {
        self.is_busy.store(true, Ordering::Release);
        if self.wake.try_send(()).is_err() {
            self.is_busy.store(false, Ordering::Release);
        }
    }

    /// Whether it still copies.
    pub(crate) fn is_busy(&self) -> bool {
        self.is_busy.load(Ordering::Acquire)
    }
}

fn run(connection: &Connection, woken: &Receiver<()>, is_busy: &AtomicBool) {
    while woken.recv().is_ok() {
        // What fails here fails again when the writer finishes the work, which says so.
        let _ = copy(connection);
        is_busy.store(false, Ordering::Release);
    }
}

/// Copies as much as can be copied without waiting for anybody; whether that is all.
pub(crate) fn copy(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| {
        let (in_log, copied): (i32, i32) = (row.get(1)?, row.get(2)?);
        Ok(in_log == copied)
    })
}
