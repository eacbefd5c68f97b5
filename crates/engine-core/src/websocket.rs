//! WebSocket links: frames in, staged bytes out.
//! Does not know descriptors or TLS. Invariant: what a link reads is handled before anything is written.

use eio_proto::{Data, Packet, Revision, TransportKind};
use ws_proto::{CloseCode, Fault, Message as Frame, OpCode, Step};

use crate::close::Goodbye;
use crate::link::{Link, LinkKey, Partial};
use crate::message::{Message, Wire};
use crate::moment::Moment;
use crate::reason::Reason;
use crate::session::{Opening, SessionKey, Transport};
use crate::shard::Shard;

/// Bytes gathered for one write. More than a socket buffer takes at once only waits in another buffer.
const GATHER_BYTES: usize = 64 * 1024;

/// The beginning of a frame at the end of what was read.
struct Unread {
    from: usize,
    /// How many bytes from there it takes to read on.
    need: usize,
}

/// Why no more frames are read for now.
enum End {
    Incomplete {
        need: usize,
    },
    /// A frame has ended the link.
    Closing,
    Fault(Fault),
}

impl Shard {
    /// A WebSocket without a `sid` opens a session; its first frame is the open packet.
    pub fn handle_open_websocket(&mut self, now: Moment, opening: Opening) -> LinkKey {
        let link = self.links.insert_with(|_| Link::new(SessionKey::NONE, opening.deflate));
        let session = self.open_session(now, opening, Transport::WebSocket(link));
        self.counters.sessions_opened_websocket += 1;
        if let Some(entry) = self.links.get_mut(link) {
            entry.session = session;
        }
        let mut packet = Vec::with_capacity(128);
        self.write_open(session, TransportKind::WebSocket, &mut packet);
        if let Some(entry) = self.links.get_mut(link) {
            // Staged, not queued: it goes before anything that opening the session may have queued.
            ws_proto::encode_frame(entry.stage(), OpCode::Text, &packet);
        }
        self.mark_link(link);
        link
    }

    /// The session that a link speaks for, or tries to.
    #[must_use]
    pub fn session_of(&self, link: LinkKey) -> Option<SessionKey> {
        self.links.get(link).map(|entry| entry.session).filter(|&session| session != SessionKey::NONE)
    }

    /// Bytes arrived on a link. They are unmasked in place.
    pub fn handle_read(&mut self, now: Moment, link: LinkKey, bytes: &mut [u8]) {
        let Some(entry) = self.links.get_mut(link) else { return };
        if entry.is_closing {
            return;
        }
        self.counters.bytes_in += bytes.len() as u64;
        let mut bytes = bytes;
        let mut partial = entry.partial.take();
        while let Some(mut frame) = partial.take() {
            // A frame that comes in pieces is put together; what follows it is handled where it lies.
            let lacking = frame.need.saturating_sub(frame.bytes.len()).min(bytes.len());
            let (head, rest) = bytes.split_at_mut(lacking);
            frame.bytes.extend_from_slice(head);
            bytes = rest;
            if frame.bytes.len() < frame.need {
                if let Some(entry) = self.links.get_mut(link) {
                    entry.partial = Some(frame);
                }
                return;
            }
            if let Some(Unread { from, need }) = self.handle_frames(now, link, &mut frame.bytes) {
                // Its header is whole by now, and tells how long it is.
                frame.bytes.drain(..from);
                frame.need = need;
                partial = Some(frame);
            }
        }
        if let Some(Unread { from, need }) = self.handle_frames(now, link, bytes)
            && let Some(entry) = self.links.get_mut(link)
        {
            entry.partial = Some(Box::new(Partial { bytes: bytes[from..].to_vec(), need }));
        }
    }

