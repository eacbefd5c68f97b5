//! Compares every cross-reference of a shard with what it refers to. For tests: it walks everything.
//! Does not repair. Invariant: a shard that audits clean holds nothing that nobody refers to.

use std::collections::BTreeMap;

use crate::connect::member_of;
use crate::session::{SessionKey, Transport};
use crate::shard::Shard;
use crate::socket::State;

impl Shard {
    /// Whether sessions, sockets, rooms, links, acks and notes agree with each other.
    ///
    /// # Errors
    /// What does not, in words. Always our fault.
    pub fn audit(&self) -> Result<(), String> {
        self.audit_sockets()?;
        self.audit_rooms()?;
        self.audit_sessions()?;
        self.audit_restoring()?;
        for (sid, &slot) in &self.adopted {
            let socket = self.sockets.at(slot).ok_or_else(|| format!("adopted {sid} has no socket"))?;
            if socket.sid != *sid && socket.pid != Some(*sid) {
                return Err(format!("adopted {sid} leads to {}", socket.sid));
            }
        }
        Ok(())
    }

    fn audit_restoring(&self) -> Result<(), String> {
        for (pid, &socket) in &self.restoring {
            let shown = match self.sockets.get(socket).map(|entry| &entry.state) {
                Some(State::Connecting(connecting)) => connecting.shown,
                _ => None,
            };
            if shown.is_none_or(|shown| shown.pid != *pid) {
                return Err(format!("socket {socket:?} is being restored, but has not asked for it"));
            }
            if !self.restores_due.iter().any(|(_, due, key)| due == pid && *key == socket) {
                return Err(format!("socket {socket:?} is being restored without end"));
            }
        }
        Ok(())
    }

    fn audit_sockets(&self) -> Result<(), String> {
        let mut owed = BTreeMap::new();
        self.acks.count_owed(&mut owed);
        for (key, socket) in self.sockets.iter() {
            if owed.remove(&key).unwrap_or(0) != socket.acks_owed {
                return Err(format!("socket {key:?} counts {} acks owed", socket.acks_owed));
            }
            let has_session = self
                .sessions
                .get(socket.session)
                .is_some_and(|session| session.sockets.contains(&(key.slot() as u32)));
            match &socket.state {
                State::Lost { until } => {
                    if socket.session != SessionKey::NONE || !self.lost.contains(&(*until, key)) {
                        return Err(format!("lost socket {key:?} has a session, or no end"));
                    }
                }
                State::Connected | State::Connecting(_) if !has_session => {
                    return Err(format!("socket {key:?} is not in its session"));
                }
                State::Connected | State::Connecting(_) => {}
            }
            if !socket.is_connected() && !socket.is_away() {
                if !socket.memberships.is_empty() {
                    return Err(format!("socket {key:?} is in rooms before it is anywhere"));
                }
                continue;
            }
            let wanted = member_of(key, socket);
            let everyone = self.namespace(socket.namespace).everyone;
            let places = socket
                .memberships
                .iter()
                .map(|place| (place.room, place.position))
                .chain([(everyone, socket.everyone_position)]);
            for (room, position) in places {
                let found = self.rooms.room(room).members.get(position as usize).copied();
                if found != Some(wanted) {
                    return Err(format!("socket {key:?} is {wanted:?}, but {found:?} in room {room}"));
                }
            }
        }
        match owed.first_key_value() {
            Some((key, _)) => Err(format!("acks are awaited from {key:?}, which is no more")),
            None => Ok(()),
        }
    }

    fn audit_rooms(&self) -> Result<(), String> {
        let places: usize = self
            .sockets
            .iter()
            .filter(|(_, socket)| socket.is_connected() || socket.is_away())
            .map(|(_, socket)| 1 + socket.memberships.len())
            .sum();
        let members: usize = self.rooms.iter().map(|room| room.members.len()).sum();
        if places != members {
            return Err(format!("{members} members for {places} places of sockets"));
        }
        if let Some(room) = self.rooms.iter().find(|room| room.members.is_empty()) {
            return Err(format!("room {:?} is empty", room.name));
        }
        if self.namespace_names.len() != self.namespaces.iter().flatten().count() {
            return Err("namespaces and their names differ in number".into());
        }
        Ok(())
    }

    fn audit_sessions(&self) -> Result<(), String> {
        for (key, session) in self.sessions.iter() {
            if session.is_dirty != self.dirty_sessions.contains(&key) {
                return Err(format!("session {key:?} is wrong about being dirty"));
            }
            for &slot in &session.sockets {
                if self.sockets.at(slot).is_none_or(|socket| socket.session != key) {
                    return Err(format!("session {key:?} lists a socket that is not its own"));
                }
            }
            let link = match &session.transport {
                Transport::WebSocket(link) => Some(*link),
                Transport::Probing(probe) => Some(probe.link),
                Transport::Polling(_) => None,
                Transport::Closing(_) if session.sockets.is_empty() => None,
                Transport::Closing(_) => return Err(format!("closing session {key:?} has sockets")),
            };
            if link.is_some_and(|link| self.links.get(link).is_none_or(|entry| entry.session != key)) {
                return Err(format!("session {key:?} speaks over a link that is not its own"));
            }
            if session.timer_tick == 0 {
                return Err(format!("session {key:?} has no deadline scheduled"));
            }
        }
        if let Some((late, _)) = self.late_posts.iter().find(|(late, _)| self.sessions.get(*late).is_none()) {
            return Err(format!("a POST is late for session {late:?}, which is no more"));
        }
        Ok(())
    }
}
