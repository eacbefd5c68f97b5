//! Owns the commands about rooms: join, leave, history, presence. Does not know vocabularies.

use std::sync::Arc;
use std::time::Duration;

use engine::{Event, Joined, Namespace, Socket, SocketInfo};
use hub::event::Position;
use hub::policy::Delivery;
use hub::room::{RoomKind, RoomName};
use hub::store::{Kept, Page, Span};
use serde::Deserialize;
use serde_json::{Value, json};

use super::caller::{Caller, argument, tell};
use super::{Hub, Standing};
use crate::auth::Identity;
use crate::codes::{Code, Fault};
use crate::dispatch::{Attached, ROOM_NAMESPACES, Replay};
use crate::event::now;
use crate::filters::Channel;

/// Events that one join may replay. Who missed more reads `history` page by page.
const REPLAY_EVENTS_MAX: usize = 1_000;

/// Events of one page of history.
pub(crate) const HISTORY_EVENTS_MAX: usize = 1_000;

/// How often filters that nobody watches through, and rooms that nobody is in, are looked for: they may be there that
/// much longer.
const SWEPT_EVERY: Duration = Duration::from_secs(20);

/// The argument of the commands about one room.
#[derive(Deserialize)]
struct RoomArgument {
    room: String,
}

/// The argument of a join.
#[derive(Deserialize)]
struct JoinArgument {
    room: String,
    since: Option<Since>,
    last: Option<usize>,
    filter: Option<Value>,
}

/// The last event that a peer has.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct Since {
    epoch: u64,
    seq: u64,
}

/// The argument of `history`.
#[derive(Deserialize)]
struct HistoryArgument {
    room: String,
    since: Option<SinceSeq>,
    last: Option<usize>,
    limit: Option<usize>,
}

/// A position in a log, or its number alone.
#[derive(Deserialize)]
#[serde(untagged)]
enum SinceSeq {
    Position(Since),
    Seq(u64),
}

/// The argument of `subscribe_project`.
#[derive(Deserialize)]
struct ProjectJoinArgument {
    project_id: String,
    since: Option<Since>,
    last: Option<usize>,
    filter: Option<Value>,
}

#[derive(Deserialize)]
struct ProjectArgument {
    project_id: String,
}

pub(super) fn register(namespace: &mut Namespace, hub: &Arc<Hub>) {
    for (command, confirmation) in
        [("join_room", Some("room_joined")), ("subscribe", None), ("subscribe_project", None)]
    {
        let hub = hub.clone();
        namespace.on_raw(command, move |socket, event| {
            let Some(caller) = Caller::admit(socket, event, &hub) else { return };
            let wish = match join_argument(event) {
                Ok(wish) => wish,
                Err(fault) => return caller.refuse(&fault),
            };
            let worker = hub.clone();
            hub.in_turn(socket, caller, move |caller| async move {
                let outcome = worker.join(&caller.socket, wish).await;
                if let (Ok(joined), Some(confirmation)) = (&outcome, confirmation) {
                    tell(&caller.socket, confirmation, &json!({ "room": joined["room"] }));
                }
                caller.finish(outcome);
            });
        });
    }
    for (command, confirmation) in
        [("leave_room", Some("room_left")), ("unsubscribe", None), ("unsubscribe_project", None)]
    {
        let hub = hub.clone();
        namespace.on_raw(command, move |socket, event| {
            let Some(caller) = Caller::admit(socket, event, &hub) else { return };
            let room = match leave_argument(event) {
                Ok(room) => room,
                Err(fault) => return caller.refuse(&fault),
            };
            let worker = hub.clone();
            hub.in_turn(socket, caller, move |caller| async move {
                worker.leave(&caller.socket, &room).await;
                let left = json!({ "room": room.as_str() });
                if let Some(confirmation) = confirmation {
                    tell(&caller.socket, confirmation, &left);
                }
                caller.succeed(left);
            });
        });
    }
    let history_hub = hub.clone();
    namespace.on_raw("history", move |socket, event| {
        let hub = history_hub.clone();
        let Some(caller) = Caller::admit(socket, event, &hub) else { return };
        let asked = match argument::<HistoryArgument>(event, "{room, since | last, limit}") {
            Ok(asked) => asked,
            Err(fault) => return caller.refuse(&fault),
        };
        let worker = hub.clone();
        hub.in_turn(socket, caller, move |caller| async move {
            let outcome = worker.history_for(&caller.socket, asked).await;
            caller.finish(outcome);
        });
    });
    let presence_hub = hub.clone();
    namespace.on_raw("presence", move |socket, event| {
        let hub = presence_hub.clone();
        let Some(caller) = Caller::admit(socket, event, &hub) else { return };
        let asked = argument::<RoomArgument>(event, "{room}");
        let room = match asked.and_then(|asked| Ok(RoomName::parse(asked.room)?)) {
            Ok(room) => room,
            Err(fault) => return caller.refuse(&fault),
        };
        let worker = hub.clone();
        hub.in_turn(socket, caller, move |caller| async move {
            let outcome = worker.presence_for(&caller.socket, &room).await;
            caller.finish(outcome);
        });
    });
}

