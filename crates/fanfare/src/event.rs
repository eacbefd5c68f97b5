//! Owns an event as publishers write it, its bounds, and what its schema makes of it. Does not send anything.

use std::borrow::Cow;
use std::sync::Arc;

use hub::event::{Audience, Shape};
use hub::json::Json;
use hub::outgoing::Outgoing;
use hub::room::{RoomKind, RoomName};
use hub::schema;
use hub::seconds::Seconds;
use hub::template::{Template, TemplateLimits};
use hub::time::Timestamp;
use serde::Deserialize;
use serde_json::value::{RawValue, to_raw_value};

use crate::codes::{Code, Fault};

/// Bytes of an event's name; what the parser takes from sockets.
pub(crate) const EVENT_NAME_BYTES_MAX: usize = 1024;

/// Levels of arrays and objects in an event's data. 60: with the wrapping around it, still below the 64 that our own
/// parser takes from sockets.
pub(crate) const DATA_DEPTH_MAX: usize = 60;

/// Bytes of an idempotency key.
pub(crate) const IDEMPOTENCY_KEY_BYTES_MAX: usize = 200;

/// Names that Socket.IO libraries keep for themselves. SIO5 "Event".
const RESERVED: [&str; 6] =
    ["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"];

/// An event as publishers write it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPublication {
    event: Option<String>,
    data: Option<Box<RawValue>>,
    room: Option<String>,
    rooms: Option<Vec<String>>,
    user: Option<String>,
    project: Option<String>,
    namespace: Option<String>,
    #[serde(default)]
    except: Vec<String>,
    #[serde(default)]
    volatile: bool,
    ttl: Option<Seconds>,
    deliver_at: Option<String>,
    template: Option<String>,
    idempotency_key: Option<String>,
}

/// An event that may be published.
#[derive(Debug)]
pub(crate) struct Publication {
    /// The event.
    pub(crate) outgoing: Outgoing,
    /// When; `None` is at once.
    pub(crate) deliver_at: Option<Timestamp>,
    /// What the publisher calls the request, so that it counts once however often it comes.
    pub(crate) idempotency_key: Option<String>,
}

/// An event as far as it can be read without the template that it may be made from.
#[derive(Debug)]
pub(crate) struct Draft {
    /// The template that it is made from.
    pub(crate) template: Option<String>,
    /// As [`Publication::idempotency_key`].
    pub(crate) idempotency_key: Option<String>,
    event: Option<String>,
    data: Box<RawValue>,
    /// `None`: wherever the data says.
    target: Option<(Audience, Vec<RoomName>)>,
    except: Vec<RoomName>,
    volatile: bool,
    ttl: Option<Seconds>,
    deliver_at: Option<Timestamp>,
}

