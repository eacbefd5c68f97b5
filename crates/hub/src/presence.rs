//! Owns who is there: users and their sockets in rooms, and agents with a grace period. Does not know how sockets live, or
//! whether a room wants presence to be told.
//!
//! Kept nowhere: it lives as long as the sockets of this process. Times are those of a clock that never goes back, so a
//! calendar that is set makes no agent come or go.
//!
//! For each socket first [`Presence::handle_connected`], then any number of [`Presence::handle_joined`] and
//! [`Presence::handle_left`], then [`Presence::handle_gone`]. Whatever [`Presence::poll_deadline`] says,
//! [`Presence::handle_timeout`] at that time:
//!
//! ```
//! use hub::presence::{Change, Party, Presence, PresenceLimits};
//! use hub::room::RoomName;
//!
//! let mut presence = Presence::new(PresenceLimits::default());
//! let now = std::time::Instant::now();
//! presence.handle_connected(now, 1, Party::User("ann".into()))?;
//! let change = presence.handle_joined(&1, &RoomName::parse("tasks")?)?;
//! assert!(matches!(change, Some(Change::Joined { users: 1, connections: 1, .. })));
//! assert_eq!(presence.handle_gone(now, &1).len(), 1);
//! # Ok::<(), hub::fault::Fault>(())
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fault::{Fault, Refusal};
use crate::outgoing::Outgoing;
use crate::room::{RoomKind, RoomName};
use crate::time::Timestamp;

/// The event that tells of a user's first socket in a room.
pub const PRESENCE_JOINED: &str = "presence_joined";
/// The event that tells that a user's last socket has left a room.
pub const PRESENCE_LEFT: &str = "presence_left";
/// The event that tells of an agent's first socket.
pub const AGENT_CONNECTED: &str = "agent.connected";
/// The event that tells that an agent has had no socket for the grace period.
pub const AGENT_DISCONNECTED: &str = "agent.disconnected";

/// Bounds of what is counted.
#[derive(Clone, Debug)]
pub struct PresenceLimits {
    /// Sockets. Default 1,000,000. Full: further ones are refused, and not counted.
    pub sockets_max: usize,
    /// Sockets in rooms, over all rooms. Default 10,000,000. Full: further ones are refused, and not counted.
    pub memberships_max: usize,
    /// Agents that are away in their grace period. Default 100,000. Full: whoever leaves is told of at once.
    pub agents_away_max: usize,
    /// How long an agent may be without a socket before that is told. Default 10 s. Lower: reconnecting shows. Higher:
    /// one that broke down seems to live on.
    pub grace: Duration,
}

impl Default for PresenceLimits {
    fn default() -> Self {
        Self {
            sockets_max: 1_000_000,
            memberships_max: 10_000_000,
            agents_away_max: 100_000,
            grace: Duration::from_secs(10),
        }
    }
}

/// Whose socket it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Party {
    /// Nobody knows: counts as a connection only.
    Anonymous,
    /// A user's.
    User(Box<str>),
    /// An agent's, which counts as a user of that name in rooms.
    Agent(Box<str>),
}

impl Party {
    fn user(&self) -> Option<&str> {
        match self {
            Party::Anonymous => None,
            Party::User(id) | Party::Agent(id) => Some(id),
        }
    }
}

/// What is to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A user's first socket is in a room.
    Joined {
        /// The room.
        room: RoomName,
        /// The user.
        user: Box<str>,
        /// How many users are there now.
        users: usize,
        /// How many sockets.
        connections: usize,
    },
    /// A user's last socket has left a room.
    Left {
        /// The room.
        room: RoomName,
        /// The user.
        user: Box<str>,
        /// How many users are there now.
        users: usize,
        /// How many sockets.
        connections: usize,
    },
    /// An agent is there.
    AgentConnected {
        /// The agent.
        agent: Box<str>,
    },
    /// An agent is gone.
    AgentDisconnected {
        /// The agent.
        agent: Box<str>,
    },
}

/// The data of [`PRESENCE_JOINED`] and [`PRESENCE_LEFT`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PresenceChange {
    /// In which room.
    pub room: Box<str>,
    /// Which user.
    pub user_id: Box<str>,
    /// How many users are there now.
    pub users: usize,
    /// How many sockets.
    pub connections: usize,
    /// When, in RFC 3339.
    pub timestamp: String,
}

/// The data of [`AGENT_CONNECTED`] and [`AGENT_DISCONNECTED`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AgentChange {
    /// Which agent.
    pub agent_id: Box<str>,
    /// When it came, in RFC 3339; only if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connected_at: Option<String>,
    /// When it was found to be gone, in RFC 3339; only if it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disconnected_at: Option<String>,
}