/// What a join asks for.
pub(crate) struct Wish {
    room: RoomName,
    since: Option<Since>,
    last: Option<usize>,
    filter: Option<Value>,
}

fn join_argument(event: &Event<'_>) -> Result<Wish, Fault> {
    let (room, since, last, filter) = if event.name() == "subscribe_project" {
        let takes = "{project_id, since?: {epoch, seq}, last?, filter?}";
        let ProjectJoinArgument { project_id, since, last, filter } = argument(event, takes)?;
        (RoomName::of(RoomKind::Project, &project_id)?, since, last, filter)
    } else {
        let takes = "{room, since?: {epoch, seq}, last?, filter?}";
        let JoinArgument { room, since, last, filter } = argument(event, takes)?;
        (RoomName::parse(room)?, since, last, filter)
    };
    if since.is_some() && last.is_some() {
        return Err(Fault::new(Code::BadPayload, "give `since` or `last`, not both"));
    }
    Ok(Wish { room, since, last, filter })
}

fn leave_argument(event: &Event<'_>) -> Result<RoomName, Fault> {
    if event.name() == "unsubscribe_project" {
        let ProjectArgument { project_id } = argument(event, "{project_id}")?;
        return Ok(RoomName::of(RoomKind::Project, &project_id)?);
    }
    let RoomArgument { room } = argument(event, "{room}")?;
    Ok(RoomName::parse(room)?)
}

impl Hub {
    /// Lets a socket join if it may, and gives it what it missed.
    pub(crate) async fn join(&self, socket: &Socket, wish: Wish) -> Result<Value, Fault> {
        let Wish { room, since, last, filter } = wish;
        self.may_join(socket, &room).await?;
        let Some(identity) = socket.state::<Identity>() else {
            return Err(Fault::new(Code::Internal, "a socket without an identity"));
        };
        let channel = match &filter {
            Some(filter) => Some(self.dispatcher().filters().open(&room, filter)?),
            None => None,
        };
        let before = identity.standings.of(&room);
        let standing = Standing { filter, channel: channel.clone(), ..before.clone() };
        identity.standings.set(room.clone(), standing.clone());
        let joining = async {
            // From before anything is read or noted, so that nothing falls between.
            self.hear(std::slice::from_ref(&room)).await;
            self.remember_join(socket, &room).await?;
            self.attach(socket, &room, channel, since, last).await
        };
        let (attached, recovered) = match joining.await {
            Ok(attached) => attached,
            Err(fault) => {
                // It is in the room as it was, if it was.
                identity.standings.set(room, before);
                return Err(fault);
            }
        };
        if before.name_in(&room) != standing.name_in(&room) {
            // Only now, so that nothing falls between; what came meanwhile came once.
            socket.leave(before.name_in(&room));
        }
        let mut joined = json!({ "room": room.as_str(), "recovered": recovered });
        if let Some(members) = self.note_joined(socket, &room) {
            joined["members"] = members.into();
        }
        if let Some(Position { epoch, seq }) = attached.position {
            joined["epoch"] = epoch.into();
            joined["seq"] = seq.into();
        }
        if attached.replayed > 0 {
            joined["replayed"] = attached.replayed.into();
        }
        Ok(joined)
    }

