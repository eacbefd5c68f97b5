//! Owns the way of one job to the server: a bounded buffer, and the task that empties it through the publisher's crate.
//! Does not know what a command prints means. Invariant: handing something over never waits, whatever the server does.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fanfare_sdk::rest::{Job, JobStatusUpdate, NewJob};
use fanfare_sdk::{Error, Event, Jobs, ProgressTracker, Publisher, Settings};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// Lines of one batch. The server takes 1,000 by default.
const BATCH_LINES_MAX: usize = 500;
/// Bytes that wait for a server that is away or slow, 16 MiB: about 80,000 lines. When full the oldest lines are
/// dropped.
const BUFFER_BYTES_MAX: usize = 16 << 20;
/// Bytes that a line takes beside its text.
const LINE_BYTES: usize = 128;
/// How long the last events may take to reach a server that answers. Longer: whoever waits for the command waits for a
/// slow server. Shorter: the last lines of a chatty command are lost.
const FLUSH_MAX: Duration = Duration::from_secs(5);
/// The same for a server that is away: a chance or two, see [`RETRY_MAX`].
const FLUSH_AWAY_MAX: Duration = Duration::from_secs(1);
/// How often it is looked whether the server is away.
const LOOK: Duration = Duration::from_millis(50);
/// Time that one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest wait between two attempts to reach a server that is away.
const RETRY_MAX: Duration = Duration::from_millis(500);
/// How long a server may be away before what waits for it is given up: longer than commands run.
const GIVE_UP_AFTER: Duration = Duration::from_secs(365 * 86_400);
/// Least time between two updates of progress that watchers get. The server's own default suits figures in a list; here
/// somebody looks at a bar.
const UPDATE_INTERVAL: Duration = Duration::from_millis(250);
/// Bytes of a name, message or reason that are told; a server takes at least as many of each.
const TEXT_BYTES_MAX: usize = 2_000;

/// What to do about an id that another job has.
const OTHER_ID: &str = "give another --job, or none for an id of its own";

/// What is told of.
pub(super) struct Subject {
    /// The project that the job belongs to.
    pub(super) project: String,
    /// The job's id.
    pub(super) job: String,
    /// Its name as people see it.
    pub(super) name: String,
    /// What the server may count on: a sign of life at least this often.
    pub(super) heartbeat: Duration,
}

/// A line that the command printed.
pub(super) struct Line {
    /// What it says.
    pub(super) text: String,
    /// `stdout` or `stderr`.
    pub(super) stream: &'static str,
    /// How severe it seems.
    pub(super) level: &'static str,
    /// When it came, in RFC 3339.
    pub(super) timestamp: String,
}

/// How a command ended.
pub(super) enum Outcome {
    /// Well, after so long.
    Success(Duration),
    /// Badly, and why.
    Failure(String),
    /// Because somebody asked it to, and how.
    Stopped(String),
}

/// What did not arrive.
pub(super) struct Losses {
    /// How many lines and statuses.
    pub(super) count: u64,
    /// Why.
    pub(super) why: Option<String>,
}

/// A handle on the task.
pub(super) struct Delivery {
    publisher: Publisher,
    intake: Intake,
    task: JoinHandle<()>,
}

/// Where things are handed over, from any thread.
#[derive(Clone)]
pub(super) struct Intake(Arc<Shared>);

#[derive(Default)]
struct Shared {
    buffer: Mutex<Buffer>,
    changed: Notify,
}

#[derive(Default)]
struct Buffer {
    is_running: bool,
    progress: Option<(f64, String)>,
    lines: VecDeque<Line>,
    bytes: usize,
    outcome: Option<Outcome>,
    /// How many lines and statuses were handed over, and how many of them the server has.
    handed: u64,
    arrived: u64,
    /// Why the server did not want the first that it refused.
    refusal: Option<String>,
    /// The server wants nothing of this job.
    is_closed: bool,
}

impl Buffer {
    fn push(&mut self, line: Line) {
        self.handed += 1;
        if self.is_closed {
            return;
        }
        self.bytes += line.text.len() + LINE_BYTES;
        self.lines.push_back(line);
        while self.bytes > BUFFER_BYTES_MAX && self.pop().is_some() {}
    }

    fn pop(&mut self) -> Option<Line> {
        let line = self.lines.pop_front()?;
        self.bytes -= line.text.len() + LINE_BYTES;
        Some(line)
    }

    /// What is told next: the oldest thing of each kind before what comes after it in a job's life.
    fn next(&mut self) -> Option<Step> {
        if std::mem::take(&mut self.is_running) {
            return Some(Step::Running);
        }
        if let Some((percent, message)) = self.progress.take() {
            return Some(Step::Progress(percent, message));
        }
        if !self.lines.is_empty() {
            let count = self.lines.len().min(BATCH_LINES_MAX);
            return Some(Step::Lines((0..count).map_while(|_| self.pop()).collect()));
        }
        self.outcome.take().map(Step::End)
    }
}

