//! Tasks of a real Celery worker, which knows nothing of us, as jobs.

use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::broker::{Broker, wait};
use crate::fanfare::{DataDir, Fanfare, command};
use crate::installed::{python_of, succeed};
use crate::watcher::Watcher;

#[test]
#[ignore = "starts rabbitmq-server, installs celery with pip"]
fn tasks_of_a_celery_worker_are_jobs_of_the_project() {
    let broker = Broker::start();
    let data = DataDir::new();
    let mut serve = command(&["serve", "--only", "api", "--api-port", "0"]);
    serve.args(["--set", "rabbitmq.celery={ project = \"work\" }", "--set", "rabbitmq.queue="]);
    serve.env("FANFARE_DATA_DIR", data.path()).env("RABBITMQ_URL", broker.url());
    let server = Fanfare::spawn(&mut serve);
    let is_taking = || server.get("/health").json()["checks"]["rabbitmq"]["status"] == "ok";
    wait("it takes messages", is_taking);
    let (mut watcher, _) = Watcher::connect(server.api(), "/socket.io/", "/");
    watcher.ask("subscribe", &json!({ "room": "project:work" }));

    let folder = python_of("amqp-python");
    let python = |arguments: &[&str]| {
        let mut python = Command::new(folder.join(".venv/bin/python"));
        python.current_dir(&folder).env("BROKER", broker.url()).args(arguments);
        python
    };
    let worker = ["-m", "celery", "-A", "tasks", "worker", "-E", "--pool", "solo", "--loglevel", "warning"];
    let _worker = Worker(python(&worker).stderr(Stdio::null()).spawn().expect("celery starts"));
    let sent: Value = serde_json::from_str(&succeed(&mut python(&["send.py"]))).expect("ids");
    let job = |name: &str, status: &str| {
        let path = format!("/api/v1/jobs/{}", sent[name].as_str().expect("an id"));
        wait(name, || server.get(&path).json()["status"] == status);
        server.get(&path).json()
    };
    let added = job("add", "success");
    assert_eq!((&added["project_id"], &added["kind"]), (&json!("work"), &json!("tasks.add")));
    assert_eq!(added["result"], "4", "what Celery writes of the result");
    assert!(added["started_at"].is_string(), "{added}");
    let failed = job("fail", "error");
    let error = failed["error"].as_str().expect("an error");
    assert!(error.contains("it cannot be done") && error.contains("Traceback"), "{error}");
    let flaky = job("flaky", "success");
    assert!(flaky["message"].as_str().is_some_and(|it| it.contains("will be tried again")), "{flaky}");
    assert_eq!(job("steps", "success")["progress"], 25, "an event of the task's own");
    assert_eq!(job("late", "cancelled")["error"], "expired");
    job("reject", "error");
    let statuses = |id: &Value| -> Vec<Value> {
        let path = format!("/api/v1/rooms/job:{}/events", id.as_str().expect("an id"));
        let page = server.get(&path).json();
        let events = page["events"].as_array().expect("events").iter();
        events.map(|event| event["data"]["status"].clone()).filter(Value::is_string).collect()
    };
    assert_eq!(statuses(&sent["add"]), ["queued", "running", "success"]);
    let (name, first) = watcher.event();
    assert_eq!((name.as_str(), &first["status"]), ("agent_status", &json!("queued")), "watchers saw it live");
    assert_eq!(server.get("/stats").json()["rabbitmq"][0]["dead"], 0);
}

/// A worker, which is killed when it goes out of scope.
struct Worker(Child);

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
