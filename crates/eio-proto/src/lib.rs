//! Engine.IO packets, payloads and request queries, revisions 3 and 4, without I/O.
//!
//! Owns: packets and their text and binary forms, long-polling payloads, session ids, the handshake's query, its verification
//! and its error table. Does not know: HTTP types, WebSocket frames, sessions, time, or what a message says.
//! Invariant: bytes from the peer never panic; they end in a [`Packet`] or in a fault that is the peer's.

mod base64;
mod fingerprint;
mod handshake;
mod open;
mod packet;
mod payload;
mod payload_v3;
mod query;
mod revision;
mod sid;
mod transport;

pub use fingerprint::{HandshakeTraits, looks_like_javascript};
pub use handshake::{
    Admission, HandshakeFault, HandshakeRequest, Method, Policy, SessionState, forbidden_body,
    is_legal_origin, verify,
};
pub use open::{Open, encode_open};
pub use packet::{
    Data, Packet, PacketFault, decode_binary_v3, decode_text, decode_text_v3, encode_binary_v3, encode_text,
    encode_text_v3,
};
pub use payload::{Payload, PayloadEncoder, PayloadFault, SEPARATOR, decode_payload};
pub use payload_v3::{
    BinaryPayloadV3, PayloadEncoderV3, TextPayloadV3, decode_payload_v3_binary, decode_payload_v3_text,
    encode_payload_v3_binary, encode_payload_v3_binary_text,
};
pub use query::{KeyPositions, Query};
pub use revision::Revision;
pub use sid::Sid;
pub use transport::TransportKind;
