//! Owns who is there: users and their sockets in rooms. Does not know how sockets live, or which rooms want presence to be
//! told: those that do not are not to be mentioned here at all.
//!
//! Kept nowhere: it lives as long as the sockets of this process. Times are those of a clock that never goes back, so a
//! calendar that is set makes nobody come or go.
//!
//! A user joins a room with the first socket. Whoever loses the last one stays for a grace period, so that somebody who
//! reconnects neither leaves nor joins; whoever leaves the room by asking for it is gone at once. In a room with more than
//! [`PresenceLimits::named_max`] users only their number is told, now and then: to tell each of n members of each other one
//! would be n² events.
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
//! presence.handle_connected(1, Party::User("ann".into()))?;
//! let change = presence.handle_joined(now, &1, &RoomName::parse("tasks")?)?;
//! assert!(matches!(change, Some(Change::Joined { users: 1, connections: 1, .. })));
//! assert_eq!(presence.handle_gone(now, &1), []);
//! let gone_at = presence.poll_deadline().expect("ann may come back until then");
//! assert!(matches!(&presence.handle_timeout(gone_at)[..], [Change::Left { users: 0, .. }]));
//! # Ok::<(), hub::fault::Fault>(())
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fault::{Fault, Refusal};
use crate::outgoing::Outgoing;
use crate::room::RoomName;
use crate::time::Timestamp;

/// The event that tells of a user's first socket in a room.
pub const PRESENCE_JOINED: &str = "presence_joined";
/// The event that tells that a user has left a room.
pub const PRESENCE_LEFT: &str = "presence_left";
/// The event that tells how many are in a room where nobody is named.
pub const PRESENCE_COUNT: &str = "presence_count";

/// Bounds of what is counted, and of what is told.
#[derive(Clone, Debug)]
pub struct PresenceLimits {
    /// Sockets. Default 1,000,000. Full: further ones are refused, and not counted.
    pub sockets_max: usize,
    /// Sockets in rooms, over all rooms. Default 10,000,000. Full: further ones are refused, and not counted.
    pub memberships_max: usize,
    /// Users that are away from a room in their grace period, over all rooms. Default 100,000. Full: whoever leaves is told
    /// of at once.
    pub away_max: usize,
    /// How long a user may be without a socket before that is told. Default 10 s. Lower: reconnecting shows. Higher:
    /// somebody who has gone seems to be there.
    pub grace: Duration,
    /// Users of a room who are named. Default 100. In a larger room only numbers are told. Higher: a room that fills at
    /// once costs the square of it in events.
    pub named_max: usize,
    /// Least time between two counts of one room. Default 5 s.
    pub count_interval: Duration,
}

