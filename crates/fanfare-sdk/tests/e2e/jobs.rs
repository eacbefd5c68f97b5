//! Jobs, their progress, and runs.

use std::time::Duration;

use fanfare_sdk::rest::{Approval, JobStatusUpdate, NewControlCommand, NewJob, NewRun, RunUpdate};
use fanfare_sdk::{Error, JobQuery, Jobs};
use serde_json::json;

use crate::server::{Server, Trouble, busy, until};

async fn begin(jobs: &Jobs, id: &str) {
    let job = NewJob { project_id: "p".into(), job_id: Some(id.into()), ..NewJob::default() };
    assert_eq!(jobs.create(&job).await.unwrap().status, "queued");
}

#[tokio::test]
async fn a_job_is_created_once_and_comes_to_its_end() {
    let server = Server::start().await;
    server.trouble(Trouble::DoAndHang);
    let new = NewJob { project_id: "p".into(), ..NewJob::default() };
    let job = server.hasty_publisher().jobs().create(&new).await.unwrap();
    assert_eq!(server.world().jobs.len(), 1, "the second attempt repeats the first");
    let jobs = server.publisher().jobs();
    let running = JobStatusUpdate { status: "running".into(), ..JobStatusUpdate::default() };
    assert_eq!(jobs.set_status(&job.job_id, &running).await.unwrap().status, "running");
    let done = jobs.complete(&job.job_id, Some(json!({"summary": "s"}))).await.unwrap();
    assert_eq!((done.status.as_str(), done.result), ("success", Some(json!({"summary": "s"}))));
    let error = jobs.fail(&job.job_id, "too late").await.unwrap_err();
    assert_eq!(error.code(), Some("wrong_state"));
    assert_eq!(jobs.get(&job.job_id).await.unwrap().status, "success");
    let query = JobQuery { project_id: Some("a b".into()), limit: Some(5), ..JobQuery::default() };
    assert_eq!(jobs.list(&query).await.unwrap().jobs.len(), 1);
    assert_eq!(server.count("GET /api/v1/jobs?project_id=a%20b&limit=5"), 1);
    assert_eq!(jobs.get("nothing").await.unwrap_err().code(), Some("not_found"));
}

#[tokio::test]
async fn progress_is_coalesced_exactly_while_the_server_is_slow() {
    let server = Server::start().await;
    let jobs = server.publisher().jobs();
    begin(&jobs, "j").await;
    let tracker = jobs.track("j", None).unwrap();
    let slow = server.hold_next();
    tracker.set_progress(10.0, "begun");
    server.until_counted("POST /api/v1/jobs/j/progress", 1).await;
    for _ in 0..40 {
        tracker.increment_progress(2.0, "on the way");
        tokio::task::yield_now().await;
    }
    tracker.increment_progress(0.0, None);
    slow.notify_one();
    until("all has come", || server.world().jobs["j"]["progress"] == json!(90.0)).await;
    assert_eq!(server.count("POST /api/v1/jobs/j/progress"), 2);
    assert_eq!(server.world().jobs["j"]["message"], json!("on the way"));
    let done = tracker.mark_complete_with("all done", json!([1])).await.unwrap();
    assert_eq!((done.status.as_str(), done.progress), ("success", 100.0));
    assert_eq!((done.message.as_deref(), done.result), (Some("all done"), Some(json!([1]))));
}

#[tokio::test]
async fn an_increment_that_was_not_answered_counts_once() {
    let server = Server::start().await;
    let jobs = server.hasty_publisher().jobs();
    begin(&server.publisher().jobs(), "j").await;
    server.trouble(Trouble::DoAndHang);
    server.trouble(busy(0.0));
    let tracker = jobs.track("j", None).unwrap();
    tracker.increment_progress(30.0, None);
    let failed = tracker.mark_failed("no more").await.unwrap();
    assert_eq!((failed.progress, failed.error.as_deref()), (30.0, Some("no more")));
}

