//! The msgpack parser's way in, and the few msgpack primitives that we read and write ourselves.
//!
//! A packet is one map; nothing here copies a value. Values are walked iteratively, so depth costs no stack. Every string is checked
//! to be UTF-8, because some clients drop their connection over one that is not and we may pass values on unparsed.
//!
//! Extension types: notepack, the JavaScript codec, writes `undefined` as a one-byte extension of type 0, dates as an eight-byte one
//! holding signed milliseconds, and array buffers as a longer one. [`without_extensions`] turns them into what the text parser would
//! have given: null, an ISO 8601 text, and plain binary. Extensions of any other type become the binary they hold.

use crate::{Fault, Incoming, Kind, Limits, Payload, is_reserved_event};
use std::borrow::Cow;

/// How `undefined` is written.
const UNDEFINED: [u8; 3] = [0xd4, 0x00, 0x00];

/// What one head byte (and its length bytes) announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Head {
    Nil,
    Bool,
    Unsigned(u64),
    Negative,
    Float,
    String(usize),
    Binary(usize),
    Extension(usize),
    Array(u32),
    Map(u32),
}

/// Why a walk ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    Syntax(usize),
    TooDeep,
}

/// Decodes one binary message that is a whole packet.
///
/// The keys may come in any order, unknown ones are ignored, and of a key that comes twice the last counts. `undefined` and an
/// absent key are the same.
///
/// Deviation: reserved event names are refused here too, which Node's msgpack parser does not do; an event without a name is
/// accepted only as an empty array.
///
/// # Errors
/// A [`Fault`]; the peer's fault, and the end of its connection.
pub fn decode_msgpack<'a>(bytes: &'a [u8], limits: &Limits) -> Result<Incoming<'a>, Fault> {
    if bytes.is_empty() {
        return Err(Fault::Empty);
    }
    let (head, mut i) = head_at(bytes, 0).map_err(|stop| fault(stop, limits))?;
    let Head::Map(entries) = head else { return Err(Fault::Msgpack { offset: 0 }) };

    let mut kind = None;
    let mut namespace = None;
    let mut ack_id = None;
    let mut data: Option<&[u8]> = None;
    for _ in 0..entries {
        let (key, value_at) = string_at(bytes, i, limits)?;
        // The packet's own map is a level of nesting like the text parser's array is not; only the data's own depth counts.
        let end = skip_value(bytes, value_at, limits.depth_max()).map_err(|stop| fault(stop, limits))?;
        let value = &bytes[value_at..end];
        match key {
            "type" => {
                kind = match head_at(value, 0) {
                    // Attachments are within the packet, so the binary types do not exist.
                    Ok((Head::Unsigned(number @ 0..=4), _)) => Kind::from_number(number as u8),
                    _ => return Err(Fault::UnknownType),
                }
            }
            "nsp" => namespace = Some(namespace_of(value, limits)?),
            "id" => {
                ack_id = match head_at(value, 0) {
                    Ok((Head::Unsigned(id), _)) => Some(id),
                    Ok((Head::Nil, _)) => None,
                    _ if value == UNDEFINED => None,
                    _ => return Err(Fault::AckId),
                }
            }
            "data" => data = (value != UNDEFINED).then_some(value),
            _ => {}
        }
        i = end;
    }
    if i != bytes.len() {
        return Err(Fault::Msgpack { offset: i });
    }

    let kind = kind.ok_or(Fault::UnknownType)?;
    let namespace = namespace.ok_or(Fault::NamespaceMissing)?;
    let payload = payload_of(kind, data, limits)?;
    Ok(Incoming { namespace, ack_id, attachments: 0, payload })
}

fn namespace_of<'a>(value: &'a [u8], limits: &Limits) -> Result<&'a str, Fault> {
    let Ok((Head::String(_), _)) = head_at(value, 0) else { return Err(Fault::NamespaceMissing) };
    let (name, _) = string_at(value, 0, limits)?;
    if name.len() > limits.namespace_bytes_max {
        return Err(Fault::NamespaceTooLong { max: limits.namespace_bytes_max });
    }
    if name.bytes().any(|b| b.is_ascii_control()) {
        return Err(Fault::NamespaceControl);
    }
    Ok(name)
}

