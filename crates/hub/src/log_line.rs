//! Owns a line of a log, its level, and who wants to see which lines. Does not know where lines come from or how sockets
//! are grouped.
//!
//! Lines are kept nowhere: whoever watches `/logs` gets them. To reach only those who want a line, each socket is put
//! into the one channel that its filter names ([`LogFilter::channel`]), and a line goes to the few channels whose filters
//! let it pass ([`LogLine::channels`]): no filter is evaluated for each socket and line.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::bound;
use crate::event::Audience;
use crate::fault::{Fault, Refusal};
use crate::outgoing::Outgoing;
use crate::time::Timestamp;

/// The event that carries a line.
pub const LOG: &str = "log";

/// How much a line matters; more is greater.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// For those who look for a fault.
    Debug,
    /// What happens.
    #[default]
    Info,
    /// Somebody should look.
    Warning,
    /// Somebody must look.
    Error,
    /// Nothing works.
    Critical,
}

/// Names by which libraries call the levels, in upper case.
const NAMES: [(&str, Level); 23] = [
    ("DEBUG", Level::Debug),
    ("INFO", Level::Info),
    ("WARNING", Level::Warning),
    ("ERROR", Level::Error),
    ("CRITICAL", Level::Critical),
    ("NOTSET", Level::Debug),
    ("TRACE", Level::Debug),
    ("VERBOSE", Level::Debug),
    ("SILLY", Level::Debug),
    ("FINE", Level::Debug),
    ("NOTICE", Level::Info),
    ("INFORMATION", Level::Info),
    ("SUCCESS", Level::Info),
    ("LOG", Level::Info),
    ("WARN", Level::Warning),
    ("ERR", Level::Error),
    ("SEVERE", Level::Error),
    ("EXCEPTION", Level::Error),
    ("FATAL", Level::Critical),
    ("CRIT", Level::Critical),
    ("ALERT", Level::Critical),
    ("EMERG", Level::Critical),
    ("PANIC", Level::Critical),
];

impl Level {
    /// Every level, the lowest first.
    pub const ALL: [Level; 5] = [Level::Debug, Level::Info, Level::Warning, Level::Error, Level::Critical];

    /// The name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Debug => "DEBUG",
            Level::Info => "INFO",
            Level::Warning => "WARNING",
            Level::Error => "ERROR",
            Level::Critical => "CRITICAL",
        }
    }

    /// Reads a level by any name in use, in any case, or as Python's number for it.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let name = name.trim();
        if let Ok(number) = name.parse() {
            return Some(Self::of_number(number));
        }
        NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, level)| *level)
    }

    /// Python's numbers, each up to the next: 10 and less, 20, 30, 40, 50 and more.
    fn of_number(number: i64) -> Self {
        match number {
            ..20 => Level::Debug,
            20..30 => Level::Info,
            30..40 => Level::Warning,
            40..50 => Level::Error,
            50.. => Level::Critical,
        }
    }

    fn of_value(value: &Value) -> Option<Self> {
        match value {
            Value::String(name) => Self::parse(name),
            Value::Number(number) => number.as_i64().map(Self::of_number),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
        }
    }
}

impl Serialize for Level {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Level {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(from)?;
        let levels = "a level: DEBUG, INFO, WARNING, ERROR or CRITICAL";
        Self::of_value(&value).ok_or_else(|| D::Error::custom(levels))
    }
}

impl JsonSchema for Level {
    fn schema_name() -> Cow<'static, str> {
        "Level".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "enum": Level::ALL.map(Level::as_str)})
    }
}

/// Bounds of a line's parts.
#[derive(Clone, Debug)]
pub struct LogLimits {
    /// Bytes of a line's text. Default 16 KiB: a traceback. Longer: cut, and the line says so; half a line is better
    /// than none.
    pub text_bytes_max: usize,
    /// Bytes of a thread's id. Default 196, as `run:<id>` must make a room's name. Longer: refused.
    pub thread_bytes_max: usize,
}

impl Default for LogLimits {
    fn default() -> Self {
        Self { text_bytes_max: 16 << 10, thread_bytes_max: 196 }
    }
}

/// A line: the data of [`LOG`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LogLine {
    /// What it says.
    pub text: String,
    /// The run that it is about, if it is about one.
    pub thread_id: Option<Box<str>>,
    /// How much it matters.
    pub level: Level,
    /// When it was written, in RFC 3339.
    pub timestamp: String,
}

/// A line as publishers write it: one of `POST /api/v1/logs`. Other fields are left out.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct RawLogLine {
    /// What it says.
    #[serde(alias = "message", alias = "msg")]
    pub text: String,
    /// The run that it is about.
    pub thread_id: Option<Box<str>>,
    /// How much it matters, by any name or number in use; what nobody knows counts as `INFO`.
    #[serde(default, alias = "levelname", alias = "severity")]
    pub level: Value,
    /// When it was written: RFC 3339, or seconds or milliseconds since 1970; without it, now.
    #[serde(default, alias = "time")]
    pub timestamp: Value,
}

