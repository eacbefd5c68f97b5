//! Owns what is asked of a tool and what comes of it, step by step. Does not know how tools are reached, nor how steps
//! travel to those who watch; that is `wire.rs`.

use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

/// What somebody asks of a tool.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Which tool.
    pub tool_id: String,
    /// What it is asked.
    pub message: String,
    /// What the asker calls the request.
    pub request_id: String,
    /// The session that asks, if there is one.
    pub session_id: Option<String>,
    /// The user who asks. Without one the session has its share of the tool, and without that all such askers together.
    pub user: Option<String>,
    /// Whatever else the asker sent, such as `history`.
    pub extra: serde_json::Map<String, Value>,
}

/// What a request has come to.
///
/// A request's steps are: `Started` at most once; any `Delta` and `Progress`; then either `Message` and `Done`, or
/// `Failed`. Deltas put together are the message, unless the tool said another one at the end.
#[derive(Clone, Debug)]
pub enum Step {
    /// Its turn has come: the tool is being asked.
    Started,
    /// Further text, joined per window.
    Delta(String),
    /// How far the tool says it is.
    Progress(Progress),
    /// The whole answer.
    Message(Message),
    /// It has failed or was cancelled; nothing follows.
    Failed(Failure),
    /// It is done; nothing follows.
    Done(Done),
}

/// How far a tool says it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// 0 to 100.
    pub percent: u8,
    /// What it is at.
    pub message: Option<String>,
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Message {
    /// Its text.
    pub text: String,
    /// The JSON that a tool answered in one piece, as it came.
    pub data: Option<Box<RawValue>>,
}

/// How an answer ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// What it has cost, if the tool told.
    pub usage: Option<Usage>,
    /// Why a model stopped, such as `stop`, `length` or `content_filter`, if the tool told.
    pub finish_reason: Option<String>,
}

/// What an answer has cost, in tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Read.
    pub input_tokens: u64,
    /// Written.
    pub output_tokens: u64,
    /// Both, and what else the tool counts.
    pub total_tokens: u64,
}

/// What kind of failure it is. Peers compare with the text, which is never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Code {
    /// `unknown_tool`: no tool has this id.
    UnknownTool,
    /// `tool_busy`: too many requests wait already, or the tool itself says so.
    ToolBusy,
    /// `tool_timeout`: the tool was silent, or not ready in time.
    ToolTimeout,
    /// `tool_failed`: the tool cannot be reached, refused, or answered nonsense.
    ToolFailed,
    /// `tool_cancelled`: somebody cancelled the request.
    ToolCancelled,
    /// `tool_answer_too_large`: the answer is longer than the tool's `answer_bytes_max`.
    ToolAnswerTooLarge,
    /// `tool_message_too_large`: the request is longer than the tool's `message_bytes_max`.
    ToolMessageTooLarge,
    /// `tool_bad_history`: the request's `history` is not what the tool takes.
    ToolBadHistory,
}

impl Code {
    /// The code on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Code::UnknownTool => "unknown_tool",
            Code::ToolBusy => "tool_busy",
            Code::ToolTimeout => "tool_timeout",
            Code::ToolFailed => "tool_failed",
            Code::ToolCancelled => "tool_cancelled",
            Code::ToolAnswerTooLarge => "tool_answer_too_large",
            Code::ToolMessageTooLarge => "tool_message_too_large",
            Code::ToolBadHistory => "tool_bad_history",
        }
    }
}

/// Why there is no answer. Whose fault it is, the code tells; what is written here may be shown to whoever asked: it
/// holds no address, key or body of the tool's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What peers compare with.
    pub code: Code,
    /// What people read.
    pub message: String,
    /// Whether the same request may succeed later.
    pub may_retry: bool,
    /// When, if that is known.
    pub retry_after: Option<Duration>,
}

impl Failure {
    /// A failure that trying again does not help.
    pub(crate) fn lasting(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), may_retry: false, retry_after: None }
    }

    /// A failure that may be gone later.
    pub(crate) fn passing(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), may_retry: true, retry_after: None }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.code.as_str(), self.message)
    }
}

impl std::error::Error for Failure {}

/// A failure as it is known inside: what to do about it, and what only the operator may read.
#[derive(Debug)]
pub(crate) struct Trouble {
    pub(crate) failure: Failure,
    /// For the log.
    pub(crate) detail: String,
    /// Whether asking again makes sense, as long as nothing of the answer was passed on.
    pub(crate) again: Again,
}

/// Whether to ask again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Again {
    /// No.
    Never,
    /// Yes: the tool cannot have begun, or said that it did not.
    Always,
    /// If asking twice does no harm: the tool may have begun.
    IfHarmless,
}

impl Trouble {
    pub(crate) fn new(failure: Failure, again: Again) -> Self {
        Self { failure, detail: String::new(), again }
    }

    pub(crate) fn with_detail(self, detail: impl Into<String>) -> Self {
        Self { detail: detail.into(), ..self }
    }

    /// The tool broke the rules of its format, and would again.
    pub(crate) fn nonsense(message: impl Into<String>) -> Self {
        Self::new(Failure::lasting(Code::ToolFailed, message), Again::Never)
    }

    pub(crate) fn too_large(bytes_max: usize) -> Self {
        let message = format!("the tool's answer exceeds answer_bytes_max of {bytes_max}");
        Self::new(Failure::lasting(Code::ToolAnswerTooLarge, message), Again::Never)
    }
}