    /// Puts a socket into a room, whether or not it may join by itself. `false`: it has gone, or is in too many.
    ///
    /// # Errors
    /// It could not be kept that it is there.
    pub(crate) async fn bring_in(&self, socket: &Socket, room: &RoomName) -> Result<bool, Fault> {
        let Some(identity) = socket.state::<Identity>() else { return Ok(false) };
        let standing = Standing { is_invited: true, ..identity.standings.of(room) };
        identity.standings.set(room.clone(), standing.clone());
        self.hear(std::slice::from_ref(room)).await;
        self.remember_join(socket, room).await?;
        match socket.join_waiting(standing.name_in(room)).await {
            Joined::Done => {
                self.note_joined(socket, room);
                Ok(true)
            }
            Joined::TooManyRooms { .. } | Joined::Gone => {
                self.leave(socket, room).await;
                Ok(false)
            }
        }
    }

    /// Has a socket leave a room.
    pub(crate) async fn leave(&self, socket: &Socket, room: &RoomName) {
        self.note_left(socket, room);
        if let Some(identity) = socket.state::<Identity>() {
            socket.leave(identity.standings.of(room).name_in(room));
            identity.standings.set(room.clone(), Standing::default());
        }
        self.remember_leave(socket, room).await;
    }

    /// Forgets the filters that nobody watches through any more, and hears no longer of rooms that nobody is in, now and
    /// then. Never ends.
    pub(crate) async fn sweep_rooms(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(SWEPT_EVERY);
        loop {
            ticks.tick().await;
            let is_wanted = |name: &str| {
                ROOM_NAMESPACES.iter().any(|namespace| self.server().has_members(namespace, name))
            };
            let filters = self.dispatcher().filters();
            filters.sweep(is_wanted);
            if let Some(cluster) = self.dispatcher().cluster() {
                cluster.sweep(|room| {
                    filters.names_of(std::slice::from_ref(room)).iter().any(|name| is_wanted(name))
                        || self.server().has_members("/logs", room.as_str())
                });
            }
        }
    }

    /// Notes that a socket has left rooms that it may be in no longer.
    pub(super) async fn note_left_all(&self, socket: &Socket, left: &[String]) {
        for room in left.iter().filter_map(|room| RoomName::parse(room.as_str()).ok()) {
            self.leave(socket, &room).await;
        }
    }

    /// Gives a socket what it asked for of a room, and lets it in.
    pub(super) async fn attach(
        &self,
        socket: &Socket,
        room: &RoomName,
        channel: Option<Arc<Channel>>,
        since: Option<Since>,
        last: Option<usize>,
    ) -> Result<(Attached, bool), Fault> {
        let now = now();
        let is_wanted = |kept: &Kept| {
            !kept.event.is_expired(now)
                && channel.as_deref().is_none_or(|channel| channel.lets_pass(&kept.event))
        };
        let dispatcher = self.dispatcher();
        let store = dispatcher.store();
        match dispatcher.policies().of(room).delivery {
            Delivery::Latest => {
                let (mut latest, order) = self.latest_of(room).await?;
                latest.retain(is_wanted);
                let count = latest.len();
                let latest = newest_that_fit(latest, self.replay_bytes_max);
                let is_whole = latest.len() == count;
                let replay = Replay::Latest(latest, order);
                let attached =
                    dispatcher.attach(socket.clone(), room.clone(), channel.clone(), replay).await?;
                Ok((attached, since.is_some() && is_whole))
            }
            Delivery::Volatile => {
                let attached =
                    dispatcher.attach(socket.clone(), room.clone(), channel.clone(), Replay::Unkept).await?;
                // Who has seen nothing of what nobody keeps has missed nothing that could be given back.
                let is_whole = since.is_some_and(|since| since.epoch == 0 && since.seq == 0);
                Ok((attached, is_whole))
            }
            Delivery::Log => {
                let limit = last.unwrap_or(0).min(REPLAY_EVENTS_MAX);
                let span = match since {
                    Some(since) => Span::After { seq: since.seq, limit: REPLAY_EVENTS_MAX },
                    None => Span::Last { limit },
                };
                let mut page = store.read(room.clone(), span).await?;
                let is_whole = since.is_some_and(|since| reaches(&page, since));
                if since.is_some() && !is_whole {
                    page.events = Vec::new();
                }
                page.events.retain(is_wanted);
                // As many bytes as still leave room in the socket's outbox for what is happening now.
                let bytes: usize = page.events.iter().map(weight).sum();
                let fits = bytes <= self.replay_bytes_max;
                let replay = if fits && (is_whole || last.is_some()) {
                    Replay::Log(page)
                } else {
                    Replay::Nothing(page)
                };
                let attached =
                    dispatcher.attach(socket.clone(), room.clone(), channel.clone(), replay).await?;
                Ok((attached, is_whole && fits))
            }
        }
    }

