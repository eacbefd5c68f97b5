//! Owns the one thread that writes: it takes batches from a bounded queue, joins those that wait into one transaction,
//! and answers when it is durable. Does not know what a batch does; that is `batch.rs`.
//!
//! Whenever the write-ahead log has grown by [`CHECKPOINT_PAGES`], `checkpoint.rs` copies it into the database, and this
//! thread, between two transactions, what has come in the meantime.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use hub::store::{Commit, Outcome, StoreFault};
use hub::time::Timestamp;
use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::oneshot;

use crate::batch::Batches;
use crate::checkpoint::{self, Checkpointer};
use crate::fault::Failure;
use crate::health::Health;

/// Batches that may wait. 256: a dispatcher has one under way, and many of them a few each.
const QUEUE_MAX: usize = 256;

/// Commits that are joined into one transaction, if as many wait. 4,096: some 30 ms of work, so that nobody waits long
/// for the work of others.
const JOINED_MAX: usize = 4_096;

/// Pages of the write-ahead log until it is copied. 8,192: 32 MiB, in which a page that changes with every batch is
/// copied once instead of fifty times.
const CHECKPOINT_PAGES: i32 = 8_192;

/// Pages by which the log may grow while it is being copied. Beyond them the writer waits: a disk that is slower than
/// those who publish must slow them down, not fill up.
const BEHIND_PAGES: i32 = 32_768;

/// The way to the thread.
pub(crate) struct Writer {
    queue: SyncSender<Request>,
}

enum Request {
    Commit(Waiting),
    Close,
}

struct Waiting {
    now: Timestamp,
    batch: Vec<Commit>,
    answer: oneshot::Sender<Result<Vec<Outcome>, StoreFault>>,
}

impl Writer {
    /// Starts the thread. It ends after [`Writer::close`], or when nobody can reach it any more.
    pub(crate) fn start(
        connection: Connection,
        checkpointer: Checkpointer,
        health: Arc<Health>,
    ) -> Result<(Self, JoinHandle<()>), Failure> {
        let mut work = Work::new(connection, checkpointer, health)?;
        let (queue, requests) = sync_channel(QUEUE_MAX);
        let thread = std::thread::Builder::new().name("store-writer".to_owned());
        let thread = thread.spawn(move || work.run(&requests)).map_err(|error| {
            let cause = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_NOMEM);
            Failure::Sqlite(rusqlite::Error::SqliteFailure(cause, Some(format!("no thread: {error}"))))
        })?;
        Ok((Self { queue }, thread))
    }

    /// Queues a batch.
    pub(crate) async fn commit(
        &self,
        now: Timestamp,
        batch: Vec<Commit>,
    ) -> Result<Vec<Outcome>, StoreFault> {
        let (answer, answered) = oneshot::channel();
        match self.queue.try_send(Request::Commit(Waiting { now, batch, answer })) {
            Ok(()) => answered.await.unwrap_or_else(|_| Err(closed())),
            Err(TrySendError::Full(_)) => {
                Err(StoreFault::Unavailable(format!("{QUEUE_MAX} batches wait already")))
            }
            Err(TrySendError::Disconnected(_)) => Err(closed()),
        }
    }

    /// Ends the thread when it has done what was queued before. Waits for a place in the queue.
    pub(crate) fn close(&self) {
        // If the thread has ended, there is nothing to end.
        let _ = self.queue.send(Request::Close);
    }
}

fn closed() -> StoreFault {
    StoreFault::Unavailable("it is closed".to_owned())
}

struct Work {
    connection: Connection,
    batches: Batches,
    health: Arc<Health>,
    /// Pages in the write-ahead log, as of the last commit.
    log_pages: Arc<AtomicI32>,
    checkpointer: Checkpointer,
    checkpoint: Checkpoint,
}

/// How far the log's way into the database is.
enum Checkpoint {
    /// It is begun when the log has so many pages.
    At(i32),
    /// The other thread was asked.
    Begun,
}

