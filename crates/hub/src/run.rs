//! Owns what a run may become, how it is approved, and the commands that wait for whoever runs it. Does not know who may
//! approve or how anybody waits.
//!
//! Each change is told as an [`ADMIN_EVENT`] to all of `/admin` and in the room `run:<thread_id>`, and says everything that
//! a watcher needs: status, checkpoint, metadata and, once there is one, the decision. So the newest event is the run
//! ([`fold`]).
//!
//! A run that has ended goes by itself after [`RunLimits::kept`], unless it is run again before.
//!
//! A thread can be run again when its last run has ended: the record begins anew and keeps its place in lists.
//!
//! **Control.** What people decide waits as [`Control`]s, each with an id that grows, until the runner acknowledges it by
//! that id: so a runner that breaks down between fetching and obeying gets it again.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::bound;
use crate::event::Audience;
use crate::fault::{Fault, Refusal};
use crate::json::Json;
use crate::outgoing::Outgoing;
use crate::record::{State, Step};
use crate::room::{RoomKind, RoomName};
use crate::seconds::Seconds;
use crate::store::RecordKind;
use crate::time::Timestamp;

/// The event that tells operators of something.
pub const ADMIN_EVENT: &str = "admin_event";

/// What a run is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// It was asked for.
    Started,
    /// It runs.
    Running,
    /// It goes on when somebody has decided.
    WaitingApproval,
    /// Somebody said yes; it has not gone on yet.
    Approved,
    /// Somebody said no; it has not gone on or ended yet.
    Rejected,
    /// It is done.
    Completed,
    /// It failed.
    Failed,
}

/// What may follow on what. Any status but an end may also be said again, with another checkpoint or metadata.
const TRANSITIONS: [(RunStatus, &[RunStatus]); 7] = {
    use RunStatus::{Approved, Completed, Failed, Rejected, Running, Started, WaitingApproval};
    [
        (Started, &[Started, Running, WaitingApproval, Completed, Failed]),
        (Running, &[Running, WaitingApproval, Completed, Failed]),
        // Also back to running: the runner need not wait, or heard the decision elsewhere.
        (WaitingApproval, &[WaitingApproval, Approved, Rejected, Running, Completed, Failed]),
        (Approved, &[Approved, Running, WaitingApproval, Completed, Failed]),
        (Rejected, &[Rejected, Running, WaitingApproval, Completed, Failed]),
        (Completed, &[]),
        (Failed, &[]),
    ]
};

impl RunStatus {
    /// The name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            RunStatus::Started => "started",
            RunStatus::Running => "running",
            RunStatus::WaitingApproval => "waiting_approval",
            RunStatus::Approved => "approved",
            RunStatus::Rejected => "rejected",
            RunStatus::Completed => "completed",
            RunStatus::Failed => "failed",
        }
    }

    /// What may follow on it.
    #[must_use]
    pub fn followers(self) -> &'static [RunStatus] {
        let row = TRANSITIONS.iter().find(|(from, _)| *from == self);
        row.expect("invariant: every status has a row").1
    }

    /// Whether nothing follows.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        self.followers().is_empty()
    }
}

/// Bounds of a run's parts. What exceeds one is refused.
#[derive(Clone, Debug)]
pub struct RunLimits {
    /// Bytes of a checkpoint's id. Default 200.
    pub checkpoint_bytes_max: usize,
    /// Keys of the metadata. Default 64.
    pub metadata_keys_max: usize,
    /// Bytes of the metadata as JSON. Default 16 KiB. Higher: each event of the run grows by as much.
    pub metadata_bytes_max: usize,
    /// Bytes of the input as JSON. Default 256 KiB.
    pub input_bytes_max: usize,
    /// Bytes of a comment. Default 4 KiB.
    pub comment_bytes_max: usize,
    /// Commands that wait for the runner. Default 64. Full: further ones are refused until it fetches.
    pub controls_max: usize,
    /// Bytes of a control command's name. Default 60.
    pub verb_bytes_max: usize,
    /// Bytes of a control command's data as JSON. Default 16 KiB.
    pub control_data_bytes_max: usize,
    /// How long a run stays after its end. Default 30 days; zero is for ever. Lower: who asks late finds nothing. Higher:
    /// the store grows.
    pub kept: Duration,
}

