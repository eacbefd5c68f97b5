//! Publishes to a Fanfare server: events, jobs and their progress, runs, lines of logs.
//!
//! Everything goes over HTTP, from a [`Publisher`]. Events and lines wait in bounded buffers and travel in batches;
//! requests that fail are tried again under idempotency keys, so that nothing is done twice. What each part does when its
//! buffer is full, or the server is away, is said where it is.
//!
//! | to tell | use |
//! |---|---|
//! | an event of any name | [`Publisher::publish`], [`Publisher::enqueue`] |
//! | what a dashboard shows | [`Publisher::emit_agent_status`] and its sisters |
//! | what happens in a workspace | [`Broadcaster`] |
//! | how far a job has come | [`Jobs`], [`ProgressTracker`] |
//! | what a run is, and what it should do | [`Runs`] |
//! | what a program logs | [`Logs`], or [`LogLayer`] (feature `tracing`, on by default) |
//!
//! ```no_run
//! use fanfare_sdk::Publisher;
//! use serde_json::json;
//!
//! # async fn example() -> Result<(), fanfare_sdk::Error> {
//! let publisher = Publisher::new("http://127.0.0.1:8000")?;
//! publisher.emit_task_update("task-456", "completed", json!({"result": "success"}))?;
//! publisher.flush().await
//! # }
//! ```

// The examples of the README are compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod backoff;
mod broadcaster;
mod error;
mod event;
mod http;
mod jobs;
mod lane;
#[cfg(feature = "tracing")]
mod layer;
mod logs;
mod progress;
mod publisher;
mod runs;
mod settings;

pub use broadcaster::Broadcaster;
pub use error::Error;
pub use event::Event;
pub use hub::{dashboard, gateway, payload, rest, workspace};
pub use jobs::{JobQuery, Jobs};
#[cfg(feature = "tracing")]
pub use layer::LogLayer;
pub use logs::Logs;
pub use progress::ProgressTracker;
pub use publisher::Publisher;
pub use runs::Runs;
pub use settings::{ApiKey, Settings};
