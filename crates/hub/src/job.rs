//! Owns what a job may become, and which of its progress is told when. Does not know who asks or where jobs are kept.
//!
//! A job shows what was **told** ([`Told`]): whoever folds the events of its room gets the same ([`fold`]). Progress that
//! came too soon after the last waits beside it in [`Job::pending_progress`].
//!
//! **Throttling.** The first update is told at once, then at most one each `min_update_interval`; the newest waits, and
//! is told when the interval ends ([`due`]) or before the job ends, whichever comes first.
//!
//! **Heartbeats.** Whoever promises them and is silent for two intervals has a `stalled` job, and after three more a
//! `lost` one. Any sign of life revives a stalled job. A lost one has been given up: somebody may have begun the work
//! elsewhere, so signs of life are refused, and tell a worker that came back to stop. Only an outcome is still taken,
//! because work that was done should not be lost for a late message. The three intervals begin when the job was told to
//! be stalled: after a restart of the server, or when its clock is set forward, publishers have the time to be heard.
//!
//! **Forgetting.** A job that has ended, or was lost, goes by itself after the time for which it was to be kept when it
//! was made ([`JobLimits::kept`]).
//!
//! Operators hear of each status, too: an [`ADMIN_EVENT`] of the type `job_event`.
//!
//! A clock that is set back makes nothing wait twice: an update that seems to be older than the last is told at once.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::bound;
use crate::event::Audience;
use crate::fault::{Fault, Refusal};
use crate::json::Json;
use crate::outgoing::Outgoing;
use crate::percent::{Percent, PercentStep};
use crate::record::{State, Step};
use crate::room::{RoomKind, RoomName};
use crate::run::{ADMIN_EVENT, AdminEvent, AdminEventType};
use crate::seconds::Seconds;
use crate::store::RecordKind;
use crate::time::Timestamp;

/// The event that tells of a status.
pub const AGENT_STATUS: &str = "agent_status";
/// The event that tells of progress.
pub const AGENT_PROGRESS: &str = "agent_progress";

/// Silent intervals after which a job is stalled: one may be late.
const STALLED_AFTER: u32 = 2;
/// Further silent intervals after which it is lost.
const LOST_AFTER: u32 = 3;

/// What a job is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum JobStatus {
    /// It waits for somebody to work on it.
    Queued,
    /// Somebody works on it.
    Running,
    /// It is done.
    Success,
    /// It failed.
    Error,
    /// Nobody wants it any more.
    Cancelled,
    /// Its publisher missed heartbeats. Only the server says so.
    Stalled,
    /// Its publisher was silent for so long that nobody waits any more. Only the server says so.
    Lost,
}

/// What may follow on what.
const TRANSITIONS: [(JobStatus, &[JobStatus]); 7] = {
    use JobStatus::{Cancelled, Error, Lost, Queued, Running, Stalled, Success};
    [
        (Queued, &[Running, Success, Error, Cancelled, Stalled]),
        (Running, &[Success, Error, Cancelled, Stalled]),
        (Stalled, &[Queued, Running, Success, Error, Cancelled, Lost]),
        (Lost, &[Success, Error, Cancelled]),
        (Success, &[]),
        (Error, &[]),
        (Cancelled, &[]),
    ]
};

impl JobStatus {
    /// The name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            JobStatus::Queued => "queued",
            JobStatus::Running => "running",
            JobStatus::Success => "success",
            JobStatus::Error => "error",
            JobStatus::Cancelled => "cancelled",
            JobStatus::Stalled => "stalled",
            JobStatus::Lost => "lost",
        }
    }

    /// What may follow on it.
    #[must_use]
    pub fn followers(self) -> &'static [JobStatus] {
        let row = TRANSITIONS.iter().find(|(from, _)| *from == self);
        row.expect("invariant: every status has a row").1
    }

    /// Whether nothing follows.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        self.followers().is_empty()
    }
}

