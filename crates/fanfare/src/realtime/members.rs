//! Owns what is kept of a socket so that it can come back after the process has gone: its id, who it is, its rooms, and
//! since when it has been in them. Does not know what rooms' logs hold.
//!
//! A record is made when the socket connects, follows it into rooms before it joins and out of them after it left, and
//! goes when the socket cannot come back any more. It is found by a digest of the secret that its peer shows, so that
//! whoever reads the database cannot become anybody.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use engine::{Reason, RecoveryId, RestoreRequest, Sid, Socket};
use hub::principal::{Principal, PrincipalKind};
use hub::record::{State, Step};
use hub::room::RoomName;
use hub::store::{Listing, RecordKey, RecordKind};
use hub::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::stay::Stay;
use super::{Hub, Standing};
use crate::auth::{Identity, principal_of};
use crate::codes::Fault;
use crate::dispatch::{Asking, Rule, record_rule};
use crate::event::now;

/// Time that a record stays after its socket was lost, beyond what the peer has to come back: clocks of both differ, and
/// a process takes a while to start.
const GRACE: Duration = Duration::from_secs(60);

/// Records that are looked through at once when the process begins.
const PAGE: usize = 1_000;

/// A socket as it is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Member {
    digest: Box<str>,
    /// Its public id.
    pub(crate) sid: Box<str>,
    /// The namespace it is in.
    pub(crate) namespace: Box<str>,
    user: Option<Box<str>>,
    session: Option<Box<str>>,
    is_agent: bool,
    /// Its rooms, each with the newest order that had been sent out before it joined.
    pub(crate) rooms: BTreeMap<Box<str>, u64>,
    /// As what it is in them, where that is not the usual.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    standings: BTreeMap<Box<str>, Standing>,
    created_at: Timestamp,
    /// When the process began that it is connected to, or was.
    began_at: Timestamp,
    /// The number of that process among the nodes; 0 if it is the only one.
    #[serde(default)]
    node: u16,
    /// When it has stayed away for too long; `None` while it is here.
    gone_at: Option<Timestamp>,
}

impl State for Member {
    const KIND: RecordKind = RecordKind::Session;

    fn id(&self) -> &str {
        &self.digest
    }

    fn group(&self) -> &str {
        self.user.as_deref().unwrap_or_default()
    }

    fn status(&self) -> &'static str {
        if self.gone_at.is_some() { "lost" } else { "here" }
    }

    fn created_at(&self) -> Timestamp {
        self.created_at
    }

    fn due_at(&self) -> Option<Timestamp> {
        self.gone_at
    }
}

impl Member {
    /// Who it was. What it may do is for what it shows now to say.
    pub(crate) fn principal(&self) -> Principal {
        let kind = match (&self.user, self.is_agent) {
            (None, _) => PrincipalKind::Anonymous,
            (Some(_), true) => PrincipalKind::Agent,
            (Some(_), false) => PrincipalKind::User,
        };
        Principal { kind, user: self.user.clone(), session: self.session.clone(), ..Principal::anonymous() }
    }
}

/// What is done when a socket has stayed away for too long.
pub(crate) fn due(member: &Member, now: Timestamp) -> Step<Member> {
    match member.gone_at {
        Some(gone) if gone <= now => Step { next: None, events: Vec::new() },
        _ => Step::quiet(member.clone()),
    }
}

/// The key under which a socket is kept.
pub(crate) fn key(secret: &RecoveryId) -> RecordKey {
    Member::key_of(&auth::digest::of(secret.expose().as_bytes()))
}

impl Hub {
    /// Keeps a socket that has connected, in its rooms, unless its stay is over by then. What does not come back is not kept.
    pub(super) async fn remember(&self, socket: &Socket, stay: Stay, rooms: &[RoomName]) {
        let Some(secret) = socket.recovery_id() else { return };
        let key = key(&secret);
        let principal = principal_of(socket);
        let order = self.dispatcher().newest_order().await;
        let member = Member {
            digest: key.id.clone(),
            sid: socket.id().to_string().into(),
            namespace: socket.namespace().into(),
            user: principal.user.clone(),
            session: principal.session.clone(),
            is_agent: principal.kind == PrincipalKind::Agent,
            rooms: rooms.iter().map(|room| (room.as_str().into(), order)).collect(),
            standings: BTreeMap::new(),
            created_at: now(),
            began_at: self.began_at,
            node: self.node(),
            gone_at: None,
        };
        let rule = record_rule::<Member, _, _>(
            move |present, _| Ok(Step { next: arrive(present, &member, stay.is_over()), events: Vec::new() }),
            |_| Value::Null,
        );
        self.keep(key, rule).await;
    }

