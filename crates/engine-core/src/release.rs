//! Sockets that are given up because their peer has come back on another node, which restores them from what the
//! application keeps. Does not know nodes. Invariant: once a release has been answered with anything but
//! [`Released::Moving`], nothing that began here before it can bring the socket back.

use eio_proto::Sid;

use crate::claim::Whereabouts;
use crate::close::Goodbye;
use crate::moment::Moment;
use crate::reason::Reason;
use crate::session::SessionKey;
use crate::shard::Shard;
use crate::socket::{SocketKey, State};

/// What a shard says when it is to give up a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Released {
    /// It was here, and is no more.
    Held,
    /// No shard of this node has it.
    Unknown,
    /// Another shard may have it: ask that one.
    Moved {
        /// Its index.
        shard: u8,
    },
    /// It is between two shards: ask its home again in a moment.
    Moving,
}

impl Shard {
    /// Another node takes over the socket with this secret: whoever has it gives it up. Begin with its
    /// [home](Shard::home_of), by mail, behind whatever that has been sent before.
    ///
    /// A connected socket is disconnected with [`Reason::TakenOver`], without a packet, and its session's link is closed: the
    /// peer has left it. A lost one is [forgotten](crate::Output::Forgotten). One that is being recovered or restored for a
    /// peer of this node goes the same way: that peer, who came first, is cut off, and connects as new.
    pub fn handle_release(&mut self, now: Moment, pid: Sid) -> Released {
        if self.arrivals.contains_key(&pid) {
            return Released::Moving;
        }
        if let Some(socket) = self.find_by_pid(pid) {
            if let Some(departure) = self.departures.get_mut(&pid) {
                // Its claimant is told that there is nothing to be had.
                departure.is_void = true;
            }
            self.give_up(now, socket);
            return Released::Held;
        }
        if let Some(&socket) = self.restoring.get(&pid) {
            if let Some(entry) = self.sockets.get(socket) {
                let session = entry.session;
                self.close_session(now, session, Reason::TransportClose, Goodbye::Abrupt);
            }
            return Released::Unknown;
        }
        match self.whereabouts(pid) {
            Whereabouts::Shard(shard) => Released::Moved { shard },
            Whereabouts::Asked => Released::Moving,
            Whereabouts::Nowhere => Released::Unknown,
        }
    }

    fn give_up(&mut self, now: Moment, socket: SocketKey) {
        let Some(entry) = self.sockets.get(socket) else { return };
        let session = entry.session;
        if matches!(entry.state, State::Connected) {
            self.detach_from_session(session, socket);
            self.disconnect_socket(now, socket, Reason::TakenOver);
        }
        if session != SessionKey::NONE {
            // Other sockets of the session are lost with it, and may come back for themselves. So is this one, if it was
            // just being recovered.
            self.close_session(now, session, Reason::TransportClose, Goodbye::Abrupt);
        }
        self.forget_socket(socket);
    }
}
