//! Owns what a running command's doings become: log lines, progress and status events of one job.
//! Does not know how they reach a server; that is `publisher.rs`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use super::level;
use super::lines::{Lines, Piece};
use super::progress::Progress;
use super::publisher::{Publisher, Worth};
use crate::event::timestamp;

/// Where a line came from.
#[derive(Clone, Copy)]
pub(super) enum Stream {
    Stdout,
    Stderr,
}

/// How a command ended.
pub(super) struct Outcome {
    /// How long it ran.
    pub(super) duration: Duration,
    /// Its exit code; `None` if a signal killed it or it never began.
    pub(super) exit_code: Option<i32>,
    /// What went wrong, if something did.
    pub(super) error: Option<String>,
}

/// Tells of one job.
pub(super) struct Reporter {
    publisher: Publisher,
    rooms: [String; 2],
    job: String,
    name: String,
    progress: Mutex<Progress>,
    bytes_seen: AtomicU64,
}

impl Reporter {
    /// Tells of `job` to its rooms.
    pub(super) fn new(publisher: Publisher, rooms: [String; 2], job: String, name: String) -> Self {
        Self { publisher, rooms, job, name, progress: Mutex::default(), bytes_seen: AtomicU64::new(0) }
    }

    /// The job is known.
    pub(super) fn report_queued(&self) {
        self.report_status("queued", &Value::Null, None);
    }

    /// Its command runs.
    pub(super) fn report_running(&self) {
        self.report_status("running", &Value::Null, None);
    }

    /// Its command has ended.
    pub(super) fn report_end(&self, outcome: &Outcome) {
        let millis = u64::try_from(outcome.duration.as_millis()).unwrap_or(u64::MAX);
        let result = json!({ "exit_code": outcome.exit_code, "duration_ms": millis });
        let status = if outcome.error.is_none() { "success" } else { "error" };
        self.report_status(status, &result, outcome.error.as_deref());
    }

    fn report_status(&self, status: &str, result: &Value, error: Option<&str>) {
        let data = json!({
            "job_id": self.job,
            "name": self.name,
            "status": status,
            "timestamp": timestamp(),
            "event": "status_change",
            "result": result,
            "error": error,
        });
        self.publisher.push(Worth::Keep, self.event("agent_status", &data));
    }

    fn event(&self, name: &str, data: &Value) -> String {
        json!({ "event": name, "data": data, "rooms": self.rooms }).to_string()
    }

    /// Bytes that the command has printed so far.
    pub(super) fn bytes_seen(&self) -> u64 {
        self.bytes_seen.load(Ordering::Relaxed)
    }

    /// Begins to read a stream.
    pub(super) fn begin(self: &Arc<Self>, stream: Stream) -> Reading {
        Reading { reporter: self.clone(), stream, lines: Lines::default() }
    }

    /// Waits until all is sent, for at most `within`. Answers how many events were lost.
    pub(super) fn finish(&self, within: Duration) -> u64 {
        self.publisher.finish(within)
    }

    fn report_piece(&self, piece: &Piece, stream: Stream) {
        let grown = self.progress.lock().unwrap_or_else(PoisonError::into_inner).handle_piece(piece);
        let text = match piece {
            Piece::Line(text) | Piece::Passing(text) => text,
        };
        if let Some(progress) = grown {
            let data = json!({
                "job_id": self.job,
                "progress": progress,
                "timestamp": timestamp(),
                "event": "progress_update",
                "message": text.trim(),
            });
            self.publisher.push_progress(self.event("agent_progress", &data));
        }
        if let Piece::Line(text) = piece {
            let data = json!({
                "text": text,
                "job_id": self.job,
                "stream": match stream { Stream::Stdout => "stdout", Stream::Stderr => "stderr" },
                "level": level::guess(text).as_str(),
                "timestamp": timestamp(),
            });
            self.publisher.push(Worth::Droppable, self.event("log", &data));
        }
    }
}

/// One stream of the command, being read.
pub(super) struct Reading {
    reporter: Arc<Reporter>,
    stream: Stream,
    lines: Lines,
}

impl Reading {
    /// Takes what came.
    pub(super) fn handle_bytes(&mut self, bytes: &[u8]) {
        self.reporter.bytes_seen.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.lines.handle_bytes(bytes, |piece| self.reporter.report_piece(&piece, self.stream));
        if let Some(piece) = self.lines.peek_percentage() {
            self.reporter.report_piece(&piece, self.stream);
        }
    }

    /// Takes the end.
    pub(super) fn handle_end(&mut self) {
        if let Some(piece) = self.lines.handle_end() {
            self.reporter.report_piece(&piece, self.stream);
        }
    }
}
