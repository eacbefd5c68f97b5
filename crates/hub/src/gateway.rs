//! Owns the vocabulary of the gateway to tools and users: requests and answers, notifications, status updates,
//! announcements. Does not know tools, or how notifications are kept.
//!
//! | event | goes to, unless rooms are named |
//! |---|---|
//! | `ai_response`, `status_update` | `user:<userId>` and `session:<sessionId>`, as far as they are said; a status update with a `job_id` also to `job:<job_id>` |
//! | `notification` | `user:<userId>` |
//! | `announcement` | `global` |
//!
//! Field names are written as browsers know them (`requestId`); all of these travel flat.

use serde_json::Value;

use crate::event::{Audience, Shape};
use crate::payload::{Id, Payload, Percent, addressed, payload, rooms_of};
use crate::room::{RoomKind, RoomName};
use crate::schema::{Direction, EventType};

payload! {
    /// A socket asks a tool.
    AiRequest = "ai_request" {
        required {
            /// Which tool.
            #[serde(rename = "toolId")]
            tool_id: Id,
            /// What it is asked.
            message: String,
        }
        optional {
            /// By which the answers are known; one is made if it is missing.
            #[serde(rename = "requestId")]
            request_id: Id,
            /// Whose session gets the answers, beside the user.
            #[serde(rename = "sessionId")]
            session_id: Id,
        }
    }
}

payload! {
    /// A tool answers, whole or a part at a time.
    AiResponse = "ai_response" {
        required {
            /// Which request.
            #[serde(rename = "requestId")]
            request_id: Id,
            /// Which tool.
            #[serde(rename = "toolId")]
            tool_id: Id,
        }
        optional {
            /// Whose session gets it.
            #[serde(rename = "sessionId")]
            session_id: Id,
            /// Which user gets it.
            #[serde(rename = "userId")]
            user_id: Id,
            /// The whole answer.
            message: String,
            /// What follows what came before.
            delta: String,
            /// Whether nothing more comes.
            done: bool,
            /// When, in RFC 3339.
            timestamp: String,
        }
    }
}

payload! {
    /// Something that a user should know, now or on return.
    Notification = "notification" {
        addressed {
            /// Which user.
            #[serde(rename = "userId")]
            user_id: Id,
        }
        required {
            /// What it is about.
            title: String,
            /// What it says.
            message: String,
        }
        optional {
            /// Its id; the server gives one.
            id: Id,
            /// How much it matters, such as `info`, `warning` or `error`.
            level: String,
            /// Whatever goes with it.
            data: Value,
            /// When, in RFC 3339.
            timestamp: String,
        }
    }
}

payload! {
    /// How far a request or a job has come.
    StatusUpdate = "status_update" {
        required {
            /// What it is now, such as `accepted`, `running` or `completed`.
            status: String,
        }
        optional {
            /// Which request.
            #[serde(rename = "requestId")]
            request_id: Id,
            /// Which job.
            job_id: Id,
            /// Whose session gets it.
            #[serde(rename = "sessionId")]
            session_id: Id,
            /// Which user gets it.
            #[serde(rename = "userId")]
            user_id: Id,
            /// For people.
            message: String,
            /// How much is done.
            progress: Percent,
            /// When, in RFC 3339.
            timestamp: String,
        }
    }
}

payload! {
    /// Something that everybody should know.
    Announcement = "announcement" {
        required {
            /// What it is about.
            title: String,
            /// What it says.
            message: String,
        }
        optional {
            /// Its id; the server gives one.
            id: Id,
            /// How much it matters, such as `info`, `warning` or `error`.
            level: String,
            /// Whatever goes with it.
            data: Value,
            /// When, in RFC 3339.
            timestamp: String,
        }
    }
}

addressed! {
    // A request goes to its tool, and to no room.
    AiRequest: |_it| Ok(Vec::new()), key "";
    AiResponse: |it| rooms_of(
        &[(RoomKind::User, it.user_id.as_ref()), (RoomKind::Session, it.session_id.as_ref())],
        "`userId` or `sessionId`",
    ), key it.request_id.as_str();
    Notification: |it| rooms_of(&[(RoomKind::User, it.user_id.as_ref())], "`userId`"),
        key it.id.as_ref().map_or("", Id::as_str);
    StatusUpdate: |it| rooms_of(
        &[
            (RoomKind::User, it.user_id.as_ref()),
            (RoomKind::Session, it.session_id.as_ref()),
            (RoomKind::Job, it.job_id.as_ref()),
        ],
        "`userId`, `sessionId` or `job_id`",
    ), key it.request_id.as_ref().or(it.job_id.as_ref()).map_or("", Id::as_str);
    Announcement: |it| Ok(vec![RoomName::parse("global")?]), key it.id.as_ref().map_or("", Id::as_str);
}

/// The vocabulary.
pub const EVENTS: &[EventType] = &[
    EventType::of::<AiRequest>("gateway", Direction::Command, Shape::Flat, Audience::Rooms, &[]),
    event::<AiResponse>(&["user:{userId}", "session:{sessionId}"]),
    event::<Notification>(&["user:{userId}"]),
    event::<StatusUpdate>(&["user:{userId}", "session:{sessionId}", "job:{job_id}"]),
    event::<Announcement>(&["global"]),
];

const fn event<T: Payload>(rooms: &'static [&'static str]) -> EventType {
    EventType::of::<T>("gateway", Direction::Event, Shape::Flat, Audience::Rooms, rooms)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use serde_json::value::to_raw_value;

    use super::*;
    use crate::schema::{inspect, validate};

    #[track_caller]
    fn rooms(event: &str, data: &Value) -> Vec<String> {
        let inspected = inspect(event, &to_raw_value(data).unwrap()).unwrap().expect("it is known");
        inspected.rooms.unwrap().iter().map(|room| room.as_str().to_owned()).collect()
    }

    #[test]
    fn answers_go_to_the_user_and_the_session_that_asked() {
        let answer = json!({"requestId": "r", "toolId": "t", "userId": "u", "sessionId": "s", "message": "hi", "done": true});
        assert_eq!(rooms("ai_response", &answer), ["user:u", "session:s"]);
        assert_eq!(rooms("status_update", &json!({"job_id": "j", "status": "running"})), ["job:j"]);
        assert_eq!(rooms("notification", &json!({"userId": "u", "title": "t", "message": "m"})), ["user:u"]);
        assert_eq!(rooms("announcement", &json!({"title": "t", "message": "m"})), ["global"]);
    }

    #[test]
    fn an_answer_to_nobody_has_no_rooms_but_may_be_given_some() {
        let answer = to_raw_value(&json!({"requestId": "r", "toolId": "t", "delta": "h"})).unwrap();
        assert_eq!(validate("ai_response", &answer), Ok(()));
        let fault = inspect("ai_response", &answer).unwrap().unwrap().rooms.unwrap_err();
        assert!(fault.message.contains("`userId` or `sessionId`"), "{fault}");
    }

    #[test]
    fn requests_name_a_tool_and_say_something() {
        let request = json!({"toolId": "tool1", "message": "Hello", "requestId": "req1", "sessionId": "s1"});
        assert_eq!(validate("ai_request", &to_raw_value(&request).unwrap()), Ok(()));
        for (request, field) in
            [(json!({"message": "m"}), "toolId"), (json!({"toolId": "t", "message": 1}), "message")]
        {
            let fault = validate("ai_request", &to_raw_value(&request).unwrap()).unwrap_err();
            assert!(fault.message.contains(field), "{fault}");
        }
    }
}
