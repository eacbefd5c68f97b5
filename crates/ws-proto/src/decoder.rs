//! Frames to messages: one frame per call, unmasked in place, fragments gathered.
//!
//! Owns the state between the frames of one fragmented message, and nothing else: the read buffer is the caller's.
//! Does not know: sockets, pongs to answer, the closing handshake.
//! Invariant: while `pending` holds an unfinished message, only control frames and continuations pass.

use crate::{CloseCode, Fault, Inflater, Message, OpCode, Role, Rules, mask};

/// Reads the frames of one connection.
///
/// Order of calls: [`decode`](Self::decode) on the front of the unread bytes; drop `used` bytes and repeat until
/// [`Step::Incomplete`], even when nothing is left to read, because that call frees a fragmented message that was handed
/// out; then read more. After a [`Fault`] the decoder is of no further use: close the connection. The loop stands in the crate's docs.
///
/// One pointer wide, and null unless a fragmented message is under way.
#[derive(Debug, Default)]
pub struct Decoder {
    pending: Option<Box<Pending>>,
}

/// A fragmented message under way, or one that was completed and is lent to the caller until the next call.
#[derive(Debug)]
struct Pending {
    is_text: bool,
    is_deflated: bool,
    is_finished: bool,
    fragments: u32,
    bytes: Vec<u8>,
}

/// What one call of [`Decoder::decode`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// The frame is not all there. Decoding again makes sense once `need` bytes, counted from the start of `buf`, are there;
    /// it is always more than `buf` holds, and at most 14 + the limit of the message (a header first, then its frame).
    Incomplete {
        /// Bytes required from the start of `buf`.
        need: usize,
    },
    /// A whole frame stood at the front.
    Frame {
        /// Bytes that the frame took; never 0.
        used: usize,
        /// What it said; `None` for a piece of a message that is not complete.
        message: Option<Message<'a>>,
    },
}

