//! WebSocket (RFC 6455, RFC 7692) frames to messages and back, without I/O.
//!
//! Owns: the frame layout, masking, fragments, close codes, the accept key and permessage-deflate without context takeover.
//! Does not know: sockets, HTTP requests, time, randomness (masking keys are arguments) or what a message means.
//! Invariant: bytes from the peer never panic; they end in a [`Message`] or a [`Fault`].
//!
//! The smallest correct loop over a read buffer:
//!
//! ```
//! use ws_proto::{Decoder, Message, Role, Rules, Step};
//!
//! let rules = Rules { role: Role::Server, ..Rules::default() };
//! let mut decoder = Decoder::default();
//! // "Hello" masked with 37 fa 21 3d (RFC 6455 §5.7), then the first byte of another frame.
//! let mut read = *b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58\x81";
//! let mut start = 0;
//! let mut heard = Vec::new();
//! let need = loop {
//!     match decoder.decode(&mut read[start..], &rules, None)? {
//!         Step::Frame { used, message } => {
//!             if let Some(Message::Text(text)) = message {
//!                 heard.push(text.to_owned());
//!             }
//!             start += used;
//!         }
//!         Step::Incomplete { need } => break need,
//!     }
//! };
//! assert_eq!((heard, start, need), (vec!["Hello".to_owned()], 11, 2));
//! # Ok::<(), ws_proto::Fault>(())
//! ```

mod close;
mod decoder;
pub mod deflate;
mod encode;
mod fault;
mod handshake;
mod mask;
mod message;
mod opcode;
mod rules;

pub use close::CloseCode;
pub use decoder::{Decoder, Step};
pub use deflate::{Deflater, Inflater};
pub use encode::{
    encode_close, encode_close_masked, encode_frame, encode_frame_masked, encode_header, header_len,
};
pub use fault::Fault;
pub use handshake::{accept_key, client_key};
pub use mask::mask;
pub use message::Message;
pub use opcode::OpCode;
pub use rules::{Role, Rules};