    /// Notes that a socket is about to join a room. Awaited before it does: whoever is told that it is in a room must be
    /// there again after a crash.
    pub(super) async fn remember_join(&self, socket: &Socket, room: &RoomName) -> Result<(), Fault> {
        let Some(secret) = socket.recovery_id() else { return Ok(()) };
        let standing = socket.state::<Identity>().map(|identity| identity.standings.of(room));
        let standing = standing.filter(|standing| *standing != Standing::default());
        let (room, order): (Box<str>, u64) = (room.as_str().into(), self.dispatcher().newest_order().await);
        let rule = record_rule::<Member, _, _>(
            move |present, _| {
                Ok(change(present, |member| {
                    member.rooms.entry(room.clone()).or_insert(order);
                    match &standing {
                        Some(standing) => member.standings.insert(room.clone(), standing.clone()),
                        None => member.standings.remove(&room),
                    };
                }))
            },
            |_| Value::Null,
        );
        self.dispatcher().change(Some(key(&secret)), None, rule).await.map(|_| ())
    }

    /// Notes that a socket has left a room.
    pub(super) async fn remember_leave(&self, socket: &Socket, room: &RoomName) {
        let Some(secret) = socket.recovery_id() else { return };
        let room: Box<str> = room.as_str().into();
        let rule = record_rule::<Member, _, _>(
            move |present, _| {
                Ok(change(present, |member| {
                    member.rooms.remove(&room);
                    member.standings.remove(&room);
                }))
            },
            |_| Value::Null,
        );
        self.keep(key(&secret), rule).await;
    }

    /// Notes that a socket has gone.
    pub(super) async fn remember_gone(&self, socket: &Socket, reason: Reason) {
        let Some(secret) = socket.recovery_id() else { return };
        if reason == Reason::TakenOver {
            // It goes on elsewhere.
            return;
        }
        let stays = socket.may_come_back(reason).then_some(self.away_max + GRACE);
        let node = self.node();
        let rule = record_rule::<Member, _, _>(
            move |present, now| {
                if let Some(elsewhere) = present.filter(|member| member.node != node) {
                    // It has come back there before its loss was noticed here.
                    return Ok(Step::quiet(elsewhere.clone()));
                }
                let next = present.cloned().and_then(|member| {
                    let gone_at = Some(now.plus(stays?));
                    Some(Member { gone_at, ..member })
                });
                Ok(Step { next, events: Vec::new() })
            },
            |_| Value::Null,
        );
        self.keep(key(&secret), rule).await;
    }

    async fn keep(&self, key: RecordKey, rule: Rule) {
        if self.dispatcher().cluster().is_some() && self.dispatcher().is_failing() {
            // Whoever is here goes on without the store; if it is back by the time of this operation, it is kept.
            drop(self.dispatcher().begin(Some(key), None, rule));
            return;
        }
        if let Err(fault) = self.dispatcher().change(Some(key), None, rule).await {
            // It goes on, but would come back as new after a crash.
            tracing::debug!(
                code = fault.code.as_str(),
                message = fault.message,
                "what is known of a socket or agent could not be kept"
            );
        }
    }

    /// Gives a peer its socket back, if it is kept and nothing that it missed is gone.
    pub(super) async fn restore(&self, request: RestoreRequest) {
        let dispatcher = self.dispatcher();
        let found = dispatcher.store().look(vec![key(&request.recovery_id())], Vec::new()).await;
        let record = found.ok().and_then(|found| found.records.into_iter().next().flatten());
        let member = record.and_then(|record| Member::from_record(&record.state).ok());
        let Some(member) = member.filter(|member| *member.namespace == *request.namespace()) else {
            return request.refuse();
        };
        let Some(sid) = Sid::parse(&member.sid) else { return request.refuse() };
        // Whoever has it must give it up first: it can be in one place only.
        self.release_elsewhere(member.node, &request.recovery_id()).await;
        let rooms =
            member.rooms.iter().filter_map(|(room, since)| Some((RoomName::parse(&**room).ok()?, *since)));
        let rooms: Vec<(RoomName, u64)> = rooms.collect();
        // One that has had no numbered event has them up to when it came into its oldest room.
        let oldest = rooms.iter().map(|(_, since)| *since).min().unwrap_or_else(|| dispatcher.sent_order());
        let order = request.order().unwrap_or(oldest);
        let identity = Arc::new(Identity::new(member.principal()));
        let mut channels = HashMap::new();
        for (room, standing) in &member.standings {
            let Ok(room) = RoomName::parse(&**room) else { continue };
            let mut standing = standing.clone();
            if let Some(filter) = &standing.filter {
                // Without its filter it would get what it did not ask for.
                let Ok(channel) = dispatcher.filters().open(&room, filter) else { return request.refuse() };
                channels.insert(room.clone(), channel.clone());
                standing.channel = Some(channel);
            }
            identity.standings.set(room, standing);
        }
        let asking = Asking { request, sid, rooms, channels, order, state: identity };
        if let Err(fault) = dispatcher.restore(asking).await {
            tracing::debug!(
                code = fault.code.as_str(),
                message = fault.message,
                "a socket could not be restored"
            );
        }
    }

