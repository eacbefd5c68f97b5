//! Owns the routes about users and rooms: who is connected, moving sockets, messages to rooms and to everybody.
//! Does not know commands.

use std::collections::BTreeMap;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use hub::event::{Audience, Shape};
use hub::outgoing::Outgoing;
use hub::room::{RoomKind, RoomName};
use serde::Deserialize;
use serde_json::{Value, json};

use super::App;
use super::published::Published;
use crate::auth::principal_of;
use crate::codes::{Code, Fault};
use crate::dispatch::ROOM_NAMESPACES;
use crate::event::{check_depth, check_name, checked};

/// `GET /socket/users`
pub(super) async fn users(State(app): State<App>) -> Response {
    let mut users: BTreeMap<String, u64> = BTreeMap::new();
    for namespace in ROOM_NAMESPACES {
        for found in app.server.of(namespace).fetch_sockets().await {
            if let Some(user) = &principal_of(found.socket()).user {
                *users.entry(user.to_string()).or_default() += 1;
            }
        }
    }
    let users: Vec<Value> =
        users.into_iter().map(|(user, count)| json!({ "userId": user, "connections": count })).collect();
    app.answer(Ok((StatusCode::OK, json!({ "users": users }))))
}

/// `GET /socket/users/{id}/connected`
pub(super) async fn connected(State(app): State<App>, Path(id): Path<String>) -> Response {
    let outcome = async {
        let room = RoomName::of(RoomKind::User, &id)?;
        let connections = app.hub.members(&room).await.len();
        Ok((StatusCode::OK, json!({ "connected": connections > 0, "connections": connections })))
    };
    app.answer(outcome.await)
}

/// `GET /socket/rooms`
pub(super) async fn rooms(State(app): State<App>) -> Response {
    let stats = app.server.stats(true).await;
    let mut members: BTreeMap<&str, usize> = BTreeMap::new();
    for ((namespace, room), count) in &stats.rooms {
        if ROOM_NAMESPACES.contains(&namespace.as_str()) && *count > 0 {
            *members.entry(room).or_default() += count;
        }
    }
    let rooms: Vec<Value> =
        members.into_iter().map(|(room, count)| json!({ "room": room, "members": count })).collect();
    app.answer(Ok((StatusCode::OK, json!({ "rooms": rooms }))))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Move {
    room: String,
    #[serde(rename = "userId")]
    user_id: Option<String>,
    #[serde(rename = "sessionId")]
    session_id: Option<String>,
}

/// `POST /socket/rooms/join`
pub(super) async fn join(State(app): State<App>, body: Body) -> Response {
    let outcome = try_move(&app, body, true).await;
    app.answer(outcome)
}

/// `POST /socket/rooms/leave`
pub(super) async fn leave(State(app): State<App>, body: Body) -> Response {
    let outcome = try_move(&app, body, false).await;
    app.answer(outcome)
}

async fn try_move(app: &App, body: Body, is_join: bool) -> Result<(StatusCode, Value), Fault> {
    let asked: Move = app.read(body).await?;
    let room = RoomName::parse(asked.room)?;
    let whose = match (&asked.user_id, &asked.session_id) {
        (Some(user), None) => RoomName::of(RoomKind::User, user)?,
        (None, Some(session)) => RoomName::of(RoomKind::Session, session)?,
        _ => return Err(Fault::new(Code::BadPayload, "give `userId` or `sessionId`, one of them")),
    };
    let mut sockets = 0;
    for namespace in ROOM_NAMESPACES {
        let members = app.server.of(namespace).to(whose.as_str());
        sockets += members.fetch_sockets().await.len();
        let busy = |busy: engine::Busy| Fault::new(Code::Busy, busy.to_string());
        if is_join {
            members.sockets_join_waiting(room.as_str()).await.map_err(busy)?;
        } else {
            members.sockets_leave(room.as_str()).map_err(busy)?;
        }
    }
    Ok((StatusCode::OK, json!({ "room": room.as_str(), "sockets": sockets })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Message {
    room: String,
    event: String,
    #[serde(default)]
    data: Option<Box<serde_json::value::RawValue>>,
}

/// `POST /socket/rooms/message`
pub(super) async fn message(State(app): State<App>, headers: HeaderMap, body: Body) -> Response {
    let outcome = try_message(&app, &headers, body).await;
    app.answer(outcome)
}

async fn try_message(app: &App, headers: &HeaderMap, body: Body) -> Result<(StatusCode, Published), Fault> {
    let message: Message = app.read(body).await?;
    check_name(&message.event)?;
    let data = message.data.unwrap_or_else(|| serde_json::value::RawValue::NULL.to_owned());
    check_depth(&data)?;
    let rooms = vec![RoomName::parse(message.room)?];
    let outgoing = checked(message.event, data, Some((Audience::Rooms, rooms)))?;
    // What is said to a room by hand travels as it is.
    let outgoing = Outgoing { shape: Shape::Flat, ..outgoing };
    super::events::publish(app, headers, outgoing, None).await
}
