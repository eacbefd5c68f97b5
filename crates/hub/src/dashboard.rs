//! Owns the vocabulary of dashboards: the four updates that sockets and publishers send, and where they go.
//! Does not know sockets, stores, or who may send them.
//!
//! Each update goes to its topic room and is mirrored to `dashboard`, where the newest for each key is kept:
//!
//! | event | topic | key |
//! |---|---|---|
//! | `agent_status_update` | `agents` | `agent_id` |
//! | `task_update` | `tasks` | `task_id` |
//! | `system_metrics_update` | `metrics` | `source`, if it is said |
//! | `workflow_event` | `workflows` | `workflow_id` |
//!
//! Invariant: the topic room comes first. It keeps the log, so its position is the one that watchers of both are told.

use serde_json::Value;

use crate::event::{Audience, Shape};
use crate::fault::Fault;
use crate::payload::{Extra, Id, Percent, addressed, payload};
use crate::room::RoomName;
use crate::schema::{Direction, EventType};

payload! {
    /// An agent's status has changed.
    AgentStatusUpdate = "agent_status_update" {
        required {
            /// Which agent.
            agent_id: Id,
            /// What it is now, such as `active`, `idle` or `error`.
            status: String,
        }
        optional {
            /// Figures and facts about it.
            metadata: Extra,
        }
    }
}

payload! {
    /// A task has changed.
    TaskUpdate = "task_update" {
        required {
            /// Which task.
            task_id: Id,
            /// What it is now, such as `running` or `completed`.
            status: String,
        }
        optional {
            /// How much of it is done.
            progress: Percent,
            /// What came of it.
            result: Value,
        }
    }
}

payload! {
    /// How the system is doing, in figures.
    SystemMetricsUpdate = "system_metrics_update" {
        optional {
            /// Whose figures they are, such as a host; the newest for each is kept.
            source: Id,
            /// The figures; they may as well stand beside this field.
            metrics: Extra,
        }
    }
}

payload! {
    /// Something has happened in a workflow.
    WorkflowEvent = "workflow_event" {
        required {
            /// Which workflow.
            workflow_id: Id,
        }
        optional {
            /// What has happened, such as `step_completed`.
            event_type: String,
            /// What the workflow is now.
            status: String,
        }
    }
}

addressed! {
    AgentStatusUpdate: |it| topic("agents"), key it.agent_id.as_str();
    TaskUpdate: |it| topic("tasks"), key it.task_id.as_str();
    SystemMetricsUpdate: |it| topic("metrics"), key it.source.as_ref().map_or("", Id::as_str);
    WorkflowEvent: |it| topic("workflows"), key it.workflow_id.as_str();
}

/// The vocabulary.
pub const EVENTS: &[EventType] = &[
    relay::<AgentStatusUpdate>(&["agents", "dashboard"]),
    relay::<TaskUpdate>(&["tasks", "dashboard"]),
    relay::<SystemMetricsUpdate>(&["metrics", "dashboard"]),
    relay::<WorkflowEvent>(&["workflows", "dashboard"]),
];

const fn relay<T: crate::payload::Payload>(rooms: &'static [&'static str]) -> EventType {
    EventType::of::<T>("dashboard", Direction::Relay, Shape::Wrapped, Audience::Rooms, rooms)
}

fn topic(name: &str) -> Result<Vec<RoomName>, Fault> {
    Ok(vec![RoomName::parse(name)?, RoomName::parse("dashboard")?])
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;
    use crate::schema::{inspect, validate};

    #[track_caller]
    fn check(event: &str, data: &str, expected_rooms: [&str; 2], expected_key: &str) {
        let data = RawValue::from_string(data.to_owned()).unwrap();
        let inspected = inspect(event, &data).unwrap().expect("it is known");
        let rooms = inspected.rooms.unwrap();
        assert_eq!(rooms.iter().map(RoomName::as_str).collect::<Vec<_>>(), expected_rooms);
        assert_eq!(&*inspected.key, expected_key);
    }

    #[test]
    fn updates_go_to_their_topic_and_the_dashboard() {
        check(
            "agent_status_update",
            r#"{"agent_id":"agent-123","status":"active","metadata":{"cpu":75,"memory":60}}"#,
            ["agents", "dashboard"],
            "agent-123",
        );
        check("task_update", r#"{"task_id":7,"status":"done","anything":[]}"#, ["tasks", "dashboard"], "7");
        check("system_metrics_update", r#"{"cpu":1}"#, ["metrics", "dashboard"], "");
        check("system_metrics_update", r#"{"source":"db","metrics":{}}"#, ["metrics", "dashboard"], "db");
        check("workflow_event", r#"{"workflow_id":"w","event":"started"}"#, ["workflows", "dashboard"], "w");
    }

    #[test]
    fn updates_without_what_they_are_about_are_refused_by_the_name_of_the_field() {
        for (event, data, field) in [
            ("agent_status_update", r#"{"status":"active"}"#, "agent_id"),
            ("agent_status_update", r#"{"agent_id":"a"}"#, "status"),
            ("agent_status_update", r#"{"agent_id":"a","status":1}"#, "status"),
            ("agent_status_update", r#"{"agent_id":"","status":"x"}"#, "agent_id"),
            ("task_update", r#"{"task_id":"t","status":"x","progress":101}"#, "progress"),
            ("task_update", "[]", "task_update"),
            ("system_metrics_update", r#"{"metrics":5}"#, "metrics"),
            ("workflow_event", "{}", "workflow_id"),
        ] {
            let data = RawValue::from_string(data.to_owned()).unwrap();
            let fault = validate(event, &data).expect_err("it is accepted");
            assert!(fault.message.contains(field), "{fault}");
        }
    }
}
