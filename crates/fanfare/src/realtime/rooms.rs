//! Owns the commands about rooms: join, leave, history, presence. Does not know vocabularies.

use std::sync::Arc;

use engine::{Event, Namespace, Socket, SocketInfo};
use hub::event::Position;
use hub::policy::Delivery;
use hub::room::{RoomKind, RoomName};
use hub::store::{Kept, Page, Span};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::Hub;
use super::caller::{Caller, argument, tell};
use crate::codes::{Code, Fault};
use crate::dispatch::{Attached, ROOM_NAMESPACES, Replay};

/// Events that one join may replay. Who missed more reads `history` page by page.
const REPLAY_EVENTS_MAX: usize = 1_000;

/// Events of one page of history.
pub(crate) const HISTORY_EVENTS_MAX: usize = 1_000;

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
    filter: Option<IgnoredAny>,
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
                caller.socket.leave(room.as_str());
                worker.note_left(&caller.socket, &room);
                worker.remember_leave(&caller.socket, &room).await;
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
}

impl Wish {
    /// To be in a room from now on.
    pub(crate) fn to_join(room: RoomName) -> Self {
        Self { room, since: None, last: None }
    }
}

fn join_argument(event: &Event<'_>) -> Result<Wish, Fault> {
    if event.name() == "subscribe_project" {
        let ProjectArgument { project_id } = argument(event, "{project_id}")?;
        return Ok(Wish::to_join(RoomName::of(RoomKind::Project, &project_id)?));
    }
    let JoinArgument { room, since, last, filter } = argument(event, "{room, since?: {epoch, seq}, last?}")?;
    if filter.is_some() {
        // Better than to send what was not asked for.
        return Err(Fault::new(Code::BadPayload, "events cannot be filtered yet: leave `filter` out"));
    }
    if since.is_some() && last.is_some() {
        return Err(Fault::new(Code::BadPayload, "give `since` or `last`, not both"));
    }
    Ok(Wish { room: RoomName::parse(room)?, since, last })
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
        let Wish { room, since, last } = wish;
        self.may_join(socket, &room).await?;
        self.remember_join(socket, &room).await?;
        let (attached, recovered) = self.attach(socket, &room, since, last).await?;
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

    async fn attach(
        &self,
        socket: &Socket,
        room: &RoomName,
        since: Option<Since>,
        last: Option<usize>,
    ) -> Result<(Attached, bool), Fault> {
        let dispatcher = self.dispatcher();
        let store = dispatcher.store();
        match dispatcher.policies().of(room).delivery {
            Delivery::Latest => {
                // Asked for before the read, so that nothing can come between.
                let order = dispatcher.sent_order();
                let latest = store.read_latest(room.clone()).await?;
                let attached =
                    dispatcher.attach(socket.clone(), room.clone(), Replay::Latest(latest, order)).await?;
                Ok((attached, since.is_some()))
            }
            Delivery::Volatile | Delivery::Log => {
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
                // As many bytes as still leave room in the socket's outbox for what is happening now.
                let bytes: usize = page.events.iter().map(|kept| kept.event.data.get().len() + 300).sum();
                let fits = bytes <= self.replay_bytes_max;
                let replay = if fits && (is_whole || last.is_some()) {
                    Replay::Log(page)
                } else {
                    Replay::Nothing(page)
                };
                let attached = dispatcher.attach(socket.clone(), room.clone(), replay).await?;
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
            let events: Vec<Value> = latest.iter().map(event_json).collect();
            return Ok(json!({ "room": room.as_str(), "events": events }));
        }
        let page = dispatcher.store().read(room.clone(), span).await?;
        let events: Vec<Value> = page.events.iter().map(event_json).collect();
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
        let mut members = Vec::new();
        for namespace in ROOM_NAMESPACES {
            members.extend(self.server().of(namespace).to(room.as_str()).fetch_sockets().await);
        }
        members
    }
}

/// Whether a page holds everything after what the peer has.
fn reaches(page: &Page, since: Since) -> bool {
    // Before a room's first event there is no epoch: who was there then has missed whatever has come since.
    let is_same_log = page.epoch == since.epoch || (since.epoch == 0 && since.seq == 0);
    let last_read =
        page.events.last().and_then(|kept| kept.position).map_or(since.seq, |position| position.seq);
    is_same_log && since.seq <= page.last_seq && since.seq + 1 >= page.first_seq && last_read >= page.last_seq
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
