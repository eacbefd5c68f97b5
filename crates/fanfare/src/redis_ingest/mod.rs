//! Events from Redis at work in the server: a stream whose entries are kept exactly once, and a channel whose messages are
//! kept as they come.
//!
//! What events may be, and how they are kept, is the same as for queues: [`crate::rabbitmq::Events`]. Here is what Redis
//! needs: reading, acknowledging, taking over from the dead, burying. Does not know rooms or schemas. Invariant: an entry
//! is acknowledged only once it is kept, known, or safely among the dead.

mod batch;
mod channel;
mod config;
mod entry;
mod stream;
mod turns;

use std::sync::Arc;
use std::time::Duration;

use queues::{Backoff, Health, random};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::rabbitmq::{Events, Mode, Rooms, Watch};
use crate::rest::App;
use channel::ChannelReader;
use stream::StreamReader;

pub(crate) use config::RedisIngestConfig;

/// Pauses between two attempts to connect: a Redis that restarts is back in seconds.
const RECONNECT: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));

/// Time that a stop waits for what is under way.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// The readers at work. Dropping them ends them at once; what was not acknowledged is read again.
#[derive(Default)]
pub(crate) struct Ingest(Vec<Running>);

struct Running {
    health: Arc<Health>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// One connection's worth of reading.
trait Reader: Send + 'static {
    /// Connects and takes what comes until it is stopped.
    ///
    /// # Errors
    /// The connection does not serve any more, for the reason that is told.
    fn read(
        &mut self,
        stopped: &mut watch::Receiver<bool>,
    ) -> impl Future<Output = Result<(), String>> + Send;
}

impl Ingest {
    /// Begins to take what is configured, if anything is.
    pub(crate) fn start(config: Option<&RedisIngestConfig>, app: &App) -> Self {
        let Some(config) = config else { return Self::default() };
        let intake = |scope: String| {
            let rooms = Rooms { setting: "redis_ingest.rooms", patterns: config.rooms.clone() };
            Arc::new(Events::new(app.clone(), scope, Mode::Events, rooms))
        };
        let mut running = Vec::new();
        if let Some(source) = &config.stream {
            let health = Arc::new(Health::new(&source.stream, &config.connector.shown()));
            let intake = intake(format!("redis:{}", source.stream));
            let reader = StreamReader::new(config.connector.clone(), source.clone(), intake, health.clone());
            running.push(Running::start(health, reader));
        }
        if let Some(source) = &config.channel {
            let health = Arc::new(Health::new(&source.channel, &config.connector.shown()));
            let intake = intake(format!("redis-channel:{}", source.channel));
            let reader = ChannelReader::new(config.connector.clone(), source.clone(), intake, health.clone());
            running.push(Running::start(health, reader));
        }
        Self(running)
    }

    /// How they are doing.
    pub(crate) fn watch(&self) -> Watch {
        Watch::of(self.0.iter().map(|running| running.health.clone()))
    }

    /// Takes nothing new, waits up to 5 s until what is under way is kept and acknowledged, and ends.
    pub(crate) async fn stop(self) {
        futures_util::future::join_all(self.0.into_iter().map(Running::stop)).await;
    }
}

impl Running {
    fn start(health: Arc<Health>, reader: impl Reader) -> Self {
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(run(reader, health.clone(), stopped));
        Self { health, stop, task }
    }

    async fn stop(mut self) {
        self.stop.send_replace(true);
        // What is not through by then is read again.
        let _ = tokio::time::timeout(STOP_TIMEOUT, &mut self.task).await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Reads over all connections. Never gives up: what goes wrong is in the health, and in the log.
async fn run(mut reader: impl Reader, health: Arc<Health>, mut stopped: watch::Receiver<bool>) {
    let mut backoff = Backoff::new(RECONNECT.0, RECONNECT.1);
    let mut is_complaining = false;
    let mut connections = health.report().connections;
    while !*stopped.borrow() {
        let Err(why) = reader.read(&mut stopped).await else { break };
        let report = health.report();
        if std::mem::replace(&mut connections, report.connections) != report.connections {
            backoff.reset();
            is_complaining = false;
        }
        let source = report.queue;
        // Once for each outage: the attempts that follow say nothing new.
        if std::mem::replace(&mut is_complaining, true) {
            tracing::debug!(source, why, "still nothing is taken from redis");
        } else {
            tracing::warn!(source, why, "nothing is taken from redis; trying again until it is");
        }
        health.lost(why);
        tokio::select! {
            () = tokio::time::sleep(backoff.next(random())) => {}
            () = until_stopped(&mut stopped) => {}
        }
    }
}

/// Waits until it is time to stop, or nobody is left who could say so.
async fn until_stopped(stopped: &mut watch::Receiver<bool>) {
    let _ = stopped.wait_for(|is_stopped| *is_stopped).await;
}
