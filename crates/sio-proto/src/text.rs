//! The text parser's way in: one message of text to one packet, checked in a single pass and borrowed throughout.
//!
//! `type [count "-"] ["/" namespace ","] [ack id] [json]`. What Node's parser accepts is accepted, with these bounds added: see
//! [`Limits`].

use crate::json::{self, Stop};
use crate::{Fault, Incoming, Kind, Limits, Payload, is_reserved_event};
use std::borrow::Cow;
use std::ops::Range;

/// Decodes one text message.
///
/// The hot path of a server: one walk over the text, no allocation unless the event's name has escapes in it.
///
/// Missing data is accepted for every kind, as Node does: see [`Payload`] for what it becomes.
///
/// # Errors
/// A [`Fault`]; the peer's fault, and the end of its connection.
///
/// Spec: SIO5 "Packet encoding".
#[inline]
pub fn decode_text<'a>(text: &'a str, limits: &Limits) -> Result<Incoming<'a>, Fault> {
    let b = text.as_bytes();
    let &first = b.first().ok_or(Fault::Empty)?;
    let kind = Kind::from_number(first.wrapping_sub(b'0')).ok_or(Fault::UnknownType)?;
    let mut i = 1;

    let mut attachments = 0;
    if matches!(kind, Kind::BinaryEvent | Kind::BinaryAck) {
        (attachments, i) = attachment_count(b, i, limits)?;
    }

    let mut namespace = "/";
    if b.get(i) == Some(&b'/') {
        (namespace, i) = namespace_at(text, i, limits)?;
    }

    let mut ack_id = None;
    if let Some(b'0'..=b'9') = b.get(i) {
        let (id, after) = ack_id_at(b, i, limits)?;
        ack_id = Some(id);
        i = after;
    }

    let payload = match kind {
        Kind::Event | Kind::BinaryEvent => event(text, i, kind, limits)?,
        Kind::Ack | Kind::BinaryAck => ack(b, i, kind, limits)?,
        Kind::Connect => connect(b, i, limits)?,
        Kind::Disconnect if i == b.len() => Payload::Disconnect,
        Kind::Disconnect => return Err(Fault::Shape(kind)),
        Kind::ConnectError => connect_error(b, i, limits)?,
    };
    Ok(Incoming { namespace, ack_id, attachments, payload })
}

/// The count before the `-`, and the offset after it.
fn attachment_count(b: &[u8], start: usize, limits: &Limits) -> Result<(u32, usize), Fault> {
    let mut count: u32 = 0;
    let mut i = start;
    while let Some(&digit @ b'0'..=b'9') = b.get(i) {
        count = count.saturating_mul(10).saturating_add(u32::from(digit - b'0'));
        i += 1;
    }
    if b.get(i) != Some(&b'-') || count == 0 {
        return Err(Fault::AttachmentCount);
    }
    if count > limits.attachments_max {
        return Err(Fault::TooManyAttachments { max: limits.attachments_max });
    }
    Ok((count, i + 1))
}

/// The namespace that starts at `start`, and the offset after the comma that ends it. It runs to the first comma wherever that is,
/// or to the end; nothing beyond the bound is looked at.
fn namespace_at<'a>(text: &'a str, start: usize, limits: &Limits) -> Result<(&'a str, usize), Fault> {
    let b = text.as_bytes();
    let mut end = start;
    while let Some(&byte) = b.get(end)
        && byte != b','
    {
        if byte.is_ascii_control() {
            return Err(Fault::NamespaceControl);
        }
        end += 1;
        if end - start > limits.namespace_bytes_max {
            return Err(Fault::NamespaceTooLong { max: limits.namespace_bytes_max });
        }
    }
    Ok((&text[start..end], (end + 1).min(b.len())))
}

fn ack_id_at(b: &[u8], start: usize, limits: &Limits) -> Result<(u64, usize), Fault> {
    // 19 digits are below 10^19 and so always fit.
    let digits_max = limits.ack_id_digits_max.min(19) as usize;
    let mut id: u64 = 0;
    let mut i = start;
    while let Some(&digit @ b'0'..=b'9') = b.get(i) {
        if i - start == digits_max {
            return Err(Fault::AckId);
        }
        id = id * 10 + u64::from(digit - b'0');
        i += 1;
    }
    Ok((id, i))
}

#[inline]
fn event<'a>(text: &'a str, start: usize, kind: Kind, limits: &Limits) -> Result<Payload<'a>, Fault> {
    let b = text.as_bytes();
    if start == b.len() {
        return Ok(Payload::Event { name: Cow::Borrowed(""), elements: &[], count: 0 });
    }
    let i = open_array(b, start, kind, limits)?;
    let (name, end) = match b.get(i) {
        Some(b'"') => {
            let (end, has_escapes) = json::skip_name(b, i + 1).map_err(|stop| fault(stop, limits))?;
            let raw = &text[i + 1..end - 1];
            let name = if has_escapes { Cow::Owned(json::unescape(raw)) } else { Cow::Borrowed(raw) };
            (name, end)
        }
        Some(b'-' | b'0'..=b'9') => {
            let end = json::skip_number(b, i).map_err(|stop| fault(stop, limits))?;
            (Cow::Borrowed(&text[i..end]), end)
        }
        _ => {
            // Tell text that is no JSON from JSON that is no event.
            let end = json::skip_space(b, json_value(b, start, limits)?);
            return Err(if end == b.len() { Fault::EventName } else { Fault::Json { offset: end } });
        }
    };
    if end - i > limits.event_name_bytes_max {
        return Err(Fault::EventNameTooLong { bytes: end - i, max: limits.event_name_bytes_max });
    }
    if is_reserved_event(&name) {
        return Err(Fault::ReservedEvent);
    }
    let i = json::skip_space(b, end);
    let (elements, count) = match b.get(i) {
        Some(b',') => items(b, i + 1, limits)?,
        Some(b']') => {
            close_array(b, i)?;
            (&b[i..i], 0)
        }
        _ => return Err(Fault::Json { offset: i }),
    };
    Ok(Payload::Event { name, elements, count })
}

