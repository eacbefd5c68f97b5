//! Owns the commands that sockets send, the same on every namespace, and what a socket is told when it connects.
//! Does not know HTTP. Invariant: a command always gets an answer, and a bad one never costs the connection.

use std::sync::Arc;

use engine::{ArgsFault, Event, Namespace, PendingAnswer, Socket};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::runtime::Handle;

use crate::auth::{self, Authenticator, JoinVerdict};
use crate::codes::{Code, Fault};
use crate::event::timestamp;
use crate::room::RoomName;
use crate::tally::Tally;

/// The argument of the commands about one room.
#[derive(Deserialize)]
struct RoomArgument {
    room: String,
}

/// The argument of `refresh_token`.
#[derive(Deserialize)]
struct TokenArgument {
    token: String,
}

/// Who awaits the outcome of a command.
struct Caller {
    socket: Socket,
    command: String,
    answering: Option<PendingAnswer>,
    tally: Arc<Tally>,
}

impl Caller {
    fn of(socket: &Socket, event: &Event<'_>, tally: &Arc<Tally>) -> Self {
        tally.count_command(event.name());
        Self {
            socket: socket.clone(),
            command: event.name().to_owned(),
            answering: event.reserve_answer(socket),
            tally: tally.clone(),
        }
    }

    /// Answers the ack with `ok: true` and these fields; without an ack nothing more is said.
    fn succeed(self, mut fields: Value) {
        fields["ok"] = true.into();
        if let Some(answering) = self.answering {
            answering.answer(fields);
        }
    }

    /// Answers the ack with the fault; without an ack it is an `error` event.
    fn refuse(self, fault: &Fault) {
        self.tally.count_fault(fault.code);
        tracing::debug!(socket = ?self.socket, command = self.command, code = fault.code.as_str(), "command refused");
        if let Some(answering) = self.answering {
            return answering.answer(json!({ "ok": false, "error": fault.to_json() }));
        }
        let mut error = fault.to_json();
        error["command"] = self.command.into();
        tell(&self.socket, "error", &error);
    }
}

fn tell(socket: &Socket, event: &str, payload: &Value) {
    if let Err(error) = socket.emit(event, payload) {
        tracing::debug!(?socket, event, %error, "a socket could not be told");
    }
}

/// Registers the commands. `auto_rooms` are those that every socket of this namespace is in from the beginning.
pub(crate) fn register(
    namespace: &mut Namespace,
    auto_rooms: &'static [&'static str],
    rooms_max: usize,
    tally: &Arc<Tally>,
    auth: &Arc<Authenticator>,
) {
    auth::register(namespace, auth, tally);
    {
        let auth = auth.clone();
        namespace.on_connect(move |socket| welcome(socket, auto_rooms, auth.clone()));
    }
    // Handlers begin on a shard's thread; what waits for something goes on here.
    let control = Handle::current();
    for (command, confirmation) in [("join_room", Some("room_joined")), ("subscribe", None)] {
        let (tally, control, auth) = (tally.clone(), control.clone(), auth.clone());
        namespace.on_raw(command, move |socket, event| {
            let caller = Caller::of(socket, event, &tally);
            let room = match room_argument(event) {
                Ok(room) => room,
                Err(fault) => return caller.refuse(&fault),
            };
            match auth::join_verdict(&auth, socket, room.as_str()) {
                JoinVerdict::Allowed => {
                    socket.join(room.as_str());
                    control.spawn(confirm_join(caller, room, confirmation, rooms_max));
                }
                JoinVerdict::Refused(fault) => caller.refuse(&fault),
                JoinVerdict::Ask(name) => {
                    let auth = auth.clone();
                    control.spawn(async move {
                        if let Err(fault) = auth.may_join(&caller.socket, &name).await {
                            return caller.refuse(&fault);
                        }
                        caller.socket.join(room.as_str());
                        confirm_join(caller, room, confirmation, rooms_max).await;
                    });
                }
            }
        });
    }
    for (command, confirmation) in [("leave_room", Some("room_left")), ("unsubscribe", None)] {
        let tally = tally.clone();
        namespace.on_raw(command, move |socket, event| {
            let caller = Caller::of(socket, event, &tally);
            match room_argument(event) {
                Ok(room) => {
                    socket.leave(room.as_str());
                    let left = json!({ "room": room.as_str() });
                    if let Some(confirmation) = confirmation {
                        tell(socket, confirmation, &left);
                    }
                    caller.succeed(left);
                }
                Err(fault) => caller.refuse(&fault),
            }
        });
    }
    {
        let tally = tally.clone();
        namespace.on_raw("ping", move |socket, event| {
            let caller = Caller::of(socket, event, &tally);
            match event.values() {
                Ok(values) => {
                    let echo = values.into_iter().next().unwrap_or_default();
                    let pong = json!({ "timestamp": timestamp(), "echo": echo });
                    tell(socket, "pong", &pong);
                    caller.succeed(pong);
                }
                Err(fault) => caller.refuse(&bad_payload(event, &fault)),
            }
        });
    }
    {
        let (tally, control, auth) = (tally.clone(), control.clone(), auth.clone());
        namespace.on_raw("refresh_token", move |socket, event| {
            let caller = Caller::of(socket, event, &tally);
            match event.decode::<TokenArgument>() {
                Ok(argument) => {
                    let auth = auth.clone();
                    control.spawn(async move {
                        match auth.refresh(&caller.socket, argument.token).await {
                            Ok(fields) => caller.succeed(fields),
                            Err(fault) => caller.refuse(&fault),
                        }
                    });
                }
                // What does not fit may still be a token, and is not repeated.
                Err(_) => caller.refuse(&Fault::new(Code::BadPayload, "`refresh_token` takes {token}")),
            }
        });
    }
    let tally = tally.clone();
    namespace.fallback(move |socket, event| {
        let message = format!("there is no command `{}`", event.name());
        Caller::of(socket, event, &tally).refuse(&Fault::new(Code::UnknownCommand, message));
    });
}