impl Default for RunLimits {
    fn default() -> Self {
        Self {
            checkpoint_bytes_max: 200,
            metadata_keys_max: 64,
            metadata_bytes_max: 16 << 10,
            input_bytes_max: 256 << 10,
            comment_bytes_max: 4 << 10,
            controls_max: 64,
            verb_bytes_max: 60,
            control_data_bytes_max: 16 << 10,
            kept: Duration::from_secs(30 * 86_400),
        }
    }
}

/// What the events of a run have told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Told {
    /// What it is.
    pub status: RunStatus,
    /// Where it is, as its runner calls it.
    pub checkpoint_id: Option<Box<str>>,
    /// Whatever its runner says of it.
    pub metadata: Map<String, Value>,
    /// The decision on what it waited for last.
    pub decision: Option<Decision>,
}

/// What somebody decided.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Decision {
    /// Yes or no.
    pub approved: bool,
    /// What they said to it.
    pub comment: Option<Box<str>>,
    /// Who; `None` if nobody knows.
    pub by: Option<Box<str>>,
    /// When, in RFC 3339.
    pub at: String,
    /// On which checkpoint.
    pub checkpoint_id: Option<Box<str>>,
}

/// A command that waits for the runner.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Control {
    /// Its number; later ones are greater. Acknowledging it acknowledges all before it.
    pub id: u64,
    /// What to do: `approve`, `reject`, or what was asked for, such as `cancel`.
    pub verb: Box<str>,
    /// On which checkpoint, for decisions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint_id: Option<Box<str>>,
    /// What they said to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<Box<str>>,
    /// Who asked; missing if nobody knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<Box<str>>,
    /// Whatever goes with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<Json>,
    /// When, in RFC 3339.
    pub timestamp: String,
}

/// A run's state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    thread_id: Box<str>,
    input: Option<Json>,
    told: Told,
    controls: Vec<Control>,
    /// The id of the newest command there has been, in all runs of the thread.
    last_control: u64,
    created_at: Timestamp,
    started_at: Timestamp,
    updated_at: Timestamp,
    /// How long it stays after its end; `None` is for ever.
    #[serde(default)]
    kept: Option<Seconds>,
}

/// A run that is to be started: the body of `POST /start`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewRun {
    /// Its id; one is made if it is missing.
    pub thread_id: Option<Box<str>>,
    /// What it works on.
    pub input: Option<Json>,
    /// Whatever is said of it.
    pub metadata: Option<Map<String, Value>>,
}

/// What a runner says: the body of `POST /api/v1/runs/{id}/status`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RunUpdate {
    /// What it is now; without it that stays.
    pub status: Option<RunStatus>,
    /// Where it is; without it that stays.
    pub checkpoint_id: Option<Box<str>>,
    /// Keys that change; those with `null` go away, others stay.
    pub metadata: Option<Map<String, Value>>,
}

/// Yes or no: the body of `POST /approve` and the command `approve`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    /// Which run.
    pub thread_id: Box<str>,
    /// Which checkpoint was looked at; if the run has gone elsewhere since, the decision is refused.
    pub checkpoint_id: Option<Box<str>>,
    /// Yes or no.
    pub approved: bool,
    /// Why.
    pub comment: Option<Box<str>>,
}

/// A command for the runner: the body of `POST /api/v1/runs/{id}/control`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ControlRequest {
    /// What to do, such as `cancel`; not `approve` or `reject`.
    pub verb: Box<str>,
    /// Why.
    pub comment: Option<Box<str>>,
    /// Whatever goes with it.
    pub data: Option<Json>,
}

/// What an [`ADMIN_EVENT`] tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AdminEventType {
    /// A run changed.
    RunEvent,
    /// A job changed.
    JobEvent,
    /// Somebody connected or left.
    ConnectionEvent,
    /// Something happened to the server.
    SystemEvent,
}

/// The data of an [`ADMIN_EVENT`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AdminEvent<T> {
    /// What it tells of.
    pub r#type: AdminEventType,
    /// What it tells.
    pub data: T,
}

/// What a `run_event` tells.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunEvent {
    /// Which run.
    pub thread_id: Box<str>,
    /// Where it is.
    pub checkpoint_id: Option<Box<str>>,
    /// What is said of it.
    pub metadata: Map<String, Value>,
    /// What it is now.
    pub status: RunStatus,
    /// The decision on what it waited for last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<Decision>,
    /// When, in RFC 3339.
    pub timestamp: String,
}

