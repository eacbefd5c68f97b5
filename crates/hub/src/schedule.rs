//! Owns an event that is to be published later. Does not know who may publish it: that was decided when it was asked for.
//!
//! A notification that is to be given later waits here, too. Its moment does not publish it: whoever attends to it puts it
//! into its user's inbox and then takes it away from here with [`deliver`]. Until then it is attended to again and again, so
//! that nothing is lost between the two; the inbox knows by the id that it is the same.
//!
//! A server that was down when the moment passed publishes it as soon as it is up. A clock that is set back before the
//! moment holds it back until then.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::bound;
use crate::fault::{Fault, Refusal};
use crate::json::Json;
use crate::notification::{Message, NOTIFICATION};
use crate::outgoing::Outgoing;
use crate::record::{State, Step};
use crate::room::{RoomKind, RoomName};
use crate::store::RecordKind;
use crate::time::Timestamp;

/// Bytes of an id: what the store takes.
pub const SCHEDULE_ID_BYTES_MAX: usize = 200;

/// Time after which a notification is attended to again that has not been put into its inbox. 30 s: a busy store has
/// taken it by then.
const DELIVERY_RETRY: Duration = Duration::from_secs(30);

/// Bounds of what is scheduled. What exceeds one is refused.
#[derive(Clone, Debug)]
pub struct ScheduleLimits {
    /// How far ahead an event may be scheduled. Default 366 days: the same day next year.
    pub ahead_max: Duration,
    /// How many events may wait. Default 100,000. Higher: more of the store is taken by what nobody sees.
    pub waiting_max: usize,
    /// Bytes of an event's data. Default 256 KiB.
    pub data_bytes_max: usize,
}

impl Default for ScheduleLimits {
    fn default() -> Self {
        Self { ahead_max: Duration::from_secs(366 * 86_400), waiting_max: 100_000, data_bytes_max: 256 << 10 }
    }
}

/// An event that waits for its moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    id: Box<str>,
    event: Outgoing,
    deliver_at: Timestamp,
    created_at: Timestamp,
    /// The first of its rooms, by which lists find it.
    room: Box<str>,
    /// For an inbox instead of a room.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    letter: Option<Letter>,
    /// When it is attended to.
    #[serde(default)]
    attend_at: Option<Timestamp>,
}

/// A notification that waits for its moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Letter {
    /// For whom.
    pub user_id: Box<str>,
    /// What it says.
    pub message: Message,
}

/// An event that waits, as lists show it. Moments in RFC 3339.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ScheduleView<'a> {
    /// Its id, by which it can be cancelled.
    pub id: &'a str,
    /// Its name.
    pub event: &'a str,
    /// Its data.
    pub data: &'a Json,
    /// Where it will go.
    pub rooms: Vec<&'a str>,
    /// When.
    pub deliver_at: String,
    /// When that was asked for.
    pub created_at: String,
}

impl State for Schedule {
    const KIND: RecordKind = RecordKind::Schedule;

    fn id(&self) -> &str {
        &self.id
    }

    fn group(&self) -> &str {
        &self.room
    }

    fn status(&self) -> &'static str {
        "waiting"
    }

    fn created_at(&self) -> Timestamp {
        self.created_at
    }

    fn due_at(&self) -> Option<Timestamp> {
        self.attend_at.or(Some(self.deliver_at))
    }
}

impl Schedule {
    /// When it will be published.
    #[must_use]
    pub fn deliver_at(&self) -> Timestamp {
        self.deliver_at
    }

    /// The notification that it is, if it is one and its moment has come.
    #[must_use]
    pub fn letter(&self, now: Timestamp) -> Option<&Letter> {
        self.letter.as_ref().filter(|_| self.deliver_at <= now)
    }

    /// What lists show.
    #[must_use]
    pub fn view(&self) -> ScheduleView<'_> {
        ScheduleView {
            id: &self.id,
            event: &self.event.name,
            data: &self.event.data,
            rooms: self.event.rooms.iter().map(RoomName::as_str).collect(),
            deliver_at: self.deliver_at.to_string(),
            created_at: self.created_at.to_string(),
        }
    }
}

