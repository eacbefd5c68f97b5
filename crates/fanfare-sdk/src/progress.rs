//! Owns the progress of one job on its way to the server. Does not throttle what watchers get; the server does.
//!
//! Invariant: of what was said while a request was under way, one request follows that says it all: the newest value and
//! message, or the exact sum of the increments. Nothing of it is sent after the job's end, everything before.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hub::rest::{Job, JobProgressUpdate};
use serde_json::Value;
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};

use crate::error::Error;
use crate::http::Call;
use crate::jobs::Jobs;

/// Tells how far a job has come, without making the job wait.
///
/// A tracker that is dropped sends what is pending and its signs of life end: a server that was promised them finds the
/// job stalled.
///
/// ```no_run
/// use std::time::Duration;
///
/// use fanfare_sdk::Publisher;
/// use fanfare_sdk::rest::NewJob;
///
/// # async fn example() -> Result<(), fanfare_sdk::Error> {
/// let jobs = Publisher::new("http://127.0.0.1:8000")?.jobs();
/// let job = jobs.create(&NewJob { project_id: "shop".into(), ..NewJob::default() }).await?;
/// let tracker = jobs.track(&job.job_id, Some(Duration::from_secs(10)))?;
/// tracker.set_progress(25.0, "downloading");
/// tracker.increment_progress(25.0, "transcribing");
/// tracker.mark_complete("all done").await?;
/// # Ok(())
/// # }
/// ```
pub struct ProgressTracker {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    pending: Pending,
    end: Option<End>,
    /// Why the server wants to hear no more.
    refusal: Option<Error>,
    is_dropped: bool,
}

/// How a job ends, and who waits for it.
struct End {
    outcome: Outcome,
    reply: oneshot::Sender<Result<Job, Error>>,
}

enum Outcome {
    Complete(Option<Value>),
    Fail(String),
    Cancel(Option<String>),
}

/// What is yet to be sent.
#[derive(Clone, Debug, Default, PartialEq)]
struct Pending {
    change: Option<Change>,
    message: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Change {
    Set(f64),
    Add(f64),
}

impl Pending {
    fn set(&mut self, progress: f64, message: Option<String>) {
        self.change = Some(Change::Set(progress));
        self.say(message);
    }

    fn add(&mut self, increment: f64, message: Option<String>) {
        self.change = Some(match self.change {
            // What the server would make of it one after the other.
            Some(Change::Set(progress)) => {
                Change::Set((progress.clamp(0.0, 100.0) + increment).clamp(0.0, 100.0))
            }
            Some(Change::Add(sum)) => Change::Add(sum + increment),
            None => Change::Add(increment),
        });
        self.say(message);
    }

    fn say(&mut self, message: Option<String>) {
        if message.is_some() {
            self.message = message;
        }
    }

    /// The request that says it all; `None` if there is nothing to say.
    fn take(&mut self) -> Option<JobProgressUpdate> {
        let pending = std::mem::take(self);
        if pending == Self::default() {
            return None;
        }
        let mut update = JobProgressUpdate { message: pending.message, ..JobProgressUpdate::default() };
        match pending.change {
            Some(Change::Set(progress)) => update.progress = Some(progress),
            Some(Change::Add(increment)) => update.increment = Some(increment),
            None => {}
        }
        Some(update)
    }
}

/// What the task does next.
enum Step {
    Tell(JobProgressUpdate),
    End(End),
    Beat,
    Stop,
}

impl ProgressTracker {
    pub(crate) fn start(jobs: Jobs, job_id: &str, heartbeat: Option<Duration>) -> Result<Self, Error> {
        let runtime = Handle::try_current().map_err(|_| Error::NoRuntime)?;
        let shared = Arc::new(Shared { state: Mutex::default(), changed: Notify::new() });
        let task = Task { jobs, job_id: job_id.to_owned(), heartbeat, shared: shared.clone() };
        runtime.spawn(task.run());
        Ok(Self { shared })
    }

    /// Says how much is done: 0 to 100. The server does not go back; for that see [`Jobs::set_progress`].
    pub fn set_progress<'a>(&self, progress: f64, message: impl Into<Option<&'a str>>) {
        let message = message.into().map(str::to_owned);
        self.shared.lock().pending.set(finite(progress), message);
        self.shared.changed.notify_one();
    }

