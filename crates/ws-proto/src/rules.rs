//! What one end of a connection expects of its peer: who masks, and how much a message may cost.
//!
//! Does not know where the limits come from.

/// Our own end of the connection. It decides who must mask (RFC 6455 §5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// We accepted the connection: the peer masks, we do not.
    Server,
    /// We opened the connection: we mask, the peer does not.
    Client,
}

/// The limits and the side under which a [`crate::Decoder`] reads. Shared by all connections of one listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Our own end. Default [`Role::Server`].
    pub role: Role,
    /// Payload bytes of one message, all fragments together, after decompression; exactly this many pass.
    /// Default 1 000 000. Lower: big events end connections with 1009. Higher: one peer may hold that much memory.
    pub message_bytes_max: usize,
    /// Frames that one fragmented message may be cut into. Default 4096 (1 MB in pieces of 256 bytes). Lower: peers that
    /// stream in small pieces are cut off. Higher: empty fragments buy more work with a single message.
    pub fragments_max: u32,
}

impl Default for Rules {
    fn default() -> Self {
        Self { role: Role::Server, message_bytes_max: 1_000_000, fragments_max: 4096 }
    }
}

impl Rules {
    /// What a compressed message may take on the wire: text that cannot be compressed grows by the headers of stored blocks.
    pub(crate) fn deflated_bytes_max(&self) -> usize {
        // zlib at its worst settings (little memory, level 1, a window of 9 bits) makes noise 5.7 % longer; an eighth is room enough.
        self.message_bytes_max.saturating_add(self.message_bytes_max / 8).saturating_add(64)
    }
}
