//! Owns what a running command's output becomes: lines, and how far its job is.
//! Does not know how that reaches a server; that is `delivery.rs`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::delivery::{Intake, Line};
use super::level;
use super::lines::{Lines, Piece};
use super::progress::Progress;
use crate::event::timestamp;

/// Where a line came from.
#[derive(Clone, Copy)]
pub(super) enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    fn as_str(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }
}

/// Tells what one command prints.
pub(super) struct Reporter {
    intake: Intake,
    progress: Mutex<Progress>,
    bytes_seen: AtomicU64,
}

impl Reporter {
    /// Tells it there.
    pub(super) fn new(intake: Intake) -> Self {
        Self { intake, progress: Mutex::default(), bytes_seen: AtomicU64::new(0) }
    }

    /// Bytes that the command has printed so far.
    pub(super) fn bytes_seen(&self) -> u64 {
        self.bytes_seen.load(Ordering::Relaxed)
    }

    /// Begins to read a stream.
    pub(super) fn begin(self: &Arc<Self>, stream: Stream) -> Reading {
        Reading { reporter: self.clone(), stream, lines: Lines::default() }
    }

    fn report_piece(&self, piece: Piece, stream: Stream) {
        let grown = self.progress.lock().unwrap_or_else(PoisonError::into_inner).handle_piece(&piece);
        let (Piece::Line(text) | Piece::Passing(text)) = &piece;
        if let Some(percent) = grown {
            self.intake.report_progress(percent, text.trim());
        }
        if let Piece::Line(text) = piece {
            let level = level::guess(&text).as_str();
            self.intake.push(Line { text, stream: stream.as_str(), level, timestamp: timestamp() });
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
        self.lines.handle_bytes(bytes, |piece| self.reporter.report_piece(piece, self.stream));
        if let Some(piece) = self.lines.peek_percentage() {
            self.reporter.report_piece(piece, self.stream);
        }
    }

    /// Takes the end.
    pub(super) fn handle_end(&mut self) {
        if let Some(piece) = self.lines.handle_end() {
            self.reporter.report_piece(piece, self.stream);
        }
    }
}
