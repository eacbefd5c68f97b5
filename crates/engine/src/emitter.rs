//! Owns the choice of recipients: rooms, exceptions and flags, then one emit to all of them.
//! Does not know shards' insides. Invariant: a broadcaster is a value; choosing never changes an earlier choice.

use std::sync::Arc;
use std::time::Duration;

use engine_core::{Flags, Order, Target};
use serde::Serialize;
use sio_proto::{Args, Body, One};
use tokio::sync::{mpsc, oneshot};

use crate::ack::{AckStream, Acks};
use crate::joining::JoinedAll;
use crate::mail::{self, Broadcast, BroadcastAck, Busy, Command, Mail, Port};
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

    /// Sends it as any other event, but never replays it: for what is of no use to whoever comes back later.
    #[must_use]
    pub fn transient(mut self) -> Self {
        self.flags.transient = true;
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

    /// Gives it a number of the application's own, higher than that of all before; see [`Order`]. Numbered events are to
    /// be sent by one task, in their order.
    #[must_use]
    pub fn order(mut self, number: u64) -> Self {
        self.flags.order = Order::Live(number);
        self
    }

    /// Marks it as one that was sent before under this number, and is now sent again to who lacks it; see [`Order`].
    #[must_use]
    pub fn replay(mut self, number: u64) -> Self {
        self.flags.order = Order::Replay(number);
        self
    }

    /// Whether there may be anybody to send to: who makes events that are costly to write can save that. A socket that
    /// joins at this very moment may be overlooked, as it would be by an emit.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.server.interested(&self.target).next().is_some()
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

    /// As [`Broadcaster::emit`], but waits where a shard's mailbox is full instead of leaving it out. What one task sends
    /// so, each awaited before the next, arrives in that order, and in order with what it emits without waiting.
    ///
    /// Nothing is sent before it is first polled; if it is dropped before it is ready, nobody gets the event.
    ///
    /// # Errors
    /// [`EmitError::Payload`]; [`EmitError::Busy`] only when the server has stopped.
    pub fn emit_waiting<T: Serialize + ?Sized>(
        &self,
        event: &str,
        payload: &T,
    ) -> impl Future<Output = Result<(), EmitError>> + Send {
        self.emit_args_waiting(event, &One(payload))
    }

    /// [`Broadcaster::emit_waiting`] with any arguments.
    ///
    /// # Errors
    /// As there.
    pub fn emit_args_waiting<A: Args + ?Sized>(
        &self,
        event: &str,
        args: &A,
    ) -> impl Future<Output = Result<(), EmitError>> + Send + use<A> {
        // Encoded at once, so that the future keeps no argument.
        let body = self.server.parser().encode_event_args(event, args);
        let broadcast = body.map(|body| self.broadcast(body, None));
        let server = self.server.clone();
        async move {
            send_waiting(&server, broadcast?).await?;
            Ok(())
        }
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

    /// Mails it to the shards that want it. Answers how many these are.
    fn send(&self, broadcast: Broadcast) -> Result<usize, Busy> {
        let broadcast = Arc::new(broadcast);
        // From the look at who wants it until it is in the last mailbox.
        let _sending = self.server.sending.begin();
        let mut outcome = Ok(0);
        for port in self.server.interested(&broadcast.target) {
            let sent = port.send(Mail::Command(Command::Broadcast(broadcast.clone())));
            outcome = outcome.and_then(|shards| sent.map(|()| shards + 1));
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
        let mut stream = self.emit_for_acks(event, args, timeout)?;
        let mut answers = Vec::new();
        while let Some(answer) = stream.recv().await {
            answers.push(answer);
        }
        Ok(Acks { answers, asked: stream.asked().await, timed_out: stream.has_timed_out() })
    }

    /// As [`Broadcaster::emit_with_acks`], but gives each ack as it comes, and before that how many are asked: for whoever
    /// passes them on.
    ///
    /// # Errors
    /// As [`Broadcaster::emit`].
    pub fn emit_for_acks<A: Args + ?Sized>(
        &self,
        event: &str,
        args: &A,
        timeout: Duration,
    ) -> Result<AckStream, EmitError> {
        let body = self.server.parser().encode_event_args(event, args)?;
        let (sink, parts) = mpsc::unbounded_channel();
        let ack = Some(BroadcastAck { timeout: Some(timeout), sink });
        let shards = self.send(self.broadcast(body, ack))?;
        Ok(AckStream::new(parts, shards))
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
        self.command_all(|target| Command::JoinAll { target, rooms: rooms.clone(), done: None })
    }

    /// Has the chosen sockets join rooms, each all of them or none, and waits until they have: whoever broadcasts to the
    /// rooms after that, from anywhere, finds them.
    ///
    /// # Errors
    /// [`Busy`] when the server has stopped.
    pub async fn sockets_join_waiting<R: IntoRooms + Send>(&self, rooms: R) -> Result<JoinedAll, Busy> {
        let rooms: Arc<[Box<str>]> = rooms.into_rooms().into();
        let target = Arc::new(self.target.clone());
        let mut answers = Vec::new();
        let ports: Vec<Arc<Port>> = self.server.interested(&self.target).cloned().collect();
        for port in ports {
            let (to, answer) = oneshot::channel();
            let (target, rooms) = (target.clone(), rooms.clone());
            port.send_command_waiting(Command::JoinAll { target, rooms, done: Some(to) }).await?;
            answers.push(answer);
        }
        let mut all = JoinedAll::default();
        for answer in answers {
            let JoinedAll { joined, refused } = answer.await.map_err(|_| Busy { stopped: true })?;
            all.joined += joined;
            all.refused += refused;
        }
        Ok(all)
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

/// Mails a broadcast to every shard that wants it, once all of them have room.
///
/// Shards that want it are looked up and mailed within one [`Mailing`](crate::sending::Mailing), as without waiting:
/// else a socket that moves in between may miss it, or get it on both shards. To wait meanwhile would keep sockets from
/// moving, so the places are taken before, and the look-up is done again after each wait.
async fn send_waiting(server: &Inner, broadcast: Broadcast) -> Result<(), Busy> {
    let broadcast = Arc::new(broadcast);
    let mut places = Vec::new();
    loop {
        let full = {
            let _sending = server.sending.begin();
            let (mut wanted, mut full) = (Vec::new(), None);
            for port in server.interested(&broadcast.target) {
                wanted.push(port);
                let is_taken = |(taken, _): &(u8, _)| *taken == port.index;
                if !mail::is_turn_of(port) && !places.iter().any(is_taken) {
                    match port.try_reserve() {
                        Ok(place) => places.push((port.index, place)),
                        Err(busy) if busy.stopped => return Err(busy),
                        Err(_) => {
                            full = Some(port);
                            break;
                        }
                    }
                }
            }
            match full {
                Some(port) => port,
                None => {
                    for port in wanted {
                        let letter = Mail::Command(Command::Broadcast(broadcast.clone()));
                        match places.iter().position(|(taken, _)| *taken == port.index) {
                            Some(index) => places.swap_remove(index).1.send(letter),
                            // In its own turn a shard takes any number of commands.
                            None => port.send(letter)?,
                        }
                    }
                    return Ok(());
                }
            }
        };
        // Who waits holds places of shards before that one only, so that no two wait for each other.
        places.retain(|(taken, _)| *taken < full.index);
        places.push((full.index, full.reserve().await?));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use eio_proto::Sid;
    use engine_core::{Recovery, ShardId};
    use tokio::time::timeout;

    use super::*;
    use crate::mail::MAILBOX_LETTERS;
    use crate::server::Server;

    const MOMENT: Duration = Duration::from_millis(50);
    const LONG: Duration = Duration::from_secs(120);

    /// Keeps a shard from taking letters until the answer is dropped, and fills its mailbox.
    async fn choke(server: &Server, shard: usize) -> Sender<()> {
        let (release, released) = channel::<()>();
        let (begun, has_begun) = oneshot::channel();
        let port = &server.inner.ports()[shard];
        let call = Mail::Call(Box::new(move |_| {
            let _ = begun.send(());
            let _ = released.recv();
        }));
        assert!(port.send(call).is_ok());
        has_begun.await.expect("the shard takes letters until then");
        for _ in 0..MAILBOX_LETTERS {
            assert!(port.send(Mail::Call(Box::new(|_| {}))).is_ok());
        }
        release
    }

    /// The name of a socket's own room on a shard, which has no such socket.
    fn nobody(shard: u8) -> String {
        let mut bytes = [7; 15];
        bytes[..3].copy_from_slice(&[0, 0, shard]);
        let sid = Sid::new(bytes);
        assert_eq!(ShardId::of(sid).shard, shard);
        sid.to_string()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn who_waits_for_a_full_mailbox_keeps_no_socket_from_moving() {
        let server = Server::builder().shards(3).recovery(Recovery::default()).build().unwrap();
        let release = choke(&server, 1).await;
        let to_all = server.to([nobody(0), nobody(1), nobody(2)]);
        let busy = to_all.emit("at once", &1).unwrap_err();
        assert!(matches!(busy, EmitError::Busy(busy) if !busy.is_stopped()));
        let mut waiting = std::pin::pin!(to_all.emit_waiting("later", &2));
        assert!(timeout(MOMENT, waiting.as_mut()).await.is_err(), "shard 1 has no room");
        timeout(LONG, server.inner.sending.settle()).await.expect("nobody counts as sending");
        // Places are taken in the order of shards: that of shard 2 stays free for others.
        assert!(server.to(nobody(2)).emit_waiting("past it", &3).await.is_ok());
        drop(release);
        timeout(LONG, waiting).await.expect("there is room again").unwrap();
        server.shutdown(Duration::ZERO).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn many_who_wait_for_several_full_mailboxes_all_come_through() {
        let server = Server::builder().shards(2).recovery(Recovery::default()).build().unwrap();
        let releases = [choke(&server, 0).await, choke(&server, 1).await];
        let waiting: Vec<_> = (0..100)
            .map(|number| {
                let rooms = if number % 2 == 0 { [0, 1] } else { [1, 0] };
                let to = server.to(rooms.map(nobody));
                tokio::spawn(async move { to.emit_waiting("m", &number).await })
            })
            .collect();
        tokio::time::sleep(MOMENT).await;
        assert!(waiting.iter().all(|task| !task.is_finished()));
        drop(releases);
        for task in waiting {
            timeout(LONG, task).await.expect("in time").expect("no panic").expect("it is sent");
        }
        server.shutdown(Duration::ZERO).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_stopped_server_keeps_nobody_waiting() {
        let server = Server::builder().shards(2).build().unwrap();
        server.shutdown(Duration::ZERO).await;
        let stopped = loop {
            // The shard's thread ends a moment after it was told to.
            match timeout(LONG, server.to(nobody(1)).emit_waiting("m", &1)).await.expect("in time") {
                Ok(()) => tokio::time::sleep(Duration::from_millis(1)).await,
                Err(error) => break error,
            }
        };
        assert!(matches!(stopped, EmitError::Busy(busy) if busy.is_stopped()));
    }
}