#[tokio::test]
async fn whoever_works_at_a_job_that_was_cancelled_is_told_to_stop() {
    let server = Server::start().await;
    let jobs = server.publisher().jobs();
    begin(&jobs, "j").await;
    jobs.cancel("j", Some("not needed".into())).await.unwrap();
    let tracker = jobs.track("j", None).unwrap();
    assert_eq!(tracker.refusal(), None);
    tracker.set_progress(10.0, None);
    until("it is refused", || tracker.refusal().is_some()).await;
    tracker.set_progress(20.0, None);
    let error = tracker.mark_complete(None).await.unwrap_err();
    assert!(matches!(error, Error::Refused { status: 409, .. }), "{error}");
    assert_eq!(server.count("POST /api/v1/jobs/j/progress"), 1);
}

#[tokio::test]
async fn a_tracker_tells_its_progress_before_it_cancels_the_job() {
    let server = Server::start().await;
    let jobs = server.publisher().jobs();
    begin(&jobs, "j").await;
    let tracker = jobs.track("j", None).unwrap();
    tracker.set_progress(40.0, "half");
    let job = tracker.mark_cancelled("not needed").await.unwrap();
    assert_eq!((job.status.as_str(), job.progress), ("cancelled", 40.0));
    assert_eq!(server.world().seen.last().unwrap().values, [json!({"reason": "not needed"})]);
}

#[tokio::test]
async fn signs_of_life_are_promised_given_and_end_with_the_tracker() {
    let server = Server::start().await;
    let jobs = server.publisher().jobs();
    begin(&jobs, "j").await;
    let tracker = jobs.track("j", Some(Duration::from_millis(100))).unwrap();
    let beats = || server.count("POST /api/v1/jobs/j/heartbeat");
    until("three signs of life", || beats() >= 3).await;
    assert_eq!(server.world().seen[1].values, [json!({"heartbeat_interval": 0.1})]);
    drop(tracker);
    // One may still be on its way when the tracker ends; two intervals without any are seen soon.
    let mut looks = 0..20;
    loop {
        let before = beats();
        tokio::time::sleep(Duration::from_millis(250)).await;
        if beats() == before {
            break;
        }
        assert!(looks.next().is_some(), "they do not end");
    }
}

#[tokio::test]
async fn a_run_waits_for_its_approval_longer_than_for_an_answer() {
    let server = Server::start().await;
    let runs = server.publisher().runs();
    let run = runs.start(&NewRun { input: Some(json!("x")), ..NewRun::default() }).await.unwrap();
    let waiting = RunUpdate { status: Some("waiting_approval".into()), ..RunUpdate::default() };
    assert_eq!(runs.set_status(&run.thread_id, &waiting).await.unwrap().status, "waiting_approval");
    // The time-out of requests is 250 ms. A machine that is slower than that asks again.
    let hasty = server.hasty_publisher().runs();
    let commands = hasty.control(&run.thread_id, Duration::from_millis(400), None).await.unwrap();
    assert_eq!(commands.len(), 0);
    assert!(server.count("GET /api/v1/runs/run-1/control?wait=400ms") >= 1);
    runs.approve(&run.thread_id, &Approval { approved: true, ..Approval::default() }).await.unwrap();
    let commands = runs.control(&run.thread_id, Duration::from_secs(30), None).await.unwrap();
    assert_eq!((commands[0].verb.as_str(), &commands[0].id), ("approve", &json!("c1")));
    let after = runs.control(&run.thread_id, Duration::ZERO, Some(&commands[0].id)).await.unwrap();
    assert!(after.is_empty());
    let pause = NewControlCommand { verb: "pause".into(), ..NewControlCommand::default() };
    runs.command(&run.thread_id, &pause).await.unwrap();
    let commands = runs.control(&run.thread_id, Duration::from_secs(30), None).await.unwrap();
    assert_eq!(commands[0].verb, "pause");
}
