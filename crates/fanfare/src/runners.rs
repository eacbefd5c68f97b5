//! Owns how runners hear by webhook of what people decide about their runs: each command of a run is POSTed until it is
//! answered, in order, and then counts as arrived. Does not know how runs are decided on.
//!
//! One task for each run that has something to tell, for as long as it has. Commands are kept with the run, so what a
//! process did not get rid of is told by the next.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use auth::secret::Secret;
use hub::record::State;
use hub::run::{Control, Run};
use hub::store::Listing;
use serde_json::{Value, json};

use crate::auth::Http;
use crate::codes::Fault;
use crate::dispatch::{Dispatcher, record_rule};

/// Runs that are told of at a time. 10,000: some kilobytes each. Others wait for [`LOOK_EVERY`].
const RUNS_MAX: usize = 10_000;

/// How often runs are looked through for commands that nobody is telling.
const LOOK_EVERY: Duration = Duration::from_secs(5 * 60);

/// Runs that are looked through at once.
const PAGE: usize = 1_000;

/// Time until the second attempt; each further one waits twice as long, up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_millis(500);

/// Longest time between two attempts.
const RETRY_MAX: Duration = Duration::from_secs(60);

/// Bytes of an answer, which nobody reads.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Where runners hear of it.
#[derive(Clone, Debug)]
pub(crate) struct RunnersConfig {
    /// The webhook.
    pub(crate) url: String,
    /// What requests are signed with; empty: they are not.
    pub(crate) secret: Secret,
    /// Time that a request may take.
    pub(crate) timeout: Duration,
}

/// The webhook of runners.
pub(crate) struct Runners {
    config: RunnersConfig,
    http: Http,
    dispatcher: Dispatcher,
    /// Runs that a task tells of.
    told: Mutex<HashSet<Box<str>>>,
}

impl Runners {
    /// Begins to tell what has not arrived yet. Needs a tokio runtime.
    ///
    /// # Errors
    /// The environment's: this machine's certificates cannot be read.
    pub(crate) fn start(config: RunnersConfig, dispatcher: Dispatcher) -> anyhow::Result<Arc<Self>> {
        let http = Http::new(config.timeout)?;
        let runners = Arc::new(Self { config, http, dispatcher, told: Mutex::default() });
        tokio::spawn(runners.clone().look());
        Ok(runners)
    }

    /// A run may have a command that is to be told.
    pub(crate) fn tell(self: &Arc<Self>, id: &str) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() < RUNS_MAX && told.insert(id.into()) {
            tokio::spawn(self.clone().tell_all(id.into()));
        }
    }

    /// Finds what an earlier process, or too many runs at once, have left over.
    async fn look(self: Arc<Self>) {
        loop {
            let mut after = None;
            while self.dispatcher.is_foremost() {
                let listing = Listing { after: after.take(), limit: PAGE, ..Listing::default() };
                let Ok(records) = self.dispatcher.store().list(Run::KIND, listing).await else { break };
                for record in &records {
                    if Run::from_record(&record.state).is_ok_and(|run| !run.controls(0).is_empty()) {
                        self.tell(&record.key.id);
                    }
                }
                match records.last() {
                    Some(last) if records.len() == PAGE => {
                        after = Some((last.state.created_at, last.key.id.clone()));
                    }
                    _ => break,
                }
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Tells a run's commands, the oldest first, until none is left.
    async fn tell_all(self: Arc<Self>, id: Box<str>) {
        let mut wait = RETRY_MIN;
        loop {
            let outcome = match self.next(&id).await {
                Ok(Some(control)) => self.post(&id, &control).await,
                Ok(None) => return,
                Err(fault) => Err(fault.message),
            };
            match outcome {
                Ok(()) => wait = RETRY_MIN,
                Err(why) => {
                    tracing::warn!(
                        thread_id = &*id,
                        why,
                        again_in = ?wait,
                        "a runner could not be told by webhook"
                    );
                    tokio::time::sleep(wait).await;
                    wait = RETRY_MAX.min(wait * 2);
                }
            }
        }
    }

    /// The oldest command of a run that has not arrived; with none, the run is given up in the same step.
    async fn next(&self, id: &str) -> Result<Option<Control>, Fault> {
        // Whoever adds a command after this look finds the run in the set, or no longer: then it begins anew.
        let give_up = || {
            self.told.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
        };
        match self.find(id).await? {
            Some(control) => return Ok(Some(control)),
            None => give_up(),
        }
        let Some(control) = self.find(id).await? else { return Ok(None) };
        let is_ours = self.told.lock().unwrap_or_else(PoisonError::into_inner).insert(id.into());
        Ok(is_ours.then_some(control))
    }

    async fn find(&self, id: &str) -> Result<Option<Control>, Fault> {
        let found = self.dispatcher.store().look(vec![Run::key_of(id)], Vec::new()).await?;
        let record = found.records.into_iter().next().flatten();
        let run = record.and_then(|record| Run::from_record(&record.state).ok());
        Ok(run.and_then(|run| run.controls(0).first().cloned()))
    }

    async fn post(&self, id: &str, control: &Control) -> Result<(), String> {
        let body = json!({ "thread_id": id, "command": control }).to_string();
        let secret = &self.config.secret;
        let signature = (!secret.is_empty()).then(|| auth::webhook::sign(secret, body.as_bytes()));
        let answer = self.http.post_signed(&self.config.url, body, signature, ANSWER_BYTES_MAX).await?;
        if !(200..300).contains(&answer.status) {
            return Err(format!("it answered {}", answer.status));
        }
        let until = control.id;
        let rule = record_rule::<Run, _, _>(
            move |present, _| hub::run::acknowledge(present, until),
            |_| Value::Null,
        );
        let acknowledged = self.dispatcher.change(Some(Run::key_of(id)), None, rule).await;
        // Told again then: at least once.
        acknowledged.map(|_| ()).map_err(|fault| fault.message)
    }
}
