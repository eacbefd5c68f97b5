//! The bytes of RFC 6455, Engine.IO 4 and Socket.IO 5, as a load generator needs them.
//!
//! Deliberately written apart from the project's own codecs: two implementations that agree on a mistake are worth less
//! than two that were made separately. Knows nothing about sockets, time or scenarios. Strict about what a server may
//! send, because a fault that is tolerated here is a fault that nobody sees.

use std::fmt;

/// The largest frame that is still taken for a frame and not for garbage, in bytes.
pub(crate) const FRAME_BYTES_MAX: usize = 16 << 20;

/// What a server did wrong on the wire; always the peer's fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A server frame carried a mask (RFC 6455 §5.1).
    Masked,
    /// A client frame carried none (RFC 6455 §5.1).
    Unmasked,
    /// A reserved bit is set although no extension was agreed (RFC 6455 §5.2).
    ReservedBits(u8),
    /// A reserved opcode (RFC 6455 §5.2).
    Opcode(u8),
    /// A fragment. Legal, but no Socket.IO server has a reason to send one.
    Fragment,
    /// The length uses more bytes than it needs (RFC 6455 §5.2).
    LongLength,
    /// A frame above `FRAME_BYTES_MAX`, or a control frame above 125 bytes (RFC 6455 §5.5).
    TooLong(u64),
    /// The HTTP answer to the upgrade request is not the one that RFC 6455 §4.2.2 asks for.
    Upgrade(String),
    /// A packet that Engine.IO or Socket.IO does not allow at this point.
    Packet(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Masked => write!(f, "server frame is masked"),
            Self::Unmasked => write!(f, "client frame is not masked"),
            Self::ReservedBits(b) => write!(f, "reserved bits {b:#04x} set without an extension"),
            Self::Opcode(o) => write!(f, "reserved opcode {o:#x}"),
            Self::Fragment => write!(f, "fragmented message"),
            Self::LongLength => write!(f, "frame length not in its shortest form"),
            Self::TooLong(n) => write!(f, "frame of {n} bytes is too long"),
            Self::Upgrade(why) => write!(f, "upgrade refused: {why}"),
            Self::Packet(why) => write!(f, "unexpected packet: {why}"),
        }
    }
}

/// The kinds of frame that are understood (RFC 6455 §5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opcode {
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

/// Which end of a connection wrote a frame, and so whether it must be masked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Writer {
    Server,
    Client,
}

/// Where one whole frame lies in a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) opcode: Opcode,
    /// Offset of the first payload byte from the start of the frame.
    pub(crate) payload_at: usize,
    /// Length of the whole frame: the next one starts here.
    pub(crate) len: usize,
    /// The masking key; zero for a server's frame.
    pub(crate) key: [u8; 4],
}

/// Finds the frame at the start of `bytes`; `None` while it is incomplete.
///
/// # Errors
/// The peer's fault, as soon as it can be known, not only when the frame is complete.
#[inline]
pub(crate) fn decode_frame(bytes: &[u8], writer: Writer) -> Result<Option<Frame>, Fault> {
    let &[first, second, ..] = bytes else { return Ok(None) };
    if first & 0x70 != 0 {
        return Err(Fault::ReservedBits(first & 0x70));
    }
    let opcode = match first & 0x0f {
        1 => Opcode::Text,
        2 => Opcode::Binary,
        8 => Opcode::Close,
        9 => Opcode::Ping,
        10 => Opcode::Pong,
        0 => return Err(Fault::Fragment),
        other => return Err(Fault::Opcode(other)),
    };
    if first & 0x80 == 0 {
        return Err(Fault::Fragment);
    }
    let is_masked = second & 0x80 != 0;
    match writer {
        Writer::Server if is_masked => return Err(Fault::Masked),
        Writer::Client if !is_masked => return Err(Fault::Unmasked),
        Writer::Server | Writer::Client => {}
    }
    let (length, mut payload_at) = match second & 0x7f {
        126 => {
            let Some(&[a, b]) = bytes.get(2..4) else { return Ok(None) };
            let n = u16::from_be_bytes([a, b]);
            if n < 126 {
                return Err(Fault::LongLength);
            }
            (u64::from(n), 4)
        }
        127 => {
            let Some(raw) = bytes.get(2..10) else { return Ok(None) };
            let n = raw.iter().fold(0u64, |n, &b| n << 8 | u64::from(b));
            if n < 0x1_0000 {
                return Err(Fault::LongLength);
            }
            (n, 10)
        }
        n => (u64::from(n), 2),
    };
    let is_control = first & 0x08 != 0;
    if length > FRAME_BYTES_MAX as u64 || (is_control && length > 125) {
        return Err(Fault::TooLong(length));
    }
    let mut key = [0; 4];
    if is_masked {
        let Some(raw) = bytes.get(payload_at..payload_at + 4) else { return Ok(None) };
        key.copy_from_slice(raw);
        payload_at += 4;
    }
    let len = payload_at + length as usize;
    Ok((bytes.len() >= len).then_some(Frame { opcode, payload_at, len, key }))
}

