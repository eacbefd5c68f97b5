//! Owns what the servers of one Socket.IO cluster say to each other, whatever bytes they write it in. Does not know any
//! bytes, nor who does what is asked.

use serde_json::Value;

use crate::value::Data;

/// Whom something is for: those in any of the rooms (all, if there are none) and in none of those excepted. SIO5 "Rooms".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opts {
    /// The rooms; a socket's id is one.
    pub rooms: Vec<String>,
    /// Those whose members are left out.
    pub except: Vec<String>,
    /// Whether it may be dropped where it cannot be sent at once.
    pub is_volatile: bool,
    /// How long acks are waited for, in milliseconds.
    pub timeout_ms: Option<u64>,
}

impl Opts {
    /// For the members of these rooms.
    #[must_use]
    pub fn to(rooms: &[&str]) -> Self {
        Self { rooms: rooms.iter().map(|room| (*room).to_owned()).collect(), ..Self::default() }
    }

    /// Reads what the Node adapters write; what is missing has its default, because older versions leave things out.
    #[must_use]
    pub(crate) fn read(data: Option<&Data>) -> Self {
        let names = |key: &str| data.and_then(|data| data.get(key)).map(names).unwrap_or_default();
        let flag = |key: &str| data.and_then(|data| data.get("flags")).and_then(|flags| flags.get(key));
        Self {
            rooms: names("rooms"),
            except: names("except"),
            is_volatile: flag("volatile") == Some(&Data::Bool(true)),
            timeout_ms: flag("timeout").and_then(Data::as_count),
        }
    }

    /// Writes what the Node adapters read.
    #[must_use]
    pub(crate) fn write(&self) -> Data {
        let mut flags = Vec::new();
        if self.is_volatile {
            flags.push(("volatile".to_owned(), Data::Bool(true)));
        }
        if let Some(timeout) = self.timeout_ms {
            flags.push(("timeout".to_owned(), i64::try_from(timeout).map_or(Data::UInt(timeout), Data::Int)));
        }
        Data::Map(vec![
            ("rooms".to_owned(), texts(&self.rooms)),
            ("except".to_owned(), texts(&self.except)),
            ("flags".to_owned(), Data::Map(flags)),
        ])
    }
}

/// What one server asks of the others.
#[derive(Clone, Debug, PartialEq)]
pub enum Ask {
    /// Send an event to sockets.
    Broadcast {
        /// Its name and arguments.
        args: Vec<Data>,
        /// To whom.
        opts: Opts,
        /// The request that acks are sent to; `None`: there are to be none.
        request: Option<String>,
    },
    /// Have sockets join rooms.
    Join {
        /// Which sockets.
        opts: Opts,
        /// Which rooms.
        rooms: Vec<String>,
    },
    /// Have sockets leave rooms.
    Leave {
        /// Which sockets.
        opts: Opts,
        /// Which rooms.
        rooms: Vec<String>,
    },
    /// Disconnect sockets.
    Disconnect {
        /// Which sockets.
        opts: Opts,
        /// Whether their whole connections are closed.
        close: bool,
    },
    /// Tell of sockets.
    Fetch {
        /// Which sockets.
        opts: Opts,
        /// The request that the answer is to.
        request: String,
    },
    /// Tell the ids of the sockets in rooms.
    Ids {
        /// Which rooms; none is all sockets.
        rooms: Vec<String>,
        /// The request that the answer is to.
        request: String,
    },
    /// Tell which rooms there are.
    Rooms {
        /// The request that the answer is to.
        request: String,
    },
    /// Hear of something yourself.
    ServerSide {
        /// An event's name and arguments.
        args: Vec<Data>,
        /// The request that the answer is to; `None`: there is to be none.
        request: Option<String>,
    },
}

/// An ask with its sender.
#[derive(Clone, Debug, PartialEq)]
pub struct Letter {
    /// Who says it; `None` if it does not say.
    pub uid: Option<String>,
    /// The namespace that it is about.
    pub namespace: String,
    /// What is asked.
    pub ask: Ask,
}

