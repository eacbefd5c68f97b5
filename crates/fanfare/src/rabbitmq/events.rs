//! Owns how messages become events: bodies that are written for us, and raw ones. Does not know connections.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use hub::event::Audience;
use hub::outgoing::Outgoing;
use hub::policy::Pattern as RoomPattern;
use hub::room::RoomName;
use queues::{Answer, Begun, Identity, Intake, Message, Pattern, Turn};
use serde_json::value::RawValue;

use super::lane::{Lane, Pass};
use super::{key, settled, verdict};
use crate::codes::{Code, Fault};
use crate::dispatch::{Decision, Rule, Underway};
use crate::event::{Draft, Publication, check_depth, check_name, checked};
use crate::rest::{self, App};

/// The scope of keys that senders choose themselves: the same as over HTTP, so that an event counts once on whichever way
/// it comes.
const OWN_KEYS: &str = "events";

/// What bodies are.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Mode {
    /// One event, or an array of them, as `POST /api/v1/events` takes it.
    Events,
    /// Any JSON, which is the data of one event.
    Raw {
        /// Its name.
        event: Pattern,
        /// Its room; `None`: where its schema says.
        room: Option<Pattern>,
    },
}

/// Rooms that senders may name.
#[derive(Clone, Debug)]
pub(crate) struct Rooms {
    /// The setting that says so.
    pub(crate) setting: &'static str,
    /// Which they are.
    pub(crate) patterns: Vec<RoomPattern>,
}

/// Keeps what one queue brings, or whatever else brings messages one after the other.
pub(crate) struct Events {
    app: App,
    /// The scope of keys that mean something for this queue only.
    scope: String,
    mode: Mode,
    rooms: Rooms,
    lane: Arc<Lane>,
}

impl Events {
    /// For a queue whose identities mean something within `scope`.
    pub(crate) fn new(app: App, scope: String, mode: Mode, rooms: Rooms) -> Self {
        Self { app, scope, mode, rooms, lane: Arc::default() }
    }

    async fn begin_events(
        &self,
        message: &Message,
        identity: &Identity,
        turn: Turn,
    ) -> Result<(Pass, Vec<Underway>), Fault> {
        let (body, max) = (message.body.as_slice(), self.app.limits.body_bytes_max);
        if body.len() > max {
            let complaint = format!("a body of {} bytes exceeds rest.body_bytes_max of {max}", body.len());
            return Err(Fault::new(Code::BodyTooLarge, complaint));
        }
        let publications = match &self.mode {
            Mode::Events => {
                let rooms_max = self.app.limits.rooms_per_event_max;
                let is_array = body.trim_ascii_start().starts_with(b"[");
                let texts =
                    if is_array { rest::split(body, self.app.limits.batch_events_max)? } else { vec![body] };
                let drafts: Result<Vec<Draft>, Fault> =
                    texts.into_iter().map(|text| Draft::parse(text, rooms_max)).collect();
                rest::complete(&self.app, drafts?).await?
            }
            Mode::Raw { event, room } => vec![raw(message, event, room.as_ref())?],
        };
        for publication in &publications {
            self.check_rooms(&publication.outgoing.rooms, publication.outgoing.audience)?;
        }
        self.app.tally.events_published.fetch_add(publications.len() as u64, Ordering::Relaxed);
        let pass = self.lane.enter(self.app.hub.dispatcher(), turn)?;
        let underway = self.begin_all(publications, identity, &pass).await?;
        Ok((pass, underway))
    }

    /// Gives them their places: as one operation if nothing tells them apart, so that they are kept together.
    async fn begin_all(
        &self,
        publications: Vec<Publication>,
        identity: &Identity,
        pass: &Pass,
    ) -> Result<Vec<Underway>, Fault> {
        let dispatcher = self.app.hub.dispatcher();
        let scope = if matches!(identity, Identity::Key(_)) { OWN_KEYS } else { &self.scope };
        let is_one = publications.iter().all(|it| it.idempotency_key.is_none() && it.deliver_at.is_none());
        if is_one {
            let events = publications.into_iter().map(|it| it.outgoing).collect();
            let key = key(scope, identity.as_str());
            return Ok(vec![dispatcher.begin(None, Some(key), pass.guard(telling(events)))?]);
        }
        let mut underway = Vec::new();
        for (nth, publication) in publications.into_iter().enumerate() {
            let Publication { outgoing, deliver_at, idempotency_key } = publication;
            let key = match &idempotency_key {
                Some(own) => key(OWN_KEYS, own),
                None => key(scope, &format!("{}#{nth}", identity.as_str())),
            };
            underway.push(match deliver_at {
                None => dispatcher.begin(None, Some(key), pass.guard(telling(vec![outgoing])))?,
                Some(deliver_at) => rest::schedule(&self.app, Some(key), outgoing, deliver_at).await?,
            });
        }
        Ok(underway)
    }

