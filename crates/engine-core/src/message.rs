//! Owns one outgoing message in every form a wire may want it: encoded once, referenced from many outboxes.
//! Does not know who gets it. Invariant: a message and its attachments are written together or not at all.

use std::cell::OnceCell;
use std::rc::Rc;

use bytes::Bytes;
use eio_proto::{Data, Packet, Revision};
use ws_proto::OpCode;
use ws_proto::deflate::Deflater;

/// What a frame carries, and so how each transport writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FrameKind {
    /// An Engine.IO text packet, type digit first.
    Text,
    /// An Engine.IO binary message: raw on WebSocket, base64 by polling.
    Binary,
    /// A WebSocket control frame; never leaves by polling.
    Control,
}

/// One Engine.IO packet, stored as the WebSocket frame that carries it.
///
/// The polling form is the same bytes without the frame header, so both transports share one buffer.
pub(crate) struct Frame {
    bytes: Box<[u8]>,
    header_len: u8,
    kind: FrameKind,
    /// The compressed frame, made when the first link that agreed to compression needs it. `None` inside: not
    /// worth it.
    deflated: OnceCell<Option<Box<[u8]>>>,
}

impl Frame {
    fn new(kind: FrameKind, op: OpCode, payload: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(ws_proto::header_len(payload.len()) + payload.len());
        ws_proto::encode_header(&mut bytes, op, true, false, payload.len(), None);
        let header_len = u8::try_from(bytes.len()).expect("invariant: a frame header has at most 14 bytes");
        bytes.extend_from_slice(payload);
        Self { bytes: bytes.into_boxed_slice(), header_len, kind, deflated: OnceCell::new() }
    }

    pub(crate) fn kind(&self) -> FrameKind {
        self.kind
    }

    /// The packet without its WebSocket header.
    pub(crate) fn payload(&self) -> &[u8] {
        &self.bytes[usize::from(self.header_len)..]
    }

    /// Appends the frame as plain WebSocket bytes.
    pub(crate) fn write_plain(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.bytes);
    }

    fn deflated(&self, deflater: &mut Deflater) -> Option<&[u8]> {
        self.deflated
            .get_or_init(|| {
                let mut packed = Vec::new();
                deflater.compress(self.payload(), &mut packed);
                if packed.len() >= self.payload().len() {
                    return None;
                }
                let op = if self.kind == FrameKind::Text { OpCode::Text } else { OpCode::Binary };
                let mut frame = Vec::with_capacity(packed.len() + 10);
                ws_proto::encode_header(&mut frame, op, true, true, packed.len(), None);
                frame.extend_from_slice(&packed);
                Some(frame.into_boxed_slice())
            })
            .as_deref()
    }
}

/// How one link wants its frames.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wire {
    pub(crate) revision: Revision,
    /// Binary as base64 text frames, asked for with `b64` in the query.
    pub(crate) base64: bool,
    /// Compress frames of at least this many bytes, if the link agreed to it.
    pub(crate) deflate_threshold: Option<usize>,
}

/// One Engine.IO packet, or a Socket.IO packet with its attachments.
pub(crate) struct Message {
    head: Frame,
    attachments: Box<[Frame]>,
    /// Whether compression is allowed; written by `compress(false)`.
    compress: bool,
}

impl Message {
    /// A text packet, Engine.IO type digit included.
    pub(crate) fn text(packet: &[u8]) -> Rc<Self> {
        Self::build(Frame::new(FrameKind::Text, OpCode::Text, packet), &[], true)
    }

    /// A text packet followed by binary messages that belong to it. SIO5 "Binary".
    pub(crate) fn text_with(packet: &[u8], attachments: &[Bytes], compress: bool) -> Rc<Self> {
        Self::build(Frame::new(FrameKind::Text, OpCode::Text, packet), attachments, compress)
    }

    /// One binary message.
    pub(crate) fn binary(data: &[u8], compress: bool) -> Rc<Self> {
        Self::build(Frame::new(FrameKind::Binary, OpCode::Binary, data), &[], compress)
    }

    /// The answer to a WebSocket ping. RFC 6455 §5.5.3.
    pub(crate) fn websocket_pong(data: &[u8]) -> Rc<Self> {
        Self::build(Frame::new(FrameKind::Control, OpCode::Pong, data), &[], false)
    }

    /// A WebSocket close frame with an already encoded body.
    pub(crate) fn websocket_close(body: &[u8]) -> Rc<Self> {
        Self::build(Frame::new(FrameKind::Control, OpCode::Close, body), &[], false)
    }

    fn build(head: Frame, attachments: &[Bytes], compress: bool) -> Rc<Self> {
        let attachments =
            attachments.iter().map(|data| Frame::new(FrameKind::Binary, OpCode::Binary, data)).collect();
        Rc::new(Self { head, attachments, compress })
    }

    pub(crate) fn frames(&self) -> impl Iterator<Item = &Frame> {
        std::iter::once(&self.head).chain(&self.attachments)
    }

    /// How many Engine.IO packets this is.
    pub(crate) fn packets(&self) -> usize {
        1 + self.attachments.len()
    }

    pub(crate) fn compress(&self) -> bool {
        self.compress
    }

    /// Bytes this message weighs in an outbox: its plain WebSocket form, whoever shares it.
    pub(crate) fn weight(&self) -> usize {
        self.head.bytes.len() + self.attachments.iter().map(|frame| frame.bytes.len()).sum::<usize>()
    }

    /// Appends the message as `wire` wants it.
    #[inline]
    pub(crate) fn write(&self, wire: Wire, deflater: &mut Option<Deflater>, out: &mut Vec<u8>) {
        for frame in self.frames() {
            if frame.kind == FrameKind::Binary && (wire.base64 || wire.revision == Revision::V3) {
                write_other_binary(frame.payload(), wire, out);
                continue;
            }
            if self.compress
                && frame.kind != FrameKind::Control
                && wire.deflate_threshold.is_some_and(|threshold| frame.payload().len() >= threshold)
                && let Some(packed) = frame.deflated(deflater.get_or_insert_with(Deflater::default))
            {
                out.extend_from_slice(packed);
                continue;
            }
            out.extend_from_slice(&frame.bytes);
        }
    }
}

/// Binary for links that cannot take a bare binary frame: as base64 text, or behind revision 3's type byte.
fn write_other_binary(data: &[u8], wire: Wire, out: &mut Vec<u8>) {
    let mut packet = Vec::with_capacity(data.len() * 4 / 3 + 4);
    match (wire.revision, wire.base64) {
        (Revision::V3, false) => {
            eio_proto::encode_binary_v3(&mut packet, data);
            ws_proto::encode_frame(out, OpCode::Binary, &packet);
        }
        (Revision::V3, true) => {
            eio_proto::encode_text_v3(&mut packet, &Packet::Message(Data::Binary(data.into())));
            ws_proto::encode_frame(out, OpCode::Text, &packet);
        }
        (Revision::V4, _) => {
            eio_proto::encode_text(&mut packet, &Packet::Message(Data::Binary(data.into())));
            ws_proto::encode_frame(out, OpCode::Text, &packet);
        }
    }
}
