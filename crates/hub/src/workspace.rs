//! Owns the vocabulary of workspaces: what happens to projects, agents, workflows, pull requests, issues and analyses.
//! Does not know where events come from, or who is connected.
//!
//! | subject | types | count |
//! |---|---|---|
//! | project | created, updated, deleted | 3 |
//! | agent | status_changed, connected, disconnected | 3 |
//! | workflow | started, progress, completed, failed, cancelled | 5 |
//! | pr | created, updated, closed, merged | 4 |
//! | issue | created, updated, closed | 3 |
//! | ai | suggestion, analysis_complete | 2 |
//! | connection | established, error | 2 |
//!
//! Together 22. On the wire a type is the event's name (`pr.merged`), but for those of a connection: they are named with
//! an underscore (`connection_established`), say their type in `type`, travel flat and are the server's alone.
//!
//! Everything goes to `project:<project_id>`; what is about an agent also, and first, to `agent:<agent_id>`; what the `ai.`
//! types say to a user also to `user:<user_id>`. Invariant: nothing that names a project goes to a room that people
//! outside of it share.

use serde_json::Value;

use crate::event::{Audience, Shape};
use crate::fault::Fault;
use crate::payload::{Confidence, Extra, Id, Payload, Percent, addressed, payload, rooms_of};
use crate::room::{RoomKind, RoomName};
use crate::schema::{Direction, EventType};

payload! {
    /// A project was created.
    ProjectCreated = "project.created" {
        required {
            /// Which project.
            project_id: Id,
        }
        optional {
            /// Its name.
            project_name: String,
            /// What it is for.
            description: String,
            /// Where its sources are.
            repository_url: String,
            /// What it is now, such as `active`.
            status: String,
            /// Who created it.
            created_by: Id,
        }
    }
}

payload! {
    /// A project was changed.
    ProjectUpdated = "project.updated" {
        required {
            /// Which project.
            project_id: Id,
        }
        optional {
            /// Its name.
            project_name: String,
            /// Where its sources are.
            repository_url: String,
            /// What it is now, such as `active` or `archived`.
            status: String,
            /// Who changed it.
            updated_by: Id,
            /// What was changed: field by field, in whatever form.
            changes: Extra,
        }
    }
}

payload! {
    /// A project was deleted.
    ProjectDeleted = "project.deleted" {
        required {
            /// Which project.
            project_id: Id,
        }
        optional {
            /// The name that it had.
            project_name: String,
            /// Who deleted it.
            deleted_by: Id,
            /// Why.
            reason: String,
        }
    }
}

payload! {
    /// An agent has become available, busy or something else.
    AgentStatusChanged = "agent.status_changed" {
        required {
            /// Which agent.
            agent_id: Id,
            /// What it is now, such as `idle`, `busy` or `offline`.
            status: String,
        }
        optional {
            /// The project that it works for.
            project_id: Id,
            /// Its name.
            agent_name: String,
            /// What it was before.
            previous_status: String,
            /// What it is working at.
            current_task: String,
            /// For people.
            message: String,
        }
    }
}

payload! {
    /// An agent is there: its first socket has connected.
    AgentConnected = "agent.connected" {
        required {
            /// Which agent.
            agent_id: Id,
        }
        optional {
            /// The project that it works for.
            project_id: Id,
            /// Its name.
            agent_name: String,
            /// What it can do.
            capabilities: Vec<String>,
            /// When, in RFC 3339.
            connected_at: String,
        }
    }
}

payload! {
    /// An agent is gone: its last socket has been away for longer than the grace period.
    AgentDisconnected = "agent.disconnected" {
        required {
            /// Which agent.
            agent_id: Id,
        }
        optional {
            /// The project that it works for.
            project_id: Id,
            /// Its name.
            agent_name: String,
            /// Why, as far as it is known.
            reason: String,
            /// When, in RFC 3339.
            disconnected_at: String,
        }
    }
}

payload! {
    /// A workflow has begun.
    WorkflowStarted = "workflow.started" {
        addressed {
            /// The project that it belongs to.
            project_id: Id,
        }
        required {
            /// Which workflow.
            workflow_id: Id,
        }
        optional {
            /// Its name.
            workflow_name: String,
            /// What it is now.
            status: String,
            /// How many steps it has.
            total_steps: u64,
            /// Who started it.
            started_by: Id,
            /// What it was given.
            input: Value,
        }
    }
}

