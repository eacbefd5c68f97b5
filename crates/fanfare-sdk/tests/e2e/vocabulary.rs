//! What the helpers for dashboards and workspaces send is what the server's own registry takes.

use fanfare_sdk::workspace::{
    AgentStatusChanged, AiSuggestion, IssueCreated, PrMerged, ProjectUpdated, WorkflowFailed,
    WorkflowProgress,
};
use serde_json::json;

use crate::server::{Server, until};

#[tokio::test]
async fn dashboards_get_what_they_show() {
    let server = Server::start().await;
    let publisher = server.publisher();
    publisher.emit_agent_status("agent-123", "active", json!({"cpu": 75, "agent_id": "other"})).unwrap();
    publisher.emit_task_update("task-456", "completed", json!({"result": "success"})).unwrap();
    publisher.emit_system_metrics(json!({"cpu": 12.5})).unwrap();
    publisher.emit_workflow_event("w", "step_completed", json!(["a"])).unwrap();
    publisher.flush().await.unwrap();
    let rooms = |topic: &str| vec![topic.to_owned(), "dashboard".to_owned()];
    let expected = [
        (
            "agent_status_update",
            rooms("agents"),
            json!({"agent_id": "agent-123", "status": "active", "cpu": 75}),
        ),
        (
            "task_update",
            rooms("tasks"),
            json!({"task_id": "task-456", "status": "completed", "result": "success"}),
        ),
        ("system_metrics_update", rooms("metrics"), json!({"cpu": 12.5})),
        (
            "workflow_event",
            rooms("workflows"),
            json!({"workflow_id": "w", "event_type": "step_completed", "data": ["a"]}),
        ),
    ];
    let expected = expected.map(|(name, rooms, data)| (name.to_owned(), rooms, data));
    assert_eq!(server.world().events, expected);
}

#[tokio::test]
async fn workspaces_are_told_in_the_rooms_that_their_payloads_say() {
    let server = Server::start().await;
    let broadcaster = server.publisher().broadcaster();
    let changes = serde_json::Map::from_iter([("status".to_owned(), json!("updated"))]);
    broadcaster.broadcast_project_updated(&ProjectUpdated::new("p").changes(changes)).unwrap();
    broadcaster
        .broadcast_agent_status_changed(&AgentStatusChanged::new("a", "busy").project_id("p"))
        .unwrap();
    broadcaster.broadcast_workflow_progress(&WorkflowProgress::new("p", "w", 40).step(3)).unwrap();
    broadcaster.broadcast_workflow_failed(&WorkflowFailed::new("p", "w").error("no space")).unwrap();
    broadcaster.broadcast_pr_merged(&PrMerged::new("p", 42_u64).merged_by("bob")).unwrap();
    broadcaster.broadcast_issue_created(&IssueCreated::new("p", 7_u64, "slow")).unwrap();
    broadcaster.broadcast_ai_suggestion(&AiSuggestion::new().user_id("u").confidence(0.8)).unwrap();
    let unaddressed = AiSuggestion::new().title("to nobody");
    assert_eq!(serde_json::to_value(&unaddressed).unwrap(), json!({"title": "to nobody"}));
    // The clone's lane: a broadcaster shares it with its publisher.
    let told = server.publisher();
    told.publish(fanfare_sdk::Event::of(&ProjectUpdated::new("q"))).await.unwrap();
    until("all have come", || server.world().events.len() == 8).await;
    let mut told: Vec<_> =
        server.world().events.iter().map(|(name, rooms, _)| format!("{name} {}", rooms.join(" "))).collect();
    told.sort();
    let expected = [
        "agent.status_changed agent:a project:p",
        "ai.suggestion user:u",
        "issue.created project:p",
        "pr.merged project:p",
        "project.updated project:p",
        "project.updated project:q",
        "workflow.failed project:p",
        "workflow.progress project:p",
    ];
    assert_eq!(told, expected);
}