impl Decoder {
    /// Decodes exactly one frame from the front of `buf` and unmasks it there. Bytes behind the frame are left alone.
    ///
    /// `inflater` is `Some` exactly when permessage-deflate was agreed upon; it may be shared by all connections of a thread.
    ///
    /// # Errors
    /// The peer's [`Fault`]. A length above the limit is refused from the header alone, before the body arrives.
    ///
    /// Spec: RFC 6455 §5, RFC 7692 §6.
    /// Deviation: a length written in more bytes than it needs is accepted (RFC 6455 §5.2 forbids it): it is unambiguous, and the limits hold.
    #[inline]
    pub fn decode<'a>(
        &'a mut self,
        buf: &'a mut [u8],
        rules: &Rules,
        inflater: Option<&'a mut Inflater>,
    ) -> Result<Step<'a>, Fault> {
        // The shape of nearly everything a server reads: final, masked, fewer than 64 KiB of plain text, all there.
        // Anything else, faults included, takes the general way below, which judges it again from the start.
        if let [0x81, marker @ 0x80..=0xFE, a, b, ..] = *buf
            && self.pending.is_none()
            && rules.role == Role::Server
        {
            let is_short = marker < 0xFE;
            let len =
                if is_short { usize::from(marker & 0x7F) } else { usize::from(u16::from_be_bytes([a, b])) };
            let start = if is_short { 6 } else { 8 };
            if len <= rules.message_bytes_max && start + len <= buf.len() {
                let (header, payload) = buf[..start + len].split_at_mut(start);
                let key = [header[start - 4], header[start - 3], header[start - 2], header[start - 1]];
                mask(key, payload);
                let text = simdutf8::basic::from_utf8(payload).map_err(|_| Fault::BadUtf8)?;
                return Ok(Step::Frame { used: start + len, message: Some(Message::Text(text)) });
            }
        }
        self.decode_any(buf, rules, inflater)
    }

    /// Whether the peer is in the middle of a fragmented message.
    pub fn is_inside_message(&self) -> bool {
        self.pending.as_ref().is_some_and(|pending| !pending.is_finished)
    }

    fn decode_any<'a>(
        &'a mut self,
        buf: &'a mut [u8],
        rules: &Rules,
        inflater: Option<&'a mut Inflater>,
    ) -> Result<Step<'a>, Fault> {
        if self.pending.as_ref().is_some_and(|pending| pending.is_finished) {
            self.pending = None;
        }
        let header = match Header::parse(buf, rules.role)? {
            Parsed::Header(header) => header,
            Parsed::Incomplete { need } => return Ok(Step::Incomplete { need }),
        };
        self.check(&header, rules, inflater.is_some())?;
        // `check` has bounded the payload by a `usize` limit.
        let len = header.payload_len as usize;
        let used = header.len.saturating_add(len);
        if buf.len() < used {
            return Ok(Step::Incomplete { need: used });
        }
        let payload = &mut buf[header.len..used];
        mask(header.key, payload);
        let message = match header.op {
            OpCode::Ping => Some(Message::Ping(payload)),
            OpCode::Pong => Some(Message::Pong(payload)),
            OpCode::Close => Some(decode_close(payload)?),
            OpCode::Text | OpCode::Binary if header.fin => {
                let is_text = header.op == OpCode::Text;
                Some(match inflater {
                    Some(inflater) if header.rsv1 => {
                        data_message(is_text, inflater.inflate(payload, rules.message_bytes_max)?)?
                    }
                    _ => data_message(is_text, payload)?,
                })
            }
            OpCode::Text | OpCode::Binary => {
                self.pending = Some(Box::new(Pending {
                    is_text: header.op == OpCode::Text,
                    is_deflated: header.rsv1,
                    is_finished: false,
                    fragments: 1,
                    bytes: payload.to_vec(),
                }));
                None
            }
            OpCode::Continuation => self.continue_message(payload, header.fin, rules, inflater)?,
        };
        Ok(Step::Frame { used, message })
    }

    /// Judges everything that the header alone tells, so that no memory is spent on a frame that cannot be accepted.
    fn check(&self, header: &Header, rules: &Rules, may_deflate: bool) -> Result<(), Fault> {
        // RSV1 means "compressed" on the first frame of a message and nothing elsewhere (RFC 7692 §6).
        let may_set_rsv1 = may_deflate && matches!(header.op, OpCode::Text | OpCode::Binary);
        if header.rsv1 && !may_set_rsv1 {
            return Err(Fault::ReservedBits(0b100));
        }
        let (is_deflated, gathered) = match (header.op, &self.pending) {
            (OpCode::Close | OpCode::Ping | OpCode::Pong, _) => {
                // The order is by severity of the lie: a long control frame may be a whole attack, a fragment is a slip.
                return match (header.payload_len > 125, header.fin) {
                    (true, _) => Err(Fault::LongControl),
                    (false, false) => Err(Fault::FragmentedControl),
                    (false, true) => Ok(()),
                };
            }
            (OpCode::Continuation, None) => return Err(Fault::ContinuationWithoutStart),
            (OpCode::Continuation, Some(pending)) => {
                if pending.fragments >= rules.fragments_max {
                    return Err(Fault::TooManyFragments { max: rules.fragments_max });
                }
                (pending.is_deflated, pending.bytes.len())
            }
            (OpCode::Text | OpCode::Binary, Some(_)) => return Err(Fault::StartInsideMessage),
            (OpCode::Text | OpCode::Binary, None) => (header.rsv1, 0),
        };
        let max = if is_deflated { rules.deflated_bytes_max() } else { rules.message_bytes_max };
        let bytes = header.payload_len.saturating_add(gathered as u64);
        if bytes > max as u64 {
            return Err(Fault::MessageTooBig { bytes, max });
        }
        Ok(())
    }

    fn continue_message<'a>(
        &'a mut self,
        payload: &[u8],
        fin: bool,
        rules: &Rules,
        inflater: Option<&'a mut Inflater>,
    ) -> Result<Option<Message<'a>>, Fault> {
        let pending = self.pending.as_mut().ok_or(Fault::ContinuationWithoutStart)?;
        pending.bytes.extend_from_slice(payload);
        pending.fragments += 1;
        pending.is_finished = fin;
        if !fin {
            return Ok(None);
        }
        match inflater {
            Some(inflater) if pending.is_deflated => {
                let bytes = inflater.inflate(&pending.bytes, rules.message_bytes_max)?;
                data_message(pending.is_text, bytes).map(Some)
            }
            _ => data_message(pending.is_text, &pending.bytes).map(Some),
        }
    }
}