impl LogLine {
    /// Takes a line as it was written. Lenient: a line with an odd level or moment is better than none.
    ///
    /// # Errors
    /// The peer's fault: [`Refusal::TooMany`] or [`Refusal::BadPayload`] for its thread's id.
    pub fn new(now: Timestamp, raw: RawLogLine, limits: &LogLimits) -> Result<Self, Fault> {
        let RawLogLine { mut text, thread_id, level, timestamp } = raw;
        let thread_id = thread_id.filter(|id| !id.is_empty());
        if let Some(thread_id) = &thread_id {
            bound::name("`thread_id`", thread_id, limits.thread_bytes_max)?;
        }
        if text.len() > limits.text_bytes_max {
            let end = text.floor_char_boundary(limits.text_bytes_max);
            let rest = text.len() - end;
            text.truncate(end);
            text.push_str(&format!(" … ({rest} more bytes)"));
        }
        let level = Level::of_value(&level).unwrap_or_default();
        let timestamp = moment(&timestamp).unwrap_or(now).to_string();
        Ok(Self { text, thread_id, level, timestamp })
    }

    /// The event for all of `/logs`; those who narrowed it get what their filter lets pass.
    #[must_use]
    pub fn outgoing(&self) -> Outgoing {
        Outgoing::to_all(LOG, self, Audience::Logs)
    }

    /// The channels whose filters let it pass: at most ten.
    pub fn channels(&self) -> impl Iterator<Item = String> {
        let levels = Level::ALL.into_iter().filter(|level| *level <= self.level);
        levels.flat_map(|level| {
            let thread = self.thread_id.as_deref().map(|thread| channel(level, Some(thread)));
            thread.into_iter().chain([channel(level, None)])
        })
    }
}

/// Which lines somebody wants: the connect payload of `/logs`, and the command `filter` there. Other fields are not
/// looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LogFilter {
    /// Only those about this run.
    #[serde(default)]
    pub thread_id: Option<Box<str>>,
    /// Only those of this level or more.
    #[serde(default)]
    pub level: Option<Level>,
}

impl LogFilter {
    /// Reads a filter from what a peer sent; `null` wants everything.
    ///
    /// # Errors
    /// The peer's fault: [`Refusal::BadPayload`] if it is not of that shape (a level that nobody knows would show too
    /// much or nothing), [`Refusal::TooMany`] for a thread's id that is too long.
    pub fn parse(value: &Value, limits: &LogLimits) -> Result<Self, Fault> {
        if value.is_null() {
            return Ok(Self::default());
        }
        let filter = Self::deserialize(value)
            .map_err(|error| Fault::new(Refusal::BadPayload, format!("not a filter of lines: {error}")))?;
        if let Some(thread_id) = &filter.thread_id {
            bound::name("`thread_id`", thread_id, limits.thread_bytes_max)?;
        }
        Ok(filter)
    }

    /// Whether a line passes.
    #[must_use]
    pub fn lets_pass(&self, line: &LogLine) -> bool {
        let is_of_thread = self.thread_id.is_none() || self.thread_id == line.thread_id;
        is_of_thread && self.level.is_none_or(|least| line.level >= least)
    }

    /// The channel of those who want the same lines.
    #[must_use]
    pub fn channel(&self) -> String {
        channel(self.level.unwrap_or(Level::Debug), self.thread_id.as_deref())
    }
}

/// A level has no colon, so the first one ends it.
fn channel(level: Level, thread: Option<&str>) -> String {
    match thread {
        Some(thread) => format!("{}:{thread}", level.as_str()),
        None => level.as_str().to_owned(),
    }
}