/// `data` is one well-formed value.
fn payload_of<'a>(kind: Kind, data: Option<&'a [u8]>, limits: &Limits) -> Result<Payload<'a>, Fault> {
    let Some(data) = data else {
        return match kind {
            Kind::Connect => Ok(Payload::Connect { auth: None }),
            Kind::Disconnect => Ok(Payload::Disconnect),
            Kind::ConnectError => Ok(Payload::ConnectError { data: &[] }),
            Kind::Event | Kind::Ack | Kind::BinaryEvent | Kind::BinaryAck => Err(Fault::Shape(kind)),
        };
    };
    let (head, items) = head_at(data, 0).map_err(|stop| fault(stop, limits))?;
    match (kind, head) {
        (Kind::Connect, Head::Map(_)) => Ok(Payload::Connect { auth: Some(data) }),
        (Kind::Disconnect, Head::Nil) => Ok(Payload::Disconnect),
        (Kind::ConnectError, Head::Map(_) | Head::String(_)) => Ok(Payload::ConnectError { data }),
        (Kind::Ack, Head::Array(count)) => Ok(Payload::Ack { elements: &data[items..], count }),
        (Kind::Event, Head::Array(0)) => {
            Ok(Payload::Event { name: Cow::Borrowed(""), elements: &[], count: 0 })
        }
        (Kind::Event, Head::Array(count)) => {
            let (name, end) = event_name(data, items, limits)?;
            Ok(Payload::Event { name, elements: &data[end..], count: count - 1 })
        }
        _ => Err(Fault::Shape(kind)),
    }
}

fn event_name<'a>(data: &'a [u8], start: usize, limits: &Limits) -> Result<(Cow<'a, str>, usize), Fault> {
    let (head, after) = head_at(data, start).map_err(|stop| fault(stop, limits))?;
    let (name, end) = match head {
        Head::String(_) => {
            let (name, end) = string_at(data, start, limits)?;
            (Cow::Borrowed(name), end)
        }
        Head::Unsigned(number) => (Cow::Owned(number.to_string()), after),
        Head::Negative => (Cow::Owned(negative_of(&data[start..after]).to_string()), after),
        Head::Float => (Cow::Owned(float_of(&data[start..after]).to_string()), after),
        Head::Nil | Head::Bool | Head::Binary(_) | Head::Extension(_) | Head::Array(_) | Head::Map(_) => {
            return Err(Fault::EventName);
        }
    };
    if name.len() > limits.event_name_bytes_max {
        return Err(Fault::EventNameTooLong { bytes: name.len(), max: limits.event_name_bytes_max });
    }
    if is_reserved_event(&name) {
        return Err(Fault::ReservedEvent);
    }
    Ok((name, end))
}

/// The string at `start` and the offset after it.
fn string_at<'a>(b: &'a [u8], start: usize, limits: &Limits) -> Result<(&'a str, usize), Fault> {
    let (head, at) = head_at(b, start).map_err(|stop| fault(stop, limits))?;
    let Head::String(len) = head else { return Err(Fault::Msgpack { offset: start }) };
    let text = b.get(at..at + len).and_then(|bytes| std::str::from_utf8(bytes).ok());
    match text {
        Some(text) => Ok((text, at + len)),
        None => Err(Fault::Msgpack { offset: start }),
    }
}

fn fault(stop: Stop, limits: &Limits) -> Fault {
    match stop {
        Stop::Syntax(offset) => Fault::Msgpack { offset },
        Stop::TooDeep => Fault::TooDeep { max: limits.depth_max() },
    }
}