    /// Lets go of the sockets and agents of processes that are no more, and that do not come back in time.
    pub(crate) async fn expect_back(&self) {
        self.expect_agents().await;
        let (began_at, until, nodes) = (self.began_at, self.away_max + GRACE, self.other_nodes());
        let rule = move || {
            let nodes = nodes.clone();
            record_rule::<Member, _, _>(
                move |present, now| {
                    Ok(change(present, |member| {
                        if member.began_at != began_at && !nodes.contains(&member.node) {
                            member.gone_at.get_or_insert(now.plus(until));
                        }
                    }))
                },
                |_| Value::Null,
            )
        };
        self.for_each::<Member>(Some("here"), rule).await;
    }

    /// Applies a rule to every record of a kind, or those of one status, that an earlier process may have left.
    pub(super) async fn for_each<S: State>(&self, status: Option<&str>, rule: impl Fn() -> Rule) {
        let mut after = None;
        loop {
            let status = status.map(Into::into);
            let listing = Listing { status, after: after.take(), limit: PAGE, ..Listing::default() };
            let records = match self.dispatcher().store().list(S::KIND, listing).await {
                Ok(records) => records,
                Err(fault) => {
                    return tracing::warn!(%fault, "what an earlier process left could not be looked through");
                }
            };
            let is_last = records.len() < PAGE;
            after = records.last().map(|last| (last.state.created_at, last.key.id.clone()));
            for record in records {
                self.keep(record.key, rule()).await;
            }
            if is_last {
                return;
            }
        }
    }
}

/// What is kept of a socket once it has arrived, `arrived` if nothing was. `is_over`: it has gone again meanwhile, so whoever noted
/// that, or has it now, has the last word.
fn arrive(present: Option<&Member>, arrived: &Member, is_over: bool) -> Option<Member> {
    match (present, is_over) {
        (kept, true) => kept.cloned(),
        (None, false) => Some(arrived.clone()),
        // It has come back: what is kept of its rooms holds.
        (Some(kept), false) => {
            let Member { began_at, node, .. } = *arrived;
            Some(Member { gone_at: None, began_at, node, ..kept.clone() })
        }
    }
}

/// Changes what is kept; nothing happens to what is not.
fn change(present: Option<&Member>, change: impl FnOnce(&mut Member)) -> Step<Member> {
    let next = present.cloned().map(|mut member| {
        change(&mut member);
        member
    });
    Step { next, events: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(node: u16, gone_at: Option<u64>) -> Member {
        Member {
            digest: "digest".into(),
            sid: "sid".into(),
            namespace: "/ws".into(),
            user: None,
            session: None,
            is_agent: false,
            rooms: BTreeMap::from([("global".into(), u64::from(node))]),
            standings: BTreeMap::new(),
            created_at: Timestamp(1),
            began_at: Timestamp(u64::from(node)),
            node,
            gone_at: gone_at.map(Timestamp),
        }
    }

    #[test]
    fn who_comes_back_has_its_rooms_and_is_no_longer_due() {
        let kept = arrive(Some(&member(1, Some(9))), &member(2, None), false).unwrap();
        assert_eq!((kept.node, kept.began_at, kept.gone_at), (2, Timestamp(2), None));
        assert_eq!(kept.rooms, member(1, None).rooms);
        assert_eq!(arrive(None, &member(2, None), false), Some(member(2, None)));
    }

    #[test]
    fn who_has_gone_before_it_was_noted_that_it_came_stays_gone() {
        let lost = member(1, Some(9));
        assert_eq!(arrive(Some(&lost), &member(1, None), true), Some(lost));
        let elsewhere = member(2, None);
        assert_eq!(arrive(Some(&elsewhere), &member(1, None), true), Some(elsewhere));
        assert_eq!(arrive(None, &member(1, None), true), None);
    }
}
