//! The Rust publisher and the binary: what the one sends is what watchers of the other get.

use std::time::Duration;

use fanfare_sdk::Publisher;
use fanfare_sdk::rest::{Approval, LogLine, NewJob, NewRun, RunUpdate};
use fanfare_sdk::workspace::{AgentStatusChanged, PrMerged, ProjectUpdated, WorkflowProgress};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::fanfare::Fanfare;
use crate::watcher::Watcher;

/// A socket in a namespace, and in this room if it is one.
fn watch(server: &Fanfare, namespace: &str, room: &str) -> Watcher {
    let (mut watcher, _) = Watcher::connect(server.api(), "/socket.io/", namespace);
    if !room.is_empty() {
        let (answer, _) = watcher.ask("subscribe", &json!({ "room": room }));
        assert_eq!(answer["ok"], true, "{answer}");
    }
    watcher
}

/// Events up to the first for which `is_last` holds.
fn until(watcher: &mut Watcher, is_last: impl Fn(&str, &Value) -> bool) -> Vec<(String, Value)> {
    let mut events = Vec::new();
    loop {
        let (name, data) = watcher.event();
        let is_end = is_last(&name, &data);
        events.push((name, data));
        if is_end {
            return events;
        }
    }
}

#[test]
fn a_tracker_tells_how_a_job_goes() {
    let server = Fanfare::start(&[]);
    let mut watcher = watch(&server, "/ws", "project:shop");
    let runtime = Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let jobs = Publisher::new(server.api()).expect("an address").jobs();
        let new = NewJob { project_id: "shop".into(), job_id: Some("job_1".into()), ..NewJob::default() };
        assert_eq!(jobs.create(&new).await.expect("a job").status, "queued");
        let tracker = jobs.track("job_1", Some(Duration::from_secs(60))).expect("a runtime");
        tracker.set_progress(25.0, "fetching");
        tracker.increment_progress(25.0, "reading");
        tracker.mark_complete_with("all done", json!({ "words": 12 })).await.expect("it ends");
        let job = jobs.get("job_1").await.expect("it is there");
        assert_eq!((job.status.as_str(), job.result), ("success", Some(json!({ "words": 12 }))));
    });
    let events = until(&mut watcher, |_, data| data["status"] == "success");
    let of =
        |name: &str| events.iter().filter(|(told, _)| told == name).map(|(_, data)| data).collect::<Vec<_>>();
    let statuses: Vec<_> = of("agent_status").into_iter().map(|data| data["status"].clone()).collect();
    assert_eq!(statuses, ["queued", "running", "success"]);
    let progress: Vec<_> =
        of("agent_progress").into_iter().filter_map(|data| data["progress"].as_f64()).collect();
    assert!(progress.is_sorted(), "{progress:?}");
    let last = of("agent_progress").pop().expect("progress");
    assert_eq!(last["message"], "all done", "{events:?}");
    assert_eq!(events.last().expect("an end").1["result"], json!({ "words": 12 }));
}

#[test]
fn a_runner_waits_for_the_decision_and_its_lines_are_read_meanwhile() {
    let server = Fanfare::start(&[]);
    let mut admin = watch(&server, "/admin", "");
    let mut logs = watch(&server, "/logs", "");
    let runtime = Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let publisher = Publisher::new(server.api()).expect("an address");
        let runs = publisher.runs();
        let new = NewRun { thread_id: Some("thread-123".into()), ..NewRun::default() };
        let id = runs.start(&new).await.expect("a run").thread_id;
        let line = LogLine { text: "it waits".into(), thread_id: Some(id.clone()), ..LogLine::default() };
        publisher.logs().log(line).expect("there is room");
        publisher.flush().await.expect("it is sent");
        let waiting = RunUpdate { status: Some("waiting_approval".into()), ..RunUpdate::default() };
        runs.set_status(&id, &waiting).await.expect("it waits");
        let approval = Approval { approved: true, ..Approval::default() };
        let (commands, approved) =
            tokio::join!(runs.control(&id, Duration::from_secs(30), None), runs.approve(&id, &approval));
        assert_eq!(approved.expect("it may").status, "approved");
        let commands = commands.expect("an answer");
        assert_eq!(commands[0].verb, "approve");
        let after = runs.control(&id, Duration::ZERO, Some(&commands[0].id)).await.expect("an answer");
        assert!(after.is_empty(), "{after:?}");
    });
    let told = until(&mut admin, |_, event| event["data"]["status"] == "approved");
    // Operators hear of connections, too.
    let told = told.iter().filter(|(_, event)| event["type"] == "run_event");
    let told: Vec<_> = told.map(|(_, event)| event["data"]["status"].clone()).collect();
    assert_eq!(told, ["started", "waiting_approval", "approved"]);
    let (name, line) = logs.event();
    assert_eq!(
        (name.as_str(), &line["text"], &line["thread_id"]),
        ("log", &json!("it waits"), &json!("thread-123"))
    );
}

#[test]
fn a_broadcaster_is_heard_where_its_payloads_say() {
    let server = Fanfare::start(&[]);
    let mut project = watch(&server, "/ws", "project:shop");
    let mut agent = watch(&server, "/ws", "agent:builder");
    let mut dashboard = watch(&server, "/", "");
    let runtime = Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let publisher = Publisher::new(server.api()).expect("an address");
        let broadcaster = publisher.broadcaster();
        broadcaster.broadcast_project_updated(&ProjectUpdated::new("shop").status("active")).expect("room");
        let busy = AgentStatusChanged::new("builder", "busy").project_id("shop");
        broadcaster.broadcast_agent_status_changed(&busy).expect("room");
        broadcaster.broadcast_workflow_progress(&WorkflowProgress::new("shop", "wf", 40)).expect("room");
        broadcaster.broadcast_pr_merged(&PrMerged::new("shop", 7_u64)).expect("room");
        publisher.emit_agent_status("agent-123", "active", json!({ "cpu": 75 })).expect("room");
        publisher.flush().await.expect("it is sent");
    });
    let told = until(&mut project, |name, _| name == "pr.merged");
    let names: Vec<_> = told.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["project.updated", "agent.status_changed", "workflow.progress", "pr.merged"]);
    let (_, updated) = &told[0];
    assert_eq!(updated["data"], json!({ "project_id": "shop", "status": "active" }));
    assert_eq!(updated["room"], "project:shop");
    let (name, busy) = agent.event();
    assert_eq!((name.as_str(), &busy["room"]), ("agent.status_changed", &json!("agent:builder")));
    let (name, status) = dashboard.event();
    assert_eq!((name.as_str(), &status["room"]), ("agent_status_update", &json!("agents")));
    assert_eq!(status["data"]["agent_id"], "agent-123");
}