/// Applies a masking key in place (RFC 6455 §5.3); applying it again takes it off.
pub(crate) fn mask(payload: &mut [u8], key: [u8; 4]) {
    if key != [0; 4] {
        for (byte, key) in payload.iter_mut().zip(key.iter().cycle()) {
            *byte ^= key;
        }
    }
}

/// Appends the header of an unfragmented frame; `key` is there for a client's frame only.
fn encode_header(opcode: u8, length: usize, key: Option<[u8; 4]>, out: &mut Vec<u8>) {
    let mask_bit = if key.is_some() { 0x80 } else { 0 };
    out.push(0x80 | opcode);
    match length {
        0..126 => out.push(mask_bit | length as u8),
        126..0x1_0000 => {
            out.push(mask_bit | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            out.push(mask_bit | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(key.as_ref().map_or(&[], |k| k.as_slice()));
}

/// Appends a client's text frame made of `parts`.
pub(crate) fn encode_client_text(parts: &[&[u8]], key: [u8; 4], out: &mut Vec<u8>) {
    encode_client(1, parts, key, out);
}

/// Appends a client's pong with the ping's payload (RFC 6455 §5.5.3).
pub(crate) fn encode_client_pong(payload: &[u8], key: [u8; 4], out: &mut Vec<u8>) {
    encode_client(10, &[payload], key, out);
}

fn encode_client(opcode: u8, parts: &[&[u8]], key: [u8; 4], out: &mut Vec<u8>) {
    encode_header(opcode, parts.iter().map(|p| p.len()).sum(), Some(key), out);
    let payload_at = out.len();
    for part in parts {
        out.extend_from_slice(part);
    }
    mask(&mut out[payload_at..], key);
}

/// Appends a server's text frame made of `parts`.
pub(crate) fn encode_server_text(parts: &[&[u8]], out: &mut Vec<u8>) {
    encode_header(1, parts.iter().map(|p| p.len()).sum(), None, out);
    for part in parts {
        out.extend_from_slice(part);
    }
}

/// Appends a server's pong.
pub(crate) fn encode_server_pong(payload: &[u8], out: &mut Vec<u8>) {
    encode_header(10, payload.len(), None, out);
    out.extend_from_slice(payload);
}

/// The `Sec-WebSocket-Accept` that belongs to a `Sec-WebSocket-Key` (RFC 6455 §4.2.2).
pub(crate) fn accept_key(key: &str) -> String {
    let mut digest = sha1_smol::Sha1::new();
    digest.update(key.trim().as_bytes());
    digest.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    base64(&digest.digest().bytes())
}

/// Standard base64 with padding (RFC 4648 §4).
pub(crate) fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0u32, |n, &b| n << 8 | u32::from(b)) << (8 * (3 - group.len()));
        for i in 0..4 {
            let letter = ALPHABET[(bits >> (18 - 6 * i)) as usize & 63];
            out.push(if i <= group.len() { char::from(letter) } else { '=' });
        }
    }
    out
}

/// Where the first `\r\n\r\n` ends, so where an HTTP head does.
pub(crate) fn head_end(bytes: &[u8]) -> Option<usize> {
    find(bytes, b"\r\n\r\n").map(|at| at + 4)
}

/// Offset of the first `needle` in `hay`. For short inputs: it compares at every offset.
pub(crate) fn find(hay: &[u8], needle: &[u8]) -> Option<usize> {
    hay.windows(needle.len()).position(|w| w == needle)
}

/// The value of a header in an HTTP head, trimmed; names compare without case (RFC 9110 §5.1).
pub(crate) fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.split("\r\n").skip(1).find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// The status code of an HTTP/1.1 answer's head.
pub(crate) fn status(head: &str) -> Option<u16> {
    head.strip_prefix("HTTP/1.1 ").or_else(|| head.strip_prefix("HTTP/1.0 "))?.get(..3)?.parse().ok()
}

/// Judges the answer to an upgrade request (RFC 6455 §4.1, the client's checks).
///
/// # Errors
/// `Fault::Upgrade` with the status line or the header that is wrong.
pub(crate) fn check_upgrade(head: &[u8], accept: &str) -> Result<(), Fault> {
    let wrong = |why: &str| Err(Fault::Upgrade(why.to_owned()));
    let Ok(head) = std::str::from_utf8(head) else { return wrong("head is not text") };
    if status(head) != Some(101) {
        return wrong(head.lines().next().unwrap_or_default());
    }
    if !header(head, "upgrade").is_some_and(|v| v.eq_ignore_ascii_case("websocket")) {
        return wrong("no upgrade: websocket");
    }
    let has_upgrade = |v: &str| v.split(',').any(|t| t.trim().eq_ignore_ascii_case("upgrade"));
    if !header(head, "connection").is_some_and(has_upgrade) {
        return wrong("no connection: upgrade");
    }
    if header(head, "sec-websocket-accept") != Some(accept) {
        return wrong("wrong sec-websocket-accept");
    }
    if header(head, "sec-websocket-extensions").is_some() || header(head, "sec-websocket-protocol").is_some()
    {
        return wrong("an extension or subprotocol nobody asked for");
    }
    Ok(())
}

/// What the open packet promises (EIO4 "Handshake").
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Open {
    pub(crate) sid: String,
}

/// Judges an open packet, given without its leading `0`.
///
/// # Errors
/// `Fault::Packet` when a field is absent or of another type.
pub(crate) fn decode_open(json: &[u8]) -> Result<Open, Fault> {
    let wrong = || Fault::Packet(format!("open packet {}", excerpt(json)));
    let value: serde_json::Value = serde_json::from_slice(json).map_err(|_| wrong())?;
    let sid = value["sid"].as_str().filter(|s| !s.is_empty()).ok_or_else(wrong)?.to_owned();
    let has_limits = ["pingInterval", "pingTimeout", "maxPayload"].iter().all(|k| value[k].is_u64());
    if has_limits && value["upgrades"].is_array() { Ok(Open { sid }) } else { Err(wrong()) }
}

/// One Socket.IO packet as text (SIO5 "Packet encoding"), its namespace taken off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Packet<'a> {
    /// The type digit as it is on the wire, `b'0'` to `b'6'`.
    pub(crate) kind: u8,
    pub(crate) ack: Option<u32>,
    /// The JSON after the acknowledgement id; may be empty.
    pub(crate) data: &'a [u8],
}