enum Step {
    Running,
    Progress(f64, String),
    Lines(Vec<Line>),
    End(Outcome),
}

impl Delivery {
    /// Begins to tell of a job, in the runtime that we are in. The server need not be there. `report` gets to know whether
    /// the server has taken the job, when that is known.
    ///
    /// # Errors
    /// The URL is not one of a server, or the key is none. The caller's fault.
    pub(super) fn start(
        url: &str,
        api_key: Option<&str>,
        subject: Subject,
        report: impl FnOnce(Result<(), &str>) + Send + 'static,
    ) -> Result<Self, Error> {
        let settings = Settings {
            api_key: api_key.filter(|key| !key.is_empty()).map(Into::into),
            request_timeout: REQUEST_TIMEOUT,
            retry_max: RETRY_MAX,
            give_up_after: GIVE_UP_AFTER,
            ..Settings::default()
        };
        let publisher = Publisher::with_settings(url, settings)?;
        let shared = Arc::new(Shared::default());
        // The job itself.
        shared.lock().handed += 1;
        let sender =
            Sender { publisher: publisher.clone(), jobs: publisher.jobs(), subject, shared: shared.clone() };
        let task = tokio::spawn(async move {
            let begun = sender.begin().await;
            report(begun.as_ref().map(|_| ()).map_err(String::as_str));
            if let Err(why) = match begun {
                Ok(tracker) => sender.run(tracker).await,
                Err(why) => Err(why),
            } {
                sender.close(why);
            }
        });
        Ok(Self { publisher, intake: Intake(shared), task })
    }

    /// Where things are handed over.
    pub(super) fn intake(&self) -> Intake {
        self.intake.clone()
    }

    /// Tells how the command ended, and waits until all is told, a few seconds at most. Answers what was lost.
    pub(super) async fn finish(mut self, outcome: Outcome) -> Losses {
        self.intake.change(|buffer| {
            buffer.handed += 1;
            buffer.outcome = Some(outcome);
        });
        let began = Instant::now();
        let mut why = None;
        while tokio::time::timeout(LOOK, &mut self.task).await.is_err() {
            why = self.publisher.failure();
            let within = if why.is_some() { FLUSH_AWAY_MAX } else { FLUSH_MAX };
            if began.elapsed() > within {
                self.task.abort();
                break;
            }
        }
        let mut buffer = self.intake.0.lock();
        Losses { count: buffer.handed - buffer.arrived, why: buffer.refusal.take().or(why) }
    }
}

impl Intake {
    /// The command runs.
    pub(super) fn report_running(&self) {
        self.change(|buffer| {
            buffer.handed += 1;
            buffer.is_running = true;
        });
    }

    /// The command is that far; of several that come at once the newest is told.
    pub(super) fn report_progress(&self, percent: f64, message: &str) {
        self.change(|buffer| buffer.progress = Some((percent, cut(message).to_owned())));
    }

    /// The command printed a line.
    pub(super) fn push(&self, line: Line) {
        self.change(|buffer| buffer.push(line));
    }

