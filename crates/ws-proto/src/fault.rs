//! The ways in which a peer breaks RFC 6455 or RFC 7692, or our limits. Does not know what is done about it.

use std::fmt;

use crate::CloseCode;

/// What the peer did wrong. Always the peer's fault; the connection cannot be read on after any of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A reserved bit without an extension that gives it a meaning (RFC 6455 §5.2). Holds the three bits, RSV1 highest.
    ReservedBits(u8),
    /// An opcode that RFC 6455 §5.2 reserves.
    BadOpCode(u8),
    /// We are the server, and the frame is not masked (RFC 6455 §5.1).
    Unmasked,
    /// We are the client, and the frame is masked (RFC 6455 §5.1).
    Masked,
    /// A control frame without FIN (RFC 6455 §5.5).
    FragmentedControl,
    /// A control frame with more than 125 bytes (RFC 6455 §5.5).
    LongControl,
    /// A continuation although no message was begun (RFC 6455 §5.4).
    ContinuationWithoutStart,
    /// A new text or binary frame before the fragmented message ended (RFC 6455 §5.4).
    StartInsideMessage,
    /// More frames in one message than [`crate::Rules::fragments_max`].
    TooManyFragments {
        /// The limit.
        max: u32,
    },
    /// More bytes in one message than [`crate::Rules::message_bytes_max`]. Found from the header where it announces the size.
    MessageTooBig {
        /// Bytes announced, gathered or inflated when the limit was passed; the message may be longer still.
        bytes: u64,
        /// The limit that was passed.
        max: usize,
    },
    /// Text, or the reason of a close, that is not UTF-8 (RFC 6455 §8.1).
    BadUtf8,
    /// A close frame with half a code (RFC 6455 §5.5.1).
    ShortClose,
    /// A close code that must not travel (RFC 6455 §7.4).
    BadCloseCode(u16),
    /// A compressed message that is not a deflate stream (RFC 7692 §7.2.2).
    BadDeflate,
}

impl Fault {
    /// The code for our close frame (RFC 6455 §7.4.1): 1009 for size, 1007 for content, else 1002.
    pub const fn close_code(self) -> CloseCode {
        match self {
            Self::ReservedBits(_)
            | Self::BadOpCode(_)
            | Self::Unmasked
            | Self::Masked
            | Self::FragmentedControl
            | Self::LongControl
            | Self::ContinuationWithoutStart
            | Self::StartInsideMessage
            | Self::ShortClose
            | Self::BadCloseCode(_) => CloseCode::PROTOCOL,
            Self::BadUtf8 | Self::BadDeflate => CloseCode::INVALID_PAYLOAD,
            Self::TooManyFragments { .. } | Self::MessageTooBig { .. } => CloseCode::TOO_BIG,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::ReservedBits(bits) => write!(f, "reserved bits {bits:03b} without an extension for them"),
            Self::BadOpCode(bits) => write!(f, "opcode {bits:#x} is reserved"),
            Self::Unmasked => f.write_str("frame from a client is not masked"),
            Self::Masked => f.write_str("frame from a server is masked"),
            Self::FragmentedControl => f.write_str("control frame without fin"),
            Self::LongControl => f.write_str("control frame exceeds 125 bytes"),
            Self::ContinuationWithoutStart => f.write_str("continuation without a message to continue"),
            Self::StartInsideMessage => f.write_str("new message inside a fragmented one"),
            Self::TooManyFragments { max } => write!(f, "message in more frames than fragments_max of {max}"),
            Self::MessageTooBig { bytes, max } => {
                write!(f, "message of {bytes} bytes exceeds the limit of {max}")
            }
            Self::BadUtf8 => f.write_str("text is not utf-8"),
            Self::ShortClose => f.write_str("close frame with 1 byte, a code takes 2"),
            Self::BadCloseCode(code) => write!(f, "close code {code} must not be sent"),
            Self::BadDeflate => f.write_str("compressed message is not a deflate stream"),
        }
    }
}

impl std::error::Error for Fault {}