/// Schedules an event; one whose moment has passed is published at once and not kept. `waiting`: how many wait already.
///
/// The same request again changes nothing.
///
/// # Errors
/// The peer's fault: [`Refusal::AlreadyExists`] if another event waits under this id, [`Refusal::TooMany`] or
/// [`Refusal::BadPayload`] for what is beyond `limits`.
pub fn schedule(
    present: Option<&Schedule>,
    now: Timestamp,
    id: &str,
    Planned { event, deliver_at, letter }: Planned,
    waiting: usize,
    limits: &ScheduleLimits,
) -> Result<Step<Schedule>, Fault> {
    if let Some(schedule) = present {
        if (&schedule.event, schedule.deliver_at, &schedule.letter) == (&event, deliver_at, &letter) {
            return Ok(Step::quiet(schedule.clone()));
        }
        return Err(Fault::new(Refusal::AlreadyExists, format!("another event is scheduled as `{id}`")));
    }
    bound::name("the id of a scheduled event", id, SCHEDULE_ID_BYTES_MAX)?;
    bound::text("`data`", event.data.get(), limits.data_bytes_max)?;
    if deliver_at <= now && letter.is_none() {
        return Ok(Step { next: None, events: vec![event] });
    }
    if deliver_at.since(now) > limits.ahead_max {
        let complaint = format!("`deliver_at` is more than {} s ahead", limits.ahead_max.as_secs());
        return Err(Fault::new(Refusal::BadPayload, complaint));
    }
    if waiting >= limits.waiting_max {
        return Err(Fault::new(Refusal::TooMany, format!("{waiting} events are scheduled already")));
    }
    let room = event.rooms.first().map_or_else(Box::default, |room| room.as_str().into());
    Ok(Step::quiet(Schedule {
        id: id.into(),
        event,
        deliver_at,
        created_at: now,
        room,
        letter,
        attend_at: None,
    }))
}

/// An event and its moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    /// What is published.
    pub event: Outgoing,
    /// When.
    pub deliver_at: Timestamp,
    /// For an inbox: then `event` is what lists show of it.
    pub letter: Option<Letter>,
}

/// A notification that is to be given later, as it is scheduled.
///
/// # Errors
/// The peer's fault: [`Refusal::BadRoomName`] for a user's id that makes no room's name.
pub fn letter(user_id: &str, message: Message, deliver_at: Timestamp) -> Result<Planned, Fault> {
    let rooms = vec![RoomName::of(RoomKind::User, user_id)?];
    let event = Outgoing::flat(NOTIFICATION, &message, rooms);
    let letter = Some(Letter { user_id: user_id.into(), message });
    Ok(Planned { event, deliver_at, letter })
}

/// The notification is in its inbox.
#[must_use]
pub fn deliver() -> Step<Schedule> {
    Step { next: None, events: Vec::new() }
}

/// Takes back what has not been published yet.
///
/// # Errors
/// The peer's fault: [`Refusal::NotFound`] if it was published, cancelled or never there.
pub fn cancel(present: Option<&Schedule>) -> Result<Step<Schedule>, Fault> {
    match present {
        Some(_) => Ok(Step { next: None, events: Vec::new() }),
        None => Err(Fault::new(Refusal::NotFound, "no such event is scheduled")),
    }
}

