//! Owns the bytes of Node's sharded Redis adapter: one object for everything, on channels of `SSUBSCRIBE`. Does not
//! connect. Invariant: bytes from outside never panic.
//!
//! | channel | says |
//! |---|---|
//! | `socket.io#/chat#` | everything that is not said elsewhere |
//! | `socket.io#/chat#<uid>#` | answers to that server |
//! | `socket.io#/chat#blue#` | events for one room, by servers in a dynamic subscription mode |

use crate::message::{
    Answer, Ask, Letter, Opts, RemoteSocket, Reply, args, map, names, packet, text_of, texts,
};
use crate::msgpack;
use crate::value::Data;

/// Characters of a name that Node takes for a socket's id: rooms of such a name have no channel of their own.
const ID_CHARS: usize = 20;

/// Something that came.
#[derive(Clone, Debug, PartialEq)]
pub enum Said {
    /// Another server asks.
    Ask(Letter),
    /// Another server answers.
    Answer(Answer),
    /// It says that it is there, or goes: of no consequence here, where Redis counts.
    Sign,
}

/// Everybody's channel in a namespace.
#[must_use]
pub fn channel(prefix: &str, namespace: &str) -> String {
    format!("{prefix}#{namespace}#")
}

/// The channel of one server, or of one room.
#[must_use]
pub fn channel_of(prefix: &str, namespace: &str, name: &str) -> String {
    format!("{prefix}#{namespace}#{name}#")
}

/// Whether a room has a channel of its own where servers subscribe dynamically.
#[must_use]
pub fn has_channel(room: &str) -> bool {
    // JavaScript counts UTF-16.
    room.encode_utf16().count() != ID_CHARS
}

/// Reads what came.
///
/// # Errors
/// Whoever sent it is at fault, in words for the log.
pub fn decode(body: &[u8]) -> Result<Said, String> {
    let message = match body.first() {
        Some(b'{') => Data::parse(body)?,
        _ => msgpack::decode(body)?,
    };
    let kind = message.get("type").and_then(Data::as_count).ok_or("a message without a type")?;
    let none = Data::Map(Vec::new());
    let data = message.get("data").unwrap_or(&none);
    let opts = || Opts::read(data.get("opts"));
    let rooms = || data.get("rooms").map(names).unwrap_or_default();
    let request = || text_of(data, "requestId");
    let answer =
        |reply: Reply| -> Result<Said, String> { Ok(Said::Answer(Answer { request: request()?, reply })) };
    let ask = match kind {
        1 | 2 | 13 => return Ok(Said::Sign),
        3 => {
            let args = args(data.get("packet").and_then(|packet| packet.get("data")))?;
            Ask::Broadcast { args, opts: opts(), request: request().ok() }
        }
        4 => Ask::Join { opts: opts(), rooms: rooms() },
        5 => Ask::Leave { opts: opts(), rooms: rooms() },
        6 => Ask::Disconnect { opts: opts(), close: data.get("close") == Some(&Data::Bool(true)) },
        7 => Ask::Fetch { opts: opts(), request: request()? },
        8 => {
            let Some(Data::List(sockets)) = data.get("sockets") else {
                return Err("no `sockets`".to_owned());
            };
            return answer(Reply::Sockets(sockets.iter().filter_map(RemoteSocket::read).collect()));
        }
        9 => Ask::ServerSide { args: args(data.get("packet"))?, request: request().ok() },
        10 => return answer(Reply::Value(data.get("packet").cloned().unwrap_or(Data::Null))),
        11 => {
            let count = data.get("clientCount").and_then(Data::as_count).ok_or("no `clientCount`")?;
            return answer(Reply::Count(count));
        }
        12 => return answer(Reply::Ack(data.get("packet").cloned().unwrap_or(Data::Null))),
        other => return Err(format!("a message of type {other}")),
    };
    let uid = message.get("uid").and_then(Data::as_text).map(str::to_owned);
    Ok(Said::Ask(Letter { uid, namespace: text_of(&message, "nsp")?, ask }))
}

/// Writes an ask; `None` for what this adapter has no words for.
#[must_use]
pub fn encode_ask(letter: &Letter) -> Option<Vec<u8>> {
    let (kind, data) = match &letter.ask {
        Ask::Broadcast { args, opts, request } => {
            let mut data = vec![("packet".to_owned(), packet(args, None)), ("opts".to_owned(), opts.write())];
            data.extend(request.as_ref().map(|request| ("requestId".to_owned(), Data::text(request))));
            (3, Data::Map(data))
        }
        Ask::Join { opts, rooms } => (4, map([("opts", opts.write()), ("rooms", texts(rooms))])),
        Ask::Leave { opts, rooms } => (5, map([("opts", opts.write()), ("rooms", texts(rooms))])),
        Ask::Disconnect { opts, close } => (6, map([("opts", opts.write()), ("close", Data::Bool(*close))])),
        Ask::Fetch { opts, request } => {
            (7, map([("opts", opts.write()), ("requestId", Data::text(request))]))
        }
        Ask::ServerSide { args, request } => {
            let mut data = vec![("packet".to_owned(), Data::List(args.clone()))];
            data.extend(request.as_ref().map(|request| ("requestId".to_owned(), Data::text(request))));
            (9, Data::Map(data))
        }
        Ask::Ids { .. } | Ask::Rooms { .. } => return None,
    };
    Some(encode(letter.uid.as_deref().unwrap_or_default(), &letter.namespace, kind, data))
}

/// Writes an answer; `None` for what this adapter has no words for.
#[must_use]
pub fn encode_answer(uid: &str, namespace: &str, answer: &Answer) -> Option<Vec<u8>> {
    let request = Data::text(&answer.request);
    let (kind, data) = match &answer.reply {
        Reply::Sockets(sockets) => {
            let sockets = Data::List(sockets.iter().map(RemoteSocket::write).collect());
            (8, map([("requestId", request), ("sockets", sockets)]))
        }
        Reply::Value(value) => (10, map([("requestId", request), ("packet", value.clone())])),
        Reply::Count(count) => {
            let count = i64::try_from(*count).map_or(Data::UInt(*count), Data::Int);
            (11, map([("requestId", request), ("clientCount", count)]))
        }
        Reply::Ack(value) => (12, map([("requestId", request), ("packet", value.clone())])),
        Reply::Ids(_) | Reply::Rooms(_) => return None,
    };
    Some(encode(uid, namespace, kind, data))
}

fn encode(uid: &str, namespace: &str, kind: i64, data: Data) -> Vec<u8> {
    let has_bytes = data.has_bytes();
    let message = map([
        ("type", Data::Int(kind)),
        ("data", data),
        ("uid", Data::text(uid)),
        ("nsp", Data::text(namespace)),
    ]);
    if has_bytes { msgpack::encode(&message) } else { message.to_json().to_string().into_bytes() }
}