async fn welcome(socket: Socket, auto_rooms: &[&str], auth: Arc<Authenticator>) {
    if !auth.is_open() {
        // The middleware waited, so this begins with a verdict that was mailed, and the shard obeys a handler that
        // such a verdict began only with its next output: the look at the rooms below could come first. Mailed joins
        // keep their order.
        tokio::task::yield_now().await;
    }
    let Some(principal) = auth::admit(&auth, &socket) else { return };
    // A recovered socket brings its rooms along, also the lack of one that it left.
    if !socket.recovered() {
        socket.join(auto_rooms);
    } else {
        auth.enforce_rooms(&socket).await;
    }
    let own = socket.id().to_string();
    let mut rooms = socket.rooms().await;
    rooms.retain(|room| *room != own);
    let established = json!({
        "type": "connection.established",
        "connection_id": own,
        "user_id": principal.user,
        "session_id": principal.session,
        "rooms": rooms,
        "server_time": timestamp(),
        "recovered": socket.recovered(),
    });
    tell(&socket, "connection_established", &established);
    auth::watch_expiry(&auth, &socket);
}

/// Says how a join went: a socket that is in as many rooms as it may be is not in the new one.
async fn confirm_join(caller: Caller, room: RoomName, confirmation: Option<&str>, rooms_max: usize) {
    let is_member = caller.socket.rooms().await.iter().any(|found| found == room.as_str());
    if !is_member {
        let message = format!("a socket may be in {rooms_max} rooms; leave another one first");
        return caller.refuse(&Fault::new(Code::TooManyRooms, message));
    }
    if let Some(confirmation) = confirmation {
        tell(&caller.socket, confirmation, &json!({ "room": room.as_str() }));
    }
    caller.succeed(json!({ "room": room.as_str(), "recovered": false }));
}

fn room_argument(event: &Event<'_>) -> Result<RoomName, Fault> {
    let argument: RoomArgument = event.decode().map_err(|fault| bad_payload(event, &fault))?;
    RoomName::parse(argument.room)
}

fn bad_payload(event: &Event<'_>, fault: &ArgsFault) -> Fault {
    let takes = match event.name() {
        "ping" => "anything that JSON can hold",
        _ => "{room}",
    };
    Fault::new(Code::BadPayload, format!("`{}` takes {takes}: {fault}", event.name()))
}
