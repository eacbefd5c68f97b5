//! Owns what is done with our sockets when servers and emitters of other making ask for it. Does not know how they ask.
//! Invariants: a socket gets an event once, and only what passes its filter; joins and leaves are noted as if they were
//! asked for over HTTP.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use adapter::{AckNews, Data, Doing, Local, Opts, RemoteSocket};
use engine::{Broadcaster, Many, Server, Socket, SocketInfo};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use hub::event::{Event, EventId, Shape};
use hub::room::RoomName;
use serde_json::value::to_raw_value;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc::UnboundedSender;

use super::Refused;
use crate::auth::principal_of;
use crate::dispatch::ROOM_NAMESPACES;
use crate::event::{check_depth, check_name, now};
use crate::filters::room_of;
use crate::realtime::Hub;

/// Headers that are nobody else's business: who reads them is who they speak for.
const PRIVATE_HEADERS: [&str; 3] = ["authorization", "cookie", "x-api-key"];

/// Characters of an event's name that the log shows.
const NAME_CHARS_SHOWN: usize = 100;

/// Our sockets.
pub(super) struct Sockets {
    server: Server,
    hub: Arc<Hub>,
    refused: Arc<Refused>,
}

impl Sockets {
    pub(super) fn new(server: Server, hub: Arc<Hub>, refused: Arc<Refused>) -> Self {
        Self { server, hub, refused }
    }

    /// The engine's rooms in which the members of rooms are, those included who watch through a filter.
    fn names(&self, rooms: &[String]) -> Vec<String> {
        let filters = self.hub.dispatcher().filters();
        let mut names: Vec<String> = rooms.to_vec();
        for room in rooms.iter().filter_map(|room| RoomName::parse(room.as_str()).ok()) {
            names.extend(filters.of(&room).iter().map(|channel| channel.name().to_owned()));
        }
        names
    }

