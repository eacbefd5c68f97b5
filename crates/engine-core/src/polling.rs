//! The polling transport: sessions that open by GET, GETs that wait, and POSTs.
//! Does not know HTTP beyond "a request" and its reply. Invariant: every request is replied to exactly once.
//!
//! EIO4 "HTTP long-polling", and the concurrency rules that go with it.

use std::rc::Rc;

use eio_proto::{Data, HandshakeFault, Packet, Revision, Sid, TransportKind};

use crate::close::Goodbye;
use crate::message::{FrameKind, Message};
use crate::moment::Moment;
use crate::output::{Pending, Reply};
use crate::reason::Reason;
use crate::session::{Heartbeat, Opening, RequestId, Session, SessionKey, Transport};
use crate::shard::Shard;

impl Shard {
    /// A GET without a `sid` opens a session. The reply holds the open packet and nothing else.
    pub fn handle_open_polling(&mut self, now: Moment, opening: Opening, request: RequestId) -> SessionKey {
        let session = self.open_session(now, opening, Transport::Polling(Box::default()));
        self.counters.sessions_opened_polling += 1;
        let mut packet = Vec::new();
        let sid = self.write_open(session, TransportKind::Polling, &mut packet);
        let reply = match self.payload_of(session, &packet) {
            Reply::Payload { body, is_octets, .. } => {
                Reply::Payload { body, is_octets, compress: true, opens: Some((session, sid)) }
            }
            other => other,
        };
        self.reply(request, reply);
        session
    }

    pub(crate) fn open_session(&mut self, now: Moment, opening: Opening, transport: Transport) -> SessionKey {
        let heartbeat =
            Heartbeat::begin(opening.revision, now, self.config.ping_interval, self.config.ping_timeout);
        // Without namespaces there is none to join.
        let connect_by = (!self.config.raw_messages).then(|| now + self.config.connect_timeout);
        let session = self.sessions.insert_with(|_| Session {
            sid: Sid::new([0; 15]),
            revision: opening.revision,
            base64: opening.base64,
            is_javascript: opening.is_javascript,
            is_dirty: false,
            transport,
            heartbeat,
            connect_by,
            timer_tick: 0,
            outbox: Default::default(),
            sockets: Default::default(),
            assembler: Default::default(),
        });
        let sid = self.make_sid(session.slot());
        if let Some(entry) = self.sessions.get_mut(session) {
            entry.sid = sid;
        }
        self.schedule(session);
        if opening.revision == Revision::V3 && !self.config.raw_messages {
            // Revision 3 joins the main namespace without asking.
            self.begin_connect(now, session, "/", None);
        }
        session
    }

    /// Appends the open packet. EIO4 "Handshake".
    pub(crate) fn write_open(&self, session: SessionKey, kind: TransportKind, out: &mut Vec<u8>) -> Sid {
        let sid = self.sessions.get(session).map_or(Sid::new([0; 15]), |entry| entry.sid);
        let may_upgrade =
            kind == TransportKind::Polling && self.config.allow_upgrades && self.config.transports.websocket;
        let open = eio_proto::Open {
            sid,
            upgrades: if may_upgrade { &[TransportKind::WebSocket] } else { &[] },
            ping_interval: self.config.ping_interval,
            ping_timeout: self.config.ping_timeout,
            payload_bytes_max: self.config.payload_bytes_max,
        };
        eio_proto::encode_open(out, &open);
        sid
    }

    /// The session that a request names, if it may be spoken to by polling. A session whose time is up is closed
    /// here, however coarse the wheel: whoever asks after the deadline finds it gone.
    fn polled_session(
        &mut self,
        now: Moment,
        sid: Sid,
        revision: Revision,
    ) -> Result<SessionKey, HandshakeFault> {
        let session = self.find_session(sid).ok_or(HandshakeFault::SessionUnknown)?;
        self.check_deadline(now, session);
        let entry = self.sessions.get(session).ok_or(HandshakeFault::SessionUnknown)?;
        if matches!(entry.transport, Transport::WebSocket(_)) {
            return Err(HandshakeFault::TransportMismatch);
        }
        if entry.revision != revision {
            return Err(HandshakeFault::ProtocolMismatch);
        }
        Ok(session)
    }