impl Work {
    fn new(
        mut connection: Connection,
        checkpointer: Checkpointer,
        health: Arc<Health>,
    ) -> Result<Self, Failure> {
        let log_pages = Arc::new(AtomicI32::new(0));
        let pages = Arc::clone(&log_pages);
        // Takes the place of SQLite's own checkpoints, which would run before a commit returns.
        connection.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, count| {
            pages.store(count, Ordering::Relaxed);
            Ok(())
        }))?;
        let batches = Batches::new(&connection)?;
        health.set_order(batches.order());
        let checkpoint = Checkpoint::At(CHECKPOINT_PAGES);
        Ok(Self { connection, batches, health, log_pages, checkpointer, checkpoint })
    }

    fn run(&mut self, requests: &Receiver<Request>) {
        let mut is_open = true;
        while is_open && let Ok(first) = requests.recv() {
            let mut group = Vec::new();
            let mut commits = 0;
            let mut next = Some(first);
            while let Some(request) = next {
                match request {
                    Request::Commit(waiting) => {
                        commits += waiting.batch.len();
                        group.push(waiting);
                    }
                    Request::Close => {
                        is_open = false;
                        break;
                    }
                }
                next = if commits < JOINED_MAX { requests.try_recv().ok() } else { None };
            }
            self.serve(group);
            self.checkpoint();
        }
        // Leaves a single file behind. What cannot be copied stays in the log, which is as good.
        let _ = self.connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)");
    }

    fn serve(&mut self, group: Vec<Waiting>) {
        if group.is_empty() {
            return;
        }
        match self.transact(&group) {
            Ok(outcomes) => {
                for (waiting, outcomes) in group.into_iter().zip(outcomes) {
                    // Whoever no longer waits may find out by looking.
                    let _ = waiting.answer.send(Ok(outcomes));
                }
            }
            // Nobody fails for what somebody else asked.
            Err(_) if group.len() > 1 => {
                for waiting in group {
                    self.serve(vec![waiting]);
                }
            }
            Err(failure) => {
                let fault = failure.to_fault();
                for waiting in group {
                    let _ = waiting.answer.send(Err(fault.clone()));
                }
            }
        }
    }

    /// Does a group in one transaction, or nothing of it.
    fn transact(&mut self, group: &[Waiting]) -> Result<Vec<Vec<Outcome>>, Failure> {
        let before = self.batches.order();
        let done = transact(&mut self.connection, &mut self.batches, group);
        match &done {
            Ok(_) => {
                self.health.set_order(self.batches.order());
                self.health.set_complaint(None);
            }
            Err(failure) => {
                self.batches.forget(before);
                let fault = failure.to_fault();
                self.health.set_complaint(Some(fault.to_string()));
                if matches!(fault, StoreFault::Corrupt(_)) {
                    self.health.set_damage(&fault.to_string());
                }
            }
        }
        done
    }

    fn checkpoint(&mut self) {
        let pages = self.log_pages.load(Ordering::Relaxed);
        match self.checkpoint {
            Checkpoint::At(at) if pages < at => {}
            Checkpoint::At(_) => {
                self.checkpointer.begin();
                self.checkpoint = Checkpoint::Begun;
            }
            Checkpoint::Begun if self.checkpointer.is_busy() && pages < CHECKPOINT_PAGES + BEHIND_PAGES => {}
            Checkpoint::Begun => {
                while self.checkpointer.is_busy() {
                    // A disk that keeps up never comes here.
                    std::thread::sleep(Duration::from_millis(1));
                }
                self.checkpoint = Checkpoint::At(self.finish_checkpoint(pages));
            }
        }
    }

    /// Copies the rest; at how many pages to begin again.
    fn finish_checkpoint(&mut self, pages: i32) -> i32 {
        match checkpoint::copy(&self.connection) {
            // The next commit begins the log anew.
            Ok(true) => CHECKPOINT_PAGES,
            // A reader is in the way: the log grows on, and later it goes better.
            Ok(false) => pages.saturating_add(CHECKPOINT_PAGES),
            // The disk is full, say: nothing is lost, the log has it.
            Err(error) => {
                self.health.set_complaint(Some(Failure::Sqlite(error).to_fault().to_string()));
                pages.saturating_add(CHECKPOINT_PAGES)
            }
        }
    }
}

fn transact(
    connection: &mut Connection,
    batches: &mut Batches,
    group: &[Waiting],
) -> Result<Vec<Vec<Outcome>>, Failure> {
    // Dropped without a commit it is rolled back.
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut outcomes = Vec::with_capacity(group.len());
    for waiting in group {
        outcomes.push(batches.apply(&transaction, waiting.now, &waiting.batch)?);
    }
    batches.finish(&transaction)?;
    transaction.commit()?;
    Ok(outcomes)
}