impl Default for PresenceLimits {
    fn default() -> Self {
        Self {
            sockets_max: 1_000_000,
            memberships_max: 10_000_000,
            away_max: 100_000,
            grace: Duration::from_secs(10),
            named_max: 100,
            count_interval: Duration::from_secs(5),
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
    /// A user has left a room.
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
    /// So many are in a room in which nobody is named.
    Counted {
        /// The room.
        room: RoomName,
        /// How many users are there now.
        users: usize,
        /// How many sockets.
        connections: usize,
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

/// The data of [`PRESENCE_COUNT`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PresenceCount {
    /// In which room.
    pub room: Box<str>,
    /// How many users are there now.
    pub users: usize,
    /// How many sockets.
    pub connections: usize,
    /// When, in RFC 3339.
    pub timestamp: String,
}

impl Change {
    /// The event that tells of it. Kept in no log: it says nothing about another time.
    #[must_use]
    pub fn outgoing(&self, at: Timestamp) -> Outgoing {
        let change = |name, room: &RoomName, user: &str, users, connections| {
            let timestamp = at.to_string();
            let (in_room, user_id) = (room.as_str().into(), user.into());
            let data = PresenceChange { room: in_room, user_id, users, connections, timestamp };
            Outgoing::flat(name, &data, vec![room.clone()]).keyed(user).transient()
        };
        match self {
            Change::Joined { room, user, users, connections } => {
                change(PRESENCE_JOINED, room, user, *users, *connections)
            }
            Change::Left { room, user, users, connections } => {
                change(PRESENCE_LEFT, room, user, *users, *connections)
            }
            Change::Counted { room, users, connections } => {
                let data = PresenceCount {
                    room: room.as_str().into(),
                    users: *users,
                    connections: *connections,
                    timestamp: at.to_string(),
                };
                Outgoing::flat(PRESENCE_COUNT, &data, vec![room.clone()]).transient()
            }
        }
    }
}

/// Who is in a room.
#[derive(Debug)]
pub struct Crowd<'a, K> {
    present: Option<&'a InRoom<K>>,
    sockets: &'a BTreeMap<K, Member>,
    named_max: usize,
}

impl<'a, K: Ord> Crowd<'a, K> {
    /// How many sockets, also of nobody in particular.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.present.map_or(0, |room| room.sockets.len())
    }

    /// How many users, those in their grace period included.
    #[must_use]
    pub fn user_count(&self) -> usize {
        self.present.map_or(0, |room| room.users.len())
    }

    /// Whether there are so few that they are named.
    #[must_use]
    pub fn is_named(&self) -> bool {
        self.user_count() <= self.named_max
    }

    /// The users, in the order of their ids.
    pub fn users(&self) -> impl Iterator<Item = &'a str> + use<'a, K> {
        self.present.into_iter().flat_map(|room| room.users.keys()).map(|user| &**user)
    }

    /// The sockets in their order, each with its user.
    pub fn sockets(&self) -> impl Iterator<Item = (&'a K, Option<&'a str>)> + use<'a, K> {
        let all = self.present.into_iter().flat_map(|room| &room.sockets);
        let sockets = self.sockets;
        all.map(move |socket| (socket, sockets.get(socket).and_then(|member| member.party.user())))
    }
}

/// The registry. `K` names a socket.
#[derive(Debug)]
pub struct Presence<K> {
    sockets: BTreeMap<K, Member>,
    rooms: BTreeMap<RoomName, InRoom<K>>,
    /// Sockets of each user.
    users: BTreeMap<Box<str>, usize>,
    /// Sockets of each agent.
    agents: BTreeMap<Box<str>, usize>,
    /// One entry for each [`Stay::Away`], and for each room whose count is to be told.
    deadlines: BTreeSet<(Instant, Deadline)>,
    memberships: usize,
    limits: PresenceLimits,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Deadline {
    Leaves { room: RoomName, user: Box<str> },
    Counts { room: RoomName },
}

#[derive(Debug)]
struct Member {
    party: Party,
    rooms: BTreeSet<RoomName>,
}

#[derive(Debug)]
struct InRoom<K> {
    sockets: BTreeSet<K>,
    users: BTreeMap<Box<str>, Stay>,
    count: Count,
}

#[derive(Clone, Copy, Debug)]
enum Stay {
    Here { sockets: usize },
    Away { gone_at: Instant },
}

/// When a room's number was told last, or will be.
#[derive(Clone, Copy, Debug)]
enum Count {
    Never,
    Told { at: Instant },
    Due { at: Instant },
}

/// How somebody comes to be in a room no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Parting {
    Left,
    Lost,
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

    /// The sockets that are there.
    pub fn sockets(&self) -> impl Iterator<Item = &K> {
        self.sockets.keys()
    }

    /// Whose a socket is; `None` if it is not there.
    #[must_use]
    pub fn party(&self, socket: &K) -> Option<&Party> {
        self.sockets.get(socket).map(|member| &member.party)
    }

    /// The agents that have sockets.
    pub fn agents(&self) -> impl Iterator<Item = &str> {
        self.agents.keys().map(|agent| &**agent)
    }

    /// A socket is there, in no room yet.
    ///
    /// # Errors
    /// [`Refusal::TooMany`], the server's load's fault; [`Refusal::AlreadyExists`], the caller's. It is not counted then.
    pub fn handle_connected(&mut self, socket: K, party: Party) -> Result<(), Fault> {
        if self.sockets.contains_key(&socket) {
            return Err(Fault::new(Refusal::AlreadyExists, "this socket is already there"));
        }
        refuse_full("sockets", self.sockets.len(), self.limits.sockets_max)?;
        if let Some(user) = party.user() {
            *self.users.entry(user.into()).or_default() += 1;
        }
        if let Party::Agent(agent) = &party {
            *self.agents.entry(agent.clone()).or_default() += 1;
        }
        self.sockets.insert(socket, Member { party, rooms: BTreeSet::new() });
        Ok(())
    }

