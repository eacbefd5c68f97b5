//! Owns the handle on a server, from which everything else is reached. Does not know how things are sent.

use std::fmt;
use std::sync::{Arc, OnceLock};

use hub::dashboard::{AgentStatusUpdate, TaskUpdate, WorkflowEvent};
use hub::payload::Extra;
use hub::rest::{NewAnnouncement, NewNotification, Published};
use serde_json::Value;
use tokio::runtime::Handle;

use crate::broadcaster::Broadcaster;
use crate::error::Error;
use crate::event::Event;
use crate::http::{Call, Http};
use crate::jobs::Jobs;
use crate::lane::{Freight, Lane};
use crate::logs::Logs;
use crate::runs::Runs;
use crate::settings::{ApiKey, Settings};

/// Publishes to one server. Clones share the connection and the buffer.
///
/// There are two ways, and both keep the order in which events were handed over:
///
/// - [`publish`](Self::publish) waits until the server has the event, and answers where it stands. When the buffer is
///   full it waits for room.
/// - [`enqueue`](Self::enqueue), and all `emit_…` and `broadcast_…`, hand the event over and never wait. When the buffer
///   is full ([`Settings::buffer_bytes_max`]) they refuse with [`Error::Full`]: what is there already stays, the caller
///   decides about the rest. What is refused by the server, or given up, is counted; [`flush`](Self::flush) tells.
///
/// Events travel in batches. A request that fails is tried again, each event under an idempotency key of its own, so none
/// is published twice. Sending is done by a task of the runtime in which the first event was handed over; before that
/// runtime ends, call [`flush`](Self::flush).
///
/// ```no_run
/// use fanfare_sdk::{Event, Publisher};
/// use serde_json::json;
///
/// # async fn example() -> Result<(), fanfare_sdk::Error> {
/// let publisher = Publisher::new("http://127.0.0.1:8000")?.api_key("secret")?;
/// publisher.emit_agent_status("agent-123", "active", json!({"cpu": 75}))?;
/// let published = publisher.publish(Event::new("deployed", json!({"version": "1.4.2"})).project("shop")).await?;
/// println!("event {} stands at {:?}", published.id, published.seq);
/// publisher.flush().await
/// # }
/// ```
#[derive(Clone)]
pub struct Publisher {
    inner: Arc<Inner>,
}

struct Inner {
    url: String,
    http: Arc<Http>,
    events: OnceLock<Lane>,
    lines: OnceLock<Lane>,
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher").field("url", &self.inner.url).finish_non_exhaustive()
    }
}

impl Publisher {
    /// A publisher to the server at a URL such as `http://127.0.0.1:8000`. Nothing is sent yet; the server need not be
    /// there.
    ///
    /// # Errors
    /// [`Error::BadUrl`].
    pub fn new(url: &str) -> Result<Self, Error> {
        Self::with_settings(url, Settings::default())
    }

    /// The same with other settings.
    ///
    /// # Errors
    /// [`Error::BadUrl`], [`Error::BadKey`].
    pub fn with_settings(url: &str, settings: Settings) -> Result<Self, Error> {
        let http = Arc::new(Http::new(url, Arc::new(settings))?);
        let inner =
            Inner { url: url.to_owned(), http, events: OnceLock::default(), lines: OnceLock::default() };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The same with an API key, and a buffer of its own.
    ///
    /// # Errors
    /// [`Error::BadKey`].
    pub fn api_key(self, key: impl Into<ApiKey>) -> Result<Self, Error> {
        let settings = Settings { api_key: Some(key.into()), ..(**self.inner.http.settings()).clone() };
        Self::with_settings(&self.inner.url, settings)
    }

    /// Publishes an event, and waits until the server has it.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Unavailable`] when it was tried for [`Settings::give_up_after`], [`Error::TooLarge`],
    /// [`Error::NoRuntime`].
    pub async fn publish(&self, event: Event) -> Result<Published, Error> {
        let answer = self.events()?.push(event.into_json()).await?;
        answer.await.unwrap_or(Err(Error::Closed))
    }

    /// Publishes many events in their order, and answers for each. One that is refused does not keep the others back.
    pub async fn publish_batch(
        &self,
        events: impl IntoIterator<Item = Event>,
    ) -> Vec<Result<Published, Error>> {
        let mut answers = Vec::new();
        for event in events {
            answers.push(match self.events() {
                Ok(lane) => lane.push(event.into_json()).await,
                Err(error) => Err(error),
            });
        }
        let mut published = Vec::with_capacity(answers.len());
        for answer in answers {
            published.push(match answer {
                Ok(answer) => answer.await.unwrap_or(Err(Error::Closed)),
                Err(error) => Err(error),
            });
        }
        published
    }

    /// Hands an event over, and does not wait.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::TooLarge`], [`Error::NoRuntime`], [`Error::Closed`]: it will not be sent.
    pub fn enqueue(&self, event: Event) -> Result<(), Error> {
        self.events()?.try_push(event.into_json())
    }

    /// Waits until everything that was handed over is done: events, and lines of logs.
    ///
    /// # Errors
    /// [`Error::Lost`]: so many that nobody waited for never arrived since the last flush.
    pub async fn flush(&self) -> Result<(), Error> {
        let mut lost = 0;
        for lane in [self.inner.events.get(), self.inner.lines.get()].into_iter().flatten() {
            lost += lane.flush().await?;
        }
        if lost == 0 { Ok(()) } else { Err(Error::Lost(lost)) }
    }

    /// Why the newest attempt to reach the server failed: it is away, or busy. `None` if that attempt was answered, also
    /// with a refusal, or if there was none yet. What was handed over is tried again meanwhile.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        self.inner.http.failure()
    }