/// Bounds of a job's parts. What exceeds one is refused.
#[derive(Clone, Debug)]
pub struct JobLimits {
    /// Bytes of `kind`. Default 100.
    pub kind_bytes_max: usize,
    /// Bytes of `meta` as JSON. Default 16 KiB. Higher: lists of jobs grow by as much.
    pub meta_bytes_max: usize,
    /// Bytes of a progress message. Default 4 KiB.
    pub message_bytes_max: usize,
    /// Bytes of an error text, or of the reason of a cancellation. Default 16 KiB: a traceback.
    pub error_bytes_max: usize,
    /// Bytes of a result as JSON. Default 256 KiB. Higher: each watcher gets as much.
    pub result_bytes_max: usize,
    /// Least time between two updates of progress, for jobs that do not say. Default 5 s. Lower: more events, smoother
    /// bars.
    pub min_update_interval: Duration,
    /// The longest that a job may ask for. Default 1 h.
    pub min_update_interval_max: Duration,
    /// The shortest heartbeat interval that may be promised. Default 100 ms. Lower: more work for nothing.
    pub heartbeat_interval_min: Duration,
    /// The longest. Default 1 day.
    pub heartbeat_interval_max: Duration,
    /// How long a job stays after its end. Default 30 days; zero is for ever. Lower: who asks late finds nothing. Higher:
    /// the store grows.
    pub kept: Duration,
}

impl Default for JobLimits {
    fn default() -> Self {
        Self {
            kind_bytes_max: 100,
            meta_bytes_max: 16 << 10,
            message_bytes_max: 4 << 10,
            error_bytes_max: 16 << 10,
            result_bytes_max: 256 << 10,
            min_update_interval: Duration::from_secs(5),
            min_update_interval_max: Duration::from_secs(3_600),
            heartbeat_interval_min: Duration::from_millis(100),
            heartbeat_interval_max: Duration::from_secs(86_400),
            kept: Duration::from_secs(30 * 86_400),
        }
    }
}

/// What events have told of a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Told {
    /// What it is.
    pub status: JobStatus,
    /// How much is done.
    pub progress: Percent,
    /// What the last update of progress said.
    pub message: Option<Box<str>>,
    /// What it came to.
    pub result: Option<Json>,
    /// Why it failed or was cancelled.
    pub error: Option<Box<str>>,
}

/// An update of progress that is yet to be told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Pending {
    /// How much is done.
    pub progress: Percent,
    /// The newest message, if there was one since the last that was told.
    pub message: Option<Box<str>>,
}

/// A job's state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    job_id: Box<str>,
    project_id: Box<str>,
    kind: Option<Box<str>>,
    meta: Option<Json>,
    told: Told,
    pending_progress: Option<Pending>,
    /// When progress was last told.
    progress_told_at: Option<Timestamp>,
    min_update_interval: Seconds,
    heartbeat_interval: Option<Seconds>,
    /// When its publisher was last heard.
    heard_at: Timestamp,
    created_at: Timestamp,
    updated_at: Timestamp,
    /// When it became what it is.
    status_at: Timestamp,
    /// When it first ran.
    started_at: Option<Timestamp>,
    /// How long it stays after its end; `None` is for ever.
    #[serde(default)]
    kept: Option<Seconds>,
}

/// A job that is to be tracked: the body of `POST /api/v1/jobs`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewJob {
    /// Its id; one is made if it is missing.
    pub job_id: Option<Box<str>>,
    /// The project whose members watch it.
    pub project_id: Box<str>,
    /// What sort of work it is.
    pub kind: Option<Box<str>>,
    /// Whatever its publisher wants to keep with it.
    pub meta: Option<Json>,
    /// Seconds between two updates of progress at least.
    pub min_update_interval: Option<Seconds>,
    /// Promises a sign of life at least each so many seconds.
    pub heartbeat_interval: Option<Seconds>,
}

