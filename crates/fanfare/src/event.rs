//! Owns an event as publishers write it, and its bounds. Does not send anything.

use std::borrow::Cow;
use std::sync::Arc;

use hub::event::{Audience, Shape};
use hub::json::Json;
use hub::outgoing::Outgoing;
use hub::room::{RoomKind, RoomName};
use hub::time::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;

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
    event: String,
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
    idempotency_key: Option<String>,
}

/// An event that may be published.
#[derive(Debug)]
pub(crate) struct Publication {
    /// The event.
    pub(crate) outgoing: Outgoing,
    /// What the publisher calls the request, so that it counts once however often it comes.
    pub(crate) idempotency_key: Option<String>,
}

impl Publication {
    /// Reads one event from JSON.
    ///
    /// # Errors
    /// The publisher's fault: [`Code::BadRequest`] if it is not of this shape, or what is wrong with its parts.
    pub(crate) fn parse(json: &[u8], rooms_max: usize) -> Result<Self, Fault> {
        let raw: RawPublication = serde_json::from_slice(json)
            .map_err(|error| Fault::new(Code::BadRequest, format!("not an event: {error}")))?;
        check_name(&raw.event)?;
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
            None if rooms.is_empty() => {
                return Err(target("give `room`, `rooms`, `user`, `project` or `namespace`"));
            }
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
        let outgoing = Outgoing {
            name: Cow::Owned(raw.event),
            data: Json(Arc::from(data)),
            shape: Shape::Wrapped,
            audience,
            rooms,
            except: raw.except.into_iter().map(RoomName::parse).collect::<Result<_, _>>()?,
            key: Box::default(),
            volatile: raw.volatile,
        };
        Ok(Self { outgoing, idempotency_key: raw.idempotency_key })
    }
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

/// Now, in RFC 3339, UTC, with milliseconds.
pub(crate) fn timestamp() -> String {
    Timestamp::of(std::time::SystemTime::now()).to_string()
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
        let fault = Publication::parse(json.as_bytes(), 2).expect_err("it is accepted");
        assert_eq!(fault.code, code, "{}", fault.message);
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
