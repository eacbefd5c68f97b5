//! What a peer can get wrong in a packet. Every variant is a protocol violation: the caller closes the whole connection.

use crate::Kind;
use std::fmt;

/// Why bytes are not an acceptable packet. Always the peer's fault.
///
/// Offsets are in bytes from the start of the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No byte at all.
    Empty,
    /// The first byte names no packet type, or the msgpack `type` none that this parser has.
    UnknownType,
    /// A binary packet without a count of at least 1 and a `-` after it.
    AttachmentCount,
    /// More attachments announced than `attachments_max`.
    TooManyAttachments {
        /// The bound.
        max: u32,
    },
    /// A namespace longer than `namespace_bytes_max`.
    NamespaceTooLong {
        /// The bound.
        max: usize,
    },
    /// A namespace with a control character in it.
    NamespaceControl,
    /// A msgpack packet whose `nsp` is missing or not a string.
    NamespaceMissing,
    /// An ack id with more digits than `ack_id_digits_max`, or, in msgpack, not a non-negative integer.
    AckId,
    /// Not JSON.
    Json {
        /// Where it stopped being JSON.
        offset: usize,
    },
    /// Not msgpack, or not one map and nothing after it.
    Msgpack {
        /// Where it stopped being acceptable.
        offset: usize,
    },
    /// Nested deeper than `json_depth_max`.
    TooDeep {
        /// The bound.
        max: u32,
    },
    /// Well-formed data of a shape that this kind of packet cannot have.
    Shape(Kind),
    /// An event whose first item is neither a string nor a number.
    EventName,
    /// An event name longer than `event_name_bytes_max`.
    EventNameTooLong {
        /// Its length.
        bytes: usize,
        /// The bound.
        max: usize,
    },
    /// An event with a name that the protocol keeps for itself.
    ReservedEvent,
    /// A text message while attachments are due, or under a parser that has none.
    UnexpectedText,
    /// A binary message when no attachment is due.
    UnexpectedBinary,
    /// A placeholder without a number, or with one that no attachment has.
    Placeholder,
    /// A binary packet larger than `assembled_bytes_max`.
    AssembledTooLarge {
        /// The bound.
        max: usize,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Fault::Empty => f.write_str("empty packet"),
            Fault::UnknownType => f.write_str("unknown packet type"),
            Fault::AttachmentCount => f.write_str("binary packet without a valid attachment count"),
            Fault::TooManyAttachments { max } => write!(f, "more attachments than attachments_max of {max}"),
            Fault::NamespaceTooLong { max } => write!(f, "namespace exceeds namespace_bytes_max of {max}"),
            Fault::NamespaceControl => f.write_str("control character in a namespace"),
            Fault::NamespaceMissing => f.write_str("packet without a namespace"),
            Fault::AckId => f.write_str("ack id is not a number in range"),
            Fault::Json { offset } => write!(f, "invalid json at byte {offset}"),
            Fault::Msgpack { offset } => write!(f, "invalid msgpack at byte {offset}"),
            Fault::TooDeep { max } => write!(f, "nested deeper than json_depth_max of {max}"),
            Fault::Shape(kind) => write!(f, "data does not fit a packet of kind {kind:?}"),
            Fault::EventName => f.write_str("event name is neither a string nor a number"),
            Fault::EventNameTooLong { bytes, max } => {
                write!(f, "event name of {bytes} bytes exceeds event_name_bytes_max of {max}")
            }
            Fault::ReservedEvent => f.write_str("reserved event name"),
            Fault::UnexpectedText => f.write_str("text message where none may come"),
            Fault::UnexpectedBinary => f.write_str("binary message where none is due"),
            Fault::Placeholder => f.write_str("placeholder names no attachment"),
            Fault::AssembledTooLarge { max } => {
                write!(f, "binary packet exceeds assembled_bytes_max of {max}")
            }
        }
    }
}

impl std::error::Error for Fault {}