/// A new status: the body of `POST /api/v1/jobs/{id}/status`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StatusUpdate {
    /// What it is now; not `stalled` or `lost`.
    pub status: JobStatus,
    /// What it came to; only with `success`.
    pub result: Option<Json>,
    /// Why; only with `error` or `cancelled`.
    pub error: Option<Box<str>>,
    /// Promises a sign of life at least each so many seconds.
    pub heartbeat_interval: Option<Seconds>,
}

/// Progress: the body of `POST /api/v1/jobs/{id}/progress`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProgressUpdate {
    /// How much is done. Not together with `increment`; without both there is only a message.
    pub progress: Option<Percent>,
    /// How much more is done.
    pub increment: Option<PercentStep>,
    /// What is being done.
    pub message: Option<Box<str>>,
    /// Whether it may become less than it was.
    #[serde(default)]
    pub allow_decrease: bool,
}

/// A sign of life: the body of `POST /api/v1/jobs/{id}/heartbeat`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Heartbeat {
    /// Promises the next ones at least each so many seconds; without it the promise stays as it is.
    pub heartbeat_interval: Option<Seconds>,
}

/// What is done with a job.
#[derive(Clone, Debug)]
pub enum JobCommand {
    /// Says what it is. The same again is a sign of life.
    Status(StatusUpdate),
    /// Says how far it is. A queued job runs from then on.
    Progress(ProgressUpdate),
    /// Ends it well.
    Complete {
        /// What it came to.
        result: Option<Json>,
    },
    /// Ends it badly.
    Fail {
        /// Why.
        error: Box<str>,
    },
    /// Ends it without an outcome.
    Cancel {
        /// Why.
        reason: Option<Box<str>>,
    },
    /// Says that somebody is there.
    Heartbeat(Heartbeat),
}

/// The data of [`AGENT_STATUS`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AgentStatus {
    /// Which job.
    pub job_id: Box<str>,
    /// What it is now.
    pub status: JobStatus,
    /// When, in RFC 3339.
    pub timestamp: String,
    /// Always `status_change`.
    pub event: StatusChange,
    /// What it came to, if it has come to something.
    pub result: Option<Json>,
    /// Why it failed or was cancelled.
    pub error: Option<Box<str>>,
}

/// The data of [`AGENT_PROGRESS`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AgentProgress {
    /// Which job.
    pub job_id: Box<str>,
    /// How much is done.
    pub progress: Percent,
    /// When, in RFC 3339.
    pub timestamp: String,
    /// Always `progress_update`.
    pub event: ProgressUpdated,
    /// What is being done.
    pub message: Option<Box<str>>,
}

/// What a `job_event` tells.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct JobEvent {
    /// Which job.
    pub job_id: Box<str>,
    /// Its project.
    pub project_id: Box<str>,
    /// What it is now.
    pub status: JobStatus,
    /// Why it failed or was cancelled.
    pub error: Option<Box<str>>,
    /// When, in RFC 3339.
    pub timestamp: String,
}

/// What marks an [`AgentStatus`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StatusChange {
    /// `status_change`.
    StatusChange,
}

/// What marks an [`AgentProgress`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProgressUpdated {
    /// `progress_update`.
    ProgressUpdate,
}

/// A job as `GET /api/v1/jobs/{id}` shows it. Moments in RFC 3339.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct JobView<'a> {
    /// Its id.
    pub job_id: &'a str,
    /// Its project.
    pub project_id: &'a str,
    /// What sort of work it is.
    pub kind: Option<&'a str>,
    /// What its publisher keeps with it.
    pub meta: Option<&'a Json>,
    /// What it is, as told.
    pub status: JobStatus,
    /// How much is done, as told.
    pub progress: Percent,
    /// What the last update of progress said, as told.
    pub message: Option<&'a str>,
    /// Progress that is yet to be told.
    pub pending_progress: Option<&'a Pending>,
    /// What it came to.
    pub result: Option<&'a Json>,
    /// Why it failed or was cancelled.
    pub error: Option<&'a str>,
    /// When it was made.
    pub created_at: String,
    /// When it last changed.
    pub updated_at: String,
    /// When it first ran.
    pub started_at: Option<String>,
    /// When it ended.
    pub finished_at: Option<String>,
    /// Seconds between two updates of progress at least.
    pub min_update_interval: Seconds,
    /// The promise of heartbeats, in seconds.
    pub heartbeat_interval: Option<Seconds>,
}

