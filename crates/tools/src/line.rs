//! Owns the port to tools that are not reached by HTTP but by messages, such as those that wait at a queue, and the course
//! of one request there. Does not know how messages travel.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::answer::{Answer, Said, Style};
use crate::run::{Tool, Voice, silent};
use crate::settings::Place;
use crate::step::{Again, Code, Failure, Trouble};

/// What a line's method answers.
pub type Sending<'a> = Pin<Box<dyn Future<Output = Result<Replies, LineFault>> + Send + 'a>>;

/// Who knows the way to a place, or what is wrong with it.
pub type LineTo<'a> = dyn Fn(&Place) -> Result<Arc<dyn Line>, String> + 'a;

/// A way to one tool by messages.
pub trait Line: std::fmt::Debug + Send + Sync {
    /// Sends a request, and answers once it was taken; the replies follow.
    fn send(&self, letter: Letter) -> Sending<'_>;
}

/// A request as it travels.
#[derive(Clone, Debug)]
pub struct Letter {
    /// What is asked: JSON, as `http` tools get it.
    pub body: Bytes,
    /// By what replies are known. Nobody can guess it; a repetition of the request has the same.
    pub key: String,
    /// How long anybody waits for the answer.
    pub expires_in: Duration,
}

/// The replies to one request, as they come. Dropping them ends the interest in them.
pub struct Replies {
    replies: mpsc::Receiver<Vec<u8>>,
    _interest: Box<dyn Send + Sync>,
}

impl Replies {
    /// Replies that come by a channel; `interest` is dropped with them.
    #[must_use]
    pub fn new(replies: mpsc::Receiver<Vec<u8>>, interest: Box<dyn Send + Sync>) -> Self {
        Self { replies, _interest: interest }
    }
}

/// Why a request did not reach its tool. The environment's fault; the texts are for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LineFault {
    /// It was not sent.
    Unreachable(String),
    /// It was sent, and nobody is there to take it.
    Unclaimed(String),
    /// It may have been sent.
    Broken(String),
}

impl From<LineFault> for Trouble {
    fn from(fault: LineFault) -> Self {
        let (message, again, detail) = match fault {
            LineFault::Unreachable(detail) => ("the tool cannot be reached", Again::Always, detail),
            LineFault::Unclaimed(detail) => ("nobody takes the tool's requests", Again::Always, detail),
            LineFault::Broken(detail) => ("the way to the tool broke off", Again::IfHarmless, detail),
        };
        Trouble::new(Failure::passing(Code::ToolFailed, message), again).with_detail(detail)
    }
}

/// Asks once, by messages.
pub(crate) async fn ask(
    tool: &Tool,
    line: &dyn Line,
    body: &Bytes,
    key: &str,
    voice: &mut Voice,
) -> Result<(), Trouble> {
    let limits = &tool.limits;
    let letter = Letter { body: body.clone(), key: key.to_owned(), expires_in: limits.total_timeout };
    let connected = timeout_at(Instant::now() + limits.connect_timeout, line.send(letter)).await;
    let Replies { mut replies, _interest } = connected.map_err(|_| {
        let detail = "the request was not taken within connect_timeout".to_owned();
        Trouble::from(LineFault::Broken(detail))
    })??;
    let mut allowed = limits.first_byte_timeout;
    let mut silence_ends = Instant::now() + allowed;
    let mut reading = Reading::new(limits.answer_bytes_max)?;
    let mut said = Vec::new();
    loop {
        let read = tokio::select! {
            reply = replies.recv() => match reply {
                Some(reply) => reading.handle_reply(&reply, &mut said),
                None => Err(LineFault::Broken("no more replies can come".to_owned()).into()),
            },
            () = sleep_until(silence_ends) => Err(silent(allowed)),
            () = voice.window() => {
                voice.handle_timeout().await;
                continue;
            }
        };
        for said in said.drain(..) {
            if voice.handle(said).await? {
                return Ok(());
            }
        }
        read?;
        allowed = limits.idle_timeout;
        silence_ends = Instant::now() + allowed;
    }
}

/// Reads replies, one message after the other. A reply that says `delta`, `progress` or `done: false` is a part of the
/// answer, and more follow until one says `done: true`; any other is the whole of it.
struct Reading {
    parts: Answer,
    bytes_max: usize,
}

impl Reading {
    fn new(bytes_max: usize) -> Result<Self, Trouble> {
        Ok(Self {
            parts: Answer::new(Style::Plain, Some("application/x-ndjson"), false, bytes_max)?,
            bytes_max,
        })
    }

    fn handle_reply(&mut self, reply: &[u8], said: &mut Vec<Said>) -> Result<(), Trouble> {
        if reply.len() > self.bytes_max {
            return Err(Trouble::too_large(self.bytes_max));
        }
        let value: Option<serde_json::Value> = serde_json::from_slice(reply).ok();
        let is_part = value
            .as_ref()
            .is_some_and(|value| ["delta", "progress", "done"].iter().any(|name| value.get(name).is_some()));
        match value {
            Some(value) if is_part => {
                // On one line, whatever way its sender wrote it.
                let line = format!("{value}\n");
                self.parts.handle_bytes(line.as_bytes(), said)
            }
            value => {
                let form = if value.is_some() { "application/json" } else { "text/plain" };
                let mut whole = Answer::new(Style::Plain, Some(form), true, self.bytes_max)?;
                whole.handle_bytes(reply, said)?;
                whole.handle_end(said)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What replies say, a word each.
    fn read(replies: &[&str]) -> Vec<String> {
        let mut reading = Reading::new(100).unwrap();
        let mut told = Vec::new();
        for reply in replies {
            let mut said = Vec::new();
            let outcome = reading.handle_reply(reply.as_bytes(), &mut said);
            told.extend(said.into_iter().map(|said| match said {
                Said::Delta(text) => format!("delta {text}"),
                Said::Progress(progress) => format!("progress {}", progress.percent),
                Said::Message(message) => format!("message {}", message.text),
                Said::Usage(usage) => format!("usage {}", usage.total_tokens),
                Said::Stopped(reason) => format!("stopped {reason}"),
                Said::End => "end".to_owned(),
            }));
            told.extend(outcome.err().map(|trouble| trouble.failure.message));
        }
        told
    }

    #[test]
    fn one_reply_is_the_whole_answer() {
        assert_eq!(
            read(&[r#"{"message":"blue","usage":{"total_tokens":3}}"#]),
            ["message blue", "usage 3", "end"]
        );
        assert_eq!(read(&[r#"{"answer": 42}"#]), [r#"message {"answer": 42}"#, "end"]);
        assert_eq!(read(&["just text"]), ["message just text", "end"]);
        assert_eq!(read(&[r#"{"error":"no such book"}"#]), ["no such book"]);
    }

    #[test]
    fn several_replies_are_parts_until_one_is_the_last() {
        let told = read(&[
            "{\n \"progress\": 10\n}",
            r#"{"delta":"bl"}"#,
            r#"{"delta":"ue","done":false}"#,
            r#"{"done":true}"#,
        ]);
        assert_eq!(told, ["progress 10", "delta bl", "delta ue", "end"]);
        assert_eq!(read(&[r#"{"message":"whole","done":true}"#]), ["message whole", "end"]);
    }

    #[test]
    fn a_reply_that_is_too_long_is_not_read() {
        let told = read(&[&format!(r#"{{"delta":"{}"}}"#, "x".repeat(100))]);
        assert!(told[0].contains("answer_bytes_max of 100"), "{told:?}");
    }
}
