//! Deadlines: heartbeats, time-outs of connecting, upgrading and closing, acks, and sockets lost or being restored.
//! Invariant: whatever is overdue is done at the next call, in the order of sessions' ticks.

use std::time::Duration;

use eio_proto::{Packet, Revision};

use crate::close::Goodbye;
use crate::moment::Moment;
use crate::output::Pending;
use crate::reason::Reason;
use crate::session::{Heartbeat, SessionKey, Transport};
use crate::shard::Shard;
use crate::socket::State;

/// How long the end of a lost socket that is moving between shards is put off, over and over. A move takes
/// milliseconds.
const MOVING_GRACE: Duration = Duration::from_secs(1);

impl Shard {
    /// When [`Shard::handle_deadline`] next has something to do. Coarse: within a 256th of the ping interval.
    #[must_use]
    pub fn poll_deadline(&self) -> Option<Moment> {
        let lost = self.lost.first().map(|&(at, _)| at);
        let farewell = self.farewells.front().map(|&(at, _)| at);
        let restore = self.next_restore();
        [self.wheel.next(), self.acks.next(), lost, farewell, restore].into_iter().flatten().min()
    }

    /// Does everything that is due by `now`.
    pub fn handle_deadline(&mut self, now: Moment) {
        let mut due = std::mem::take(&mut self.due);
        self.wheel.expire(now, &mut due);
        for (tick, session) in due.drain(..) {
            let Some(entry) = self.sessions.get_mut(session) else { continue };
            if entry.timer_tick != tick {
                continue;
            }
            entry.timer_tick = 0;
            self.check_deadline(now, session);
            self.schedule(session);
        }
        self.due = due;

        while let Some(&(at, link)) = self.farewells.front()
            && at <= now
        {
            self.farewells.pop_front();
            self.close_link(link);
        }
        while let Some((token, missing)) = self.acks.expire(now) {
            for &socket in &missing {
                if let Some(socket) = self.sockets.get_mut(socket) {
                    socket.acks_owed = socket.acks_owed.saturating_sub(1);
                }
            }
            self.push_output(Pending::AckTimeout { token, missing });
        }
        while let Some(&(at, socket)) = self.lost.first()
            && at <= now
        {
            self.lost.pop_first();
            let is_due = self
                .sockets
                .get(socket)
                .is_some_and(|socket| matches!(socket.state, State::Lost { until } if until == at));
            if is_due && self.is_moving(socket) {
                // Its peer is there, and will have it in a moment.
                self.lose_socket(socket, now + MOVING_GRACE);
            } else if is_due {
                self.forget_socket(socket);
            }
        }
        self.expire_restores(now);
        if let Some(log) = &mut self.log {
            log.prune(now);
        }
    }

    /// Makes sure that the wheel fires for a session no later than its next deadline.
    pub(crate) fn schedule(&mut self, session: SessionKey) {
        let Some(entry) = self.sessions.get_mut(session) else { return };
        let tick = self.wheel.tick_of(entry.deadline());
        // An entry that fires earlier looks again by itself.
        if entry.timer_tick != 0 && entry.timer_tick <= tick {
            return;
        }
        entry.timer_tick = self.wheel.schedule(tick, session);
    }

    /// Does whatever is overdue for one session.
    pub(crate) fn check_deadline(&mut self, now: Moment, session: SessionKey) {
        let Some(entry) = self.sessions.get(session) else { return };
        if entry.deadline() > now {
            return;
        }
        match &entry.transport {
            Transport::Closing(_) => return self.remove_session(session),
            Transport::Probing(probe) => {
                let link = probe.link;
                if probe.until <= now {
                    self.abandon_probe(session, link);
                } else if probe.noop_at.is_some_and(|at| at <= now) {
                    self.send_noop(now, session);
                }
            }
            Transport::Polling(_) | Transport::WebSocket(_) => {}
        }
        let Some(entry) = self.sessions.get_mut(session) else { return };
        if matches!(&entry.transport, Transport::Probing(probe) if probe.is_closing) {
            return;
        }
        if entry.connect_by.is_some_and(|at| at <= now) {
            self.counters.connect_timeouts += 1;
            return self.close_session(now, session, Reason::ForcedClose, Goodbye::Prompt);
        }
        match entry.heartbeat {
            Heartbeat::Ping { at } if at <= now => {
                // Counted from when the ping was due, not from when a coarse wheel sent it.
                let pong_due = at + self.config.ping_timeout;
                if pong_due <= now {
                    return self.end_silent(now, session);
                }
                let mark = self.log.as_ref().map_or(0, |log| log.next_seq() - 1) as u32;
                entry.heartbeat = Heartbeat::Pong { at: pong_due, extended: false, mark };
                let ping = self.canned.ping.clone();
                self.push(session, ping);
                self.note_pinged(session);
            }
            Heartbeat::Pong { at, .. } | Heartbeat::PeerPing { at } if at <= now => {
                self.end_silent(now, session);
            }
            Heartbeat::Ping { .. } | Heartbeat::Pong { .. } | Heartbeat::PeerPing { .. } => {}
        }
    }

    fn end_silent(&mut self, now: Moment, session: SessionKey) {
        self.counters.ping_timeouts += 1;
        self.close_session(now, session, Reason::PingTimeout, Goodbye::Prompt);
    }

    /// What any packet does for the heartbeat. EIO4 "Heartbeat".
    #[inline]
    pub(crate) fn note_packet(&mut self, now: Moment, session: SessionKey, packet: &Packet<'_>) {
        let Some(entry) = self.sessions.get_mut(session) else { return };
        match (packet, entry.heartbeat) {
            (Packet::Pong(_), Heartbeat::Ping { .. }) => {
                entry.heartbeat = Heartbeat::Ping { at: now + self.config.ping_interval };
            }
            (Packet::Pong(_), Heartbeat::Pong { mark, .. }) => {
                entry.heartbeat = Heartbeat::Ping { at: now + self.config.ping_interval };
                self.note_read(session, mark);
            }
            (Packet::Ping(_), Heartbeat::PeerPing { .. }) => {
                let silence = self.config.ping_interval + self.config.ping_timeout;
                entry.heartbeat = Heartbeat::PeerPing { at: now + silence };
                if entry.revision == Revision::V3 {
                    let pong = self.canned.pong.clone();
                    self.push(session, pong);
                }
            }
            // A peer that is busy sending is alive: one extension for each ping, as the newest reference server does.
            (_, Heartbeat::Pong { extended: false, mark, .. }) => {
                let at = now + self.config.ping_timeout;
                entry.heartbeat = Heartbeat::Pong { at, extended: true, mark };
            }
            _ => {}
        }
    }
}
