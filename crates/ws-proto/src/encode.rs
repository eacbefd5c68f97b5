//! Messages to frames (RFC 6455 §5.2). Appends to the caller's buffer and knows nothing of connections.

use crate::{CloseCode, OpCode, mask};

/// Bytes that the header of an unmasked frame takes: 2, 4 or 10. A mask adds 4.
#[inline]
pub const fn header_len(payload_len: usize) -> usize {
    match payload_len {
        0..=125 => 2,
        126..=0xFFFF => 4,
        _ => 10,
    }
}

/// Appends a frame's header; the caller appends `payload_len` bytes after it, already masked if `mask` is given.
///
/// `rsv1` marks the first frame of a compressed message (RFC 7692 §6). The caller keeps to the rules for control frames:
/// `fin`, no `rsv1`, at most 125 bytes.
#[inline]
pub fn encode_header(
    out: &mut Vec<u8>,
    op: OpCode,
    fin: bool,
    rsv1: bool,
    payload_len: usize,
    mask: Option<[u8; 4]>,
) {
    // Built on the stack and appended once: one capacity check instead of four.
    let mut header = [0; 14];
    header[0] = (fin as u8) << 7 | (rsv1 as u8) << 6 | op.bits();
    let masked = (mask.is_some() as u8) << 7;
    let mut len = header_len(payload_len);
    match len {
        2 => header[1] = masked | payload_len as u8,
        4 => {
            header[1] = masked | 126;
            header[2..4].copy_from_slice(&(payload_len as u16).to_be_bytes());
        }
        _ => {
            header[1] = masked | 127;
            header[2..10].copy_from_slice(&(payload_len as u64).to_be_bytes());
        }
    }
    if let Some(key) = mask {
        header[len..len + 4].copy_from_slice(&key);
        len += 4;
    }
    out.extend_from_slice(&header[..len]);
}

/// Appends one final, unmasked, uncompressed frame: what a server sends. Control frames: at most 125 bytes.
#[inline]
pub fn encode_frame(out: &mut Vec<u8>, op: OpCode, payload: &[u8]) {
    out.reserve(header_len(payload.len()) + payload.len());
    encode_header(out, op, true, false, payload.len(), None);
    out.extend_from_slice(payload);
}

/// Appends one final, masked, uncompressed frame: what a client sends. The key must be unpredictable (RFC 6455 §10.3).
pub fn encode_frame_masked(out: &mut Vec<u8>, op: OpCode, payload: &[u8], key: [u8; 4]) {
    out.reserve(header_len(payload.len()) + 4 + payload.len());
    encode_header(out, op, true, false, payload.len(), Some(key));
    let start = out.len();
    out.extend_from_slice(payload);
    mask(key, &mut out[start..]);
}

/// Appends a server's close frame. Without a code the frame is empty, and the reason is left out with it; a reason of more than
/// 123 bytes is cut at a character (RFC 6455 §5.5.1).
pub fn encode_close(out: &mut Vec<u8>, code: Option<CloseCode>, reason: &str) {
    let mut payload = [0; 125];
    encode_frame(out, OpCode::Close, close_payload(&mut payload, code, reason));
}

/// Appends a client's close frame; see [`encode_close`].
pub fn encode_close_masked(out: &mut Vec<u8>, code: Option<CloseCode>, reason: &str, key: [u8; 4]) {
    let mut payload = [0; 125];
    encode_frame_masked(out, OpCode::Close, close_payload(&mut payload, code, reason), key);
}

fn close_payload<'a>(buf: &'a mut [u8; 125], code: Option<CloseCode>, reason: &str) -> &'a [u8] {
    let Some(CloseCode(code)) = code else { return &[] };
    let reason = &reason[..reason.floor_char_boundary(123)];
    buf[..2].copy_from_slice(&code.to_be_bytes());
    buf[2..2 + reason.len()].copy_from_slice(reason.as_bytes());
    &buf[..2 + reason.len()]
}
