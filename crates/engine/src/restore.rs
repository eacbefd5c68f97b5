//! Owns how an application gives back sockets that it remembers and the server does not: after a restart, or when they
//! were away for longer than memory reaches. Does not know where it remembers them. Invariant: a request is answered
//! once, if only by being dropped.

use std::any::Any;
use std::sync::Arc;

use eio_proto::Sid;
use engine_core::{RestoreFault, SocketKey};
use serde::de::DeserializeOwned;
use serde_json::Value;
use sio_proto::{Args, ArgsFault, Body, EncodeFault};
use tokio::sync::oneshot;

use crate::handshake::Handshake;
use crate::mail::{Mail, Port};
use crate::server::Inner;
use crate::socket::decode_auth;

/// The secret by which the peer of a socket claims it again. Whoever knows it can become that socket: keep it as a
/// password is kept, and out of logs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecoveryId(pub(crate) Sid);

impl RecoveryId {
    /// Reads what [`RecoveryId::expose`] gave. `None`: it is not such a text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Sid::parse(text).map(Self)
    }

    /// The secret as text, to be stored: 20 characters of `A-Z`, `a-z`, `0-9`, `-` and `_`.
    #[must_use]
    pub fn expose(&self) -> String {
        self.0.to_string()
    }
}

impl std::fmt::Debug for RecoveryId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RecoveryId(secret)")
    }
}

/// An application that remembers sockets. Closures that take a [`RestoreRequest`] are such, too.
///
/// To remember a socket, keep its [`id`](crate::Socket::id), its [`recovery_id`](crate::Socket::recovery_id), its rooms
/// and when it joined them; forget it when it is disconnected and
/// [may not come back](crate::Socket::may_come_back), or has stayed away for too long. Number the events you keep
/// ([`Broadcaster::order`](crate::Broadcaster::order)): the request says up to which number the peer has them.
pub trait Restorer: Send + Sync + 'static {
    /// A peer shows a recovery id that the server does not know, or cannot serve without a gap. Runs on a shard's thread,
    /// so it must not block: it hands the request on to who can answer it.
    fn restore(&self, request: RestoreRequest);
}

impl<F: Fn(RestoreRequest) + Send + Sync + 'static> Restorer for F {
    fn restore(&self, request: RestoreRequest) {
        self(request);
    }
}

/// A peer that asks for its socket, and waits. If this is dropped, or not answered within
/// [`Builder::restore_timeout`](crate::Builder::restore_timeout), the peer connects as new.
#[must_use = "the peer waits for an answer"]
pub struct RestoreRequest {
    pub(crate) server: Arc<Inner>,
    pub(crate) port: Arc<Port>,
    pub(crate) socket: SocketKey,
    pub(crate) pid: Sid,
    pub(crate) namespace: Arc<str>,
    pub(crate) order: Option<u64>,
    pub(crate) handshake: Arc<Handshake>,
    pub(crate) auth: Box<[u8]>,
    pub(crate) is_answered: bool,
}

/// A socket as the application remembers it.
pub struct Restored {
    /// Its public id, which it keeps.
    pub sid: Sid,
    /// The rooms it was in.
    pub rooms: Vec<String>,
    /// The application's number up to which `missed` is complete: what this socket gets later has a higher one.
    pub order: u64,
    /// What it missed, oldest first: see [`RestoreRequest::missed`]. No more than
    /// [`Config::outbox_bytes_max`](engine_core::Config::outbox_bytes_max) in all.
    pub missed: Vec<Missed>,
    /// Its loose data, as [`Socket::data`](crate::Socket::data) gives it.
    pub data: Value,
    /// What [`Socket::state`](crate::Socket::state) gives.
    pub state: Option<Arc<dyn Any + Send + Sync>>,
}

impl Restored {
    /// A socket with this id that is in no room, missed nothing up to the number `order`, and has neither data nor state.
    #[must_use]
    pub fn new(sid: Sid, order: u64) -> Self {
        Self { sid, rooms: Vec::new(), order, missed: Vec::new(), data: Value::Null, state: None }
    }
}

/// One event that a socket missed.
pub struct Missed {
    pub(crate) order: u64,
    pub(crate) body: Body,
}

/// A letter to the shard where the peer waits.
pub(crate) struct RestoreMail {
    pub(crate) socket: SocketKey,
    pub(crate) pid: Sid,
    pub(crate) namespace: Arc<str>,
    pub(crate) handshake: Arc<Handshake>,
    pub(crate) restored: Restored,
    pub(crate) done: oneshot::Sender<Result<(), RestoreFault>>,
}

impl RestoreRequest {
    /// The namespace the peer asks for.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The secret that it shows. That it is the right one is for you to find out: compare it with what you keep.
    #[must_use]
    pub fn recovery_id(&self) -> RecoveryId {
        RecoveryId(self.pid)
    }

    /// The number up to which the peer has the events that were for it. `None` if it has had none that told a number. It
    /// is the peer's word: it may be higher than any that you have given out.
    #[must_use]
    pub fn order(&self) -> Option<u64> {
        self.order
    }

    /// The request that opened its session.
    #[must_use]
    pub fn handshake(&self) -> &Handshake {
        &self.handshake
    }

    /// The auth payload as `T`; `()` or `Option` if there is none. Middlewares will see it, too.
    ///
    /// # Errors
    /// The peer's fault: the payload does not fit `T`.
    pub fn auth<T: DeserializeOwned>(&self) -> Result<T, ArgsFault> {
        decode_auth(self.server.parser(), &self.auth)
    }

    /// An event that the socket missed, under the number it was sent with.
    ///
    /// # Errors
    /// The caller's fault: not serialisable, a reserved name, or too many attachments.
    pub fn missed<A: Args + ?Sized>(&self, order: u64, event: &str, args: &A) -> Result<Missed, EncodeFault> {
        Ok(Missed { order, body: self.server.parser().encode_event_args(event, args)? })
    }

    /// Gives the socket back: under its old ids, in its rooms, and with what it missed, which it gets before anything
    /// else. Then it connects as any recovered socket does: past the middlewares, and with
    /// [`Socket::recovered`](crate::Socket::recovered).
    ///
    /// It is in order with what the same task sends. What was sent before this is not for the socket, so `missed` must
    /// have it; what is sent after this is ready reaches the socket, and everybody can find it in its rooms.
    ///
    /// # Errors
    /// See [`RestoreFault`]. Unless the peer has gone, it connects as new.
    pub async fn restore(mut self, restored: Restored) -> Result<(), RestoreFault> {
        self.is_answered = true;
        let (done, outcome) = oneshot::channel();
        let letter = RestoreMail {
            socket: self.socket,
            pid: self.pid,
            namespace: self.namespace.clone(),
            handshake: self.handshake.clone(),
            restored,
            done,
        };
        if self.port.send_waiting(Mail::Restore(Box::new(letter))).await.is_err() {
            return Err(RestoreFault::Gone);
        }
        outcome.await.unwrap_or(Err(RestoreFault::Gone))
    }

    /// Does not know this socket, or does not want it back: the peer connects as new.
    pub fn refuse(self) {
        drop(self);
    }
}

impl Drop for RestoreRequest {
    fn drop(&mut self) {
        if !self.is_answered {
            // Should the mailbox be full, the shard stops waiting by itself.
            let _ = self.port.send(Mail::RestoreRefused { socket: self.socket, pid: self.pid });
        }
    }
}

impl std::fmt::Debug for RestoreRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RestoreRequest(in {} from {:?})", self.namespace, self.order)
    }
}
