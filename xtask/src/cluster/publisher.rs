//! Owns publishing: one event after the other, each asked of the next server until one has answered, under a key by which it
//! counts once. Speaks the little HTTP that this takes.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use super::ledger::Place;

/// Time that one request may take: longer than a server waits for its store.
const REQUEST_LIMIT: Duration = Duration::from_secs(15);
/// Between two attempts at one event.
const PAUSE: Duration = Duration::from_millis(100);
/// Time after which an event that nobody takes ends the run.
const PATIENCE: Duration = Duration::from_secs(120);

/// Where an event went.
pub(crate) struct Published {
    pub(crate) room: Box<str>,
    pub(crate) place: Place,
    pub(crate) publication: u64,
    /// Attempts that were not answered before.
    pub(crate) retries: u64,
}

/// Who publishes what to whom, and how fast.
pub(crate) struct Publisher {
    pub(crate) servers: Vec<SocketAddr>,
    pub(crate) rooms: Vec<Box<str>>,
    pub(crate) number: u64,
    pub(crate) of: u64,
    pub(crate) every: Duration,
}

impl Publisher {
    /// Publishes until it is told to stop. Publications are numbered `number`, `number + of`, and so on.
    ///
    /// # Errors
    /// The environment's: nobody took an event within `PATIENCE`.
    pub(crate) fn run(&self, is_over: &AtomicBool, told: &Sender<Published>) -> anyhow::Result<()> {
        let begun = Instant::now();
        for nth in 0_u32.. {
            if is_over.load(Ordering::Relaxed) {
                break;
            }
            let publication = self.number + u64::from(nth) * self.of;
            let published = self.publish(publication)?;
            if told.send(published).is_err() {
                break;
            }
            let due = begun + self.every * (nth + 1);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        Ok(())
    }

    /// Publishes one event; its number tells its room.
    ///
    /// # Errors
    /// The environment's: nobody took it within `PATIENCE`.
    pub(crate) fn publish(&self, publication: u64) -> anyhow::Result<Published> {
        let room = &self.rooms[publication as usize % self.rooms.len()];
        let at = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
        let body = json!({
            "event": "soak", "room": room, "idempotency_key": format!("soak-{publication}"),
            "data": { "n": publication, "at": at as u64 },
        })
        .to_string();
        let deadline = Instant::now() + PATIENCE;
        for retries in 0_u64.. {
            let server = self.servers[(publication + retries) as usize % self.servers.len()];
            let why = match post(server, &body) {
                Ok(answer) => match place(&answer) {
                    Some(place) => return Ok(Published { room: room.clone(), place, publication, retries }),
                    None => answer.to_string(),
                },
                Err(error) => format!("{error:#}"),
            };
            ensure!(Instant::now() < deadline, "event {publication} was not taken: {why}");
            std::thread::sleep(PAUSE);
        }
        anyhow::bail!("invariant: attempts have no end")
    }
}

/// Where an answer says that the event is; `None` for a refusal.
fn place(answer: &Value) -> Option<Place> {
    Some(Place { epoch: answer["epoch"].as_u64()?, seq: answer["seq"].as_u64()? })
}

fn post(server: SocketAddr, body: &str) -> anyhow::Result<Value> {
    let mut stream = TcpStream::connect_timeout(&server, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(REQUEST_LIMIT))?;
    stream.set_write_timeout(Some(REQUEST_LIMIT))?;
    let head = format!(
        "POST /api/v1/events HTTP/1.1\r\nHost: {server}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (_, body) = answer.split_once("\r\n\r\n").context("no answer")?;
    serde_json::from_str(body).context("an answer that is no JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_no_place() {
        assert_eq!(place(&json!({ "epoch": 4, "seq": 2, "id": "x" })), Some(Place { epoch: 4, seq: 2 }));
        assert_eq!(place(&json!({ "error": { "code": "busy" } })), None);
        assert_eq!(place(&json!({ "id": "x" })), None, "it was not kept");
    }
}
