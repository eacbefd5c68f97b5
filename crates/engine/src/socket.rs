//! Owns the handle by which applications hold a socket: emit, rooms, acks, state, disconnect.
//! Does not hold the socket itself, which lives in its shard. Invariant: a handle outlives its socket harmlessly.

use std::any::Any;
use std::sync::{Arc, Mutex, OnceLock};

use bytes::Bytes;
use eio_proto::Sid;
use engine_core::{Flags, Reason, SessionKey, SocketKey, Target};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use sio_proto::{Args, ArgsFault, EncodeFault, One, Parser};
use std::time::Duration;
use tokio::sync::oneshot;

use crate::ack::{AckFault, AckSink, Answered};
use crate::emitter::Broadcaster;
use crate::handshake::Handshake;
use crate::joining::Joined;
use crate::mail::{Busy, Command, Mail, Port};
use crate::restore::RecoveryId;
use crate::server::{Inner, Server};

/// What all handles of one socket share. Never touched by broadcasts.
pub(crate) struct SocketShared {
    pub(crate) server: Arc<Inner>,
    pub(crate) port: Arc<Port>,
    pub(crate) key: SocketKey,
    pub(crate) session: SessionKey,
    pub(crate) sid: OnceLock<Sid>,
    /// The secret by which it may come back; empty if it cannot.
    pub(crate) pid: OnceLock<Sid>,
    pub(crate) namespace: Arc<str>,
    pub(crate) auth: Box<[u8]>,
    pub(crate) handshake: Arc<Handshake>,
    pub(crate) kept: Arc<Kept>,
    pub(crate) recovered: std::sync::atomic::AtomicBool,
    /// A middleware has decided that it begins anew.
    pub(crate) is_afresh: std::sync::atomic::AtomicBool,
}

/// What goes along when a lost socket is recovered.
#[derive(Default)]
pub(crate) struct Kept {
    state: OnceLock<Arc<dyn Any + Send + Sync>>,
    data: Mutex<Value>,
}

impl Kept {
    pub(crate) fn new(state: Option<Arc<dyn Any + Send + Sync>>, data: Value) -> Self {
        Self { state: state.map_or_else(OnceLock::new, OnceLock::from), data: Mutex::new(data) }
    }
}

/// A connected socket: one client in one namespace. Cheap to clone, usable from any thread.
///
/// On a handler's thread its methods take effect when the handler returns or first waits; from elsewhere they are
/// mailed to the socket's shard. Both keep the order of calls. Methods on a socket that has gone do nothing.
#[derive(Clone)]
pub struct Socket {
    pub(crate) shared: Arc<SocketShared>,
}

/// Why something could not be sent.
#[derive(Debug)]
pub enum EmitError {
    /// The payload cannot be sent: not serialisable, a reserved name, or too many attachments. The caller's fault.
    Payload(EncodeFault),
    /// The server is too busy or has stopped.
    Busy(Busy),
}

impl std::fmt::Display for EmitError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            EmitError::Payload(fault) => fault.fmt(f),
            EmitError::Busy(busy) => busy.fmt(f),
        }
    }
}

impl std::error::Error for EmitError {}

impl From<EncodeFault> for EmitError {
    fn from(fault: EncodeFault) -> Self {
        EmitError::Payload(fault)
    }
}

impl From<Busy> for EmitError {
    fn from(busy: Busy) -> Self {
        EmitError::Busy(busy)
    }
}

impl Socket {
    /// The public id of this socket; also the name of the room that only it is in.
    #[must_use]
    pub fn id(&self) -> Sid {
        *self.shared.sid.get().expect("invariant: handles are given out once a socket has its id")
    }