payload! {
    /// A workflow has come further.
    WorkflowProgress = "workflow.progress" {
        addressed {
            /// The project that it belongs to.
            project_id: Id,
        }
        required {
            /// Which workflow.
            workflow_id: Id,
            /// How much of it is done: 0 to 100.
            progress: Percent,
        }
        optional {
            /// Its name.
            workflow_name: String,
            /// What it is now.
            status: String,
            /// What it is doing: the step's name or number.
            step: Value,
            /// How many steps it has.
            total_steps: u64,
            /// For people.
            message: String,
        }
    }
}

payload! {
    /// A workflow has come to its end.
    WorkflowCompleted = "workflow.completed" {
        addressed {
            /// The project that it belongs to.
            project_id: Id,
        }
        required {
            /// Which workflow.
            workflow_id: Id,
        }
        optional {
            /// Its name.
            workflow_name: String,
            /// What it is now.
            status: String,
            /// What came of it.
            result: Value,
            /// How long it took, in milliseconds.
            duration_ms: u64,
        }
    }
}

payload! {
    /// A workflow has failed.
    WorkflowFailed = "workflow.failed" {
        addressed {
            /// The project that it belongs to.
            project_id: Id,
        }
        required {
            /// Which workflow.
            workflow_id: Id,
        }
        optional {
            /// Its name.
            workflow_name: String,
            /// What it is now.
            status: String,
            /// Why.
            error: String,
            /// The step that failed: its name or number.
            step: Value,
            /// Whether trying again makes sense.
            retryable: bool,
        }
    }
}

payload! {
    /// A workflow was cancelled.
    WorkflowCancelled = "workflow.cancelled" {
        addressed {
            /// The project that it belongs to.
            project_id: Id,
        }
        required {
            /// Which workflow.
            workflow_id: Id,
        }
        optional {
            /// Its name.
            workflow_name: String,
            /// What it is now.
            status: String,
            /// Who cancelled it.
            cancelled_by: Id,
            /// Why.
            reason: String,
        }
    }
}

payload! {
    /// A pull request was opened.
    PrCreated = "pr.created" {
        addressed {
            /// The project that its repository belongs to.
            project_id: Id,
        }
        required {
            /// Its number in the repository.
            number: u64,
            /// Its title.
            title: String,
        }
        optional {
            /// Where it can be read.
            url: String,
            /// Who opened it.
            author: String,
            /// The repository.
            repository_url: String,
            /// What it is now, such as `open`.
            status: String,
            /// The branch that it would merge.
            source_branch: String,
            /// The branch that it would merge into.
            target_branch: String,
            /// Whether it is not ready for review.
            draft: bool,
            /// Its labels.
            labels: Vec<String>,
        }
    }
}

payload! {
    /// A pull request was changed.
    PrUpdated = "pr.updated" {
        addressed {
            /// The project that its repository belongs to.
            project_id: Id,
        }
        required {
            /// Its number in the repository.
            number: u64,
        }
        optional {
            /// Its title.
            title: String,
            /// Where it can be read.
            url: String,
            /// Who opened it.
            author: String,
            /// The repository.
            repository_url: String,
            /// What it is now, such as `open`.
            status: String,
            /// The branch that it would merge.
            source_branch: String,
            /// The branch that it would merge into.
            target_branch: String,
            /// Whether it is not ready for review.
            draft: bool,
            /// Its labels.
            labels: Vec<String>,
            /// Who changed it.
            updated_by: Id,
            /// What was done, such as `synchronize` or `labeled`.
            action: String,
            /// What was changed: field by field, in whatever form.
            changes: Extra,
        }
    }
}

payload! {
    /// A pull request was closed without being merged.
    PrClosed = "pr.closed" {
        addressed {
            /// The project that its repository belongs to.
            project_id: Id,
        }
        required {
            /// Its number in the repository.
            number: u64,
        }
        optional {
            /// Its title.
            title: String,
            /// Where it can be read.
            url: String,
            /// Who opened it.
            author: String,
            /// The repository.
            repository_url: String,
            /// What it is now, such as `closed`.
            status: String,
            /// Its labels.
            labels: Vec<String>,
            /// Who closed it.
            closed_by: Id,
        }
    }
}