    /// Says how much more is done.
    pub fn increment_progress<'a>(&self, increment: f64, message: impl Into<Option<&'a str>>) {
        let message = message.into().map(str::to_owned);
        self.shared.lock().pending.add(finite(increment), message);
        self.shared.changed.notify_one();
    }

    /// Why the server wants to hear no more of this job, if it has said so: it has ended otherwise, was lost, or does not
    /// exist. Whoever works at it may stop.
    #[must_use]
    pub fn refusal(&self) -> Option<Error> {
        self.shared.lock().refusal.clone()
    }

    /// Ends the job well, after all progress, with a last message at 100.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Unavailable`], [`Error::BadAnswer`], [`Error::Closed`].
    pub async fn mark_complete<'a>(self, message: impl Into<Option<&'a str>>) -> Result<Job, Error> {
        let message = message.into().map(str::to_owned);
        self.end(message, Outcome::Complete(None)).await
    }

    /// Ends the job well, after all progress, with what came of it and a last message at 100.
    ///
    /// # Errors
    /// As [`mark_complete`](Self::mark_complete).
    pub async fn mark_complete_with<'a>(
        self,
        message: impl Into<Option<&'a str>>,
        result: impl Into<Value>,
    ) -> Result<Job, Error> {
        let message = message.into().map(str::to_owned);
        self.end(message, Outcome::Complete(Some(result.into()))).await
    }

    /// Ends the job badly, after all progress.
    ///
    /// # Errors
    /// As [`mark_complete`](Self::mark_complete).
    pub async fn mark_failed(self, error: impl Into<String>) -> Result<Job, Error> {
        self.end(None, Outcome::Fail(error.into())).await
    }

    /// Ends the job without an outcome, after all progress: nobody wants it any more.
    ///
    /// # Errors
    /// As [`mark_complete`](Self::mark_complete).
    pub async fn mark_cancelled<'a>(self, reason: impl Into<Option<&'a str>>) -> Result<Job, Error> {
        let reason = reason.into().map(str::to_owned);
        self.end(None, Outcome::Cancel(reason)).await
    }

    async fn end(self, message: Option<String>, outcome: Outcome) -> Result<Job, Error> {
        let (reply, answer) = oneshot::channel();
        {
            let mut state = self.shared.lock();
            if message.is_some() {
                state.pending.set(100.0, message);
            }
            state.end = Some(End { outcome, reply });
        }
        self.shared.changed.notify_one();
        answer.await.unwrap_or(Err(Error::Closed))
    }
}

/// JSON knows no other numbers.
fn finite(number: f64) -> f64 {
    if number.is_finite() { number } else { 0.0 }
}

impl fmt::Debug for ProgressTracker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProgressTracker").finish_non_exhaustive()
    }
}

impl Drop for ProgressTracker {
    fn drop(&mut self) {
        self.shared.lock().is_dropped = true;
        self.shared.changed.notify_one();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Whoever panicked left the state whole: nothing in between can fail.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Task {
    jobs: Jobs,
    job_id: String,
    heartbeat: Option<Duration>,
    shared: Arc<Shared>,
}

impl Task {
    async fn run(self) {
        if self.heartbeat.is_some() {
            self.note(self.jobs.heartbeat(&self.job_id, self.heartbeat).await.err());
        }
        // The end is told whatever became of the progress: a lost job may still have an outcome.
        loop {
            match self.next().await {
                Step::Tell(update) => {
                    let call = Jobs::progress_call(&self.job_id, &update);
                    self.tell(&call).await;
                }
                Step::Beat => self.note(self.jobs.heartbeat(&self.job_id, None).await.err()),
                Step::End(End { outcome, reply }) => {
                    let answer = match outcome {
                        Outcome::Complete(result) => self.jobs.complete(&self.job_id, result).await,
                        Outcome::Fail(error) => self.jobs.fail(&self.job_id, error).await,
                        Outcome::Cancel(reason) => self.jobs.cancel(&self.job_id, reason).await,
                    };
                    // Whoever asked may have gone; the job has ended all the same.
                    let _ = reply.send(answer);
                    return;
                }
                Step::Stop => return,
            }
        }
    }

    /// Sends progress until it is answered. What was given up is tried again under the same key, because it may have
    /// arrived, and an increment must count once; only an end is not kept waiting for it.
    async fn tell(&self, call: &Call) {
        loop {
            match self.jobs.call(call).await {
                Err(Error::Unavailable { .. }) => {
                    let state = self.shared.lock();
                    if state.is_dropped || state.end.is_some() {
                        return;
                    }
                }
                answer => return self.note(answer.err()),
            }
        }
    }

    fn note(&self, error: Option<Error>) {
        if let Some(error @ Error::Refused { .. }) = error {
            self.shared.lock().refusal = Some(error);
        }
    }

    /// Waits for something to do.
    async fn next(&self) -> Step {
        // Half of what was promised: one request may be slow.
        let beat = self.heartbeat.map(|interval| interval / 2);
        let mut quiet = std::pin::pin!(tokio::time::sleep(beat.unwrap_or_default()));
        loop {
            let is_refused = {
                let mut state = self.shared.lock();
                let is_refused = state.refusal.is_some();
                // What is refused is not said again, but what it comes to is.
                match state.pending.take() {
                    Some(update) if !is_refused => return Step::Tell(update),
                    _ => {}
                }
                if let Some(end) = state.end.take() {
                    return Step::End(end);
                }
                if state.is_dropped {
                    return Step::Stop;
                }
                is_refused
            };
            tokio::select! {
                () = self.shared.changed.notified() => {}
                () = &mut quiet, if beat.is_some() && !is_refused => return Step::Beat,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_meanwhile_becomes_one_request() {
        let mut pending = Pending::default();
        assert_eq!(pending.take(), None);
        pending.add(0.1, Some("a".into()));
        pending.add(0.2, None);
        let update = pending.take().unwrap();
        assert_eq!((update.increment.map(|sum| (sum * 10.0).round()), update.progress), (Some(3.0), None));
        assert_eq!(update.message.as_deref(), Some("a"));
        pending.add(50.0, None);
        pending.set(20.0, Some("b".into()));
        pending.add(5.0, Some("c".into()));
        let update = pending.take().unwrap();
        assert_eq!(
            (update.progress, update.increment, update.message.as_deref()),
            (Some(25.0), None, Some("c"))
        );
        pending.set(90.0, None);
        pending.add(50.0, None);
        assert_eq!(pending.take().unwrap().progress, Some(100.0));
        assert_eq!(pending.take(), None);
    }
}
