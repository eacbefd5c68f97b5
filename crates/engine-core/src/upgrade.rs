//! The move of a session from polling to WebSocket. EIO4 "Upgrade".
//! Invariant: until the upgrade packet comes, polling speaks for the session and loses nothing.

use eio_proto::{HandshakeFault, Packet, Revision, Sid};
use std::time::Duration;
use ws_proto::OpCode;

use crate::link::{Link, LinkKey};
use crate::moment::Moment;
use crate::session::{Closing, Heartbeat, Probe, SessionKey, Transport};
use crate::shard::Shard;

/// How often a waiting GET is answered with a noop while a probe is underway, so that the peer can pause polling.
/// The reference server's figure; its peers wait for it.
const NOOP_INTERVAL: Duration = Duration::from_millis(100);

impl Shard {
    /// Whether a request to upgrade a session makes sense, before it is switched over.
    ///
    /// # Errors
    /// How to refuse it: the session is unknown, or of another revision.
    pub fn check_upgrade(&mut self, now: Moment, sid: Sid, revision: Revision) -> Result<(), HandshakeFault> {
        let fault = match self.find_session(sid) {
            None => HandshakeFault::SessionUnknown,
            Some(session) => {
                self.check_deadline(now, session);
                match self.sessions.get(session) {
                    None => HandshakeFault::SessionUnknown,
                    Some(entry) if entry.revision != revision => HandshakeFault::ProtocolMismatch,
                    Some(_) => return Ok(()),
                }
            }
        };
        self.counters.requests_refused += 1;
        Err(fault)
    }

    /// A WebSocket with a `sid` wants to take a polling session over. The link that is answered may be told to close
    /// at once: a second WebSocket for one session is let in and shown out, while the session goes on.
    ///
    /// # Errors
    /// How to refuse the request before it is switched over: the session is unknown, or of another revision.
    pub fn handle_upgrade(
        &mut self,
        now: Moment,
        sid: Sid,
        revision: Revision,
        deflate: bool,
    ) -> Result<LinkKey, HandshakeFault> {
        self.check_upgrade(now, sid, revision)?;
        let Some(session) = self.find_session(sid) else { return Err(HandshakeFault::SessionUnknown) };
        let until = now + self.config.upgrade_timeout;
        let may_upgrade = self.config.allow_upgrades && self.config.transports.websocket;
        let Some(entry) = self.sessions.get_mut(session) else { return Err(HandshakeFault::SessionUnknown) };
        let link = self.links.insert_with(|_| Link::new(session, deflate));
        match &mut entry.transport {
            Transport::Polling(poll) if may_upgrade => {
                let poll = std::mem::take(&mut **poll);
                entry.transport = Transport::Probing(Box::new(Probe {
                    poll,
                    link,
                    until,
                    noop_at: None,
                    is_closing: false,
                }));
                self.schedule(session);
            }
            Transport::Polling(_)
            | Transport::Probing(_)
            | Transport::WebSocket(_)
            | Transport::Closing(_) => {
                self.counters.upgrades_failed += 1;
                if let Some(entry) = self.links.get_mut(link) {
                    entry.session = SessionKey::NONE;
                }
                self.close_link(link);
            }
        }
        Ok(link)
    }

    pub(crate) fn handle_probe_text(&mut self, now: Moment, session: SessionKey, link: LinkKey, text: &str) {
        // Probe packets look the same in both revisions.
        match eio_proto::decode_text(text) {
            Ok(Packet::Ping("probe")) => {
                if let Some(entry) = self.links.get_mut(link) {
                    ws_proto::encode_frame(entry.stage(), OpCode::Text, b"3probe");
                }
                self.mark_link(link);
                if let Some(entry) = self.sessions.get_mut(session)
                    && let Transport::Probing(probe) = &mut entry.transport
                {
                    probe.noop_at = Some(now + NOOP_INTERVAL);
                }
                self.schedule(session);
            }
            Ok(Packet::Upgrade) => self.finish_upgrade(now, session, link),
            Ok(_) | Err(_) => self.abandon_probe(session, link),
        }
    }

    /// Answers a waiting GET with a noop, and says when to look again.
    pub(crate) fn send_noop(&mut self, now: Moment, session: SessionKey) {
        let Some(entry) = self.sessions.get_mut(session) else { return };
        let Transport::Probing(probe) = &mut entry.transport else { return };
        probe.noop_at = Some(now + NOOP_INTERVAL);
        if let Some(get) = probe.poll.get.take() {
            let reply = self.payload_of(session, b"6");
            self.reply(get, reply);
        }
    }

    fn finish_upgrade(&mut self, now: Moment, session: SessionKey, link: LinkKey) {
        let Some(entry) = self.sessions.get_mut(session) else { return };
        let Transport::Probing(probe) = &mut entry.transport else { return };
        let waiting = probe.poll.get.take();
        let posting = probe.poll.post.take();
        let is_closing = probe.is_closing;
        entry.transport = Transport::WebSocket(link);
        // A pong that was due by polling may have been overtaken: begin anew on the new transport.
        entry.heartbeat =
            Heartbeat::begin(entry.revision, now, self.config.ping_interval, self.config.ping_timeout);
        self.counters.upgrades += 1;
        if let Some(get) = waiting {
            let reply = self.payload_of(session, b"6");
            self.reply(get, reply);
        }
        if let Some(post) = posting {
            self.late_posts.push((session, post));
        }
        if is_closing {
            return self.finish_closing(now, session, link);
        }
        self.schedule(session);
        self.mark_dirty(session);
    }

    /// Gives the attempt up: the link closes, the session goes on by polling.
    pub(crate) fn abandon_probe(&mut self, session: SessionKey, link: LinkKey) {
        self.counters.upgrades_failed += 1;
        if let Some(entry) = self.sessions.get_mut(session)
            && let Transport::Probing(probe) = &mut entry.transport
        {
            let mut poll = std::mem::take(&mut probe.poll);
            if probe.is_closing {
                let until = probe.until + self.config.close_grace;
                let waiting = poll.get.take();
                entry.transport = Transport::Closing(Box::new(Closing { until }));
                self.schedule(session);
                if let Some(get) = waiting {
                    self.answer_closing(session, get);
                }
            } else {
                entry.transport = Transport::Polling(Box::new(poll));
            }
        }
        if let Some(entry) = self.links.get_mut(link) {
            entry.session = SessionKey::NONE;
        }
        self.close_link(link);
    }
}
