//! The example `restore`, killed and started again under its clients: they get back what is theirs, each event once.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use sio_client::{Client, Notice, Options, Transports};
use sio_proto::{Many, One};
use testkit::port::Port;

use crate::peers::{PATIENCE, auth, connect_with, notice, quiet};

/// The example's process and its file; the file goes with this value.
struct Application {
    child: Child,
    port: Port,
    file: PathBuf,
}

impl Application {
    fn start() -> Self {
        let port = Port::hold();
        let file = std::env::temp_dir().join(format!("restore-{}-{}", std::process::id(), port.number()));
        Self { child: run(&port, &file), port, file }
    }

    fn url(&self) -> String {
        format!("http://{}", self.port.address())
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn start_again(&mut self) {
        self.child = run(&self.port, &self.file);
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_file(&self.file);
    }
}

fn run(port: &Port, file: &PathBuf) -> Child {
    let deps = std::env::current_exe().unwrap();
    let example = deps.ancestors().nth(2).unwrap().join("examples").join("restore");
    let mut child = Command::new(&example)
        .arg(port.number().to_string())
        .arg(file)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{} cannot be run: {error}", example.display()));
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    child
}

async fn ask(client: &Client, event: &str, args: Value) {
    let Value::Array(args) = args else { panic!("arguments are a list") };
    let ok: bool = client.emit_with_ack(event, &Many(args), PATIENCE).await.unwrap().args().unwrap();
    assert!(ok, "the dispatcher runs");
}

/// The numbers of the next events, up to `last`.
async fn numbers_up_to(client: &mut Client, last: u64) -> Vec<u64> {
    let mut numbers = Vec::new();
    while numbers.last() != Some(&last) {
        match notice(client).await {
            Notice::Event(event) if event.name == "said" => {
                numbers.push(event.values().unwrap()[0].as_u64().unwrap());
            }
            Notice::Event(event) => panic!("nobody says {}", event.name),
            Notice::Disconnected { .. } | Notice::Connected { .. } => {}
            other => panic!("{other:?} instead of an event"),
        }
    }
    numbers
}

/// Waits for the return. Answers whether it is a recovery: what was missed follows.
async fn returned(client: &mut Client) -> bool {
    loop {
        if let Notice::Connected { is_recovered, .. } = notice(client).await {
            return is_recovered;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_twice_gives_everybody_back_what_was_missed() {
    for transports in [Transports::WebSocket, Transports::Polling] {
        let mut application = Application::start();
        let url = application.url();
        let mut clients = Vec::new();
        for _ in 0..4 {
            let client = connect_with(&url, |options| {
                options.transports = transports;
                options.auth = auth(json!({"recovery": true}));
            });
            let client = client.await;
            ask(&client, "join", json!(["r"])).await;
            clients.push(client);
        }
        let mut said = 0;
        let sids: Vec<_> = clients.iter().map(Client::sid).collect();
        for round in 0..2 {
            for _ in 0..20 {
                ask(&clients[said % 4], "say", json!(["r", format!("in round {round}")])).await;
                said += 1;
            }
            let last = said as u64;
            for client in &mut clients {
                assert_eq!(numbers_up_to(client, last).await, (last - 19..=last).collect::<Vec<_>>());
            }
            application.kill();
            application.start_again();
            // The first to come back says something that the others may find among what they missed, or after.
            let mut all: Vec<Vec<u64>> = Vec::new();
            for client in &mut clients {
                assert!(returned(client).await, "it has its old ids");
                ask(client, "say", json!(["r", "back"])).await;
                said += 1;
                all.push(numbers_up_to(client, said as u64).await);
            }
            for (client, mut got) in clients.iter_mut().zip(all) {
                let newest = said as u64;
                if got.last() != Some(&newest) {
                    got.extend(numbers_up_to(client, newest).await);
                }
                assert_eq!(got, (last + 1..=newest).collect::<Vec<_>>(), "each once, in order");
            }
            assert_eq!(clients.iter().map(Client::sid).collect::<Vec<_>>(), sids);
        }
        for client in &mut clients {
            assert!(quiet(client).await, "nothing comes twice");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_left_for_good_or_never_asked_connects_as_new() {
    let mut application = Application::start();
    let plain = async |application: &Application| {
        let change = |options: &mut Options| {
            (options.transports, options.recovery) = (Transports::WebSocket, false);
        };
        connect_with(&application.url(), change).await
    };
    let mut client = plain(&application).await;
    ask(&client, "join", json!(["r"])).await;
    let sid = client.sid();
    application.kill();
    application.start_again();
    assert!(!returned(&mut client).await, "it has no secret");
    assert_ne!(client.sid(), sid);
    let other = plain(&application).await;
    ask(&other, "say", json!(["r", "nobody hears"])).await;
    assert!(quiet(&mut client).await, "it is in no room");
    let answer = other.emit_with_ack("join", &One("r"), PATIENCE).await.unwrap();
    assert!(answer.args::<bool>().unwrap());
}
