//! One line on stderr that tells how far a phase is; silent when stderr is no terminal.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// How often the line is written again.
const EVERY: Duration = Duration::from_millis(200);

/// The line of one phase. Clears itself when dropped.
pub(crate) struct Progress {
    label: &'static str,
    total: u64,
    is_shown: bool,
    next: Instant,
}

impl Progress {
    /// A phase that ends at `total` of whatever `show` is told.
    pub(crate) fn new(label: &'static str, total: u64) -> Self {
        Self { label, total, is_shown: std::io::stderr().is_terminal(), next: Instant::now() + EVERY }
    }

    /// Writes the line, if it is time to.
    pub(crate) fn show(&mut self, done: u64) {
        if self.is_shown && Instant::now() >= self.next {
            self.next = Instant::now() + EVERY;
            let percent = 100 * done.min(self.total) / self.total.max(1);
            // A lost progress line is no reason to stop.
            let _ =
                write!(std::io::stderr(), "\r\x1b[K{} {done} of {} ({percent} %)", self.label, self.total);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.is_shown {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}