impl Change {
    /// The event that tells of it; `None` for an agent whose id makes no room's name. Presence in rooms is kept in no
    /// log: it says nothing about another time. Agents' coming and going is.
    #[must_use]
    pub fn outgoing(&self, at: Timestamp) -> Option<Outgoing> {
        let presence = |name, room: &RoomName, user: &str, users, connections| {
            let timestamp = at.to_string();
            let room_text = room.as_str().into();
            let data =
                PresenceChange { room: room_text, user_id: user.into(), users, connections, timestamp };
            Some(Outgoing::flat(name, &data, vec![room.clone()]).keyed(user).volatile())
        };
        let agent = |name, id: &str, connected_at, disconnected_at| {
            let room = RoomName::of(RoomKind::Agent, id).ok()?;
            let data = AgentChange { agent_id: id.into(), connected_at, disconnected_at };
            Some(Outgoing::wrapped(name, &data, vec![room]).keyed(id))
        };
        let at_text = Some(at.to_string());
        match self {
            Change::Joined { room, user, users, connections } => {
                presence(PRESENCE_JOINED, room, user, *users, *connections)
            }
            Change::Left { room, user, users, connections } => {
                presence(PRESENCE_LEFT, room, user, *users, *connections)
            }
            Change::AgentConnected { agent: id } => agent(AGENT_CONNECTED, id, at_text, None),
            Change::AgentDisconnected { agent: id } => agent(AGENT_DISCONNECTED, id, None, at_text),
        }
    }
}

/// Who is in a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crowd<'a> {
    present: Option<&'a InRoom>,
}

impl<'a> Crowd<'a> {
    /// How many sockets, also of nobody in particular.
    #[must_use]
    pub fn connections(self) -> usize {
        self.present.map_or(0, |room| room.connections)
    }

    /// How many users.
    #[must_use]
    pub fn user_count(self) -> usize {
        self.present.map_or(0, |room| room.users.len())
    }

    /// The users after one of that name (none: from the first), in the order of their ids, each with their sockets there.
    pub fn users_after(self, after: Option<&str>) -> impl Iterator<Item = (&'a str, usize)> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        let users = self.present.map(|room| room.users.range::<str, _>((from, Unbounded)));
        users.into_iter().flatten().map(|(user, sockets)| (&**user, *sockets))
    }
}

/// The registry. `K` names a socket.
#[derive(Debug)]
pub struct Presence<K> {
    sockets: BTreeMap<K, Member>,
    rooms: BTreeMap<RoomName, InRoom>,
    /// Sockets of each user.
    users: BTreeMap<Box<str>, usize>,
    agents: BTreeMap<Box<str>, Agent>,
    /// When agents that are away are gone: one entry for each [`Agent::Away`].
    deadlines: BTreeSet<(Instant, Box<str>)>,
    memberships: usize,
    limits: PresenceLimits,
}

#[derive(Debug)]
struct Member {
    party: Party,
    rooms: BTreeSet<RoomName>,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct InRoom {
    connections: usize,
    users: BTreeMap<Box<str>, usize>,
}

#[derive(Debug)]
enum Agent {
    Here { sockets: usize },
    Away { gone_at: Instant },
}

impl<K: Ord + Clone> Presence<K> {
    /// Nobody is there.
    #[must_use]
    pub fn new(limits: PresenceLimits) -> Self {
        Self {
            sockets: BTreeMap::new(),
            rooms: BTreeMap::new(),
            users: BTreeMap::new(),
            agents: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            memberships: 0,
            limits,
        }
    }

    /// A socket is there, in no room yet.
    ///
    /// # Errors
    /// [`Refusal::TooMany`], the server's load's fault; [`Refusal::AlreadyExists`], the caller's. It is not counted then.
    pub fn handle_connected(&mut self, now: Instant, socket: K, party: Party) -> Result<Vec<Change>, Fault> {
        if self.sockets.contains_key(&socket) {
            return Err(Fault::new(Refusal::AlreadyExists, "this socket is already there"));
        }
        refuse_full("sockets", self.sockets.len(), self.limits.sockets_max)?;
        // Whoever is gone by now is so, even if nobody has asked yet.
        let mut changes = self.handle_timeout(now);
        if let Some(user) = party.user() {
            *self.users.entry(user.into()).or_default() += 1;
        }
        if let Party::Agent(agent) = &party {
            changes.extend(self.agent_came(agent));
        }
        self.sockets.insert(socket, Member { party, rooms: BTreeSet::new() });
        Ok(changes)
    }

    /// A socket has joined a room; `None` if nobody need know.
    ///
    /// # Errors
    /// [`Refusal::TooMany`], the server's load's fault; [`Refusal::NotFound`] for a socket that is not there, the caller's.
    /// It is not counted then.
    pub fn handle_joined(&mut self, socket: &K, room: &RoomName) -> Result<Option<Change>, Fault> {
        let member = self.sockets.get_mut(socket);
        let member = member.ok_or_else(|| Fault::new(Refusal::NotFound, "this socket is not there"))?;
        if member.rooms.contains(room) {
            return Ok(None);
        }
        refuse_full("sockets in rooms", self.memberships, self.limits.memberships_max)?;
        self.memberships += 1;
        member.rooms.insert(room.clone());
        let in_room = self.rooms.entry(room.clone()).or_default();
        in_room.connections += 1;
        let Some(user) = member.party.user() else { return Ok(None) };
        let sockets = in_room.users.entry(user.into()).or_default();
        *sockets += 1;
        if *sockets > 1 {
            return Ok(None);
        }
        let (users, connections) = (in_room.users.len(), in_room.connections);
        Ok(Some(Change::Joined { room: room.clone(), user: user.into(), users, connections }))
    }

