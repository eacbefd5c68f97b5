//! Owns the routes about users and rooms: who is connected, moving sockets, messages to rooms and to everybody.
//! Does not know commands.

use std::collections::BTreeMap;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use hub::event::{Audience, Shape};
use hub::fault::Refusal;
use hub::made_room::{self, MADE_ROOMS_MAX, MadeRoom};
use hub::outgoing::Outgoing;
use hub::record::State as _;
use hub::room::{RoomKind, RoomName};
use hub::store::Listing;
use serde::Deserialize;
use serde_json::{Value, json};

use super::App;
use super::published::Published;
use crate::codes::{Code, Fault};
use crate::dispatch::record_rule;
use crate::event::{check_depth, check_name, checked};

/// `GET /socket/users`
pub(super) async fn users(State(app): State<App>) -> Response {
    let users = app.hub.users().await;
    let users: Vec<Value> =
        users.into_iter().map(|(user, count)| json!({ "userId": user, "connections": count })).collect();
    app.answer(Ok((StatusCode::OK, json!({ "users": users }))))
}

/// `GET /socket/users/{id}/connected`
pub(super) async fn connected(State(app): State<App>, Path(id): Path<String>) -> Response {
    let outcome = async {
        let room = RoomName::of(RoomKind::User, &id)?;
        let connections = app.hub.found(&room).await.len();
        Ok((StatusCode::OK, json!({ "connected": connections > 0, "connections": connections })))
    };
    app.answer(outcome.await)
}

/// `GET /socket/rooms`
pub(super) async fn rooms(State(app): State<App>) -> Response {
    let outcome = try_rooms(&app).await;
    app.answer(outcome)
}

async fn try_rooms(app: &App) -> Result<(StatusCode, Value), Fault> {
    let made = Listing { limit: MADE_ROOMS_MAX, ..Listing::default() };
    let made = app.hub.dispatcher().store().list(MadeRoom::KIND, made).await?;
    let mut members: BTreeMap<String, u64> =
        made.iter().map(|record| (record.key.id.to_string(), 0)).collect();
    members.append(&mut app.hub.rooms().await);
    let rooms: Vec<Value> =
        members.into_iter().map(|(room, count)| json!({ "room": room, "members": count })).collect();
    Ok((StatusCode::OK, json!({ "rooms": rooms })))
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

/// `POST /api/v1/rooms`: 201 for a room that is new, 200 for one that had been made before.
pub(super) async fn make(State(app): State<App>, headers: HeaderMap, body: Body) -> Response {
    let outcome = try_make(&app, &headers, body).await;
    app.answer(outcome)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewRoom {
    room: String,
}

async fn try_make(app: &App, headers: &HeaderMap, body: Body) -> Result<(StatusCode, Value), Fault> {
    let NewRoom { room } = app.read(body).await?;
    let room = RoomName::parse(room)?;
    let key = MadeRoom::key_of(room.as_str());
    let count = app.made_rooms.count(app, MadeRoom::KIND, MADE_ROOMS_MAX).await?;
    let (kept, name) = (app.limits.rooms_kept, room.clone());
    let rule = record_rule::<MadeRoom, _, _>(
        move |present, now| {
            if present.is_none() && count >= MADE_ROOMS_MAX {
                let complaint = format!("{MADE_ROOMS_MAX} rooms have been made, and no more may be");
                return Err(hub::fault::Fault::new(Refusal::TooMany, complaint));
            }
            Ok(made_room::make(present, now, &name, kept))
        },
        |made| made.is_new().into(),
    );
    let is_new = app.change(headers, key, rule).await?.answer == Value::Bool(true);
    if is_new {
        app.made_rooms.add_one();
    }
    let members = app.hub.found(&room).await.len();
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, json!({ "room": room.as_str(), "members": members })))
}

async fn try_move(app: &App, body: Body, is_join: bool) -> Result<(StatusCode, Value), Fault> {
    let asked: Move = app.read(body).await?;
    let room = RoomName::parse(asked.room)?;
    let whose = match (&asked.user_id, &asked.session_id) {
        (Some(user), None) => RoomName::of(RoomKind::User, user)?,
        (None, Some(session)) => RoomName::of(RoomKind::Session, session)?,
        _ => return Err(Fault::new(Code::BadPayload, "give `userId` or `sessionId`, one of them")),
    };
    let sockets = app.hub.move_all(&whose, &room, is_join).await?;
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
