//! Long-polling bodies of revision 3: packets behind their lengths, as text or as binary. Does not know HTTP; which of the two
//! forms a body has is told by its content type.

use crate::{Data, Packet, PayloadFault, decode_binary_v3, decode_text_v3, encode_binary_v3, encode_text_v3};

/// More digits than any length in a body of bounded size needs; a longer run is a fault, not work.
const LENGTH_DIGITS_MAX: usize = 10;

/// Splits a text body of revision 3, `<length>:<packet>` and so on, where a length counts UTF-16 code units.
///
/// The packets before a bad one are handed out; the fault is the last item. At most `packets_max` packets come out. An empty
/// body is a fault.
pub fn decode_payload_v3_text(body: &[u8], packets_max: usize) -> TextPayloadV3<'_> {
    let (body, utf8_fault) = match str::from_utf8(body) {
        Ok(text) => (text, None),
        Err(error) => ("", Some(PayloadFault::Utf8 { offset: error.valid_up_to() })),
    };
    TextPayloadV3 { body, utf8_fault, cursor: Cursor { offset: 0, packets: 0, packets_max, is_done: false } }
}

/// The packets of a text body; see [`decode_payload_v3_text`].
#[derive(Clone, Debug)]
pub struct TextPayloadV3<'a> {
    body: &'a str,
    utf8_fault: Option<PayloadFault>,
    cursor: Cursor,
}

impl<'a> Iterator for TextPayloadV3<'a> {
    type Item = Result<Packet<'a>, PayloadFault>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(fault) = self.utf8_fault.take() {
            self.cursor.is_done = true;
            return Some(Err(fault));
        }
        let body = self.body;
        self.cursor.step(body.len(), |start| {
            let fault = PayloadFault::Length { offset: start };
            let rest = &body[start..];
            let digits =
                rest.bytes().take(LENGTH_DIGITS_MAX + 1).position(|byte| byte == b':').ok_or(fault)?;
            let units = decimal(rest.as_bytes()[..digits].iter().map(|digit| digit.wrapping_sub(b'0')))
                .ok_or(fault)?;
            let packet_start = start + digits + 1;
            let len = utf16_prefix_len(&body[packet_start..], units).ok_or(fault)?;
            let end = packet_start + len;
            let packet =
                decode_text_v3(&body[packet_start..end]).map_err(|fault| fault.moved_by(packet_start))?;
            Ok((packet, end))
        })
    }
}

impl std::iter::FusedIterator for TextPayloadV3<'_> {}

/// Splits a binary body of revision 3: per packet `00` (text) or `01` (binary), the length in bytes as decimal digits of one
/// byte each with the values 0–9, `ff`, then the packet. Binary packets begin with the type byte 4.
///
/// The packets before a bad one are handed out; the fault is the last item. At most `packets_max` packets come out. An empty
/// body is a fault.
pub fn decode_payload_v3_binary(body: &[u8], packets_max: usize) -> BinaryPayloadV3<'_> {
    BinaryPayloadV3 { body, cursor: Cursor { offset: 0, packets: 0, packets_max, is_done: false } }
}

/// The packets of a binary body; see [`decode_payload_v3_binary`].
#[derive(Clone, Debug)]
pub struct BinaryPayloadV3<'a> {
    body: &'a [u8],
    cursor: Cursor,
}

impl<'a> Iterator for BinaryPayloadV3<'a> {
    type Item = Result<Packet<'a>, PayloadFault>;

    fn next(&mut self) -> Option<Self::Item> {
        let body = self.body;
        self.cursor.step(body.len(), |start| {
            let fault = PayloadFault::Length { offset: start };
            let [kind @ 0..=1, rest @ ..] = &body[start..] else { return Err(fault) };
            let digits =
                rest.iter().take(LENGTH_DIGITS_MAX + 1).position(|&byte| byte == 0xFF).ok_or(fault)?;
            let len = decimal(rest[..digits].iter().copied()).ok_or(fault)?;
            let packet_start = start + 1 + digits + 1;
            let end = packet_start.checked_add(len).filter(|&end| end <= body.len()).ok_or(fault)?;
            let bytes = &body[packet_start..end];
            let packet = if *kind == 1 {
                decode_binary_v3(bytes)
            } else {
                let text = str::from_utf8(bytes)
                    .map_err(|error| PayloadFault::Utf8 { offset: packet_start + error.valid_up_to() })?;
                decode_text_v3(text)
            };
            Ok((packet.map_err(|fault| fault.moved_by(packet_start))?, end))
        })
    }
}

impl std::iter::FusedIterator for BinaryPayloadV3<'_> {}