impl State for Job {
    const KIND: RecordKind = RecordKind::Job;

    fn id(&self) -> &str {
        &self.job_id
    }

    fn group(&self) -> &str {
        &self.project_id
    }

    fn status(&self) -> &'static str {
        self.told.status.as_str()
    }

    fn created_at(&self) -> Timestamp {
        self.created_at
    }

    fn due_at(&self) -> Option<Timestamp> {
        self.progress_due_at().into_iter().chain(self.silence_due_at()).chain(self.forget_at()).min()
    }
}

impl Job {
    /// What events have told of it.
    #[must_use]
    pub fn told(&self) -> &Told {
        &self.told
    }

    /// Progress that is yet to be told.
    #[must_use]
    pub fn pending_progress(&self) -> Option<&Pending> {
        self.pending_progress.as_ref()
    }

    /// What `GET` shows.
    #[must_use]
    pub fn view(&self) -> JobView<'_> {
        let is_terminal = self.told.status.is_terminal();
        JobView {
            job_id: &self.job_id,
            project_id: &self.project_id,
            kind: self.kind.as_deref(),
            meta: self.meta.as_ref(),
            status: self.told.status,
            progress: self.told.progress,
            message: self.told.message.as_deref(),
            pending_progress: self.pending_progress.as_ref(),
            result: self.told.result.as_ref(),
            error: self.told.error.as_deref(),
            created_at: self.created_at.to_string(),
            updated_at: self.updated_at.to_string(),
            started_at: self.started_at.map(|at| at.to_string()),
            finished_at: is_terminal.then(|| self.status_at.to_string()),
            min_update_interval: self.min_update_interval,
            heartbeat_interval: self.heartbeat_interval,
        }
    }

    fn progress_due_at(&self) -> Option<Timestamp> {
        self.pending_progress.as_ref()?;
        Some(self.progress_told_at?.plus(self.min_update_interval.span()))
    }

    fn forget_at(&self) -> Option<Timestamp> {
        let is_over = self.told.status.is_terminal() || self.told.status == JobStatus::Lost;
        Some(self.status_at.plus(self.kept.filter(|_| is_over)?.span()))
    }

    fn silence_due_at(&self) -> Option<Timestamp> {
        let interval = self.heartbeat_interval?.span();
        match self.told.status {
            JobStatus::Queued | JobStatus::Running => Some(self.heard_at.plus(interval * STALLED_AFTER)),
            JobStatus::Stalled => Some(self.status_at.plus(interval * LOST_AFTER)),
            JobStatus::Success | JobStatus::Error | JobStatus::Cancelled | JobStatus::Lost => None,
        }
    }
}

