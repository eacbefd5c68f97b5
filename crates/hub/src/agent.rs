//! Owns whether an agent is there: told when it comes, and when it has been without a socket for a grace period. Does not
//! know sockets; whoever knows says whether it has one.
//!
//! A record, because a server that is started again must know who was there: whoever was, and does not come back within
//! the grace period, is told to have gone. The rules say what is, not what has changed, so one that is asked twice, or too
//! late, does no harm:
//!
//! - [`settle`] whenever an agent's socket has come or gone, with whether it has any *now*;
//! - [`expect_back`] for every record that an earlier process left behind;
//! - [`due`] when its time has come.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::outgoing::Outgoing;
use crate::principal::Principal;
use crate::record::{State, Step};
use crate::room::{RoomKind, RoomName};
use crate::store::RecordKind;
use crate::time::Timestamp;

/// The event that tells of an agent's first socket.
pub const AGENT_CONNECTED: &str = "agent.connected";
/// The event that tells that an agent has had no socket for the grace period.
pub const AGENT_DISCONNECTED: &str = "agent.disconnected";

/// Projects that hear of one agent. 64: it works for a few; further ones are left out.
pub const AGENT_PROJECTS_MAX: usize = 64;

/// Bytes of an agent's id: what the store takes as the id of a record, and what still fits a room's name.
const AGENT_ID_BYTES_MAX: usize = 190;

/// An agent that is there, or was a moment ago.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Agent {
    agent_id: Box<str>,
    /// The projects that it works for, by id.
    projects: Vec<Box<str>>,
    connected_at: Timestamp,
    /// When the process began that it is connected to, or was.
    began_at: Timestamp,
    /// When it has been away for too long; `None` while it is here.
    gone_at: Option<Timestamp>,
}

/// An agent as its sockets show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its id.
    pub agent_id: Box<str>,
    /// The projects that it works for, by id.
    pub projects: Vec<Box<str>>,
    /// Whether it has a socket.
    pub is_here: bool,
}

/// The data of [`AGENT_CONNECTED`] and [`AGENT_DISCONNECTED`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AgentChange {
    /// Which agent.
    pub agent_id: Box<str>,
    /// The project that it works for, if it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project_id: Option<Box<str>>,
    /// When it came, in RFC 3339; only if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connected_at: Option<String>,
    /// When it was found to be gone, in RFC 3339; only if it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disconnected_at: Option<String>,
}

/// Which process asks, and how patient it is.
#[derive(Clone, Copy, Debug)]
pub struct Watch {
    /// When the process began.
    pub began_at: Timestamp,
    /// How long an agent may be without a socket before that is told. Zero: it is told at once.
    pub grace: Duration,
}

impl State for Agent {
    const KIND: RecordKind = RecordKind::Agent;

    fn id(&self) -> &str {
        &self.agent_id
    }

    fn group(&self) -> &str {
        ""
    }

    fn status(&self) -> &'static str {
        if self.gone_at.is_some() { "away" } else { "here" }
    }

    fn created_at(&self) -> Timestamp {
        self.connected_at
    }

    fn due_at(&self) -> Option<Timestamp> {
        self.gone_at
    }
}

/// The projects that a principal was granted one by one, as far as they hear of it.
#[must_use]
pub fn projects_of(principal: &Principal) -> Vec<Box<str>> {
    let named = principal.grants.iter().map(|grant| grant.as_str()).filter(|grant| !grant.contains('*'));
    let rooms = named.filter_map(|grant| RoomName::parse(grant).ok());
    let projects = rooms.filter(|room| room.kind() == RoomKind::Project).map(|room| room.id().into());
    projects.take(AGENT_PROJECTS_MAX).collect()
}

/// Whether an id can be an agent's that is told of: it makes the name of a room and of a record.
#[must_use]
pub fn is_id(agent_id: &str) -> bool {
    agent_id.len() <= AGENT_ID_BYTES_MAX && RoomName::of(RoomKind::Agent, agent_id).is_ok()
}

/// A socket of an agent has come or gone.
#[must_use]
pub fn settle(present: Option<&Agent>, now: Timestamp, seen: &Seen, watch: Watch) -> Step<Agent> {
    let Watch { began_at, grace } = watch;
    match (present, seen.is_here) {
        (None, false) => Step { next: None, events: Vec::new() },
        (None, true) => {
            let Seen { agent_id, projects, .. } = seen.clone();
            let agent = Agent { agent_id, projects, connected_at: now, began_at, gone_at: None };
            let events = vec![agent.told(AGENT_CONNECTED, now)];
            Step { next: Some(agent), events }
        }
        (Some(agent), true) => {
            let projects = seen.projects.clone();
            Step::quiet(Agent { projects, began_at, gone_at: None, ..agent.clone() })
        }
        (Some(agent), false) => part(agent, now, grace),
    }
}

/// A process begins: an agent of an earlier one may come back for a while.
#[must_use]
pub fn expect_back(present: &Agent, now: Timestamp, watch: Watch) -> Step<Agent> {
    if present.began_at == watch.began_at {
        return Step::quiet(present.clone());
    }
    part(present, now, watch.grace)
}

/// An agent's time has come: it has gone, if it is still away.
#[must_use]
pub fn due(present: &Agent, now: Timestamp) -> Step<Agent> {
    match present.gone_at {
        Some(gone_at) if gone_at <= now => gone(present, now),
        Some(_) | None => Step::quiet(present.clone()),
    }
}

fn part(agent: &Agent, now: Timestamp, grace: Duration) -> Step<Agent> {
    if grace.is_zero() {
        return gone(agent, now);
    }
    let gone_at = agent.gone_at.unwrap_or_else(|| now.plus(grace));
    Step::quiet(Agent { gone_at: Some(gone_at), ..agent.clone() })
}

