//! The page in a real browser.

use std::process::Command;

use serde_json::json;

use crate::auth::{Guarded, KEY, token};
use crate::fanfare::Fanfare;
use crate::installed::{javascript, succeed};

/// A script that looks at the page of a server.
fn look(script: &str, url: &str) -> Command {
    let folder = javascript();
    let mut node = Command::new("node");
    node.current_dir(&folder).args([script, url, env!("CARGO_BIN_EXE_fanfare")]);
    node
}

#[test]
#[ignore = "needs Chromium, and installs playwright-core with npm"]
fn the_page_shows_events_jobs_and_log_lines_as_they_happen() {
    let server = Fanfare::start(&[]);
    assert!(succeed(&mut look("page.mjs", server.api())).ends_with("done\n"));
}

#[test]
#[ignore = "needs Chromium, and installs playwright-core with npm"]
fn the_page_of_a_guarded_server_takes_a_token_and_says_what_is_refused() {
    let guarded = Guarded::start("page", &[]);
    let mut look = look("page-guarded.mjs", guarded.server.api());
    look.env("ANN", token("ann", &json!({ "projects": ["demo"] })))
        .env("ADMIN", token("root", &json!({ "roles": ["admin"] })))
        .env("KEY", KEY);
    assert!(succeed(&mut look).ends_with("done\n"));
}
