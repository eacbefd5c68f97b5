//! Owns the life of one queue's consumer over all its connections. Does not know what happens on one; that is
//! `session.rs`.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::address::Address;
use crate::backoff::{Backoff, random};
use crate::health::Health;
use crate::intake::Intake;
use crate::session::{Session, until_stopped};
use crate::source::Source;

/// Pauses between two attempts to connect: a broker that restarts is back in seconds, and one that is gone costs little.
const RECONNECT: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));

/// Time that a stop waits for what is under way.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// Takes messages from one queue for as long as it runs.
pub struct Consumer {
    address: Address,
    source: Source,
    intake: Arc<dyn Intake>,
}

impl Consumer {
    /// Takes what `source` brings from the broker at `address` to `intake`.
    pub fn new(address: Address, source: Source, intake: Arc<dyn Intake>) -> Self {
        Self { address, source, intake }
    }

    /// Begins, as a task of the runtime that this is called in. Never gives up: what goes wrong is in the health, and in
    /// the log.
    #[must_use]
    pub fn start(self) -> Running {
        let health = Arc::new(Health::new(&self.source.queue, &self.address.shown()));
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(self.run(health.clone(), stopped));
        Running { health, stop, task }
    }

    async fn run(self, health: Arc<Health>, mut stopped: watch::Receiver<bool>) {
        let mut backoff = Backoff::new(RECONNECT.0, RECONNECT.1);
        let queue = &self.source.queue;
        let mut is_complaining = false;
        while !*stopped.borrow() {
            let opening = Session::open(&self.address, &self.source, &*self.intake, &health);
            let outcome = match opening.await {
                Ok(mut session) => {
                    tracing::info!(queue, broker = self.address.shown(), "taking messages");
                    backoff.reset();
                    is_complaining = false;
                    session.run(&mut stopped).await
                }
                Err(why) => Err(why),
            };
            let Err(why) = outcome else { break };
            // Once for each outage: the attempts that follow say nothing new.
            if std::mem::replace(&mut is_complaining, true) {
                tracing::debug!(queue, why, "still no messages");
            } else {
                tracing::warn!(queue, why, "no messages are taken; trying again until they are");
            }
            health.lost(why);
            tokio::select! {
                () = tokio::time::sleep(backoff.next(random())) => {}
                () = until_stopped(&mut stopped) => {}
            }
        }
    }
}

/// A consumer at work. Dropping it ends it at once; what was not acknowledged is delivered again.
#[derive(Debug)]
pub struct Running {
    health: Arc<Health>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Running {
    /// How it is doing.
    #[must_use]
    pub fn health(&self) -> &Arc<Health> {
        &self.health
    }

    /// Takes nothing new, waits up to 5 s until what is under way is kept and acknowledged, and ends.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        // What is not through by then is delivered again.
        let _ = tokio::time::timeout(STOP_TIMEOUT, &mut self.task).await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}
