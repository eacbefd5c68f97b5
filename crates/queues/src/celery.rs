//! Owns what Celery's workers tell of their tasks, and what becomes of the jobs that these tasks are. Does not know how
//! the messages came, nor where jobs are kept.
//!
//! Celery publishes to the topic exchange `celeryev` when workers run with `-E` (`task_events`); the publishers of tasks
//! add `task-sent` with `task_send_sent_event`. A message is one event, or a list of them (`task.multi`). Events of one
//! task come from two processes, so any may be the first, and some come after its end:
//!
//! | event | the job |
//! |---|---|
//! | `task-sent`, `task-received` | is made, `queued` |
//! | `task-started` | runs |
//! | `task-succeeded` | is a `success`; its `result` is what Celery writes of it, a text |
//! | `task-failed` | is an `error`: the exception and its traceback |
//! | `task-retried` | runs, and says why it will be tried again |
//! | `task-revoked` | is `cancelled` |
//! | `task-rejected` | is an `error`, unless it goes back to its queue |
//! | `task-progress` | has progress: an event that a task sends by itself, `progress` or `current` of `total`, and `message` |
//!
//! What does not follow on what the job is says nothing new, and is read over.

use hub::fault::{Fault, Refusal};
use hub::job::{Job, JobCommand, JobLimits, NewJob, ProgressUpdate, StatusUpdate, apply, create};
use hub::json::Json;
use hub::percent::Percent;
use hub::record::{State as _, Step};
use hub::time::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// Events of one message. Celery sends at most 10 together.
const EVENTS_MAX: usize = 1_000;

/// Bytes of an identity; what stores take.
const IDENTITY_BYTES_MAX: usize = 200;

/// One event as Celery writes it, as far as anybody asks.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Event {
    r#type: String,
    uuid: Option<String>,
    name: Option<String>,
    hostname: Option<String>,
    timestamp: Option<f64>,
    clock: Option<u64>,
    root_id: Option<String>,
    parent_id: Option<String>,
    retries: Option<u64>,
    eta: Option<String>,
    queue: Option<String>,
    result: Option<Value>,
    runtime: Option<f64>,
    exception: Option<String>,
    traceback: Option<String>,
    terminated: Option<bool>,
    expired: Option<bool>,
    requeue: Option<bool>,
    progress: Option<f64>,
    current: Option<f64>,
    total: Option<f64>,
    message: Option<String>,
}

/// What is told of one task.
#[derive(Clone, Debug)]
pub struct News {
    /// The task, and the job's id.
    pub task_id: String,
    /// By what this piece of news is known when it comes again.
    pub identity: String,
    name: Option<String>,
    meta: Value,
    command: Option<JobCommand>,
}

/// Reads a message of the exchange `celeryev`. News of workers, and events that are not known, are left out.
///
/// # Errors
/// The sender's fault: what is wrong with it.
pub fn read(body: &[u8], limits: &JobLimits) -> Result<Vec<News>, String> {
    let text = body.trim_ascii_start();
    let events: Vec<Event> = if text.starts_with(b"[") {
        serde_json::from_slice(body).map_err(|error| format!("not a list of Celery's events: {error}"))?
    } else {
        vec![serde_json::from_slice(body).map_err(|error| format!("not an event of Celery's: {error}"))?]
    };
    if events.len() > EVENTS_MAX {
        return Err(format!("{} events in one message exceed {EVENTS_MAX}", events.len()));
    }
    events.into_iter().filter_map(|event| event.news(limits).transpose()).collect()
}

