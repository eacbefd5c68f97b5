//! A server that is told to stop: it says so, sends newcomers elsewhere, and lets those go who are there.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc;

use serde_json::json;
use testkit::port::Port;

use crate::fanfare::{DataDir, Fanfare, PATIENCE, Reply, agent, command, until};
use crate::installed::javascript;
use crate::watcher::Watcher;

#[test]
fn a_server_that_stops_tells_its_sockets_and_refuses_newcomers() {
    // The first goes at once, the second five minutes later.
    let server = Fanfare::start(&["--drain", "10m"]);
    let heard = ["/", "/ws"].map(|namespace| {
        let (mut watcher, _) = Watcher::connect(server.api(), "/socket.io/", namespace);
        let (tell, heard) = mpsc::channel();
        // Ends with the session, whose end is the end of the channel, too.
        std::thread::spawn(
            move || while watcher.event_or_end().is_some_and(|event| tell.send(event).is_ok()) {},
        );
        heard
    });
    server.tell_to_stop();
    until(PATIENCE, "it is not ready any more", || server.get("/readyz").status == 503);
    assert_eq!(server.get("/readyz").json(), json!({ "status": "draining" }));
    assert_eq!(server.get("/livez").status, 200);

    let by_namespace = || server.get("/stats").json()["connections"]["by_namespace"].clone();
    until(PATIENCE, "the first has gone", || by_namespace().as_object().is_some_and(|left| left.len() == 1));
    let [mut goes, mut stays] = heard;
    if by_namespace()["/"] == 1 {
        std::mem::swap(&mut goes, &mut stays);
    }
    let hint = ("server_shutdown".to_owned(), json!({ "reason": "shutdown", "reconnect_in_ms": 600_000 }));
    for heard in [&goes, &stays] {
        assert_eq!(heard.recv_timeout(PATIENCE).expect("a hint"), hint);
    }
    assert_eq!(goes.recv_timeout(PATIENCE), Err(mpsc::RecvTimeoutError::Disconnected), "it has gone");

    for path in ["/socket.io/", "/ws/socket.io/"] {
        let open = agent().get(format!("{}{path}?EIO=4&transport=polling", server.api()));
        let refused = Reply::of(open.call().expect("an answer"));
        assert_eq!((refused.status, refused.header("retry-after")), (503, "1"), "{path}");
        assert_eq!(refused.json()["message"], "the server is shutting down");
    }
    assert_eq!(server.post("/api/v1/events", r#"{"event":"still","room":"global"}"#).status, 201);
    assert_eq!(stays.recv_timeout(PATIENCE).expect("an event").0, "still");

    // A second time: at once.
    assert_eq!(server.terminate(), Some(0));
}

#[test]
fn a_rate_lengthens_the_drain_as_far_as_it_may() {
    let rate = ["--drain", "1s", "--set", "server.drain_rate=1", "--set", "server.drain_time_max=40s"];
    // A fifth of a second is between telling sockets and letting the first one go; of the rate four fifths are used.
    for (sockets, takes_ms) in [(1, 1_450), (3, 3_950), (50, 40_000)] {
        let server = Fanfare::start(&rate);
        let (mut one, _) = Watcher::connect(server.api(), "/socket.io/", "/");
        let _others: Vec<_> =
            (1..sockets).map(|_| Watcher::connect(server.api(), "/socket.io/", "/")).collect();
        server.tell_to_stop();
        let (name, told) = one.event();
        assert_eq!((name.as_str(), &told["reconnect_in_ms"]), ("server_shutdown", &json!(takes_ms)));
    }
}

#[test]
#[ignore = "installs socket.io-client with npm"]
fn stock_clients_miss_nothing_while_a_server_is_deployed_anew() {
    let (folder, data, port) = (javascript(), DataDir::new(), Port::hold());
    let start = || {
        let mut serve = command(&["serve", "--only", "api", "--drain", "10s"]);
        serve.args(["--api-port", &port.number().to_string()]);
        Fanfare::spawn(serve.env("FANFARE_DATA_DIR", data.path()))
    };
    let server = start();
    let url = server.api().to_owned();
    let mut node = Command::new("node");
    node.current_dir(&folder).args(["drain.mjs", &url, "20", "10000"]).stdout(Stdio::piped());
    let mut node = node.spawn().expect("node runs");
    let mut lines = BufReader::new(node.stdout.take().expect("stdout is piped")).lines();
    let mut line = || lines.next().expect("a line").expect("text");
    assert_eq!(line(), "connected");
    // What is published to it while it drains is kept, and reaches those who are there.
    server.tell_to_stop();
    assert_eq!(line(), "told");
    assert_eq!(server.wait(), Some(0));
    let server = start();
    assert_eq!(server.api(), url);
    assert_eq!(line(), "done");
    assert!(node.wait().expect("it ends").success());
}