/// Reads a head; answers it and the offset after it. Numbers and booleans are within the head, so for them that is the value's end.
/// For strings, binary and extensions (whose type byte counts as content) it is where their content starts.
fn head_at(b: &[u8], i: usize) -> Result<(Head, usize), Stop> {
    let short = Stop::Syntax(i);
    let &first = b.get(i).ok_or(short)?;
    let unsigned = |width: usize| -> Result<u64, Stop> {
        let bytes = b.get(i + 1..i + 1 + width).ok_or(short)?;
        Ok(bytes.iter().fold(0, |value, &byte| value << 8 | u64::from(byte)))
    };
    // Lengths come in at most four bytes, so they fit.
    let length = |width: usize| Ok::<_, Stop>(unsigned(width)? as usize);
    let count = |width: usize| Ok::<_, Stop>(unsigned(width)? as u32);
    let signed = |width: usize| -> Result<Head, Stop> {
        let value = unsigned(width)?;
        let is_negative = value >> (width * 8 - 1) == 1;
        Ok(if is_negative { Head::Negative } else { Head::Unsigned(value) })
    };
    let (head, width) = match first {
        0x00..=0x7f => (Head::Unsigned(u64::from(first)), 0),
        0x80..=0x8f => (Head::Map(u32::from(first & 0x0f)), 0),
        0x90..=0x9f => (Head::Array(u32::from(first & 0x0f)), 0),
        0xa0..=0xbf => (Head::String(usize::from(first & 0x1f)), 0),
        0xc0 => (Head::Nil, 0),
        0xc1 => return Err(short),
        0xc2 | 0xc3 => (Head::Bool, 0),
        0xc4 => (Head::Binary(length(1)?), 1),
        0xc5 => (Head::Binary(length(2)?), 2),
        0xc6 => (Head::Binary(length(4)?), 4),
        0xc7 => (Head::Extension(length(1)? + 1), 1),
        0xc8 => (Head::Extension(length(2)? + 1), 2),
        0xc9 => (Head::Extension(length(4)? + 1), 4),
        0xca => (unsigned(4).map(|_| Head::Float)?, 4),
        0xcb => (unsigned(8).map(|_| Head::Float)?, 8),
        0xcc => (Head::Unsigned(unsigned(1)?), 1),
        0xcd => (Head::Unsigned(unsigned(2)?), 2),
        0xce => (Head::Unsigned(unsigned(4)?), 4),
        0xcf => (Head::Unsigned(unsigned(8)?), 8),
        0xd0 => (signed(1)?, 1),
        0xd1 => (signed(2)?, 2),
        0xd2 => (signed(4)?, 4),
        0xd3 => (signed(8)?, 8),
        0xd4..=0xd8 => (Head::Extension((1 << (first - 0xd4)) + 1), 0),
        0xd9 => (Head::String(length(1)?), 1),
        0xda => (Head::String(length(2)?), 2),
        0xdb => (Head::String(length(4)?), 4),
        0xdc => (Head::Array(count(2)?), 2),
        0xdd => (Head::Array(count(4)?), 4),
        0xde => (Head::Map(count(2)?), 2),
        0xdf => (Head::Map(count(4)?), 4),
        0xe0..=0xff => (Head::Negative, 0),
    };
    Ok((head, i + 1 + width))
}

/// The value of a whole negative integer.
fn negative_of(value: &[u8]) -> i64 {
    match value {
        [fix] => i64::from(*fix as i8),
        // The bytes after the head, with the sign extended.
        [_, bytes @ ..] => bytes.iter().fold(-1, |value, &byte| value << 8 | i64::from(byte)),
        [] => 0,
    }
}

/// The value of a whole float.
fn float_of(value: &[u8]) -> f64 {
    if let Some(bytes) = value.get(1..).and_then(|b| <[u8; 8]>::try_from(b).ok()) {
        return f64::from_be_bytes(bytes);
    }
    value
        .get(1..)
        .and_then(|b| <[u8; 4]>::try_from(b).ok())
        .map_or(f64::NAN, |b| f64::from(f32::from_be_bytes(b)))
}

