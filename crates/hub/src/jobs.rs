//! Owns the vocabulary of jobs as publishers say it by themselves, without a job that the server tracks.
//! Does not know tracked jobs, whose rules tell the same events.
//!
//! | event | goes to, unless rooms are named |
//! |---|---|
//! | `agent_status`, `agent_progress` | `project:<project_id>` and `job:<job_id>`, as far as they are said |
//!
//! Both travel flat.

use serde_json::Value;

use crate::event::{Audience, Shape};
use crate::job::JobStatus;
use crate::payload::{Id, Payload, Percent, addressed, payload, rooms_of};
use crate::room::RoomKind;
use crate::schema::{Direction, EventType};

payload! {
    /// A job has become something.
    StatusChange = "agent_status" {
        required {
            /// Which job.
            job_id: Id,
            /// What it is now.
            status: JobStatus,
        }
        optional {
            /// Whose members watch it.
            project_id: Id,
            /// When, in RFC 3339.
            timestamp: String,
            /// `status_change`, as tracked jobs say.
            event: String,
            /// What it came to, if it has come to something.
            result: Value,
            /// Why it failed or was cancelled.
            error: String,
        }
    }
}

payload! {
    /// A job has come further.
    ProgressChange = "agent_progress" {
        required {
            /// Which job.
            job_id: Id,
            /// How much is done.
            progress: Percent,
        }
        optional {
            /// Whose members watch it.
            project_id: Id,
            /// When, in RFC 3339.
            timestamp: String,
            /// `progress_update`, as tracked jobs say.
            event: String,
            /// What is being done.
            message: String,
        }
    }
}

addressed! {
    StatusChange: |it| rooms_of(
        &[(RoomKind::Project, it.project_id.as_ref()), (RoomKind::Job, Some(&it.job_id))],
        "`job_id`",
    ), key it.job_id.as_str();
    ProgressChange: |it| rooms_of(
        &[(RoomKind::Project, it.project_id.as_ref()), (RoomKind::Job, Some(&it.job_id))],
        "`job_id`",
    ), key it.job_id.as_str();
}

/// The vocabulary.
pub const EVENTS: &[EventType] = &[event::<StatusChange>(), event::<ProgressChange>()];

const fn event<T: Payload>() -> EventType {
    let rooms = &["project:{project_id}", "job:{job_id}"];
    EventType::of::<T>("jobs", Direction::Event, Shape::Flat, Audience::Rooms, rooms)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use serde_json::value::to_raw_value;

    use crate::schema::inspect;

    #[test]
    fn a_job_is_watched_in_its_room_and_its_projects() {
        let rooms = |data: serde_json::Value| {
            let inspected = inspect("agent_status", &to_raw_value(&data).unwrap())?.expect("it is known");
            inspected.rooms.map(|rooms| rooms.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        let alone = json!({"job_id": "j", "status": "running"});
        assert_eq!(rooms(alone), Ok(vec!["job:j".to_owned()]));
        let both = json!({"job_id": 7, "status": "success", "project_id": "p", "result": {"files": 3}});
        assert_eq!(rooms(both), Ok(vec!["project:p".to_owned(), "job:7".to_owned()]));
        let fault = rooms(json!({"job_id": "j", "status": "sleeping"})).unwrap_err();
        assert!(fault.message.contains("agent_status: status"), "{fault}");
    }

    #[test]
    fn what_tracked_jobs_tell_fits_the_vocabulary() {
        use crate::job::{AGENT_PROGRESS, AGENT_STATUS, Job, JobLimits, NewJob, create};
        let new: NewJob = serde_json::from_value(json!({"project_id": "p"})).unwrap();
        let now = crate::time::Timestamp(1);
        let step = create(None::<&Job>, now, "j", new, &JobLimits::default()).unwrap();
        assert!(step.events.iter().any(|event| event.name == AGENT_STATUS));
        for event in &step.events {
            assert!(inspect(&event.name, &event.data.0).unwrap().is_some(), "{}", event.name);
        }
        assert!(crate::schema::find(AGENT_PROGRESS).is_some());
    }
}
