//! Owns how it becomes known who is there: sockets that come and go, and rooms that they join and leave. Does not decide
//! what is told of it; that is `hub::presence`. Invariant: a socket that has gone is in no room here, whatever was under
//! way for it, and what is told has the order in which it happened.
//!
//! Connecting and disconnecting are noted on the shard's thread, where each socket's have their order; rooms in the
//! socket's turn. Only rooms whose policy has presence are noted at all, so the others cost nothing.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use engine::{Sid, Socket};
use hub::presence::{Change, Party, Presence, PresenceLimits};
use hub::principal::{Principal, PrincipalKind};
use hub::room::RoomName;
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::Hub;
use crate::auth::principal_of;
use crate::codes::{Code, Fault};
use crate::dispatch::ROOM_NAMESPACES;
use crate::event::now;

/// What is told of who is there.
#[derive(Clone, Debug)]
pub(crate) struct PresenceConfig {
    /// In rooms.
    pub(crate) limits: PresenceLimits,
    /// How long an agent may be without a socket before that is told.
    pub(crate) agent_grace: Duration,
}

/// One socket, of this node or another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Seat {
    pub(super) sid: Sid,
    /// The number of the node that has it, which need not be the one that its id names.
    pub(super) node: u16,
    pub(super) namespace: &'static str,
}

/// Who is there.
pub(crate) struct Attendance {
    registry: Mutex<Presence<Seat>>,
    /// The registry may want attention earlier than it did.
    changed: Notify,
}

impl Attendance {
    pub(super) fn new(limits: PresenceLimits) -> Self {
        Self { registry: Mutex::new(Presence::new(limits)), changed: Notify::new() }
    }

    /// Whether an agent has a socket.
    pub(super) fn has_agent(&self, agent: &str) -> bool {
        self.registry().has_agent(agent)
    }

    /// The agents that have sockets.
    pub(super) fn agents(&self) -> Vec<Box<str>> {
        self.registry().agents().map(Into::into).collect()
    }

    /// The sockets in a room, each with whose it is.
    pub(super) fn parties_in(&self, room: &RoomName) -> Vec<(Seat, Party)> {
        let registry = self.registry();
        let seats = registry.crowd(room).sockets().map(|(seat, _)| *seat);
        seats.filter_map(|seat| Some((seat, registry.party(&seat)?.clone()))).collect()
    }

    /// The sockets in a room.
    pub(super) fn seats_in(&self, room: &RoomName) -> Vec<Seat> {
        self.registry().crowd(room).sockets().map(|(seat, _)| *seat).collect()
    }

    /// Notes that a socket of another node has come into a room or left it. `tell` is called while the registry is locked.
    pub(super) fn note_elsewhere(
        &self,
        now: Instant,
        seat: Seat,
        party: Party,
        room: &RoomName,
        is_here: bool,
        tell: impl FnOnce(Vec<Change>),
    ) {
        let mut registry = self.registry();
        let changes: Vec<Change> = if is_here {
            // It is known by its first room.
            let _ = registry.handle_connected(seat, party);
            registry.handle_joined(now, &seat, room).ok().flatten().into_iter().collect()
        } else {
            let change = registry.handle_left(now, &seat, room);
            if registry.rooms_of(&seat).next().is_none() {
                registry.handle_gone(now, &seat);
            }
            change.into_iter().collect()
        };
        tell(changes);
        self.changed.notify_one();
    }

    /// Forgets sockets at once, those of a node that has gone. `tell` is called while the registry is locked.
    pub(super) fn forget(&self, is_gone: impl Fn(&Seat) -> bool, tell: impl FnOnce(Vec<Change>)) {
        let now = Instant::now();
        let mut registry = self.registry();
        let gone: Vec<Seat> = registry.sockets().filter(|seat| is_gone(seat)).copied().collect();
        let changes = gone.iter().flat_map(|seat| registry.handle_gone(now, seat)).collect();
        tell(changes);
        self.changed.notify_one();
    }

    /// A panic of another thread has left no change half done: each is one call.
    fn registry(&self) -> MutexGuard<'_, Presence<Seat>> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hub {
    /// A socket has connected, or come back. To be called on its shard's thread.
    pub(super) fn note_here(self: &Arc<Self>, socket: &Socket) {
        let Some(seat) = self.seat_of(socket) else { return };
        let principal = principal_of(socket);
        let outcome = self.attendance.registry().handle_connected(seat, party_of(&principal));
        if let Err(fault) = outcome {
            // It came back before its loss was noticed, or there are too many to be counted.
            tracing::debug!(?socket, message = fault.message, "a socket is not counted anew");
        }
        self.settle_agent(&principal);
    }

    /// A socket has gone. To be called on its shard's thread.
    pub(super) fn note_away(self: &Arc<Self>, socket: &Socket) {
        let Some(seat) = self.seat_of(socket) else { return };
        {
            let mut registry = self.attendance.registry();
            let party = registry.party(&seat).cloned();
            let rooms: Vec<RoomName> = registry.rooms_of(&seat).cloned().collect();
            let changes = registry.handle_gone(Instant::now(), &seat);
            self.tell_presence(changes, None);
            for room in &rooms {
                self.tell_nodes(seat, party.as_ref().unwrap_or(&Party::Anonymous), room, false);
            }
        }
        self.attendance.changed.notify_one();
        self.settle_agent(&principal_of(socket));
    }