/// Splits a Socket.IO packet, given without the Engine.IO `4`, that must belong to `namespace`.
///
/// # Errors
/// `Fault::Packet` for another namespace, an unknown type or an id that does not fit 32 bits.
pub(crate) fn decode_packet<'a>(text: &'a [u8], namespace: &str) -> Result<Packet<'a>, Fault> {
    let wrong = || Fault::Packet(excerpt(text));
    let (&kind, mut rest) = text.split_first().ok_or_else(wrong)?;
    if !(b'0'..=b'6').contains(&kind) {
        return Err(wrong());
    }
    if namespace != "/" {
        rest = rest.strip_prefix(namespace.as_bytes()).ok_or_else(wrong)?;
        // The comma may be absent when nothing follows the namespace (SIO5 "Packet encoding").
        rest = match rest.split_first() {
            None => rest,
            Some((b',', rest)) => rest,
            Some(_) => return Err(wrong()),
        };
    } else if rest.first() == Some(&b'/') {
        rest = rest.strip_prefix(b"/,").ok_or_else(wrong)?;
    }
    let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
    let ack = match digits {
        0 => None,
        1..=9 => Some(rest[..digits].iter().fold(0, |n, b| n * 10 + u32::from(b - b'0'))),
        _ => return Err(wrong()),
    };
    Ok(Packet { kind, ack, data: &rest[digits..] })
}

