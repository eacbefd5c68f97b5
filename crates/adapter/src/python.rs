//! Owns the messages of python-socketio's managers: one channel, JSON objects with a `method`. Does not connect. Invariant:
//! bytes from outside never panic, and nothing is ever unpickled.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Value, json};

use crate::message::{Ask, Opts};
use crate::value::{DEPTH_MAX, Data};

/// Who awaits the ack of an event.
#[derive(Clone, Debug, PartialEq)]
pub struct Callback {
    /// The manager that asked.
    pub host_id: String,
    /// The room that it was for.
    pub room: String,
    /// The namespace, as the manager calls it.
    pub namespace: String,
    /// Its number there.
    pub id: Value,
}

/// Something that came.
#[derive(Clone, Debug, PartialEq)]
pub struct Said {
    /// Which manager says it.
    pub host_id: Option<String>,
    /// The namespace.
    pub namespace: String,
    /// What is asked; `None` for what concerns another process only.
    pub ask: Option<Ask>,
    /// Who awaits an ack, if somebody does.
    pub callback: Option<Callback>,
}

/// Reads what came.
///
/// # Errors
/// Whoever sent it is at fault, in words for the log.
pub fn decode(body: &[u8]) -> Result<Said, String> {
    if body.first() == Some(&0x80) {
        return Err(
            "pickled: python-socketio before 5.14 cannot be understood safely; use a newer one".to_owned()
        );
    }
    let message: Value = serde_json::from_slice(body).map_err(|error| format!("no json: {error}"))?;
    let text = |key: &str| message.get(key).and_then(Value::as_str).map(str::to_owned);
    let host_id = text("host_id");
    let namespace = text("namespace").unwrap_or_else(|| "/".to_owned());
    let rooms = |key: &str| rooms(message.get(key));
    let mut callback = None;
    let one = |key: &str| text(key).ok_or_else(|| format!("`{key}` is no text"));
    let ask = match message.get("method").and_then(Value::as_str) {
        Some("emit") => {
            let mut args = vec![Data::Text(one("event")?)];
            let is_binary = message.get("binary") == Some(&Value::Bool(true));
            args.append(&mut arguments(message.get("data").cloned().unwrap_or_default(), is_binary)?);
            let opts = Opts { rooms: rooms("room"), except: rooms("skip_sid"), ..Opts::default() };
            if let (Some(Value::Array(parts)), Some(host_id)) = (message.get("callback"), &host_id)
                && let [Value::String(room), Value::String(namespace), id] = parts.as_slice()
            {
                let (host_id, room, namespace) = (host_id.clone(), room.clone(), namespace.clone());
                callback = Some(Callback { host_id, room, namespace, id: id.clone() });
            }
            Some(Ask::Broadcast { args, opts, request: None })
        }
        Some("enter_room") => Some(Ask::Join { opts: Opts::to(&[&one("sid")?]), rooms: vec![one("room")?] }),
        Some("leave_room") => Some(Ask::Leave { opts: Opts::to(&[&one("sid")?]), rooms: vec![one("room")?] }),
        Some("close_room") => {
            Some(Ask::Leave { opts: Opts::to(&[&one("room")?]), rooms: vec![one("room")?] })
        }
        Some("disconnect") => Some(Ask::Disconnect { opts: Opts::to(&[&one("sid")?]), close: false }),
        Some("callback") => None,
        _ => return Err("no method that is known".to_owned()),
    };
    Ok(Said { host_id, namespace, ask, callback })
}

/// Writes an event for Python servers, from the manager `host_id`. They can leave out sockets, but no rooms.
#[must_use]
pub fn encode_event(host_id: &str, namespace: &str, args: &[Data], opts: &Opts) -> Option<Vec<u8>> {
    let (event, args) = args.split_first()?;
    let mut attachments = Vec::new();
    let mut data: Value = args.iter().map(|arg| strip(arg, &mut attachments)).collect();
    let is_binary = !attachments.is_empty();
    if is_binary {
        data = std::iter::once(data).chain(attachments).collect();
    }
    let list = |names: &[String]| match names {
        [] => Value::Null,
        [one] => one.as_str().into(),
        several => several.into(),
    };
    let message = json!({
        "method": "emit", "event": event.as_text()?, "data": data, "binary": is_binary, "namespace": namespace,
        "room": list(&opts.rooms), "skip_sid": list(&opts.except), "callback": null, "host_id": host_id,
    });
    Some(message.to_string().into_bytes())
}

