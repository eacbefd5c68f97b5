//! Owns an event as a publisher writes it: name, data, and whom it is for. Does not send it.

use std::time::{Duration, SystemTime};

use hub::payload::Payload;
use hub::rest::Publication;
use hub::time::Timestamp;
use serde::Serialize;
use serde_json::Value;

/// An event that is to be published.
///
/// Without a target it goes to the rooms that its data says, for the events that the server knows: a `task_update` to
/// `tasks` and `dashboard`, a `pr.merged` to its project.
///
/// ```
/// use fanfare_sdk::Event;
/// use serde_json::json;
///
/// let event = Event::new("deployed", json!({"version": "1.4.2"})).project("shop").room("agent:deployer");
/// assert_eq!(event.name(), "deployed");
/// ```
#[derive(Clone, Debug)]
pub struct Event(Publication);

impl Event {
    /// An event of any name.
    pub fn new(name: impl Into<String>, data: impl Into<Value>) -> Self {
        Self(Publication { event: name.into(), data: Some(data.into()), ..Publication::default() })
    }

    /// An event of a vocabulary, such as [`crate::workspace::PrMerged`].
    #[must_use]
    pub fn of<T: Payload + Serialize>(payload: &T) -> Self {
        let data = serde_json::to_value(payload).expect("invariant: payloads have texts for keys");
        Self::new(T::NAME, data)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.event
    }

    /// Sends it to a room, beside others that are named.
    #[must_use]
    pub fn room(mut self, room: impl Into<String>) -> Self {
        self.0.rooms.get_or_insert_default().push(room.into());
        self
    }

    /// Sends it to a user.
    #[must_use]
    pub fn user(mut self, id: impl Into<String>) -> Self {
        self.0.user = Some(id.into());
        self
    }

    /// Sends it to those who watch a project.
    #[must_use]
    pub fn project(mut self, id: impl Into<String>) -> Self {
        self.0.project = Some(id.into());
        self
    }

    /// Sends it to everybody in a namespace.
    #[must_use]
    pub fn namespace(mut self, name: impl Into<String>) -> Self {
        self.0.namespace = Some(name.into());
        self
    }

    /// Keeps it from the members of a room.
    #[must_use]
    pub fn except(mut self, room: impl Into<String>) -> Self {
        self.0.except.get_or_insert_default().push(room.into());
        self
    }

    /// Keeps it in no log: whoever is there gets it, and sockets that are slow may miss it.
    #[must_use]
    pub fn volatile(mut self) -> Self {
        self.0.volatile = Some(true);
        self
    }

    /// Says for how long somebody may need it.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.0.ttl = Some(ttl.as_secs_f64());
        self
    }

    /// Publishes it later.
    #[must_use]
    pub fn deliver_at(mut self, at: SystemTime) -> Self {
        self.0.deliver_at = Some(Timestamp::of(at).to_string());
        self
    }

    /// Renders its data from a template, whose placeholders the data fills.
    #[must_use]
    pub fn template(mut self, name: impl Into<String>) -> Self {
        self.0.template = Some(name.into());
        self
    }

    /// Names the request, so that the same again, also from another process, publishes nothing. One is made otherwise,
    /// for the attempts of this publisher alone. At most 200 bytes.
    #[must_use]
    pub fn idempotency_key(mut self, key: impl Into<String>) -> Self {
        self.0.idempotency_key = Some(key.into());
        self
    }

    /// The JSON that is sent, with a key.
    pub(crate) fn into_json(self) -> String {
        let mut publication = self.0;
        publication.idempotency_key.get_or_insert_with(crate::http::new_key);
        if let Some([_]) = publication.rooms.as_deref() {
            publication.room = publication.rooms.take().and_then(|mut rooms| rooms.pop());
        }
        serde_json::to_string(&publication).expect("invariant: publications have texts for keys")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_is_written_as_the_server_reads_it() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_705_314_600_007);
        let event = Event::new("e", json!([1])).room("a").room("b").except("c").volatile().deliver_at(at);
        let json: Value = serde_json::from_str(&event.idempotency_key("k").into_json()).unwrap();
        let expected = json!({
            "event": "e", "data": [1], "rooms": ["a", "b"], "except": ["c"], "volatile": true,
            "deliver_at": "2024-01-15T10:30:00.007Z", "idempotency_key": "k",
        });
        assert_eq!(json, expected);
        let one: Value = serde_json::from_str(&Event::new("e", 1).room("a").into_json()).unwrap();
        assert_eq!((&one["room"], one.get("rooms")), (&json!("a"), None));
        assert!(one["idempotency_key"].as_str().is_some_and(|key| key.len() == 36));
    }
}
