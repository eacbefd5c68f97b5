//! Owns what the nodes of one server ask and tell each other about sockets: who is where, who gives a socket up to whom,
//! what an operator wants done to all of them. Does not know how questions travel. Invariant: a node that does not answer
//! costs others a bounded wait, never an error.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use auth::revocation::Revocation;
use axum::body::Bytes;
use bus::{Channel, NodeId, NodeInfo, Request, Requests};
use engine::RecoveryId;
use hub::room::RoomName;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use super::Hub;
use crate::auth::principal_of;
use crate::codes::Fault;
use crate::dispatch::{NodeNews, ROOM_NAMESPACES};
use crate::filters::room_of;

/// How long other nodes may take to answer. A node that has died is waited for until its lease has ended.
const PATIENCE: Duration = Duration::from_secs(2);

/// Questions of other nodes that are worked on at a time. While there are so many the next ones wait in the bus, which drops
/// those beyond its own bound: whoever asks finds out when its patience ends.
const ANSWERING_MAX: usize = 64;

/// What one node asks others.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Question {
    /// To give up a socket that goes on at whoever asks. Answer: whether it was there.
    Release { secret: Box<str> },
    /// Who is in these rooms. Answer: a [`super::seats::SeatChange`] for each seat.
    Seats { rooms: Vec<Box<str>> },
    /// Which agents have sockets. Answer: their ids.
    Agents,
    /// Which sockets are in a room. Answer: a [`Found`] each.
    Members { room: Box<str> },
    /// How many sockets each user has. Answer: by user.
    Users,
    /// How many members each room has. Answer: by room.
    Rooms,
    /// To move those who are in the room `whose` into another one, or out of it. Answer: how many were.
    Move { whose: Box<str>, room: Box<str>, is_join: bool },
    /// To end the connections that a revocation covers. Answer: how many there were.
    Revoke { revocation: Revocation },
}

/// A socket as other nodes see it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Found {
    /// Its public id.
    pub(crate) sid: Box<str>,
    /// Whose it is.
    pub(crate) user: Option<Box<str>>,
    /// Its namespace.
    pub(crate) namespace: Box<str>,
}

impl Hub {
    /// This node's number; 0 if it is the only one.
    pub(super) fn node(&self) -> u16 {
        self.dispatcher().cluster().map_or(0, |cluster| cluster.node())
    }

    /// The numbers of the other nodes.
    pub(super) fn other_nodes(&self) -> BTreeSet<u16> {
        let Some(cluster) = self.dispatcher().cluster() else { return BTreeSet::new() };
        let own = cluster.node();
        cluster.bus().nodes().iter().map(|node| node.id.0).filter(|node| *node != own).collect()
    }

    /// Answers other nodes. Ends with the bus.
    pub(crate) async fn answer_nodes(self: Arc<Self>, mut requests: Requests) {
        let places = Arc::new(Semaphore::new(ANSWERING_MAX));
        // Nobody closes it.
        while let Ok(place) = places.clone().acquire_owned().await {
            let Some(request) = requests.next().await else { return };
            let hub = self.clone();
            // One that takes long does not hold the next one up.
            tokio::spawn(async move {
                hub.answer_node(request).await;
                drop(place);
            });
        }
    }

    async fn answer_node(self: Arc<Self>, request: Request) {
        let question = match serde_json::from_slice(&request.body) {
            Ok(question) => question,
            Err(error) => {
                // Of a newer version: it is answered nothing, which is what it expects of us.
                return tracing::debug!(from = request.from.0, %error, "a node asks what is not known here");
            }
        };
        let answer = match question {
            Question::Release { secret } => match RecoveryId::parse(&secret) {
                Some(secret) => json_of(&self.server().release(&secret).await),
                None => json_of(&false),
            },
            Question::Seats { rooms } => {
                json_of(&self.own_seats(rooms.iter().filter_map(|room| RoomName::parse(&**room).ok())))
            }
            Question::Agents => json_of(&self.attendance.agents()),
            Question::Members { room } => match RoomName::parse(room) {
                Ok(room) => json_of(&self.found_here(&room).await),
                Err(_) => json_of(&[(); 0]),
            },
            Question::Users => json_of(&self.users_here().await),
            Question::Rooms => json_of(&self.rooms_here().await),
            Question::Move { whose, room, is_join } => {
                match (RoomName::parse(whose), RoomName::parse(room)) {
                    (Ok(whose), Ok(room)) => {
                        json_of(&self.move_here(&whose, &room, is_join).await.unwrap_or_default())
                    }
                    _ => json_of(&0),
                }
            }
            Question::Revoke { revocation } => {
                let ended = self.auth.revoke_here(self.server(), &revocation).await;
                json_of(&ended)
            }
        };
        request.answer(answer.into());
    }