/// A socket of another server.
#[derive(Clone, Debug, PartialEq)]
pub struct RemoteSocket {
    /// Its id.
    pub id: String,
    /// The request that opened it, as Node shows it.
    pub handshake: Value,
    /// Its rooms, its own first.
    pub rooms: Vec<String>,
    /// Its loose data.
    pub data: Value,
}

impl RemoteSocket {
    pub(crate) fn read(data: &Data) -> Option<Self> {
        let json = |key: &str| data.get(key).map_or(Value::Null, Data::to_json);
        Some(Self {
            id: data.get("id")?.as_text()?.to_owned(),
            handshake: json("handshake"),
            rooms: data.get("rooms").map(names).unwrap_or_default(),
            data: json("data"),
        })
    }

    pub(crate) fn write(&self) -> Data {
        Data::Map(vec![
            ("id".to_owned(), Data::text(&self.id)),
            ("handshake".to_owned(), Data::of(self.handshake.clone())),
            ("rooms".to_owned(), texts(&self.rooms)),
            ("data".to_owned(), Data::of(self.data.clone())),
        ])
    }
}

/// What one server answers.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// To [`Ask::Fetch`].
    Sockets(Vec<RemoteSocket>),
    /// To [`Ask::Ids`].
    Ids(Vec<String>),
    /// To [`Ask::Rooms`].
    Rooms(Vec<String>),
    /// To [`Ask::ServerSide`].
    Value(Data),
    /// To [`Ask::Broadcast`], first: how many sockets were asked.
    Count(u64),
    /// To [`Ask::Broadcast`], once for each socket that has answered: its first argument.
    Ack(Data),
}

/// A reply, and what it is to.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The request.
    pub request: String,
    /// The reply.
    pub reply: Reply,
}

/// A list of names; numbers are names, too, as JavaScript lets rooms be either. Nothing else is a name.
pub(crate) fn names(data: &Data) -> Vec<String> {
    let Data::List(items) = data else { return Vec::new() };
    let name = |item: &Data| match item {
        Data::Text(text) => Some(text.clone()),
        Data::Int(number) => Some(number.to_string()),
        Data::UInt(number) => Some(number.to_string()),
        Data::Float(number) => Some(number.to_string()),
        Data::Null | Data::Bool(_) | Data::Bytes(_) | Data::List(_) | Data::Map(_) => None,
    };
    items.iter().filter_map(name).collect()
}

/// A list of texts.
pub(crate) fn texts(names: &[String]) -> Data {
    Data::List(names.iter().map(|name| Data::text(name)).collect())
}

/// An event's name and arguments, if that is what it is.
pub(crate) fn args(data: Option<&Data>) -> Result<Vec<Data>, String> {
    match data {
        Some(Data::List(args)) if args.first().is_some_and(|name| name.as_text().is_some()) => {
            Ok(args.clone())
        }
        _ => Err("no event: its data is no list that begins with a name".to_owned()),
    }
}

/// The packet of an event, as Node has it.
pub(crate) fn packet(args: &[Data], namespace: Option<&str>) -> Data {
    let mut packet = vec![("type".to_owned(), Data::Int(2)), ("data".to_owned(), Data::List(args.to_vec()))];
    packet.extend(namespace.map(|namespace| ("nsp".to_owned(), Data::text(namespace))));
    Data::Map(packet)
}

/// A map of these.
pub(crate) fn map<const N: usize>(entries: [(&str, Data); N]) -> Data {
    Data::Map(entries.map(|(key, value)| (key.to_owned(), value)).into())
}

/// What a map has under a name as text.
///
/// # Errors
/// Whoever wrote it is at fault.
pub(crate) fn text_of(data: &Data, key: &str) -> Result<String, String> {
    let text = data.get(key).and_then(Data::as_text);
    text.map(str::to_owned).ok_or_else(|| format!("`{key}` is no text"))
}