    /// A socket has joined a room; `None` if nobody need know.
    ///
    /// # Errors
    /// [`Refusal::TooMany`], the server's load's fault; [`Refusal::NotFound`] for a socket that is not there, the caller's.
    /// It is not counted then.
    pub fn handle_joined(
        &mut self,
        now: Instant,
        socket: &K,
        room: &RoomName,
    ) -> Result<Option<Change>, Fault> {
        let member = self.sockets.get_mut(socket);
        let member = member.ok_or_else(|| Fault::new(Refusal::NotFound, "this socket is not there"))?;
        if member.rooms.contains(room) {
            return Ok(None);
        }
        refuse_full("sockets in rooms", self.memberships, self.limits.memberships_max)?;
        self.memberships += 1;
        member.rooms.insert(room.clone());
        let in_room = self.rooms.entry(room.clone()).or_insert_with(InRoom::empty);
        in_room.sockets.insert(socket.clone());
        let Some(user) = member.party.user() else { return Ok(None) };
        match in_room.users.get_mut(user) {
            Some(Stay::Here { sockets }) => {
                *sockets += 1;
                return Ok(None);
            }
            Some(stay) => {
                if let Stay::Away { gone_at } = *stay {
                    let deadline = Deadline::Leaves { room: room.clone(), user: user.into() };
                    self.deadlines.remove(&(gone_at, deadline));
                }
                *stay = Stay::Here { sockets: 1 };
                return Ok(None);
            }
            None => {}
        }
        in_room.users.insert(user.into(), Stay::Here { sockets: 1 });
        let (users, connections) = in_room.size();
        if users > self.limits.named_max {
            return Ok(self.count(now, room));
        }
        Ok(Some(Change::Joined { room: room.clone(), user: user.into(), users, connections }))
    }

    /// A socket has left a room; `None` if nobody need know, also if it was not there.
    pub fn handle_left(&mut self, now: Instant, socket: &K, room: &RoomName) -> Option<Change> {
        let member = self.sockets.get_mut(socket)?;
        if !member.rooms.remove(room) {
            return None;
        }
        let party = member.party.clone();
        self.part(now, (socket, &party), room, Parting::Left)
    }

    /// A socket is gone, and with it from all its rooms. What must be told, room by room; nothing if it was not there.
    pub fn handle_gone(&mut self, now: Instant, socket: &K) -> Vec<Change> {
        let Some(Member { party, rooms }) = self.sockets.remove(socket) else { return Vec::new() };
        let parted = rooms.iter().filter_map(|room| self.part(now, (socket, &party), room, Parting::Lost));
        let changes = parted.collect();
        if let Some(user) = party.user() {
            take_one(&mut self.users, user);
        }
        if let Party::Agent(agent) = &party {
            take_one(&mut self.agents, agent);
        }
        changes
    }

    /// Those whose grace period is over, and numbers that are to be told.
    pub fn handle_timeout(&mut self, now: Instant) -> Vec<Change> {
        let mut changes = Vec::new();
        while self.poll_deadline().is_some_and(|at| at <= now)
            && let Some((_, deadline)) = self.deadlines.pop_first()
        {
            match deadline {
                Deadline::Leaves { room, user } => changes.extend(self.leave(now, &room, &user)),
                Deadline::Counts { room } => {
                    let in_room = self.rooms.get_mut(&room);
                    let in_room = in_room.expect("invariant: a room that is to be counted is there");
                    in_room.count = Count::Told { at: now };
                    let (users, connections) = in_room.size();
                    changes.push(Change::Counted { room, users, connections });
                }
            }
        }
        changes
    }

