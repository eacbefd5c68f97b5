//! Owns how a bound is checked, so that all refusals of too much read alike. Does not know any bound: each noun names
//! its own.

use std::io::{self, Write};

use serde::Serialize;

use crate::fault::{Fault, Refusal};

/// Refuses a text that is longer than it may be.
pub(crate) fn text(what: &str, text: &str, bytes_max: usize) -> Result<(), Fault> {
    refuse_above(what, text.len(), bytes_max, "bytes")
}

/// Refuses a text that is empty, longer than it may be, or has control characters: what names things.
pub(crate) fn name(what: &str, name: &str, bytes_max: usize) -> Result<(), Fault> {
    if name.is_empty() {
        return Err(Fault::new(Refusal::BadPayload, format!("{what} must not be empty")));
    }
    if name.chars().any(char::is_control) {
        return Err(Fault::new(Refusal::BadPayload, format!("{what} must not have control characters")));
    }
    text(what, name, bytes_max)
}

/// Refuses what takes more bytes as JSON than it may, and tells how many it takes.
pub(crate) fn json(what: &str, value: &impl Serialize, bytes_max: usize) -> Result<usize, Fault> {
    let mut counter = Counter { bytes: 0, bytes_max };
    if serde_json::to_writer(&mut counter, value).is_err() {
        return Err(Fault::new(Refusal::TooMany, format!("{what} exceeds {bytes_max} bytes of JSON")));
    }
    Ok(counter.bytes)
}

/// Refuses a list or map with more entries than it may have.
pub(crate) fn count(what: &str, count: usize, count_max: usize) -> Result<(), Fault> {
    refuse_above(what, count, count_max, "entries")
}

fn refuse_above(what: &str, size: usize, size_max: usize, unit: &str) -> Result<(), Fault> {
    if size <= size_max {
        return Ok(());
    }
    Err(Fault::new(Refusal::TooMany, format!("{what} of {size} {unit} exceeds {size_max}")))
}

/// Counts bytes and keeps none; an error as soon as there are too many.
struct Counter {
    bytes: usize,
    bytes_max: usize,
}

impl Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes += bytes.len();
        if self.bytes > self.bytes_max {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_as_large_as_it_may_be_passes_and_one_more_does_not() {
        assert_eq!(text("a message", "abc", 3), Ok(()));
        let fault = text("a message", "abcd", 3).unwrap_err();
        assert_eq!(fault.to_string(), "too_many: a message of 4 bytes exceeds 3");
        assert_eq!(json("meta", &json!({"a": 1}), 7), Ok(7));
        assert_eq!(json("meta", &json!({"a": 1}), 6).unwrap_err().refusal, Refusal::TooMany);
        assert_eq!(count("meta", 2, 2), Ok(()));
        assert!(count("meta", 3, 2).is_err());
    }

    #[test]
    fn names_are_not_empty_and_printable() {
        assert_eq!(name("a name", "ok", 2), Ok(()));
        for bad in ["", "a\nb", "long"] {
            assert!(name("a name", bad, 3).is_err(), "{bad:?}");
        }
    }
}
