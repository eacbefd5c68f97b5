//! What the application receives.

use crate::client::Emission;
use crate::{DisconnectReason, EmitFault, Refusal};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::Value;
use sio_proto::{Args, ArgsFault, Parser};
use std::fmt;
use tokio::sync::mpsc;

/// What happened to a socket. After [`Refused`](Notice::Refused), [`GaveUp`](Notice::GaveUp), or
/// [`Disconnected`](Notice::Disconnected) with `will_reconnect` false nothing more comes.
#[derive(Debug)]
pub enum Notice {
    /// The server let the socket in, for the first time or again.
    Connected {
        /// The socket's id; another one after each loss, unless it was recovered.
        sid: String,
        /// Whether rooms and missed events were restored. The latter follow.
        is_recovered: bool,
    },
    /// An event.
    Event(Event),
    /// The connection was lost or ended.
    Disconnected {
        /// Why.
        reason: DisconnectReason,
        /// Whether attempts to come back follow.
        will_reconnect: bool,
    },
    /// On the way back the server said no.
    Refused(Refusal),
    /// `attempts_max` attempts to come back have failed.
    GaveUp,
}

/// An event from the server.
#[derive(Debug)]
pub struct Event {
    /// Its name.
    pub name: String,
    pub(crate) content: Content,
    pub(crate) answer: Option<Answer>,
}

/// The server's answer to an event of ours.
#[derive(Debug)]
pub struct Reply {
    pub(crate) content: Content,
}

/// Arguments as they came.
#[derive(Debug)]
pub(crate) struct Content {
    pub(crate) parser: Parser,
    pub(crate) elements: Vec<u8>,
    pub(crate) count: u32,
    pub(crate) attachments: Vec<Bytes>,
}

/// Where the answer to an event goes.
pub(crate) struct Answer {
    pub(crate) emissions: mpsc::Sender<Emission>,
    pub(crate) slot: u64,
    /// The connection that it belongs to; another one has other ids.
    pub(crate) epoch: u64,
    pub(crate) id: u64,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Answer({})", self.id)
    }
}

impl Event {
    /// The arguments as one value: see [`sio_proto::decode_args`].
    ///
    /// # Errors
    /// [`ArgsFault`] when they are of another type.
    pub fn args<T: DeserializeOwned>(&self) -> Result<T, ArgsFault> {
        self.content.args()
    }

    /// The arguments as a sequence, however many there are.
    ///
    /// # Errors
    /// [`ArgsFault`] when they are of other types.
    pub fn all_args<T: DeserializeOwned>(&self) -> Result<T, ArgsFault> {
        self.content.all_args()
    }

    /// The arguments as JSON values; binary ones as `{"$base64":"…"}`.
    ///
    /// # Errors
    /// [`ArgsFault`] for what a JSON value cannot hold, see [`sio_proto::to_value`].
    pub fn values(&self) -> Result<Vec<Value>, ArgsFault> {
        self.content.values()
    }

    /// Whether the server asked for an answer and has not got one.
    pub fn wants_ack(&self) -> bool {
        self.answer.is_some()
    }

    /// Answers the event. Does nothing if no answer was asked for, or one was given already, or the connection that the event came
    /// over is lost.
    ///
    /// # Errors
    /// [`EmitFault`] when the arguments cannot be encoded or the socket has ended.
    pub async fn ack<A: Args + ?Sized>(&mut self, args: &A) -> Result<(), EmitFault> {
        let Some(answer) = &self.answer else { return Ok(()) };
        let body = self.content.parser.encode_ack_args(args)?;
        let (id, epoch) = (answer.id, answer.epoch);
        let emission = Emission::Answer { slot: answer.slot, epoch, id, body };
        let sent = answer.emissions.send(emission).await;
        self.answer = None;
        sent.map_err(|_| EmitFault::Closed)
    }
}

impl Reply {
    /// The arguments as one value: see [`sio_proto::decode_args`].
    ///
    /// # Errors
    /// [`ArgsFault`] when they are of another type.
    pub fn args<T: DeserializeOwned>(&self) -> Result<T, ArgsFault> {
        self.content.args()
    }

    /// The arguments as a sequence, however many there are.
    ///
    /// # Errors
    /// [`ArgsFault`] when they are of other types.
    pub fn all_args<T: DeserializeOwned>(&self) -> Result<T, ArgsFault> {
        self.content.all_args()
    }

    /// The arguments as JSON values; binary ones as `{"$base64":"…"}`.
    ///
    /// # Errors
    /// [`ArgsFault`] for what a JSON value cannot hold, see [`sio_proto::to_value`].
    pub fn values(&self) -> Result<Vec<Value>, ArgsFault> {
        self.content.values()
    }
}

impl Content {
    fn args<T: DeserializeOwned>(&self) -> Result<T, ArgsFault> {
        sio_proto::decode_args(self.parser, &self.elements, self.count, &self.attachments)
    }

    fn all_args<T: DeserializeOwned>(&self) -> Result<T, ArgsFault> {
        sio_proto::decode_all(self.parser, &self.elements, self.count, &self.attachments)
    }

    fn values(&self) -> Result<Vec<Value>, ArgsFault> {
        sio_proto::to_value(self.parser, &self.elements, self.count, &self.attachments)
    }

    pub(crate) fn last_text(&self) -> Option<String> {
        sio_proto::last_text(self.parser, &self.elements, self.count)
    }
}
