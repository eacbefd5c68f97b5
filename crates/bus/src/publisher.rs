//! Owns what this node publishes: a bounded queue, and the one task that sends what is in it, as much at once as there is.
//! Does not know what it means. Invariant: what is queued first is published first, and nothing is published twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use redis::{Pipeline, Value};
use store_redis::Failure;
use store_redis::link::Link;
use tokio::sync::{mpsc, oneshot};

use crate::fault::BusFault;
use crate::health::Tally;

/// Letters that may wait. 4,096: what a node tells in a tenth of a second.
const QUEUE_MAX: usize = 4_096;

/// Bytes that may wait, channels not counted: some seconds of a gigabit.
const QUEUE_BYTES_MAX: usize = 64 << 20;

/// Bytes of one message. 8 MiB: a quarter of what Redis lets wait for a subscriber before it cuts it off, and several
/// times what a publisher may send at once.
pub(crate) const MESSAGE_BYTES_MAX: usize = 8 << 20;

/// Letters that go in one write.
const SENT_MAX: usize = 256;

/// The way to the task. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Publisher {
    queue: mpsc::Sender<Outgoing>,
    bytes: Arc<AtomicUsize>,
}

/// How many connections got it, for each channel.
pub(crate) type Receivers = Vec<u64>;

#[derive(Debug)]
struct Outgoing {
    channels: Vec<String>,
    payload: Vec<u8>,
    sent: oneshot::Sender<Result<Receivers, BusFault>>,
}

/// What is known once it was sent.
pub(crate) type Sending = oneshot::Receiver<Result<Receivers, BusFault>>;

impl Publisher {
    /// A queue, and the task that must be run for it; it ends when nobody can reach it any more.
    pub(crate) fn new(link: Arc<Link>, tally: Arc<Tally>) -> (Self, impl Future<Output = ()>) {
        let (queue, outgoing) = mpsc::channel(QUEUE_MAX);
        let bytes = Arc::new(AtomicUsize::new(0));
        let task = run(link, tally, outgoing, Arc::clone(&bytes));
        (Self { queue, bytes }, task)
    }

    /// Queues the same bytes for these channels, which must be some.
    pub(crate) fn queue(&self, channels: Vec<String>, payload: Vec<u8>) -> Result<Sending, BusFault> {
        let bytes = payload.len();
        if bytes > MESSAGE_BYTES_MAX {
            return Err(BusFault::TooLarge { bytes, bytes_max: MESSAGE_BYTES_MAX });
        }
        if self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes > QUEUE_BYTES_MAX {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            return Err(BusFault::Busy);
        }
        let (sent, sending) = oneshot::channel();
        self.queue.try_send(Outgoing { channels, payload, sent }).map_err(|error| {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            match error {
                mpsc::error::TrySendError::Full(_) => BusFault::Busy,
                mpsc::error::TrySendError::Closed(_) => BusFault::Closed,
            }
        })?;
        Ok(sending)
    }

    /// Publishes the same bytes on these channels.
    pub(crate) async fn publish(
        &self,
        channels: Vec<String>,
        payload: Vec<u8>,
    ) -> Result<Receivers, BusFault> {
        sent(self.queue(channels, payload)?).await
    }
}

/// Waits until it was sent.
pub(crate) async fn sent(sending: Sending) -> Result<Receivers, BusFault> {
    sending.await.unwrap_or(Err(BusFault::Closed))
}

async fn run(
    link: Arc<Link>,
    tally: Arc<Tally>,
    mut queue: mpsc::Receiver<Outgoing>,
    bytes: Arc<AtomicUsize>,
) {
    let mut batch = Vec::new();
    while queue.recv_many(&mut batch, SENT_MAX).await > 0 {
        let size: usize = batch.iter().map(|outgoing| outgoing.payload.len()).sum();
        let mut answers = send(&link, &batch).await;
        for Outgoing { channels, sent, .. } in batch.drain(..) {
            let told = match &mut answers {
                Ok(answers) => answers.drain(..channels.len()).collect::<Result<Receivers, _>>(),
                Err(failure) => Err(failure.clone()),
            };
            if told.is_ok() {
                tally.messages_out.add(channels.len() as u64);
            }
            // Whoever no longer waits need not be told.
            let _ = sent.send(told.map_err(BusFault::from));
        }
        bytes.fetch_sub(size, Ordering::Relaxed);
    }
}

/// How many got each, channel by channel.
async fn send(link: &Link, batch: &[Outgoing]) -> Result<Vec<Result<u64, Failure>>, Failure> {
    let mut commands = Pipeline::new();
    for Outgoing { channels, payload, .. } in batch {
        for channel in channels {
            commands.cmd("SPUBLISH").arg(channel).arg(payload);
        }
    }
    let held = link.hold().await?;
    let answers = link.send_all(&held, &commands).await?;
    let count = |answer: Result<Value, Failure>| match answer? {
        Value::Int(count) => Ok(u64::try_from(count).unwrap_or(0)),
        other => Err(Failure::Damaged(format!("SPUBLISH answers {other:?}"))),
    };
    Ok(answers.into_iter().map(count).collect())
}