    /// A socket has joined a room. Answers how many are there, if that is told.
    pub(super) fn note_joined(&self, socket: &Socket, room: &RoomName) -> Option<usize> {
        let seat = self.seat_of(socket).filter(|_| self.has_presence(room))?;
        let mut registry = self.attendance.registry();
        match registry.handle_joined(Instant::now(), &seat, room) {
            // Whoever joins is answered, not told.
            Ok(change) => self.tell_presence(change.into_iter().collect(), Some(seat.sid)),
            Err(fault) => {
                tracing::debug!(?socket, message = fault.message, "a socket in a room is not counted");
                return None;
            }
        }
        self.tell_nodes(seat, registry.party(&seat).unwrap_or(&Party::Anonymous), room, true);
        self.attendance.changed.notify_one();
        Some(registry.crowd(room).connections())
    }

    /// A socket has left a room.
    pub(super) fn note_left(&self, socket: &Socket, room: &RoomName) {
        let Some(seat) = self.seat_of(socket).filter(|_| self.has_presence(room)) else { return };
        let mut registry = self.attendance.registry();
        let change = registry.handle_left(Instant::now(), &seat, room);
        // Whoever leaves knows.
        self.tell_presence(change.into_iter().collect(), Some(seat.sid));
        self.tell_nodes(seat, registry.party(&seat).unwrap_or(&Party::Anonymous), room, false);
        self.attendance.changed.notify_one();
    }

    /// A socket that has come back is in these rooms.
    pub(super) fn note_rooms(&self, socket: &Socket, rooms: &[RoomName]) {
        for room in rooms {
            self.note_joined(socket, room);
        }
        let Some(seat) = self.seat_of(socket) else { return };
        let noted: Vec<RoomName> = self.attendance.registry().rooms_of(&seat).cloned().collect();
        for room in noted.iter().filter(|room| !rooms.contains(room)) {
            self.note_left(socket, room);
        }
    }

    /// Tells in the order of the calls: to be called while the registry is locked.
    pub(super) fn tell_presence(&self, changes: Vec<Change>, except: Option<Sid>) {
        if changes.is_empty() {
            return;
        }
        let at = now();
        let except: Vec<RoomName> =
            except.and_then(|sid| RoomName::parse(sid.to_string()).ok()).into_iter().collect();
        let events = changes.iter().map(|change| {
            let mut event = change.outgoing(at);
            event.except.clone_from(&except);
            event
        });
        // Each node counts for itself, and tells its own.
        if let Err(fault) = self.dispatcher().publish_here(events.collect()) {
            // Nobody counts on it: `presence` says who is there.
            tracing::debug!(message = fault.message, "a change of presence is not told");
        }
    }

    /// Tells what is to be told later. Never ends.
    pub(crate) async fn watch_presence(self: Arc<Self>) {
        loop {
            let deadline = {
                let mut registry = self.attendance.registry();
                let changes = registry.handle_timeout(Instant::now());
                self.tell_presence(changes, None);
                registry.poll_deadline()
            };
            let changed = self.attendance.changed.notified();
            match deadline {
                Some(deadline) => {
                    // Whichever comes first: both mean to look again.
                    let _ = tokio::time::timeout_at(deadline.into(), changed).await;
                }
                None => changed.await,
            }
        }
    }

    /// Who is in a room, for a socket that may join it.
    ///
    /// # Errors
    /// [`Code::Forbidden`] if it may not, or the room has no presence.
    pub(super) async fn presence_for(&self, socket: &Socket, room: &RoomName) -> Result<Value, Fault> {
        self.may_join(socket, room).await?;
        if !self.has_presence(room) {
            return Err(Fault::new(Code::Forbidden, format!("who is in `{room}` is not told")));
        }
        Ok(self.presence(room).await)
    }

    /// Who is in a room: users and connections, by name if they are few.
    pub(crate) async fn presence(&self, room: &RoomName) -> Value {
        if !self.has_presence(room) {
            return self.presence_uncounted(room).await;
        }
        // Of a room that is heard, all nodes' sockets are known here.
        self.hear(std::slice::from_ref(room)).await;
        let registry = self.attendance.registry();
        let crowd = registry.crowd(room);
        let mut told = json!({
            "room": room.as_str(),
            "user_count": crowd.user_count(),
            "connection_count": crowd.connections(),
        });
        if crowd.is_named() {
            told["users"] = crowd.users().collect();
            told["connections"] = crowd
                .sockets()
                .map(|(seat, user)| connection(&seat.sid.to_string(), user, seat.namespace))
                .collect();
        }
        told
    }

    /// The same of a room that has no presence, for operators: found by asking every shard.
    async fn presence_uncounted(&self, room: &RoomName) -> Value {
        let mut connections = Vec::new();
        let mut users = std::collections::BTreeSet::new();
        for found in self.found(room).await {
            connections.push(connection(&found.sid, found.user.as_deref(), &found.namespace));
            users.extend(found.user);
        }
        json!({
            "room": room.as_str(),
            "user_count": users.len(),
            "connection_count": connections.len(),
            "users": users,
            "connections": connections,
        })
    }

    /// `None` in namespaces that have no rooms.
    fn seat_of(&self, socket: &Socket) -> Option<Seat> {
        let namespace = ROOM_NAMESPACES.into_iter().find(|namespace| *namespace == socket.namespace())?;
        Some(Seat { sid: socket.id(), node: self.node(), namespace })
    }

    pub(super) fn has_presence(&self, room: &RoomName) -> bool {
        self.dispatcher().policies().of(room).has_presence
    }
}

fn connection(sid: &str, user: Option<&str>, namespace: &str) -> Value {
    json!({ "connection_id": sid, "user_id": user, "namespace": namespace })
}

fn party_of(principal: &Principal) -> Party {
    match (principal.kind, &principal.user) {
        (PrincipalKind::Agent, Some(id)) => Party::Agent(id.clone()),
        (PrincipalKind::User | PrincipalKind::Anonymous, Some(id)) => Party::User(id.clone()),
        // A key is nobody's user.
        (PrincipalKind::Key, _) | (_, None) => Party::Anonymous,
    }
}