    /// The namespace, `/` first.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.shared.namespace
    }

    /// The request that opened its session.
    #[must_use]
    pub fn handshake(&self) -> &Handshake {
        &self.shared.handshake
    }

    /// The CONNECT packet's auth payload as `T`; `()` or `Option` if there was none.
    ///
    /// # Errors
    /// The peer's fault: the payload does not fit `T`.
    pub fn auth<T: DeserializeOwned>(&self) -> Result<T, ArgsFault> {
        decode_auth(self.parser(), &self.shared.auth)
    }

    /// Whether it is a socket that was lost and has its rooms and missed events back.
    #[must_use]
    pub fn recovered(&self) -> bool {
        self.shared.recovered.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// The secret by which its peer may come back for it, for applications that remember sockets
    /// ([`Restorer`](crate::Restorer)). `None` if it cannot be recovered.
    #[must_use]
    pub fn recovery_id(&self) -> Option<RecoveryId> {
        self.shared.pid.get().copied().map(RecoveryId)
    }

    /// Whether it may still come back after it was disconnected for this reason. If not, nobody will ask for it again.
    #[must_use]
    pub fn may_come_back(&self, reason: Reason) -> bool {
        reason.is_recoverable() && self.recovery_id().is_some()
    }

    /// What a middleware attached to this socket. Survives recovery.
    #[must_use]
    pub fn state<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        self.shared.kept.state.get().cloned().and_then(|state| state.downcast().ok())
    }

    /// Attaches a state, once. `false`: there is one already.
    pub fn set_state<T: Any + Send + Sync>(&self, state: T) -> bool {
        self.shared.kept.state.set(Arc::new(state)).is_ok()
    }

    /// Loose data of this socket, seen by [`Server::fetch_sockets`](crate::Server). Survives recovery. `null` at
    /// first.
    #[must_use]
    pub fn data(&self) -> Value {
        self.shared.kept.data.lock().map_or(Value::Null, |data| data.clone())
    }

    /// Replaces the loose data.
    pub fn set_data(&self, data: Value) {
        if let Ok(mut slot) = self.shared.kept.data.lock() {
            *slot = data;
        }
    }

    fn parser(&self) -> Parser {
        self.shared.server.parser()
    }

    fn send(&self, command: Command) -> Result<(), Busy> {
        self.shared.port.send(Mail::Command(command))
    }

    /// Sends an event with one argument to this socket.
    ///
    /// # Errors
    /// See [`EmitError`]. A socket that has gone is no error.
    pub fn emit<T: Serialize + ?Sized>(&self, event: &str, payload: &T) -> Result<(), EmitError> {
        self.emit_args(event, &One(payload), Flags::default())
    }

    /// Sends an event that may be dropped: if the transport cannot take it at once, it is not sent, and it is never
    /// replayed.
    ///
    /// # Errors
    /// See [`EmitError`].
    pub fn emit_volatile<T: Serialize + ?Sized>(&self, event: &str, payload: &T) -> Result<(), EmitError> {
        self.emit_args(event, &One(payload), Flags { volatile: true, ..Flags::default() })
    }

    /// Sends an event with any arguments ([`NoArgs`](sio_proto::NoArgs), [`Many`](sio_proto::Many) …) and flags.
    ///
    /// # Errors
    /// See [`EmitError`].
    pub fn emit_args<A: Args + ?Sized>(&self, event: &str, args: &A, flags: Flags) -> Result<(), EmitError> {
        let body = self.parser().encode_event_args(event, args)?;
        self.send(Command::Emit { socket: self.shared.key, body, flags, ack: None })?;
        Ok(())
    }

    /// As [`Socket::emit`], but waits while the shard's mailbox is full. What one task sends so, each awaited before the
    /// next, arrives in that order.
    ///
    /// A socket that has come back on another shard is reached through its new handle, or by its id
    /// ([`Server::to`](crate::Server::to)), which follows it.
    ///
    /// # Errors
    /// [`EmitError::Payload`]; [`EmitError::Busy`] only when the server has stopped. A socket that has gone is no error.
    pub fn emit_waiting<T: Serialize + ?Sized>(
        &self,
        event: &str,
        payload: &T,
    ) -> impl Future<Output = Result<(), EmitError>> + Send {
        self.emit_args_waiting(event, &One(payload), Flags::default())
    }

    /// As [`Socket::emit_args`], but waits while the shard's mailbox is full.
    ///
    /// # Errors
    /// As [`Socket::emit_waiting`].
    pub fn emit_args_waiting<A: Args + ?Sized>(
        &self,
        event: &str,
        args: &A,
        flags: Flags,
    ) -> impl Future<Output = Result<(), EmitError>> + Send + use<A> {
        // Encoded at once, so that the future keeps no argument.
        let body = self.parser().encode_event_args(event, args);
        let shared = self.shared.clone();
        async move {
            let command = Command::Emit { socket: shared.key, body: body?, flags, ack: None };
            shared.port.send_command_waiting(command).await?;
            Ok(())
        }
    }

    /// Sends an event and awaits its ack. With recovery on, events that await an ack are not replayed.
    ///
    /// # Errors
    /// [`AckFault`]; a payload that cannot be sent is [`AckFault::Unavailable`] after a log line.
    pub async fn emit_with_ack<A: Args + ?Sized>(
        &self,
        event: &str,
        args: &A,
        timeout: Duration,
    ) -> Result<Answered, AckFault> {
        let answer = self.begin_ack(event, args, Some(timeout))?;
        answer.await.unwrap_or(Err(AckFault::Disconnected))
    }

    fn begin_ack<A: Args + ?Sized>(
        &self,
        event: &str,
        args: &A,
        timeout: Option<Duration>,
    ) -> Result<oneshot::Receiver<Result<Answered, AckFault>>, AckFault> {
        let body = self.parser().encode_event_args(event, args).map_err(|fault| {
            tracing::warn!(event, %fault, "an event could not be encoded");
            AckFault::Unavailable
        })?;
        let (to, answer) = oneshot::channel();
        let ack = Some(AckSink { timeout, to });
        self.send(Command::Emit { socket: self.shared.key, body, flags: Flags::default(), ack })
            .map_err(|_| AckFault::Unavailable)?;
        Ok(answer)
    }

    /// Joins rooms. The next event handled by this socket's shard sees them.
    pub fn join<R: IntoRooms>(&self, rooms: R) {
        let _ = self.send(Command::Join { socket: self.shared.key, rooms: rooms.into_rooms(), done: None });
    }

    /// Joins rooms, all of them or none, and waits until it has: whoever broadcasts to them after that, from anywhere,
    /// finds this socket.
    pub async fn join_waiting<R: IntoRooms + Send>(&self, rooms: R) -> Joined {
        let (to, answer) = oneshot::channel();
        let command = Command::Join { socket: self.shared.key, rooms: rooms.into_rooms(), done: Some(to) };
        if self.shared.port.send_command_waiting(command).await.is_err() {
            return Joined::Gone;
        }
        answer.await.unwrap_or(Joined::Gone)
    }

    /// Leaves rooms.
    pub fn leave<R: IntoRooms>(&self, rooms: R) {
        let _ = self.send(Command::Leave { socket: self.shared.key, rooms: rooms.into_rooms() });
    }

    /// The rooms it is in, its own included.
    pub async fn rooms(&self) -> Vec<String> {
        let (to, answer) = oneshot::channel();
        let (key, sid) = (self.shared.key, self.id().to_string());
        let call = Mail::Call(Box::new(move |shard: &mut crate::shard::ShardState| {
            let mut rooms: Vec<String> = shard.core.rooms_of(key).iter().map(ToString::to_string).collect();
            rooms.sort_unstable();
            rooms.insert(0, sid);
            let _ = to.send(rooms);
        }));
        if self.shared.port.send_waiting(call).await.is_err() {
            return Vec::new();
        }
        answer.await.unwrap_or_default()
    }

    /// Disconnects this socket from its namespace. The peer is told and does not reconnect by itself.
    pub fn disconnect(&self) {
        let _ = self.send(Command::Disconnect { socket: self.shared.key, close: false });
    }

    /// Disconnects every namespace of this socket's connection, and closes it.
    pub fn disconnect_connection(&self) {
        let _ = self.send(Command::Disconnect { socket: self.shared.key, close: true });
    }

    /// Cuts the connection without a word, as a failing network would: to try out what clients do then.
    pub fn sever(&self) {
        let _ = self.send(Command::Sever { session: self.shared.session });
    }

    /// The server that it is connected to.
    #[must_use]
    pub fn server(&self) -> Server {
        Server { inner: self.shared.server.clone() }
    }

    /// Everyone in this namespace but this socket.
    #[must_use]
    pub fn broadcast(&self) -> Broadcaster {
        self.everyone().except(self.id().to_string())
    }

    /// The members of rooms, but not this socket.
    #[must_use]
    pub fn to<R: IntoRooms>(&self, rooms: R) -> Broadcaster {
        self.broadcast().to(rooms)
    }

    /// The members of rooms, this socket included if it is one.
    #[must_use]
    pub fn within<R: IntoRooms>(&self, rooms: R) -> Broadcaster {
        self.everyone().to(rooms)
    }

    fn everyone(&self) -> Broadcaster {
        let target = Target { namespace: (&*self.shared.namespace).into(), ..Target::default() };
        Broadcaster::new(self.shared.server.clone(), target)
    }

    pub(crate) fn answer(&self, ack_id: u64, body: sio_proto::Body) {
        let _ = self.send(Command::Answer { socket: self.shared.key, ack_id, body });
    }
}

