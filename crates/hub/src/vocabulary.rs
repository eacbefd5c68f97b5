//! Owns the table of the events that only rules make: presence. Does not know when they are made; the rules' own modules
//! do. Those that publishers may say, too, are in [`jobs`](crate::jobs) and [`runs`](crate::runs).

use crate::event::{Audience, Shape};
use crate::presence::{PRESENCE_COUNT, PRESENCE_JOINED, PRESENCE_LEFT, PresenceChange, PresenceCount};
use crate::schema::EventType;

/// The table.
pub const EVENTS: &[EventType] = &[
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
        "A user has left a room: the last socket did, or has been lost for a while.",
        "common",
        Shape::Flat,
        Audience::Rooms,
        &["{room}"],
    ),
    EventType::plain::<PresenceCount>(
        PRESENCE_COUNT,
        "So many are in a room that is too large for names.",
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
