//! Long-polling bodies of revision 4: packets joined by U+001E. Does not know HTTP or what a packet means.

use std::fmt;

use crate::{Packet, PacketFault, decode_text, encode_text};

/// What stands between the packets of a payload (EIO4 "Packet encoding / HTTP long-polling").
pub const SEPARATOR: u8 = 0x1E;

/// A payload that cannot be read to its end. The peer's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PayloadFault {
    /// A packet that cannot be read; its offset counts from the start of the payload.
    Packet(PacketFault),
    /// A packet that is not UTF-8.
    Utf8 {
        /// The first byte that does not fit, counted from the start of the payload.
        offset: usize,
    },
    /// More packets than the limit; those up to it were handed out.
    TooManyPackets {
        /// The limit.
        max: usize,
    },
    /// Revision 3: a length that is no number, or reaches beyond the payload or into a character.
    Length {
        /// Where the length begins, in bytes from the start of the payload.
        offset: usize,
    },
}

impl fmt::Display for PayloadFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Packet(fault) => fault.fmt(f),
            Self::Utf8 { offset } => write!(f, "payload is not utf-8 at byte {offset}"),
            Self::TooManyPackets { max } => write!(f, "payload of more packets than the limit of {max}"),
            Self::Length { offset } => write!(f, "bad packet length at byte {offset}"),
        }
    }
}

impl std::error::Error for PayloadFault {}

impl From<PacketFault> for PayloadFault {
    fn from(fault: PacketFault) -> Self {
        Self::Packet(fault)
    }
}

/// Splits a long-polling body of revision 4 into packets at U+001E, one per step.
///
/// The packets before a bad one are handed out; the fault is the last item. At most `packets_max` packets come out, so one
/// request causes a bounded amount of work. An empty body is one empty packet, hence a fault.
///
/// Spec: EIO4 "Packet encoding / HTTP long-polling".
pub fn decode_payload(body: &[u8], packets_max: usize) -> Payload<'_> {
    Payload { rest: Some(body), offset: 0, packets_left: packets_max, packets_max }
}

/// The packets of a body; see [`decode_payload`].
#[derive(Clone, Debug)]
pub struct Payload<'a> {
    /// `None` once the end or a fault was reported.
    rest: Option<&'a [u8]>,
    offset: usize,
    packets_left: usize,
    packets_max: usize,
}

impl<'a> Iterator for Payload<'a> {
    type Item = Result<Packet<'a>, PayloadFault>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.rest.take()?;
        let Some(packets_left) = self.packets_left.checked_sub(1) else {
            return Some(Err(PayloadFault::TooManyPackets { max: self.packets_max }));
        };
        self.packets_left = packets_left;
        let (packet, after) = match rest.iter().position(|&byte| byte == SEPARATOR) {
            Some(end) => (&rest[..end], Some(&rest[end + 1..])),
            None => (rest, None),
        };
        let start = self.offset;
        let text = match str::from_utf8(packet) {
            Ok(text) => text,
            Err(error) => return Some(Err(PayloadFault::Utf8 { offset: start + error.valid_up_to() })),
        };
        match decode_text(text) {
            Ok(packet) => {
                self.offset = start + text.len() + 1;
                self.rest = after;
                Some(Ok(packet))
            }
            Err(fault) => Some(Err(fault.moved_by(start).into())),
        }
    }
}

impl std::iter::FusedIterator for Payload<'_> {}

/// Builds a long-polling body of revision 4 at the end of a buffer.
///
/// Look at [`packets`](Self::packets) and [`bytes_with`](Self::bytes_with) before each push: some clients refuse more than 16 packets in one body.
///
/// ```
/// use eio_proto::{Data, Packet, PayloadEncoder};
///
/// let mut body = Vec::new();
/// let mut payload = PayloadEncoder::new(&mut body);
/// payload.push(&Packet::Message(Data::Text("one")));
/// payload.push_encoded(b"4two");
/// assert_eq!((payload.packets(), payload.bytes(), payload.bytes_with(4)), (2, 9, 14));
/// assert_eq!(body, b"4one\x1e4two");
/// ```
#[derive(Debug)]
pub struct PayloadEncoder<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
    packets: usize,
}

impl<'a> PayloadEncoder<'a> {
    /// An empty payload that begins at the end of `out`.
    pub fn new(out: &'a mut Vec<u8>) -> Self {
        Self { start: out.len(), out, packets: 0 }
    }

    /// Appends a packet. Its text must not hold U+001E, which JSON always escapes.
    pub fn push(&mut self, packet: &Packet<'_>) {
        self.separate();
        encode_text(self.out, packet);
    }

    /// Appends a packet that is in its text form already: type digit and data, or `b` and base64.
    pub fn push_encoded(&mut self, packet: &[u8]) {
        self.separate();
        self.out.extend_from_slice(packet);
    }

    /// Packets so far.
    pub fn packets(&self) -> usize {
        self.packets
    }

    /// Bytes of the payload so far.
    pub fn bytes(&self) -> usize {
        self.out.len() - self.start
    }

    /// Bytes that the payload would have with one more packet of `packet_len` bytes in text form.
    pub fn bytes_with(&self, packet_len: usize) -> usize {
        self.bytes() + usize::from(self.packets > 0) + packet_len
    }

    fn separate(&mut self) {
        if self.packets > 0 {
            self.out.push(SEPARATOR);
        }
        self.packets += 1;
    }
}