    /// Refuses rooms that the queue's senders have no business in.
    fn check_rooms(&self, rooms: &[RoomName], audience: Audience) -> Result<(), Fault> {
        let is_allowed = |name: &str| self.rooms.patterns.iter().any(|pattern| pattern.matches(name));
        let refused = match audience {
            Audience::Rooms => rooms.iter().map(RoomName::as_str).find(|name| !is_allowed(name)),
            // Everybody in a namespace is more than any room.
            Audience::Root | Audience::Ws | Audience::Logs | Audience::Admin => {
                Some("a whole namespace").filter(|_| !is_allowed("*"))
            }
        };
        match refused {
            None => Ok(()),
            Some(name) => {
                let setting = self.rooms.setting;
                Err(Fault::new(Code::Forbidden, format!("{setting} does not allow {name} to be told")))
            }
        }
    }
}

impl Intake for Events {
    fn begin<'a>(
        &'a self,
        message: &'a Arc<Message>,
        identity: &'a Identity,
        turn: Turn,
    ) -> Answer<'a, Begun> {
        Box::pin(async move {
            match self.begin_events(message, identity, turn).await {
                Ok((pass, underway)) => Ok(settled(pass, underway)),
                Err(fault) => {
                    self.app.tally.count_fault(fault.code);
                    Err(verdict(fault))
                }
            }
        })
    }
}

/// A rule that tells events with which no record goes.
fn telling(events: Vec<Outgoing>) -> Rule {
    Box::new(move |_, _| Ok(Decision { events: events.clone(), ..Decision::default() }))
}

/// The event that a raw body is.
fn raw(message: &Message, event: &Pattern, room: Option<&Pattern>) -> Result<Publication, Fault> {
    let data: Box<RawValue> = serde_json::from_slice(&message.body)
        .map_err(|error| Fault::new(Code::BadRequest, format!("the body is not JSON: {error}")))?;
    check_depth(&data)?;
    let name = event.render(message).map_err(|complaint| Fault::new(Code::BadEventName, complaint))?;
    check_name(&name)?;
    let target = match room {
        None => None,
        Some(room) => {
            let room = room.render(message).map_err(|complaint| Fault::new(Code::BadTarget, complaint))?;
            Some((Audience::Rooms, vec![RoomName::parse(room)?]))
        }
    };
    Ok(Publication { outgoing: checked(name, data, target)?, deliver_at: None, idempotency_key: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publication(body: &str, event: &str, room: Option<&str>) -> Result<(String, Vec<String>), Code> {
        let message = Message {
            body: body.as_bytes().to_vec(),
            routing_key: "build.web".into(),
            kind: Some("built".into()),
            ..Message::default()
        };
        let room = room.map(|room| Pattern::parse(room).unwrap());
        let made =
            raw(&message, &Pattern::parse(event).unwrap(), room.as_ref()).map_err(|fault| fault.code)?;
        let rooms = made.outgoing.rooms.iter().map(ToString::to_string).collect();
        Ok((made.outgoing.name.into_owned(), rooms))
    }

    #[test]
    fn a_raw_body_is_an_event_that_the_message_names() {
        let made = publication("[1]", "{type}", Some("project:{routing_key.1}")).unwrap();
        assert_eq!(made, ("built".to_owned(), vec!["project:web".to_owned()]));
        let known = r#"{"job_id":"j","status":"running"}"#;
        assert_eq!(publication(known, "agent_status", None).unwrap().1, ["job:j"]);
    }

    #[test]
    fn raw_bodies_that_cannot_be_events_are_refused() {
        for (body, event, room, code) in [
            ("nonsense", "{type}", Some("r"), Code::BadRequest),
            ("1", "{header.event}", Some("r"), Code::BadEventName),
            ("1", "disconnect", Some("r"), Code::BadEventName),
            ("1", "{type}", Some("project:{header.project}"), Code::BadTarget),
            ("1", "{type}", None, Code::BadTarget),
            (r#"{"job_id":"j","status":"asleep"}"#, "agent_status", None, Code::BadPayload),
        ] {
            assert_eq!(publication(body, event, room), Err(code), "{body} {event}");
        }
        let deep = format!("{}{}", "[".repeat(61), "]".repeat(61));
        assert_eq!(publication(&deep, "{type}", Some("r")), Err(Code::DataTooDeep));
    }
}
