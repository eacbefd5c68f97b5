//! What is different for peers of the protocol's revision 4, the JavaScript clients of version 1 and 2 (Engine.IO revision 3).
//!
//! Their packets have the same grammar, so [`decode_text`](crate::decode_text) and the [`Assembler`](crate::Assembler) serve them
//! too, and so do events, acks and DISCONNECT. Three things differ: the server joins a client to `/` unasked and confirms without data,
//! a CONNECT carries a query in the namespace's name where later ones carry an object, and a refusal is bare data.
//!
//! Sessions of these clients are the only place for this module; whether a session is one is not known here.

use crate::body::{write_json, write_msgpack};
use crate::encode::{msgpack_header, text_header};
use crate::msgpack::write_string;
use crate::{Kind, Parser};
use serde_json::{Map, Value};

/// Parts the namespace of a CONNECT from its query, which has no `?` any more.
#[must_use]
pub fn split_query(namespace: &str) -> (&str, Option<&str>) {
    match namespace.split_once('?') {
        Some((name, query)) => (name, Some(query)),
        None => (namespace, None),
    }
}

/// The query as the object that later clients send: each key with its text, or with a list of texts when it comes more than once.
///
/// At most 1000 pairs are read, Node's bound too.
#[must_use]
pub fn query_to_auth(query: &str) -> Map<String, Value> {
    let mut auth = Map::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()).take(1000) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = Value::String(percent_decode(value));
        match auth.entry(percent_decode(key)) {
            serde_json::map::Entry::Vacant(entry) => {
                entry.insert(value);
            }
            serde_json::map::Entry::Occupied(mut entry) => match entry.get_mut() {
                Value::Array(values) => values.push(value),
                single => *single = Value::Array(vec![single.take(), value]),
            },
        }
    }
    auth
}

/// The server's confirmation: a CONNECT without data. A client takes its id from the Engine.IO session.
pub fn encode_connect(out: &mut Vec<u8>, parser: Parser, namespace: &str) {
    match parser {
        Parser::Json => text_header(out, Kind::Connect, 0, namespace),
        Parser::Msgpack => msgpack_header(out, Kind::Connect, namespace, 0),
    }
}

/// The server's refusal: the data alone, which by custom is the application's data or, failing that, its message as a string.
pub fn encode_connect_error(out: &mut Vec<u8>, parser: Parser, namespace: &str, data: &Value) {
    match parser {
        Parser::Json => {
            text_header(out, Kind::ConnectError, 0, namespace);
            write_json(out, data).expect("invariant: a JSON value can be written to a Vec");
        }
        Parser::Msgpack => {
            msgpack_header(out, Kind::ConnectError, namespace, 1);
            write_string(out, "data");
            write_msgpack(out, data).expect("invariant: a JSON value can be written to a Vec");
        }
    }
}

/// `%41` and `+` undone; what is no escape stays as it is, and bytes that are no UTF-8 become U+FFFD.
fn percent_decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        match (first, after) {
            (b'+', _) => out.push(b' '),
            (b'%', [high, low, tail @ ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                let nibble = |digit: &u8| char::from(*digit).to_digit(16).unwrap_or(0) as u8;
                out.push(nibble(high) << 4 | nibble(low));
                rest = tail;
            }
            _ => out.push(*first),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}