    /// Says what an agent is, to `agents` and `dashboard`. Fields of `data` stand beside `agent_id` and `status`;
    /// anything but an object stands in `data`.
    ///
    /// # Errors
    /// As [`enqueue`](Self::enqueue).
    pub fn emit_agent_status(
        &self,
        agent_id: &str,
        status: &str,
        data: impl Into<Value>,
    ) -> Result<(), Error> {
        let mut payload = AgentStatusUpdate::new(agent_id, status);
        payload.extra = beside(data.into(), &["agent_id", "status"]);
        self.enqueue(Event::of(&payload))
    }

    /// Says what a task is, to `tasks` and `dashboard`. Fields of `data` stand beside `task_id` and `status`; anything
    /// but an object stands in `data`.
    ///
    /// # Errors
    /// As [`enqueue`](Self::enqueue).
    pub fn emit_task_update(&self, task_id: &str, status: &str, data: impl Into<Value>) -> Result<(), Error> {
        let mut payload = TaskUpdate::new(task_id, status);
        payload.extra = beside(data.into(), &["task_id", "status"]);
        self.enqueue(Event::of(&payload))
    }

    /// Says how the system is doing, to `metrics` and `dashboard`: an object of figures.
    ///
    /// # Errors
    /// As [`enqueue`](Self::enqueue).
    pub fn emit_system_metrics(&self, metrics: impl Into<Value>) -> Result<(), Error> {
        self.enqueue(Event::new("system_metrics_update", metrics))
    }

    /// Says what has happened in a workflow, to `workflows` and `dashboard`. Fields of `data` stand beside `workflow_id`
    /// and `event_type`; anything but an object stands in `data`.
    ///
    /// # Errors
    /// As [`enqueue`](Self::enqueue).
    pub fn emit_workflow_event(
        &self,
        workflow_id: &str,
        event_type: &str,
        data: impl Into<Value>,
    ) -> Result<(), Error> {
        let mut payload = WorkflowEvent::new(workflow_id).event_type(event_type);
        payload.extra = beside(data.into(), &["workflow_id", "event_type"]);
        self.enqueue(Event::of(&payload))
    }

    /// Notifies a user, now or on return.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Unavailable`], [`Error::BadAnswer`].
    pub async fn notify(&self, notification: &NewNotification) -> Result<Published, Error> {
        self.inner.http.call(&Call::post("/api/v1/notifications", notification)).await
    }

    /// Tells everybody something.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Unavailable`], [`Error::BadAnswer`].
    pub async fn announce(&self, announcement: &NewAnnouncement) -> Result<Published, Error> {
        self.inner.http.call(&Call::post("/api/v1/announcements", announcement)).await
    }

    /// The events of workspaces, a method each.
    #[must_use]
    pub fn broadcaster(&self) -> Broadcaster {
        Broadcaster::new(self.clone())
    }

    /// Jobs and their progress.
    #[must_use]
    pub fn jobs(&self) -> Jobs {
        Jobs::new(self.inner.http.clone())
    }

    /// Runs and their approval.
    #[must_use]
    pub fn runs(&self) -> Runs {
        Runs::new(self.inner.http.clone())
    }

    /// Lines of logs.
    #[must_use]
    pub fn logs(&self) -> Logs {
        Logs::new(self.clone())
    }

    fn events(&self) -> Result<&Lane, Error> {
        lane(&self.inner.events, &self.inner.http, Freight::Events)
    }

    pub(crate) fn lines(&self) -> Result<&Lane, Error> {
        lane(&self.inner.lines, &self.inner.http, Freight::Lines)
    }
}

/// The lane, which starts when it is first needed: only then there must be a runtime.
fn lane<'a>(lane: &'a OnceLock<Lane>, http: &Arc<Http>, freight: Freight) -> Result<&'a Lane, Error> {
    if let Some(lane) = lane.get() {
        return Ok(lane);
    }
    Handle::try_current().map_err(|_| Error::NoRuntime)?;
    Ok(lane.get_or_init(|| Lane::start(http.clone(), freight)))
}

/// What stands beside fields that are given by name, which win.
fn beside(data: Value, named: &[&str]) -> Extra {
    match data {
        Value::Object(mut fields) => {
            named.iter().for_each(|name| {
                fields.remove(*name);
            });
            fields
        }
        Value::Null => Extra::new(),
        other => Extra::from_iter([("data".to_owned(), other)]),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn without_a_runtime_nothing_is_taken() {
        let publisher = Publisher::new("http://127.0.0.1:1").unwrap();
        assert_eq!(publisher.emit_system_metrics(json!({"cpu": 1})), Err(Error::NoRuntime));
    }

    #[test]
    fn fields_that_are_given_by_name_win() {
        let data = json!({"agent_id": "other", "cpu": 1});
        assert_eq!(Value::Object(beside(data, &["agent_id"])), json!({"cpu": 1}));
        assert_eq!(Value::Object(beside(json!([1]), &[])), json!({"data": [1]}));
        assert!(beside(Value::Null, &[]).is_empty());
    }

    #[test]
    fn keys_are_not_printed() {
        let settings = Settings { api_key: Some("secret".into()), ..Settings::default() };
        assert!(!format!("{settings:?}").contains("secret"));
        let publisher = Publisher::new("http://h").unwrap().api_key("secret").unwrap();
        assert!(!format!("{publisher:?}").contains("secret"));
    }
}