    /// A GET with a `sid`: replied to as soon as there is something to send. A second one while the first waits
    /// breaks the session.
    pub fn handle_get(&mut self, now: Moment, sid: Sid, revision: Revision, request: RequestId) {
        let session = match self.polled_session(now, sid, revision) {
            Ok(session) => session,
            Err(fault) => return self.refuse_request(request, fault),
        };
        let Some(entry) = self.sessions.get_mut(session) else { return };
        if matches!(entry.transport, Transport::Closing(_)) {
            self.answer_closing(session, request);
            return;
        }
        let Some(poll) = entry.transport.poll_mut() else { return };
        if poll.get.is_some() {
            self.counters.faults_overlap += 1;
            self.close_session(now, session, Reason::TransportError, Goodbye::Prompt);
            self.reply(request, Reply::BadRequest);
            return;
        }
        poll.get = Some(request);
        if !entry.outbox.is_empty() {
            self.mark_dirty(session);
        }
    }

    /// A POST with a `sid` begins. `Ok`: read its body, then call [`Shard::handle_post`]. `Err`: reply with this.
    ///
    /// # Errors
    /// What to reply: the session is unknown or not polling, or another POST of it is still arriving, in which case
    /// the session is closed and the first one is replied to as well.
    pub fn handle_post_begin(
        &mut self,
        now: Moment,
        sid: Sid,
        revision: Revision,
        request: RequestId,
    ) -> Result<SessionKey, Reply> {
        let session = self.polled_session(now, sid, revision).map_err(|fault| {
            self.counters.requests_refused += 1;
            Reply::Refused(fault)
        })?;
        let Some(poll) = self.sessions.get_mut(session).and_then(|entry| entry.transport.poll_mut()) else {
            return Err(Reply::BadRequest);
        };
        if poll.post.is_some() {
            self.counters.faults_overlap += 1;
            self.close_session(now, session, Reason::TransportError, Goodbye::Prompt);
            return Err(Reply::BadRequest);
        }
        poll.post = Some(request);
        Ok(session)
    }

    /// The whole body of a POST has arrived. Its packets are handled before it is replied to.
    pub fn handle_post(
        &mut self,
        now: Moment,
        session: SessionKey,
        request: RequestId,
        body: &[u8],
        is_octets: bool,
    ) {
        if !self.end_post(session, request) {
            return;
        }
        let Some(entry) = self.sessions.get(session) else {
            return self.reply(request, Reply::BadRequest);
        };
        if is_octets && entry.revision == Revision::V4 {
            self.counters.faults_engine += 1;
            self.close_session(now, session, Reason::TransportError, Goodbye::Prompt);
            return self.reply(request, Reply::BadRequest);
        }
        let revision = entry.revision;
        let packets_max = self.config.post_packets_max;
        let outcome = match (revision, is_octets) {
            (Revision::V4, _) => {
                self.handle_packets(now, session, eio_proto::decode_payload(body, packets_max))
            }
            (Revision::V3, false) => {
                self.handle_packets(now, session, eio_proto::decode_payload_v3_text(body, packets_max))
            }
            (Revision::V3, true) => {
                self.handle_packets(now, session, eio_proto::decode_payload_v3_binary(body, packets_max))
            }
        };
        match outcome {
            Ok(()) => self.reply(request, Reply::Ok),
            Err(()) => {
                self.counters.faults_engine += 1;
                // What came before the bad packet is answered first: the session goes at the end of the turn.
                self.condemned.push(session);
                self.reply(request, Reply::BadRequest);
            }
        }
    }

