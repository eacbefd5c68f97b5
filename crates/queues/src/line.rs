//! Owns the way to an AI tool that waits at a queue: one connection, opened when it is first needed, on which requests go
//! out and replies come back by correlation id. Does not know what either says; that is the tools'.
//!
//! Replies come to a queue of our own that goes with the connection, so nobody else can read them, and none is left
//! behind. What comes for a request that is over is thrown away.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::StreamExt;
use lapin::options::{BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation, Connection};
use tokio::sync::mpsc;
use tools::{Letter, Line, LineFault, Replies, Sending};

use crate::address::Address;

/// Replies of one request that wait to be read. Beyond it the request is over: whoever sends that many without being
/// heard would fill our memory with them.
const REPLIES_MAX: usize = 1_024;

type Pending = Arc<Mutex<HashMap<String, mpsc::Sender<Vec<u8>>>>>;

/// The way to the tool at one queue.
pub struct QueueLine {
    address: Address,
    exchange: String,
    queue: String,
    open: tokio::sync::Mutex<Option<Arc<Open>>>,
}

impl std::fmt::Debug for QueueLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "queue {} at {}", self.queue, self.address.shown())
    }
}

/// A connection that serves.
struct Open {
    connection: Connection,
    channel: Channel,
    reply_to: ShortString,
    pending: Pending,
}

impl QueueLine {
    /// The way to whoever takes requests from `queue`, by way of `exchange`; empty for the default one. Connects to
    /// nothing yet.
    #[must_use]
    pub fn new(address: Address, exchange: &str, queue: &str) -> Self {
        Self {
            address,
            exchange: exchange.to_owned(),
            queue: queue.to_owned(),
            open: tokio::sync::Mutex::new(None),
        }
    }

    async fn connected(&self) -> Result<Arc<Open>, LineFault> {
        let mut open = self.open.lock().await;
        if let Some(open) = open.as_ref().filter(|open| open.serves()) {
            return Ok(open.clone());
        }
        let name = format!("fanfare, tool at {}", self.queue);
        let connection = self.address.connect(&name).await.map_err(LineFault::Unreachable)?;
        let new = Arc::new(Open::begin(connection).await.map_err(|error| unreachable(&error))?);
        *open = Some(new.clone());
        Ok(new)
    }

    async fn ask(&self, letter: Letter) -> Result<Replies, LineFault> {
        let open = self.connected().await?;
        let (sender, replies) = mpsc::channel(REPLIES_MAX);
        let guard = open.expect(&letter.key, sender);
        let properties = BasicProperties::default()
            .with_content_type("application/json".into())
            .with_correlation_id(letter.key.as_str().into())
            .with_message_id(letter.key.as_str().into())
            .with_reply_to(open.reply_to.clone())
            // Who comes later finds nobody who waits. AMQP 0-9-1 §1.8: a text, in milliseconds with RabbitMQ.
            .with_expiration(letter.expires_in.as_millis().to_string().into())
            .with_app_id("fanfare".into());
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let (exchange, queue) = (self.exchange.as_str().into(), self.queue.as_str().into());
        let sent = open.channel.basic_publish(exchange, queue, options, &letter.body, properties).await;
        match sent.map_err(|error| unreachable(&error))?.await {
            Ok(Confirmation::Ack(None)) => Ok(Replies::new(replies, guard)),
            Ok(Confirmation::Ack(Some(returned))) => {
                Err(LineFault::Unclaimed(returned.reply_text.to_string()))
            }
            Ok(Confirmation::Nack(_) | Confirmation::NotRequested) => {
                Err(LineFault::Unreachable("the broker did not take the request".to_owned()))
            }
            // It may have been taken before the connection broke.
            Err(error) => Err(LineFault::Broken(error.to_string())),
        }
    }
}

fn unreachable(error: &lapin::Error) -> LineFault {
    LineFault::Unreachable(error.to_string())
}

impl Open {
    async fn begin(connection: Connection) -> Result<Self, lapin::Error> {
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        let options = QueueDeclareOptions::exclusive().auto_delete();
        let queue = channel.queue_declare("".into(), options, FieldTable::default()).await?;
        let reply_to = queue.name().clone();
        // Acknowledging is for what must not be lost; who asked would not be there any more.
        let consuming =
            BasicConsumeOptions { no_ack: true, exclusive: true, ..BasicConsumeOptions::default() };
        let mut replies =
            channel.basic_consume(reply_to.clone(), "".into(), consuming, FieldTable::default()).await?;
        let pending = Pending::default();
        let waiting = pending.clone();
        tokio::spawn(async move {
            while let Some(Ok(delivery)) = replies.next().await {
                if let Some(id) = delivery.properties.correlation_id() {
                    hand_over(&waiting, id.as_str(), delivery.data);
                }
            }
            // The connection is gone: nobody's replies come any more.
            lock(&waiting).clear();
        });
        Ok(Self { connection, channel, reply_to, pending })
    }

    fn serves(&self) -> bool {
        self.connection.status().connected() && self.channel.status().connected()
    }

    /// Has replies under this id handed to `sender` until what this returns is dropped.
    fn expect(&self, id: &str, sender: mpsc::Sender<Vec<u8>>) -> Box<dyn Send + Sync> {
        lock(&self.pending).insert(id.to_owned(), sender);
        Box::new(Expectation { pending: self.pending.clone(), id: id.to_owned() })
    }
}

/// Ends with the request.
struct Expectation {
    pending: Pending,
    id: String,
}

impl Drop for Expectation {
    fn drop(&mut self) {
        lock(&self.pending).remove(&self.id);
    }
}

fn hand_over(pending: &Pending, id: &str, reply: Vec<u8>) {
    let mut pending = lock(pending);
    let is_over = pending.get(id).is_some_and(|sender| sender.try_send(reply).is_err());
    if is_over {
        pending.remove(id);
    }
}

fn lock(pending: &Pending) -> std::sync::MutexGuard<'_, HashMap<String, mpsc::Sender<Vec<u8>>>> {
    pending.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Line for QueueLine {
    fn send(&self, letter: Letter) -> Sending<'_> {
        Box::pin(self.ask(letter))
    }
}