impl std::fmt::Debug for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Socket({} in {})", self.id(), self.namespace())
    }
}

/// Names of one room or several.
pub trait IntoRooms {
    /// The names.
    fn into_rooms(self) -> Vec<Box<str>>;
}

impl IntoRooms for &str {
    fn into_rooms(self) -> Vec<Box<str>> {
        vec![self.into()]
    }
}

impl IntoRooms for String {
    fn into_rooms(self) -> Vec<Box<str>> {
        vec![self.into_boxed_str()]
    }
}

impl IntoRooms for &String {
    fn into_rooms(self) -> Vec<Box<str>> {
        vec![self.as_str().into()]
    }
}

impl IntoRooms for Sid {
    fn into_rooms(self) -> Vec<Box<str>> {
        vec![self.to_string().into_boxed_str()]
    }
}

impl<S: AsRef<str>> IntoRooms for Vec<S> {
    fn into_rooms(self) -> Vec<Box<str>> {
        self.iter().map(|room| room.as_ref().into()).collect()
    }
}

impl<S: AsRef<str>> IntoRooms for &[S] {
    fn into_rooms(self) -> Vec<Box<str>> {
        self.iter().map(|room| room.as_ref().into()).collect()
    }
}

impl<S: AsRef<str>, const N: usize> IntoRooms for [S; N] {
    fn into_rooms(self) -> Vec<Box<str>> {
        self.iter().map(|room| room.as_ref().into()).collect()
    }
}