#[inline]
fn data_message(is_text: bool, payload: &[u8]) -> Result<Message<'_>, Fault> {
    if is_text {
        simdutf8::basic::from_utf8(payload).map(Message::Text).map_err(|_| Fault::BadUtf8)
    } else {
        Ok(Message::Binary(payload))
    }
}

/// RFC 6455 §5.5.1.
fn decode_close(payload: &[u8]) -> Result<Message<'_>, Fault> {
    match payload {
        [] => Ok(Message::Close(None, "")),
        [_] => Err(Fault::ShortClose),
        [high, low, reason @ ..] => {
            let code = CloseCode(u16::from_be_bytes([*high, *low]));
            if !code.is_sendable() {
                return Err(Fault::BadCloseCode(code.0));
            }
            let reason = str::from_utf8(reason).map_err(|_| Fault::BadUtf8)?;
            Ok(Message::Close(Some(code), reason))
        }
    }
}

/// A frame's first 2 to 14 bytes.
struct Header {
    fin: bool,
    rsv1: bool,
    op: OpCode,
    key: [u8; 4],
    /// Bytes of the header itself.
    len: usize,
    payload_len: u64,
}

enum Parsed {
    Header(Header),
    Incomplete { need: usize },
}

impl Header {
    #[inline]
    fn parse(buf: &[u8], role: Role) -> Result<Parsed, Fault> {
        let [first, second, rest @ ..] = buf else { return Ok(Parsed::Incomplete { need: 2 }) };
        if first & 0x30 != 0 {
            return Err(Fault::ReservedBits(first >> 4 & 0x7));
        }
        let op = OpCode::from_bits(first & 0x0F).ok_or(Fault::BadOpCode(first & 0x0F))?;
        let is_masked = second & 0x80 != 0;
        match (role, is_masked) {
            (Role::Server, false) => return Err(Fault::Unmasked),
            (Role::Client, true) => return Err(Fault::Masked),
            (Role::Server, true) | (Role::Client, false) => {}
        }
        let short_len = second & 0x7F;
        if op.is_control() && short_len > 125 {
            return Err(Fault::LongControl);
        }
        let extended = match short_len {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let key_len = if is_masked { 4 } else { 0 };
        let len = 2 + extended + key_len;
        if buf.len() < 2 + extended {
            return Ok(Parsed::Incomplete { need: len });
        }
        let (extended, rest) = rest.split_at(extended);
        let payload_len = match extended {
            [] => u64::from(short_len),
            extended => extended.iter().fold(0, |sum, &byte| sum << 8 | u64::from(byte)),
        };
        let key = match (is_masked, rest) {
            (false, _) => [0; 4],
            (true, [a, b, c, d, ..]) => [*a, *b, *c, *d],
            // The length is known, but the key is needed to go on; sizes are judged once it is there, 4 bytes later.
            (true, _) => return Ok(Parsed::Incomplete { need: len }),
        };
        Ok(Parsed::Header(Self {
            fin: first & 0x80 != 0,
            rsv1: first & 0x40 != 0,
            op,
            key,
            len,
            payload_len,
        }))
    }
}
