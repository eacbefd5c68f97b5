//! Which of the two encodings a server speaks. The choice is the server's and the client's alike; nothing on the wire negotiates it.

use crate::{Fault, Incoming, Limits, decode_msgpack, decode_text};

/// The encoding of every packet of a server.
///
/// `Json` is what stock clients speak unless told otherwise: a text message, and one binary message per attachment. `Msgpack` puts
/// a whole packet, binary values included, in one binary message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Parser {
    /// Text packets with attachments beside them.
    #[default]
    Json,
    /// One msgpack map per packet.
    Msgpack,
}

impl Parser {
    /// Decodes a text message.
    ///
    /// # Errors
    /// As [`decode_text`]; always [`Fault::UnexpectedText`] under msgpack. The peer's fault.
    #[inline]
    pub fn decode_text<'a>(self, text: &'a str, limits: &Limits) -> Result<Incoming<'a>, Fault> {
        match self {
            Parser::Json => decode_text(text, limits),
            Parser::Msgpack => Err(Fault::UnexpectedText),
        }
    }

    /// Decodes a binary message that is a packet of its own. Under `Json` a binary message is an attachment and belongs in an
    /// [`Assembler`](crate::Assembler).
    ///
    /// # Errors
    /// As [`decode_msgpack`]; always [`Fault::UnexpectedBinary`] under JSON. The peer's fault.
    #[inline]
    pub fn decode_binary<'a>(self, bytes: &'a [u8], limits: &Limits) -> Result<Incoming<'a>, Fault> {
        match self {
            Parser::Json => Err(Fault::UnexpectedBinary),
            Parser::Msgpack => decode_msgpack(bytes, limits),
        }
    }

    /// Whether encoded packets travel as binary messages.
    #[must_use]
    pub fn is_binary(self) -> bool {
        match self {
            Parser::Json => false,
            Parser::Msgpack => true,
        }
    }
}