/// Writes the ack that somebody awaits.
#[must_use]
pub fn encode_callback(callback: &Callback, args: &[Data]) -> Vec<u8> {
    let Callback { host_id, room, namespace, id } = callback;
    let args: Value = args.iter().map(Data::to_json).collect();
    let message = json!({
        "method": "callback", "host_id": host_id, "sid": room, "namespace": namespace, "id": id, "args": args,
    });
    message.to_string().into_bytes()
}

fn rooms(value: Option<&Value>) -> Vec<String> {
    match value {
        Some(Value::String(room)) => vec![room.clone()],
        Some(Value::Array(rooms)) => rooms.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}

/// The arguments of an event: a list; other things are one argument, as of versions that wrote them so. `[null]` is none.
fn arguments(data: Value, is_binary: bool) -> Result<Vec<Data>, String> {
    let (data, mut attachments) = match data {
        Value::Array(mut parts) if is_binary && !parts.is_empty() => {
            let attachments: Result<Vec<_>, String> = parts.split_off(1).iter().map(attachment).collect();
            (parts.pop().unwrap_or_default(), attachments?)
        }
        _ if is_binary => return Err("binary, but without attachments".to_owned()),
        data => (data, Vec::new()),
    };
    let args = match data {
        Value::Array(args) if matches!(args[..], [Value::Null]) => Vec::new(),
        Value::Array(args) => args,
        other => vec![other],
    };
    args.into_iter().map(|arg| fill(arg, &mut attachments, 0)).collect()
}

fn attachment(value: &Value) -> Result<Option<Bytes>, String> {
    let bytes = value.as_str().and_then(|text| STANDARD.decode(text).ok());
    bytes.map(|bytes| Some(Bytes::from(bytes))).ok_or_else(|| "an attachment is no base64".to_owned())
}

/// Puts attachments where their placeholders are, each once: who names a large one a thousand times would make it a
/// thousand times as large for whoever writes it.
fn fill(value: Value, attachments: &mut [Option<Bytes>], depth: usize) -> Result<Data, String> {
    if depth > DEPTH_MAX {
        return Err(format!("nested deeper than {DEPTH_MAX} levels"));
    }
    let mut deeper = |value| fill(value, attachments, depth + 1);
    Ok(match value {
        Value::Object(object) if object.get("_placeholder") == Some(&Value::Bool(true)) => {
            let number = object.get("num").and_then(Value::as_u64).and_then(|num| usize::try_from(num).ok());
            let bytes = number.and_then(|number| attachments.get_mut(number)?.take());
            Data::Bytes(bytes.ok_or("a placeholder names no attachment, or one that another has named")?)
        }
        Value::Object(object) => {
            let entry = |(key, value)| Ok((key, deeper(value)?));
            Data::Map(object.into_iter().map(entry).collect::<Result<_, String>>()?)
        }
        Value::Array(items) => Data::List(items.into_iter().map(deeper).collect::<Result<_, String>>()?),
        plain => Data::of(plain),
    })
}

/// JSON with placeholders, and the attachments that they name.
fn strip(data: &Data, attachments: &mut Vec<Value>) -> Value {
    match data {
        Data::Bytes(bytes) => {
            attachments.push(STANDARD.encode(bytes).into());
            json!({ "_placeholder": true, "num": attachments.len() - 1 })
        }
        Data::List(items) => items.iter().map(|item| strip(item, attachments)).collect(),
        Data::Map(entries) => Value::Object(
            entries.iter().map(|(key, value)| (key.clone(), strip(value, attachments))).collect(),
        ),
        Data::Null | Data::Bool(_) | Data::Int(_) | Data::UInt(_) | Data::Float(_) | Data::Text(_) => {
            data.to_json()
        }
    }
}
