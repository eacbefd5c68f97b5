//! The open packet, the server's half of the handshake. Does not know where its figures are configured.

use std::{io::Write, time::Duration};

use crate::{Sid, TransportKind};

/// What the server tells a new session (EIO4 "Handshake").
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open<'a> {
    /// The session.
    pub sid: Sid,
    /// The transports that the client may move to; empty on a WebSocket.
    pub upgrades: &'a [TransportKind],
    /// From one pong to the next ping. Sent in whole milliseconds.
    pub ping_interval: Duration,
    /// The silence allowed after a ping. Sent in whole milliseconds.
    pub ping_timeout: Duration,
    /// Bytes that one polling body or WebSocket message from the client may have.
    pub payload_bytes_max: usize,
}

/// Appends the open packet: the digit `0` and compact JSON with its five keys in the order of the reference server.
///
/// ```
/// use std::time::Duration;
/// use eio_proto::{Open, Sid, TransportKind, encode_open};
///
/// let mut out = Vec::new();
/// encode_open(&mut out, &Open {
///     sid: Sid::parse("hT3kQe9ZbV0cXw5RAAAB").unwrap(),
///     upgrades: &[TransportKind::WebSocket],
///     ping_interval: Duration::from_secs(25),
///     ping_timeout: Duration::from_secs(20),
///     payload_bytes_max: 1_000_000,
/// });
/// let expected: &[u8] = br#"0{"sid":"hT3kQe9ZbV0cXw5RAAAB","upgrades":["websocket"],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}"#;
/// assert_eq!(out, expected);
/// ```
pub fn encode_open(out: &mut Vec<u8>, open: &Open<'_>) {
    let Open { sid, upgrades, ping_interval, ping_timeout, payload_bytes_max } = open;
    out.extend_from_slice(br#"0{"sid":""#);
    out.extend_from_slice(&sid.encode());
    out.extend_from_slice(br#"","upgrades":["#);
    for (i, upgrade) in upgrades.iter().enumerate() {
        out.extend_from_slice(if i == 0 { b"\"" } else { b",\"" });
        out.extend_from_slice(upgrade.name().as_bytes());
        out.push(b'"');
    }
    write!(
        out,
        r#"],"pingInterval":{},"pingTimeout":{},"maxPayload":{payload_bytes_max}}}"#,
        ping_interval.as_millis(),
        ping_timeout.as_millis(),
    )
    .expect("invariant: a Vec takes everything");
}