fn moment(value: &Value) -> Option<Timestamp> {
    match value {
        Value::String(text) => Timestamp::parse(text),
        Value::Number(number) => {
            let number = number.as_f64().filter(|number| *number >= 0.0)?;
            // 1e11: as seconds the year 5138, as milliseconds 1973.
            let millis = if number < 1e11 { number * 1_000.0 } else { number };
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "saturates, and is not negative"
            )]
            Some(Timestamp(millis as u64))
        }
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Just, Strategy, any, prop_assert_eq, prop_oneof, proptest};
    use serde_json::json;

    use super::*;

    const NOW: Timestamp = Timestamp(1_704_067_200_000);

    #[test]
    fn levels_are_ordered_and_known_by_many_names() {
        assert!(Level::ALL.windows(2).all(|pair| pair[0] < pair[1]));
        for (name, level) in [
            ("warn", Level::Warning),
            (" Fatal ", Level::Critical),
            ("notice", Level::Info),
            ("30", Level::Warning),
            ("5", Level::Debug),
            ("60", Level::Critical),
        ] {
            assert_eq!(Level::parse(name), Some(level), "{name}");
        }
        assert_eq!(Level::parse("loud"), None);
        for level in Level::ALL {
            let text = serde_json::to_string(&level).unwrap();
            assert_eq!(serde_json::from_str::<Level>(&text).unwrap(), level);
        }
    }

    #[test]
    fn lines_are_taken_as_handlers_write_them() {
        let full =
            json!({"message": "hi", "thread_id": "t", "levelname": "WARN", "time": 1_704_067_200.5, "x": 1});
        let expected = json!({
            "text": "hi", "thread_id": "t", "level": "WARNING", "timestamp": "2024-01-01T00:00:00.500Z",
        });
        assert_eq!(serde_json::to_value(line(full).unwrap()).unwrap(), expected);
        let bare = line(json!({"text": "", "level": [], "timestamp": "yesterday", "thread_id": ""})).unwrap();
        assert_eq!(
            (bare.level, bare.thread_id, &*bare.timestamp),
            (Level::Info, None, "2024-01-01T00:00:00.000Z")
        );
        assert!(serde_json::from_value::<RawLogLine>(json!({"level": "INFO"})).is_err());
        assert!(line(json!({"text": "x", "thread_id": "t".repeat(197)})).is_err());
    }

    #[test]
    fn moments_may_have_any_offset() {
        for (text, millis) in [
            ("2024-01-01T00:00:00", NOW.0),
            ("2024-01-01 00:00:00.250000", NOW.0 + 250),
            ("2024-01-01T05:30:00+05:30", NOW.0),
            ("2023-12-31T16:00:00.001-0800", NOW.0 + 1),
            ("2024-01-01T00:00:00Z", NOW.0),
        ] {
            assert_eq!(moment(&json!(text)), Some(Timestamp(millis)), "{text}");
        }
        for bad in
            ["2024-01-01", "2024-01-01T00:00:00+1", "", "ééééééééééé+01:00", "1970-01-01T00:00:00+01:00"]
        {
            assert_eq!(moment(&json!(bad)), None, "{bad}");
        }
        assert_eq!(moment(&json!(1_704_067_200_000u64)), Some(NOW));
        assert_eq!(moment(&json!(-5)), None);
    }

    #[test]
    fn long_lines_are_cut_where_a_character_ends() {
        let limits = LogLimits { text_bytes_max: 4, ..LogLimits::default() };
        let raw = serde_json::from_value(json!({"text": "abcéd"})).unwrap();
        assert_eq!(LogLine::new(NOW, raw, &limits).unwrap().text, "abc … (3 more bytes)");
    }

    #[test]
    fn filters_are_strict_about_levels() {
        let limits = LogLimits::default();
        let filter = LogFilter::parse(&json!({"level": "warn", "token": "x"}), &limits).unwrap();
        assert_eq!(filter, LogFilter { thread_id: None, level: Some(Level::Warning) });
        assert_eq!(LogFilter::parse(&Value::Null, &limits), Ok(LogFilter::default()));
        for bad in [json!({"level": "loud"}), json!({"thread_id": 7}), json!("x"), json!({"thread_id": ""})] {
            assert!(LogFilter::parse(&bad, &limits).is_err(), "{bad}");
        }
    }

    fn levels() -> impl Strategy<Value = Level> {
        proptest::sample::select(&Level::ALL[..])
    }

    fn threads() -> impl Strategy<Value = Option<Box<str>>> {
        proptest::option::of(prop_oneof![Just("a"), Just("b"), Just(":a")].prop_map(Into::into))
    }

    proptest! {
        #[test]
        fn channels_reach_those_whose_filter_lets_a_line_pass(
            (level, thread_id) in (levels(), threads()),
            (least, of_thread) in (proptest::option::of(levels()), threads()),
        ) {
            let line = LogLine { text: String::new(), thread_id, level, timestamp: String::new() };
            let filter = LogFilter { thread_id: of_thread, level: least };
            let reached = line.channels().filter(|channel| *channel == filter.channel()).count();
            prop_assert_eq!(reached, usize::from(filter.lets_pass(&line)));
        }

        #[test]
        fn a_moment_that_is_read_is_written_so_that_it_is_read_again(
            text in prop_oneof![any::<String>(), "[0-9]{4}-[01][0-9]-[0-3][0-9][T ][0-2][0-9]:[0-5][0-9]:[0-9]{2}\\PC{0,8}"],
        ) {
            if let Some(at) = moment(&json!(text)) {
                prop_assert_eq!(moment(&json!(at.to_string())), Some(at));
            }
        }
    }

    fn line(value: Value) -> Result<LogLine, Fault> {
        LogLine::new(NOW, serde_json::from_value(value).unwrap(), &LogLimits::default())
    }
}
