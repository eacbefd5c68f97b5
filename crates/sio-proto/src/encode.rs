//! Whole packets, appended to a buffer: header, then what the body brought. Attachments are the caller's to send after the header.
//!
//! Namespaces are the caller's own, known to be valid ([`is_valid_namespace`](crate::is_valid_namespace)), or, in a refusal, the one
//! that the refused packet named. The comma after a namespace is always written, since some peers cannot parse the name without it.

use crate::body::{write_json, write_msgpack};
use crate::msgpack::{write_array_head, write_small_map_head, write_string, write_unsigned};
use crate::{Body, Kind, Parser};
use serde_json::{Map, Value};

/// An event. With `ack_id` it asks for an answer.
///
/// `offset` is the event's place in the history, for connection state recovery; peers get it as one more argument at the end.
///
/// Spec: SIO5 "Packet types / EVENT".
#[inline]
pub fn encode_event(
    out: &mut Vec<u8>,
    parser: Parser,
    namespace: &str,
    ack_id: Option<u64>,
    body: &Body,
    offset: Option<&str>,
) {
    let kind = if body.attachments.is_empty() { Kind::Event } else { Kind::BinaryEvent };
    encode_body(out, parser, kind, namespace, ack_id, body, offset);
}

/// The answer to the event that came with `ack_id`.
///
/// Spec: SIO5 "Packet types / ACK".
#[inline]
pub fn encode_ack(out: &mut Vec<u8>, parser: Parser, namespace: &str, ack_id: u64, body: &Body) {
    let kind = if body.attachments.is_empty() { Kind::Ack } else { Kind::BinaryAck };
    encode_body(out, parser, kind, namespace, Some(ack_id), body, None);
}

fn encode_body(
    out: &mut Vec<u8>,
    parser: Parser,
    kind: Kind,
    namespace: &str,
    ack_id: Option<u64>,
    body: &Body,
    offset: Option<&str>,
) {
    match parser {
        Parser::Json => {
            out.reserve(body.elements.len() + namespace.len() + 32 + offset.map_or(0, str::len));
            text_header(out, kind, body.attachments.len(), namespace);
            if let Some(id) = ack_id {
                write_decimal(out, id);
            }
            out.push(b'[');
            out.extend_from_slice(&body.elements);
            if let Some(offset) = offset {
                if body.count > 0 {
                    out.push(b',');
                }
                write_text(out, offset);
            }
            out.push(b']');
        }
        Parser::Msgpack => {
            msgpack_header(out, kind, namespace, 1 + u8::from(ack_id.is_some()));
            if let Some(id) = ack_id {
                write_string(out, "id");
                write_unsigned(out, id);
            }
            write_string(out, "data");
            write_array_head(out, body.count + u32::from(offset.is_some()));
            out.extend_from_slice(&body.elements);
            if let Some(offset) = offset {
                write_string(out, offset);
            }
        }
    }
}

/// The server's confirmation that a socket has joined. `pid` only when connection state recovery is on.
///
/// Spec: SIO5 "Connection to a namespace".
pub fn encode_connect(out: &mut Vec<u8>, parser: Parser, namespace: &str, sid: &str, pid: Option<&str>) {
    match parser {
        Parser::Json => {
            text_header(out, Kind::Connect, 0, namespace);
            out.extend_from_slice(b"{\"sid\":");
            write_text(out, sid);
            if let Some(pid) = pid {
                out.extend_from_slice(b",\"pid\":");
                write_text(out, pid);
            }
            out.push(b'}');
        }
        Parser::Msgpack => {
            msgpack_header(out, Kind::Connect, namespace, 1);
            write_string(out, "data");
            write_small_map_head(out, 1 + u8::from(pid.is_some()));
            write_string(out, "sid");
            write_string(out, sid);
            if let Some(pid) = pid {
                write_string(out, "pid");
                write_string(out, pid);
            }
        }
    }
}

