//! Owns the layer of `tracing` that sends what a program logs. Does not filter beyond its least level: that is what
//! filters are for.
//!
//! Invariant: what is logged while sending is not sent, or each line would cause the next.

use std::fmt::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hub::rest::LogLine;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

use crate::error::Error;
use crate::logs::Logs;
use crate::publisher::Publisher;

/// Where the code that sends logs from.
const OWN_TARGETS: [&str; 6] = ["fanfare_sdk", "hyper", "hyper_util", "mio", "rustls", "tokio"];

/// Bytes of a line; what is longer is cut. 16 KiB: a long traceback.
const LINE_BYTES_MAX: usize = 16 << 10;

/// Sends the events of `tracing` as lines of logs.
///
/// A line's text is the message and the other fields as `name=value`. Its run is the field `thread_id` of the event, of
/// the nearest span that has one, or the default of the layer. Lines that do not fit the buffer are dropped and counted.
///
/// ```no_run
/// use fanfare_sdk::{LogLayer, Publisher};
/// use tracing_subscriber::layer::SubscriberExt;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let publisher = Publisher::new("http://127.0.0.1:8000")?;
/// let layer = LogLayer::new(&publisher)?.thread_id("run-7");
/// tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layer))?;
/// tracing::info!(step = 3, "compiling");
/// publisher.flush().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct LogLayer {
    logs: Logs,
    thread_id: Option<String>,
    level_min: Level,
    dropped: Arc<AtomicU64>,
}

/// The run that a span belongs to.
struct ThreadId(String);

impl LogLayer {
    /// A layer that sends lines of the level INFO and above.
    ///
    /// # Errors
    /// [`Error::NoRuntime`]: it is made within the runtime that does the sending; lines may come from anywhere.
    pub fn new(publisher: &Publisher) -> Result<Self, Error> {
        let logs = publisher.logs();
        logs.start()?;
        Ok(Self { logs, thread_id: None, level_min: Level::INFO, dropped: Arc::default() })
    }

    /// The run of lines that do not say theirs.
    #[must_use]
    pub fn thread_id(mut self, thread_id: impl Into<String>) -> Self {
        self.thread_id = Some(thread_id.into());
        self
    }

    /// Sends lines of this level and above.
    #[must_use]
    pub fn level_min(mut self, level: Level) -> Self {
        self.level_min = level;
        self
    }

    /// Counts the lines that did not fit the buffer.
    #[must_use]
    pub fn dropped(&self) -> Arc<AtomicU64> {
        self.dropped.clone()
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for LogLayer {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut visitor = LineVisitor::default();
        attributes.record(&mut visitor);
        remember(visitor, id, &context);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let mut visitor = LineVisitor::default();
        values.record(&mut visitor);
        remember(visitor, id, &context);
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let metadata = event.metadata();
        let target = metadata.target().split("::").next().unwrap_or_default();
        if *metadata.level() > self.level_min || OWN_TARGETS.contains(&target) {
            return;
        }
        let mut visitor = LineVisitor::default();
        event.record(&mut visitor);
        let of_span = || {
            context
                .event_scope(event)?
                .find_map(|span| span.extensions().get::<ThreadId>().map(|thread_id| thread_id.0.clone()))
        };
        let thread_id = visitor.thread_id.take().or_else(of_span).or_else(|| self.thread_id.clone());
        let level = match *metadata.level() {
            Level::ERROR => "ERROR",
            Level::WARN => "WARNING",
            Level::INFO => "INFO",
            // There is nothing below.
            _ => "DEBUG",
        };
        let line =
            LogLine { text: visitor.text(), thread_id, level: Some(level.to_owned()), timestamp: None };
        if self.logs.log(line).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn remember<S: Subscriber + for<'a> LookupSpan<'a>>(visitor: LineVisitor, id: &Id, context: &Context<'_, S>) {
    if let Some(thread_id) = visitor.thread_id
        && let Some(span) = context.span(id)
    {
        span.extensions_mut().replace(ThreadId(thread_id));
    }
}

/// Reads the fields of an event or span.
#[derive(Default)]
struct LineVisitor {
    message: String,
    fields: String,
    thread_id: Option<String>,
}

impl LineVisitor {
    fn text(mut self) -> String {
        self.message.push_str(&self.fields);
        let mut text = if self.message.starts_with(' ') { self.message.split_off(1) } else { self.message };
        text.truncate(text.floor_char_boundary(LINE_BYTES_MAX));
        text
    }

    fn see(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        // Writing to a text cannot fail, but a value's own `Debug` may say that it has.
        let _ = match field.name() {
            "message" => self.message.write_fmt(value),
            "thread_id" => {
                self.thread_id = Some(value.to_string());
                Ok(())
            }
            name => write!(self.fields, " {name}={value}"),
        };
    }
}

impl Visit for LineVisitor {
    fn record_str(&mut self, field: &Field, value: &str) {
        if matches!(field.name(), "message" | "thread_id") {
            self.see(field, format_args!("{value}"));
        } else {
            self.see(field, format_args!("{value:?}"));
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.see(field, format_args!("{value:?}"));
    }
}
