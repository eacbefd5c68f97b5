//! Owns the processes that watch, stock clients and ours, and reads the lines by which they tell what they see. Does not judge
//! that; the ledger does.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::Sender;

use anyhow::Context;
use serde_json::Value;

use super::ledger::Place;

/// What a watcher tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// It is in a room, and has everything up to there.
    Joined { watcher: u32, room: Box<str>, place: Place },
    /// It got an event, so many milliseconds after it was published.
    Saw { watcher: u32, room: Box<str>, place: Place, publication: u64, after_ms: u64 },
    /// It was refused what it missed in a room.
    Refused { watcher: u32, room: Box<str> },
    /// Something befell its connection.
    Noted { watcher: u32, note: String },
    /// It cuts its own connection.
    Dropped { watcher: u32 },
    /// It has lost its connection. `at` is in milliseconds since 1970, by the watcher's clock.
    Lost { watcher: u32, at: u64, why: Box<str> },
    /// It is back, with its rooms or without. `at` as in `Lost`.
    Back { watcher: u32, at: u64, is_recovered: bool },
    /// The process has said all that it will say.
    Ended,
}

/// A process that watches. Closing its input tells it to end.
pub(crate) struct Watchers {
    child: Child,
    _input: ChildStdin,
}

impl Watchers {
    /// Starts it, and passes on what it tells.
    ///
    /// # Errors
    /// The environment's: it cannot be run.
    pub(crate) fn start(command: &mut Command, told: Sender<Told>) -> anyhow::Result<Self> {
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = child.with_context(|| command.get_program().display().to_string())?;
        let stdout = child.stdout.take().context("invariant: stdout is piped")?;
        let input = child.stdin.take().context("invariant: stdin is piped")?;
        std::thread::spawn(move || {
            let lines = BufReader::new(stdout).lines().map_while(Result::ok);
            for told_by in lines.filter_map(|line| parse(&line)) {
                if told.send(told_by).is_err() {
                    return;
                }
            }
            // Nobody listens when the run is over.
            let _ = told.send(Told::Ended);
        });
        Ok(Self { child, _input: input })
    }
}

impl Drop for Watchers {
    fn drop(&mut self) {
        // Both fail only when it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads a line; `None` for one that is not meant for us.
fn parse(line: &str) -> Option<Told> {
    let line: Value = serde_json::from_str(line).ok()?;
    let watcher = u32::try_from(line["watcher"].as_u64()?).ok()?;
    let room = || line["room"].as_str().map(Box::from);
    let place = || Some(Place { epoch: line["epoch"].as_u64()?, seq: line["seq"].as_u64()? });
    Some(match line["told"].as_str()? {
        "joined" => Told::Joined { watcher, room: room()?, place: place()? },
        "saw" => Told::Saw {
            watcher,
            room: room()?,
            place: place()?,
            publication: line["n"].as_u64()?,
            after_ms: line["after_ms"].as_u64().unwrap_or(0),
        },
        "refused" => Told::Refused { watcher, room: room()? },
        "note" => Told::Noted { watcher, note: line["note"].as_str()?.to_owned() },
        "dropped" => Told::Dropped { watcher },
        "lost" => Told::Lost { watcher, at: line["at"].as_u64()?, why: line["why"].as_str()?.into() },
        "back" => {
            Told::Back { watcher, at: line["at"].as_u64()?, is_recovered: line["recovered"].as_bool()? }
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_and_others_passed_over() {
        let saw = r#"{"told":"saw","watcher":3,"room":"r","epoch":1,"seq":2,"n":9,"after_ms":4}"#;
        let place = Place { epoch: 1, seq: 2 };
        let told = Told::Saw { watcher: 3, room: "r".into(), place, publication: 9, after_ms: 4 };
        assert_eq!(parse(saw), Some(told));
        let back = r#"{"told":"back","watcher":3,"recovered":true,"at":12}"#;
        assert_eq!(parse(back), Some(Told::Back { watcher: 3, at: 12, is_recovered: true }));
        let noted = r#"{"told":"note","watcher":3,"note":"opened"}"#;
        assert_eq!(parse(noted), Some(Told::Noted { watcher: 3, note: "opened".to_owned() }));
        let lost = r#"{"told":"lost","watcher":3,"why":"silence","at":11}"#;
        assert_eq!(parse(lost), Some(Told::Lost { watcher: 3, at: 11, why: "silence".into() }));
        for other in ["", "warning", "{}", r#"{"told":"saw","watcher":3,"room":"r"}"#] {
            assert_eq!(parse(other), None, "{other}");
        }
    }
}