    fn handle_packets<'b, F>(
        &mut self,
        now: Moment,
        session: SessionKey,
        packets: impl Iterator<Item = Result<Packet<'b>, F>>,
    ) -> Result<(), ()> {
        for packet in packets {
            let packet = packet.map_err(|_| ())?;
            self.handle_packet(now, session, packet);
            if self.sessions.get(session).is_none() {
                break;
            }
        }
        Ok(())
    }

    /// A POST's body was larger than [`Config::payload_bytes_max`](crate::Config::payload_bytes_max) and has been
    /// refused by the driver with 413. The session lives.
    pub fn handle_post_refused(&mut self, session: SessionKey, request: RequestId) {
        self.counters.faults_engine += 1;
        self.end_post(session, request);
    }

    /// The link of a request was cut before it was replied to: EIO4 has the session end with it.
    /// Once a WebSocket has taken over it no longer does.
    pub fn handle_request_lost(&mut self, now: Moment, session: SessionKey, request: RequestId) {
        if self.forget_late_post(session, request) {
            return;
        }
        let Some(poll) = self.sessions.get_mut(session).and_then(|entry| entry.transport.poll_mut()) else {
            return;
        };
        let is_get = poll.get == Some(request);
        let is_post = poll.post == Some(request);
        if is_get {
            poll.get = None;
        }
        if is_post {
            poll.post = None;
        }
        if is_get || is_post {
            self.close_session(now, session, Reason::TransportError, Goodbye::Prompt);
        }
    }

    /// Whoever carries a GET that waits is about to stop: it is replied to now, with a noop if there is nothing to send. Its
    /// peer asks again, on another way.
    pub fn handle_poll_ending(&mut self, sid: Sid) {
        let Some(session) = self.find_session(sid) else { return };
        let Some(entry) = self.sessions.get_mut(session) else { return };
        let has_nothing = entry.outbox.is_empty();
        let Some(get) = entry.transport.poll_mut().and_then(|poll| poll.get.take()) else { return };
        let reply = if has_nothing { self.payload_of(session, b"6") } else { self.next_payload(session) };
        self.reply(get, reply);
    }

    /// Clears the note of a running POST. `false` if it was replied to already.
    fn end_post(&mut self, session: SessionKey, request: RequestId) -> bool {
        if self.forget_late_post(session, request) {
            return true;
        }
        let Some(entry) = self.sessions.get_mut(session) else { return false };
        match entry.transport.poll_mut() {
            Some(poll) if poll.post == Some(request) => {
                poll.post = None;
                true
            }
            Some(_) | None => false,
        }
    }

    /// A POST whose session moved to WebSocket while the body arrived: what came is still good.
    fn forget_late_post(&mut self, session: SessionKey, request: RequestId) -> bool {
        let found = self.late_posts.iter().position(|&late| late == (session, request));
        found.map(|index| self.late_posts.swap_remove(index)).is_some()
    }

    /// Replies to a waiting GET if there is anything to send.
    pub(crate) fn answer_poll(&mut self, session: SessionKey) {
        let Some(entry) = self.sessions.get_mut(session) else { return };
        if entry.outbox.is_empty() {
            return;
        }
        let Some(get) = entry.transport.poll_mut().and_then(|poll| poll.get.take()) else { return };
        let reply = self.next_payload(session);
        self.reply(get, reply);
    }

    /// Everything queued that fits one reply. EIO4 "HTTP long-polling".
    pub(crate) fn next_payload(&mut self, session: SessionKey) -> Reply {
        let payload = self.gather_payload(session);
        self.count_reply(payload.into_reply())
    }

    fn gather_payload(&mut self, session: SessionKey) -> PollPayload {
        let mut payload = PollPayload::default();
        let (packets_max, bytes_max) = (self.config.poll_packets_max, self.config.poll_bytes_max);
        if let Some(entry) = self.sessions.get_mut(session) {
            payload.revision = entry.revision;
            payload.base64 = entry.base64;
            while let Some(message) = entry.outbox.front() {
                let is_first = payload.packets.is_empty();
                let fits = payload.packets.len() + message.packets() <= packets_max
                    && payload.bytes + message.weight() <= bytes_max;
                if !is_first && !fits {
                    break;
                }
                if let Some(message) = entry.outbox.pop() {
                    payload.add(&message);
                }
            }
            entry.outbox.release(&mut self.rings);
        }
        payload
    }

    /// Whether one polling reply will hold all of these behind what is queued already: their peer has all of them then, or
    /// none. While a WebSocket takes over, that is known only of a GET that waits.
    pub(crate) fn fits_one_reply(&self, session: SessionKey, messages: &[Rc<Message>]) -> bool {
        let Some(entry) = self.sessions.get(session) else { return false };
        let is_polled = match &entry.transport {
            Transport::Polling(_) => true,
            Transport::Probing(probe) => probe.poll.get.is_some(),
            Transport::WebSocket(_) | Transport::Closing(_) => false,
        };
        let packets: usize = messages.iter().map(|message| message.packets()).sum();
        let bytes: usize = messages.iter().map(|message| message.weight()).sum();
        is_polled
            && entry.outbox.packets() + packets <= self.config.poll_packets_max
            && entry.outbox.bytes() + bytes <= self.config.poll_bytes_max
    }

    /// A reply of one packet that is not queued.
    pub(crate) fn payload_of(&mut self, session: SessionKey, packet: &[u8]) -> Reply {
        let mut payload = PollPayload::default();
        if let Some(entry) = self.sessions.get(session) {
            payload.revision = entry.revision;
            payload.base64 = entry.base64;
        }
        payload.add_text(packet);
        self.count_reply(payload.into_reply())
    }

    fn count_reply(&mut self, reply: Reply) -> Reply {
        if let Reply::Payload { body, .. } = &reply {
            self.counters.bytes_out += body.len() as u64;
        }
        reply
    }

    pub(crate) fn reply(&mut self, request: RequestId, reply: Reply) {
        self.push_output(Pending::Reply { request, reply: Some(Box::new(reply)) });
    }

    pub(crate) fn refuse_request(&mut self, request: RequestId, fault: HandshakeFault) {
        self.counters.requests_refused += 1;
        self.reply(request, Reply::Refused(fault));
    }
}

