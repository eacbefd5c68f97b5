//! Ends sessions: what the peer still gets, and in what order sockets, transport and session go.
//! Invariant: after `close_session` the key is dead, or the session is `Closing` and has no sockets.

use std::time::Duration;

use crate::link::LinkKey;
use crate::message::Message;
use crate::moment::Moment;
use crate::output::{Pending, Reply};
use crate::reason::Reason;
use crate::session::{Closing, RequestId, SessionKey, Transport};
use crate::shard::Shard;

/// Between the last message of a closed session and the close frame. JavaScript clients look at a message a moment
/// after it came, but at the close frame at once: in one read, the frame would hide why the session ended.
const FAREWELL_DELAY: Duration = Duration::from_millis(5);

/// How a session takes its leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Goodbye {
    /// What is queued is sent first, then the close packet or frame. EIO4 "Close".
    Graceful,
    /// What is queued is dropped; a waiting GET gets the close packet, a WebSocket its close frame.
    Prompt,
    /// The peer said goodbye first: a waiting GET ends with a noop, a WebSocket with the answering close frame.
    Answer,
    /// The link is gone or must not be written to.
    Abrupt,
}

impl Shard {
    /// Closes a session on behalf of the application, after what is queued has been sent. EIO4 "Close".
    pub fn close(&mut self, now: Moment, session: SessionKey) {
        self.close_session(now, session, Reason::ForcedClose, Goodbye::Graceful);
    }

    /// Closes every session because the server stops; what is queued is dropped. Links get a close frame, not an
    /// Engine.IO close packet, so that peers come back by themselves: python-socketio takes a close packet as final.
    /// A waiting GET has nothing else to end with, and gets one. EIO4 "Close".
    pub fn shut_down(&mut self, now: Moment) {
        let all: Vec<SessionKey> = self.sessions.iter().map(|(key, _)| key).collect();
        for session in all {
            self.close_session(now, session, Reason::ServerShuttingDown, Goodbye::Prompt);
        }
    }

    /// Disconnects up to `count` sessions because the server is draining. Answers how many are left.
    pub fn drain(&mut self, now: Moment, count: usize) -> usize {
        let some: Vec<SessionKey> = self.sessions.iter().map(|(key, _)| key).take(count).collect();
        for session in some {
            self.close_session(now, session, Reason::ServerShuttingDown, Goodbye::Prompt);
        }
        self.sessions.len()
    }

    pub(crate) fn close_session(
        &mut self,
        now: Moment,
        session: SessionKey,
        reason: Reason,
        goodbye: Goodbye,
    ) {
        let Some(entry) = self.sessions.get_mut(session) else { return };
        match &entry.transport {
            Transport::Closing(_) => {
                // Only the wait for the last GET is left; anything but another request to close gently ends it.
                if goodbye != Goodbye::Graceful {
                    self.remove_session(session);
                }
                return;
            }
            Transport::Probing(probe) if probe.is_closing => {
                if goodbye == Goodbye::Graceful {
                    return;
                }
            }
            Transport::Polling(_) | Transport::Probing(_) | Transport::WebSocket(_) => {
                let sockets = entry.sockets.clone();
                for slot in sockets {
                    if let Some(socket) = self.sockets.key_at(slot) {
                        self.disconnect_socket(now, socket, reason);
                    }
                }
                self.counters.sessions_closed += 1;
                self.push_output(Pending::SessionClosed { session, reason });
            }
        }

        let Some(entry) = self.sessions.get_mut(session) else { return };
        entry.sockets.clear();
        let keeps_queue = !entry.outbox.is_empty();
        match &mut entry.transport {
            Transport::Probing(probe) if goodbye == Goodbye::Graceful => {
                // The peer may have sent its upgrade packet already, and not look at polling any more: see the
                // attempt through, then close whichever transport it left.
                probe.is_closing = true;
                self.schedule(session);
            }
            Transport::WebSocket(link) => {
                let link = *link;
                self.close_session_link(now, session, link, goodbye);
                self.remove_session(session);
            }
            Transport::Polling(_) | Transport::Probing(_) => {
                let mut open = None;
                if let Some(poll) = entry.transport.poll_mut() {
                    open = poll.get.take();
                    if let Some(post) = poll.post.take() {
                        self.reply(post, Reply::BadRequest);
                    }
                }
                if let Some(entry) = self.sessions.get_mut(session)
                    && let Transport::Probing(probe) = &entry.transport
                {
                    let link = probe.link;
                    self.close_link(link);
                }
                match (open, goodbye == Goodbye::Graceful) {
                    (Some(get), true) if keeps_queue => {
                        // The close packet waits for the next GET: JavaScript clients act on it before they look at
                        // a message that came in the same payload.
                        let queued = self.next_payload(session);
                        self.reply(get, queued);
                        self.linger(now, session);
                    }
                    (Some(get), _) => {
                        let packet: &[u8] = if goodbye == Goodbye::Answer { b"6" } else { b"1" };
                        let reply = self.payload_of(session, packet);
                        self.reply(get, reply);
                        self.remove_session(session);
                    }
                    (None, true) => self.linger(now, session),
                    (None, false) => self.remove_session(session),
                }
            }
            Transport::Closing(_) => {}
        }
    }