/// How far a body was read.
#[derive(Clone, Debug)]
struct Cursor {
    offset: usize,
    packets: usize,
    packets_max: usize,
    is_done: bool,
}

impl Cursor {
    /// One packet with `decode_at(start) -> (packet, end)`; the end of the body and the first fault finish the iteration.
    fn step<'a>(
        &mut self,
        body_len: usize,
        decode_at: impl FnOnce(usize) -> Result<(Packet<'a>, usize), PayloadFault>,
    ) -> Option<Result<Packet<'a>, PayloadFault>> {
        let is_over = self.offset == body_len && self.packets > 0;
        if self.is_done || is_over {
            return None;
        }
        let step = if self.packets == self.packets_max {
            Err(PayloadFault::TooManyPackets { max: self.packets_max })
        } else {
            decode_at(self.offset)
        };
        self.is_done = step.is_err();
        Some(step.map(|(packet, end)| {
            self.offset = end;
            self.packets += 1;
            packet
        }))
    }
}

/// The number written by `digits` (values, not characters); `None` for no digit, a value above 9 or too large a number.
fn decimal(digits: impl ExactSizeIterator<Item = u8>) -> Option<usize> {
    if digits.len() == 0 {
        return None;
    }
    digits.into_iter().try_fold(0_usize, |sum, digit| {
        if digit > 9 {
            return None;
        }
        sum.checked_mul(10)?.checked_add(usize::from(digit))
    })
}

/// Bytes that the first `units` UTF-16 code units of `text` take; `None` if it is shorter or that would cut a character.
fn utf16_prefix_len(text: &str, units: usize) -> Option<usize> {
    let mut left = units;
    for (offset, character) in text.char_indices() {
        if left == 0 {
            return Some(offset);
        }
        left = left.checked_sub(character.len_utf16())?;
    }
    (left == 0).then_some(text.len())
}

/// Builds a text body of revision 3 at the end of a buffer; binary messages become base64, for clients that said `b64` and for
/// bodies without binary.
#[derive(Debug)]
pub struct PayloadEncoderV3<'a> {
    out: &'a mut Vec<u8>,
    scratch: Vec<u8>,
    packets: usize,
    start: usize,
}

impl<'a> PayloadEncoderV3<'a> {
    /// An empty payload that begins at the end of `out`.
    pub fn new(out: &'a mut Vec<u8>) -> Self {
        Self { start: out.len(), out, scratch: Vec::new(), packets: 0 }
    }

    /// Appends a packet.
    pub fn push(&mut self, packet: &Packet<'_>) {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        encode_text_v3(&mut scratch, packet);
        // Everything in a text packet is UTF-8: the digit and base64 are ASCII, and the data was a `str`.
        let text = str::from_utf8(&scratch).expect("invariant: the text form of a packet is UTF-8");
        self.push_encoded(text);
        self.scratch = scratch;
    }

    /// Appends a packet that is in its text form already.
    pub fn push_encoded(&mut self, packet: &str) {
        let units: usize = packet.chars().map(char::len_utf16).sum();
        self.out.extend_from_slice(units.to_string().as_bytes());
        self.out.push(b':');
        self.out.extend_from_slice(packet.as_bytes());
        self.packets += 1;
    }

    /// Packets so far.
    pub fn packets(&self) -> usize {
        self.packets
    }

    /// Bytes of the payload so far.
    pub fn bytes(&self) -> usize {
        self.out.len() - self.start
    }
}

/// Appends one packet to a binary body of revision 3 (content type `application/octet-stream`). A body may hold nothing else: use
/// it for all packets of the body or for none.
pub fn encode_payload_v3_binary(out: &mut Vec<u8>, packet: &Packet<'_>) {
    let mut bytes = Vec::new();
    let kind = match packet {
        Packet::Message(Data::Binary(data)) => {
            encode_binary_v3(&mut bytes, data);
            1
        }
        Packet::Message(Data::Text(_))
        | Packet::Open(_)
        | Packet::Close
        | Packet::Ping(_)
        | Packet::Pong(_)
        | Packet::Upgrade
        | Packet::Noop => {
            encode_text_v3(&mut bytes, packet);
            0
        }
    };
    push_framed(out, kind, &bytes);
}

/// Appends one packet that is in its text form already to a binary body; see [`encode_payload_v3_binary`].
pub fn encode_payload_v3_binary_text(out: &mut Vec<u8>, packet: &str) {
    push_framed(out, 0, packet.as_bytes());
}

fn push_framed(out: &mut Vec<u8>, kind: u8, bytes: &[u8]) {
    out.push(kind);
    out.extend(bytes.len().to_string().bytes().map(|digit| digit - b'0'));
    out.push(0xFF);
    out.extend_from_slice(bytes);
}
