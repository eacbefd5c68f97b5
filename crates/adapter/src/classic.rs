//! Owns the bytes of the classic Redis adapter of Node, and of the emitters that speak to it: which channel says what, and
//! how. Does not connect. Invariant: bytes from outside never panic.
//!
//! | channel | says |
//! |---|---|
//! | `socket.io#/chat#` | an event for all, or for several rooms: msgpack `[uid, packet, opts]` |
//! | `socket.io#/chat#blue#` | the same for one room |
//! | `socket.io-request#/chat#` | requests: JSON, and msgpack where acks are wanted |
//! | `socket.io-response#/chat#` | answers: JSON, and msgpack for acks |

use crate::message::{
    Answer, Ask, Letter, Opts, RemoteSocket, Reply, args, map, names, packet, text_of, texts,
};
use crate::msgpack;
use crate::value::Data;

/// What a channel is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place<'a> {
    /// Events; of one room, if it is named.
    Events(Option<&'a str>),
    /// Requests.
    Requests,
    /// Answers.
    Answers,
}

/// The channels of a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Channels {
    /// Of events for all or several rooms.
    pub events: String,
    /// Of requests.
    pub requests: String,
    /// Of answers.
    pub answers: String,
}

impl Channels {
    /// Of this namespace, with this prefix (`socket.io` unless configured otherwise).
    #[must_use]
    pub fn new(prefix: &str, namespace: &str) -> Self {
        Self {
            events: format!("{prefix}#{namespace}#"),
            requests: format!("{prefix}-request#{namespace}#"),
            answers: format!("{prefix}-response#{namespace}#"),
        }
    }

    /// The pattern of all channels of events. What glob reads otherwise in names is escaped.
    #[must_use]
    pub fn pattern(&self) -> String {
        let mut pattern = String::with_capacity(self.events.len() + 1);
        for letter in self.events.chars() {
            if ['*', '?', '[', ']', '\\'].contains(&letter) {
                pattern.push('\\');
            }
            pattern.push(letter);
        }
        pattern.push('*');
        pattern
    }

    /// The channel of events for these rooms.
    #[must_use]
    pub fn of_rooms(&self, rooms: &[String]) -> String {
        match rooms {
            [room] => format!("{}{room}#", self.events),
            _ => self.events.clone(),
        }
    }

    /// What a channel of this namespace is for; `None`: it is none.
    #[must_use]
    pub fn place<'a>(&self, channel: &'a str) -> Option<Place<'a>> {
        if channel == self.requests {
            return Some(Place::Requests);
        }
        // A peer may answer on a channel of the asker's own.
        if channel.starts_with(&self.answers) {
            return Some(Place::Answers);
        }
        match channel.strip_prefix(&self.events)? {
            "" => Some(Place::Events(None)),
            room => Some(Place::Events(Some(room.strip_suffix('#').unwrap_or(room)))),
        }
    }
}

/// Reads an event.
///
/// # Errors
/// Whoever sent it is at fault, in words for the log.
pub fn decode_event(body: &[u8]) -> Result<Letter, String> {
    let Data::List(parts) = decode(body)? else { return Err("an event is no list".to_owned()) };
    let [uid, event, rest @ ..] = parts.as_slice() else {
        return Err("an event lacks its packet".to_owned());
    };
    let uid = uid.as_text().map(str::to_owned);
    let opts = Opts::read(rest.first());
    let ask = Ask::Broadcast { args: args(event.get("data"))?, opts, request: None };
    Ok(Letter { uid, namespace: namespace_of(event), ask })
}

/// Reads a request of the channel of this namespace.
///
/// # Errors
/// As [`decode_event`].
pub fn decode_request(namespace: &str, body: &[u8]) -> Result<Letter, String> {
    let data = decode(body)?;
    let kind = data.get("type").and_then(Data::as_count).ok_or("a request without a type")?;
    let opts = || Opts::read(data.get("opts"));
    let rooms = || data.get("rooms").map(names).unwrap_or_default();
    let request = || text_of(&data, "requestId");
    let ask = match kind {
        0 => Ask::Ids { rooms: rooms(), request: request()? },
        1 => Ask::Rooms { request: request()? },
        // Without `opts` these are of adapters older than version 6.
        2..=4 if data.get("opts").is_none() => {
            return Err("a request of an adapter that is too old".to_owned());
        }
        2 => Ask::Join { opts: opts(), rooms: rooms() },
        3 => Ask::Leave { opts: opts(), rooms: rooms() },
        4 => Ask::Disconnect { opts: opts(), close: data.get("close") == Some(&Data::Bool(true)) },
        5 => Ask::Fetch { opts: opts(), request: request()? },
        6 => Ask::ServerSide { args: args(data.get("data"))?, request: request().ok() },
        7 => {
            let args = args(data.get("packet").and_then(|packet| packet.get("data")))?;
            Ask::Broadcast { args, opts: opts(), request: Some(request()?) }
        }
        other => return Err(format!("a request of type {other}")),
    };
    let uid = data.get("uid").and_then(Data::as_text).map(str::to_owned);
    Ok(Letter { uid, namespace: namespace.to_owned(), ask })
}