/// What a walk meets, in order.
trait Visit {
    /// A head other than an extension's, with the bytes that it and its content take (for containers, the head alone).
    fn plain(&mut self, bytes: &[u8]);
    /// An extension's head, type and content.
    fn extension(&mut self, bytes: &[u8], kind: u8, content: &[u8]);
}

struct Nothing;

impl Visit for Nothing {
    fn plain(&mut self, _: &[u8]) {}
    fn extension(&mut self, _: &[u8], _: u8, _: &[u8]) {}
}

/// Walks over one value from `start`; answers the offset after it. `depth_max` as in [`Limits::json_depth_max`].
fn skip_value(b: &[u8], start: usize, depth_max: u32) -> Result<usize, Stop> {
    walk(b, start, depth_max, &mut Nothing)
}

fn walk(b: &[u8], start: usize, depth_max: u32, visit: &mut impl Visit) -> Result<usize, Stop> {
    // How many values are still to come in the innermost container, and in those around it.
    let mut open: Vec<u64> = Vec::new();
    let mut left: u64 = 1;
    let mut i = start;
    loop {
        while left == 0 {
            match open.pop() {
                Some(outer) => left = outer,
                None => return Ok(i),
            }
        }
        left -= 1;
        let (head, at) = head_at(b, i)?;
        let (content, inside) = match head {
            Head::Nil | Head::Bool | Head::Unsigned(_) | Head::Negative | Head::Float => (0, None),
            Head::String(len) | Head::Binary(len) | Head::Extension(len) => (len, None),
            Head::Array(count) => (0, Some(u64::from(count))),
            Head::Map(count) => (0, Some(u64::from(count) * 2)),
        };
        let bytes = b.get(at..).and_then(|rest| rest.get(..content)).ok_or(Stop::Syntax(i))?;
        match head {
            Head::String(_) if std::str::from_utf8(bytes).is_err() => return Err(Stop::Syntax(i)),
            Head::Extension(_) => {
                let (&kind, content) = bytes.split_first().ok_or(Stop::Syntax(i))?;
                visit.extension(&b[i..at + bytes.len()], kind, content);
            }
            _ => visit.plain(&b[i..at + content]),
        }
        i = at + content;
        if let Some(inside) = inside {
            // One entry per container that is open already.
            if open.len() as u64 >= u64::from(depth_max) {
                return Err(Stop::TooDeep);
            }
            open.push(left);
            left = inside;
        }
    }
}

/// The offset after `count` values, or nothing if they are not there or too deep.
pub(crate) fn skip_values(b: &[u8], count: u32) -> Option<usize> {
    let mut i = 0;
    for _ in 0..count {
        i = skip_value(b, i, crate::DEPTH_CEILING).ok()?;
    }
    Some(i)
}

/// `count` values with every extension replaced by a plain value; nothing if they are not well formed. Borrows when there is none.
pub(crate) fn without_extensions(b: &[u8], count: u32) -> Option<Cow<'_, [u8]>> {
    let mut search = Search { has_extensions: false };
    let mut end = 0;
    for _ in 0..count {
        end = walk(b, end, crate::DEPTH_CEILING, &mut search).ok()?;
    }
    if !search.has_extensions {
        return Some(Cow::Borrowed(&b[..end]));
    }
    let mut rewrite = Rewrite { out: Vec::with_capacity(end) };
    let mut i = 0;
    for _ in 0..count {
        i = walk(b, i, crate::DEPTH_CEILING, &mut rewrite).ok()?;
    }
    Some(Cow::Owned(rewrite.out))
}

struct Search {
    has_extensions: bool,
}

impl Visit for Search {
    fn plain(&mut self, _: &[u8]) {}

    fn extension(&mut self, _: &[u8], _: u8, _: &[u8]) {
        self.has_extensions = true;
    }
}

struct Rewrite {
    out: Vec<u8>,
}

