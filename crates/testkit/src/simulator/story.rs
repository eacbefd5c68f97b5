//! What is told about one socket of a run, in words and in order.
//! Does not know what happens, only whether a line is about the socket. Invariant: telling changes nothing in the run.

use engine_core::Moment;

/// The lines about one socket.
pub(super) struct Story {
    sid: String,
    /// Its secret, from when its peer has been told.
    pid: Option<String>,
    lines: Vec<String>,
}

impl Story {
    pub(super) fn new(sid: &str) -> Self {
        Self { sid: sid.to_owned(), pid: None, lines: Vec::new() }
    }

    /// From now on lines with this pid are about the socket, too, if the public id is its.
    pub(super) fn follow_pid(&mut self, sid: &str, pid: &str) {
        if sid == self.sid {
            self.pid = Some(pid.to_owned());
        }
    }

    pub(super) fn add(&mut self, now: Moment, line: &str) {
        if line.contains(&self.sid) || self.pid.as_ref().is_some_and(|pid| line.contains(pid)) {
            self.lines.push(format!("{now} {line}"));
        }
    }

    pub(super) fn into_lines(self) -> Vec<String> {
        self.lines
    }
}