    fn change(&self, change: impl FnOnce(&mut Buffer)) {
        change(&mut self.0.lock());
        self.0.changed.notify_one();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Buffer> {
        // Whoever panicked left the buffer whole: nothing in between can fail.
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The end that is emptied.
struct Sender {
    publisher: Publisher,
    jobs: Jobs,
    subject: Subject,
    shared: Arc<Shared>,
}

impl Sender {
    /// Makes the job, or takes over one that somebody has queued under its id.
    async fn begin(&self) -> Result<ProgressTracker, String> {
        let Subject { project, job: id, name, heartbeat } = &self.subject;
        let new = NewJob {
            project_id: project.clone(),
            job_id: Some(id.clone()),
            kind: Some("command".into()),
            meta: Some(json!({ "name": cut(name) })),
            min_update_interval: Some(UPDATE_INTERVAL.as_secs_f64()),
            heartbeat_interval: None,
        };
        let job = match self.jobs.create(&new).await {
            // A key that may not read it cannot take it over either.
            Err(error) if error.code() == Some("already_exists") => {
                self.jobs.get(id).await.map_err(|_| format!("{error}; {OTHER_ID}"))?
            }
            answer => answer.map_err(advise)?,
        };
        if job.project_id != *project || job.status != "queued" {
            return Err(taken(&job));
        }
        self.arrived(1);
        self.jobs.track(id, Some(*heartbeat)).map_err(advise)
    }

    async fn run(&self, tracker: ProgressTracker) -> Result<(), String> {
        loop {
            match self.next().await {
                Step::Running => {
                    let running = JobStatusUpdate { status: "running".into(), ..JobStatusUpdate::default() };
                    self.jobs.set_status(&self.subject.job, &running).await.map_err(advise)?;
                    self.arrived(1);
                }
                Step::Progress(percent, message) => tracker.set_progress(percent, message.as_str()),
                Step::Lines(lines) => self.publish(lines).await,
                Step::End(outcome) => {
                    let ended = match outcome {
                        Outcome::Success(duration) => {
                            tracker.mark_complete_with(None, result(duration)).await
                        }
                        Outcome::Failure(why) => tracker.mark_failed(cut(&why)).await,
                        Outcome::Stopped(why) => tracker.mark_cancelled(cut(&why)).await,
                    };
                    ended.map_err(advise)?;
                    self.arrived(1);
                    return Ok(());
                }
            }
        }
    }

    async fn next(&self) -> Step {
        loop {
            let next = self.shared.lock().next();
            match next {
                Some(step) => return step,
                None => self.shared.changed.notified().await,
            }
        }
    }

    async fn publish(&self, lines: Vec<Line>) {
        let events: Vec<_> = lines.into_iter().map(|line| self.event(line)).collect();
        for answer in self.publisher.publish_batch(events).await {
            match answer {
                Ok(_) => self.arrived(1),
                Err(error) => {
                    self.shared.lock().refusal.get_or_insert_with(|| error.to_string());
                }
            }
        }
    }

    fn event(&self, line: Line) -> Event {
        let Subject { project, job, .. } = &self.subject;
        let data = json!({
            "job_id": job,
            "text": line.text,
            "stream": line.stream,
            "level": line.level,
            "timestamp": line.timestamp,
        });
        Event::new("log", data).room(format!("project:{project}")).room(format!("job:{job}"))
    }

    fn arrived(&self, count: u64) {
        self.shared.lock().arrived += count;
    }

    /// The server wants nothing, or nothing more, of this job.
    fn close(&self, why: String) {
        let mut buffer = self.shared.lock();
        buffer.is_closed = true;
        buffer.refusal.get_or_insert(why);
        while buffer.pop().is_some() {}
    }
}

/// What a command that ended well came to. Its output is in the log.
fn result(duration: Duration) -> Value {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    json!({ "exit_code": 0, "duration_ms": millis })
}

fn taken(job: &Job) -> String {
    format!("job `{}` of project `{}` is already {}; {OTHER_ID}", job.job_id, job.project_id, job.status)
}

/// What went wrong, and what may be done about it.
fn advise(error: Error) -> String {
    let advice = match &error {
        Error::Refused { status: 401 | 403, .. } => {
            "; --api-key or FANFARE_API_KEY takes a key with the scope `publish`"
        }
        _ => "",
    };
    format!("{error}{advice}")
}

/// As much of a text as is told.
fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_BYTES_MAX)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Line {
        Line { text: text.to_owned(), stream: "stdout", level: "INFO", timestamp: String::new() }
    }

    #[test]
    fn a_full_buffer_drops_the_oldest_lines_and_keeps_what_a_job_has_become() {
        let mut buffer = Buffer { is_running: true, ..Buffer::default() };
        for nth in 0..18 {
            buffer.push(line(&format!("{nth:02}{}", "x".repeat(1 << 20))));
        }
        assert!(buffer.bytes <= BUFFER_BYTES_MAX);
        assert_eq!((buffer.lines.len(), buffer.handed), (15, 18));
        assert!(matches!(buffer.next(), Some(Step::Running)));
        let Some(Step::Lines(lines)) = buffer.next() else { panic!("lines are next") };
        assert!(lines[0].text.starts_with("03"));
        assert_eq!((lines.len(), buffer.bytes), (15, 0));
    }

    #[test]
    fn a_job_runs_before_it_progresses_and_ends_after_its_lines() {
        let mut buffer = Buffer {
            outcome: Some(Outcome::Failure("x".into())),
            progress: Some((1.0, "1%".into())),
            is_running: true,
            ..Buffer::default()
        };
        for nth in 0..=BATCH_LINES_MAX {
            buffer.push(line(&nth.to_string()));
        }
        assert!(matches!(buffer.next(), Some(Step::Running)));
        assert!(matches!(buffer.next(), Some(Step::Progress(..))));
        let counts = [(); 2].map(|()| match buffer.next() {
            Some(Step::Lines(lines)) => lines.len(),
            _ => 0,
        });
        assert_eq!(counts, [BATCH_LINES_MAX, 1]);
        assert!(matches!(buffer.next(), Some(Step::End(Outcome::Failure(_)))));
        assert!(buffer.next().is_none());
    }

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!(cut("short"), "short");
        assert_eq!(cut(&"ü".repeat(TEXT_BYTES_MAX)).len(), TEXT_BYTES_MAX);
        assert_eq!(cut(&format!("a{}", "ü".repeat(TEXT_BYTES_MAX))).len(), TEXT_BYTES_MAX - 1);
    }
}