    /// Handles the whole frames at the front of `bytes`. Answers where an unfinished one begins, if the link is still
    /// read.
    fn handle_frames(&mut self, now: Moment, link: LinkKey, bytes: &mut [u8]) -> Option<Unread> {
        let entry = self.links.get_mut(link).filter(|entry| !entry.is_closing)?;
        let rules = self.rules;
        let may_inflate = entry.deflate;
        // Both are given back below; meanwhile messages may borrow from them while the shard handles them.
        let mut decoder = std::mem::take(&mut entry.decoder);
        let mut inflater = may_inflate.then(|| self.inflater.take().unwrap_or_default());
        let mut from = 0;
        let end = loop {
            match decoder.decode(&mut bytes[from..], &rules, inflater.as_mut()) {
                Ok(Step::Frame { used, message }) => {
                    from += used;
                    if let Some(message) = message {
                        self.handle_frame(now, link, message);
                        if self.links.get(link).is_none_or(|entry| entry.is_closing) {
                            break End::Closing;
                        }
                    }
                }
                Ok(Step::Incomplete { need }) => break End::Incomplete { need },
                Err(fault) => break End::Fault(fault),
            }
        };
        if may_inflate {
            self.inflater = inflater;
        }
        if let Some(entry) = self.links.get_mut(link) {
            entry.decoder = decoder;
        }
        match end {
            End::Incomplete { need } if from < bytes.len() => Some(Unread { from, need }),
            End::Incomplete { .. } | End::Closing => None,
            End::Fault(fault) => {
                self.handle_fault(now, link, &fault);
                None
            }
        }
    }

    /// The peer broke RFC 6455 or a limit: it is told the code, and its session ends.
    fn handle_fault(&mut self, now: Moment, link: LinkKey, fault: &Fault) {
        self.counters.faults_websocket += 1;
        let mut body = Vec::new();
        body.extend_from_slice(&fault.close_code().0.to_be_bytes());
        self.close_link_with(link, &body);
        self.handle_link_end(now, link, Reason::TransportError);
    }

    fn handle_frame(&mut self, now: Moment, link: LinkKey, frame: Frame<'_>) {
        let Some(session) = self.session_of(link) else { return };
        match frame {
            Frame::Text(text) => {
                let Some(entry) = self.sessions.get(session) else { return };
                match entry.transport {
                    Transport::WebSocket(current) if current == link => {
                        let packet = match entry.revision {
                            Revision::V4 => eio_proto::decode_text(text),
                            Revision::V3 => eio_proto::decode_text_v3(text),
                        };
                        match packet {
                            Ok(packet) => self.handle_packet(now, session, packet),
                            Err(_) => self.fail_packet(now, session),
                        }
                    }
                    Transport::Probing(ref probe) if probe.link == link => {
                        self.handle_probe_text(now, session, link, text);
                    }
                    _ => {}
                }
            }
            Frame::Binary(data) => {
                let Some(entry) = self.sessions.get(session) else { return };
                match entry.transport {
                    Transport::WebSocket(current) if current == link => {
                        let packet = match entry.revision {
                            Revision::V4 => Ok(Packet::Message(Data::Binary(data.into()))),
                            Revision::V3 => eio_proto::decode_binary_v3(data),
                        };
                        match packet {
                            Ok(packet) => self.handle_packet(now, session, packet),
                            Err(_) => self.fail_packet(now, session),
                        }
                    }
                    Transport::Probing(ref probe) if probe.link == link => self.abandon_probe(session, link),
                    _ => {}
                }
            }
            Frame::Ping(data) => {
                let pong = Message::websocket_pong(data);
                if let Some(entry) = self.links.get_mut(link) {
                    for frame in pong.frames() {
                        frame.write_plain(entry.stage());
                    }
                    if entry.staged_bytes() > self.config.outbox_bytes_max {
                        self.evict(now, session);
                        return;
                    }
                }
                self.mark_link(link);
            }
            Frame::Pong(_) => {}
            Frame::Close(code, _) => {
                // RFC 6455 §5.5.1: answer with the code that came.
                let body = code.map_or_else(Vec::new, |CloseCode(code)| code.to_be_bytes().to_vec());
                self.close_link_with(link, &body);
                self.handle_link_end(now, link, Reason::TransportClose);
            }
        }
    }

    /// An Engine.IO packet that could not be decoded.
    pub(crate) fn fail_packet(&mut self, now: Moment, session: SessionKey) {
        self.counters.faults_engine += 1;
        self.close_session(now, session, Reason::ParseError, Goodbye::Prompt);
    }

    /// The link is gone: end of file, reset, or closed by the driver after [`Output::CloseLink`].
    ///
    /// [`Output::CloseLink`]: crate::Output::CloseLink
    pub fn handle_link_closed(&mut self, now: Moment, link: LinkKey) {
        if self.links.get(link).is_none() {
            return;
        }
        self.handle_link_end(now, link, Reason::TransportClose);
        self.links.remove(link);
    }

