//! Tells a server of an agent, a deployment and a job, as a backend would: `cargo run --example publish`, with a server at
//! `FANFARE_URL` or the default address.

use std::time::Duration;

use fanfare_sdk::rest::NewJob;
use fanfare_sdk::workspace::WorkflowProgress;
use fanfare_sdk::{Event, Publisher};
use serde_json::json;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), fanfare_sdk::Error> {
    let url = std::env::var("FANFARE_URL").unwrap_or_else(|_| "http://127.0.0.1:8000".to_owned());
    let mut publisher = Publisher::new(&url)?;
    if let Ok(key) = std::env::var("FANFARE_API_KEY") {
        publisher = publisher.api_key(key)?;
    }

    // Handed over, sent in the background.
    publisher.emit_agent_status("agent-123", "active", json!({"cpu": 75, "memory": 60}))?;
    publisher.broadcaster().broadcast_workflow_progress(&WorkflowProgress::new("shop", "build-7", 40))?;

    // Waited for.
    publisher.publish(Event::new("deployed", json!({"version": "1.4.2"})).project("shop")).await?;

    // A job that tells how far it is.
    let jobs = publisher.jobs();
    let job = jobs.create(&NewJob { project_id: "shop".into(), ..NewJob::default() }).await?;
    let tracker = jobs.track(&job.job_id, Some(Duration::from_secs(10)))?;
    for step in 1..=4 {
        tracker.set_progress(f64::from(step) * 25.0, format!("step {step} of 4").as_str());
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    tracker.mark_complete_with("all done", json!({"files": 12})).await?;
    publisher.flush().await
}