/// Tracks a job, and tells that it is queued. `job_id`: the one that was asked for, or a new one.
///
/// The same job again changes nothing and tells nothing.
///
/// # Errors
/// The peer's fault: [`Refusal::AlreadyExists`] if there is another job with this id, [`Refusal::BadRoomName`] for an id
/// that makes no room's name, [`Refusal::TooMany`] or [`Refusal::BadPayload`] for what is beyond `limits`.
pub fn create(
    present: Option<&Job>,
    now: Timestamp,
    job_id: &str,
    new: NewJob,
    limits: &JobLimits,
) -> Result<Step<Job>, Fault> {
    if let Some(job) = present {
        let same = *job.project_id == *new.project_id && (&job.kind, &job.meta) == (&new.kind, &new.meta);
        if same {
            return Ok(Step::quiet(job.clone()));
        }
        return Err(Fault::new(Refusal::AlreadyExists, format!("there is another job `{job_id}`")));
    }
    RoomName::of(RoomKind::Job, job_id)?;
    RoomName::of(RoomKind::Project, &new.project_id)?;
    if let Some(kind) = &new.kind {
        bound::name("`kind`", kind, limits.kind_bytes_max)?;
    }
    if let Some(meta) = &new.meta {
        bound::text("`meta`", meta.get(), limits.meta_bytes_max)?;
    }
    let min_update_interval = new.min_update_interval.unwrap_or(Seconds::new(limits.min_update_interval));
    if new.min_update_interval.is_some_and(|asked| asked.span() > limits.min_update_interval_max) {
        let longest = limits.min_update_interval_max.as_secs();
        let complaint = format!("`min_update_interval` is more than {longest} seconds");
        return Err(Fault::new(Refusal::BadPayload, complaint));
    }
    check_promise(new.heartbeat_interval, limits)?;
    let job = Job {
        job_id: job_id.into(),
        project_id: new.project_id,
        kind: new.kind,
        meta: new.meta,
        told: Told {
            status: JobStatus::Queued,
            progress: Percent::ZERO,
            message: None,
            result: None,
            error: None,
        },
        pending_progress: None,
        progress_told_at: None,
        min_update_interval,
        heartbeat_interval: new.heartbeat_interval,
        heard_at: now,
        created_at: now,
        updated_at: now,
        status_at: now,
        started_at: None,
        kept: (!limits.kept.is_zero()).then(|| Seconds::new(limits.kept)),
    };
    let mut changing = Changing { job, now, events: Vec::new() };
    changing.tell_status();
    Ok(changing.done())
}

/// Does something with a job.
///
/// # Errors
/// The peer's fault: [`Refusal::NotFound`], [`Refusal::WrongState`] for what does not follow on what the job is,
/// [`Refusal::BadPayload`] or [`Refusal::TooMany`] for what says too much.
pub fn apply(
    present: Option<&Job>,
    now: Timestamp,
    command: JobCommand,
    limits: &JobLimits,
) -> Result<Step<Job>, Fault> {
    let job = present.ok_or_else(|| Fault::new(Refusal::NotFound, "there is no such job"))?.clone();
    let mut changing = Changing { job, now, events: Vec::new() };
    match command {
        JobCommand::Status(update) => changing.handle_status(update, limits)?,
        JobCommand::Progress(update) => changing.handle_progress(update, limits)?,
        JobCommand::Complete { result } => changing.end(JobStatus::Success, result, None, limits)?,
        JobCommand::Fail { error } => changing.end(JobStatus::Error, None, Some(error), limits)?,
        JobCommand::Cancel { reason } => changing.end(JobStatus::Cancelled, None, reason, limits)?,
        JobCommand::Heartbeat(beat) => changing.handle_heartbeat(&beat, limits)?,
    }
    changing.job.heard_at = now;
    changing.job.updated_at = now;
    Ok(changing.done())
}

/// Does what [`State::due_at`] asked for, if it is time.
#[must_use]
pub fn due(present: &Job, now: Timestamp) -> Step<Job> {
    if present.forget_at().is_some_and(|at| at <= now) {
        return Step { next: None, events: Vec::new() };
    }
    let mut changing = Changing { job: present.clone(), now, events: Vec::new() };
    changing.tell_progress_unless_too_soon();
    if changing.job.silence_due_at().is_some_and(|at| at <= now) {
        if changing.job.told.status == JobStatus::Stalled {
            changing.tell_progress();
            changing.become_status(JobStatus::Lost);
        } else {
            changing.become_status(JobStatus::Stalled);
        }
    }
    changing.done()
}

/// What the events of a job's room have told, in their order; `None` if none was of a job.
///
/// # Errors
/// An event of a job is not of its shape: the log is not ours.
pub fn fold<'a>(
    events: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Result<Option<Told>, serde_json::Error> {
    let mut told = None;
    for (name, data) in events {
        match name {
            AGENT_STATUS => {
                let AgentStatus { status, result, error, .. } = serde_json::from_str(data)?;
                let before: Option<Told> = told.take();
                let (progress, message) =
                    before.map_or((Percent::ZERO, None), |before| (before.progress, before.message));
                told = Some(Told { status, progress, message, result, error });
            }
            AGENT_PROGRESS => {
                let AgentProgress { progress, message, .. } = serde_json::from_str(data)?;
                if let Some(told) = &mut told {
                    (told.progress, told.message) = (progress, message);
                }
            }
            _ => {}
        }
    }
    Ok(told)
}

