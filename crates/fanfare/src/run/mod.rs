//! Owns `fanfare run`: runs a command as if it were not there, and tells a server what the command prints and does.
//! Does not know the server's insides; it publishes like anyone else.
//! Invariant: whatever the server does, the command's output and exit code are its own.

mod delivery;
mod level;
mod lines;
mod progress;
mod reporter;

use std::io::{IsTerminal, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use rustix::process::{Pid, Signal, kill_process};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use uuid::Uuid;

use delivery::{Delivery, Intake, Outcome, Subject};
use hub::room::{RoomKind, RoomName};
use reporter::{Reading, Reporter, Stream};

/// How long output may stay silent after the command has ended, before we stop waiting for its end: something that
/// the command left behind may hold the pipe open for ever.
const SILENCE_AFTER_EXIT: Duration = Duration::from_millis(500);

/// Bytes read from the command at once.
const READ_BYTES: usize = 64 * 1024;

/// What to run, and as what it is published.
#[derive(Args)]
pub(crate) struct Run {
    /// Project that the job belongs to; it is watched in the rooms `project:PROJECT` and `job:JOB`
    #[arg(long, value_name = "PROJECT")]
    project: String,
    /// Id of the job: a new one, or one that is queued [default: made from the command's name]
    #[arg(long, value_name = "JOB")]
    job: Option<String>,
    /// Name of the job as people see it [default: the command's]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Server to tell
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8000", env = "FANFARE_URL")]
    url: String,
    /// API key with the scope `publish`, if the server wants one
    #[arg(long, value_name = "KEY", env = "FANFARE_API_KEY", hide_env_values = true)]
    api_key: Option<String>,
    /// Promises the server a sign of life this often; the job is `stalled` after two that did not come
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = humantime::parse_duration)]
    heartbeat: Duration,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Runs it, and answers the exit code to end with: the command's own, or 128 and the signal that killed it.
///
/// # Errors
/// The project, job, server or key is not one that can be. The caller's fault; nothing was run.
pub(crate) fn run(run: Run) -> anyhow::Result<u8> {
    // One thread beside this one, which waits for signals and the command's end. Output has threads of its own.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let code = runtime.block_on(run_and_tell(run));
    // Something that looks up a name of a server for long is not waited for.
    runtime.shutdown_background();
    code
}

async fn run_and_tell(run: Run) -> anyhow::Result<u8> {
    let (program, arguments) = run.command.split_first().context("no command")?;
    let program_name = program.rsplit('/').next().unwrap_or(program);
    let name = run.name.unwrap_or_else(|| program_name.to_owned());
    let job = run.job.unwrap_or_else(|| job_id(program_name));
    for (kind, id) in [(RoomKind::Project, &run.project), (RoomKind::Job, &job)] {
        RoomName::of(kind, id).map_err(|fault| anyhow::anyhow!(fault.message))?;
    }
    let address = format!("{}/?room=project:{}", run.url.trim_end_matches('/'), run.project);
    let report = {
        let job = job.clone();
        // Whoever sits there may want to look, or to begin again with another key.
        move |begun: Result<(), &str>| match begun {
            _ if !std::io::stderr().is_terminal() => {}
            Ok(()) => note(&format!("job {job}; watch it at {address}")),
            Err(why) => note(&format!("job {job} is not published: {why}")),
        }
    };
    let subject = Subject { project: run.project, job, name, heartbeat: run.heartbeat };
    let delivery = Delivery::start(&run.url, run.api_key.as_deref(), subject, report)?;

    let began = Instant::now();
    let (outcome, code) = match supervise(program, arguments, &delivery.intake()).await {
        Ok(end) => (end.outcome(began.elapsed()), end.exit_code()),
        Err(error) => {
            let complaint = format!("{program}: {error}");
            note(&complaint);
            // As shells have it: 127 is not found, 126 found but not to be run.
            let code = if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 };
            (Outcome::Failure(complaint), code)
        }
    };
    let losses = delivery.finish(outcome).await;
    if losses.count > 0 {
        let why = losses.why.map_or_else(String::new, |why| format!(": {why}"));
        note(&format!("{} events did not reach {}{why}", losses.count, run.url));
    }
    Ok(code)
}

