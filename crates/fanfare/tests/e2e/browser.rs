//! The page in a real browser.

use std::process::Command;

use crate::fanfare::Fanfare;
use crate::installed::{javascript, succeed};

#[test]
#[ignore = "needs Chromium, and installs playwright-core with npm"]
fn the_page_shows_events_jobs_and_log_lines_as_they_happen() {
    let folder = javascript();
    let server = Fanfare::start(&[]);
    let mut node = Command::new("node");
    node.current_dir(&folder).args(["page.mjs", server.api(), env!("CARGO_BIN_EXE_fanfare")]);
    assert!(succeed(&mut node).ends_with("done\n"));
}