/// The client's request to join. The object is what the server's application sees as `auth`.
///
/// Spec: SIO5 "Connection to a namespace".
pub fn encode_connect_request(
    out: &mut Vec<u8>,
    parser: Parser,
    namespace: &str,
    auth: Option<&Map<String, Value>>,
) {
    match parser {
        Parser::Json => {
            text_header(out, Kind::Connect, 0, namespace);
            if let Some(auth) = auth {
                write_json(out, auth).expect("invariant: a JSON object can be written to a Vec");
            }
        }
        Parser::Msgpack => {
            msgpack_header(out, Kind::Connect, namespace, u8::from(auth.is_some()));
            if let Some(auth) = auth {
                write_string(out, "data");
                write_msgpack(out, auth).expect("invariant: a JSON object can be written to a Vec");
            }
        }
    }
}

/// The server's refusal of a CONNECT; the connection stays open. `data` is what the application adds to its message.
///
/// Spec: SIO5 "Packet types / CONNECT_ERROR".
pub fn encode_connect_error(
    out: &mut Vec<u8>,
    parser: Parser,
    namespace: &str,
    message: &str,
    data: Option<&Value>,
) {
    match parser {
        Parser::Json => {
            text_header(out, Kind::ConnectError, 0, namespace);
            out.extend_from_slice(b"{\"message\":");
            write_text(out, message);
            if let Some(data) = data {
                out.extend_from_slice(b",\"data\":");
                write_json(out, data).expect("invariant: a JSON value can be written to a Vec");
            }
            out.push(b'}');
        }
        Parser::Msgpack => {
            msgpack_header(out, Kind::ConnectError, namespace, 1);
            write_string(out, "data");
            write_small_map_head(out, 1 + u8::from(data.is_some()));
            write_string(out, "message");
            write_string(out, message);
            if let Some(data) = data {
                write_string(out, "data");
                write_msgpack(out, data).expect("invariant: a JSON value can be written to a Vec");
            }
        }
    }
}

/// Leaves the namespace; either side may.
///
/// Spec: SIO5 "Disconnection from a namespace".
pub fn encode_disconnect(out: &mut Vec<u8>, parser: Parser, namespace: &str) {
    match parser {
        Parser::Json => text_header(out, Kind::Disconnect, 0, namespace),
        Parser::Msgpack => msgpack_header(out, Kind::Disconnect, namespace, 0),
    }
}

/// Type, attachment count and namespace.
#[inline]
pub(crate) fn text_header(out: &mut Vec<u8>, kind: Kind, attachments: usize, namespace: &str) {
    debug_assert!(
        !namespace.bytes().any(|b| b == b',' || b.is_ascii_control()),
        "neither served nor decoded"
    );
    out.push(b'0' + kind as u8);
    if attachments > 0 {
        write_decimal(out, attachments as u64);
        out.push(b'-');
    }
    if namespace != "/" {
        out.extend_from_slice(namespace.as_bytes());
        out.push(b',');
    }
}

/// The map's head with `more` entries to come, the type and the namespace. Attachments being inline, binary kinds are plain ones.
pub(crate) fn msgpack_header(out: &mut Vec<u8>, kind: Kind, namespace: &str, more: u8) {
    let kind = match kind {
        Kind::BinaryEvent => Kind::Event,
        Kind::BinaryAck => Kind::Ack,
        Kind::Connect | Kind::Disconnect | Kind::Event | Kind::Ack | Kind::ConnectError => kind,
    };
    write_small_map_head(out, 2 + more);
    write_string(out, "type");
    write_unsigned(out, kind as u64);
    write_string(out, "nsp");
    write_string(out, namespace);
}

/// A JSON string.
pub(crate) fn write_text(out: &mut Vec<u8>, text: &str) {
    write_json(out, text).expect("invariant: a string can be written to a Vec");
}

#[inline]
fn write_decimal(out: &mut Vec<u8>, mut value: u64) {
    // 20 digits hold the largest u64.
    let mut digits = [0; 20];
    let mut i = digits.len();
    loop {
        i -= 1;
        digits[i] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[i..]);
}