    /// The engine's rooms in which those members are that want this event.
    fn wanting<'a>(&self, rooms: &'a [String], name: &str, args: &[Data]) -> Vec<Cow<'a, str>> {
        let mut names: Vec<Cow<'a, str>> = rooms.iter().map(|room| Cow::Borrowed(room.as_str())).collect();
        let mut event = None;
        for room in rooms.iter().filter_map(|room| RoomName::parse(room.as_str()).ok()) {
            for channel in self.hub.dispatcher().filters().of(&room) {
                if event
                    .get_or_insert_with(|| event_of(name, args))
                    .as_ref()
                    .is_none_or(|event| channel.lets_pass(event))
                {
                    names.push(Cow::Owned(channel.name().to_owned()));
                }
            }
        }
        names
    }

    fn those(&self, namespace: &str, opts: &Opts) -> Broadcaster {
        self.server.of(namespace).to(self.names(&opts.rooms)).except(self.names(&opts.except))
    }

    /// The name and the arguments of an event that may be sent to our sockets.
    fn checked<'a>(&self, args: &'a [Data]) -> Option<(&'a str, &'a [Data])> {
        let (name, args) = args.split_first()?;
        let name = name.as_text()?;
        let complaint = match check_name(name) {
            Err(fault) => fault.message,
            Ok(()) => match to_raw_value(args).map(|args| check_depth(&args)) {
                Ok(Ok(())) => return Some((name, args)),
                Ok(Err(fault)) => fault.message,
                Err(error) => error.to_string(),
            },
        };
        self.complain(name, &complaint);
        None
    }

    fn complain(&self, event: &str, why: &str) {
        if self.refused.note() {
            let event = shown(event);
            tracing::warn!(event, why, "an event of another server is not for our sockets");
        }
    }

    async fn send(&self, namespace: &str, opts: &Opts, args: &[Data]) {
        let Some((name, args)) = self.checked(args) else { return };
        let to = self.server.of(namespace).to(self.wanting(&opts.rooms, name, args));
        let to = to.except(self.names(&opts.except));
        if !to.is_wanted() {
            return;
        }
        let to = if opts.is_volatile { to.volatile() } else { to };
        if let Err(error) = to.emit_args_waiting(name, &Many(args)).await {
            self.complain(name, &error.to_string());
        }
    }

    /// Sends to one socket after the other, so that each ack is known as it comes.
    async fn ask(
        &self,
        namespace: &str,
        opts: &Opts,
        args: &[Data],
        timeout: Duration,
        news: UnboundedSender<AckNews>,
    ) {
        let Some((name, args)) = self.checked(args) else {
            let _ = news.send(AckNews::Count(0));
            return;
        };
        let to = self.server.of(namespace).to(self.wanting(&opts.rooms, name, args));
        let sockets = to.except(self.names(&opts.except)).fetch_sockets().await;
        // Whoever asked may have gone by the time that there is news.
        let _ = news.send(AckNews::Count(sockets.len() as u64));
        let mut acks: FuturesUnordered<_> = sockets
            .iter()
            .map(|found| async { found.socket().emit_with_ack(name, &Many(args), timeout).await })
            .collect();
        while let Some(answer) = acks.next().await {
            let Ok(values) = answer.map_err(drop).and_then(|answered| answered.values().map_err(drop)) else {
                continue;
            };
            let _ = news.send(AckNews::Ack(values.into_iter().map(Data::of).collect()));
        }
    }

    /// Has sockets join or leave rooms, and notes it.
    async fn change(&self, namespace: &str, opts: &Opts, rooms: &[String], is_join: bool) {
        if !ROOM_NAMESPACES.contains(&namespace) {
            let those = self.those(namespace, opts);
            let outcome = if is_join { those.sockets_join(rooms) } else { those.sockets_leave(rooms) };
            if outcome.is_err() {
                tracing::warn!(
                    namespace,
                    "another server's wish about rooms came while too much was to be done"
                );
            }
            return;
        }
        let sockets = self.those(namespace, opts).fetch_sockets().await;
        let rooms = rooms.iter().filter_map(|room| RoomName::parse(room.as_str()).ok());
        for room in rooms {
            let change = |found: SocketInfo| {
                let (hub, room) = (&self.hub, &room);
                async move {
                    if !is_join {
                        hub.leave(found.socket(), room).await;
                    } else if let Err(fault) = hub.bring_in(found.socket(), room).await {
                        tracing::warn!(
                            room = room.as_str(),
                            why = fault.message,
                            "a socket could not be brought in"
                        );
                    }
                }
            };
            futures_util::future::join_all(sockets.iter().cloned().map(change)).await;
        }
    }

    async fn described(&self, namespace: &str, opts: &Opts) -> Vec<RemoteSocket> {
        let sockets = self.those(namespace, opts).fetch_sockets().await;
        sockets.iter().map(describe).collect()
    }

    async fn open_rooms(&self, namespace: &str) -> Vec<String> {
        let stats = self.server.stats(true).await;
        let rooms = stats.rooms.iter().filter(|((its, _), members)| its == namespace && **members > 0);
        let rooms: BTreeSet<&str> = rooms.map(|((_, room), _)| room_of(room)).collect();
        rooms.into_iter().map(str::to_owned).collect()
    }
}

impl Local for Sockets {
    fn may_have(&self, namespace: &str, room: Option<&str>) -> bool {
        let Some(room) = room else { return true };
        let has = |name: &str| self.server.has_members(namespace, name);
        let is_watched = |room: RoomName| {
            self.hub.dispatcher().filters().of(&room).iter().any(|channel| has(channel.name()))
        };
        has(room) || RoomName::parse(room).is_ok_and(is_watched)
    }

    fn broadcast<'a>(&'a self, namespace: &'a str, opts: &'a Opts, args: &'a [Data]) -> Doing<'a, ()> {
        Box::pin(self.send(namespace, opts, args))
    }

