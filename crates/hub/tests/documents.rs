//! Compares the committed documents in `docs/schemas/` with what the registry and the table of routes say now.
//!
//! With `FANFARE_BLESS=1` in the environment it writes them instead.

use std::collections::BTreeSet;
use std::path::Path;

use hub::{job, rest, run};
use schemars::{JsonSchema, schema_for};
use serde_json::Value;

fn check(name: &str, document: &Value) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/schemas").join(name);
    let expected = format!("{document:#}\n");
    if std::env::var_os("FANFARE_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &expected).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    // Not as texts: the order of fields depends on how serde_json was built. Not `assert_eq`: nobody reads a difference
    // of thousands of lines.
    let is_current = serde_json::from_str::<Value>(&found).is_ok_and(|found| found == *document);
    assert!(is_current, "docs/schemas/{name} is stale; write it anew with FANFARE_BLESS=1 cargo test -p hub");
}

#[test]
fn the_schemas_of_events_are_current() {
    check("events.json", &hub::schema::bundle());
}

#[test]
fn the_asyncapi_document_is_current() {
    check("asyncapi.json", &hub::asyncapi::document());
}

#[test]
fn the_openapi_document_is_current() {
    check("openapi.json", &hub::openapi::document());
}

/// The fields of a body: all of them, and those that must be there.
fn fields<T: JsonSchema>() -> (BTreeSet<String>, BTreeSet<String>) {
    let schema = schema_for!(T).to_value();
    let all = schema["properties"].as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect();
    let needed = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    (all, needed.map(str::to_owned).collect())
}

#[test]
fn what_callers_write_is_what_the_rules_read() {
    // Two types for each, on purpose: whoever calls writes and reads leniently, and the rules take nothing unknown.
    assert_eq!(fields::<rest::NewJob>(), fields::<job::NewJob>());
    assert_eq!(fields::<rest::JobStatusUpdate>(), fields::<job::StatusUpdate>());
    assert_eq!(fields::<rest::JobProgressUpdate>(), fields::<job::ProgressUpdate>());
    assert_eq!(fields::<rest::JobHeartbeat>(), fields::<job::Heartbeat>());
    assert_eq!(fields::<rest::NewRun>(), fields::<run::NewRun>());
    assert_eq!(fields::<rest::RunUpdate>(), fields::<run::RunUpdate>());
    assert_eq!(fields::<rest::NewControlCommand>(), fields::<run::ControlRequest>());
    let (mut written, read) = (fields::<rest::Approval>(), fields::<run::Approval>());
    // Where the path says which run, the body need not.
    assert!(written.1.insert("thread_id".to_owned()));
    assert_eq!(written, read);
}
