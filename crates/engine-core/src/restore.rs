//! Sockets that no shard knows any more, and the application does: it gives back their ids, rooms and missed events.
//! Does not know what the application keeps, or where. Invariant: a pid is restored for one peer at a time, the newest
//! that shows it, because its home shard notes who has asked.
//!
//! The home of a pid is the shard that its bytes name (of as many as there are now). Only the home says that a pid is
//! unknown, and notes the claimant in the same step: the next who shows the pid is sent there. There it finds a socket,
//! which is claimed as any other; or one that still waits for the application, which has to make way.

use eio_proto::Sid;
use sio_proto::Body;

use crate::close::Goodbye;
use crate::connect::slot_of;
use crate::emit::Flags;
use crate::moment::Moment;
use crate::output::Pending;
use crate::reason::Reason;
use crate::recovery::{Carried, Claim, Claimant, Given, Offer, number_in};
use crate::session::SessionKey;
use crate::shard::{Shard, ShardId};
use crate::socket::{SocketKey, State};

/// A socket as the application remembers it.
#[derive(Clone, Debug)]
pub struct Restored {
    /// Its public id, which it keeps.
    pub sid: Sid,
    /// The rooms it was in, its own apart.
    pub rooms: Vec<String>,
    /// The application's number up to which `missed` is complete: whatever is sent here later has a higher one.
    pub order: u64,
    /// What it missed, oldest first, each with the application's number.
    pub missed: Vec<(u64, Body)>,
}

/// Why a socket could not be restored. Unless it is [`RestoreFault::Gone`], its peer now connects as new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestoreFault {
    /// Nobody waits for it any more: the peer has gone or has come again, or it was too late. The peer may still come
    /// back for it.
    Gone,
    /// A socket with this public id is here already. The caller's fault.
    IdTaken,
    /// It would be in more than [`Config::rooms_per_socket_max`](crate::Config::rooms_per_socket_max) rooms.
    TooManyRooms {
        /// The limit.
        max: usize,
    },
    /// What it missed is more than [`Config::outbox_bytes_max`](crate::Config::outbox_bytes_max).
    TooMuchMissed {
        /// The limit.
        bytes_max: usize,
    },
}

impl std::fmt::Display for RestoreFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            RestoreFault::Gone => f.write_str("nobody waits for the socket any more"),
            RestoreFault::IdTaken => f.write_str("a socket with this id is connected already"),
            RestoreFault::TooManyRooms { max } => {
                write!(f, "the socket would be in more than rooms_per_socket_max of {max} rooms")
            }
            RestoreFault::TooMuchMissed { bytes_max } => {
                write!(f, "what the socket missed exceeds outbox_bytes_max of {bytes_max}")
            }
        }
    }
}

impl std::error::Error for RestoreFault {}

impl Shard {
    /// Whether the application is asked for sockets that nobody knows.
    pub(crate) fn restores(&self) -> bool {
        self.config.restore_timeout.is_some()
    }

    /// The shard that keeps notes about a pid: the one that it names, or another one if there are fewer now.
    #[must_use]
    pub fn home_of(&self, pid: Sid) -> u8 {
        let shard = ShardId::of(pid).shard;
        match u8::try_from(self.config.shards) {
            Ok(shards @ 1..) => shard % shards,
            // Not told how many there are, or as many as a byte can name.
            Ok(0) | Err(_) => shard,
        }
    }

    pub(crate) fn is_home(&self, pid: Sid) -> bool {
        self.home_of(pid) == self.id.shard && (ShardId::of(pid).node == self.id.node || self.restores())
    }

    /// What to tell a claimant of a socket that is not here.
    pub(crate) fn deny_claim(&mut self, pid: Sid, claimant: Claimant) -> Claim {
        if !self.restores() {
            return Claim::Unknown;
        }
        if !self.is_home(pid) {
            // It was here. Its home has been told that it is not, or will be before it hears of this claim again.
            return Claim::Moved { shard: self.home_of(pid) };
        }
        self.moved.insert(pid, claimant.shard);
        Claim::Unknown
    }