fn gone(agent: &Agent, now: Timestamp) -> Step<Agent> {
    Step { next: None, events: vec![agent.told(AGENT_DISCONNECTED, now)] }
}

impl Agent {
    fn told(&self, name: &'static str, at: Timestamp) -> Outgoing {
        let at = Some(at.to_string());
        let (connected_at, disconnected_at) = if name == AGENT_CONNECTED { (at, None) } else { (None, at) };
        let project_id = match &*self.projects {
            [only] => Some(only.clone()),
            _ => None,
        };
        let data = AgentChange { agent_id: self.agent_id.clone(), project_id, connected_at, disconnected_at };
        let own = RoomName::of(RoomKind::Agent, &self.agent_id).ok();
        let projects = self.projects.iter().filter_map(|id| RoomName::of(RoomKind::Project, id).ok());
        Outgoing::wrapped(name, &data, own.into_iter().chain(projects).collect()).keyed(&self.agent_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Pattern;
    use proptest::prelude::{prop_assert, prop_assert_eq, proptest};

    const BEGAN: Timestamp = Timestamp(1_000_000);
    const WATCH: Watch = Watch { began_at: BEGAN, grace: Duration::from_secs(10) };

    fn seen(is_here: bool) -> Seen {
        Seen { agent_id: "a".into(), projects: vec!["p".into()], is_here }
    }

    fn at(seconds: u64) -> Timestamp {
        BEGAN.plus(Duration::from_secs(seconds))
    }

    fn names(step: &Step<Agent>) -> Vec<&str> {
        step.events.iter().map(|event| &*event.name).collect()
    }

    #[test]
    fn an_agent_is_told_of_in_its_room_and_its_projects() {
        let came = settle(None, at(0), &seen(true), WATCH);
        let event = &came.events[0];
        let rooms: Vec<&str> = event.rooms.iter().map(RoomName::as_str).collect();
        assert_eq!((&*event.name, rooms), (AGENT_CONNECTED, vec!["agent:a", "project:p"]));
        let data = r#"{"agent_id":"a","project_id":"p","connected_at":"1970-01-01T00:16:40.000Z"}"#;
        assert_eq!(event.data.get(), data);
        let away = settle(came.next.as_ref(), at(1), &seen(false), WATCH).next.unwrap();
        let gone = due(&away, at(11));
        assert_eq!((names(&gone), &gone.next), (vec![AGENT_DISCONNECTED], &None));
    }

    #[test]
    fn whoever_comes_back_in_time_has_never_been_away() {
        let here = settle(None, at(0), &seen(true), WATCH).next.unwrap();
        let away = settle(Some(&here), at(1), &seen(false), WATCH);
        assert_eq!(names(&away), Vec::<&str>::new());
        let away = away.next.unwrap();
        assert_eq!(settle(Some(&away), at(5), &seen(false), WATCH).next.unwrap(), away, "asked twice");
        assert_eq!(due(&away, at(10)).next.unwrap(), away, "asked too early");
        let back = settle(Some(&away), at(10), &seen(true), WATCH);
        assert_eq!((names(&back), &back.next), (Vec::new(), &Some(here)));
    }

    #[test]
    fn a_process_that_begins_anew_waits_for_those_of_the_one_before() {
        let here = settle(None, at(0), &seen(true), WATCH).next.unwrap();
        let later = Watch { began_at: at(100), ..WATCH };
        let awaited = expect_back(&here, at(100), later);
        assert_eq!(awaited.next.as_ref().and_then(|agent| agent.gone_at), Some(at(110)));
        assert_eq!(expect_back(&here, at(3), WATCH).next, Some(here.clone()), "it is this process's own");
        let back = settle(awaited.next.as_ref(), at(105), &seen(true), later).next.unwrap();
        assert_eq!((back.gone_at, back.began_at), (None, at(100)));
        assert_eq!(names(&due(&awaited.next.unwrap(), at(110))), [AGENT_DISCONNECTED]);
        let at_once = expect_back(&here, at(100), Watch { grace: Duration::ZERO, ..later });
        assert_eq!(names(&at_once), [AGENT_DISCONNECTED]);
    }

    #[test]
    fn projects_are_those_that_were_granted_one_by_one() {
        let grants = ["project:p", "project:*", "agent:a", "project:q", "x\n"].map(Pattern::new).into();
        let principal = Principal { grants, ..Principal::anonymous() };
        assert_eq!(projects_of(&principal), [Box::from("p"), "q".into()]);
        assert!(is_id("a") && !is_id("") && !is_id("a\n") && !is_id(&"x".repeat(191)));
    }

    proptest! {
        #[test]
        fn coming_and_going_alternate(acts in proptest::collection::vec((0u64..15, 0u8..3), 0..60)) {
            let (mut agent, mut now, mut is_known) = (None::<Agent>, at(0), false);
            let mut is_here = false;
            for (wait, act) in acts {
                now = now.plus(Duration::from_secs(wait));
                let step = match (act, &agent) {
                    (0, _) => {
                        is_here = !is_here;
                        settle(agent.as_ref(), now, &seen(is_here), WATCH)
                    }
                    (1, Some(agent)) => due(agent, now),
                    (_, Some(_)) => settle(agent.as_ref(), now, &seen(is_here), WATCH),
                    (_, None) => settle(None, now, &seen(is_here), WATCH),
                };
                for event in &step.events {
                    prop_assert_eq!(&*event.name, if is_known { AGENT_DISCONNECTED } else { AGENT_CONNECTED });
                    is_known = !is_known;
                }
                agent = step.next;
                prop_assert_eq!(agent.is_some(), is_known);
                prop_assert!(!is_here || agent.as_ref().is_some_and(|agent| agent.gone_at.is_none()));
            }
        }
    }
}