    /// Replies to a GET of a session that is closing: what is queued, and when there is nothing left, the end.
    pub(crate) fn answer_closing(&mut self, session: SessionKey, get: RequestId) {
        let Some(entry) = self.sessions.get(session) else { return };
        if entry.outbox.is_empty() {
            let reply = self.payload_of(session, b"1");
            self.reply(get, reply);
            self.remove_session(session);
        } else {
            let reply = self.next_payload(session);
            self.reply(get, reply);
        }
    }

    /// Ends a closed session that has moved to WebSocket meanwhile.
    pub(crate) fn finish_closing(&mut self, now: Moment, session: SessionKey, link: LinkKey) {
        self.close_session_link(now, session, link, Goodbye::Graceful);
        self.remove_session(session);
    }

    /// Keeps a closed polling session until its next GETs have taken what is queued, and the close packet.
    fn linger(&mut self, now: Moment, session: SessionKey) {
        let until = now + self.config.close_grace;
        if let Some(entry) = self.sessions.get_mut(session) {
            entry.transport = Transport::Closing(Box::new(Closing { until }));
        }
        self.schedule(session);
    }

    fn close_session_link(&mut self, now: Moment, session: SessionKey, link: LinkKey, goodbye: Goodbye) {
        let has_queue = self.sessions.get(session).is_some_and(|entry| !entry.outbox.is_empty());
        match goodbye {
            Goodbye::Graceful if has_queue => {
                let mut rest = Vec::new();
                // All of it: the session is gone after this, and what it had queued was bounded.
                self.drain_outbox(session, link, &mut rest, usize::MAX);
                if let Some(entry) = self.links.get_mut(link) {
                    entry.stage().append(&mut rest);
                    entry.session = SessionKey::NONE;
                }
                self.mark_link(link);
                self.farewells.push_back((now + FAREWELL_DELAY, link));
            }
            Goodbye::Graceful | Goodbye::Prompt | Goodbye::Answer => self.close_link(link),
            Goodbye::Abrupt => self.abort_link(link),
        }
    }

    /// Stages a close frame without a code, and has the link closed once that is written. RFC 6455 §5.5.1.
    pub(crate) fn close_link(&mut self, link: LinkKey) {
        self.close_link_with(link, &[]);
    }

    /// The same with a close frame whose body is given.
    pub(crate) fn close_link_with(&mut self, link: LinkKey, body: &[u8]) {
        let Some(entry) = self.links.get_mut(link) else { return };
        if entry.is_closing {
            return;
        }
        entry.is_closing = true;
        entry.partial = None;
        let frame = Message::websocket_close(body);
        for part in frame.frames() {
            part.write_plain(entry.stage());
        }
        self.mark_link(link);
        self.push_output(Pending::CloseLink { link });
    }

    /// Has the link closed without another byte.
    pub(crate) fn abort_link(&mut self, link: LinkKey) {
        let Some(entry) = self.links.get_mut(link) else { return };
        entry.partial = None;
        entry.unsent = None;
        if !entry.is_closing {
            entry.is_closing = true;
            self.push_output(Pending::CloseLink { link });
        }
    }

    pub(crate) fn remove_session(&mut self, session: SessionKey) {
        if let Some(mut entry) = self.sessions.remove(session) {
            if let Some(poll) = entry.transport.poll_mut() {
                let (get, post) = (poll.get.take(), poll.post.take());
                for request in get.into_iter().chain(post) {
                    self.reply(request, Reply::BadRequest);
                }
            }
            entry.outbox.clear();
            while let Some(index) = self.late_posts.iter().position(|&(late, _)| late == session) {
                let (_, request) = self.late_posts.swap_remove(index);
                self.reply(request, Reply::BadRequest);
            }
        }
    }
}