/// A run as `GET /status/{thread_id}` shows it. Moments in RFC 3339.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct RunView<'a> {
    /// Its id.
    pub thread_id: &'a str,
    /// What it is.
    pub status: RunStatus,
    /// Where it is.
    pub checkpoint_id: Option<&'a str>,
    /// What is said of it.
    pub metadata: &'a Map<String, Value>,
    /// What it works on.
    pub input: Option<&'a Json>,
    /// The decision on what it waited for last.
    pub decision: Option<&'a Decision>,
    /// How many commands wait for the runner.
    pub waiting_controls: usize,
    /// When the thread was first run.
    pub created_at: String,
    /// When this run was started.
    pub started_at: String,
    /// When it last changed.
    pub updated_at: String,
}

impl State for Run {
    const KIND: RecordKind = RecordKind::Run;

    fn id(&self) -> &str {
        &self.thread_id
    }

    fn group(&self) -> &'static str {
        ""
    }

    fn status(&self) -> &'static str {
        self.told.status.as_str()
    }

    fn created_at(&self) -> Timestamp {
        self.created_at
    }

    fn due_at(&self) -> Option<Timestamp> {
        let kept = self.kept.filter(|_| self.told.status.is_terminal())?;
        Some(self.updated_at.plus(kept.span()))
    }
}

impl Run {
    /// What events have told of it.
    #[must_use]
    pub fn told(&self) -> &Told {
        &self.told
    }

    /// The commands after the one with the id `after` (0: all), the oldest first.
    #[must_use]
    pub fn controls(&self, after: u64) -> &[Control] {
        let known = self.controls.partition_point(|control| control.id <= after);
        &self.controls[known..]
    }

    /// What `GET` shows.
    #[must_use]
    pub fn view(&self) -> RunView<'_> {
        RunView {
            thread_id: &self.thread_id,
            status: self.told.status,
            checkpoint_id: self.told.checkpoint_id.as_deref(),
            metadata: &self.told.metadata,
            input: self.input.as_ref(),
            decision: self.told.decision.as_ref(),
            waiting_controls: self.controls.len(),
            created_at: self.created_at.to_string(),
            started_at: self.started_at.to_string(),
            updated_at: self.updated_at.to_string(),
        }
    }
}

/// Starts a run. `thread_id`: the one that was asked for, or a new one.
///
/// The same request again, before anything else has happened, changes nothing and tells nothing.
///
/// # Errors
/// The peer's fault: [`Refusal::AlreadyExists`] if the thread is being run, [`Refusal::BadRoomName`] for an id that makes
/// no room's name, [`Refusal::TooMany`] for what is beyond `limits`.
pub fn start(
    present: Option<&Run>,
    now: Timestamp,
    thread_id: &str,
    new: NewRun,
    limits: &RunLimits,
) -> Result<Step<Run>, Fault> {
    let mut metadata = Map::new();
    merge(&mut metadata, new.metadata.unwrap_or_default(), limits)?;
    if let Some(run) = present.filter(|run| !run.told.status.is_terminal()) {
        let same = run.told.status == RunStatus::Started
            && (&run.input, &run.told.metadata) == (&new.input, &metadata);
        if same {
            return Ok(Step::quiet(run.clone()));
        }
        let status = run.told.status.as_str();
        return Err(Fault::new(
            Refusal::AlreadyExists,
            format!("the thread `{thread_id}` is already {status}"),
        ));
    }
    RoomName::of(RoomKind::Run, thread_id)?;
    if let Some(input) = &new.input {
        bound::text("`input`", input.get(), limits.input_bytes_max)?;
    }
    let run = Run {
        thread_id: thread_id.into(),
        input: new.input,
        told: Told { status: RunStatus::Started, checkpoint_id: None, metadata, decision: None },
        controls: Vec::new(),
        last_control: present.map_or(0, |run| run.last_control),
        created_at: present.map_or(now, |run| run.created_at),
        started_at: now,
        updated_at: now,
        kept: (!limits.kept.is_zero()).then(|| Seconds::new(limits.kept)),
    };
    Ok(tell(run, now))
}

/// Forgets a run whose time has come.
#[must_use]
pub fn due(present: &Run, now: Timestamp) -> Step<Run> {
    match present.due_at() {
        Some(at) if at <= now => Step { next: None, events: Vec::new() },
        Some(_) | None => Step::quiet(present.clone()),
    }
}

