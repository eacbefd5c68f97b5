//! Owns `fanfare run`: runs a command as if it were not there, and tells a server what the command prints and does.
//! Does not know the server's insides; it publishes like anyone else.
//! Invariant: whatever the server does, the command's output and exit code are its own.

mod level;
mod lines;
mod progress;
mod publisher;
mod reporter;

use std::io::{IsTerminal, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use rustix::process::{Pid, Signal, kill_process};
use tokio::signal::unix::{SignalKind, signal};
use uuid::Uuid;

use hub::room::RoomName;
use publisher::Publisher;
use reporter::{Outcome, Reporter, Stream};

/// How long output may stay silent after the command has ended, before we stop waiting for its end: something that
/// the command left behind may hold the pipe open for ever.
const SILENCE_AFTER_EXIT: Duration = Duration::from_millis(500);

/// How long the last events may take to reach the server. Longer: whoever waits for the command waits for a slow
/// server. Shorter: the last lines of a chatty command are lost.
const FLUSH_MAX: Duration = Duration::from_secs(5);

/// Bytes read from the command at once.
const READ_BYTES: usize = 64 * 1024;

/// What to run, and as what it is published.
#[derive(Args)]
pub(crate) struct Run {
    /// Project that the job belongs to; it is published to the rooms `project:PROJECT` and `job:JOB`
    #[arg(long, value_name = "PROJECT")]
    project: String,
    /// Server to publish to
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8000", env = "FANFARE_URL")]
    url: String,
    /// Id of the job [default: made from its name]
    #[arg(long, value_name = "JOB")]
    job: Option<String>,
    /// Name of the job as people see it [default: the command's]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Runs it, and answers the exit code to end with: the command's own, or 128 and the signal that killed it.
///
/// # Errors
/// The project, job or server is not one that can be. The caller's fault; nothing was run.
pub(crate) fn run(run: Run) -> anyhow::Result<u8> {
    let (program, arguments) = run.command.split_first().context("no command")?;
    let program_name = program.rsplit('/').next().unwrap_or(program);
    let name = run.name.unwrap_or_else(|| program_name.to_owned());
    let job = run.job.unwrap_or_else(|| job_id(program_name));
    let rooms = [format!("project:{}", run.project), format!("job:{job}")];
    for room in &rooms {
        RoomName::parse(room.clone()).map_err(|fault| anyhow::anyhow!(fault.message))?;
    }
    let publisher = Publisher::start(&run.url)?;
    let reporter = Arc::new(Reporter::new(publisher, rooms, job.clone(), name));
    reporter.report_queued();
    if std::io::stderr().is_terminal() {
        let url = run.url.trim_end_matches('/');
        note(&format!("job {job}; watch it at {url}/?room=project:{}", run.project));
    }

    // One thread: it waits for signals and the command's end. Output has threads of its own.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let began = Instant::now();
    let (outcome, code) = match runtime.block_on(supervise(program, arguments, &reporter)) {
        Ok(status) => {
            let outcome =
                Outcome { duration: began.elapsed(), exit_code: status.code(), error: complaint(status) };
            (outcome, exit_code(status))
        }
        Err(error) => {
            let complaint = format!("{program}: {error}");
            note(&complaint);
            // As shells have it: 127 is not found, 126 found but not to be run.
            let code = if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 };
            (Outcome { duration: began.elapsed(), exit_code: None, error: Some(complaint) }, code)
        }
    };
    reporter.report_end(&outcome);
    let lost = reporter.finish(FLUSH_MAX);
    if lost > 0 {
        note(&format!("{lost} events did not reach {}", run.url));
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

async fn supervise(
    program: &str,
    arguments: &[String],
    reporter: &Arc<Reporter>,
) -> std::io::Result<ExitStatus> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut child = tokio::process::Command::new(program)
        .args(arguments)
        .stdin(Stdio::inherit())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    reporter.report_running();
    let (ended, ends) = mpsc::channel();
    if let Some(stdout) = child.stdout.take() {
        let (pipe, ended) = (stdout.into_owned_fd()?, ended.clone());
        pass_on(pipe.into(), std::io::stdout(), Stream::Stdout, reporter.clone(), ended);
    }
    if let Some(stderr) = child.stderr.take() {
        pass_on(stderr.into_owned_fd()?.into(), std::io::stderr(), Stream::Stderr, reporter.clone(), ended);
    }
    let pid = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    // A terminal's Ctrl-C reaches the command by itself; a second one from us would be read as impatience.
    let is_in_terminal = std::io::stdin().is_terminal();
    let status = loop {
        let forwarded = tokio::select! {
            status = child.wait() => break status?,
            _ = interrupt.recv() => Signal::INT,
            _ = terminate.recv() => Signal::TERM,
        };
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
        match ends.recv_timeout(SILENCE_AFTER_EXIT) {
            Ok(()) => {}
            Err(RecvTimeoutError::Timeout) if seen != reporter.bytes_seen() => seen = reporter.bytes_seen(),
            Err(_) => return Ok(status),
        }
    }
}

/// Copies a stream of the command to ours, byte by byte as it comes, and shows it to the reporter.
fn pass_on(
    mut from: std::fs::File,
    mut to: impl Write + Send + 'static,
    stream: Stream,
    reporter: Arc<Reporter>,
    ended: mpsc::Sender<()>,
) {
    std::thread::spawn(move || {
        let mut buffer = vec![0; READ_BYTES];
        let mut reading = reporter.begin(stream);
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

fn complaint(status: ExitStatus) -> Option<String> {
    if status.success() {
        return None;
    }
    Some(match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => status.to_string(),
    })
}

fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    u8::try_from(code).unwrap_or(1)
}