impl Draft {
    /// Reads one event from JSON.
    ///
    /// # Errors
    /// The publisher's fault: [`Code::BadRequest`] if it is not of this shape, or what is wrong with its parts.
    pub(crate) fn parse(json: &[u8], rooms_max: usize) -> Result<Self, Fault> {
        let raw: RawPublication = serde_json::from_slice(json)
            .map_err(|error| Fault::new(Code::BadRequest, format!("not an event: {error}")))?;
        match &raw.event {
            Some(name) => check_name(name)?,
            None if raw.template.is_some() => {}
            None => return Err(Fault::new(Code::BadRequest, "not an event: `event` is missing")),
        }
        let data = match raw.data {
            Some(data) => data,
            None => RawValue::NULL.to_owned(),
        };
        check_depth(&data)?;
        if let Some(key) = &raw.idempotency_key
            && !(1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&key.len())
        {
            let len = key.len();
            let bounds = format!("idempotency_key of {len} bytes; it has 1 to {IDEMPOTENCY_KEY_BYTES_MAX}");
            return Err(Fault::new(Code::BadRequest, bounds));
        }
        if raw.ttl.is_some_and(|ttl| ttl.span().is_zero()) {
            return Err(Fault::new(Code::BadRequest, "`ttl` is a number of seconds greater than 0"));
        }
        let target = |complaint: &str| Fault::new(Code::BadTarget, complaint);
        if raw.room.is_some() && raw.rooms.is_some() {
            return Err(target("give `room` or `rooms`, not both"));
        }
        if raw.rooms.as_ref().is_some_and(Vec::is_empty) {
            return Err(target("`rooms` must not be empty"));
        }
        let mut rooms = Vec::new();
        for name in raw.room.into_iter().chain(raw.rooms.into_iter().flatten()) {
            rooms.push(RoomName::parse(name)?);
        }
        for (kind, id) in [(RoomKind::User, raw.user), (RoomKind::Project, raw.project)] {
            if let Some(id) = id {
                rooms.push(RoomName::of(kind, &id)?);
            }
        }
        for (what, count) in [("rooms", rooms.len()), ("except", raw.except.len())] {
            if count > rooms_max {
                return Err(Fault::new(Code::TooMany, format!("`{what}` of {count} exceeds {rooms_max}")));
            }
        }
        let mut seen = std::collections::BTreeSet::new();
        rooms.retain(|room| seen.insert(room.clone()));
        let audience = match raw.namespace.as_deref() {
            None => Audience::Rooms,
            Some(_) if !rooms.is_empty() => {
                return Err(target(
                    "a `namespace` is everybody in it: leave rooms out, which `/` and `/ws` share",
                ));
            }
            Some("/") => Audience::Root,
            Some("/ws") => Audience::Ws,
            Some("/logs") => Audience::Logs,
            Some("/admin") => Audience::Admin,
            Some(other) => {
                return Err(Fault::new(Code::UnknownNamespace, format!("there is no namespace `{other}`")));
            }
        };
        let is_named = audience != Audience::Rooms || !rooms.is_empty();
        Ok(Self {
            template: raw.template,
            idempotency_key: raw.idempotency_key,
            event: raw.event,
            data,
            target: is_named.then_some((audience, rooms)),
            except: raw.except.into_iter().map(RoomName::parse).collect::<Result<_, _>>()?,
            volatile: raw.volatile,
            ttl: raw.ttl,
            deliver_at: raw.deliver_at.as_deref().map(moment).transpose()?,
        })
    }

    /// The same event, which goes to `room` if nothing is said about where it goes.
    pub(crate) fn or_to(self, room: RoomName) -> Self {
        Self { target: Some(self.target.unwrap_or((Audience::Rooms, vec![room]))), ..self }
    }

    /// The event, with the template that [`Draft::template`] names filled from its data.
    ///
    /// Data of a known event must be what its schema says, which also says where it goes if no rooms are named.
    ///
    /// # Errors
    /// The publisher's fault: [`Code::BadPayload`] naming what does not fit the schema or the template,
    /// [`Code::BadTarget`] if nothing says where a custom event goes, [`Code::BadEventName`] for one that is not for
    /// publishers.
    pub(crate) fn complete(self, template: Option<&Template>) -> Result<Publication, Fault> {
        let Self { template: _, idempotency_key, event, data, target, except, volatile, ttl, deliver_at } =
            self;
        let (name, data) = match template {
            None => (event.unwrap_or_default(), data),
            Some(template) => {
                let values: serde_json::Value = serde_json::from_str(data.get())
                    .map_err(|error| Fault::new(Code::BadRequest, format!("not an event: {error}")))?;
                let rendered = template.render(&values, &TemplateLimits::default())?;
                if event.is_some_and(|event| *event != *rendered.event) {
                    let complaint =
                        format!("the template is of the event `{}`; leave `event` out", rendered.event);
                    return Err(Fault::new(Code::BadPayload, complaint));
                }
                let data = to_raw_value(&rendered.data)
                    .map_err(|error| Fault::new(Code::Internal, format!("no JSON: {error}")))?;
                check_depth(&data)?;
                (rendered.event.into(), data)
            }
        };
        check_name(&name)?;
        let outgoing = Outgoing { except, volatile, ttl, ..checked(name, data, target)? };
        Ok(Publication { outgoing, deliver_at, idempotency_key })
    }
}