    /// A socket has left a room; `None` if nobody need know, also if it was not there.
    pub fn handle_left(&mut self, socket: &K, room: &RoomName) -> Option<Change> {
        let member = self.sockets.get_mut(socket)?;
        if !member.rooms.remove(room) {
            return None;
        }
        let party = member.party.clone();
        self.leave(&party, room)
    }

    /// A socket is gone, and with it from all its rooms. What must be told, room by room; nothing if it was not there.
    pub fn handle_gone(&mut self, now: Instant, socket: &K) -> Vec<Change> {
        let Some(Member { party, rooms }) = self.sockets.remove(socket) else { return Vec::new() };
        let mut changes: Vec<Change> = rooms.iter().filter_map(|room| self.leave(&party, room)).collect();
        if let Some(user) = party.user() {
            take_one(&mut self.users, user);
        }
        if let Party::Agent(agent) = &party {
            changes.extend(self.agent_left(agent, now));
        }
        changes
    }

    /// Agents whose grace period is over.
    pub fn handle_timeout(&mut self, now: Instant) -> Vec<Change> {
        let mut changes = Vec::new();
        while self.poll_deadline().is_some_and(|gone_at| gone_at <= now)
            && let Some((_, agent)) = self.deadlines.pop_first()
        {
            self.agents.remove(&agent);
            changes.push(Change::AgentDisconnected { agent });
        }
        changes
    }

    /// When [`Presence::handle_timeout`] has something to do.
    #[must_use]
    pub fn poll_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(gone_at, _)| *gone_at)
    }

    /// Who is in a room.
    #[must_use]
    pub fn crowd(&self, room: &RoomName) -> Crowd<'_> {
        Crowd { present: self.rooms.get(room) }
    }

    /// How many sockets a user has.
    #[must_use]
    pub fn connections_of(&self, user: &str) -> usize {
        self.users.get(user).copied().unwrap_or_default()
    }

    /// Everybody who has a socket, in the order of their ids, with how many.
    pub fn users(&self) -> impl ExactSizeIterator<Item = (&str, usize)> {
        self.users.iter().map(|(user, sockets)| (&**user, *sockets))
    }

    /// Whether an agent has a socket, or is in its grace period.
    #[must_use]
    pub fn has_agent(&self, agent: &str) -> bool {
        self.agents.contains_key(agent)
    }

    fn leave(&mut self, party: &Party, room: &RoomName) -> Option<Change> {
        self.memberships -= 1;
        let in_room = self.rooms.get_mut(room).expect("invariant: whoever is in a room is counted there");
        in_room.connections -= 1;
        let left = party.user().filter(|user| take_one(&mut in_room.users, user));
        let (users, connections) = (in_room.users.len(), in_room.connections);
        if connections == 0 {
            self.rooms.remove(room);
        }
        Some(Change::Left { room: room.clone(), user: left?.into(), users, connections })
    }

    fn agent_came(&mut self, agent: &str) -> Option<Change> {
        match self.agents.get_mut(agent) {
            Some(Agent::Here { sockets }) => {
                *sockets += 1;
                None
            }
            Some(Agent::Away { gone_at }) => {
                self.deadlines.remove(&(*gone_at, agent.into()));
                self.agents.insert(agent.into(), Agent::Here { sockets: 1 });
                None
            }
            None => {
                self.agents.insert(agent.into(), Agent::Here { sockets: 1 });
                Some(Change::AgentConnected { agent: agent.into() })
            }
        }
    }

    fn agent_left(&mut self, agent: &str, now: Instant) -> Option<Change> {
        if let Some(Agent::Here { sockets }) = self.agents.get_mut(agent)
            && *sockets > 1
        {
            *sockets -= 1;
            return None;
        }
        let gone_at = now.checked_add(self.limits.grace).filter(|_| !self.limits.grace.is_zero());
        match gone_at.filter(|_| self.deadlines.len() < self.limits.agents_away_max) {
            Some(gone_at) => {
                self.agents.insert(agent.into(), Agent::Away { gone_at });
                self.deadlines.insert((gone_at, agent.into()));
                None
            }
            None => {
                self.agents.remove(agent);
                Some(Change::AgentDisconnected { agent: agent.into() })
            }
        }
    }
}

/// Counts one less, and forgets who has none left. Whether that was so.
fn take_one(counts: &mut BTreeMap<Box<str>, usize>, user: &str) -> bool {
    let count = counts.get_mut(user).expect("invariant: every socket of a user is counted");
    *count -= 1;
    let was_last = *count == 0;
    if was_last {
        counts.remove(user);
    }
    was_last
}

fn refuse_full(what: &str, count: usize, count_max: usize) -> Result<(), Fault> {
    if count < count_max {
        return Ok(());
    }
    Err(Fault::new(Refusal::TooMany, format!("{count} {what} are counted, and no more may be")))
}