    /// Asks all other nodes; those that answer in time.
    pub(super) async fn ask_nodes<T: DeserializeOwned>(&self, question: &Question) -> Vec<(NodeId, T)> {
        let Some(cluster) = self.dispatcher().cluster() else { return Vec::new() };
        if cluster.bus().nodes().len() < 2 {
            return Vec::new();
        }
        let answers = cluster.bus().ask_all(json_of(question).into(), PATIENCE).await;
        if !answers.missing.is_empty() {
            tracing::warn!(nodes = ?answers.missing, "nodes did not answer in time");
        }
        let mut read = Vec::with_capacity(answers.answers.len());
        for (node, answer) in answers.answers {
            if let Ok(answer) = serde_json::from_slice(&answer) {
                read.push((node, answer));
            }
        }
        read
    }

    /// Has whoever has a socket give it up. `node`: who has it, as far as its record says, and is waited for. All others
    /// are asked as well: a socket that moves on before that is written down would else be left behind there, and come
    /// back to life with its peer's next visit.
    pub(super) async fn release_elsewhere(&self, node: u16, secret: &RecoveryId) {
        let Some(cluster) = self.dispatcher().cluster() else { return };
        let question: Bytes = json_of(&Question::Release { secret: secret.expose().into() }).into();
        let others = self.other_nodes();
        if others.iter().any(|other| *other != node) {
            let (bus, question) = (cluster.bus().clone(), question.clone());
            self.control.spawn(async move { bus.ask_all(question, PATIENCE).await });
        }
        if !others.contains(&node) {
            return;
        }
        if let Err(fault) = cluster.bus().ask(NodeId(node), question, PATIENCE).await {
            tracing::warn!(node, %fault, "a socket is taken over from a node that does not answer");
        }
    }

    /// What the bus tells of other nodes. Must not block.
    pub(crate) fn handle_node_news(self: &Arc<Self>, news: NodeNews) {
        match news {
            NodeNews::Came(node) => tracing::info!(node = node.id.0, name = &*node.name, "a node has come"),
            NodeNews::Gone(node) => self.handle_node_gone(&node),
            NodeNews::Resumed => {
                let hub = self.clone();
                self.control.spawn(async move {
                    hub.recount().await;
                    hub.recall_revocations().await;
                });
            }
            NodeNews::Notice { from, event } => self.handle_notice(from, &event),
        }
    }

    fn handle_node_gone(self: &Arc<Self>, node: &NodeInfo) {
        tracing::warn!(node = node.id.0, name = &*node.name, "a node has gone");
        self.attendance.forget(
            |seat| seat.node == node.id.0,
            |changes| {
                self.tell_presence(changes, None);
            },
        );
        if self.dispatcher().is_foremost() {
            // One of those that are left is enough.
            let hub = self.clone();
            self.control.spawn(async move { hub.expect_back().await });
        }
    }

    /// The agents that have sockets elsewhere.
    pub(super) async fn agents_elsewhere(&self) -> BTreeSet<Box<str>> {
        let answers: Vec<(NodeId, Vec<Box<str>>)> = self.ask_nodes(&Question::Agents).await;
        answers.into_iter().flat_map(|(_, agents)| agents).collect()
    }

    async fn found_here(&self, room: &RoomName) -> Vec<Found> {
        let found = self.members(room).await;
        let found = found.iter().map(|member| Found {
            sid: member.id().to_string().into(),
            user: principal_of(member.socket()).user.clone(),
            namespace: member.socket().namespace().into(),
        });
        found.collect()
    }