/// Publishes it, if it is time.
#[must_use]
pub fn due(present: &Schedule, now: Timestamp) -> Step<Schedule> {
    if now < present.deliver_at {
        return Step::quiet(present.clone());
    }
    if present.letter.is_some() {
        let attend_at = Some(now.plus(DELIVERY_RETRY));
        return Step::quiet(Schedule { attend_at, ..present.clone() });
    }
    Step { next: None, events: vec![present.event.clone()] }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert, prop_assert_eq, proptest};
    use serde_json::json;

    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000_000);

    #[test]
    fn an_event_waits_for_its_moment_and_is_published_once() {
        let at = NOW.plus(Duration::from_secs(60));
        let waiting = ask(None, at).unwrap().next.unwrap();
        assert_eq!((waiting.due_at(), waiting.group()), (Some(at), "tasks"));
        assert_eq!(due(&waiting, NOW), Step::quiet(waiting.clone()));
        assert_eq!(due(&waiting, at), Step { next: None, events: vec![event()] });
        assert_eq!(Schedule::from_record(&waiting.to_record()).unwrap(), waiting);
        let view = serde_json::to_value(waiting.view()).unwrap();
        assert_eq!(view["rooms"], json!(["tasks"]));
        assert_eq!(view["deliver_at"], "1970-01-12T13:47:40.000Z");
    }

    #[test]
    fn what_is_late_is_published_at_once() {
        assert_eq!(ask(None, NOW), Ok(Step { next: None, events: vec![event()] }));
    }

    #[test]
    fn asking_again_is_no_news_and_asking_otherwise_is_refused() {
        let at = NOW.plus(Duration::from_secs(60));
        let waiting = ask(None, at).unwrap().next.unwrap();
        assert_eq!(ask(Some(&waiting), at), Ok(Step::quiet(waiting.clone())));
        let other = ask(Some(&waiting), at.plus(Duration::from_secs(1))).unwrap_err();
        assert_eq!(other.refusal, Refusal::AlreadyExists);
        assert_eq!(cancel(Some(&waiting)).unwrap().next, None);
        assert_eq!(cancel(None).unwrap_err().refusal, Refusal::NotFound);
    }

    #[test]
    fn too_far_ahead_too_large_or_too_many_is_refused() {
        let limits = ScheduleLimits { ahead_max: Duration::from_secs(10), waiting_max: 2, data_bytes_max: 7 };
        let ask = |id: &str, seconds, waiting| {
            let planned =
                Planned { event: event(), deliver_at: NOW.plus(Duration::from_secs(seconds)), letter: None };
            schedule(None, NOW, id, planned, waiting, &limits)
        };
        assert!(ask("s", 10, 1).is_ok());
        assert_eq!(ask("s", 11, 1).unwrap_err().refusal, Refusal::BadPayload);
        assert_eq!(ask("s", 10, 2).unwrap_err().refusal, Refusal::TooMany);
        assert!(ask("", 10, 1).is_err());
        assert!(ask(&"s".repeat(201), 10, 1).is_err());
        let tight = ScheduleLimits { data_bytes_max: 6, ..limits.clone() };
        let planned = Planned { event: event(), deliver_at: NOW, letter: None };
        assert_eq!(schedule(None, NOW, "s", planned, 0, &tight).unwrap_err().refusal, Refusal::TooMany);
    }

    proptest! {
        #[test]
        fn whatever_the_clock_does_it_is_published_once_and_never_early(
            ahead in 1u64..50_000,
            moments in proptest::collection::vec(0u64..100_000, 0..30),
        ) {
            let at = NOW.plus(Duration::from_millis(ahead));
            let mut state = ask(None, at).unwrap().next;
            let mut published = 0;
            for moment in &moments {
                let now = Timestamp(NOW.0 + moment);
                let Some(waiting) = &state else { break };
                let step = due(waiting, now);
                prop_assert!(step.events.is_empty() || now >= at);
                published += step.events.len();
                state = step.next;
            }
            let has_passed = moments.iter().any(|moment| *moment >= ahead);
            prop_assert_eq!(published, usize::from(has_passed));
            prop_assert_eq!(state.is_none(), has_passed);
        }
    }

    #[test]
    fn a_notification_is_attended_to_until_it_is_in_its_inbox() {
        let message = Message { title: "t".into(), message: "m".into(), level: None, data: None };
        let at = NOW.plus(Duration::from_secs(60));
        let planned = letter("ann", message, at).unwrap();
        let waiting = schedule(None, NOW, "s", planned.clone(), 0, &ScheduleLimits::default()).unwrap();
        let waiting = waiting.next.unwrap();
        let view = serde_json::to_value(waiting.view()).unwrap();
        assert_eq!((&view["event"], &view["rooms"]), (&json!("notification"), &json!(["user:ann"])));
        assert_eq!((waiting.letter(NOW), due(&waiting, NOW).next.as_ref()), (None, Some(&waiting)));
        assert_eq!(waiting.letter(at).map(|letter| &*letter.user_id), Some("ann"));
        let step = due(&waiting, at);
        assert!(step.events.is_empty());
        let attended = step.next.unwrap();
        assert_eq!(attended.due_at(), Some(at.plus(DELIVERY_RETRY)));
        assert_eq!(Schedule::from_record(&attended.to_record()).unwrap(), attended);
        assert_eq!(deliver().next, None);
        assert!(letter("", waiting.letter(at).unwrap().message.clone(), at).is_err());
        let past = Planned { deliver_at: NOW, ..planned };
        let step = schedule(None, NOW, "s", past, 0, &ScheduleLimits::default()).unwrap();
        assert!(step.next.is_some() && step.events.is_empty(), "it is for the inbox all the same");
    }

    fn event() -> Outgoing {
        Outgoing::wrapped("task_update", &json!({"a": 1}), vec![RoomName::parse("tasks").unwrap()])
    }

    fn ask(present: Option<&Schedule>, deliver_at: Timestamp) -> Result<Step<Schedule>, Fault> {
        schedule(
            present,
            NOW,
            "s",
            Planned { event: event(), deliver_at, letter: None },
            0,
            &ScheduleLimits::default(),
        )
    }
}