/// A job while a rule changes it.
struct Changing {
    job: Job,
    now: Timestamp,
    events: Vec<Outgoing>,
}

impl Changing {
    fn handle_status(&mut self, update: StatusUpdate, limits: &JobLimits) -> Result<(), Fault> {
        let StatusUpdate { status, result, error, heartbeat_interval } = update;
        let bad = |complaint: &str| Err(Fault::new(Refusal::BadPayload, complaint));
        match status {
            JobStatus::Stalled | JobStatus::Lost => bad("only the server says `stalled` and `lost`"),
            JobStatus::Queued | JobStatus::Running if result.is_some() || error.is_some() => {
                bad("`result` and `error` go with the end of a job")
            }
            JobStatus::Queued | JobStatus::Running => {
                self.promise(heartbeat_interval, limits)?;
                if self.job.told.status != status {
                    self.check_follows(status)?;
                    self.become_status(status);
                }
                Ok(())
            }
            JobStatus::Success if error.is_some() => bad("`error` does not go with `success`"),
            JobStatus::Error | JobStatus::Cancelled if result.is_some() => {
                bad("`result` goes with `success` only")
            }
            JobStatus::Success | JobStatus::Error | JobStatus::Cancelled => {
                self.end(status, result, error, limits)
            }
        }
    }

    fn handle_progress(&mut self, update: ProgressUpdate, limits: &JobLimits) -> Result<(), Fault> {
        let ProgressUpdate { progress, increment, message, allow_decrease } = update;
        if let Some(message) = &message {
            bound::text("`message`", message, limits.message_bytes_max)?;
        }
        if self.job.told.status != JobStatus::Running {
            self.check_follows(JobStatus::Running)?;
            self.become_status(JobStatus::Running);
        }
        let (latest, untold) = match self.job.pending_progress.take() {
            Some(pending) => (pending.progress, pending.message),
            None => (self.job.told.progress, None),
        };
        let asked = match (progress, increment) {
            (None, None) if message.is_none() => {
                return Err(Fault::new(Refusal::BadPayload, "give `progress`, `increment` or `message`"));
            }
            (None, None) => latest,
            (Some(progress), None) => progress,
            (None, Some(step)) => latest.plus(step),
            (Some(_), Some(_)) => {
                return Err(Fault::new(Refusal::BadPayload, "give `progress` or `increment`, not both"));
            }
        };
        let progress = if allow_decrease { asked } else { asked.max(latest) };
        self.job.pending_progress = Some(Pending { progress, message: message.or(untold) });
        self.tell_progress_unless_too_soon();
        Ok(())
    }

    fn handle_heartbeat(&mut self, beat: &Heartbeat, limits: &JobLimits) -> Result<(), Fault> {
        self.promise(beat.heartbeat_interval, limits)?;
        match self.job.told.status {
            JobStatus::Queued | JobStatus::Running => {}
            JobStatus::Stalled if self.job.started_at.is_some() => self.become_status(JobStatus::Running),
            JobStatus::Stalled => self.become_status(JobStatus::Queued),
            JobStatus::Success | JobStatus::Error | JobStatus::Cancelled | JobStatus::Lost => {
                return Err(self.wrong_state("takes no heartbeats"));
            }
        }
        Ok(())
    }