    /// The sockets that are in a room, on all nodes.
    pub(crate) async fn found(&self, room: &RoomName) -> Vec<Found> {
        let mut found = self.found_here(room).await;
        let Some(cluster) = self.dispatcher().cluster() else { return found };
        // Whoever has members hears the room.
        if cluster.bus().is_wanted_elsewhere(&Channel::Room(room.clone())) {
            let question = Question::Members { room: room.as_str().into() };
            let answers: Vec<(NodeId, Vec<Found>)> = self.ask_nodes(&question).await;
            found.extend(answers.into_iter().flat_map(|(_, found)| found));
        }
        found
    }

    async fn users_here(&self) -> BTreeMap<String, u64> {
        let mut users = BTreeMap::new();
        for namespace in ROOM_NAMESPACES {
            for found in self.server().of(namespace).fetch_sockets().await {
                if let Some(user) = &principal_of(found.socket()).user {
                    *users.entry(user.to_string()).or_default() += 1;
                }
            }
        }
        users
    }

    /// How many sockets each user has, on all nodes.
    pub(crate) async fn users(&self) -> BTreeMap<String, u64> {
        let mut users = self.users_here().await;
        for (_, more) in self.ask_nodes::<BTreeMap<String, u64>>(&Question::Users).await {
            add(&mut users, more);
        }
        users
    }

    async fn rooms_here(&self) -> BTreeMap<String, u64> {
        let mut rooms = BTreeMap::new();
        for ((namespace, room), count) in self.server().stats(true).await.rooms {
            if ROOM_NAMESPACES.contains(&namespace.as_str()) && count > 0 {
                *rooms.entry(room_of(&room).to_owned()).or_default() += count as u64;
            }
        }
        rooms
    }

    /// How many members each room has, on all nodes.
    pub(crate) async fn rooms(&self) -> BTreeMap<String, u64> {
        let mut rooms = self.rooms_here().await;
        for (_, more) in self.ask_nodes::<BTreeMap<String, u64>>(&Question::Rooms).await {
            add(&mut rooms, more);
        }
        rooms
    }

    async fn move_here(&self, whose: &RoomName, room: &RoomName, is_join: bool) -> Result<usize, Fault> {
        let moves = self.members(whose).await;
        let moves = moves.iter().map(|found| async move {
            if is_join {
                return self.bring_in(found.socket(), room).await;
            }
            self.leave(found.socket(), room).await;
            Ok(true)
        });
        let mut sockets = 0;
        for outcome in futures_util::future::join_all(moves).await {
            sockets += usize::from(outcome?);
        }
        Ok(sockets)
    }

    /// Moves those who are in the room `whose` into another one, or out of it, on all nodes. Answers how many were.
    ///
    /// # Errors
    /// As [`Hub::bring_in`].
    pub(crate) async fn move_all(
        &self,
        whose: &RoomName,
        room: &RoomName,
        is_join: bool,
    ) -> Result<usize, Fault> {
        let question = Question::Move { whose: whose.as_str().into(), room: room.as_str().into(), is_join };
        let here = self.move_here(whose, room, is_join).await?;
        let elsewhere = self.ask_nodes::<usize>(&question).await;
        Ok(here + elsewhere.into_iter().map(|(_, count)| count).sum::<usize>())
    }

    /// Ends the connections that a revocation covers on other nodes. Answers how many there were.
    pub(crate) async fn revoke_elsewhere(&self, revocation: &Revocation) -> usize {
        let question = Question::Revoke { revocation: revocation.clone() };
        self.ask_nodes::<usize>(&question).await.into_iter().map(|(_, count)| count).sum()
    }

    /// Learns what was revoked while nothing was heard.
    async fn recall_revocations(&self) {
        if let Err(error) = self.auth.recall(&**self.dispatcher().store()).await {
            tracing::warn!(%error, "what was revoked meanwhile is not known");
        }
    }
}

fn add(all: &mut BTreeMap<String, u64>, more: BTreeMap<String, u64>) {
    for (name, count) in more {
        *all.entry(name).or_default() += count;
    }
}

/// What our own types are on the wire: they can always be written.
fn json_of(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}
