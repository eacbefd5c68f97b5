//! Owns the way of events and lines to the server: a bounded buffer in their order, and the task that empties it in
//! batches. Does not know what they say.
//!
//! Invariant: of one lane one request is under way at a time, so what was handed over first arrives first. While it is,
//! what comes next becomes the next batch: a busy lane has large batches, an idle one sends at once.

use std::sync::Arc;

use hub::rest::{Published, PublishedBatch};
use hyper::Method;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::error::Error;
use crate::http::{Body, Call, Http, new_key};

/// Bytes that an item takes beside its text: the entry itself, the permit, the reply. It bounds how many short ones wait.
const ITEM_BYTES: usize = 128;

/// What a lane carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Freight {
    /// Events, each with an idempotency key of its own.
    Events,
    /// Lines of logs; a key names the batch.
    Lines,
}

type Reply = oneshot::Sender<Result<Published, Error>>;

/// The end that is filled.
#[derive(Debug)]
pub(crate) struct Lane {
    entries: mpsc::UnboundedSender<Entry>,
    /// A permit for each byte.
    room: Arc<Semaphore>,
    bytes_max: usize,
}

#[derive(Debug)]
enum Entry {
    Item(Item),
    /// Answered when everything before it is done, with how much of that was lost.
    Flush(oneshot::Sender<u64>),
}

#[derive(Debug)]
struct Item {
    json: String,
    /// Whoever waits; what nobody waits for can be lost.
    reply: Option<Reply>,
    /// Given back when the item is done.
    _room: OwnedSemaphorePermit,
}

impl Lane {
    /// Starts the task on the runtime that we are in, and it ends when the lane is dropped and empty.
    pub(crate) fn start(http: Arc<Http>, freight: Freight) -> Self {
        // A semaphore counts to an eighth of all numbers; so does an acquisition to u32.
        let bytes_max = http.settings().buffer_bytes_max.min(u32::MAX as usize).min(Semaphore::MAX_PERMITS);
        let (entries, received) = mpsc::unbounded_channel();
        tokio::spawn(Sender { http, freight, entries: received, next: None, lost: 0 }.run());
        Self { entries, room: Arc::new(Semaphore::new(bytes_max)), bytes_max }
    }

    /// Hands something over without waiting.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::TooLarge`] or [`Error::Closed`].
    pub(crate) fn try_push(&self, json: String) -> Result<(), Error> {
        let bytes = self.bytes_of(&json)?;
        let room = self.room.clone().try_acquire_many_owned(bytes);
        let room = room.map_err(|_| Error::Full { bytes_max: self.bytes_max })?;
        self.enter(Entry::Item(Item { json, reply: None, _room: room }))
    }

    /// Waits for room, and hands something over. What comes of it is answered later.
    ///
    /// # Errors
    /// [`Error::TooLarge`] or [`Error::Closed`].
    pub(crate) async fn push(
        &self,
        json: String,
    ) -> Result<oneshot::Receiver<Result<Published, Error>>, Error> {
        let bytes = self.bytes_of(&json)?;
        let room = self.room.clone().acquire_many_owned(bytes).await.map_err(|_| Error::Closed)?;
        let (reply, answer) = oneshot::channel();
        self.enter(Entry::Item(Item { json, reply: Some(reply), _room: room }))?;
        Ok(answer)
    }

    /// Waits until everything that was handed over before is done, and answers how much of it was lost since the last
    /// time.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub(crate) async fn flush(&self) -> Result<u64, Error> {
        let (done, answer) = oneshot::channel();
        self.enter(Entry::Flush(done))?;
        answer.await.map_err(|_| Error::Closed)
    }

    fn bytes_of(&self, json: &str) -> Result<u32, Error> {
        let bytes = json.len() + ITEM_BYTES;
        match u32::try_from(bytes) {
            Ok(counted) if bytes <= self.bytes_max => Ok(counted),
            _ => Err(Error::TooLarge { bytes, bytes_max: self.bytes_max }),
        }
    }

    fn enter(&self, entry: Entry) -> Result<(), Error> {
        self.entries.send(entry).map_err(|_| Error::Closed)
    }
}

