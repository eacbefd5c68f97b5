//! Socket.IO revision 5 packets as values: text and msgpack bytes in, packets out, and the reverse.
//!
//! It owns the grammar of a packet, the check that bytes from outside are well formed, the reassembly of binary packets, and the
//! passage between arguments and Rust types. It does not know connections, sessions, namespaces that exist, or who may send what
//! when: a packet out of state is the caller's to notice. It does no I/O, reads no clock and never panics on bytes from outside.
//!
//! A packet here is the *content* of one Engine.IO message: neither function reads or writes the `4` that precedes it on the wire.
//!
//! The way in, for the text parser:
//!
//! ```
//! use sio_proto::{Assembler, Limits, Payload, decode_args, decode_text};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let limits = Limits::default();
//! let packet = decode_text(r#"2["tick",7]"#, &limits)?;
//! assert_eq!((packet.namespace, packet.ack_id, packet.attachments), ("/", None, 0));
//! if let Payload::Event { name, elements, count } = &packet.payload {
//!     assert_eq!(name, "tick");
//!     assert_eq!(decode_args::<u32>(sio_proto::Parser::Json, elements, *count, &[])?, 7);
//! }
//!
//! // A packet with attachments waits in an assembler until they have come.
//! let mut assembler = Assembler::default();
//! let header = decode_text(r#"51-["img",{"_placeholder":true,"num":0}]"#, &limits)?;
//! assembler.begin(&header, &limits)?;
//! let whole = assembler.push(&[1, 2, 3], &limits)?.expect("one attachment was due");
//! assert_eq!(whole.attachments[0].as_ref(), [1, 2, 3]);
//! # Ok(())
//! # }
//! ```
//!
//! The way out: arguments are encoded once into a [`Body`], and a body once per packet header.
//!
//! ```
//! use sio_proto::{Many, Parser, encode_event};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let body = Parser::Json.encode_event_args("tick", &Many((7, "seven")))?;
//! let mut out = Vec::new();
//! encode_event(&mut out, Parser::Json, "/chat", Some(3), &body, None);
//! assert_eq!(out, br#"2/chat,3["tick",7,"seven"]"#);
//! # Ok(())
//! # }
//! ```

mod args;
mod assembler;
mod binary;
mod body;
mod encode;
mod fault;
mod incoming;
mod json;
mod limits;
mod msgpack;
mod parser;
mod placeholder;
pub mod revision4;
mod sequence;
mod text;

pub use args::{ArgsFault, decode_all, decode_args, decode_borrowed, last_text, to_value};
pub use assembler::{Assembler, OwnedIncoming, OwnedPayload};
pub use binary::Binary;
pub use body::{Args, ArgsWriter, Body, EncodeFault, Many, NoArgs, One, RawArgs};
pub use encode::{
    encode_ack, encode_connect, encode_connect_error, encode_connect_request, encode_disconnect, encode_event,
};
pub use fault::Fault;
pub use incoming::{Incoming, Kind, Payload, is_reserved_event, is_valid_namespace};
pub use limits::{ATTACHMENTS_MAX, DEPTH_CEILING, Limits};
pub use msgpack::decode_msgpack;
pub use parser::Parser;
pub use text::decode_text;
