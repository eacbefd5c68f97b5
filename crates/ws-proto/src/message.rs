//! What a connection said: the decoder's result, borrowed from the buffers it was found in.

use crate::CloseCode;

/// A complete message or control frame, unmasked, decompressed and checked. Borrows; copy what must outlive the read buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// A text message.
    Text(&'a str),
    /// A binary message.
    Binary(&'a [u8]),
    /// A ping; answer with a pong of the same bytes (RFC 6455 §5.5.2), at most 125.
    Ping(&'a [u8]),
    /// A pong, asked for or not.
    Pong(&'a [u8]),
    /// The peer closes or confirms our close. `None`: no code was given (1005 in other APIs). The reason is at most 123 bytes.
    Close(Option<CloseCode>, &'a str),
}
