//! Owns the guess at how severe a line is, from how tools commonly write it.

/// How severe a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    Debug,
    Info,
    Warning,
    Error,
    Critical,
}

impl Level {
    /// The name that events carry.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Level::Debug => "DEBUG",
            Level::Info => "INFO",
            Level::Warning => "WARNING",
            Level::Error => "ERROR",
            Level::Critical => "CRITICAL",
        }
    }
}

/// Words at the beginning of a line among which the level stands: time, process and logger may come before it.
const WORDS_READ: usize = 6;

/// Guesses. A level counts where tools put it: as a word in capitals, before a colon, in brackets, or as `level=`.
/// Prose such as "0 errors" does not.
pub(super) fn guess(line: &str) -> Level {
    if line.starts_with("Traceback (most recent call last)") {
        return Level::Error;
    }
    for word in line.split_whitespace().take(WORDS_READ) {
        let word = word.strip_prefix("level=").map_or(word, |level| level.trim_matches('"'));
        let core = word.trim_matches(|c: char| !c.is_alphanumeric());
        // `error[E0382]:` and the like.
        let core = core.split(['[', '(']).next().unwrap_or(core);
        let is_marked = word != core || !core.chars().any(char::is_lowercase);
        let is_labelled = line.contains(&format!("level={core}")) || line.starts_with("npm ");
        if !(is_marked || is_labelled) {
            continue;
        }
        match core.to_ascii_lowercase().as_str() {
            "debug" | "trace" => return Level::Debug,
            "info" | "notice" => return Level::Info,
            "warn" | "warning" => return Level::Warning,
            "error" | "err" | "failed" | "fail" => return Level::Error,
            "critical" | "fatal" | "panic" | "panicked" | "emerg" => return Level::Critical,
            // Exceptions of Python and JavaScript: `ValueError: …`.
            lower if (lower.ends_with("error") || lower.ends_with("exception")) && word.ends_with(':') => {
                return Level::Error;
            }
            _ => {}
        }
    }
    Level::Info
}

#[cfg(test)]
mod tests {
    use super::{Level, guess};

    #[test]
    fn levels_are_found_where_tools_put_them() {
        for (line, expected) in [
            ("error[E0382]: borrow of moved value", Level::Error),
            ("error: aborting due to 1 previous error", Level::Error),
            ("warning: unused variable: `x`", Level::Warning),
            ("2026-11-21 10:00:00,123 ERROR app: no route", Level::Error),
            ("[WARN] low disk", Level::Warning),
            ("2026-11-21T10:00:00Z DEBUG x", Level::Debug),
            ("time=\"x\" level=warning msg=\"y\"", Level::Warning),
            ("npm warn deprecated inflight", Level::Warning),
            ("npm ERR! code 1", Level::Error),
            ("Traceback (most recent call last):", Level::Error),
            ("ValueError: no", Level::Error),
            ("[critical] bad", Level::Critical),
            ("FATAL: no space", Level::Critical),
            ("FAILED tests/test_a.py::test_x", Level::Error),
            ("0 errors, 0 warnings", Level::Info),
            ("this is no error at all", Level::Info),
            ("Compiling fatal v1.0", Level::Info),
            ("", Level::Info),
        ] {
            assert_eq!(guess(line), expected, "{line}");
        }
    }
}
