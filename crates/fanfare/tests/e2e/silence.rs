//! Connections that never say a word, ten thousand at once: what they cost others, and when they go.

use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::{Resource, getrlimit, setrlimit};
use serde_json::{Value, json};
use sio_client::args::One;
use sio_client::{Client, Notice, Options, Transports};

use crate::fanfare::{Fanfare, command, until};

/// How many stay silent.
const CROWD: usize = 10_000;
/// Time for anything that must happen; the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(120);

/// A client that asks all the time, and ends the test if an answer is wrong, missing, or not for its first connection.
async fn witness(url: String, answered: Arc<AtomicU64>, is_over: Arc<AtomicBool>) {
    let options = Options { transports: Transports::WebSocket, recovery: false, ..Options::default() };
    let mut client = Client::connect(&url, options).await.expect("a connection");
    let emitter = client.emitter();
    let asking = async {
        while !is_over.load(Ordering::Relaxed) {
            let number = answered.load(Ordering::Relaxed);
            let reply = emitter.emit_with_ack("ping", &One(number), PATIENCE).await.expect("an answer");
            let answer: Value = reply.args().expect("one argument");
            assert_eq!((&answer["ok"], &answer["echo"]), (&json!(true), &json!(number)), "{answer}");
            answered.fetch_add(1, Ordering::Relaxed);
            // As slow as a person: it is not a load.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let listening = async {
        let mut connections = 0;
        while let Some(notice) = client.recv().await {
            match notice {
                Notice::Connected { .. } => connections += 1,
                Notice::Event(_) => {}
                other => panic!("{other:?} for the witness"),
            }
            assert_eq!(connections, 1, "the witness had to connect again");
        }
    };
    tokio::select! {
        () = asking => {}
        () = listening => panic!("the witness was let go"),
    }
}

/// A gauge of the server's metrics.
fn gauge(server: &Fanfare, name: &str) -> u64 {
    let metrics = server.get("/metrics").body;
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name} is not in {metrics}")).parse().expect("a number")
}

/// Waits for the end of a connection, whatever is said before.
fn ends(mut stream: TcpStream) {
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    let mut buf = [0; 512];
    loop {
        match stream.read(&mut buf) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return,
            Err(error) => panic!("a silent connection did not end: {error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_connections_that_never_speak_disturb_nobody_and_go_when_their_time_is_up() {
    // The server is a process of its own and inherits this.
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("the limit of descriptors can be raised");
    // Long enough for all of them to be there at once, on a busy machine, too.
    let serve = &mut command(&["serve", "--api-port", "0", "--realtime-port", "0"]);
    let server = Arc::new(Fanfare::spawn(serve.env("FANFARE_SOCKETIO__HEADER_TIMEOUT", "20s")));
    let (answered, is_over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let witness = tokio::spawn(witness(server.api().to_owned(), answered.clone(), is_over.clone()));

    let looked_at = server.clone();
    let looking = tokio::task::spawn_blocking(move || {
        let server = looked_at;
        let is_answered_still = |what: &str| {
            let before = answered.load(Ordering::Relaxed);
            until(PATIENCE, what, || answered.load(Ordering::Relaxed) >= before + 3);
        };
        is_answered_still("the witness is answered");
        let address = server.api().trim_start_matches("http://");
        let crowd: Vec<TcpStream> =
            (0..CROWD).map(|_| TcpStream::connect(address).expect("a connection")).collect();
        until(PATIENCE, "all are counted", || gauge(&server, "fanfare_tcp_connections") >= CROWD as u64);
        is_answered_still("the witness is answered beside the crowd");
        crowd.into_iter().for_each(ends);
        // The witness, and whoever looks.
        until(PATIENCE, "those that went are counted no more", || {
            gauge(&server, "fanfare_tcp_connections") <= 4
        });
        is_answered_still("the witness is answered when they have gone");
        is_over.store(true, Ordering::Relaxed);
    });
    looking.await.expect("what was looked for was seen");
    witness.await.expect("the witness saw nothing wrong");
    // Not before: the witness would see it go.
    drop(server);
}
