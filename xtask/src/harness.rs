//! Owns a run of `cargo test`: shows what the test harness prints, and knows from it which tests failed.
//! Does not know why they were run. Invariant: whatever ended badly without naming a test is not taken for a failed test.

use std::io::{self, BufRead, BufReader, Write};
use std::process::{Command, ExitStatus, Stdio};

/// What one run of `cargo test` told.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// Test programs that began, and those that told how they ended: fewer when one crashed.
    begun: usize,
    ended: usize,
    failures: usize,
    pub(crate) passed: usize,
    failed: Vec<String>,
}

impl Report {
    /// Runs the command to its end; its lines are shown as they come.
    ///
    /// # Errors
    /// The environment's: the command cannot be run, or its output cannot be read or shown.
    pub(crate) fn of(command: &mut Command) -> io::Result<(Self, ExitStatus)> {
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let mut report = Self::default();
        if let Some(stdout) = child.stdout.take() {
            let mut shown = io::stdout().lock();
            for line in BufReader::new(stdout).split(b'\n') {
                let line = line?;
                shown.write_all(&line)?;
                shown.write_all(b"\n")?;
                report.read(&String::from_utf8_lossy(&line));
            }
        }
        Ok((report, child.wait()?))
    }

    fn read(&mut self, line: &str) {
        if let Some(name) = line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED")) {
            self.failed.push(name.to_owned());
        } else if line.starts_with("running ") && (line.ends_with(" test") || line.ends_with(" tests")) {
            self.begun += 1;
        } else if let Some(counts) = line.strip_prefix("test result: ") {
            self.ended += 1;
            self.passed += number_before(counts, " passed");
            self.failures += number_before(counts, " failed");
        }
    }

    /// The tests that failed and that can be asked for by name, if nothing else went wrong.
    pub(crate) fn failed(&self) -> Option<&[String]> {
        let is_whole = self.begun == self.ended && self.failures == self.failed.len();
        // Examples in documentation are named by file and line, and are not worth a second look.
        let are_names = self.failed.iter().all(|name| !name.contains(' '));
        (is_whole && are_names && !self.failed.is_empty()).then_some(&self.failed)
    }
}

/// The number that stands before this word.
fn number_before(text: &str, word: &str) -> usize {
    let number = text.split_once(word).and_then(|(before, _)| before.rsplit(' ').next());
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(output: &str) -> Report {
        let mut report = Report::default();
        output.lines().for_each(|line| report.read(line));
        report
    }

    const FAILED: &str = "
running 3 tests
test rooms::are_left ... ok
test rooms::are_joined ... FAILED
test slow ... ignored, needs Redis

failures:
    rooms::are_joined

test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.10s
";

    #[test]
    fn failed_tests_are_known_by_name() {
        let report = read(FAILED);
        assert_eq!(report.failed().unwrap(), ["rooms::are_joined"]);
        assert_eq!(report.passed, 1);
    }

    #[test]
    fn who_crashed_or_failed_without_a_name_is_no_failed_test() {
        assert!(read("").failed().is_none());
        let crashed = format!("{FAILED}\nrunning 1 test\n");
        assert!(read(&crashed).failed().is_none());
        let unnamed = FAILED.replace("test rooms::are_joined ... FAILED\n", "");
        assert!(read(&unnamed).failed().is_none());
        let documented = FAILED.replace("test rooms::are_joined ...", "test src/lib.rs - Rooms (line 3) ...");
        assert!(read(&documented).failed().is_none());
    }
}
