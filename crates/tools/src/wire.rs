//! Owns how steps are written for those who watch: the events `status_update` and `ai_response`. Pure; does not know
//! rooms or sockets.
//!
//! | what happens | event |
//! |---|---|
//! | the request is taken on | `status_update` `accepted` |
//! | [`Step::Started`], [`Step::Progress`] | `status_update` `running` |
//! | [`Step::Delta`] | `ai_response` with `delta`, `done: false` |
//! | [`Step::Message`] | `ai_response` with the whole `message`, `done: true` |
//! | [`Step::Done`] | `status_update` `completed` |
//! | [`Step::Failed`], a refusal | `status_update` `failed` or `cancelled`, with `code` and `may_retry` |

use hub::time::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::step::{Code, Failure, Request, Step, Usage};

/// Which request events belong to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// What the asker calls the request.
    pub request_id: String,
    /// Which tool was asked.
    pub tool_id: String,
    /// The session that asked, if there is one.
    pub session_id: Option<String>,
}

/// An event: its name on the wire, and its data as JSON.
#[derive(Clone, Debug)]
pub struct WireEvent {
    /// `status_update` or `ai_response`.
    pub name: &'static str,
    /// The payload; the event is flat.
    pub data: Box<RawValue>,
}

#[derive(Default, Serialize)]
struct Status<'a> {
    #[serde(rename = "requestId")]
    request_id: &'a str,
    #[serde(rename = "toolId")]
    tool_id: &'a str,
    #[serde(rename = "sessionId", skip_serializing_if = "Option::is_none")]
    session_id: Option<&'a str>,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    progress: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    may_retry: Option<bool>,
    /// Whole seconds, rounded up.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    finish_reason: Option<&'a str>,
    timestamp: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Response<'a> {
    request_id: &'a str,
    tool_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delta: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
    done: bool,
    timestamp: String,
}

impl Asked {
    /// What identifies a request.
    #[must_use]
    pub fn of(request: &Request) -> Self {
        Self {
            request_id: request.request_id.clone(),
            tool_id: request.tool_id.clone(),
            session_id: request.session_id.clone(),
        }
    }

    /// The event that tells that the request was taken on.
    #[must_use]
    pub fn accepted(&self, now: Timestamp) -> WireEvent {
        self.status(Status { status: "accepted", ..Status::default() }, now)
    }

    /// The event that tells that the request was not taken on, for those who look at events only.
    #[must_use]
    pub fn refused(&self, failure: &Failure, now: Timestamp) -> WireEvent {
        self.failed(failure, now)
    }

    /// The event of a step.
    #[must_use]
    pub fn event(&self, step: &Step, now: Timestamp) -> WireEvent {
        match step {
            Step::Started => self.status(Status { status: "running", ..Status::default() }, now),
            Step::Progress(progress) => {
                let (message, progress) = (progress.message.as_deref(), Some(progress.percent));
                self.status(Status { status: "running", message, progress, ..Status::default() }, now)
            }
            Step::Delta(delta) => self.response(Some(delta), None, None, now),
            Step::Message(message) => self.response(None, Some(&message.text), message.data.as_deref(), now),
            Step::Failed(failure) => self.failed(failure, now),
            Step::Done(done) => {
                let (usage, finish_reason) = (done.usage, done.finish_reason.as_deref());
                let progress = Some(100);
                self.status(
                    Status { status: "completed", progress, usage, finish_reason, ..Status::default() },
                    now,
                )
            }
        }
    }

    fn failed(&self, failure: &Failure, now: Timestamp) -> WireEvent {
        let status = Status {
            status: if failure.code == Code::ToolCancelled { "cancelled" } else { "failed" },
            message: Some(&failure.message),
            code: Some(failure.code.as_str()),
            may_retry: Some(failure.may_retry),
            retry_after: failure.retry_after.map(|after| after.as_millis().div_ceil(1_000) as u64),
            ..Status::default()
        };
        self.status(status, now)
    }