impl Event {
    fn news(self, limits: &JobLimits) -> Result<Option<News>, String> {
        let Some(kind) = self.r#type.strip_prefix("task-") else { return Ok(None) };
        let error = |text: &str| text_within(text, limits.error_bytes_max);
        let message = |text: &str| text_within(text, limits.message_bytes_max);
        let why = self.exception.as_deref().unwrap_or("the worker does not say why");
        let command = match kind {
            "sent" | "received" => None,
            "started" => Some(running()),
            "succeeded" => {
                let mut result = self.result.clone().filter(|result| !result.is_null());
                if result.as_ref().is_some_and(|result| result.to_string().len() > limits.result_bytes_max) {
                    result = Some(Value::from("(the result is too long to be shown)"));
                }
                Some(JobCommand::Complete { result: result.as_ref().map(Json::of) })
            }
            "failed" => {
                let traceback = self.traceback.as_deref().map(|trace| format!("\n\n{trace}"));
                Some(JobCommand::Fail { error: error(&format!("{why}{}", traceback.unwrap_or_default())) })
            }
            "retried" => Some(JobCommand::Progress(ProgressUpdate {
                message: Some(message(&format!("will be tried again: {why}"))),
                ..ProgressUpdate::default()
            })),
            "revoked" => {
                let reason = match (self.expired, self.terminated) {
                    (Some(true), _) => "expired",
                    (_, Some(true)) => "terminated",
                    _ => "revoked",
                };
                Some(JobCommand::Cancel { reason: Some(reason.into()) })
            }
            "rejected" if self.requeue == Some(true) => None,
            "rejected" => Some(JobCommand::Fail { error: "rejected by the worker".into() }),
            "progress" => Some(self.progress(&message)?),
            _ => return Ok(None),
        };
        let task_id = self
            .uuid
            .as_deref()
            .filter(|id| !id.is_empty())
            .ok_or_else(|| format!("a {} without a `uuid`", text_within(&self.r#type, 100)))?;
        let (clock, timestamp) = (self.clock.unwrap_or_default(), self.timestamp.unwrap_or_default());
        Ok(Some(News {
            identity: text_within(&format!("{kind}:{clock}:{timestamp}:{task_id}"), IDENTITY_BYTES_MAX)
                .into(),
            task_id: task_id.to_owned(),
            name: self.name.as_deref().map(|name| text_within(name, limits.kind_bytes_max).into()),
            meta: self.meta(),
            command,
        }))
    }

    fn progress(&self, message: &dyn Fn(&str) -> Box<str>) -> Result<JobCommand, String> {
        let share = self.current.zip(self.total).filter(|(_, total)| *total > 0.0);
        let percents = self.progress.or(share.map(|(current, total)| current / total * 100.0));
        let message = self.message.as_deref().map(message);
        if percents.is_none() && message.is_none() {
            return Err("a task-progress without `progress`, `current` and `total`, or `message`".to_owned());
        }
        let progress = percents.map(Percent::new);
        Ok(JobCommand::Progress(ProgressUpdate { progress, message, ..ProgressUpdate::default() }))
    }

    /// What is kept with the job. Not the arguments: they may be secrets.
    fn meta(&self) -> Value {
        let mut meta = Map::new();
        let texts = [
            ("root_id", &self.root_id),
            ("parent_id", &self.parent_id),
            ("eta", &self.eta),
            ("queue", &self.queue),
            ("hostname", &self.hostname),
        ];
        for (key, text) in texts {
            if let Some(text) = text {
                meta.insert(key.to_owned(), Value::from(&*text_within(text, 200)));
            }
        }
        if let Some(retries) = self.retries {
            meta.insert("retries".to_owned(), retries.into());
        }
        if let Some(runtime) = self.runtime {
            meta.insert("runtime_s".to_owned(), json!(runtime));
        }
        json!({ "celery": meta })
    }
}

fn running() -> JobCommand {
    JobCommand::Status(StatusUpdate {
        status: hub::job::JobStatus::Running,
        result: None,
        error: None,
        heartbeat_interval: None,
    })
}

/// The beginning of a text, without control characters other than line ends and tabs.
fn text_within(text: &str, bytes_max: usize) -> Box<str> {
    let mut kept = String::new();
    for character in text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')) {
        if kept.len() + character.len_utf8() > bytes_max {
            break;
        }
        kept.push(character);
    }
    kept.into()
}

/// What becomes of the job of `project` that a task is, made if it is not there.
///
/// # Errors
/// The sender's fault: an id that makes no room's name; [`Refusal::Forbidden`] if the job is another project's.
pub fn decide(
    present: Option<&Job>,
    now: Timestamp,
    project: &str,
    news: &News,
    limits: &JobLimits,
) -> Result<Step<Job>, Fault> {
    if present.is_some_and(|job| job.group() != project) {
        let complaint = format!("the job `{}` is of another project", news.task_id);
        return Err(Fault::new(Refusal::Forbidden, complaint));
    }
    let begun = match present {
        Some(job) => Step::quiet(job.clone()),
        None => {
            let new = NewJob {
                job_id: Some(news.task_id.as_str().into()),
                project_id: project.into(),
                kind: news.name.as_deref().filter(|name| !name.is_empty()).map(Into::into),
                meta: Some(Json::of(&news.meta)),
                min_update_interval: None,
                heartbeat_interval: None,
            };
            create(None, now, &news.task_id, new, limits)?
        }
    };
    let Some(command) = news.command.clone() else { return Ok(begun) };
    match apply(begun.next.as_ref(), now, command, limits) {
        Ok(step) => {
            Ok(Step { next: step.next, events: begun.events.into_iter().chain(step.events).collect() })
        }
        Err(fault) if fault.refusal == Refusal::WrongState => Ok(begun),
        Err(fault) => Err(fault),
    }
}

#[cfg(test)]
mod tests {
    use hub::event::Audience;

    use super::*;

    /// The statuses and progress that a job's events tell, after these messages.
    fn told(messages: &[Value]) -> Vec<String> {
        let limits = JobLimits::default();
        let mut job: Option<Job> = None;
        let mut told = Vec::new();
        for (at, message) in messages.iter().enumerate() {
            for news in read(message.to_string().as_bytes(), &limits).unwrap() {
                let step = decide(job.as_ref(), Timestamp(at as u64), "p", &news, &limits).unwrap();
                // Operators hear of it, too, in words of their own.
                for event in step.events.iter().filter(|event| event.audience == Audience::Rooms) {
                    let data: Value = serde_json::from_str(event.data.get()).unwrap();
                    let what = [&data["status"], &data["message"], &data["result"], &data["error"]];
                    let what: Vec<&str> = what.into_iter().filter_map(Value::as_str).collect();
                    told.push(what.join(" "));
                }
                job = step.next;
            }
        }
        told
    }

    fn event(kind: &str, more: Value) -> Value {
        let mut event = json!({ "type": format!("task-{kind}"), "uuid": "t", "clock": 1, "timestamp": 1.5 });
        event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        event
    }

    #[test]
    fn a_task_is_a_job_from_its_sending_to_its_end() {
        let sent = event("sent", json!({ "name": "tasks.add", "args": "(2, 2)", "kwargs": "{}" }));
        let received = event("received", json!({ "name": "tasks.add", "hostname": "w@h" }));
        let started = event("started", json!({}));
        let succeeded = event("succeeded", json!({ "result": "4", "runtime": 0.1 }));
        assert_eq!(
            told(&[sent.clone(), received.clone(), started.clone(), succeeded.clone()]),
            ["queued", "running", "success 4"]
        );
        let together = json!([received.clone(), started.clone(), succeeded.clone()]);
        assert_eq!(told(&[together]), ["queued", "running", "success 4"]);
        // The publisher's word comes last, and a second worker's after the end.
        assert_eq!(told(&[started.clone(), succeeded, sent, started]), ["queued", "running", "success 4"]);
    }

    #[test]
    fn failures_repetitions_and_revocations_say_why() {
        let started = event("started", json!({}));
        let retried = event("retried", json!({ "exception": "OSError('busy')" }));
        let failed = event("failed", json!({ "exception": "ValueError('no')", "traceback": "Traceback…" }));
        assert_eq!(
            told(&[started.clone(), retried, started.clone(), failed]),
            [
                "queued",
                "running",
                "will be tried again: OSError('busy')",
                "error ValueError('no')\n\nTraceback…"
            ]
        );
        let revoked = event("revoked", json!({ "terminated": true, "expired": false, "signum": "15" }));
        assert_eq!(told(&[started.clone(), revoked]), ["queued", "running", "cancelled terminated"]);
        let back = event("rejected", json!({ "requeue": true }));
        let gone = event("rejected", json!({ "requeue": false }));
        assert_eq!(told(&[started, back, gone]), ["queued", "running", "error rejected by the worker"]);
    }

    #[test]
    fn tasks_may_tell_progress_by_an_event_of_their_own() {
        let some = event("progress", json!({ "current": 1, "total": 4, "message": "a quarter" }));
        assert_eq!(told(&[some]), ["queued", "running", "a quarter"]);
        let limits = JobLimits::default();
        let nothing = event("progress", json!({ "total": 4 })).to_string();
        assert!(read(nothing.as_bytes(), &limits).is_err());
    }

    #[test]
    fn what_is_no_news_of_a_task_is_left_out_and_nonsense_refused() {
        let limits = JobLimits::default();
        for other in [r#"{"type":"worker-heartbeat"}"#, r#"{"type":"task-dreamt","uuid":"t"}"#, "[]"] {
            assert_eq!(read(other.as_bytes(), &limits).unwrap().len(), 0, "{other}");
        }
        for bad in ["", "{", "7", "[7]", r#"{"type":"task-sent"}"#, r#"{"type":"task-started","uuid":""}"#] {
            assert!(read(bad.as_bytes(), &limits).is_err(), "{bad}");
        }
    }

    #[test]
    fn jobs_of_other_projects_and_ids_that_are_no_names_are_left_alone() {
        let limits = JobLimits::default();
        let news = |event: &Value| read(event.to_string().as_bytes(), &limits).unwrap().remove(0);
        let now = Timestamp(1);
        let started = news(&event("started", json!({})));
        let job = decide(None, now, "p", &started, &limits).unwrap().next.unwrap();
        let fault = decide(Some(&job), now, "q", &started, &limits).unwrap_err();
        assert_eq!(fault.refusal, Refusal::Forbidden);
        let odd = news(&json!({ "type": "task-started", "uuid": "a\nb" }));
        assert!(decide(None, now, "p", &odd, &limits).is_err());
    }

    #[test]
    fn long_texts_are_cut_where_a_job_would_refuse_them() {
        let limits = JobLimits::default();
        let long = "ü".repeat(1_000_000);
        let failed = event("failed", json!({ "name": long, "exception": long, "traceback": long }));
        let news = read(failed.to_string().as_bytes(), &limits).unwrap().remove(0);
        assert!(decide(None, Timestamp(1), "p", &news, &limits).is_ok());
        let done = event("succeeded", json!({ "result": long }));
        let news = read(done.to_string().as_bytes(), &limits).unwrap().remove(0);
        assert!(decide(None, Timestamp(1), "p", &news, &limits).is_ok());
    }
}