payload! {
    /// A pull request was merged.
    PrMerged = "pr.merged" {
        addressed {
            /// The project that its repository belongs to.
            project_id: Id,
        }
        required {
            /// Its number in the repository.
            number: u64,
        }
        optional {
            /// Its title.
            title: String,
            /// Where it can be read.
            url: String,
            /// Who opened it.
            author: String,
            /// The repository.
            repository_url: String,
            /// What it is now, such as `merged`.
            status: String,
            /// The branch that was merged.
            source_branch: String,
            /// The branch that it was merged into.
            target_branch: String,
            /// Its labels.
            labels: Vec<String>,
            /// Who merged it.
            merged_by: Id,
            /// The commit that merged it.
            merge_commit: String,
        }
    }
}

payload! {
    /// An issue was opened.
    IssueCreated = "issue.created" {
        addressed {
            /// The project that its repository belongs to.
            project_id: Id,
        }
        required {
            /// Its number in the repository.
            number: u64,
            /// Its title.
            title: String,
        }
        optional {
            /// Where it can be read.
            url: String,
            /// Who opened it.
            author: String,
            /// The repository.
            repository_url: String,
            /// What it is now, such as `open`.
            status: String,
            /// Its labels.
            labels: Vec<String>,
            /// Who is to deal with it.
            assignees: Vec<String>,
        }
    }
}

payload! {
    /// An issue was changed.
    IssueUpdated = "issue.updated" {
        addressed {
            /// The project that its repository belongs to.
            project_id: Id,
        }
        required {
            /// Its number in the repository.
            number: u64,
        }
        optional {
            /// Its title.
            title: String,
            /// Where it can be read.
            url: String,
            /// Who opened it.
            author: String,
            /// The repository.
            repository_url: String,
            /// What it is now, such as `open`.
            status: String,
            /// Its labels.
            labels: Vec<String>,
            /// Who is to deal with it.
            assignees: Vec<String>,
            /// Who changed it.
            updated_by: Id,
            /// What was done, such as `labeled` or `reopened`.
            action: String,
            /// What was changed: field by field, in whatever form.
            changes: Extra,
        }
    }
}

payload! {
    /// An issue was closed.
    IssueClosed = "issue.closed" {
        addressed {
            /// The project that its repository belongs to.
            project_id: Id,
        }
        required {
            /// Its number in the repository.
            number: u64,
        }
        optional {
            /// Its title.
            title: String,
            /// Where it can be read.
            url: String,
            /// Who opened it.
            author: String,
            /// The repository.
            repository_url: String,
            /// What it is now, such as `closed`.
            status: String,
            /// Its labels.
            labels: Vec<String>,
            /// Who dealt with it.
            assignees: Vec<String>,
            /// Who closed it.
            closed_by: Id,
            /// Why, such as `completed` or `not_planned`.
            reason: String,
        }
    }
}

payload! {
    /// An assistant suggests something, to a project or to one user.
    AiSuggestion = "ai.suggestion" {
        optional {
            /// The project that it is for.
            project_id: Id,
            /// The user whom it is for.
            user_id: Id,
            /// Its id.
            suggestion_id: Id,
            /// What sort of suggestion it is, such as `refactoring`.
            suggestion_type: String,
            /// What it is about.
            title: String,
            /// What it says.
            suggestion: Value,
            /// The file that it is about.
            file_path: String,
            /// How sure the assistant is: 0 to 1.
            confidence: Confidence,
        }
    }
}

payload! {
    /// An assistant has looked at something to the end, for a project or for one user.
    AiAnalysisComplete = "ai.analysis_complete" {
        optional {
            /// The project that it is for.
            project_id: Id,
            /// The user whom it is for.
            user_id: Id,
            /// Its id.
            analysis_id: Id,
            /// What sort of analysis it was, such as `security`.
            analysis_type: String,
            /// What it says in short.
            summary: String,
            /// What was found.
            findings: Value,
            /// How sure the assistant is: 0 to 1.
            confidence: Confidence,
        }
    }
}

payload! {
    /// The server has let a socket in.
    ConnectionEstablished = "connection_established" {
        required {
            /// Always `connection.established`.
            r#type: String,
            /// The socket's id.
            connection_id: String,
            /// The rooms that it is in already.
            rooms: Vec<String>,
            /// The server's time, in RFC 3339.
            server_time: String,
            /// Whether it has got what it missed while it was away.
            recovered: bool,
        }
        optional {
            /// Who the server thinks it is.
            user_id: String,
            /// The session of the application that it belongs to.
            session_id: String,
        }
    }
}

