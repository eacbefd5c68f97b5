//! What servers of five kinds were written for, done with the binary: a dashboard, a workspace, a queue of jobs, runs with
//! their logs, and a gateway. Stock clients do the rest, and assert for themselves; see `tests/vocabularies`.

use std::process::Command;

use crate::backend::Backend;
use crate::fanfare::{Fanfare, command};
use crate::installed::{javascript, python, succeed};

const SECRET: &str = "the-secret-that-signs-all-our-tokens";
const PAIRS: &str = "the-secret-that-signs-all-our-users-";
const KEY: &str = "the-api-key-of-this-server-here";

/// A server with both listeners on free ports, as the environment and the settings say.
fn serve(environment: &[(&str, &str)], settings: &[&str]) -> Fanfare {
    let mut serve = command(&["serve", "--api-port", "0", "--realtime-port", "0"]);
    serve.envs(environment.iter().copied());
    for setting in settings {
        serve.args(["--set", setting]);
    }
    Fanfare::spawn(&mut serve)
}

/// A script of `tests/vocabularies` that has only to be run.
fn script(name: &str, addresses: &[&str]) -> Command {
    let is_python = name.ends_with(".py");
    let folder = if is_python { python() } else { javascript() };
    let program = if is_python { folder.join(".venv/bin/python") } else { "node".into() };
    let mut script = Command::new(program);
    script.current_dir(&folder).arg(format!("vocabularies/{name}")).args(addresses);
    script
}

#[track_caller]
fn shows_all(script: &mut Command) {
    assert!(succeed(script).ends_with("done\n"));
}

/// A token for somebody, as operators make it.
fn token(arguments: &[&str]) -> String {
    let made = succeed(command(&["token", "make"]).args(arguments).env("JWT_SECRET", SECRET));
    made.trim().to_owned()
}

#[test]
#[ignore = "installs socket.io-client with npm"]
fn a_dashboard_has_all_that_it_needs() {
    let server = serve(&[], &[]);
    shows_all(&mut script("dashboard.mjs", &[server.api()]));
}

#[test]
#[ignore = "installs socket.io-client with npm"]
fn a_workspace_has_all_that_it_needs() {
    let server = serve(&[("JWT_SECRET", SECRET), ("FANFARE_API_KEY", KEY)], &[]);
    shows_all(
        script("workspace.mjs", &[server.api()])
            .env("KEY", KEY)
            .env("ANN", token(&["--sub", "ann", "--project", "shop", "--agent", "builder"]))
            .env("BEN", token(&["--sub", "ben", "--project", "other"]))
            // Long enough to connect with it on a busy machine.
            .env("SHORT", token(&["--sub", "short", "--ttl", "20s"])),
    );
}

#[test]
#[ignore = "installs python-socketio with pip"]
fn a_workspace_is_watched_from_python() {
    let server = serve(&[("JWT_SECRET", SECRET), ("FANFARE_API_KEY", KEY)], &[]);
    shows_all(
        script("workspace.py", &[server.api()])
            .env("KEY", KEY)
            .env("ANN", token(&["--sub", "ann", "--project", "shop"])),
    );
}

#[test]
#[ignore = "installs socket.io-client with npm"]
fn a_queue_of_jobs_has_all_that_it_needs() {
    let application = Backend::start(|_, question| {
        let is_secret = question["room"] == "project:secret";
        (200, format!("{{\"allow\":{}}}", !is_secret))
    });
    let environment = [
        ("FANFARE_SIGNING_SECRET", PAIRS),
        ("FANFARE_API_KEY", KEY),
        ("SOCKET_PING_TIMEOUT", "60000"),
        ("SOCKET_PING_INTERVAL", "25000"),
    ];
    let server = serve(&environment, &[&format!("auth.access_hook_url={}", application.url("/may"))]);
    shows_all(script("jobs.mjs", &[server.api()]).env("KEY", KEY).env("SIGNING_SECRET", PAIRS));
    assert!(application.asked("/may").iter().any(|question| question["user"] == "user123"));
}

#[test]
#[ignore = "installs socket.io-client with npm"]
fn runs_and_their_logs_have_all_that_they_need() {
    // Everything by the names of the environment, as two servers beside each other were configured.
    let mut serve = command(&["serve"]);
    serve.envs([
        ("REST_API_HOST", "127.0.0.1"),
        ("REST_API_PORT", "0"),
        ("SOCKETIO_HOST", "127.0.0.1"),
        ("SOCKETIO_PORT", "0"),
        ("SOCKETIO_CORS_ORIGINS", "*"),
    ]);
    let server = Fanfare::spawn(&mut serve);
    let realtime = server.address("realtime").expect("it is open").to_owned();
    shows_all(&mut script("runs.mjs", &[server.api(), &realtime]));
}

#[test]
#[ignore = "installs socket.io-client with npm"]
fn a_gateway_has_all_that_it_needs() {
    let environment = [
        ("SOCKET_CORS_ORIGIN", "http://localhost:3000"),
        ("SOCKET_PING_TIMEOUT", "60000"),
        ("SOCKET_PING_INTERVAL", "25000"),
    ];
    let server = serve(&environment, &[]);
    shows_all(&mut script("gateway.mjs", &[server.api()]));
}