/// The start of some bytes, fit for an error message.
pub(crate) fn excerpt(bytes: &[u8]) -> String {
    // 80: enough to recognise a packet, short enough for one line of a terminal.
    String::from_utf8_lossy(&bytes[..bytes.len().min(80)]).into_owned()
}

/// A number as eight hexadecimal digits.
pub(crate) fn encode_hex8(number: u32) -> [u8; 8] {
    std::array::from_fn(|i| b"0123456789abcdef"[(number >> (28 - 4 * i)) as usize & 15])
}

/// Eight hexadecimal digits, as `encode_hex8` writes them; `None` if any is something else.
#[inline]
pub(crate) fn decode_hex8(digits: &[u8; 8]) -> Option<u32> {
    digits.iter().try_fold(0u32, |n, &d| {
        let value = match d {
            b'0'..=b'9' => d - b'0',
            b'a'..=b'f' => d - b'a' + 10,
            _ => return None,
        };
        Some(n << 4 | u32::from(value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server_text(text: &str) -> Vec<u8> {
        let mut out = Vec::new();
        encode_server_text(&[text.as_bytes()], &mut out);
        out
    }

    #[test]
    fn accept_key_matches_the_example_of_the_rfc() {
        assert_eq!(accept_key("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn base64_pads_every_length() {
        assert_eq!(["", "f", "fo", "foo"].map(|s| base64(s.as_bytes())), ["", "Zg==", "Zm8=", "Zm9v"]);
    }

    #[test]
    fn frames_of_every_length_form_come_back_from_any_cut() {
        for length in [0, 1, 125, 126, 127, 65_535, 65_536] {
            let text = "x".repeat(length);
            let bytes = server_text(&text);
            let frame = decode_frame(&bytes, Writer::Server).unwrap().expect("whole frame");
            assert_eq!((frame.opcode, frame.len), (Opcode::Text, bytes.len()));
            assert_eq!(&bytes[frame.payload_at..frame.len], text.as_bytes());
            for cut in (0..bytes.len()).step_by(1 + bytes.len() / 200) {
                assert_eq!(decode_frame(&bytes[..cut], Writer::Server), Ok(None), "{length} cut at {cut}");
            }
        }
    }

    #[test]
    fn client_frames_are_masked_with_the_given_key() {
        let mut bytes = Vec::new();
        encode_client_text(&[b"2pro", b"be"], [1, 2, 3, 4], &mut bytes);
        let frame = decode_frame(&bytes, Writer::Client).unwrap().expect("whole frame");
        assert_eq!(frame.key, [1, 2, 3, 4]);
        mask(&mut bytes[frame.payload_at..], frame.key);
        assert_eq!(&bytes[frame.payload_at..], b"2probe");
    }

    #[test]
    fn what_a_server_must_not_send_is_refused() {
        let cases: [(&[u8], Fault); 9] = [
            (&[0x81, 0x80, 0, 0, 0, 0], Fault::Masked),
            (&[0xc1, 1, b'2'], Fault::ReservedBits(0x40)),
            (&[0x01, 1, b'2'], Fault::Fragment),
            (&[0x80, 1, b'2'], Fault::Fragment),
            (&[0x83, 0], Fault::Opcode(3)),
            (&[0x81, 126, 0, 125], Fault::LongLength),
            (&[0x81, 127, 0, 0, 0, 0, 0, 0, 0xff, 0xff], Fault::LongLength),
            (&[0x81, 127, 0xff, 0, 0, 0, 0, 0, 0, 0], Fault::TooLong(0xff << 56)),
            (&[0x89, 126, 0, 126], Fault::TooLong(126)),
        ];
        for (bytes, fault) in cases {
            assert_eq!(decode_frame(bytes, Writer::Server), Err(fault), "{bytes:x?}");
        }
        assert_eq!(decode_frame(&[0x81, 0], Writer::Client), Err(Fault::Unmasked));
    }

    #[test]
    fn upgrade_answers_are_judged() {
        let good = "HTTP/1.1 101 Switching Protocols\r\nUPGRADE: WebSocket\r\n\
                    Connection: keep-alive, Upgrade\r\nSec-WebSocket-Accept: abc\r\n\r\n";
        assert_eq!(check_upgrade(good.as_bytes(), "abc"), Ok(()));
        assert!(check_upgrade(good.as_bytes(), "abd").is_err());
        for (from, to) in [
            ("101", "200"),
            ("UPGRADE: WebSocket\r\n", ""),
            ("keep-alive, Upgrade", "close"),
            ("\r\n\r\n", "\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"),
        ] {
            let bad = good.replace(from, to);
            assert!(check_upgrade(bad.as_bytes(), "abc").is_err(), "{bad}");
        }
    }

    #[test]
    fn open_packets_need_every_field() {
        let good = r#"{"sid":"x","upgrades":[],"pingInterval":1,"pingTimeout":2,"maxPayload":3}"#;
        assert_eq!(decode_open(good.as_bytes()), Ok(Open { sid: "x".into() }));
        for (from, to) in [("\"x\"", "\"\""), ("[]", "0"), ("2", "\"2\""), ("maxPayload", "max"), ("}", "")] {
            assert!(decode_open(good.replace(from, to).as_bytes()).is_err(), "{from} to {to}");
        }
    }

    #[test]
    fn packets_are_split_and_namespaces_checked() {
        let ok = |text: &'static str, ns| decode_packet(text.as_bytes(), ns).unwrap();
        assert_eq!(ok("312[\"ok\"]", "/"), Packet { kind: b'3', ack: Some(12), data: b"[\"ok\"]" });
        assert_eq!(ok("0{}", "/"), Packet { kind: b'0', ack: None, data: b"{}" });
        assert_eq!(ok("0/,{}", "/"), Packet { kind: b'0', ack: None, data: b"{}" });
        assert_eq!(ok("2/chat,[1]", "/chat"), Packet { kind: b'2', ack: None, data: b"[1]" });
        assert_eq!(ok("1/chat", "/chat"), Packet { kind: b'1', ack: None, data: b"" });
        for (text, ns) in
            [("", "/"), ("7[]", "/"), ("2[1]", "/chat"), ("2/chatter,[1]", "/chat"), ("2/a,[]", "/")]
        {
            assert!(decode_packet(text.as_bytes(), ns).is_err(), "{text} in {ns}");
        }
        assert!(decode_packet(b"31234567890[]", "/").is_err());
    }

    #[test]
    fn hexadecimal_is_lower_case_only() {
        assert_eq!(decode_hex8(b"00c0ffee"), Some(0x00c0_ffee));
        assert_eq!(decode_hex8(b"00C0FFEE"), None);
        for n in [0, 1, 0x1234_abcd, u32::MAX] {
            assert_eq!(decode_hex8(&encode_hex8(n)), Some(n));
        }
    }
}
