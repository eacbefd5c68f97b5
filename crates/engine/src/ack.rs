//! Owns answers: what a handler may answer an event with, and the answers that peers give to our emits.
//! Does not know transports.

use std::collections::VecDeque;

use bytes::Bytes;
use engine_core::{AckToken, SocketKey};
use serde::de::DeserializeOwned;
use serde_json::Value;
use sio_proto::{ArgsFault, Binary, Body, EncodeFault, Many, NoArgs, One, Parser};
use tokio::sync::{mpsc, oneshot};

/// What a handler may return: the answer to an event whose sender awaits one, and nothing if it does not.
///
/// `()` answers with no argument. Plain values, `Vec`s and [`Value`] are one argument. For a type of your own use
/// [`One`], for several arguments [`Many`]. A `Result` answers with whichever side it is.
pub trait Answer {
    /// Encodes the answer.
    ///
    /// # Errors
    /// The caller's fault: the value cannot be written as JSON or msgpack, or has too many attachments.
    fn encode(self, parser: Parser) -> Result<Body, EncodeFault>;
}

impl Answer for () {
    fn encode(self, parser: Parser) -> Result<Body, EncodeFault> {
        parser.encode_ack_args(&NoArgs)
    }
}

impl<T: serde::Serialize> Answer for One<T> {
    fn encode(self, parser: Parser) -> Result<Body, EncodeFault> {
        parser.encode_ack_args(&self)
    }
}

impl<T: serde::Serialize> Answer for Many<T> {
    fn encode(self, parser: Parser) -> Result<Body, EncodeFault> {
        parser.encode_ack_args(&self)
    }
}

impl<T: serde::Serialize> Answer for Vec<T> {
    fn encode(self, parser: Parser) -> Result<Body, EncodeFault> {
        One(self).encode(parser)
    }
}

impl<A: Answer, B: Answer> Answer for Result<A, B> {
    fn encode(self, parser: Parser) -> Result<Body, EncodeFault> {
        match self {
            Ok(answer) => answer.encode(parser),
            Err(answer) => answer.encode(parser),
        }
    }
}

macro_rules! answers_as_one {
    ($($kind:ty),*) => {$(
        impl Answer for $kind {
            fn encode(self, parser: Parser) -> Result<Body, EncodeFault> {
                One(self).encode(parser)
            }
        }
    )*};
}

answers_as_one!(Value, String, &'static str, bool, u8, u16, u32, u64, i8, i16, i32, i64, f32, f64, Binary);

/// One peer's answer to an emit.
#[derive(Clone, Debug)]
pub struct Answered {
    pub(crate) parser: Parser,
    pub(crate) elements: Bytes,
    pub(crate) count: u32,
    pub(crate) attachments: Vec<Bytes>,
}

impl Answered {
    /// The answer's arguments: one as `T` itself, several as a tuple or list, none as `()` or `Option`.
    ///
    /// # Errors
    /// The peer's fault: the arguments do not fit `T`.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, ArgsFault> {
        sio_proto::decode_args(self.parser, &self.elements, self.count, &self.attachments)
    }

    /// All arguments as one list or tuple, however many there are.
    ///
    /// # Errors
    /// The peer's fault: they do not fit `T`.
    pub fn decode_all<T: DeserializeOwned>(&self) -> Result<T, ArgsFault> {
        sio_proto::decode_all(self.parser, &self.elements, self.count, &self.attachments)
    }

    /// The arguments as loose values, one each.
    ///
    /// # Errors
    /// The peer's fault: a value that JSON cannot hold.
    pub fn values(&self) -> Result<Vec<Value>, ArgsFault> {
        sio_proto::to_value(self.parser, &self.elements, self.count, &self.attachments)
    }

    /// How many arguments came.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether the answer has no argument.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

/// Why an ack did not come. SIO5 "Acknowledgement".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckFault {
    /// Nobody answered in time.
    TimedOut,
    /// The socket went first, or was gone already.
    Disconnected,
    /// The peer owes too many acks already.
    TooMany,
    /// The server has stopped, or was too busy to send.
    Unavailable,
}

impl std::fmt::Display for AckFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            AckFault::TimedOut => "operation has timed out",
            AckFault::Disconnected => "socket has been disconnected",
            AckFault::TooMany => "the peer owes too many acks already",
            AckFault::Unavailable => "the server has stopped or is too busy",
        })
    }
}

