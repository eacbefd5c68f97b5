//! Puts the binary packets of the text parser together: a header, then as many binary messages as it announced.

use crate::placeholder::placeholders;
use crate::{Fault, Incoming, Limits, Payload};
use bytes::Bytes;
use std::borrow::Cow;

/// Holds the header of a binary packet until its attachments have come. One pointer in size while nothing is due.
///
/// For every text message: if [`is_waiting`](Self::is_waiting), that is [`Fault::UnexpectedText`]; else decode it, and when
/// `attachments` is above 0 call [`begin`](Self::begin). For every binary message: [`push`](Self::push), until it answers a packet.
/// After any fault the connection ends, so nothing is kept.
///
/// Spec: SIO5 "Packet encoding / Binary".
#[derive(Debug, Default)]
pub struct Assembler {
    pending: Option<Box<Pending>>,
}

#[derive(Debug)]
struct Pending {
    packet: OwnedIncoming,
    due: u32,
    bytes: usize,
}

impl Assembler {
    /// Whether attachments are due; only binary messages may come until they have.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.pending.is_some()
    }

    /// Takes a copy of a packet whose `attachments` are above 0.
    ///
    /// # Errors
    /// [`Fault::UnexpectedText`] when an earlier packet still waits, [`Fault::AssembledTooLarge`] when the header alone is, and
    /// [`Fault::AttachmentCount`] for a packet that announced none or can have none. All but the last are the peer's fault.
    pub fn begin(&mut self, header: &Incoming<'_>, limits: &Limits) -> Result<(), Fault> {
        if self.pending.take().is_some() {
            return Err(Fault::UnexpectedText);
        }
        let packet = OwnedIncoming::from_header(header).filter(|_| header.attachments > 0);
        let packet = packet.ok_or(Fault::AttachmentCount)?;
        let bytes = packet.elements().len();
        if bytes > limits.assembled_bytes_max {
            return Err(Fault::AssembledTooLarge { max: limits.assembled_bytes_max });
        }
        self.pending = Some(Box::new(Pending { packet, due: header.attachments, bytes }));
        Ok(())
    }

    /// Takes the next attachment; answers the packet when it was the last.
    ///
    /// # Errors
    /// [`Fault::UnexpectedBinary`] when none is due, [`Fault::AssembledTooLarge`], and with the last attachment
    /// [`Fault::Placeholder`] when the arguments name one that there is not. The peer's fault.
    pub fn push(&mut self, attachment: &[u8], limits: &Limits) -> Result<Option<OwnedIncoming>, Fault> {
        if self.pending.is_none() {
            return Err(Fault::UnexpectedBinary);
        }
        self.push_bytes(Bytes::copy_from_slice(attachment), limits)
    }

    /// As [`push`](Self::push), for a caller that has the bytes to itself already.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn push_bytes(&mut self, attachment: Bytes, limits: &Limits) -> Result<Option<OwnedIncoming>, Fault> {
        let mut pending = self.pending.take().ok_or(Fault::UnexpectedBinary)?;
        pending.bytes = pending.bytes.saturating_add(attachment.len());
        if pending.bytes > limits.assembled_bytes_max {
            return Err(Fault::AssembledTooLarge { max: limits.assembled_bytes_max });
        }
        pending.packet.attachments.push(attachment);
        pending.due -= 1;
        if pending.due > 0 {
            self.pending = Some(pending);
            return Ok(None);
        }
        let packet = pending.packet;
        let numbers = placeholders(packet.elements()).map_err(|_| Fault::Placeholder)?;
        if numbers.iter().any(|&num| num >= packet.attachments.len()) {
            return Err(Fault::Placeholder);
        }
        Ok(Some(packet))
    }
}

/// A whole binary packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedIncoming {
    /// As [`Incoming::namespace`].
    pub namespace: Box<str>,
    /// As [`Incoming::ack_id`].
    pub ack_id: Option<u64>,
    /// What the packet says.
    pub payload: OwnedPayload,
    /// The attachments; placeholder `num` in the elements means `attachments[num]`, and every placeholder has one.
    pub attachments: Vec<Bytes>,
}

/// What a binary packet says. The fields are those of [`Payload`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnedPayload {
    /// An event.
    Event {
        /// Its name.
        name: Box<str>,
        /// The arguments as JSON texts, with commas between them.
        elements: Box<[u8]>,
        /// How many arguments.
        count: u32,
    },
    /// The answer to an event.
    Ack {
        /// The arguments as JSON texts, with commas between them.
        elements: Box<[u8]>,
        /// How many arguments.
        count: u32,
    },
}

impl OwnedIncoming {
    /// The same packet as a borrowed one that announces no attachments, so that one piece of code can handle both.
    #[must_use]
    pub fn as_incoming(&self) -> Incoming<'_> {
        let payload = match &self.payload {
            OwnedPayload::Event { name, elements, count } => {
                Payload::Event { name: Cow::Borrowed(name), elements, count: *count }
            }
            OwnedPayload::Ack { elements, count } => Payload::Ack { elements, count: *count },
        };
        Incoming { namespace: &self.namespace, ack_id: self.ack_id, attachments: 0, payload }
    }

    fn from_header(header: &Incoming<'_>) -> Option<OwnedIncoming> {
        let payload = match &header.payload {
            Payload::Event { name, elements, count } => OwnedPayload::Event {
                name: Box::from(&**name),
                elements: Box::from(*elements),
                count: *count,
            },
            Payload::Ack { elements, count } => {
                OwnedPayload::Ack { elements: Box::from(*elements), count: *count }
            }
            Payload::Connect { .. } | Payload::Disconnect | Payload::ConnectError { .. } => return None,
        };
        let namespace = Box::from(header.namespace);
        Some(OwnedIncoming { namespace, ack_id: header.ack_id, payload, attachments: Vec::new() })
    }

    fn elements(&self) -> &[u8] {
        match &self.payload {
            OwnedPayload::Event { elements, .. } | OwnedPayload::Ack { elements, .. } => elements,
        }
    }
}
