//! Owns one connection of a consumer: what is taken, under way, held back, acknowledged and put among the dead.
//! Does not know what messages mean. Invariants: a message is acknowledged only once it is kept, known, ignored, or
//! safely among the dead; while one waits to be tried again, no newer one is begun.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicRejectOptions, ConfirmSelectOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, Connection};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use crate::address::Address;
use crate::backoff::{Backoff, random};
use crate::health::{DEAF_AFTER, Health};
use crate::identity::{Identity, Lately};
use crate::intake::{Answer, Intake, Turn, Verdict};
use crate::message::Message;
use crate::source::Source;

/// Pauses before what cannot be kept now is tried again.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// Attempts with a message that makes something fail which should work. 6: over three seconds, so that what passes has
/// passed.
const FAILURES_MAX: u32 = 6;

/// Characters of the reason that goes along with the dead.
const REASON_CHARS_MAX: usize = 500;

/// The header by which a canary is known.
const CANARY: &str = "x-fanfare-canary";

/// How often the connection is looked at while no canaries are sent.
const LOOK_INTERVAL: Duration = Duration::from_secs(3);

/// Time that the broker may take to confirm what we publish. One that is short of memory or disk keeps publishers
/// waiting; messages are taken and acknowledged meanwhile.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(30);

/// Persistent, as AMQP 0-9-1 §1.8 `delivery-mode` says it.
const PERSISTENT: u8 = 2;

/// A message that is not acknowledged.
struct Held {
    tag: u64,
    message: Arc<Message>,
    /// What its sender wrote on it, for whoever finds it among the dead.
    properties: BasicProperties,
    identity: Identity,
    /// Whether it was tried before, on this connection.
    is_tried: bool,
    failures: u32,
}

/// One connection.
pub(crate) struct Session<'a> {
    source: &'a Source,
    intake: &'a dyn Intake,
    health: &'a Health,
    /// For messages and their acknowledgements.
    consuming: Connection,
    /// For canaries and the dead. A broker that is short of memory or disk stops reading from those who publish; what is
    /// taken must be acknowledged all the same.
    publishing: Connection,
    channel: Channel,
    publisher: Channel,
    deliveries: lapin::Consumer,
    underway: FuturesOrdered<Answer<'static, (Held, Verdict)>>,
    /// What waits to be tried again, in the order of delivery.
    held: VecDeque<Held>,
    /// Whether one of those under way is known to be held back: nothing newer is begun until it is.
    is_halted: bool,
    /// Whether the last that had its verdict could be kept.
    is_well: bool,
    /// The turn of whatever is begun next.
    turn: Turn,
    retry_at: Instant,
    backoff: Backoff,
    lately: Lately,
    /// The canary that is being sent.
    canary: Option<Answer<'static, Result<(), String>>>,
}

impl<'a> Session<'a> {
    /// Connects, declares and begins to consume.
    ///
    /// # Errors
    /// The environment's, in words for the log.
    pub(crate) async fn open(
        address: &Address,
        source: &'a Source,
        intake: &'a dyn Intake,
        health: &'a Health,
    ) -> Result<Self, String> {
        let consuming = address.connect(&format!("fanfare, from queue {}", source.queue)).await?;
        let publishing = address.connect(&format!("fanfare, to queue {}", source.queue)).await?;
        let channel = consuming.create_channel().await.map_err(said)?;
        let publisher = publishing.create_channel().await.map_err(said)?;
        source.declare(&channel).await.map_err(said)?;
        publisher.confirm_select(ConfirmSelectOptions::default()).await.map_err(said)?;
        let (queue, tag) = (source.queue.as_str().into(), format!("fanfare-{:016x}", random()));
        let options = BasicConsumeOptions::default();
        let deliveries = channel
            .basic_consume(queue, tag.as_str().into(), options, FieldTable::default())
            .await
            .map_err(said)?;
        // Rounds grow over connections, too: 2^32 of one connection are more than any lives to see.
        let round = health.connected() << 32;
        Ok(Self {
            source,
            intake,
            health,
            consuming,
            publishing,
            channel,
            publisher,
            deliveries,
            underway: FuturesOrdered::new(),
            held: VecDeque::new(),
            is_halted: false,
            is_well: true,
            turn: Turn { round, is_first: true },
            retry_at: Instant::now(),
            backoff: Backoff::new(RETRY.0, RETRY.1),
            lately: Lately::default(),
            canary: None,
        })
    }

