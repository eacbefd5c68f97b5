//! Owns publishing: one event after the other, each asked of the next server until one has answered, under a key by which it
//! counts once. Speaks the little HTTP that this takes.

use std::io::{BufRead, BufReader, Write};
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
    pub(crate) lines: Lines,
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
    pub(crate) fn run(&mut self, is_over: &AtomicBool, told: &Sender<Published>) -> anyhow::Result<()> {
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
    pub(crate) fn publish(&mut self, publication: u64) -> anyhow::Result<Published> {
        let room = &self.rooms[publication as usize % self.rooms.len()];
        let at = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
        let body = json!({
            "event": "soak", "room": room, "idempotency_key": format!("soak-{publication}"),
            "data": { "n": publication, "at": at as u64 },
        })
        .to_string();
        let deadline = Instant::now() + PATIENCE;
        for retries in 0_u64.. {
            let why = match self.lines.post((publication + retries) as usize, &body) {
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

/// The ways to all servers. A connection is kept for as long as its server keeps it.
pub(crate) struct Lines(Vec<Line>);

struct Line {
    server: SocketAddr,
    open: Option<BufReader<TcpStream>>,
}

impl Lines {
    /// None is open yet.
    pub(crate) fn to(servers: &[SocketAddr]) -> Self {
        Self(servers.iter().map(|&server| Line { server, open: None }).collect())
    }

    fn post(&mut self, nth: usize, body: &str) -> anyhow::Result<Value> {
        let count = self.0.len();
        let line = &mut self.0[nth % count];
        if let Some(open) = line.open.take()
            && let Ok(answer) = line.exchange(open, body)
        {
            return Ok(answer);
        }
        // It may have been closed since it was last used, and the event counts once however often it is sent.
        let stream = TcpStream::connect_timeout(&line.server, Duration::from_secs(2))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(REQUEST_LIMIT))?;
        stream.set_write_timeout(Some(REQUEST_LIMIT))?;
        line.exchange(BufReader::new(stream), body)
    }
}

impl Line {
    fn exchange(&mut self, mut open: BufReader<TcpStream>, body: &str) -> anyhow::Result<Value> {
        let head = format!(
            "POST /api/v1/events HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            self.server,
            body.len()
        );
        open.get_mut().write_all(format!("{head}{body}").as_bytes())?;
        let answer = Answer::read(&mut open)?;
        if answer.is_kept {
            self.open = Some(open);
        }
        serde_json::from_slice(&answer.body).context("an answer that is no JSON")
    }
}

/// A response whose length is told.
struct Answer {
    body: Vec<u8>,
    /// Whether the connection may be used again.
    is_kept: bool,
}

impl Answer {
    fn read(from: &mut impl BufRead) -> anyhow::Result<Self> {
        let (mut length, mut is_kept, mut line) = (None, true, String::new());
        loop {
            line.clear();
            ensure!(from.read_line(&mut line)? > 0, "no answer");
            let header = line.trim().to_ascii_lowercase();
            match header.split_once(": ") {
                Some(("content-length", value)) => length = Some(value.parse()?),
                Some(("connection", "close")) => is_kept = false,
                Some(_) => {}
                None if header.is_empty() => break,
                // The status: what is refused says so in its body, too.
                None => {}
            }
        }
        let mut body = vec![0; length.context("an answer without a length")?];
        from.read_exact(&mut body)?;
        Ok(Self { body, is_kept })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_whether_its_connection_is_kept() {
        for (head, is_kept) in [("", true), ("Connection: close\r\n", false)] {
            let text = format!("HTTP/1.1 200 OK\r\n{head}Content-Length: 2\r\n\r\n{{}}more");
            let mut text = text.as_bytes();
            let answer = Answer::read(&mut text).unwrap();
            assert_eq!((&answer.body[..], answer.is_kept, text), (&b"{}"[..], is_kept, &b"more"[..]));
        }
        assert!(Answer::read(&mut &b"HTTP/1.1 200 OK\r\n"[..]).is_err());
    }

    #[test]
    fn a_refusal_is_no_place() {
        assert_eq!(place(&json!({ "epoch": 4, "seq": 2, "id": "x" })), Some(Place { epoch: 4, seq: 2 }));
        assert_eq!(place(&json!({ "error": { "code": "busy" } })), None);
        assert_eq!(place(&json!({ "id": "x" })), None, "it was not kept");
    }
}
