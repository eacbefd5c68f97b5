//! Owns what sockets ask of the server in every vocabulary, and what it tells them in return: rooms, history, presence,
//! tokens, approvals. Does not do any of it, and does not know acks.
//!
//! The ack of every command is `{ok: true, …}` or `{ok: false, error: {code, message}}`; the notices here are events
//! beside it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::event::{Audience, Shape};
use crate::payload::{Id, Payload, addressed, payload};
use crate::schema::{Direction, EventType};

/// Where in a room's log somebody has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Since {
    /// Which log of the room.
    pub epoch: u64,
    /// The last event that is known; 0 for none.
    pub seq: u64,
}

payload! {
    /// Joins a room and tells what was missed; `room_joined` follows.
    JoinRoom = "join_room" {
        required {
            /// Which room.
            room: String,
        }
        optional {
            /// Tell what came after this.
            since: Since,
            /// Tell the newest so many.
            last: u64,
            /// Tell only events that match: fields and what they equal, or an expression.
            filter: Value,
        }
    }
}

payload! {
    /// Joins a room and tells what was missed.
    Subscribe = "subscribe" {
        required {
            /// Which room.
            room: String,
        }
        optional {
            /// Tell what came after this.
            since: Since,
            /// Tell the newest so many.
            last: u64,
            /// Tell only events that match: fields and what they equal, or an expression.
            filter: Value,
        }
    }
}

payload! {
    /// Leaves a room; `room_left` follows.
    LeaveRoom = "leave_room" {
        required {
            /// Which room.
            room: String,
        }
    }
}

payload! {
    /// Leaves a room.
    Unsubscribe = "unsubscribe" {
        required {
            /// Which room.
            room: String,
        }
    }
}

payload! {
    /// Joins a project's room and tells what was missed.
    SubscribeProject = "subscribe_project" {
        required {
            /// Which project.
            project_id: Id,
        }
        optional {
            /// Tell what came after this.
            since: Since,
            /// Tell the newest so many.
            last: u64,
            /// Tell only events that match: fields and what they equal, or an expression.
            filter: Value,
        }
    }
}

payload! {
    /// Leaves a project's room.
    UnsubscribeProject = "unsubscribe_project" {
        required {
            /// Which project.
            project_id: Id,
        }
    }
}

payload! {
    /// Reads a room's log, a page at a time.
    History = "history" {
        required {
            /// Which room.
            room: String,
        }
        optional {
            /// What comes after this, the oldest first.
            since: Since,
            /// The newest so many.
            last: u64,
            /// At most so many.
            limit: u64,
        }
    }
}

payload! {
    /// Asks who is in a room.
    Presence = "presence" {
        required {
            /// Which room.
            room: String,
        }
    }
}

payload! {
    /// Says that notifications have arrived, so that they are not told again. `id` or `ids`, at most 256.
    NotificationAck = "notification_ack" {
        optional {
            /// One of them.
            id: Id,
            /// Several.
            ids: Vec<String>,
        }
    }
}

payload! {
    /// Shows a newer token; the socket stays as it is.
    RefreshToken = "refresh_token" {
        required {
            /// The token.
            token: String,
        }
    }
}

payload! {
    /// Answers a run that waits for approval.
    Approve = "approve" {
        required {
            /// Which run.
            thread_id: Id,
            /// Whether it may go on.
            approved: bool,
        }
        optional {
            /// Where it waits.
            checkpoint_id: Id,
            /// For people.
            comment: String,
        }
    }
}

payload! {
    /// Narrows the lines that a socket in `/logs` gets.
    Filter = "filter" {
        optional {
            /// Lines of this run only.
            thread_id: Id,
            /// Lines of this level and above: DEBUG, INFO, WARNING, ERROR, CRITICAL.
            level: String,
        }
    }
}

payload! {
    /// A room was joined.
    RoomJoined = "room_joined" {
        required {
            /// Which room.
            room: String,
        }
        optional {
            /// Which log the room has.
            epoch: u64,
            /// The newest event of that log.
            seq: u64,
            /// Whether all that was missed has been told.
            recovered: bool,
            /// How many are there.
            members: u64,
        }
    }
}

payload! {
    /// A room was left.
    RoomLeft = "room_left" {
        required {
            /// Which room.
            room: String,
        }
    }
}

payload! {
    /// Answers `ping`.
    Pong = "pong" {
        required {
            /// The server's time, in RFC 3339.
            timestamp: String,
        }
        optional {
            /// What came with the `ping`.
            echo: Value,
        }
    }
}

