//! Compares the committed documents in `docs/schemas/` with what the registry and the table of routes say now.
//!
//! With `FANFARE_BLESS=1` in the environment it writes them instead.

use std::path::Path;

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
