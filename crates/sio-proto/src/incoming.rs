//! A decoded packet that borrows from the message it came in.

use std::borrow::Cow;

/// The seven types of packet, by their number on the wire.
///
/// Spec: SIO5 "Packet types".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Joins a namespace, or confirms it.
    Connect = 0,
    /// Leaves a namespace.
    Disconnect = 1,
    /// An event with its arguments.
    Event = 2,
    /// The answer to an event that asked for one.
    Ack = 3,
    /// The refusal of a CONNECT.
    ConnectError = 4,
    /// An event with attachments (text parser only).
    BinaryEvent = 5,
    /// An answer with attachments (text parser only).
    BinaryAck = 6,
}

impl Kind {
    pub(crate) fn from_number(number: u8) -> Option<Kind> {
        Some(match number {
            0 => Kind::Connect,
            1 => Kind::Disconnect,
            2 => Kind::Event,
            3 => Kind::Ack,
            4 => Kind::ConnectError,
            5 => Kind::BinaryEvent,
            6 => Kind::BinaryAck,
            _ => return None,
        })
    }
}

/// One packet, or the header of one whose attachments are still due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incoming<'a> {
    /// With its leading slash; `/` when the packet named none. Free of control characters, and otherwise whatever the peer wrote.
    pub namespace: &'a str,
    /// The id that came with the packet, whatever its kind. On an event it asks for an answer; an answer without one is to be
    /// ignored.
    pub ack_id: Option<u64>,
    /// How many binary messages follow before the packet is whole. Above 0 only for events and acks of the text parser: hand the
    /// packet to an [`Assembler`](crate::Assembler).
    pub attachments: u32,
    /// What the packet says.
    pub payload: Payload<'a>,
}

impl Incoming<'_> {
    /// The packet's type on the wire.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match (&self.payload, self.attachments) {
            (Payload::Connect { .. }, _) => Kind::Connect,
            (Payload::Disconnect, _) => Kind::Disconnect,
            (Payload::Event { .. }, 0) => Kind::Event,
            (Payload::Event { .. }, _) => Kind::BinaryEvent,
            (Payload::Ack { .. }, 0) => Kind::Ack,
            (Payload::Ack { .. }, _) => Kind::BinaryAck,
            (Payload::ConnectError { .. }, _) => Kind::ConnectError,
        }
    }
}

/// What a packet says.
///
/// `elements` are arguments in the parser's own encoding, checked to be well formed and not deeper than the limit: for the text
/// parser JSON texts with commas between them and no brackets around them, for msgpack values one after the other. `count` says
/// how many there are. Bodies can be built from them unparsed, see [`Body::relay_event`](crate::Body::relay_event).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload<'a> {
    /// The peer joins (at the server) or the namespace is joined (at the client).
    Connect {
        /// The object that came along: its JSON text or its msgpack map.
        auth: Option<&'a [u8]>,
    },
    /// The peer leaves the namespace.
    Disconnect,
    /// An event.
    Event {
        /// Its name; a number's text when the name was a number. Empty, with no arguments, for an event without any name, which
        /// Node accepts and delivers to nobody.
        name: Cow<'a, str>,
        /// The arguments, without the name.
        elements: &'a [u8],
        /// How many arguments.
        count: u32,
    },
    /// The answer to an event.
    Ack {
        /// The arguments.
        elements: &'a [u8],
        /// How many arguments.
        count: u32,
    },
    /// The server refused a CONNECT. A violation when it comes from a client.
    ConnectError {
        /// An object or a string, as JSON text or msgpack; empty when there was nothing.
        data: &'a [u8],
    },
}

/// Whether the protocol keeps this event name for itself. Neither side may send it.
///
/// Spec: SIO5 "Packet types / EVENT". `connection`, `error` and `message` are free.
#[inline]
#[must_use]
pub fn is_reserved_event(name: &str) -> bool {
    match name.len() {
        7 => name == "connect",
        10 => name == "disconnect",
        11 => name == "newListener",
        13 => name == "connect_error" || name == "disconnecting",
        14 => name == "removeListener",
        _ => false,
    }
}

/// Whether this can be a namespace that we serve: a leading slash, no comma (it ends the name on the wire), no `?` (older clients
/// put a query after it) and no control character (U+001E parts packets in polling payloads).
#[must_use]
pub fn is_valid_namespace(name: &str) -> bool {
    name.starts_with('/') && !name.bytes().any(|b| b == b',' || b == b'?' || b.is_ascii_control())
}
