//! Owns the threads that read: each has a connection of its own and takes the next question from one bounded queue.
//! Does not know the questions. Threads of our own, not a runtime's blocking ones: a connection stays with its thread
//! and keeps its statements, and whoever asks needs no runtime.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use hub::store::StoreFault;
use rusqlite::Connection;
use tokio::sync::oneshot;

use crate::fault::Failure;
use crate::health::Health;

/// Questions that may wait. 4,096: a server's worth of sockets that come back at once, answered in about a second.
const QUEUE_MAX: usize = 4_096;

/// The way to the threads.
pub(crate) struct Readers {
    queue: SyncSender<Request>,
    health: Arc<Health>,
}

enum Request {
    Question(Box<dyn FnOnce(&mut Connection) + Send>),
    Close,
}

impl Readers {
    /// Starts a thread for each connection.
    pub(crate) fn start(
        connections: Vec<Connection>,
        health: Arc<Health>,
    ) -> std::io::Result<(Self, Vec<JoinHandle<()>>)> {
        let (queue, requests) = sync_channel(QUEUE_MAX);
        let requests = Arc::new(Mutex::new(requests));
        let threads = connections.into_iter().enumerate().map(|(at, connection)| {
            let requests = Arc::clone(&requests);
            let thread = std::thread::Builder::new().name(format!("store-reader-{at}"));
            thread.spawn(move || run(connection, &requests))
        });
        Ok((Self { queue, health }, threads.collect::<Result<_, _>>()?))
    }

    /// Asks, and waits for the answer.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Connection) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, StoreFault> {
        let (answer, answered) = oneshot::channel();
        let request = Request::Question(Box::new(move |connection| {
            // Whoever no longer waits needs no answer.
            let _ = answer.send(question(connection));
        }));
        match self.queue.try_send(request) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                return Err(StoreFault::Unavailable(format!("{QUEUE_MAX} questions wait already")));
            }
            Err(TrySendError::Disconnected(_)) => return Err(closed()),
        }
        let answer = answered.await.map_err(|_| closed())?;
        answer.map_err(|failure| {
            let fault = failure.to_fault();
            if matches!(fault, StoreFault::Corrupt(_)) {
                self.health.set_damage(&fault.to_string());
            }
            fault
        })
    }

    /// Ends `threads` threads when they have answered what was asked before.
    pub(crate) fn close(&self, threads: usize) {
        for _ in 0..threads {
            // If they have ended, there is nothing to end.
            let _ = self.queue.send(Request::Close);
        }
    }
}

fn closed() -> StoreFault {
    StoreFault::Unavailable("it is closed".to_owned())
}

fn run(mut connection: Connection, requests: &Mutex<Receiver<Request>>) {
    loop {
        // Held while waiting: one thread waits for the next question, the others for their turn to wait.
        let request = requests.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match request {
            Ok(Request::Question(answer)) => answer(&mut connection),
            Ok(Request::Close) | Err(_) => return,
        }
    }
}
