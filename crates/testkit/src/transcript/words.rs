//! Reads the words of a script: events with their arguments and flags, bytes, times, patterns.
//! Does not know what they are said to.

use std::fmt::Write as _;
use std::time::Duration;

use engine_core::{AckRequest, AckToken, Flags, Order};
use serde::Serialize;
use serde_json::Value;
use sio_proto::{Binary, Body, Many, Parser};

/// What the application says: a name, arguments, flags.
pub(super) struct Said {
    pub(super) body: Body,
    pub(super) flags: Flags,
    pub(super) ack: Option<AckRequest>,
}

impl Said {
    pub(super) fn parse(parser: Parser, text: &str) -> Result<Self, String> {
        let (name, rest) = text.split_once(' ').unwrap_or((text, "[]"));
        let end = rest.rfind(']').map_or(0, |at| at + 1);
        let (args, words) = rest.split_at(end);
        let mut flags = Flags::default();
        let mut ack: Option<AckRequest> = None;
        for word in words.split_whitespace() {
            match word.split_once('=') {
                None if word == "volatile" => flags.volatile = true,
                None if word == "transient" => flags.transient = true,
                None if word == "uncompressed" => flags.uncompressed = true,
                Some(("ack", token)) => {
                    let token = token.parse().map_err(|_| "ack=number")?;
                    ack = Some(AckRequest { token: AckToken(token), timeout: None });
                }
                Some(("order", number)) => {
                    flags.order = Order::Live(number.parse().map_err(|_| "order=number")?);
                }
                Some(("replay", number)) => {
                    flags.order = Order::Replay(number.parse().map_err(|_| "replay=number")?);
                }
                Some(("timeout", text)) => {
                    let timeout = parse_duration(text)?;
                    ack.as_mut().ok_or("ack= first")?.timeout = Some(timeout);
                }
                _ => return Err(format!("unknown flag {word}")),
            }
        }
        let args = parse_args(if args.is_empty() { "[]" } else { args })?;
        let body = parser.encode_event_args(name, &Many(args)).map_err(|fault| fault.to_string())?;
        Ok(Self { body, flags, ack })
    }
}

/// An argument: JSON, or a text of `x` and hex digits for bytes; `"long:5000"` is a text of that length.
pub(super) enum Arg {
    Json(Value),
    Bytes(Binary),
}

impl Serialize for Arg {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Arg::Json(value) => value.serialize(serializer),
            Arg::Bytes(bytes) => bytes.serialize(serializer),
        }
    }
}

pub(super) fn parse_args(text: &str) -> Result<Vec<Arg>, String> {
    let values: Vec<Value> = serde_json::from_str(text).map_err(|error| error.to_string())?;
    values
        .into_iter()
        .map(|value| match value.as_str() {
            Some(text) if text.starts_with("x:") => Ok(Arg::Bytes(Binary(parse_hex(&text[2..])?.into()))),
            Some(text) if text.starts_with("long:") => {
                let len: usize = text[5..].parse().map_err(|_| "long:number")?;
                Ok(Arg::Json("l".repeat(len).into()))
            }
            _ => Ok(Arg::Json(value)),
        })
        .collect()
}

pub(super) fn parse_hex(text: &str) -> Result<Vec<u8>, String> {
    let digits: Vec<u32> = text
        .chars()
        .filter(|c| !c.is_whitespace())
        .map(|c| c.to_digit(16).ok_or_else(|| format!("`{c}` is no hex digit")))
        .collect::<Result<_, _>>()?;
    Ok(digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | *digit as u8)).collect())
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.strip_suffix("ms") {
        Some(number) => (number, 1),
        None => (text.strip_suffix('s').ok_or("a time ends in s or ms")?, 1_000),
    };
    let number: u64 = number.parse().map_err(|_| format!("`{text}` is no time"))?;
    Ok(Duration::from_millis(number * unit))
}

/// Whether `text` is `pattern`, where `*` stands for anything.
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or("");
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.len() >= last.len() && rest.ends_with(last)
}
