//! Owns what an event is on its way in, how it is wrapped for those who watch, and whom it reaches.
//! Does not know where it came from. Invariant: one event reaches one socket once, however many rooms it names.

use std::time::SystemTime;

use engine::{Broadcaster, EmitError, Server};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::codes::{Code, Fault};
use crate::room::RoomName;

/// The namespaces that share the rooms: an event to a room reaches its members in each of these.
pub(crate) const NAMESPACES: [&str; 2] = ["/", "/ws"];

/// Bytes of an event's name; what the parser takes from sockets.
pub(crate) const EVENT_NAME_BYTES_MAX: usize = 1024;

/// Levels of arrays and objects in an event's data. 60: with the wrapping around it, still below the 64 that our own
/// parser takes from sockets.
pub(crate) const DATA_DEPTH_MAX: usize = 60;

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
    namespace: Option<String>,
    #[serde(default)]
    except: Vec<String>,
    #[serde(default)]
    volatile: bool,
}

/// An event that may be published.
#[derive(Debug)]
pub(crate) struct Publication {
    event: String,
    data: Box<RawValue>,
    rooms: Vec<RoomName>,
    namespaces: Vec<&'static str>,
    except: Vec<RoomName>,
    volatile: bool,
}

/// An event as those who watch get it.
#[derive(Serialize)]
struct Wrapped<'a> {
    event: &'a str,
    data: &'a RawValue,
    room: Option<&'a str>,
    timestamp: &'a str,
    id: &'a str,
}

impl Publication {
    /// Reads one event from JSON.
    ///
    /// # Errors
    /// The publisher's fault: [`Code::BadRequest`] if it is not of this shape, or what is wrong with its parts.
    pub(crate) fn parse(json: &[u8], rooms_max: usize) -> Result<Self, Fault> {
        let raw: RawPublication = serde_json::from_slice(json)
            .map_err(|error| Fault::new(Code::BadRequest, format!("not an event: {error}")))?;
        let event_name = |complaint: String| Fault::new(Code::BadEventName, complaint);
        if raw.event.is_empty() {
            return Err(event_name("an event's name must not be empty".to_owned()));
        }
        if raw.event.len() > EVENT_NAME_BYTES_MAX {
            let len = raw.event.len();
            return Err(event_name(format!("an event's name of {len} bytes exceeds {EVENT_NAME_BYTES_MAX}")));
        }
        if RESERVED.contains(&raw.event.as_str()) {
            return Err(event_name(format!("the event name `{}` is reserved by Socket.IO", raw.event)));
        }
        let data = match raw.data {
            Some(data) => data,
            None => RawValue::NULL.to_owned(),
        };
        if depth(data.get().as_bytes()) > DATA_DEPTH_MAX {
            return Err(Fault::new(
                Code::DataTooDeep,
                format!("data is nested deeper than {DATA_DEPTH_MAX} levels"),
            ));
        }
        let target = |complaint: &str| Fault::new(Code::BadTarget, complaint);
        let rooms = match (raw.room, raw.rooms) {
            (Some(_), Some(_)) => return Err(target("give `room` or `rooms`, not both")),
            (Some(room), None) => vec![room],
            (None, Some(rooms)) if rooms.is_empty() => return Err(target("`rooms` must not be empty")),
            (None, Some(rooms)) => rooms,
            (None, None) if raw.namespace.is_some() => Vec::new(),
            (None, None) => return Err(target("give `room`, `rooms` or `namespace`")),
        };
        for (what, count) in [("rooms", rooms.len()), ("except", raw.except.len())] {
            if count > rooms_max {
                return Err(Fault::new(Code::TooMany, format!("`{what}` of {count} exceeds {rooms_max}")));
            }
        }
        let namespaces = match raw.namespace {
            None => NAMESPACES.to_vec(),
            Some(name) => match NAMESPACES.iter().find(|known| **known == name) {
                Some(known) => vec![*known],
                None => {
                    return Err(Fault::new(
                        Code::UnknownNamespace,
                        format!("there is no namespace `{name}`"),
                    ));
                }
            },
        };
        let parse =
            |names: Vec<String>| names.into_iter().map(RoomName::parse).collect::<Result<Vec<_>, _>>();
        Ok(Self {
            event: raw.event,
            data,
            rooms: parse(rooms)?,
            namespaces,
            except: parse(raw.except)?,
            volatile: raw.volatile,
        })
    }

    /// Sends it to all it is for, and answers its id.
    ///
    /// A socket in several of its rooms gets it once, with the first of them as `room`.
    ///
    /// # Errors
    /// [`Code::Busy`]: some have not got it, others may have.
    pub(crate) fn publish(&self, server: &Server) -> Result<Uuid, Fault> {
        let id = Uuid::now_v7();
        let mut text = Uuid::encode_buffer();
        let id_text: &str = id.hyphenated().encode_lower(&mut text);
        let timestamp = timestamp();
        let wrap =
            |room| Wrapped { event: &self.event, data: &self.data, room, timestamp: &timestamp, id: id_text };
        let mut outcome = Ok(());
        for namespace in &self.namespaces {
            let mut everyone = server.of(namespace).except(names(&self.except));
            if self.volatile {
                everyone = everyone.volatile();
            }
            if self.rooms.is_empty() {
                outcome = outcome.and(emit(&everyone, &self.event, &wrap(None)));
            }
            for (nth, room) in self.rooms.iter().enumerate() {
                let members = everyone.clone().to(room.as_str()).except(names(&self.rooms[..nth]));
                outcome = outcome.and(emit(&members, &self.event, &wrap(Some(room.as_str()))));
            }
        }
        outcome.map(|()| id)
    }
}

fn names(rooms: &[RoomName]) -> Vec<&str> {
    rooms.iter().map(RoomName::as_str).collect()
}

fn emit(to: &Broadcaster, event: &str, payload: &Wrapped<'_>) -> Result<(), Fault> {
    to.emit(event, payload).map_err(|error| match error {
        EmitError::Busy(busy) => Fault::new(Code::Busy, busy.to_string()),
        EmitError::Payload(fault) => Fault::new(Code::BadRequest, fault.to_string()),
    })
}

/// Now, in RFC 3339, UTC, with milliseconds.
pub(crate) fn timestamp() -> String {
    humantime::format_rfc3339_millis(SystemTime::now()).to_string()
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
