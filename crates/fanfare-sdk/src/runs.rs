//! Owns runs: beginning them, saying what they are, waiting for what they are told to do. Does not run anything.

use std::sync::Arc;
use std::time::Duration;

use hub::rest::{Approval, ControlCommand, NewControlCommand, NewRun, Run, RunControl, RunUpdate};
use serde_json::Value;

use crate::error::Error;
use crate::http::{Call, Http, escape};

/// Runs of a server. Every method waits for the answer, and fails with [`Error::Refused`], [`Error::Unavailable`] or
/// [`Error::BadAnswer`].
///
/// ```no_run
/// use std::time::Duration;
///
/// use fanfare_sdk::Publisher;
/// use fanfare_sdk::rest::{NewRun, RunUpdate};
///
/// # async fn example() -> Result<(), fanfare_sdk::Error> {
/// let runs = Publisher::new("http://127.0.0.1:8000")?.runs();
/// let run = runs.start(&NewRun::default()).await?;
/// let waiting = RunUpdate { status: Some("waiting_approval".into()), ..RunUpdate::default() };
/// runs.set_status(&run.thread_id, &waiting).await?;
/// let mut last = None;
/// let command = loop {
///     let commands = runs.control(&run.thread_id, Duration::from_secs(30), last.as_ref()).await?;
///     if let Some(command) = commands.into_iter().next() {
///         break command;
///     }
/// };
/// println!("told to {}", command.verb);
/// last = Some(command.id);
/// # let _ = last;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Runs {
    http: Arc<Http>,
}

impl std::fmt::Debug for Runs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runs").finish_non_exhaustive()
    }
}

impl Runs {
    pub(crate) fn new(http: Arc<Http>) -> Self {
        Self { http }
    }

    /// Begins a run.
    ///
    /// # Errors
    /// See [`Runs`].
    pub async fn start(&self, run: &NewRun) -> Result<Run, Error> {
        self.http.call(&Call::post("/api/v1/runs", run)).await
    }

    /// Shows a run.
    ///
    /// # Errors
    /// See [`Runs`].
    pub async fn get(&self, thread_id: &str) -> Result<Run, Error> {
        self.http.call(&Call::get(format!("/api/v1/runs/{}", escape(thread_id)))).await
    }

    /// Says what a run is now.
    ///
    /// # Errors
    /// See [`Runs`].
    pub async fn set_status(&self, thread_id: &str, update: &RunUpdate) -> Result<Run, Error> {
        self.http.call(&Call::post(format!("/api/v1/runs/{}/status", escape(thread_id)), update)).await
    }

    /// Answers a run that waits for approval.
    ///
    /// # Errors
    /// See [`Runs`].
    pub async fn approve(&self, thread_id: &str, approval: &Approval) -> Result<Run, Error> {
        let approval = Approval { thread_id: Some(thread_id.to_owned()), ..approval.clone() };
        self.http.call(&Call::post(format!("/api/v1/runs/{}/approve", escape(thread_id)), &approval)).await
    }

    /// Tells a run to do something; whoever runs it fetches that by [`Runs::control`].
    ///
    /// # Errors
    /// See [`Runs`].
    pub async fn command(&self, thread_id: &str, command: &NewControlCommand) -> Result<Run, Error> {
        self.http.call(&Call::post(format!("/api/v1/runs/{}/control", escape(thread_id)), command)).await
    }

    /// Waits until a run is told to do something, for at most `wait`; empty if it was not. `after` is the id of the last
    /// command that has arrived: it and those before it are not told again.
    ///
    /// # Errors
    /// See [`Runs`].
    pub async fn control(
        &self,
        thread_id: &str,
        wait: Duration,
        after: Option<&Value>,
    ) -> Result<Vec<ControlCommand>, Error> {
        let mut path = format!("/api/v1/runs/{}/control?wait={}ms", escape(thread_id), wait.as_millis());
        if let Some(after) = after {
            let id = after.as_str().map_or_else(|| after.to_string(), str::to_owned);
            path.push_str(&format!("&after={}", escape(&id)));
        }
        let control: RunControl = self.http.call(&Call { wait, ..Call::get(path) }).await?;
        Ok(control.commands)
    }
}
