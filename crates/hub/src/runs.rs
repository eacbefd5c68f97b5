//! Owns the vocabulary of runs and logs as publishers say it by themselves: lines, and what administrators are told.
//! Does not know runs that the server keeps, whose rules tell the same events.
//!
//! | event | goes to, unless rooms are named |
//! |---|---|
//! | `log` | everybody in `/logs` whose filter lets it pass |
//! | `admin_event` | everybody in `/admin` |
//!
//! Both travel flat.

use serde_json::Value;

use crate::event::{Audience, Shape};
use crate::log_line::{Level, LogLine};
use crate::payload::{Id, addressed, payload};
use crate::room::RoomName;
use crate::run::AdminEventType;
use crate::schema::{Direction, EventType};

payload! {
    /// A line of a log.
    Line = "log" {
        required {
            /// What it says.
            text: String,
        }
        optional {
            /// The run that it is about.
            thread_id: Id,
            /// How much it matters; without it, `INFO`.
            level: Level,
            /// When it was written, in RFC 3339.
            timestamp: String,
        }
    }
}

payload! {
    /// Something that administrators should know.
    AdminNews = "admin_event" {
        required {
            /// What it tells of.
            r#type: AdminEventType,
            /// What it tells.
            data: Value,
        }
    }
}

addressed! {
    Line: |it| channels(it), key "";
    AdminNews: |_it| Ok(Vec::new()), key "";
}

/// The channels of `/logs` whose filters let a line pass.
fn channels(line: &Line) -> Result<Vec<RoomName>, crate::fault::Fault> {
    let line = LogLine {
        text: String::new(),
        thread_id: line.thread_id.as_ref().map(|id| id.as_str().into()),
        level: line.level.unwrap_or_default(),
        timestamp: String::new(),
    };
    line.channels().map(RoomName::parse).collect()
}

/// The vocabulary.
pub const EVENTS: &[EventType] = &[
    EventType::of::<Line>("runs", Direction::Event, Shape::Flat, Audience::Logs, &[]),
    EventType::of::<AdminNews>("runs", Direction::Event, Shape::Flat, Audience::Admin, &[]),
];

#[cfg(test)]
mod tests {
    use serde_json::json;
    use serde_json::value::to_raw_value;

    use crate::schema::inspect;

    #[test]
    fn a_line_goes_to_the_channels_of_its_level_and_thread() {
        let rooms = |data: serde_json::Value| {
            let inspected = inspect("log", &to_raw_value(&data).unwrap())?.expect("it is known");
            inspected.rooms.map(|rooms| rooms.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        assert_eq!(rooms(json!({"text": "a", "level": "DEBUG"})), Ok(vec!["DEBUG".to_owned()]));
        let of_thread = rooms(json!({"text": "a", "thread_id": "t", "level": "info"})).unwrap();
        assert_eq!(of_thread, ["DEBUG:t", "DEBUG", "INFO:t", "INFO"]);
        assert!(rooms(json!({"text": "a", "level": "loud"})).unwrap_err().message.contains("level"));
    }

    #[test]
    fn administrators_are_told_news_of_known_types_only() {
        let inspected = |kind: &str| {
            let news = to_raw_value(&json!({"type": kind, "data": {"thread_id": "t"}})).unwrap();
            inspect("admin_event", &news)
        };
        assert_eq!(inspected("run_event").unwrap().unwrap().rooms, Ok(Vec::new()));
        assert!(inspected("party").unwrap_err().message.contains("type"));
    }
}