    /// Ends what a link carried: its session, or only its attempt to take a session over.
    fn handle_link_end(&mut self, now: Moment, link: LinkKey, reason: Reason) {
        let Some(session) = self.session_of(link) else { return };
        let Some(entry) = self.sessions.get(session) else { return };
        match entry.transport {
            Transport::WebSocket(current) if current == link => {
                self.close_session(now, session, reason, Goodbye::Answer);
            }
            Transport::Probing(ref probe) if probe.link == link => self.abandon_probe(session, link),
            _ => {}
        }
    }

    /// The next link that has something to write; `None` when there is none. Write what
    /// [`Shard::gather`] gives for it.
    pub fn poll_transmit(&mut self) -> Option<LinkKey> {
        while let Some(link) = self.dirty_links.pop_front() {
            if let Some(entry) = self.links.get_mut(link) {
                entry.is_dirty = false;
                if !entry.is_blocked {
                    return Some(link);
                }
            }
        }
        if self.dirty_links.capacity() > 65_536 {
            self.dirty_links = Default::default();
        }
        None
    }

    /// Appends up to about 64 KiB of what a link has to write. All of it counts as sent, unless the driver gives
    /// the rest back by [`Shard::handle_unsent`]. If there is more, the link is named again by
    /// [`Shard::poll_transmit`].
    #[inline]
    pub fn gather(&mut self, link: LinkKey, out: &mut Vec<u8>) {
        let Some(entry) = self.links.get_mut(link) else { return };
        let before = out.len();
        if let Some(staged) = entry.unsent.take() {
            out.extend_from_slice(&staged);
        }
        let session = entry.session;
        if !entry.is_closing {
            self.drain_outbox(session, link, out, GATHER_BYTES);
        }
        self.counters.bytes_out += (out.len() - before) as u64;
    }

    /// Appends queued messages of the link's session until `out` has grown by `bytes_max`.
    pub(crate) fn drain_outbox(
        &mut self,
        session: SessionKey,
        link: LinkKey,
        out: &mut Vec<u8>,
        bytes_max: usize,
    ) {
        let Some(entry) = self.sessions.get_mut(session) else { return };
        if entry.link() != Some(link) {
            return;
        }
        let deflates = self.links.get(link).is_some_and(|link| link.deflate);
        let wire = Wire {
            revision: entry.revision,
            base64: entry.base64,
            deflate_threshold: if deflates { self.config.deflate_threshold } else { None },
        };
        let enough = out.len().saturating_add(bytes_max);
        while out.len() < enough {
            let Some(message) = entry.outbox.pop() else {
                entry.outbox.release(&mut self.rings);
                return;
            };
            message.write(wire, &mut self.deflater, out);
        }
        if entry.outbox.is_empty() {
            entry.outbox.release(&mut self.rings);
        } else {
            self.mark_link(link);
        }
    }

    /// The kernel did not take `rest` of what was gathered last: nothing more is gathered for this link until
    /// [`Shard::handle_writable`].
    pub fn handle_unsent(&mut self, now: Moment, link: LinkKey, rest: &[u8]) {
        let Some(entry) = self.links.get_mut(link) else { return };
        self.counters.bytes_out = self.counters.bytes_out.saturating_sub(rest.len() as u64);
        entry.is_blocked = true;
        let staged = entry.stage();
        // Control frames may have been staged since; they come after what was gathered before them.
        staged.splice(0..0, rest.iter().copied());
        let session = entry.session;
        if self.sessions.get(session).is_some_and(|entry| {
            entry.outbox.bytes() > self.config.outbox_bytes_max && entry.link() == Some(link)
        }) {
            self.evict(now, session);
        }
    }

    /// The kernel takes bytes again.
    pub fn handle_writable(&mut self, link: LinkKey) {
        if let Some(entry) = self.links.get_mut(link)
            && entry.is_blocked
        {
            entry.is_blocked = false;
            self.mark_link(link);
        }
    }

    /// Whether a link that was asked to close has nothing left to write.
    #[must_use]
    pub fn is_drained(&self, link: LinkKey) -> bool {
        self.links.get(link).is_none_or(|entry| entry.unsent.is_none())
    }
}