/// Says something beside the command's output.
fn note(text: &str) {
    // To nobody, if stderr is closed.
    let _ = writeln!(std::io::stderr().lock(), "fanfare: {text}");
}

/// An id that says what it is and does not repeat.
fn job_id(program: &str) -> String {
    let id = Uuid::now_v7().simple().to_string();
    // The last eight digits are random.
    format!("{program}-{}", &id[id.len() - 8..])
}

/// How a command ended.
struct End {
    status: ExitStatus,
    /// What it was asked to end by.
    asked: Option<Signal>,
}

impl End {
    fn outcome(&self, duration: Duration) -> Outcome {
        let Self { status, asked } = self;
        if status.success() {
            return Outcome::Success(duration);
        }
        let complaint = match (status.code(), status.signal()) {
            (Some(code), _) => format!("exit code {code}"),
            (None, Some(signal)) => format!("killed by signal {signal}"),
            (None, None) => status.to_string(),
        };
        // Killed by it, or as shells tell that.
        let is_stopped = asked.is_some_and(|asked| {
            status.signal() == Some(asked.as_raw()) || status.code() == Some(128 + asked.as_raw())
        });
        if is_stopped { Outcome::Stopped(complaint) } else { Outcome::Failure(complaint) }
    }

    fn exit_code(&self) -> u8 {
        let code =
            self.status.code().or_else(|| self.status.signal().map(|signal| 128 + signal)).unwrap_or(1);
        u8::try_from(code).unwrap_or(1)
    }
}

async fn supervise(program: &str, arguments: &[String], intake: &Intake) -> std::io::Result<End> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut child = tokio::process::Command::new(program)
        .args(arguments)
        .stdin(Stdio::inherit())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    intake.report_running();
    let reporter = Arc::new(Reporter::new(intake.clone()));
    let (ended, mut ends) = mpsc::unbounded_channel();
    if let Some(stdout) = child.stdout.take() {
        let (pipe, ended) = (stdout.into_owned_fd()?, ended.clone());
        pass_on(pipe.into(), std::io::stdout(), reporter.begin(Stream::Stdout), ended);
    }
    if let Some(stderr) = child.stderr.take() {
        pass_on(stderr.into_owned_fd()?.into(), std::io::stderr(), reporter.begin(Stream::Stderr), ended);
    }
    let pid = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    // A terminal's Ctrl-C reaches the command by itself; a second one from us would be read as impatience.
    let is_in_terminal = std::io::stdin().is_terminal();
    let mut asked = None;
    let status = loop {
        let forwarded = tokio::select! {
            status = child.wait() => break status?,
            _ = interrupt.recv() => Signal::INT,
            _ = terminate.recv() => Signal::TERM,
        };
        asked = Some(forwarded);
        if let Some(pid) = pid
            && !(is_in_terminal && forwarded == Signal::INT)
        {
            // It may have ended a moment ago.
            let _ = kill_process(pid, forwarded);
        }
    };
    // Both streams end with the command, unless it left something behind that holds them open.
    let mut seen = reporter.bytes_seen();
    loop {
        match tokio::time::timeout(SILENCE_AFTER_EXIT, ends.recv()).await {
            Ok(Some(())) => {}
            Err(_) if seen != reporter.bytes_seen() => seen = reporter.bytes_seen(),
            Ok(None) | Err(_) => return Ok(End { status, asked }),
        }
    }
}

/// Copies a stream of the command to ours, byte by byte as it comes, and shows it to the reporter.
fn pass_on(
    mut from: std::fs::File,
    mut to: impl Write + Send + 'static,
    mut reading: Reading,
    ended: mpsc::UnboundedSender<()>,
) {
    std::thread::spawn(move || {
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let count = match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(_) => break,
            };
            let bytes = &buffer[..count];
            // Nobody reads us: closing the pipe tells the command so, as if it had been run without us.
            if to.write_all(bytes).and_then(|()| to.flush()).is_err() {
                break;
            }
            reading.handle_bytes(bytes);
        }
        reading.handle_end();
        // Dropping it says the same, but later.
        let _ = ended.send(());
    });
}