/// Packets on their way into one reply, in the framing of the session's revision.
struct PollPayload {
    revision: Revision,
    base64: bool,
    packets: Vec<(FrameKind, Vec<u8>)>,
    bytes: usize,
    compress: bool,
}

impl Default for PollPayload {
    fn default() -> Self {
        Self { revision: Revision::V4, base64: false, packets: Vec::new(), bytes: 0, compress: false }
    }
}

impl PollPayload {
    fn add(&mut self, message: &Message) {
        self.compress |= message.compress();
        for frame in message.frames().filter(|frame| frame.kind() != FrameKind::Control) {
            self.bytes += frame.payload().len();
            self.packets.push((frame.kind(), frame.payload().to_vec()));
        }
    }

    fn add_text(&mut self, packet: &[u8]) {
        self.bytes += packet.len();
        self.packets.push((FrameKind::Text, packet.to_vec()));
    }

    fn into_reply(self) -> Reply {
        let has_binary = self.packets.iter().any(|(kind, _)| *kind == FrameKind::Binary);
        let is_octets = self.revision == Revision::V3 && has_binary && !self.base64;
        let mut body = Vec::with_capacity(self.bytes + self.packets.len() * 8);
        match (self.revision, is_octets) {
            (Revision::V4, _) => {
                let mut encoder = eio_proto::PayloadEncoder::new(&mut body);
                for (kind, packet) in &self.packets {
                    match kind {
                        FrameKind::Binary => encoder.push(&binary(packet)),
                        FrameKind::Text | FrameKind::Control => encoder.push_encoded(packet),
                    }
                }
            }
            (Revision::V3, false) => {
                let mut encoder = eio_proto::PayloadEncoderV3::new(&mut body);
                for (kind, packet) in &self.packets {
                    match kind {
                        FrameKind::Binary => encoder.push(&binary(packet)),
                        FrameKind::Text | FrameKind::Control => encoder.push_encoded(text_of(packet)),
                    }
                }
            }
            (Revision::V3, true) => {
                for (kind, packet) in &self.packets {
                    match kind {
                        FrameKind::Binary => eio_proto::encode_payload_v3_binary(&mut body, &binary(packet)),
                        FrameKind::Text | FrameKind::Control => {
                            eio_proto::encode_payload_v3_binary_text(&mut body, text_of(packet));
                        }
                    }
                }
            }
        }
        Reply::Payload { body, is_octets, compress: self.compress, opens: None }
    }
}

fn binary(data: &[u8]) -> Packet<'_> {
    Packet::Message(Data::Binary(data.into()))
}

fn text_of(packet: &[u8]) -> &str {
    std::str::from_utf8(packet).expect("invariant: text frames are made from text")
}
