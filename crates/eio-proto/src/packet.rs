//! One packet and its text and binary forms. Does not know payloads: text is never split here.

use std::{borrow::Cow, fmt};

use crate::base64;

/// An Engine.IO packet (EIO4 "Protocol").
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    /// `0`: the server's handshake, JSON.
    Open(&'a str),
    /// `1`: the session ends. Whatever follows the digit is ignored, here and in the two below without data.
    Close,
    /// `2`: a heartbeat, or `probe` on a transport that is being tried.
    Ping(&'a str),
    /// `3`: the answer to a ping.
    Pong(&'a str),
    /// `4`, `b` or a binary frame: the application's data.
    Message(Data<'a>),
    /// `5`: the client moves to the transport that carries this.
    Upgrade,
    /// `6`: ends a waiting poll.
    Noop,
}

/// What a message packet carries; either may be empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data<'a> {
    /// Text, borrowed from the frame or payload.
    Text(&'a str),
    /// Bytes: borrowed from a binary frame, owned when they came as base64.
    Binary(Cow<'a, [u8]>),
}

/// A packet that cannot be read. The peer's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PacketFault {
    /// No type at all.
    Empty {
        /// Where the packet should have begun, in bytes from the start of the frame or payload.
        offset: usize,
    },
    /// A first byte that names no packet type.
    UnknownType {
        /// The byte.
        found: u8,
        /// Its place, in bytes from the start of the frame or payload.
        offset: usize,
    },
    /// Base64 with a foreign character, or one that ends too early.
    Base64 {
        /// The place of the character, or the end, in bytes from the start of the frame or payload.
        offset: usize,
    },
}

impl PacketFault {
    /// Where it went wrong, in bytes from the start of what was decoded.
    pub const fn offset(self) -> usize {
        match self {
            Self::Empty { offset } | Self::UnknownType { offset, .. } | Self::Base64 { offset } => offset,
        }
    }

    /// The same fault in something that has `bytes` more in front.
    pub(crate) const fn moved_by(self, bytes: usize) -> Self {
        match self {
            Self::Empty { offset } => Self::Empty { offset: offset + bytes },
            Self::UnknownType { found, offset } => Self::UnknownType { found, offset: offset + bytes },
            Self::Base64 { offset } => Self::Base64 { offset: offset + bytes },
        }
    }
}

impl fmt::Display for PacketFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty { offset } => write!(f, "empty packet at byte {offset}"),
            Self::UnknownType { found, offset } => {
                write!(f, "unknown packet type {:?} at byte {offset}", char::from(*found))
            }
            Self::Base64 { offset } => write!(f, "bad base64 at byte {offset}"),
        }
    }
}

impl std::error::Error for PacketFault {}

/// Decodes one packet: a WebSocket text frame or one element of a revision 4 payload. Never splits at U+001E.
///
/// Text is borrowed and nothing is allocated; only `b…` (base64) allocates.
///
/// # Errors
/// [`PacketFault`]; the offset counts from the start of `text`.
///
/// Spec: EIO4 "Packet encoding".
/// Deviation: bad base64 is a fault; the reference server skips the characters that it does not know.
#[inline]
pub fn decode_text(text: &str) -> Result<Packet<'_>, PacketFault> {
    // By bytes, because every type is ASCII, and behind an ASCII byte a text may always be cut.
    match text.as_bytes() {
        [b'4', ..] => Ok(Packet::Message(Data::Text(&text[1..]))),
        [b'b', ..] => decode_base64(text, 1),
        _ => decode_rare(text),
    }
}

/// Decodes one packet of revision 3: a WebSocket text frame or one element of a text payload.
///
/// As [`decode_text`], except that the type digit stands in base64 packets too: `b4…`.
///
/// # Errors
/// As [`decode_text`]; base64 packets other than messages are [`PacketFault::UnknownType`].
pub fn decode_text_v3(text: &str) -> Result<Packet<'_>, PacketFault> {
    match text.as_bytes() {
        [b'4', ..] => Ok(Packet::Message(Data::Text(&text[1..]))),
        [b'b', b'4', ..] => decode_base64(text, 2),
        [b'b', found, ..] => Err(PacketFault::UnknownType { found: *found, offset: 1 }),
        [b'b'] => Err(PacketFault::Empty { offset: 1 }),
        _ => decode_rare(text),
    }
}