    /// The answer to [`Output::Claim`](crate::Output::Claim) is that no shard knows the socket, or none has all that it
    /// missed. If the application remembers sockets it is asked for this one; else the peer connects as new.
    pub fn handle_unclaimed(&mut self, now: Moment, socket: SocketKey, pid: Sid) {
        if self.moved.get(&pid) == Some(&self.id.shard) {
            self.moved.remove(&pid);
        }
        let is_waiting = matches!(
            self.sockets.get(socket).map(|entry| &entry.state),
            Some(State::Connecting(connecting)) if connecting.shown.is_some_and(|shown| shown.pid == pid)
        );
        if is_waiting {
            self.begin_restore(now, socket);
        } else {
            self.release_note(pid);
        }
    }

    /// Asks the application for the socket whose pid this peer has shown.
    pub(crate) fn begin_restore(&mut self, now: Moment, socket: SocketKey) {
        let Some(entry) = self.sockets.get(socket) else { return };
        let State::Connecting(connecting) = &entry.state else { return };
        let (Some(shown), Some(timeout)) = (connecting.shown, self.config.restore_timeout) else {
            self.counters.recoveries_refused += 1;
            return self.ask_about(socket, false);
        };
        let session = entry.session;
        let namespace = self.outputs.keep_text(&connecting.namespace);
        let auth = connecting.auth.as_deref().map(|auth| self.outputs.keep(auth));
        self.restoring.insert(shown.pid, socket);
        self.restores_due.push_back((now + timeout, shown.pid, socket));
        let (pid, order) = (shown.pid, shown.order);
        self.push_output(Pending::Restore { socket, session, namespace, pid, order, auth });
    }

    /// The application answers [`Output::Restore`](crate::Output::Restore): with the socket, or `None` to have the peer
    /// connect as new. A restored socket is in its rooms when this returns, and misses nothing from then on; whether it
    /// may connect is asked as for any other that is recovered.
    ///
    /// # Errors
    /// See [`RestoreFault`].
    pub fn handle_restored(
        &mut self,
        now: Moment,
        socket: SocketKey,
        pid: Sid,
        restored: Option<Restored>,
    ) -> Result<(), RestoreFault> {
        if self.restoring.get(&pid) != Some(&socket) {
            return Err(RestoreFault::Gone);
        }
        let Some(restored) = restored else {
            self.end_restore(socket, pid);
            return Ok(());
        };
        let offer = self.offer_of(pid, &restored);
        if let Err(fault) = self.check_restored(socket, &restored, &offer) {
            self.end_restore(socket, pid);
            return Err(fault);
        }
        self.restoring.remove(&pid);
        let Some(State::Connecting(connecting)) = self.sockets.get(socket).map(|entry| &entry.state) else {
            return Err(RestoreFault::Gone);
        };
        let namespace = connecting.namespace.clone();
        self.place(now, socket, &namespace, &offer);
        let index = self.intern(&namespace);
        let mut events = Vec::with_capacity(restored.missed.len());
        let mut offset = String::new();
        for (number, body) in &restored.missed {
            let Some(log) = &mut self.log else { break };
            // Positions of the log that nothing else has: the peer may come back with any of them.
            let seq = log.skip();
            log.write_offset(seq, *number, &mut offset);
            let encoding = self.encoding(index, body, Flags::default(), None);
            events.push(Given {
                offset: offset.as_str().into(),
                message: Some(self.encode_event(&encoding, Some(&offset))),
                is_numbered: true,
            });
        }
        let newest = self.log.as_mut().map_or(0, |log| log.skip());
        self.note_order(restored.order);
        let is_home = self.is_home(pid);
        if let Some(entry) = self.sockets.get_mut(socket) {
            let restored = events.len();
            entry.carried =
                Some(Box::new(Carried { events, restored, is_pinged: false, born_elsewhere: !is_home }));
            entry.since = newest;
            if let State::Connecting(connecting) = &mut entry.state
                && let Some(resume) = &mut connecting.resume
            {
                resume.after = newest;
            }
        }
        if is_home {
            self.moved.remove(&pid);
        } else {
            self.push_output(Pending::Adopted { pid });
        }
        self.counters.sockets_restored += 1;
        self.ask_about(socket, true);
        Ok(())
    }

    /// Its ids and rooms, each room once.
    fn offer_of(&self, pid: Sid, restored: &Restored) -> Offer {
        let own = restored.sid.to_string();
        let mut rooms = restored.rooms.clone();
        rooms.sort_unstable();
        rooms.dedup();
        rooms.retain(|room| *room != own);
        Offer { sid: restored.sid, pid, rooms }
    }