/// Takes what a runner says.
///
/// # Errors
/// The peer's fault: [`Refusal::NotFound`], [`Refusal::WrongState`] for what does not follow on what the run is,
/// [`Refusal::BadPayload`] for an update without anything, [`Refusal::TooMany`] for what is beyond `limits`.
pub fn update(
    present: Option<&Run>,
    now: Timestamp,
    update: RunUpdate,
    limits: &RunLimits,
) -> Result<Step<Run>, Fault> {
    let RunUpdate { status, checkpoint_id, metadata } = update;
    let mut run = found(present)?;
    if status.is_none() && checkpoint_id.is_none() && metadata.is_none() {
        let complaint = "give `status`, `checkpoint_id` or `metadata`";
        return Err(Fault::new(Refusal::BadPayload, complaint));
    }
    let status = status.unwrap_or(run.told.status);
    check_follows(&run, status)?;
    if let Some(checkpoint_id) = checkpoint_id {
        bound::name("`checkpoint_id`", &checkpoint_id, limits.checkpoint_bytes_max)?;
        run.told.checkpoint_id = Some(checkpoint_id);
    }
    merge(&mut run.told.metadata, metadata.unwrap_or_default(), limits)?;
    run.told.status = status;
    if status == RunStatus::WaitingApproval {
        // The decision on an earlier checkpoint is none on this one.
        run.told.decision = None;
    }
    if status.is_terminal() {
        // Nobody is left who could obey.
        run.controls.clear();
    }
    Ok(tell(run, now))
}

/// Decides on a run that waits for it, and lets its runner know. `by`: who decides, if that is known.
///
/// # Errors
/// The peer's fault: [`Refusal::NotFound`], [`Refusal::WrongState`] if it does not wait, or waits at another checkpoint
/// than the one that was looked at, [`Refusal::TooMany`] for what is beyond `limits`.
pub fn approve(
    present: Option<&Run>,
    now: Timestamp,
    approval: Approval,
    by: Option<&str>,
    limits: &RunLimits,
) -> Result<Step<Run>, Fault> {
    let mut run = found(present)?;
    if run.told.status != RunStatus::WaitingApproval {
        let status = run.told.status.as_str();
        return Err(Fault::new(Refusal::WrongState, format!("a run that is {status} waits for no approval")));
    }
    if approval.checkpoint_id.is_some() && approval.checkpoint_id != run.told.checkpoint_id {
        let complaint = match run.told.checkpoint_id.as_deref() {
            Some(checkpoint) => format!("the run waits at checkpoint `{checkpoint}`"),
            None => "the run has named no checkpoint".to_owned(),
        };
        return Err(Fault::new(Refusal::WrongState, complaint));
    }
    let (status, verb) =
        if approval.approved { (RunStatus::Approved, "approve") } else { (RunStatus::Rejected, "reject") };
    run.told.status = status;
    run.told.decision = Some(Decision {
        approved: approval.approved,
        comment: approval.comment.clone(),
        by: by.map(Into::into),
        at: now.to_string(),
        checkpoint_id: run.told.checkpoint_id.clone(),
    });
    let control = Control {
        id: 0,
        verb: verb.into(),
        checkpoint_id: run.told.checkpoint_id.clone(),
        comment: approval.comment,
        by: by.map(Into::into),
        data: None,
        timestamp: now.to_string(),
    };
    queue(&mut run, control, limits)?;
    Ok(tell(run, now))
}

/// Leaves a command for the runner. Nobody is told: the run has not changed.
///
/// # Errors
/// The peer's fault: [`Refusal::NotFound`], [`Refusal::WrongState`] if the run has ended, [`Refusal::BadPayload`] for a
/// decision, which is [`approve`]'s business, [`Refusal::TooMany`] for what is beyond `limits`.
pub fn control(
    present: Option<&Run>,
    now: Timestamp,
    request: ControlRequest,
    by: Option<&str>,
    limits: &RunLimits,
) -> Result<Step<Run>, Fault> {
    let ControlRequest { verb, comment, data } = request;
    let mut run = found(present)?;
    bound::name("`verb`", &verb, limits.verb_bytes_max)?;
    if matches!(&*verb, "approve" | "reject") {
        return Err(Fault::new(
            Refusal::BadPayload,
            format!("`{verb}` is a decision, not a control command"),
        ));
    }
    if let Some(data) = &data {
        bound::text("`data`", data.get(), limits.control_data_bytes_max)?;
    }
    if run.told.status.is_terminal() {
        let status = run.told.status.as_str();
        return Err(Fault::new(Refusal::WrongState, format!("a run that is {status} takes no commands")));
    }
    let by = by.map(Into::into);
    let control = Control { id: 0, verb, checkpoint_id: None, comment, by, data, timestamp: now.to_string() };
    queue(&mut run, control, limits)?;
    Ok(Step::quiet(run))
}