/// Decodes one binary packet of revision 3: a WebSocket binary frame or a binary element of a binary payload. Its first byte is
/// the type, and only messages are binary. (In revision 4 a binary frame *is* the message, with nothing to decode.)
///
/// # Errors
/// [`PacketFault::Empty`] or [`PacketFault::UnknownType`].
pub fn decode_binary_v3(bytes: &[u8]) -> Result<Packet<'_>, PacketFault> {
    match bytes {
        [4, data @ ..] => Ok(Packet::Message(Data::Binary(Cow::Borrowed(data)))),
        [found, ..] => Err(PacketFault::UnknownType { found: *found, offset: 0 }),
        [] => Err(PacketFault::Empty { offset: 0 }),
    }
}

fn decode_rare(text: &str) -> Result<Packet<'_>, PacketFault> {
    let Some(&first) = text.as_bytes().first() else { return Err(PacketFault::Empty { offset: 0 }) };
    Ok(match first {
        b'0' => Packet::Open(&text[1..]),
        b'1' => Packet::Close,
        b'2' => Packet::Ping(&text[1..]),
        b'3' => Packet::Pong(&text[1..]),
        b'5' => Packet::Upgrade,
        b'6' => Packet::Noop,
        found => return Err(PacketFault::UnknownType { found, offset: 0 }),
    })
}

fn decode_base64(text: &str, start: usize) -> Result<Packet<'_>, PacketFault> {
    match base64::decode(&text[start..]) {
        Ok(bytes) => Ok(Packet::Message(Data::Binary(Cow::Owned(bytes)))),
        Err(offset) => Err(PacketFault::Base64 { offset: start + offset }),
    }
}

/// Appends the text form of a packet: a WebSocket text frame's payload or one element of a payload. Binary becomes `b…`.
///
/// On a WebSocket without `b64` a binary message is the frame's payload as it is, and needs no encoding.
#[inline]
pub fn encode_text(out: &mut Vec<u8>, packet: &Packet<'_>) {
    match packet {
        Packet::Message(Data::Binary(bytes)) => {
            out.push(b'b');
            base64::encode(out, bytes);
        }
        Packet::Message(Data::Text(text)) => push(out, b'4', text),
        Packet::Open(json) => push(out, b'0', json),
        Packet::Close => out.push(b'1'),
        Packet::Ping(data) => push(out, b'2', data),
        Packet::Pong(data) => push(out, b'3', data),
        Packet::Upgrade => out.push(b'5'),
        Packet::Noop => out.push(b'6'),
    }
}

/// Appends the text form of a packet in revision 3: as [`encode_text`], but binary becomes `b4…`.
pub fn encode_text_v3(out: &mut Vec<u8>, packet: &Packet<'_>) {
    match packet {
        Packet::Message(Data::Binary(bytes)) => {
            out.extend_from_slice(b"b4");
            base64::encode(out, bytes);
        }
        Packet::Message(Data::Text(_))
        | Packet::Open(_)
        | Packet::Close
        | Packet::Ping(_)
        | Packet::Pong(_)
        | Packet::Upgrade
        | Packet::Noop => encode_text(out, packet),
    }
}

/// Appends a binary message as revision 3 puts it into a WebSocket binary frame: the type byte 4, then the bytes.
pub fn encode_binary_v3(out: &mut Vec<u8>, bytes: &[u8]) {
    out.reserve(1 + bytes.len());
    out.push(4);
    out.extend_from_slice(bytes);
}

#[inline]
fn push(out: &mut Vec<u8>, digit: u8, data: &str) {
    out.reserve(1 + data.len());
    out.push(digit);
    out.extend_from_slice(data.as_bytes());
}