    fn check_restored(
        &self,
        socket: SocketKey,
        restored: &Restored,
        offer: &Offer,
    ) -> Result<(), RestoreFault> {
        let is_taken = |slot: u32| {
            slot != slot_of(socket) && self.sockets.at(slot).is_some_and(|entry| entry.sid == restored.sid)
        };
        let names = [self.slot_of(restored.sid), self.adopted.get(&restored.sid).copied()];
        if names.into_iter().flatten().any(is_taken) {
            return Err(RestoreFault::IdTaken);
        }
        let max = self.config.rooms_per_socket_max;
        if offer.rooms.len() > max {
            return Err(RestoreFault::TooManyRooms { max });
        }
        // As much as a message can weigh beside its body: frame header, packet type and namespace, offset, brackets.
        let overhead = 14 + 4 + self.config.packets.namespace_bytes_max + 48 + 4;
        let bytes = restored.missed.iter().fold(0, |bytes: usize, (_, body)| {
            let attachments: usize = body.attachments.iter().map(|data| data.len() + 14).sum();
            bytes.saturating_add(body.elements.len() + attachments + overhead)
        });
        let bytes_max = self.config.outbox_bytes_max;
        if bytes > bytes_max {
            return Err(RestoreFault::TooMuchMissed { bytes_max });
        }
        Ok(())
    }

    /// The application does not have the socket, or has not said in time: the peer connects as new.
    fn end_restore(&mut self, socket: SocketKey, pid: Sid) {
        self.restoring.remove(&pid);
        self.release_note(pid);
        self.counters.recoveries_refused += 1;
        self.ask_about(socket, false);
    }

    /// A socket-to-be goes while the application is asked for it.
    pub(crate) fn abandon_restore(&mut self, socket: SocketKey) {
        let Some(State::Connecting(connecting)) = self.sockets.get(socket).map(|entry| &entry.state) else {
            return;
        };
        if let Some(shown) = connecting.shown
            && self.restoring.get(&shown.pid) == Some(&socket)
        {
            self.restoring.remove(&shown.pid);
            self.release_note(shown.pid);
        }
    }

    /// A pid that the application is being asked for is shown again. Its earlier connection is dead, so that one makes
    /// way. `false`: it does not, being of the same session or another namespace.
    pub(crate) fn void_restore(
        &mut self,
        now: Moment,
        pid: Sid,
        session: SessionKey,
        namespace: &str,
    ) -> bool {
        let Some(&first) = self.restoring.get(&pid) else { return true };
        let Some(entry) = self.sockets.get(first) else { return true };
        let State::Connecting(connecting) = &entry.state else { return true };
        if entry.session == session || *connecting.namespace != *namespace {
            return false;
        }
        let old = entry.session;
        self.close_session(now, old, Reason::TransportClose, Goodbye::Abrupt);
        true
    }

    /// Has the home of a pid forget who asked for it.
    fn release_note(&mut self, pid: Sid) {
        if !self.restores() || self.is_home(pid) {
            return;
        }
        self.push_output(Pending::ReleaseClaim { pid });
    }

    /// When the application will have taken too long for the oldest socket that it is asked for.
    pub(crate) fn next_restore(&self) -> Option<Moment> {
        self.restores_due.front().map(|&(at, _, _)| at)
    }

    /// Lets peers connect as new whose sockets the application did not give back in time.
    pub(crate) fn expire_restores(&mut self, now: Moment) {
        while let Some(&(at, pid, socket)) = self.restores_due.front()
            && at <= now
        {
            self.restores_due.pop_front();
            if self.restoring.get(&pid) == Some(&socket) {
                self.end_restore(socket, pid);
            }
        }
    }
}

/// What a peer has shown in order to be recovered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shown {
    pub(crate) pid: Sid,
    /// The application's number in its offset.
    pub(crate) order: Option<u64>,
}

impl Shown {
    /// Reads the application's number from an offset of whatever log: what follows the second dash.
    pub(crate) fn new(pid: Sid, offset: Option<&str>) -> Self {
        Self { pid, order: offset.and_then(number_in) }
    }
}