/// Takes away the commands up to and including the one with this id: the runner has them. What is already gone may be
/// acknowledged again.
///
/// # Errors
/// The peer's fault: [`Refusal::NotFound`], [`Refusal::BadPayload`] for an id that there has not been yet.
pub fn acknowledge(present: Option<&Run>, id: u64) -> Result<Step<Run>, Fault> {
    let mut run = found(present)?;
    if id > run.last_control {
        let complaint = format!("there is no command {id}; the newest is {}", run.last_control);
        return Err(Fault::new(Refusal::BadPayload, complaint));
    }
    run.controls.retain(|control| control.id > id);
    Ok(Step::quiet(run))
}

/// What the events of a run's room have told, in their order; `None` if none was of a run.
///
/// # Errors
/// An event of a run is not of its shape: the log is not ours.
pub fn fold<'a>(
    events: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Result<Option<Told>, serde_json::Error> {
    let mut told = None;
    for (_, data) in events.into_iter().filter(|(name, _)| *name == ADMIN_EVENT) {
        let AdminEvent::<Value> { r#type, data } = serde_json::from_str(data)?;
        if r#type == AdminEventType::RunEvent {
            let RunEvent { status, checkpoint_id, metadata, decision, .. } = serde_json::from_value(data)?;
            told = Some(Told { status, checkpoint_id, metadata, decision });
        }
    }
    Ok(told)
}

/// An [`ADMIN_EVENT`] for all of `/admin`.
#[must_use]
pub fn admin_event(r#type: AdminEventType, data: impl Serialize) -> Outgoing {
    Outgoing::to_all(ADMIN_EVENT, &AdminEvent { r#type, data }, Audience::Admin)
}

fn found(present: Option<&Run>) -> Result<Run, Fault> {
    present.cloned().ok_or_else(|| Fault::new(Refusal::NotFound, "there is no such run"))
}

fn check_follows(run: &Run, status: RunStatus) -> Result<(), Fault> {
    let present = run.told.status;
    if present.followers().contains(&status) {
        return Ok(());
    }
    let complaint = format!("a run that is {} does not become {}", present.as_str(), status.as_str());
    Err(Fault::new(Refusal::WrongState, complaint))
}

fn merge(
    metadata: &mut Map<String, Value>,
    changes: Map<String, Value>,
    limits: &RunLimits,
) -> Result<(), Fault> {
    for (key, value) in changes {
        if value.is_null() {
            metadata.remove(&key);
        } else {
            metadata.insert(key, value);
        }
    }
    bound::count("`metadata`", metadata.len(), limits.metadata_keys_max)?;
    bound::json("`metadata`", metadata, limits.metadata_bytes_max)?;
    Ok(())
}

fn queue(run: &mut Run, control: Control, limits: &RunLimits) -> Result<(), Fault> {
    if let Some(comment) = &control.comment {
        bound::text("`comment`", comment, limits.comment_bytes_max)?;
    }
    if run.controls.len() >= limits.controls_max {
        let complaint = format!("{} commands already wait for the run", run.controls.len());
        return Err(Fault::new(Refusal::TooMany, complaint));
    }
    run.last_control += 1;
    run.controls.push(Control { id: run.last_control, ..control });
    Ok(())
}

fn tell(mut run: Run, now: Timestamp) -> Step<Run> {
    run.updated_at = now;
    let Told { status, checkpoint_id, metadata, decision } = run.told.clone();
    let data = RunEvent {
        thread_id: run.thread_id.clone(),
        checkpoint_id,
        metadata,
        status,
        decision,
        timestamp: now.to_string(),
    };
    let room =
        RoomName::of(RoomKind::Run, &run.thread_id).expect("invariant: the id was checked at the start");
    let to_admins = admin_event(AdminEventType::RunEvent, data).keyed(&run.thread_id);
    let to_room = Outgoing { audience: Audience::Rooms, rooms: vec![room], ..to_admins.clone() };
    Step { next: Some(run), events: vec![to_room, to_admins] }
}
