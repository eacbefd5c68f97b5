//! The frame kinds of RFC 6455 §5.2. Does not know which of them may follow which.

/// What a frame carries (RFC 6455 §5.2, §11.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum OpCode {
    /// A further piece of a fragmented message.
    Continuation = 0x0,
    /// UTF-8 text.
    Text = 0x1,
    /// Bytes.
    Binary = 0x2,
    /// The start or the answer of the closing handshake.
    Close = 0x8,
    /// "Are you there?"
    Ping = 0x9,
    /// The answer to a ping, or an unasked sign of life.
    Pong = 0xA,
}

impl OpCode {
    /// The kind for the low four bits of a frame's first byte; `None` for the reserved values and anything above 15.
    #[inline]
    pub const fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xA => Self::Pong,
            _ => return None,
        })
    }

    /// The four bits that stand for this kind.
    #[inline]
    pub const fn bits(self) -> u8 {
        self as u8
    }

    /// Close, ping and pong: never fragmented, at most 125 bytes (RFC 6455 §5.5).
    #[inline]
    pub const fn is_control(self) -> bool {
        self.bits() & 0x8 != 0
    }
}
