//! AI tools: whatever answers when somebody asks.
//!
//! A tool is configured under an id: an HTTP backend of the operator's, an OpenAI-compatible chat endpoint, a program that
//! waits at a queue, or an echo for trying things out. [`Tools::start`] asks one; [`Running::next`] gives what comes of it, step by step, with text
//! joined into few pieces; [`wire::Asked`] writes the steps as events.
//!
//! Owns connections, time-outs, repetitions, queues and health of tools. Does not know rooms, sockets or logs: whoever
//! starts a request sends its events on.
//!
//! ```no_run
//! # async fn ask() -> Result<(), Box<dyn std::error::Error>> {
//! use tools::{Request, ToolConfig, Tools, wire::Asked};
//!
//! let tools = Tools::new([("echo".to_owned(), ToolConfig::echo())].into(), tokio::runtime::Handle::current())?;
//! let request = Request { tool_id: "echo".into(), message: "Hello".into(), ..Request::default() };
//! let asked = Asked::of(&request);
//! let mut running = tools.start(request)?;
//! while let Some(step) = running.next().await {
//!     let event = asked.event(&step, hub::time::Timestamp::of(std::time::SystemTime::now()));
//!     assert!(["status_update", "ai_response"].contains(&event.name));
//! }
//! # Ok(())
//! # }
//! ```
//!
//! | module | noun |
//! |---|---|
//! | `settings` | tools as people configure them |
//! | `step` | what is asked, and what comes of it |
//! | `ask` | what a tool is sent |
//! | `answer` | what a tool says by its bytes |
//! | `lines`, `sse` | bytes, cut into lines and events |
//! | `upstream` | connections to one endpoint |
//! | `line` | the port to tools that messages go to |
//! | `gate` | who may use a tool now, and who waits |
//! | `run` | the course of one request |
//! | `health` | how each tool is doing |
//! | [`wire`] | steps as events |

mod answer;
mod ask;
mod gate;
mod health;
mod line;
mod lines;
mod run;
mod secret;
mod settings;
mod sse;
mod step;
mod upstream;
pub mod wire;

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;

pub use health::{Health, LastFailure, ToolStats};
pub use line::{Letter, Line, LineFault, LineTo, Replies, Sending};
pub use secret::Secret;
pub use settings::{Place, SettingsFault, ToolConfig, ToolSettings};
pub use step::{Code, Done, Failure, Message, Progress, Request, Step, Usage};

use gate::{Entry, Full, Gate, GateLimits};
use health::Tally;
use run::{Reach, Sent, Tool};
use settings::Kind;
use upstream::Upstream;

/// Steps that wait for whoever listens. When full, the tool's answer is not read further: the network holds it back.
const STEPS_MAX: usize = 32;

/// All tools of a server.
#[derive(Debug)]
pub struct Tools {
    tools: BTreeMap<String, Arc<Tool>>,
    runtime: Handle,
}

impl Tools {
    /// Makes them ready; connects to none. Requests run as tasks of `runtime`, which must have time and I/O enabled.
    ///
    /// # Errors
    /// The environment's: a tool's `ca_file` that cannot be used. The caller's: a tool that waits at a queue, to which
    /// only [`Tools::with_lines`] knows a way.
    pub fn new(configs: BTreeMap<String, ToolConfig>, runtime: Handle) -> Result<Self, SettingsFault> {
        Self::with_lines(
            configs,
            runtime,
            &|_| Err("cannot be reached: there is no way to queues".to_owned()),
        )
    }

    /// As [`Tools::new`], where `line_to` knows the way to a queue, or what is wrong with the place.
    ///
    /// # Errors
    /// The environment's: a tool's `ca_file` that cannot be used. Whoever wrote the settings is at fault for a place to
    /// which there is no way.
    pub fn with_lines(
        configs: BTreeMap<String, ToolConfig>,
        runtime: Handle,
        line_to: &LineTo,
    ) -> Result<Self, SettingsFault> {
        let mut tools = BTreeMap::new();
        for (id, config) in configs {
            let (kind, limits) = (config.kind(), config.limits);
            let fault = |complaint| SettingsFault { key: format!("tools.{id}"), complaint };
            let reach = match config.kind {
                Kind::Echo { word_delay } => Reach::Echo { word_delay },
                Kind::Http(endpoint) => {
                    let accept =
                        "application/x-ndjson, text/event-stream, application/json, text/plain;q=0.5";
                    Reach::Http(Upstream::new(endpoint, accept, &limits).map_err(fault)?)
                }
                Kind::Openai { endpoint, chat } => {
                    let accept = "text/event-stream, application/json;q=0.5";
                    Reach::Openai { upstream: Upstream::new(endpoint, accept, &limits).map_err(fault)?, chat }
                }
                Kind::Amqp(place) => Reach::Line(line_to(&place).map_err(fault)?),
            };
            let gate = Gate::new(GateLimits {
                concurrency: limits.concurrency,
                concurrency_per_user: limits.concurrency_per_user,
                queue: limits.queue,
                queue_per_user: limits.queue_per_user,
            });
            let tool = Tool { id: id.clone(), kind, limits, reach, gate, tally: Tally::default() };
            tools.insert(id, Arc::new(tool));
        }
        Ok(Self { tools, runtime })
    }