    /// When [`Presence::handle_timeout`] has something to do.
    #[must_use]
    pub fn poll_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Who is in a room.
    #[must_use]
    pub fn crowd(&self, room: &RoomName) -> Crowd<'_, K> {
        Crowd { present: self.rooms.get(room), sockets: &self.sockets, named_max: self.limits.named_max }
    }

    /// The rooms of a socket in which it was said to be; nothing if it is not there.
    pub fn rooms_of(&self, socket: &K) -> impl Iterator<Item = &RoomName> {
        self.sockets.get(socket).into_iter().flat_map(|member| &member.rooms)
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

    /// Whether an agent has a socket.
    #[must_use]
    pub fn has_agent(&self, agent: &str) -> bool {
        self.agents.contains_key(agent)
    }

    /// A socket is in a room no more.
    fn part(
        &mut self,
        now: Instant,
        (socket, party): (&K, &Party),
        room: &RoomName,
        parting: Parting,
    ) -> Option<Change> {
        self.memberships -= 1;
        let in_room = self.rooms.get_mut(room).expect("invariant: whoever is in a room is counted there");
        in_room.sockets.remove(socket);
        let Some(user) = party.user() else {
            self.close_if_empty(room);
            return None;
        };
        let stay = in_room.users.get_mut(user).expect("invariant: every user of a socket is counted");
        match stay {
            Stay::Here { sockets } if *sockets > 1 => {
                *sockets -= 1;
                return None;
            }
            Stay::Here { .. } | Stay::Away { .. } => {}
        }
        let gone_at = now.checked_add(self.limits.grace).filter(|_| {
            parting == Parting::Lost
                && !self.limits.grace.is_zero()
                && self.deadlines.len() < self.limits.away_max
        });
        match gone_at {
            Some(gone_at) => {
                *stay = Stay::Away { gone_at };
                let deadline = Deadline::Leaves { room: room.clone(), user: user.into() };
                self.deadlines.insert((gone_at, deadline));
                None
            }
            None => self.leave(now, room, user),
        }
    }

    /// A user without sockets in a room is there no more.
    fn leave(&mut self, now: Instant, room: &RoomName, user: &str) -> Option<Change> {
        let in_room = self.rooms.get_mut(room).expect("invariant: a room with users is there");
        in_room.users.remove(user);
        let (users, connections) = in_room.size();
        let change = if users < self.limits.named_max {
            Some(Change::Left { room: room.clone(), user: user.into(), users, connections })
        } else {
            self.count(now, room)
        };
        self.close_if_empty(room);
        change
    }

    /// The number of those in a room has changed: told now, or when it may be.
    fn count(&mut self, now: Instant, room: &RoomName) -> Option<Change> {
        let in_room = self.rooms.get_mut(room)?;
        let due = match in_room.count {
            Count::Due { .. } => return None,
            Count::Never => None,
            Count::Told { at } => at.checked_add(self.limits.count_interval).filter(|due| *due > now),
        };
        match due {
            Some(at) => {
                in_room.count = Count::Due { at };
                self.deadlines.insert((at, Deadline::Counts { room: room.clone() }));
                None
            }
            None => {
                in_room.count = Count::Told { at: now };
                let (users, connections) = in_room.size();
                Some(Change::Counted { room: room.clone(), users, connections })
            }
        }
    }

    fn close_if_empty(&mut self, room: &RoomName) {
        if let Some(in_room) = self.rooms.get(room)
            && in_room.sockets.is_empty()
            && in_room.users.is_empty()
        {
            if let Count::Due { at } = in_room.count {
                self.deadlines.remove(&(at, Deadline::Counts { room: room.clone() }));
            }
            self.rooms.remove(room);
        }
    }
}

impl<K> InRoom<K> {
    fn empty() -> Self {
        Self { sockets: BTreeSet::new(), users: BTreeMap::new(), count: Count::Never }
    }

    /// Users, and sockets.
    fn size(&self) -> (usize, usize) {
        (self.users.len(), self.sockets.len())
    }
}

/// Counts one less, and forgets who has none left.
fn take_one(counts: &mut BTreeMap<Box<str>, usize>, who: &str) {
    let count = counts.get_mut(who).expect("invariant: every socket of somebody is counted");
    *count -= 1;
    if *count == 0 {
        counts.remove(who);
    }
}

fn refuse_full(what: &str, count: usize, count_max: usize) -> Result<(), Fault> {
    if count < count_max {
        return Ok(());
    }
    Err(Fault::new(Refusal::TooMany, format!("{count} {what} are counted, and no more may be")))
}
