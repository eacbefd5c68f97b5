//! Owns the tables of the vocabularies whose events the rules make: jobs, runs, logs, presence. Does not know when they
//! are made; the rules' own modules do.

use serde_json::Value;

use crate::event::{Audience, Shape};
use crate::job::{AGENT_PROGRESS, AGENT_STATUS, AgentProgress, AgentStatus};
use crate::log_line::{LOG, LogLine};
use crate::presence::{PRESENCE_JOINED, PRESENCE_LEFT, PresenceChange};
use crate::run::{ADMIN_EVENT, AdminEvent};
use crate::schema::EventType;

const JOB_ROOMS: &[&str] = &["project:{project_id}", "job:{job_id}"];

/// The vocabularies, in one table.
pub const EVENTS: &[EventType] = &[
    EventType::plain::<AgentStatus>(
        AGENT_STATUS,
        "A job's status has changed.",
        "jobs",
        Shape::Flat,
        Audience::Rooms,
        JOB_ROOMS,
    ),
    EventType::plain::<AgentProgress>(
        AGENT_PROGRESS,
        "A job has come further.",
        "jobs",
        Shape::Flat,
        Audience::Rooms,
        JOB_ROOMS,
    ),
    // A run's `admin_event` goes to the members of its room, too.
    EventType::plain::<AdminEvent<Value>>(
        ADMIN_EVENT,
        "Something that operators should know: of a run, a job, a connection or the system.",
        "runs",
        Shape::Flat,
        Audience::Admin,
        &["run:{thread_id}"],
    ),
    EventType::plain::<LogLine>(LOG, "A line of a log.", "runs", Shape::Flat, Audience::Logs, &[]),
    EventType::plain::<PresenceChange>(
        PRESENCE_JOINED,
        "A user's first socket has joined a room.",
        "common",
        Shape::Flat,
        Audience::Rooms,
        &["{room}"],
    ),
    EventType::plain::<PresenceChange>(
        PRESENCE_LEFT,
        "A user's last socket has left a room.",
        "common",
        Shape::Flat,
        Audience::Rooms,
        &["{room}"],
    ),
];

#[cfg(test)]
mod tests {
    use serde_json::json;
    use serde_json::value::to_raw_value;

    use crate::schema::validate;

    #[test]
    fn what_the_rules_tell_is_what_the_specification_says() {
        let at = "2024-01-15T10:30:00.000Z";
        for (event, data, is_valid) in [
            (
                "agent_status",
                json!({"job_id": "j", "status": "running", "timestamp": at, "event": "status_change",
                    "result": null, "error": null}),
                true,
            ),
            (
                "agent_status",
                json!({"job_id": "j", "status": "success", "timestamp": at, "event": "status_change",
                    "result": {"summary": "s"}}),
                true,
            ),
            (
                "agent_status",
                json!({"job_id": "j", "status": "odd", "timestamp": at, "event": "status_change"}),
                false,
            ),
            (
                "agent_progress",
                json!({"job_id": "j", "progress": 50, "timestamp": at, "event": "progress_update", "message": "m"}),
                true,
            ),
            ("admin_event", json!({"type": "run_event", "data": {"thread_id": "t"}}), true),
            ("admin_event", json!({"type": "other", "data": {}}), false),
            ("log", json!({"text": "x", "thread_id": "t", "level": "INFO", "timestamp": at}), true),
            ("log", json!({"level": "INFO", "timestamp": at}), false),
        ] {
            let outcome = validate(event, &to_raw_value(&data).unwrap());
            assert_eq!(outcome.is_ok(), is_valid, "{event} {data}: {outcome:?}");
        }
    }
}