    /// Asks a tool, or queues for it. Does not wait; may be called from any thread.
    ///
    /// # Errors
    /// The asker's fault: `unknown_tool`, `tool_message_too_large`, `tool_bad_history`. The moment's: `tool_busy`, when
    /// the queue is full.
    pub fn start(&self, request: Request) -> Result<Running, Failure> {
        let tool = self.tools.get(&request.tool_id).ok_or_else(|| {
            // The name is the asker's own and may be long.
            let id: String = request.tool_id.chars().take(100).collect();
            Failure::lasting(Code::UnknownTool, format!("there is no tool {id:?}"))
        })?;
        let (sent, entry) = admit(tool, request).inspect_err(|_| tool.tally.refuse())?;
        tool.tally.accept();
        let (steps_in, steps) = mpsc::channel(STEPS_MAX);
        let (cancel, cancelled) = watch::channel(false);
        let task =
            self.runtime.spawn(run::run(tool.clone(), sent, entry, steps_in, cancelled)).abort_handle();
        Ok(Running { steps, canceller: Canceller(cancel), task, is_over: false })
    }

    /// How each tool is doing, by id.
    #[must_use]
    pub fn stats(&self) -> Vec<ToolStats> {
        self.tools.values().map(|tool| tool.tally.stats(&tool.id, tool.kind, tool.gate.load())).collect()
    }

    /// The ids of all tools, in order.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.tools.keys().map(String::as_str)
    }
}

/// What is to be sent, and a place.
fn admit(tool: &Tool, request: Request) -> Result<(Sent, Entry), Failure> {
    ask::check_size(&request, tool.limits.message_bytes_max)?;
    let user = match (&request.user, &request.session_id) {
        (Some(user), _) => format!("user:{user}"),
        (None, Some(session)) => format!("session:{session}"),
        (None, None) => String::new(),
    };
    let sent = match &tool.reach {
        Reach::Echo { .. } => Sent::Echo(request.message),
        Reach::Http(_) | Reach::Line(_) => Sent::Post(ask::plain(&request)),
        Reach::Openai { chat, .. } => Sent::Post(ask::chat(chat, &request)?),
    };
    let entry = tool.gate.try_enter(&user).map_err(|full| {
        let message = match full {
            Full::Queue(count) => format!("{count} requests wait for this tool, as many as its queue takes"),
            Full::UserQueue(count) => {
                format!("{count} of your requests wait for this tool, as many as queue_per_user")
            }
        };
        Failure::passing(Code::ToolBusy, message)
    })?;
    Ok((sent, entry))
}

/// A request under way. Dropping it ends it at once, and closes the connection to the tool.
#[derive(Debug)]
pub struct Running {
    steps: mpsc::Receiver<Step>,
    canceller: Canceller,
    task: AbortHandle,
    is_over: bool,
}

impl Running {
    /// The next step; `None` after the last, which is [`Step::Done`] or [`Step::Failed`]. May be dropped while it
    /// waits without losing a step.
    pub async fn next(&mut self) -> Option<Step> {
        if self.is_over {
            return None;
        }
        // The task ends without a last step only when its runtime does.
        let step = self.steps.recv().await.unwrap_or_else(|| {
            Step::Failed(Failure::passing(Code::ToolFailed, "the server stopped before the answer came"))
        });
        self.is_over = matches!(step, Step::Done(_) | Step::Failed(_));
        Some(step)
    }

    /// Cancels it: text that was held comes, then [`Step::Failed`] with `tool_cancelled`, unless it is over already.
    pub fn cancel(&self) {
        self.canceller.cancel();
    }

    /// Something to cancel it with from elsewhere.
    #[must_use]
    pub fn canceller(&self) -> Canceller {
        self.canceller.clone()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Cancels one request, as often as one likes.
#[derive(Clone, Debug)]
pub struct Canceller(watch::Sender<bool>);

impl Canceller {
    /// See [`Running::cancel`].
    pub fn cancel(&self) {
        self.0.send_replace(true);
    }
}