impl Visit for Rewrite {
    fn plain(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    fn extension(&mut self, bytes: &[u8], kind: u8, content: &[u8]) {
        // Only a fixed-size head means a date or undefined; array buffers come with a length.
        let is_fixed = matches!(bytes.first(), Some(0xd4..=0xd8));
        match (kind, content) {
            (0, [0]) if is_fixed => self.out.push(0xc0),
            (0, &[a, b, c, d, e, f, g, h]) if is_fixed => {
                match iso8601(i64::from_be_bytes([a, b, c, d, e, f, g, h])) {
                    Some(text) => write_string(&mut self.out, &text),
                    None => self.out.push(0xc0),
                }
            }
            _ => write_binary(&mut self.out, content),
        }
    }
}

/// Milliseconds since 1970 as JavaScript's `toISOString` writes them; nothing for what is no JavaScript date.
fn iso8601(millis: i64) -> Option<String> {
    // The range of a JavaScript date: 100 million days to either side.
    if millis.unsigned_abs() > 8_640_000_000_000_000 {
        return None;
    }
    let (days, in_day) = (millis.div_euclid(86_400_000), millis.rem_euclid(86_400_000));
    // Days to a date in the proleptic Gregorian calendar, counted in eras of 400 years (146 097 days) that start on 1 March, so that
    // the leap day is the last of its year. 719 468 days lie between 1 March of year 0 and 1 January 1970.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let year = match year {
        0..=9999 => format!("{year:04}"),
        _ => format!("{year:+07}"),
    };
    let (seconds, milli) = (in_day / 1000, in_day % 1000);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    Some(format!("{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z"))
}

pub(crate) fn write_string(out: &mut Vec<u8>, text: &str) {
    match text.len() {
        len @ 0..=31 => out.push(0xa0 | len as u8),
        len => write_length(out, len, [Some(0xd9), Some(0xda), Some(0xdb)]),
    }
    out.extend_from_slice(text.as_bytes());
}

pub(crate) fn write_binary(out: &mut Vec<u8>, bytes: &[u8]) {
    write_length(out, bytes.len(), [Some(0xc4), Some(0xc5), Some(0xc6)]);
    out.extend_from_slice(bytes);
}

pub(crate) fn write_array_head(out: &mut Vec<u8>, count: u32) {
    match count {
        0..=15 => out.push(0x90 | count as u8),
        _ => write_length(out, count as usize, [None, Some(0xdc), Some(0xdd)]),
    }
}

/// For maps of at most 15 entries.
pub(crate) fn write_small_map_head(out: &mut Vec<u8>, entries: u8) {
    debug_assert!(entries <= 15, "the head has four bits for it");
    out.push(0x80 | entries);
}

pub(crate) fn write_unsigned(out: &mut Vec<u8>, value: u64) {
    match value {
        0..=0x7f => out.push(value as u8),
        0x80..=0xff => out.extend_from_slice(&[0xcc, value as u8]),
        0x100..=0xffff => {
            out.push(0xcd);
            out.extend_from_slice(&(value as u16).to_be_bytes());
        }
        0x1_0000..=0xffff_ffff => {
            out.push(0xce);
            out.extend_from_slice(&(value as u32).to_be_bytes());
        }
        _ => {
            out.push(0xcf);
            out.extend_from_slice(&value.to_be_bytes());
        }
    }
}

/// Writes the shortest of the heads with one, two and four length bytes that exists and fits.
fn write_length(out: &mut Vec<u8>, len: usize, heads: [Option<u8>; 3]) {
    match (len, heads) {
        (0..=0xff, [Some(head), _, _]) => out.extend_from_slice(&[head, len as u8]),
        (0..=0xffff, [_, Some(head), _]) => {
            out.push(head);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        (_, [_, _, head]) => {
            out.push(head.unwrap_or(0xc6));
            // Values of 4 GiB do not exist here: messages are bounded far below.
            out.extend_from_slice(&(len as u32).to_be_bytes());
        }
    }
}