/// The end that is emptied.
struct Sender {
    http: Arc<Http>,
    freight: Freight,
    entries: mpsc::UnboundedReceiver<Entry>,
    /// What did not fit the last batch.
    next: Option<Entry>,
    /// What nobody waited for and never arrived, since the last flush.
    lost: u64,
}

impl Sender {
    async fn run(mut self) {
        loop {
            let entry = match self.next.take() {
                Some(entry) => Some(entry),
                None => self.entries.recv().await,
            };
            match entry {
                None => return,
                Some(Entry::Flush(done)) => {
                    // Whoever asked may have gone; then the next one is told.
                    if done.send(self.lost).is_ok() {
                        self.lost = 0;
                    }
                }
                Some(Entry::Item(first)) => {
                    let batch = self.fill(first);
                    self.send(batch).await;
                }
            }
        }
    }

    /// Takes what has come and fits one request.
    fn fill(&mut self, first: Item) -> Vec<Item> {
        let settings = self.http.settings();
        let mut bytes = first.json.len() + 1;
        let mut batch = vec![first];
        while batch.len() < settings.batch_items_max {
            match self.entries.try_recv() {
                Ok(Entry::Item(item)) if bytes + item.json.len() < settings.batch_bytes_max => {
                    bytes += item.json.len() + 1;
                    batch.push(item);
                }
                Ok(entry) => {
                    self.next = Some(entry);
                    break;
                }
                Err(_) => break,
            }
        }
        batch
    }

    /// Sends a batch. If it is refused because of one of them, its halves are sent, and so on down to the one: with a
    /// bad event among 500 that makes some twenty requests.
    async fn send(&mut self, batch: Vec<Item>) {
        let mut parts = vec![batch];
        while let Some(mut part) = parts.pop() {
            match self.exchange(&part).await {
                Ok(answers) => settle(part, answers),
                // Who we are, or what is there, is wrong for all of them alike.
                Err(Error::Refused { status, .. })
                    if part.len() > 1 && !matches!(status, 401 | 403..=405) =>
                {
                    let second = part.split_off(part.len() / 2);
                    parts.push(second);
                    parts.push(part);
                }
                Err(error) => part.into_iter().for_each(|item| self.fail(item, error.clone())),
            }
        }
    }

    /// Sends a batch until it is answered.
    async fn exchange(&self, batch: &[Item]) -> Result<Vec<Published>, Error> {
        let mut lines = String::with_capacity(batch.iter().map(|item| item.json.len() + 1).sum());
        for item in batch {
            lines.push_str(&item.json);
            lines.push('\n');
        }
        let (path, key) = match self.freight {
            Freight::Events => ("/api/v1/events/batch", None),
            Freight::Lines => ("/api/v1/logs", Some(new_key())),
        };
        let body = Some(Body { bytes: lines.into(), content_type: "application/x-ndjson" });
        let call = Call { method: Method::POST, path: path.to_owned(), body, key, wait: Default::default() };
        match self.freight {
            Freight::Events => {
                let answer: PublishedBatch = self.http.call(&call).await?;
                if answer.events.len() == batch.len() {
                    return Ok(answer.events);
                }
                let (asked, told) = (batch.len(), answer.events.len());
                Err(Error::BadAnswer(format!("{told} answers to a batch of {asked} events")))
            }
            // Nobody waits for a line.
            Freight::Lines => self.http.insist(&call).await.map(|_| Vec::new()),
        }
    }

    fn fail(&mut self, item: Item, error: Error) {
        let is_told = item.reply.is_some_and(|reply| reply.send(Err(error)).is_ok());
        if !is_told {
            self.lost += 1;
        }
    }
}

fn settle(batch: Vec<Item>, answers: Vec<Published>) {
    for (item, answer) in batch.into_iter().zip(answers) {
        if let Some(reply) = item.reply {
            // Whoever waited may have gone; the event is there all the same.
            let _ = reply.send(Ok(answer));
        }
    }
}