    fn end(
        &mut self,
        status: JobStatus,
        result: Option<Json>,
        error: Option<Box<str>>,
        limits: &JobLimits,
    ) -> Result<(), Fault> {
        self.check_follows(status)?;
        if let Some(result) = &result {
            bound::text("`result`", result.get(), limits.result_bytes_max)?;
        }
        if let Some(error) = &error {
            bound::text("`error`", error, limits.error_bytes_max)?;
        }
        self.tell_progress();
        (self.job.told.result, self.job.told.error) = (result, error);
        self.become_status(status);
        Ok(())
    }

    fn promise(&mut self, interval: Option<Seconds>, limits: &JobLimits) -> Result<(), Fault> {
        check_promise(interval, limits)?;
        self.job.heartbeat_interval = interval.or(self.job.heartbeat_interval);
        Ok(())
    }

    fn check_follows(&self, status: JobStatus) -> Result<(), Fault> {
        if self.job.told.status.followers().contains(&status) {
            return Ok(());
        }
        Err(self.wrong_state(&format!("does not become {}", status.as_str())))
    }

    fn wrong_state(&self, complaint: &str) -> Fault {
        let status = self.job.told.status.as_str();
        Fault::new(Refusal::WrongState, format!("a job that is {status} {complaint}"))
    }

    fn become_status(&mut self, status: JobStatus) {
        if status == JobStatus::Running {
            self.job.started_at.get_or_insert(self.now);
        }
        self.job.told.status = status;
        self.job.status_at = self.now;
        self.job.updated_at = self.now;
        self.tell_status();
    }

    fn tell_status(&mut self) {
        let Told { status, result, error, .. } = self.job.told.clone();
        let news = JobEvent {
            job_id: self.job.job_id.clone(),
            project_id: self.job.project_id.clone(),
            status,
            error: error.clone(),
            timestamp: self.now.to_string(),
        };
        let data = AgentStatus {
            job_id: self.job.job_id.clone(),
            status,
            timestamp: self.now.to_string(),
            event: StatusChange::StatusChange,
            result,
            error,
        };
        self.tell(AGENT_STATUS, &data);
        let news = AdminEvent { r#type: AdminEventType::JobEvent, data: news };
        self.events.push(Outgoing::to_all(ADMIN_EVENT, &news, Audience::Admin));
    }

    fn tell_progress_unless_too_soon(&mut self) {
        let interval = self.job.min_update_interval.span();
        // Before the last one: the clock was set back, and nothing is known about how long ago that was.
        let is_too_soon =
            self.job.progress_told_at.is_some_and(|told| told <= self.now && self.now < told.plus(interval));
        if !is_too_soon {
            self.tell_progress();
        }
    }

    fn tell_progress(&mut self) {
        let Some(Pending { progress, message }) = self.job.pending_progress.take() else { return };
        let data = AgentProgress {
            job_id: self.job.job_id.clone(),
            progress,
            timestamp: self.now.to_string(),
            event: ProgressUpdated::ProgressUpdate,
            message: message.clone(),
        };
        (self.job.told.progress, self.job.told.message) = (progress, message);
        self.job.progress_told_at = Some(self.now);
        self.job.updated_at = self.now;
        self.tell(AGENT_PROGRESS, &data);
    }

    fn tell(&mut self, name: &'static str, data: &impl Serialize) {
        let room =
            |kind, id| RoomName::of(kind, id).expect("invariant: both ids were checked when it was made");
        let rooms =
            vec![room(RoomKind::Project, &self.job.project_id), room(RoomKind::Job, &self.job.job_id)];
        self.events.push(Outgoing::flat(name, data, rooms).keyed(&self.job.job_id));
    }

    fn done(self) -> Step<Job> {
        Step { next: Some(self.job), events: self.events }
    }
}

fn check_promise(interval: Option<Seconds>, limits: &JobLimits) -> Result<(), Fault> {
    let (least, most) = (limits.heartbeat_interval_min, limits.heartbeat_interval_max);
    if interval.is_none_or(|interval| (least..=most).contains(&interval.span())) {
        return Ok(());
    }
    let complaint = format!("`heartbeat_interval` is not from {least:?} to {most:?}");
    Err(Fault::new(Refusal::BadPayload, complaint))
}