    fn broadcast_with_acks<'a>(
        &'a self,
        namespace: &'a str,
        opts: &'a Opts,
        args: &'a [Data],
        timeout: Duration,
        news: UnboundedSender<AckNews>,
    ) -> Doing<'a, ()> {
        Box::pin(self.ask(namespace, opts, args, timeout, news))
    }

    fn join<'a>(&'a self, namespace: &'a str, opts: &'a Opts, rooms: &'a [String]) -> Doing<'a, ()> {
        Box::pin(self.change(namespace, opts, rooms, true))
    }

    fn leave<'a>(&'a self, namespace: &'a str, opts: &'a Opts, rooms: &'a [String]) -> Doing<'a, ()> {
        Box::pin(self.change(namespace, opts, rooms, false))
    }

    fn disconnect<'a>(&'a self, namespace: &'a str, opts: &'a Opts, close: bool) -> Doing<'a, ()> {
        Box::pin(async move {
            if self.those(namespace, opts).disconnect_sockets(close).is_err() {
                tracing::warn!(
                    namespace,
                    "another server's wish to disconnect came while too much was to be done"
                );
            }
        })
    }

    fn fetch<'a>(&'a self, namespace: &'a str, opts: &'a Opts) -> Doing<'a, Vec<RemoteSocket>> {
        Box::pin(self.described(namespace, opts))
    }

    fn rooms<'a>(&'a self, namespace: &'a str) -> Doing<'a, Vec<String>> {
        Box::pin(self.open_rooms(namespace))
    }

    fn server_side<'a>(&'a self, namespace: &'a str, args: &'a [Data]) -> Doing<'a, Data> {
        let event = args.first().and_then(Data::as_text).unwrap_or_default();
        // Nobody listens here; it is counted.
        tracing::debug!(namespace, event = shown(event), "another server tells servers something");
        Box::pin(std::future::ready(Data::Null))
    }
}

/// What the log shows of a name, which may be of any length.
fn shown(name: &str) -> &str {
    name.char_indices().nth(NAME_CHARS_SHOWN).map_or(name, |(end, _)| &name[..end])
}

/// What a filter looks at: the first argument is the data.
fn event_of(name: &str, args: &[Data]) -> Option<Event> {
    let data = to_raw_value(&args.first().map_or(Value::Null, Data::to_json)).ok()?;
    let (name, data) = (name.into(), data.into());
    Some(Event { id: EventId(0), name, data, at: now(), shape: Shape::Flat, expires_at: None })
}

/// A socket as Node's servers show theirs, without what only its owner may know.
fn describe(found: &SocketInfo) -> RemoteSocket {
    let principal = principal_of(found.socket());
    let mut data = match found.data() {
        Value::Object(data) => data,
        Value::Null => Map::new(),
        other => Map::from_iter([("value".to_owned(), other)]),
    };
    for (key, value) in [("user_id", &principal.user), ("session_id", &principal.session)] {
        if let Some(value) = value {
            data.insert(key.to_owned(), value.to_string().into());
        }
    }
    let mut rooms: Vec<String> = Vec::new();
    for room in found.rooms() {
        let room = room_of(room).to_owned();
        if !rooms.contains(&room) {
            rooms.push(room);
        }
    }
    RemoteSocket {
        id: found.id().to_string(),
        handshake: handshake(found.socket()),
        rooms,
        data: Value::Object(data),
    }
}

fn handshake(socket: &Socket) -> Value {
    let handshake = socket.handshake();
    let headers: Map<String, Value> = handshake
        .headers()
        .filter(|(name, _)| !PRIVATE_HEADERS.contains(name))
        .map(|(name, value)| (name.to_owned(), value.into()))
        .collect();
    // Whatever an application's page has put into the query may be a token.
    let query: Map<String, Value> = ["EIO", "transport"]
        .into_iter()
        .filter_map(|key| Some((key.to_owned(), handshake.query_value(key)?.into())))
        .collect();
    let issued_ms = handshake.issued().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
    json!({
        "headers": headers,
        "time": humantime::format_rfc3339_millis(handshake.issued()).to_string(),
        "address": handshake.address().map(|address| address.ip().to_string()),
        "xdomain": handshake.is_cross_domain(),
        "secure": handshake.is_secure(),
        "issued": issued_ms,
        "url": handshake.url().split('?').next().unwrap_or_default(),
        "query": query,
        "auth": {},
    })
}
