//! Owns the choice of recipients: rooms, exceptions and flags, then one emit to all of them.
//! Does not know shards' insides. Invariant: a broadcaster is a value; choosing never changes an earlier choice.

use std::sync::Arc;
use std::time::Duration;

use engine_core::{Flags, Target};
use serde::Serialize;
use sio_proto::{Args, Body, One};
use tokio::sync::{mpsc, oneshot};

use crate::ack::{Acks, Part};
use crate::mail::{Broadcast, BroadcastAck, Busy, Command, Mail};
use crate::namespace::Relay;
use crate::server::{Inner, SocketInfo};
use crate::shard::ShardState;
use crate::socket::{EmitError, IntoRooms};

/// Some sockets of a namespace: those in any of its rooms (or all), minus those in any excepted one. SIO5 "Rooms".
///
/// ```no_run
/// # fn f(server: &engine::Server) -> Result<(), engine::EmitError> {
/// server.to("builds").except("muted").emit("progress", &42)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Broadcaster {
    server: Arc<Inner>,
    target: Target,
    flags: Flags,
}

impl Broadcaster {
    pub(crate) fn new(server: Arc<Inner>, target: Target) -> Self {
        Self { server, target, flags: Flags::default() }
    }

    /// Adds rooms. A socket that is in several gets the event once.
    #[must_use]
    pub fn to<R: IntoRooms>(mut self, rooms: R) -> Self {
        self.target.rooms.extend(rooms.into_rooms());
        self
    }

    /// Leaves out the members of these rooms. A socket's id is a room.
    #[must_use]
    pub fn except<R: IntoRooms>(mut self, rooms: R) -> Self {
        self.target.except.extend(rooms.into_rooms());
        self
    }

    /// Skips recipients whose transport cannot take it at once; never replayed.
    #[must_use]
    pub fn volatile(mut self) -> Self {
        self.flags.volatile = true;
        self
    }

    /// Keeps it to the sockets of this node. A server that is not part of a cluster has no others.
    #[must_use]
    pub fn local(mut self) -> Self {
        self.flags.local = true;
        self
    }

    /// Whether it may be compressed, where a link agreed to that. Default true.
    #[must_use]
    pub fn compress(mut self, compress: bool) -> Self {
        self.flags.uncompressed = !compress;
        self
    }

    /// Sends an event with one argument.
    ///
    /// # Errors
    /// [`EmitError::Payload`] before anything was sent. [`EmitError::Busy`] if a shard's mailbox was full: its
    /// members did not get the event, those of other shards did.
    pub fn emit<T: Serialize + ?Sized>(&self, event: &str, payload: &T) -> Result<(), EmitError> {
        self.emit_args(event, &One(payload))
    }

    /// Sends an event with any arguments.
    ///
    /// # Errors
    /// As [`Broadcaster::emit`].
    pub fn emit_args<A: Args + ?Sized>(&self, event: &str, args: &A) -> Result<(), EmitError> {
        let body = self.server.parser().encode_event_args(event, args)?;
        self.send(self.broadcast(body, None))?;
        Ok(())
    }

    fn broadcast(&self, body: Body, ack: Option<BroadcastAck>) -> Broadcast {
        let id = self.server.numbers.broadcast();
        Broadcast { id, target: self.target.clone(), body, flags: self.flags, ack }
    }

    /// Sends on an event that came, under a name of its own, without reading its arguments.
    ///
    /// # Errors
    /// As [`Broadcaster::emit`].
    pub fn emit_relay(&self, relay: Relay) -> Result<(), EmitError> {
        self.send(self.broadcast(relay.0, None))?;
        Ok(())
    }

    fn send(&self, broadcast: Broadcast) -> Result<(), Busy> {
        let broadcast = Arc::new(broadcast);
        // From the look at who wants it until it is in the last mailbox.
        let _sending = self.server.sending.begin();
        let mut outcome = Ok(());
        for port in self.server.interested(&broadcast.target) {
            let sent = port.send(Mail::Command(Command::Broadcast(broadcast.clone())));
            outcome = outcome.and(sent);
        }
        outcome
    }

    /// Sends an event and gathers everyone's ack, for at most `timeout`. Volatile recipients that were skipped are
    /// not asked. Of each ack the reference server keeps the first argument; here they are all there.
    ///
    /// # Errors
    /// As [`Broadcaster::emit`].
    pub async fn emit_with_acks<A: Args + ?Sized>(
        &self,
        event: &str,
        args: &A,
        timeout: Duration,
    ) -> Result<Acks, EmitError> {
        let body = self.server.parser().encode_event_args(event, args)?;
        let (sink, mut parts) = mpsc::unbounded_channel();
        let ack = Some(BroadcastAck { timeout: Some(timeout), sink });
        self.send(self.broadcast(body, ack))?;
        let mut acks = Acks::default();
        // Ends when every shard has let go of its end: all have answered, or their wait is over.
        while let Some(part) = parts.recv().await {
            match part {
                Part::Asked(count) => acks.asked += count,
                Part::Answer(answer) => acks.answers.push(answer),
                Part::TimedOut => acks.timed_out = true,
            }
        }
        Ok(acks)
    }

    /// The sockets chosen, on all shards.
    pub async fn fetch_sockets(&self) -> Vec<SocketInfo> {
        let mut answers = Vec::new();
        for port in self.server.ports() {
            let (to, answer) = oneshot::channel();
            let target = self.target.clone();
            let call = Mail::Call(Box::new(move |shard: &mut ShardState| {
                let _ = to.send(shard.describe(&target));
            }));
            if port.send_waiting(call).await.is_ok() {
                answers.push(answer);
            }
        }
        let mut sockets = Vec::new();
        for answer in answers {
            sockets.extend(answer.await.unwrap_or_default());
        }
        sockets
    }

    /// Has the chosen sockets join rooms.
    ///
    /// # Errors
    /// [`Busy`]: on that shard nothing happened.
    pub fn sockets_join<R: IntoRooms>(&self, rooms: R) -> Result<(), Busy> {
        let rooms: Arc<[Box<str>]> = rooms.into_rooms().into();
        self.command_all(|target| Command::JoinAll { target, rooms: rooms.clone() })
    }

    /// Has the chosen sockets leave rooms.
    ///
    /// # Errors
    /// [`Busy`]: on that shard nothing happened.
    pub fn sockets_leave<R: IntoRooms>(&self, rooms: R) -> Result<(), Busy> {
        let rooms: Arc<[Box<str>]> = rooms.into_rooms().into();
        self.command_all(|target| Command::LeaveAll { target, rooms: rooms.clone() })
    }

    /// Disconnects the chosen sockets; with `close`, their whole connections.
    ///
    /// # Errors
    /// [`Busy`]: on that shard nothing happened.
    pub fn disconnect_sockets(&self, close: bool) -> Result<(), Busy> {
        self.command_all(|target| Command::DisconnectAll { target, close })
    }

    fn command_all(&self, make: impl Fn(Arc<Target>) -> Command) -> Result<(), Busy> {
        let target = Arc::new(self.target.clone());
        let mut outcome = Ok(());
        for port in self.server.interested(&self.target) {
            outcome = outcome.and(port.send(Mail::Command(make(target.clone()))));
        }
        outcome
    }
}
