//! Owns what the product counts by itself; connections and packets are counted by the engine.
//! Does not know how numbers are shown.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::codes::Code;

/// Commands that are counted by name; whatever else sockets send is `other`, so that they can't make up metrics.
pub(crate) const COMMANDS: [&str; 20] = [
    "join_room",
    "leave_room",
    "subscribe",
    "unsubscribe",
    "subscribe_project",
    "unsubscribe_project",
    "ping",
    "history",
    "presence",
    "notification_ack",
    "refresh_token",
    "approve",
    "filter",
    "agent_status_update",
    "task_update",
    "system_metrics_update",
    "workflow_event",
    "ai_request",
    "ai_cancel",
    "other",
];

/// Totals since the process began.
pub(crate) struct Tally {
    began: Instant,
    /// Events published over HTTP.
    pub(crate) events_published: AtomicU64,
    /// HTTP requests that were not the engine's.
    pub(crate) requests: AtomicU64,
    commands: [AtomicU64; COMMANDS.len()],
    faults: Mutex<BTreeMap<Code, u64>>,
}

impl Tally {
    /// Nothing yet.
    pub(crate) fn new() -> Self {
        Self {
            began: Instant::now(),
            events_published: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            commands: Default::default(),
            faults: Mutex::default(),
        }
    }

    /// Seconds since the process began.
    pub(crate) fn uptime_s(&self) -> u64 {
        self.began.elapsed().as_secs()
    }

    /// Counts a command.
    pub(crate) fn count_command(&self, name: &str) {
        let index = COMMANDS.iter().position(|known| *known == name).unwrap_or(COMMANDS.len() - 1);
        self.commands[index].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a refusal, over HTTP or of a command.
    pub(crate) fn count_fault(&self, code: Code) {
        if let Ok(mut faults) = self.faults.lock() {
            *faults.entry(code).or_default() += 1;
        }
    }

    /// Commands by name.
    pub(crate) fn commands(&self) -> Vec<(&'static str, u64)> {
        COMMANDS
            .iter()
            .zip(&self.commands)
            .map(|(name, count)| (*name, count.load(Ordering::Relaxed)))
            .collect()
    }

    /// Refusals by code; those that never happened are left out.
    pub(crate) fn faults(&self) -> Vec<(Code, u64)> {
        self.faults
            .lock()
            .map(|faults| faults.iter().map(|(code, count)| (*code, *count)).collect())
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use hub::schema::{Direction, events};

    use super::COMMANDS;

    #[test]
    fn every_command_of_the_vocabularies_is_counted_by_its_name() {
        for event in events() {
            match event.direction {
                Direction::Command | Direction::Relay => {
                    assert!(COMMANDS.contains(&event.name), "{}", event.name)
                }
                Direction::Event | Direction::Notice => {}
            }
        }
        assert_eq!(COMMANDS.last(), Some(&"other"));
    }
}