payload! {
    /// A command without an ack was refused.
    Refused = "error" {
        required {
            /// What to compare with.
            code: String,
            /// What to read.
            message: String,
        }
        optional {
            /// Which command.
            command: String,
        }
    }
}

payload! {
    /// The socket's token is about to expire; `refresh_token` keeps the socket.
    TokenExpiring = "token_expiring" {
        required {
            /// When, in RFC 3339.
            expires_at: String,
        }
    }
}

payload! {
    /// The server is about to stop. The connection ends within the time that is told; clients then come back by themselves,
    /// to this server once it is there again, or to another.
    ServerShutdown = "server_shutdown" {
        required {
            /// Why: `shutdown`.
            reason: String,
            /// Milliseconds within which the connection ends.
            reconnect_in_ms: u64,
        }
    }
}

/// Anything at all, to which `pong` answers.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Ping(pub Value);

impl Ping {
    const NAME: &'static str = "ping";
    const ABOUT: &'static str = " Asks for a `pong`; whatever comes with it comes back.";
}

addressed! {
    JoinRoom: |_it| Ok(Vec::new()), key "";
    Subscribe: |_it| Ok(Vec::new()), key "";
    LeaveRoom: |_it| Ok(Vec::new()), key "";
    Unsubscribe: |_it| Ok(Vec::new()), key "";
    SubscribeProject: |_it| Ok(Vec::new()), key "";
    UnsubscribeProject: |_it| Ok(Vec::new()), key "";
    History: |_it| Ok(Vec::new()), key "";
    Presence: |_it| Ok(Vec::new()), key "";
    NotificationAck: |_it| Ok(Vec::new()), key "";
    RefreshToken: |_it| Ok(Vec::new()), key "";
    Approve: |_it| Ok(Vec::new()), key "";
    Filter: |_it| Ok(Vec::new()), key "";
    Ping: |_it| Ok(Vec::new()), key "";
    RoomJoined: |_it| Ok(Vec::new()), key "";
    RoomLeft: |_it| Ok(Vec::new()), key "";
    Pong: |_it| Ok(Vec::new()), key "";
    Refused: |_it| Ok(Vec::new()), key "";
    TokenExpiring: |_it| Ok(Vec::new()), key "";
    ServerShutdown: |_it| Ok(Vec::new()), key "";
}

/// What every vocabulary has.
pub const EVENTS: &[EventType] = &[
    command::<JoinRoom>(),
    command::<LeaveRoom>(),
    command::<Subscribe>(),
    command::<Unsubscribe>(),
    command::<SubscribeProject>(),
    command::<UnsubscribeProject>(),
    command::<Ping>(),
    command::<History>(),
    command::<Presence>(),
    command::<NotificationAck>(),
    command::<RefreshToken>(),
    command::<Approve>(),
    EventType::of::<Filter>("common", Direction::Command, Shape::Flat, Audience::Logs, &[]),
    notice::<RoomJoined>(),
    notice::<RoomLeft>(),
    notice::<Pong>(),
    notice::<Refused>(),
    notice::<TokenExpiring>(),
    notice::<ServerShutdown>(),
];

const fn command<T: Payload>() -> EventType {
    EventType::of::<T>("common", Direction::Command, Shape::Flat, Audience::Rooms, &[])
}

const fn notice<T: Payload>() -> EventType {
    EventType::of::<T>("common", Direction::Notice, Shape::Flat, Audience::Rooms, &[])
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use crate::schema::validate;

    #[test]
    fn commands_take_what_the_specification_says() {
        for (command, data, is_valid) in [
            ("join_room", r#"{"room":"agents"}"#, true),
            ("subscribe", r#"{"room":"project:1","since":{"epoch":4,"seq":7}}"#, true),
            ("subscribe", r#"{"room":"project:1","since":{"epoch":4}}"#, false),
            ("leave_room", r#"{"romo":"agents"}"#, false),
            ("subscribe_project", r#"{"project_id":456}"#, true),
            ("history", r#"{"room":"agents","last":-1}"#, false),
            ("ping", "null", true),
            ("ping", r#"[1,{"a":2}]"#, true),
            ("approve", r#"{"thread_id":"t","approved":"yes"}"#, false),
            ("filter", r#"{"level":"ERROR"}"#, true),
        ] {
            let data = RawValue::from_string(data.to_owned()).unwrap();
            assert_eq!(validate(command, &data).is_ok(), is_valid, "{command} {data}");
        }
    }
}
