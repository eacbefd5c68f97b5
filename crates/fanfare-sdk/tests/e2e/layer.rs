//! Lines of logs, by hand and from `tracing`.

use fanfare_sdk::LogLayer;
use fanfare_sdk::rest::LogLine;
use serde_json::{Value, json};
use tracing_subscriber::layer::SubscriberExt;

use crate::server::{Server, Trouble};

#[tokio::test]
async fn lines_arrive_once_with_the_time_at_which_they_were_said() {
    let server = Server::start().await;
    server.trouble(Trouble::DoAndHang);
    let publisher = server.hasty_publisher();
    let line = LogLine { text: "one".into(), level: Some("INFO".into()), ..LogLine::default() };
    publisher.logs().log(line.clone()).unwrap();
    publisher.logs().log(LogLine { timestamp: Some("2024-01-01T00:00:00Z".into()), ..line }).unwrap();
    publisher.flush().await.unwrap();
    let world = server.world();
    assert_eq!(world.lines.len(), 2);
    assert_eq!(world.lines[1]["timestamp"], json!("2024-01-01T00:00:00Z"));
    assert!(world.lines[0]["timestamp"].as_str().is_some_and(|at| at.len() == 24), "{:?}", world.lines[0]);
    assert_eq!(world.seen[0].key, world.seen[1].key, "the attempts of one request have one key");
}

#[tokio::test]
async fn what_a_program_logs_becomes_lines_of_its_run() {
    let server = Server::start().await;
    let publisher = server.publisher();
    let layer = LogLayer::new(&publisher).unwrap().thread_id("main");
    let dropped = layer.dropped();
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
        tracing::info!(step = 3, name = "x", "compiling");
        tracing::debug!("too fine");
        let span = tracing::info_span!("run", thread_id = "run-7", other = 1);
        span.in_scope(|| tracing::warn!("in a run"));
        tracing::error!(thread_id = %"run-8", code = 5);
        tracing::error!(target: "hyper::client", "of our own sending");
    });
    publisher.flush().await.unwrap();
    let lines: Vec<_> = server.world().lines.iter().map(text).collect();
    let expected = ["INFO main compiling step=3 name=\"x\"", "WARNING run-7 in a run", "ERROR run-8 code=5"];
    assert_eq!(lines, expected);
    assert_eq!(dropped.load(std::sync::atomic::Ordering::Relaxed), 0);
}

fn text(line: &Value) -> String {
    let part = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
    format!("{} {} {}", part("level"), part("thread_id"), part("text"))
}