    async fn history_for(&self, socket: &Socket, asked: HistoryArgument) -> Result<Value, Fault> {
        let room = RoomName::parse(asked.room)?;
        self.may_join(socket, &room).await?;
        let limit = asked.limit.unwrap_or(HISTORY_EVENTS_MAX).min(HISTORY_EVENTS_MAX);
        let span = match (asked.since, asked.last) {
            (Some(_), Some(_)) => {
                return Err(Fault::new(Code::BadPayload, "give `since` or `last`, not both"));
            }
            (Some(SinceSeq::Position(since)), None) => Span::After { seq: since.seq, limit },
            (Some(SinceSeq::Seq(seq)), None) => Span::After { seq, limit },
            (None, Some(last)) => Span::Last { limit: last.min(limit) },
            (None, None) => Span::Last { limit },
        };
        self.history(room, span).await
    }

    /// A part of a room's log, as readers get it.
    pub(crate) async fn history(&self, room: RoomName, span: Span) -> Result<Value, Fault> {
        let dispatcher = self.dispatcher();
        if dispatcher.policies().of(&room).delivery == Delivery::Latest {
            let latest = dispatcher.store().read_latest(room.clone()).await?;
            let events: Vec<Value> = readable(&latest);
            return Ok(json!({ "room": room.as_str(), "events": events }));
        }
        let page = dispatcher.store().read(room.clone(), span).await?;
        let events: Vec<Value> = readable(&page.events);
        Ok(json!({
            "room": room.as_str(),
            "epoch": page.epoch,
            "first_seq": page.first_seq,
            "last_seq": page.last_seq,
            "events": events,
        }))
    }

    /// The sockets that are in a room, of all namespaces that share it.
    pub(crate) async fn members(&self, room: &RoomName) -> Vec<SocketInfo> {
        let names = self.dispatcher().filters().names_of(std::slice::from_ref(room));
        let mut members = Vec::new();
        for namespace in ROOM_NAMESPACES {
            members.extend(self.server().of(namespace).to(&names[..]).fetch_sockets().await);
        }
        members
    }
}

/// Bytes that an event takes in a socket's outbox, with what is written around its data.
fn weight(kept: &Kept) -> usize {
    kept.event.data.get().len() + 300
}

/// The newest of these events, as many as fit.
fn newest_that_fit(mut events: Vec<Kept>, bytes_max: usize) -> Vec<Kept> {
    let mut bytes = 0;
    let fit = events.iter().rev().take_while(|kept| {
        bytes += weight(kept);
        bytes <= bytes_max
    });
    let surplus = events.len() - fit.count();
    events.drain(..surplus);
    events
}

/// Whether a page holds everything after what the peer has.
fn reaches(page: &Page, since: Since) -> bool {
    // Before a room's first event there is no epoch: who was there then has missed whatever has come since.
    let is_same_log = page.epoch == since.epoch || (since.epoch == 0 && since.seq == 0);
    let last_read =
        page.events.last().and_then(|kept| kept.position).map_or(since.seq, |position| position.seq);
    is_same_log && since.seq <= page.last_seq && since.seq + 1 >= page.first_seq && last_read >= page.last_seq
}

/// Events of a log, as readers get them: those that are still of use.
fn readable(events: &[Kept]) -> Vec<Value> {
    let now = now();
    events.iter().filter(|kept| !kept.event.is_expired(now)).map(event_json).collect()
}

/// An event of a log, as readers get it.
pub(crate) fn event_json(kept: &Kept) -> Value {
    let event = &kept.event;
    let data: Value = serde_json::from_str(event.data.get()).unwrap_or_default();
    let mut json = json!({
        "id": event.id.to_string(),
        "event": &*event.name,
        "data": data,
        "timestamp": event.at.to_string(),
    });
    if let Some(position) = kept.position {
        json["seq"] = position.seq.into();
    }
    json
}
