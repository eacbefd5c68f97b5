//! Stock clients, JavaScript and Python, against the binary. They assert for themselves; see `tests/js`, `tests/python`.

use std::process::Command;

use crate::fanfare::Fanfare;
use crate::installed::{javascript, python, succeed};

#[test]
#[ignore = "installs socket.io-client with npm"]
fn the_stock_javascript_client_does_what_its_users_write() {
    let folder = javascript();
    let server = Fanfare::start(&[]);
    for url in [server.api(), server.address("realtime").unwrap()] {
        for transport in ["polling", "websocket", "both"] {
            let mut node = Command::new("node");
            node.current_dir(&folder).args(["commands.mjs", url, server.api(), transport]);
            assert!(succeed(&mut node).ends_with("done\n"));
        }
    }
}

#[test]
#[ignore = "installs socket.io-client with npm"]
fn the_stock_javascript_client_recovers_what_it_missed() {
    let folder = javascript();
    let server = Fanfare::start(&[]);
    let mut node = Command::new("node");
    node.current_dir(&folder).args(["recovery.mjs", server.api()]);
    assert!(succeed(&mut node).ends_with("done\n"));
}

#[test]
#[ignore = "installs python-socketio with pip"]
fn the_stock_python_client_does_what_its_users_write() {
    let folder = python();
    let server = Fanfare::start(&[]);
    for transport in ["polling", "websocket"] {
        let mut python = Command::new(folder.join(".venv/bin/python"));
        python.current_dir(&folder).args(["commands.py", server.api(), transport]);
        assert!(succeed(&mut python).ends_with("done\n"));
    }
}