    /// Takes messages until it is stopped.
    ///
    /// # Errors
    /// The connection does not serve any more, for the reason that is told.
    pub(crate) async fn run(&mut self, stopped: &mut watch::Receiver<bool>) -> Result<(), String> {
        let mut looks = interval(self.source.canary_interval.unwrap_or(LOOK_INTERVAL));
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // A connection has its own time to prove itself.
        let opened_at = Instant::now();
        let mut is_stopping = false;
        loop {
            let has_room = self.underway.len() < usize::from(self.source.prefetch);
            let is_free = has_room && self.held.is_empty() && !self.is_halted;
            if is_stopping && self.underway.is_empty() {
                // Whether the broker says good-bye does not matter: all that is kept is acknowledged.
                let _ = self.consuming.close(200, "stopped".into()).await;
                let _ = self.publishing.close(200, "stopped".into()).await;
                return Ok(());
            }
            tokio::select! {
                Some((held, verdict)) = self.underway.next(), if !self.underway.is_empty() => {
                    self.settle(held, verdict).await?;
                }
                delivery = self.deliveries.next(), if is_free && !is_stopping => match delivery {
                    Some(Ok(delivery)) => self.take(delivery).await?,
                    Some(Err(error)) => return Err(said(error)),
                    None => return Err("the broker cancelled the consumer".to_owned()),
                },
                () = sleep_until(self.retry_at), if !self.held.is_empty() && self.underway.is_empty() && !is_stopping => {
                    self.retry().await?;
                }
                _ = looks.tick() => self.look(is_free, opened_at)?,
                sent = next_canary(&mut self.canary), if self.canary.is_some() => {
                    self.canary = None;
                    match sent {
                        Ok(()) => count(&self.health.canaries_sent),
                        // The next look finds out whether the queue is deaf because of it.
                        Err(why) => tracing::debug!(queue = self.source.queue, why, "a canary is lost"),
                    }
                }
                () = until_stopped(stopped), if !is_stopping => is_stopping = true,
            }
        }
    }

    /// Takes one delivery.
    async fn take(&mut self, mut delivery: Delivery) -> Result<(), String> {
        self.health.heard();
        let tag = delivery.delivery_tag;
        let message = Arc::new(Message::of(&mut delivery));
        if message.headers.contains_key(CANARY) {
            count(&self.health.canaries_heard);
            return self.acknowledge(tag).await;
        }
        count(&self.health.received);
        count(&self.health.underway);
        let identity = self.lately.identify(&message, random());
        let held =
            Held { tag, message, properties: delivery.properties, identity, is_tried: false, failures: 0 };
        self.begin(held).await
    }

    /// Gives a message its place; what cannot have one is settled at once.
    async fn begin(&mut self, held: Held) -> Result<(), String> {
        let turn = self.turn;
        self.turn.is_first = false;
        match self.intake.begin(&held.message, &held.identity, turn).await {
            Ok(keeping) => {
                self.underway.push_back(Box::pin(async move { (held, keeping.await) }));
                Ok(())
            }
            // Whatever was begun before has its verdict first, so that what is held back stays in order.
            Err(verdict) if !self.underway.is_empty() => {
                self.is_halted |= matches!(verdict, Verdict::Later { .. } | Verdict::Failed { .. });
                self.underway.push_back(Box::pin(async move { (held, verdict) }));
                Ok(())
            }
            Err(verdict) => self.settle(held, verdict).await,
        }
    }

    /// Does what a verdict asks for.
    async fn settle(&mut self, mut held: Held, verdict: Verdict) -> Result<(), String> {
        let health = self.health;
        let counter = match verdict {
            Verdict::Kept => {
                self.is_well = true;
                self.backoff.reset();
                health.waits(None);
                &health.kept
            }
            Verdict::Repeated => match held.identity.twin(random()) {
                // It comes for the first time: it is meant beside the one that is the same.
                Some(twin) if !held.message.is_redelivered && !held.is_tried => {
                    held.identity = twin;
                    self.held.push_back(held);
                    return Ok(());
                }
                _ => &health.repeated,
            },
            Verdict::Ignored => &health.ignored,
            Verdict::Later { code, message, after } => {
                self.hold_back(held, code, &message, after);
                return Ok(());
            }
            Verdict::Failed { code, message } if held.failures + 1 < FAILURES_MAX => {
                held.failures += 1;
                self.hold_back(held, code, &message, None);
                return Ok(());
            }
            Verdict::Failed { code, message } | Verdict::Never { code, message } => {
                return self.bury(&held, code, &message).await;
            }
        };
        self.finish(&held, counter).await
    }

    /// Acknowledges a message, and counts what became of it.
    async fn finish(&mut self, held: &Held, counter: &AtomicU64) -> Result<(), String> {
        count(counter);
        self.health.underway.fetch_sub(1, Ordering::Relaxed);
        self.acknowledge(held.tag).await
    }

    async fn acknowledge(&mut self, tag: u64) -> Result<(), String> {
        self.channel.basic_ack(tag, BasicAckOptions::default()).await.map_err(said)
    }

    /// Puts a message aside until it makes sense to try it again. Those that were begun after it get their verdicts
    /// meanwhile, and nothing newer is begun.
    fn hold_back(&mut self, mut held: Held, code: &str, message: &str, after: Option<Duration>) {
        held.is_tried = true;
        self.is_halted = false;
        self.is_well = false;
        let place = self.held.partition_point(|other| other.tag < held.tag);
        if place == 0 {
            let pause = self.backoff.next(random()).max(after.unwrap_or_default().min(RETRY.1));
            self.retry_at = Instant::now() + pause;
            // Those after it wait for the same reason, or for it.
            self.health.waits(Some(format!("{code}: {message}")));
            tracing::debug!(queue = self.source.queue, code, message, ?pause, "messages wait");
        }
        self.held.insert(place, held);
    }