    fn status(&self, status: Status<'_>, now: Timestamp) -> WireEvent {
        let status = Status {
            request_id: &self.request_id,
            tool_id: &self.tool_id,
            session_id: self.session_id.as_deref(),
            timestamp: now.to_string(),
            ..status
        };
        event("status_update", &status)
    }

    fn response(
        &self,
        delta: Option<&str>,
        message: Option<&str>,
        data: Option<&RawValue>,
        now: Timestamp,
    ) -> WireEvent {
        let response = Response {
            request_id: &self.request_id,
            tool_id: &self.tool_id,
            session_id: self.session_id.as_deref(),
            delta,
            message,
            data,
            done: delta.is_none(),
            timestamp: now.to_string(),
        };
        event("ai_response", &response)
    }
}

fn event(name: &'static str, data: &impl Serialize) -> WireEvent {
    let data = serde_json::value::to_raw_value(data).expect("invariant: texts and numbers become JSON");
    WireEvent { name, data }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::step::{Done, Message, Progress};

    fn check(step: Step, name: &str, members: &str) {
        let asked = Asked { request_id: "r".into(), tool_id: "t".into(), session_id: Some("s".into()) };
        let event = asked.event(&step, Timestamp(0));
        let expected = format!(
            r#"{{"requestId":"r","toolId":"t","sessionId":"s",{members},"timestamp":"1970-01-01T00:00:00.000Z"}}"#
        );
        assert_eq!((event.name, event.data.get()), (name, &*expected));
    }

    #[test]
    fn steps_are_written_as_the_gateway_has_them() {
        check(Step::Started, "status_update", r#""status":"running""#);
        let progress = Progress { percent: 40, message: Some("half".into()) };
        check(
            Step::Progress(progress),
            "status_update",
            r#""status":"running","message":"half","progress":40"#,
        );
        check(Step::Delta("Hi".into()), "ai_response", r#""delta":"Hi","done":false"#);
        let message = Message { text: "Hi!".into(), data: None };
        check(Step::Message(message), "ai_response", r#""message":"Hi!","done":true"#);
        let data = RawValue::from_string("[1, 2]".into()).unwrap();
        let message = Message { text: "[1, 2]".into(), data: Some(data) };
        check(Step::Message(message), "ai_response", r#""message":"[1, 2]","data":[1, 2],"done":true"#);
        let usage = Some(Usage { input_tokens: 1, output_tokens: 2, total_tokens: 3 });
        check(
            Step::Done(Done { usage, finish_reason: Some("stop".into()) }),
            "status_update",
            r#""status":"completed","progress":100,"usage":{"input_tokens":1,"output_tokens":2,"total_tokens":3},"finish_reason":"stop""#,
        );
    }

    #[test]
    fn failures_tell_their_code_and_whether_to_come_back() {
        let failure = Failure {
            retry_after: Some(Duration::from_millis(1_001)),
            ..Failure::passing(Code::ToolBusy, "the tool answered 429")
        };
        check(
            Step::Failed(failure),
            "status_update",
            r#""status":"failed","message":"the tool answered 429","code":"tool_busy","may_retry":true,"retry_after":2"#,
        );
        check(
            Step::Failed(Failure::lasting(Code::ToolCancelled, "cancelled")),
            "status_update",
            r#""status":"cancelled","message":"cancelled","code":"tool_cancelled","may_retry":false"#,
        );
        let asked = Asked::of(&Request { tool_id: "t".into(), ..Request::default() });
        assert!(asked.accepted(Timestamp(0)).data.get().contains(r#""status":"accepted""#));
        let refused = asked.refused(&Failure::lasting(Code::UnknownTool, "no"), Timestamp(0));
        assert!(
            refused.data.get().contains(r#""code":"unknown_tool""#)
                && !refused.data.get().contains("sessionId")
        );
    }
}