fn ack<'a>(b: &'a [u8], start: usize, kind: Kind, limits: &Limits) -> Result<Payload<'a>, Fault> {
    if start == b.len() {
        return Ok(Payload::Ack { elements: &[], count: 0 });
    }
    let i = open_array(b, start, kind, limits)?;
    let (elements, count) = if b.get(i) == Some(&b']') {
        close_array(b, i)?;
        (&b[i..i], 0)
    } else {
        items(b, i, limits)?
    };
    Ok(Payload::Ack { elements, count })
}

fn connect<'a>(b: &'a [u8], start: usize, limits: &Limits) -> Result<Payload<'a>, Fault> {
    if start == b.len() {
        return Ok(Payload::Connect { auth: None });
    }
    let object = whole_value(b, start, limits)?;
    match object.first() {
        Some(b'{') => Ok(Payload::Connect { auth: Some(object) }),
        _ => Err(Fault::Shape(Kind::Connect)),
    }
}

fn connect_error<'a>(b: &'a [u8], start: usize, limits: &Limits) -> Result<Payload<'a>, Fault> {
    if start == b.len() {
        return Ok(Payload::ConnectError { data: &[] });
    }
    let data = whole_value(b, start, limits)?;
    match data.first() {
        Some(b'{' | b'"') => Ok(Payload::ConnectError { data }),
        _ => Err(Fault::Shape(Kind::ConnectError)),
    }
}

/// Checks the text of an array; answers where its items are and how many.
pub(crate) fn checked_elements(array: &str, limits: &Limits) -> Result<(Range<usize>, u32), Fault> {
    let b = array.as_bytes();
    let start = open_array(b, 0, Kind::Event, limits)?;
    if b.get(start) == Some(&b']') {
        close_array(b, start)?;
        return Ok((start..start, 0));
    }
    let (elements, count) = items(b, start, limits)?;
    Ok((start..start + elements.len(), count))
}

/// Steps into the array that should start at `start`; answers the offset of its first item or of its end.
#[inline(always)]
fn open_array(b: &[u8], start: usize, kind: Kind, limits: &Limits) -> Result<usize, Fault> {
    let i = json::skip_space(b, start);
    if b.get(i) == Some(&b'[') {
        if limits.json_depth_max == 0 {
            return Err(Fault::TooDeep { max: 0 });
        }
        return Ok(json::skip_space(b, i + 1));
    }
    whole_value(b, i, limits)?;
    Err(Fault::Shape(kind))
}

/// Walks over the items of an array from the first of them to the end of the message.
#[inline(always)]
fn items<'a>(b: &'a [u8], start: usize, limits: &Limits) -> Result<(&'a [u8], u32), Fault> {
    let start = json::skip_space(b, start);
    let depth_left = limits.depth_max().saturating_sub(1);
    let mut count = 0;
    let mut i = start;
    loop {
        let end = json::skip_value(b, i, depth_left).map_err(|stop| fault(stop, limits))?;
        count += 1;
        i = json::skip_space(b, end);
        match b.get(i) {
            Some(b',') => i += 1,
            Some(b']') => {
                close_array(b, i)?;
                return Ok((&b[start..end], count));
            }
            _ => return Err(Fault::Json { offset: i }),
        }
    }
}

/// Nothing but white space may follow the `]` at `i`.
#[inline(always)]
fn close_array(b: &[u8], i: usize) -> Result<(), Fault> {
    let end = json::skip_space(b, i + 1);
    if end == b.len() { Ok(()) } else { Err(Fault::Json { offset: end }) }
}

/// The one value that fills the message from `start` on, without the white space around it.
fn whole_value<'a>(b: &'a [u8], start: usize, limits: &Limits) -> Result<&'a [u8], Fault> {
    let start = json::skip_space(b, start);
    let end = json_value(b, start, limits)?;
    let after = json::skip_space(b, end);
    if after == b.len() { Ok(&b[start..end]) } else { Err(Fault::Json { offset: after }) }
}

fn json_value(b: &[u8], start: usize, limits: &Limits) -> Result<usize, Fault> {
    json::skip_value(b, start, limits.depth_max()).map_err(|stop| fault(stop, limits))
}

#[cold]
fn fault(stop: Stop, limits: &Limits) -> Fault {
    match stop {
        Stop::TOO_DEEP => Fault::TooDeep { max: limits.depth_max() },
        Stop(offset) => Fault::Json { offset },
    }
}
