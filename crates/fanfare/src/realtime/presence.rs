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

/// One socket; its namespace comes second, for it says less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Seat {
    sid: Sid,
    namespace: &'static str,
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

    /// A panic of another thread has left no change half done: each is one call.
    fn registry(&self) -> MutexGuard<'_, Presence<Seat>> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hub {
    /// A socket has connected, or come back. To be called on its shard's thread.
    pub(super) fn note_here(self: &Arc<Self>, socket: &Socket) {
        let Some(seat) = seat_of(socket) else { return };
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
        let Some(seat) = seat_of(socket) else { return };
        {
            let mut registry = self.attendance.registry();
            let changes = registry.handle_gone(Instant::now(), &seat);
            self.tell_presence(changes, None);
        }
        self.attendance.changed.notify_one();
        self.settle_agent(&principal_of(socket));
    }

    /// A socket has joined a room. Answers how many are there, if that is told.
    pub(super) fn note_joined(&self, socket: &Socket, room: &RoomName) -> Option<usize> {
        let seat = seat_of(socket).filter(|_| self.has_presence(room))?;
        let mut registry = self.attendance.registry();
        match registry.handle_joined(Instant::now(), &seat, room) {
            // Whoever joins is answered, not told.
            Ok(change) => self.tell_presence(change.into_iter().collect(), Some(seat.sid)),
            Err(fault) => {
                tracing::debug!(?socket, message = fault.message, "a socket in a room is not counted");
                return None;
            }
        }
        self.attendance.changed.notify_one();
        Some(registry.crowd(room).connections())
    }

    /// A socket has left a room.
    pub(super) fn note_left(&self, socket: &Socket, room: &RoomName) {
        let Some(seat) = seat_of(socket).filter(|_| self.has_presence(room)) else { return };
        let mut registry = self.attendance.registry();
        let change = registry.handle_left(Instant::now(), &seat, room);
        // Whoever leaves knows.
        self.tell_presence(change.into_iter().collect(), Some(seat.sid));
        self.attendance.changed.notify_one();
    }

    /// A socket that has come back is in these rooms.
    pub(super) fn note_rooms(&self, socket: &Socket, rooms: &[RoomName]) {
        for room in rooms {
            self.note_joined(socket, room);
        }
        let Some(seat) = seat_of(socket) else { return };
        let noted: Vec<RoomName> = self.attendance.registry().rooms_of(&seat).cloned().collect();
        for room in noted.iter().filter(|room| !rooms.contains(room)) {
            self.note_left(socket, room);
        }
    }

    /// Tells in the order of the calls: to be called while the registry is locked.
    fn tell_presence(&self, changes: Vec<Change>, except: Option<Sid>) {
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
        if let Err(fault) = self.dispatcher().publish(None, events.collect()) {
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
        let registry = self.attendance.registry();
        let crowd = registry.crowd(room);
        let mut told = json!({
            "room": room.as_str(),
            "user_count": crowd.user_count(),
            "connection_count": crowd.connections(),
        });
        if crowd.is_named() {
            told["users"] = crowd.users().collect();
            told["connections"] =
                crowd.sockets().map(|(seat, user)| connection(seat.sid, user, seat.namespace)).collect();
        }
        told
    }

    /// The same of a room that has no presence, for operators: found by asking every shard.
    async fn presence_uncounted(&self, room: &RoomName) -> Value {
        let mut connections = Vec::new();
        let mut users = std::collections::BTreeSet::new();
        for found in self.members(room).await {
            let principal = principal_of(found.socket());
            users.extend(principal.user.as_deref().map(str::to_owned));
            connections.push(connection(found.id(), principal.user.as_deref(), found.socket().namespace()));
        }
        json!({
            "room": room.as_str(),
            "user_count": users.len(),
            "connection_count": connections.len(),
            "users": users,
            "connections": connections,
        })
    }

    fn has_presence(&self, room: &RoomName) -> bool {
        self.dispatcher().policies().of(room).has_presence
    }
}

fn connection(sid: Sid, user: Option<&str>, namespace: &str) -> Value {
    json!({ "connection_id": sid.to_string(), "user_id": user, "namespace": namespace })
}

/// `None` in namespaces that have no rooms.
fn seat_of(socket: &Socket) -> Option<Seat> {
    let namespace = ROOM_NAMESPACES.into_iter().find(|namespace| *namespace == socket.namespace())?;
    Some(Seat { sid: socket.id(), namespace })
}

fn party_of(principal: &Principal) -> Party {
    match (principal.kind, &principal.user) {
        (PrincipalKind::Agent, Some(id)) => Party::Agent(id.clone()),
        (PrincipalKind::User | PrincipalKind::Anonymous, Some(id)) => Party::User(id.clone()),
        // A key is nobody's user.
        (PrincipalKind::Key, _) | (_, None) => Party::Anonymous,
    }
}