/// Reads an answer; `None` for one that says nothing, as to requests that we do not make.
///
/// # Errors
/// As [`decode_event`].
pub fn decode_answer(body: &[u8]) -> Result<Option<Answer>, String> {
    let data = decode(body)?;
    let request = text_of(&data, "requestId")?;
    let reply = match data.get("type").and_then(Data::as_count) {
        Some(6) => Reply::Value(data.get("data").cloned().unwrap_or(Data::Null)),
        Some(8) => Reply::Count(data.get("clientCount").and_then(Data::as_count).ok_or("no `clientCount`")?),
        Some(9) => Reply::Ack(data.get("packet").cloned().unwrap_or(Data::Null)),
        Some(other) => return Err(format!("an answer of type {other}")),
        None => match (data.get("sockets"), data.get("rooms")) {
            (Some(Data::List(sockets)), _) if sockets.iter().any(|socket| socket.as_text().is_none()) => {
                Reply::Sockets(sockets.iter().filter_map(RemoteSocket::read).collect())
            }
            (Some(sockets), _) => Reply::Ids(names(sockets)),
            (None, Some(rooms)) => Reply::Rooms(names(rooms)),
            (None, None) => return Ok(None),
        },
    };
    Ok(Some(Answer { request, reply }))
}

/// Writes an ask: the channel that it goes to, and the bytes.
#[must_use]
pub fn encode_ask(channels: &Channels, letter: &Letter) -> (String, Vec<u8>) {
    let uid = letter.uid.as_deref().map_or(Data::Null, Data::text);
    let json = |data: Data| (channels.requests.clone(), data.to_json().to_string().into_bytes());
    match &letter.ask {
        Ask::Broadcast { args, opts, request: None } => {
            let packet = packet(args, Some(&letter.namespace));
            let body = msgpack::encode(&Data::List(vec![uid, packet, opts.write()]));
            (channels.of_rooms(&opts.rooms), body)
        }
        Ask::Broadcast { args, opts, request: Some(request) } => {
            let packet = packet(args, Some(&letter.namespace));
            let request = Data::text(request);
            let entries = [
                ("uid", uid),
                ("requestId", request),
                ("type", Data::Int(7)),
                ("packet", packet),
                ("opts", opts.write()),
            ];
            (channels.requests.clone(), msgpack::encode(&map(entries)))
        }
        Ask::Ids { rooms, request } => json(map([
            ("uid", uid),
            ("requestId", Data::text(request)),
            ("type", Data::Int(0)),
            ("rooms", texts(rooms)),
        ])),
        Ask::Rooms { request } => {
            json(map([("uid", uid), ("requestId", Data::text(request)), ("type", Data::Int(1))]))
        }
        Ask::Join { opts, rooms } => {
            json(map([("uid", uid), ("type", Data::Int(2)), ("opts", opts.write()), ("rooms", texts(rooms))]))
        }
        Ask::Leave { opts, rooms } => {
            json(map([("uid", uid), ("type", Data::Int(3)), ("opts", opts.write()), ("rooms", texts(rooms))]))
        }
        Ask::Disconnect { opts, close } => json(map([
            ("uid", uid),
            ("type", Data::Int(4)),
            ("opts", opts.write()),
            ("close", Data::Bool(*close)),
        ])),
        Ask::Fetch { opts, request } => json(map([
            ("uid", uid),
            ("requestId", Data::text(request)),
            ("type", Data::Int(5)),
            ("opts", opts.write()),
        ])),
        Ask::ServerSide { args, request: None } => {
            json(map([("uid", uid), ("type", Data::Int(6)), ("data", Data::List(args.clone()))]))
        }
        Ask::ServerSide { args, request: Some(request) } => json(map([
            ("uid", uid),
            ("requestId", Data::text(request)),
            ("type", Data::Int(6)),
            ("data", Data::List(args.clone())),
        ])),
    }
}

/// Writes an answer.
#[must_use]
pub fn encode_answer(answer: &Answer) -> Vec<u8> {
    let request = Data::text(&answer.request);
    let data = match &answer.reply {
        Reply::Sockets(sockets) => {
            let sockets = Data::List(sockets.iter().map(RemoteSocket::write).collect());
            map([("requestId", request), ("sockets", sockets)])
        }
        Reply::Ids(ids) => map([("requestId", request), ("sockets", texts(ids))]),
        Reply::Rooms(rooms) => map([("requestId", request), ("rooms", texts(rooms))]),
        Reply::Value(value) => map([("type", Data::Int(6)), ("requestId", request), ("data", value.clone())]),
        Reply::Count(count) => {
            let count = i64::try_from(*count).map_or(Data::UInt(*count), Data::Int);
            map([("type", Data::Int(8)), ("requestId", request), ("clientCount", count)])
        }
        Reply::Ack(value) => {
            let entries = [("type", Data::Int(9)), ("requestId", request), ("packet", value.clone())];
            return msgpack::encode(&map(entries));
        }
    };
    data.to_json().to_string().into_bytes()
}

/// Either encoding; the first byte tells which. A configured `parser` may have made JSON of everything.
fn decode(body: &[u8]) -> Result<Data, String> {
    match body.first() {
        Some(b'{' | b'[') if serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok() => {
            Data::parse(body)
        }
        _ => msgpack::decode(body),
    }
}

fn namespace_of(packet: &Data) -> String {
    packet.get("nsp").and_then(Data::as_text).unwrap_or("/").to_owned()
}