impl std::error::Error for AckFault {}

/// What a broadcast with acks brought.
#[derive(Clone, Debug, Default)]
pub struct Acks {
    /// The answers, in the order in which they came.
    pub answers: Vec<Answered>,
    /// How many sockets got the event.
    pub asked: usize,
    /// Whether some did not answer in time.
    pub timed_out: bool,
}

/// The acks of a broadcast, as they come. When it is dropped, those that are still to come are nobody's.
#[derive(Debug)]
pub struct AckStream {
    parts: mpsc::UnboundedReceiver<Part>,
    /// Shards that have not said yet how many sockets they ask.
    silent_shards: usize,
    asked: usize,
    /// Answers that came before all shards had said that.
    early: VecDeque<Answered>,
    timed_out: bool,
}

impl AckStream {
    pub(crate) fn new(parts: mpsc::UnboundedReceiver<Part>, shards: usize) -> Self {
        Self { parts, silent_shards: shards, asked: 0, early: VecDeque::new(), timed_out: false }
    }

    /// How many sockets got the event and owe an ack. Waits until all shards have sent it, which is a moment.
    pub async fn asked(&mut self) -> usize {
        while self.silent_shards > 0
            && let Some(part) = self.parts.recv().await
        {
            let answer = self.note(part);
            self.early.extend(answer);
        }
        self.asked
    }

    /// The next ack. `None`: all have answered or are gone, or the time is over.
    pub async fn recv(&mut self) -> Option<Answered> {
        if let Some(answer) = self.early.pop_front() {
            return Some(answer);
        }
        // Ends when every shard has let go of its end.
        while let Some(part) = self.parts.recv().await {
            if let Some(answer) = self.note(part) {
                return Some(answer);
            }
        }
        None
    }

    /// Whether some have not answered in time, as far as is known yet.
    #[must_use]
    pub fn has_timed_out(&self) -> bool {
        self.timed_out
    }

    fn note(&mut self, part: Part) -> Option<Answered> {
        match part {
            Part::Asked(count) => {
                self.silent_shards = self.silent_shards.saturating_sub(1);
                self.asked += count;
                None
            }
            Part::Answer(answer) => Some(answer),
            Part::TimedOut => {
                self.timed_out = true;
                None
            }
        }
    }
}

/// One shard's news for somebody who awaits the acks of a broadcast.
#[derive(Debug)]
pub(crate) enum Part {
    Asked(usize),
    Answer(Answered),
    TimedOut,
}

/// Who awaits an ack.
pub(crate) struct AckSink {
    pub(crate) timeout: Option<std::time::Duration>,
    pub(crate) to: oneshot::Sender<Result<Answered, AckFault>>,
}

/// The same, kept at the shard until the answers are in.
pub(crate) enum Waiter {
    One(oneshot::Sender<Result<Answered, AckFault>>),
    Many(mpsc::UnboundedSender<Part>),
}

/// Waiters by token. A plain map: the shard's thread owns it.
#[derive(Default)]
pub(crate) struct Waiters {
    by_token: std::collections::HashMap<AckToken, Waiter, foldhash::fast::RandomState>,
}

impl Waiters {
    pub(crate) fn insert(&mut self, token: AckToken, waiter: Waiter) {
        self.by_token.insert(token, waiter);
    }

    pub(crate) fn answer(&mut self, token: AckToken, _from: SocketKey, answer: Answered, last: bool) {
        match self.by_token.get(&token) {
            Some(Waiter::One(_)) => {
                if let Some(Waiter::One(to)) = self.by_token.remove(&token) {
                    // Whoever asked may have stopped waiting.
                    let _ = to.send(Ok(answer));
                }
            }
            Some(Waiter::Many(parts)) => {
                let _ = parts.send(Part::Answer(answer));
                if last {
                    self.by_token.remove(&token);
                }
            }
            None => {}
        }
    }

    pub(crate) fn fail(&mut self, token: AckToken, fault: AckFault) {
        match self.by_token.remove(&token) {
            Some(Waiter::One(to)) => {
                let _ = to.send(Err(fault));
            }
            Some(Waiter::Many(parts)) if fault == AckFault::TimedOut => {
                let _ = parts.send(Part::TimedOut);
            }
            Some(Waiter::Many(_)) | None => {}
        }
    }
}