payload! {
    /// Something is wrong with a socket's connection; the server is about to close it.
    ConnectionError = "connection_error" {
        required {
            /// Always `connection.error`.
            r#type: String,
            /// What to compare with.
            code: String,
            /// What to read.
            message: String,
        }
    }
}

addressed! {
    ProjectCreated: |it| project(Some(&it.project_id)), key it.project_id.as_str();
    ProjectUpdated: |it| project(Some(&it.project_id)), key it.project_id.as_str();
    ProjectDeleted: |it| project(Some(&it.project_id)), key it.project_id.as_str();
    AgentStatusChanged: |it| agent(&it.agent_id, it.project_id.as_ref()), key it.agent_id.as_str();
    AgentConnected: |it| agent(&it.agent_id, it.project_id.as_ref()), key it.agent_id.as_str();
    AgentDisconnected: |it| agent(&it.agent_id, it.project_id.as_ref()), key it.agent_id.as_str();
    WorkflowStarted: |it| project(it.project_id.as_ref()), key it.workflow_id.as_str();
    WorkflowProgress: |it| project(it.project_id.as_ref()), key it.workflow_id.as_str();
    WorkflowCompleted: |it| project(it.project_id.as_ref()), key it.workflow_id.as_str();
    WorkflowFailed: |it| project(it.project_id.as_ref()), key it.workflow_id.as_str();
    WorkflowCancelled: |it| project(it.project_id.as_ref()), key it.workflow_id.as_str();
    PrCreated: |it| project(it.project_id.as_ref()), key it.number.to_string();
    PrUpdated: |it| project(it.project_id.as_ref()), key it.number.to_string();
    PrClosed: |it| project(it.project_id.as_ref()), key it.number.to_string();
    PrMerged: |it| project(it.project_id.as_ref()), key it.number.to_string();
    IssueCreated: |it| project(it.project_id.as_ref()), key it.number.to_string();
    IssueUpdated: |it| project(it.project_id.as_ref()), key it.number.to_string();
    IssueClosed: |it| project(it.project_id.as_ref()), key it.number.to_string();
    AiSuggestion: |it| project_and_user(it.project_id.as_ref(), it.user_id.as_ref()),
        key it.suggestion_id.as_ref().map_or("", Id::as_str);
    AiAnalysisComplete: |it| project_and_user(it.project_id.as_ref(), it.user_id.as_ref()),
        key it.analysis_id.as_ref().map_or("", Id::as_str);
    // To the socket itself, and to no room.
    ConnectionEstablished: |_it| Ok(Vec::new()), key "";
    ConnectionError: |_it| Ok(Vec::new()), key "";
}

const PROJECT: &[&str] = &["project:{project_id}"];
const AGENT: &[&str] = &["agent:{agent_id}", "project:{project_id}"];
const PROJECT_AND_USER: &[&str] = &["project:{project_id}", "user:{user_id}"];

/// The vocabulary.
pub const EVENTS: &[EventType] = &[
    event::<ProjectCreated>(PROJECT),
    event::<ProjectUpdated>(PROJECT),
    event::<ProjectDeleted>(PROJECT),
    event::<AgentStatusChanged>(AGENT),
    event::<AgentConnected>(AGENT),
    event::<AgentDisconnected>(AGENT),
    event::<WorkflowStarted>(PROJECT),
    event::<WorkflowProgress>(PROJECT),
    event::<WorkflowCompleted>(PROJECT),
    event::<WorkflowFailed>(PROJECT),
    event::<WorkflowCancelled>(PROJECT),
    event::<PrCreated>(PROJECT),
    event::<PrUpdated>(PROJECT),
    event::<PrClosed>(PROJECT),
    event::<PrMerged>(PROJECT),
    event::<IssueCreated>(PROJECT),
    event::<IssueUpdated>(PROJECT),
    event::<IssueClosed>(PROJECT),
    event::<AiSuggestion>(PROJECT_AND_USER),
    event::<AiAnalysisComplete>(PROJECT_AND_USER),
    notice::<ConnectionEstablished>(),
    notice::<ConnectionError>(),
];