/// Makes an event of what a publisher says. A known one travels as its schema says, and without a target goes where its
/// data says; others are wrapped.
///
/// # Errors
/// The publisher's fault: [`Code::BadPayload`] naming the field, [`Code::BadTarget`] if nothing says where it goes,
/// [`Code::BadEventName`] for what only sockets or the server say.
pub(crate) fn checked(
    name: String,
    data: Box<RawValue>,
    target: Option<(Audience, Vec<RoomName>)>,
) -> Result<Outgoing, Fault> {
    let known = match schema::find(&name) {
        Some(known) if !known.is_publishable() => {
            let complaint = format!("`{name}` is what sockets or the server say; publish under another name");
            return Err(Fault::new(Code::BadEventName, complaint));
        }
        known => known.zip(schema::inspect(&name, &data)?),
    };
    let (shape, key, own) = match known {
        Some((known, inspected)) => (known.shape, inspected.key, Some((known.audience, inspected.rooms))),
        None => (Shape::Wrapped, Box::default(), None),
    };
    let (audience, rooms) = match (target, own) {
        // All of the namespace that the event belongs to: those in it who want to hear of it.
        (Some((audience, rooms)), Some((its, Ok(channels)))) if audience == its && rooms.is_empty() => {
            (audience, channels)
        }
        (Some(target), _) => target,
        (None, Some((audience, rooms))) => (audience, rooms?),
        (None, None) => {
            let complaint = "give `room`, `rooms`, `user`, `project` or `namespace`";
            return Err(Fault::new(Code::BadTarget, complaint));
        }
    };
    Ok(Outgoing {
        name: Cow::Owned(name),
        data: Json(Arc::from(data)),
        shape,
        audience,
        rooms,
        except: Vec::new(),
        key,
        volatile: false,
        ttl: None,
    })
}

/// Reads when something is to be done.
///
/// # Errors
/// The publisher's fault: [`Code::BadRequest`] if it is no moment in RFC 3339.
pub(crate) fn moment(text: &str) -> Result<Timestamp, Fault> {
    Timestamp::parse(text).ok_or_else(|| {
        Fault::new(Code::BadRequest, "`deliver_at` is a moment in RFC 3339, such as 2026-11-21T14:00:00Z")
    })
}

/// Refuses names that no event may have.
///
/// # Errors
/// The publisher's fault: [`Code::BadEventName`].
pub(crate) fn check_name(name: &str) -> Result<(), Fault> {
    let complaint = if name.is_empty() {
        "an event's name must not be empty".to_owned()
    } else if name.len() > EVENT_NAME_BYTES_MAX {
        format!("an event's name of {} bytes exceeds {EVENT_NAME_BYTES_MAX}", name.len())
    } else if RESERVED.contains(&name) {
        format!("the event name `{name}` is reserved by Socket.IO")
    } else {
        return Ok(());
    };
    Err(Fault::new(Code::BadEventName, complaint))
}

/// Refuses data that is nested so deeply that receivers might not take it.
///
/// # Errors
/// The publisher's fault: [`Code::DataTooDeep`].
pub(crate) fn check_depth(data: &RawValue) -> Result<(), Fault> {
    if depth(data.get().as_bytes()) > DATA_DEPTH_MAX {
        let complaint = format!("data is nested deeper than {DATA_DEPTH_MAX} levels");
        return Err(Fault::new(Code::DataTooDeep, complaint));
    }
    Ok(())
}

/// Now, by the machine's clock.
pub(crate) fn now() -> Timestamp {
    Timestamp::of(std::time::SystemTime::now())
}

/// Now, in RFC 3339, UTC, with milliseconds.
pub(crate) fn timestamp() -> String {
    now().to_string()
}

