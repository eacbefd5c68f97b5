//! Owns jobs: tracking them, and saying what has become of them. Does not know how progress is coalesced; that is
//! `progress.rs`.

use std::sync::Arc;
use std::time::Duration;

use hub::rest::{
    Job, JobCancellation, JobCompletion, JobFailure, JobHeartbeat, JobPage, JobProgressUpdate,
    JobStatusUpdate, NewJob,
};
use serde::Serialize;
use serde_json::Value;

use crate::error::Error;
use crate::http::{Call, Http, escape};
use crate::progress::ProgressTracker;

/// Jobs of a server. Every method waits for the answer, and fails with [`Error::Refused`], [`Error::Unavailable`] or
/// [`Error::BadAnswer`].
#[derive(Clone)]
pub struct Jobs {
    http: Arc<Http>,
}

/// Which jobs are listed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JobQuery {
    /// Only those of this project.
    pub project_id: Option<String>,
    /// Only those with this status.
    pub status: Option<String>,
    /// How many at most.
    pub limit: Option<u32>,
    /// What the page before gave as `next`.
    pub after: Option<String>,
}

impl std::fmt::Debug for Jobs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Jobs").finish_non_exhaustive()
    }
}

impl Jobs {
    pub(crate) fn new(http: Arc<Http>) -> Self {
        Self { http }
    }

    /// Tracks a job for its project; it is `queued`.
    ///
    /// # Errors
    /// See [`Jobs`].
    pub async fn create(&self, job: &NewJob) -> Result<Job, Error> {
        self.http.call(&Call::post("/api/v1/jobs", job)).await
    }

    /// Shows a job.
    ///
    /// # Errors
    /// See [`Jobs`].
    pub async fn get(&self, job_id: &str) -> Result<Job, Error> {
        self.http.call(&Call::get(format!("/api/v1/jobs/{}", escape(job_id)))).await
    }

    /// Lists jobs, the newest first.
    ///
    /// # Errors
    /// See [`Jobs`].
    pub async fn list(&self, query: &JobQuery) -> Result<JobPage, Error> {
        let limit = query.limit.map(|limit| limit.to_string());
        let parts = [
            ("project_id", &query.project_id),
            ("status", &query.status),
            ("limit", &limit),
            ("after", &query.after),
        ];
        let parts: Vec<_> = parts
            .iter()
            .filter_map(|(name, value)| Some(format!("{name}={}", escape(value.as_ref()?))))
            .collect();
        self.http.call(&Call::get(format!("/api/v1/jobs?{}", parts.join("&")))).await
    }

    /// Says what a job is now.
    ///
    /// # Errors
    /// See [`Jobs`].
    pub async fn set_status(&self, job_id: &str, update: &JobStatusUpdate) -> Result<Job, Error> {
        self.post(job_id, "status", update).await
    }

    /// Says how far a job has come. [`Jobs::track`] does it without waiting.
    ///
    /// # Errors
    /// See [`Jobs`].
    pub async fn set_progress(&self, job_id: &str, update: &JobProgressUpdate) -> Result<Job, Error> {
        self.post(job_id, "progress", update).await
    }

    /// Says that somebody still works at a job. With an interval it promises to say so again within it.
    ///
    /// # Errors
    /// See [`Jobs`].
    pub async fn heartbeat(&self, job_id: &str, interval: Option<Duration>) -> Result<Job, Error> {
        let body = JobHeartbeat { heartbeat_interval: interval.map(|interval| interval.as_secs_f64()) };
        self.post(job_id, "heartbeat", &body).await
    }

    /// Ends a job well.
    ///
    /// # Errors
    /// See [`Jobs`].
    pub async fn complete(&self, job_id: &str, result: Option<Value>) -> Result<Job, Error> {
        self.post(job_id, "complete", &JobCompletion { result }).await
    }

    /// Ends a job badly.
    ///
    /// # Errors
    /// See [`Jobs`].
    pub async fn fail(&self, job_id: &str, error: impl Into<String>) -> Result<Job, Error> {
        self.post(job_id, "fail", &JobFailure { error: error.into() }).await
    }

    /// Ends a job without an outcome.
    ///
    /// # Errors
    /// See [`Jobs`].
    pub async fn cancel(&self, job_id: &str, reason: Option<String>) -> Result<Job, Error> {
        self.post(job_id, "cancel", &JobCancellation { reason }).await
    }

    /// Tells the progress of a job without waiting. With an interval it promises signs of life, and gives them until the
    /// tracker ends.
    ///
    /// # Errors
    /// [`Error::NoRuntime`].
    pub fn track(&self, job_id: &str, heartbeat: Option<Duration>) -> Result<ProgressTracker, Error> {
        ProgressTracker::start(self.clone(), job_id, heartbeat)
    }

    /// One request, to be tried under one key.
    pub(crate) fn progress_call(job_id: &str, update: &JobProgressUpdate) -> Call {
        Call::post(path(job_id, "progress"), update)
    }

    pub(crate) async fn call(&self, call: &Call) -> Result<Job, Error> {
        self.http.call(call).await
    }

    async fn post(&self, job_id: &str, verb: &str, body: &impl Serialize) -> Result<Job, Error> {
        self.http.call(&Call::post(path(job_id, verb), body)).await
    }
}

fn path(job_id: &str, verb: &str) -> String {
    format!("/api/v1/jobs/{}/{verb}", escape(job_id))
}