const fn event<T: Payload>(rooms: &'static [&'static str]) -> EventType {
    EventType::of::<T>("workspace", Direction::Event, Shape::Wrapped, Audience::Rooms, rooms)
}

const fn notice<T: Payload>() -> EventType {
    EventType::of::<T>("workspace", Direction::Notice, Shape::Flat, Audience::Rooms, &[])
}

fn project(id: Option<&Id>) -> Result<Vec<RoomName>, Fault> {
    rooms_of(&[(RoomKind::Project, id)], "`project_id`")
}

fn agent(id: &Id, project: Option<&Id>) -> Result<Vec<RoomName>, Fault> {
    rooms_of(&[(RoomKind::Agent, Some(id)), (RoomKind::Project, project)], "`agent_id`")
}

fn project_and_user(project: Option<&Id>, user: Option<&Id>) -> Result<Vec<RoomName>, Fault> {
    rooms_of(&[(RoomKind::Project, project), (RoomKind::User, user)], "`project_id` or `user_id`")
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use serde_json::value::to_raw_value;

    use super::*;
    use crate::schema::{inspect, validate};

    #[test]
    fn there_are_22_types_and_two_of_them_are_the_servers() {
        assert_eq!(EVENTS.len(), 22);
        assert_eq!(EVENTS.iter().filter(|event| event.is_publishable()).count(), 20);
    }

    #[track_caller]
    fn rooms(event: &str, data: &Value) -> Vec<String> {
        let inspected = inspect(event, &to_raw_value(data).unwrap()).unwrap().expect("it is known");
        inspected.rooms.unwrap().iter().map(|room| room.as_str().to_owned()).collect()
    }

    #[test]
    fn events_go_to_their_project_agent_or_user() {
        assert_eq!(
            rooms("project.updated", &json!({"project_id": 5, "changes": {"status": "x"}})),
            ["project:5"]
        );
        assert_eq!(rooms("agent.status_changed", &json!({"agent_id": "a", "status": "busy"})), ["agent:a"]);
        let agent = json!({"agent_id": "a", "project_id": "p"});
        assert_eq!(rooms("agent.connected", &agent), ["agent:a", "project:p"]);
        let progress = json!({"workflow_id": "w", "project_id": "p", "progress": 12.5, "step": 3});
        assert_eq!(rooms("workflow.progress", &progress), ["project:p"]);
        assert_eq!(rooms("ai.suggestion", &json!({"user_id": "u", "confidence": 0.9})), ["user:u"]);
    }

    #[test]
    fn what_names_no_project_is_valid_but_has_no_room_of_its_own() {
        let data = to_raw_value(&json!({"workflow_id": "w"})).unwrap();
        assert_eq!(validate("workflow.started", &data), Ok(()));
        let fault = inspect("workflow.started", &data).unwrap().unwrap().rooms.unwrap_err();
        assert!(fault.message.contains("`project_id`"), "{fault}");
    }

    #[test]
    fn payloads_of_the_wrong_type_are_refused_by_the_name_of_the_field() {
        for (event, data, field) in [
            ("project.updated", json!({}), "project_id"),
            ("workflow.progress", json!({"project_id": "p", "workflow_id": "w"}), "progress"),
            ("workflow.progress", json!({"workflow_id": "w", "progress": -1}), "progress"),
            ("pr.created", json!({"number": 1}), "title"),
            ("pr.merged", json!({"number": "one"}), "number"),
            ("issue.updated", json!({"number": 1, "labels": [{}]}), "labels[0]"),
            ("ai.suggestion", json!({"confidence": 2}), "confidence"),
        ] {
            let fault = validate(event, &to_raw_value(&data).unwrap()).expect_err("it is accepted");
            assert!(fault.message.contains(field), "{fault}");
        }
    }

    #[test]
    fn what_is_built_is_valid_and_keeps_what_is_said_beyond_the_fields() {
        let built = WorkflowProgress::new("p", "w", 40).step("compile").with("eta", "soon");
        let data = to_raw_value(&built).unwrap();
        let expected = r#"{"project_id":"p","workflow_id":"w","progress":40,"step":"compile","eta":"soon"}"#;
        assert_eq!(data.get(), expected);
        assert_eq!(serde_json::from_str::<WorkflowProgress>(data.get()).unwrap(), built);
    }
}