/// How deeply arrays and objects are nested in a well-formed JSON text.
fn depth(json: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let mut bytes = json.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'"' => {
                // A string may hold brackets that mean nothing.
                while let Some(byte) = bytes.next() {
                    match byte {
                        b'\\' => {
                            bytes.next();
                        }
                        b'"' => break,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(json: &str, code: Code) {
        let fault = publication(json).expect_err("it is accepted");
        assert_eq!(fault.code, code, "{}", fault.message);
    }

    fn publication(json: &str) -> Result<Publication, Fault> {
        Draft::parse(json.as_bytes(), 2)?.complete(None)
    }

    #[test]
    fn publications_that_make_no_sense_are_refused() {
        refused("{", Code::BadRequest);
        refused("[]", Code::BadRequest);
        refused(r#"{"data":1,"room":"r"}"#, Code::BadRequest);
        refused(r#"{"event":"e","room":"r","romo":1}"#, Code::BadRequest);
        refused(r#"{"event":"","room":"r"}"#, Code::BadEventName);
        refused(r#"{"event":"disconnect","room":"r"}"#, Code::BadEventName);
        refused(&format!(r#"{{"event":"{}","room":"r"}}"#, "e".repeat(1025)), Code::BadEventName);
        refused(r#"{"event":"e"}"#, Code::BadTarget);
        refused(r#"{"event":"e","rooms":[]}"#, Code::BadTarget);
        refused(r#"{"event":"e","room":"r","rooms":["r"]}"#, Code::BadTarget);
        refused(r#"{"event":"e","room":""}"#, Code::BadRoomName);
        refused(r#"{"event":"e","room":"r","except":["\n"]}"#, Code::BadRoomName);
        refused(r#"{"event":"e","rooms":["a","b","c"]}"#, Code::TooMany);
        refused(r#"{"event":"e","namespace":"/nowhere"}"#, Code::UnknownNamespace);
        refused(r#"{"event":"e","namespace":"/","room":"r"}"#, Code::BadTarget);
        refused(r#"{"event":"e","user":""}"#, Code::BadRoomName);
        refused(r#"{"event":"e","room":"r","idempotency_key":""}"#, Code::BadRequest);
        let deep = format!(r#"{{"event":"e","room":"r","data":{}{}}}"#, "[".repeat(61), "]".repeat(61));
        refused(&deep, Code::DataTooDeep);
        refused(r#"{"event":"e","room":"r","deliver_at":"tomorrow"}"#, Code::BadRequest);
        refused(r#"{"event":"e","room":"r","ttl":0}"#, Code::BadRequest);
        refused(r#"{"event":"e","room":"r","ttl":-1}"#, Code::BadRequest);
        refused(r#"{"event":"join_room","room":"r","data":{"room":"a"}}"#, Code::BadEventName);
        refused(r#"{"event":"agent_status","data":{"job_id":"j","status":"asleep"}}"#, Code::BadPayload);
        refused(r#"{"event":"agent_status","room":"r"}"#, Code::BadPayload);
    }

    #[test]
    fn known_events_go_where_and_as_their_schema_says() {
        let rooms = |json: &str| {
            let outgoing = publication(json).unwrap().outgoing;
            let rooms: Vec<String> = outgoing.rooms.iter().map(ToString::to_string).collect();
            (outgoing.shape, outgoing.audience, rooms)
        };
        let status = r#"{"event":"agent_status","data":{"job_id":"j","status":"running"}}"#;
        assert_eq!(rooms(status), (Shape::Flat, Audience::Rooms, vec!["job:j".into()]));
        let named = r#"{"event":"agent_status","room":"r","data":{"job_id":"j","status":"running"}}"#;
        assert_eq!(rooms(named), (Shape::Flat, Audience::Rooms, vec!["r".into()]));
        let line = vec!["DEBUG".to_owned(), "INFO".into()];
        let log = r#"{"event":"log","data":{"text":"t"}}"#;
        assert_eq!(rooms(log), (Shape::Flat, Audience::Logs, line.clone()));
        let all = r#"{"event":"log","namespace":"/logs","data":{"text":"t"}}"#;
        assert_eq!(rooms(all), (Shape::Flat, Audience::Logs, line));
        let custom = r#"{"event":"e","namespace":"/logs"}"#;
        assert_eq!(rooms(custom), (Shape::Wrapped, Audience::Logs, vec![]));
    }

    #[test]
    fn a_template_names_the_event_and_takes_the_data() {
        let new =
            serde_json::from_value(serde_json::json!({ "event": "greeting", "data": "hello {{name}}" }))
                .unwrap();
        let step = hub::template::put(None, Timestamp(1), "hi", new, &TemplateLimits::default()).unwrap();
        let template = step.next.unwrap();
        let complete = |json: &str| Draft::parse(json.as_bytes(), 2).unwrap().complete(Some(&template));
        let outgoing = complete(r#"{"template":"hi","room":"r","data":{"name":"Ada"}}"#).unwrap().outgoing;
        assert_eq!((&*outgoing.name, outgoing.data.get()), ("greeting", r#""hello Ada""#));
        let missing = complete(r#"{"template":"hi","room":"r","data":{}}"#).unwrap_err();
        assert_eq!(missing.code, Code::BadPayload);
        let other =
            complete(r#"{"event":"e","template":"hi","room":"r","data":{"name":"Ada"}}"#).unwrap_err();
        assert_eq!(other.code, Code::BadPayload);
    }

    #[test]
    fn depth_counts_brackets_outside_strings_only() {
        for (json, expected) in
            [("1", 0), ("[]", 1), (r#"{"a":[{}]}"#, 3), (r#"["[[[\"[["]"#, 1), ("[[],[[]]]", 3)]
        {
            assert_eq!(depth(json.as_bytes()), expected, "{json}");
        }
    }
}