    /// Tries what was held back, in its order, until one is refused at once: all of it, or after a failure the first one
    /// alone.
    async fn retry(&mut self) -> Result<(), String> {
        let mut rest = VecDeque::new();
        if !self.is_well {
            self.turn = Turn { round: self.turn.round + 1, is_first: true };
            rest = self.held.split_off(1);
        }
        let mut waiting = std::mem::take(&mut self.held);
        while let Some(held) = waiting.pop_front() {
            count(&self.health.retried);
            self.begin(held).await?;
            if self.is_halted || !self.held.is_empty() {
                break;
            }
        }
        self.held.append(&mut waiting);
        self.held.append(&mut rest);
        Ok(())
    }

    /// Puts a message where people find it, with the reason, and acknowledges it once it is there.
    async fn bury(&mut self, held: &Held, code: &str, reason: &str) -> Result<(), String> {
        let (source, health) = (self.source, self.health);
        let (queue, routing_key) = (&source.queue, &held.message.routing_key);
        tracing::warn!(queue, routing_key, code, reason, "a message cannot be kept");
        let Some(dead_letter) = &source.dead_letter else {
            count(&health.dead);
            health.underway.fetch_sub(1, Ordering::Relaxed);
            let options = BasicRejectOptions { requeue: false };
            return self.channel.basic_reject(held.tag, options).await.map_err(said);
        };
        let reason: String = reason.chars().take(REASON_CHARS_MAX).collect();
        let mut headers = held.properties.headers().clone().unwrap_or_default();
        for (name, value) in [
            ("x-fanfare-code", code),
            ("x-fanfare-reason", &reason),
            ("x-fanfare-queue", queue),
            ("x-fanfare-exchange", &held.message.exchange),
            ("x-fanfare-routing-key", routing_key),
        ] {
            headers.insert(name.into(), AMQPValue::LongString(value.into()));
        }
        let properties = held.properties.clone().with_headers(headers).with_delivery_mode(PERSISTENT);
        publish(&self.publisher, dead_letter, &held.message.body, properties).await?;
        self.finish(held, &health.dead).await
    }

    /// Sees whether the queue is heard, and sends the next canary.
    fn look(&mut self, is_free: bool, opened_at: Instant) -> Result<(), String> {
        let connections =
            [&self.consuming, &self.publishing].map(|connection| connection.status().connected());
        let channels = [&self.channel, &self.publisher].map(|channel| channel.status().connected());
        if connections.into_iter().chain(channels).any(|is_connected| !is_connected) {
            return Err("the connection is gone".to_owned());
        }
        let Some(_) = self.source.canary_interval.filter(|_| is_free) else {
            // Who does not listen cannot hear; without canaries the connection's own signs of life have to do.
            self.health.heard();
            return Ok(());
        };
        let silence = self.health.silence().min(opened_at.elapsed());
        if silence >= DEAF_AFTER {
            let (queue, seconds) = (&self.source.queue, silence.as_secs());
            return Err(format!("no message came through queue `{queue}` for {seconds} s, not even our own"));
        }
        if self.canary.is_none() {
            let (publisher, queue) = (self.publisher.clone(), self.source.queue.clone());
            let mut headers = FieldTable::default();
            headers.insert(CANARY.into(), AMQPValue::LongString(env!("CARGO_PKG_VERSION").into()));
            let properties = BasicProperties::default().with_headers(headers).with_app_id("fanfare".into());
            self.canary = Some(Box::pin(async move { publish(&publisher, &queue, b"", properties).await }));
        }
        Ok(())
    }
}

/// Waits until the canary is with the broker; for ever if none is sent.
async fn next_canary(canary: &mut Option<Answer<'static, Result<(), String>>>) -> Result<(), String> {
    match canary {
        Some(sending) => sending.await,
        None => std::future::pending().await,
    }
}

/// Sends a message of ours to a queue, and waits until the broker has it.
async fn publish(
    publisher: &Channel,
    queue: &str,
    body: &[u8],
    properties: BasicProperties,
) -> Result<(), String> {
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let sending = publisher.basic_publish("".into(), queue.into(), options, body, properties);
    let confirmed = async { sending.await.map_err(said)?.await.map_err(said) };
    let confirmed = tokio::time::timeout(CONFIRM_TIMEOUT, confirmed).await;
    match confirmed.map_err(|_| format!("the broker confirmed nothing for {CONFIRM_TIMEOUT:?}"))?? {
        Confirmation::Ack(None) => Ok(()),
        Confirmation::Ack(Some(_)) => Err(format!("there is no queue `{queue}` any more")),
        Confirmation::Nack(_) => Err(format!("the broker does not take messages for queue `{queue}`")),
        Confirmation::NotRequested => Err("the broker does not confirm what is published".to_owned()),
    }
}

/// Waits until it is time to stop, or nobody is left who could say so.
pub(crate) async fn until_stopped(stopped: &mut watch::Receiver<bool>) {
    let _ = stopped.wait_for(|is_stopped| *is_stopped).await;
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

fn said(error: lapin::Error) -> String {
    error.to_string()
}
