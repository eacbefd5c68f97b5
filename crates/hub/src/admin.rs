//! Owns what operators are told of connections and of the server itself: `admin_event` of the types `connection_event` and
//! `system_event`. Does not know sockets. Those of runs and jobs are made by their rules.
//!
//! Kept nowhere, and told only while somebody is in `/admin`: they say what happens, not what is.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::Audience;
use crate::outgoing::Outgoing;
use crate::run::{ADMIN_EVENT, AdminEvent, AdminEventType};
use crate::time::Timestamp;

/// What happened to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ConnectionNews {
    /// A socket is there.
    Connected,
    /// It was lost, and has come back.
    Recovered,
    /// It has gone, or was lost.
    Disconnected,
}

/// What a `connection_event` tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConnectionEvent {
    /// What happened.
    pub event: ConnectionNews,
    /// To which socket.
    pub connection_id: Box<str>,
    /// In which namespace.
    pub namespace: Box<str>,
    /// Whose it is, if that is known.
    pub user_id: Option<Box<str>>,
    /// Why, for one that has gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Box<str>>,
    /// When, in RFC 3339.
    pub timestamp: String,
}

/// What happened to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SystemNews {
    /// Nothing can be kept: publishing into logs is refused.
    StoreFailing,
    /// The store takes commits again.
    StoreRecovered,
    /// It stops, and closes its connections.
    Stopping,
}

impl SystemNews {
    /// The same for people.
    #[must_use]
    pub fn message(self) -> &'static str {
        match self {
            SystemNews::StoreFailing => "nothing can be kept; publishing is refused",
            SystemNews::StoreRecovered => "the store takes commits again",
            SystemNews::Stopping => "the server stops",
        }
    }
}

/// What a `system_event` tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SystemEvent {
    /// What happened.
    pub event: SystemNews,
    /// The same for people.
    pub message: Box<str>,
    /// When, in RFC 3339.
    pub timestamp: String,
}

impl ConnectionEvent {
    /// The event that tells of it.
    #[must_use]
    pub fn outgoing(&self) -> Outgoing {
        told(AdminEventType::ConnectionEvent, self)
    }
}

/// The event that tells what happened to the server.
#[must_use]
pub fn system(event: SystemNews, at: Timestamp) -> Outgoing {
    let news = SystemEvent { event, message: event.message().into(), timestamp: at.to_string() };
    told(AdminEventType::SystemEvent, &news)
}

fn told(r#type: AdminEventType, data: &impl Serialize) -> Outgoing {
    Outgoing::to_all(ADMIN_EVENT, &AdminEvent { r#type, data }, Audience::Admin).volatile()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::validate;

    #[test]
    fn operators_get_what_the_schema_says() {
        let gone = ConnectionEvent {
            event: ConnectionNews::Disconnected,
            connection_id: "s".into(),
            namespace: "/".into(),
            user_id: Some("ann".into()),
            reason: Some("transport close".into()),
            timestamp: Timestamp(0).to_string(),
        };
        let data = r#"{"type":"connection_event","data":{"event":"disconnected","connection_id":"s","namespace":"/","user_id":"ann","reason":"transport close","timestamp":"1970-01-01T00:00:00.000Z"}}"#;
        assert_eq!(gone.outgoing().data.get(), data);
        for event in [gone.outgoing(), system(SystemNews::Stopping, Timestamp(0))] {
            assert_eq!((event.audience, event.volatile), (Audience::Admin, true));
            assert_eq!(validate(&event.name, &event.data.0), Ok(()));
        }
    }
}