/// A socket-to-be, as a middleware sees it: decide whether it may join, and attach what handlers need.
pub struct ConnectRequest {
    pub(crate) shared: Arc<SocketShared>,
    pub(crate) recovering: bool,
}

impl ConnectRequest {
    /// The namespace it asks for.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.shared.namespace
    }

    /// The auth payload as `T`; `()` or `Option` if there is none.
    ///
    /// # Errors
    /// The peer's fault: the payload does not fit `T`.
    pub fn auth<T: DeserializeOwned>(&self) -> Result<T, ArgsFault> {
        decode_auth(self.shared.server.parser(), &self.shared.auth)
    }

    /// The request that opened its session.
    #[must_use]
    pub fn handshake(&self) -> &Handshake {
        &self.shared.handshake
    }

    /// Whether it has proved to be a socket that was lost, which will get its state, rooms and missed events back.
    #[must_use]
    pub fn is_recovering(&self) -> bool {
        self.recovering
    }

    /// The rooms that a recovering socket will have back, its own left out; none for one that is new.
    pub async fn rooms(&self) -> Vec<String> {
        if !self.recovering {
            return Vec::new();
        }
        let (to, answer) = oneshot::channel();
        let key = self.shared.key;
        let call = Mail::Call(Box::new(move |shard: &mut crate::shard::ShardState| {
            let _ = to.send(shard.core.rooms_of(key).iter().map(ToString::to_string).collect());
        }));
        if self.shared.port.send_waiting(call).await.is_err() {
            return Vec::new();
        }
        answer.await.unwrap_or_default()
    }

    /// Lets a recovering socket in as if it were new: under new ids, in no rooms, without what it missed. For whoever may
    /// not have all of it any more. It keeps its state and data, and [`Socket::recovered`] is `false`.
    pub fn start_over(&self) {
        self.shared.is_afresh.store(true, std::sync::atomic::Ordering::Relaxed);
    }

    /// The state that a recovering socket brings.
    #[must_use]
    pub fn state<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        self.shared.kept.state.get().cloned().and_then(|state| state.downcast().ok())
    }

    /// Attaches what handlers get by [`Socket::state`], once. `false`: there is one already.
    pub fn set_state<T: Any + Send + Sync>(&self, state: T) -> bool {
        self.shared.kept.state.set(Arc::new(state)).is_ok()
    }
}

pub(crate) fn decode_auth<T: DeserializeOwned>(parser: Parser, auth: &[u8]) -> Result<T, ArgsFault> {
    if auth.is_empty() {
        // What peers mean by sending none: an object without entries.
        let empty: &[u8] = match parser {
            Parser::Json => b"{}",
            Parser::Msgpack => &[0x80],
        };
        return sio_proto::decode_args(parser, empty, 1, &[] as &[Bytes]);
    }
    sio_proto::decode_args(parser, auth, 1, &[] as &[Bytes])
}
