//! Owns the acks that peers owe us: who was asked, who has answered, and until when we wait.
//! Does not know payloads. Invariant: every awaited ack ends once, by answer, time-out or loss of the socket.

use std::collections::{BTreeMap, BTreeSet};

use foldhash::fast::RandomState;
use hashbrown::{HashMap, HashSet};

use crate::moment::Moment;
use crate::socket::SocketKey;

/// The driver's name for one emit that awaits acks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AckToken(pub u64);

struct Awaited {
    token: AckToken,
    pending: HashSet<SocketKey, RandomState>,
    deadline: Option<Moment>,
}

/// What an answer did.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answered {
    /// Nobody waits for it (any more): ignored. SIO5 "Acknowledgement".
    Unknown,
    /// It was awaited; `last` if it was the last one.
    Expected { token: AckToken, last: bool },
}

/// All awaited acks of a shard. One id serves all recipients of a broadcast.
#[derive(Default)]
pub(crate) struct Acks {
    awaited: HashMap<u32, Awaited, RandomState>,
    deadlines: BTreeSet<(Moment, u32)>,
    next_id: u32,
}

impl Acks {
    /// Largest id given out: rust_socketio reads ack ids into 32 signed bits.
    const ID_MAX: u32 = i32::MAX as u32;

    /// Begins to wait for an answer from each of `sockets`; the id goes on the wire.
    pub(crate) fn begin(
        &mut self,
        token: AckToken,
        sockets: impl IntoIterator<Item = SocketKey>,
        deadline: Option<Moment>,
    ) -> u32 {
        let mut id = self.next_id;
        while self.awaited.contains_key(&id) {
            id = if id >= Self::ID_MAX { 0 } else { id + 1 };
        }
        self.next_id = if id >= Self::ID_MAX { 0 } else { id + 1 };
        if let Some(at) = deadline {
            self.deadlines.insert((at, id));
        }
        self.awaited.insert(id, Awaited { token, pending: sockets.into_iter().collect(), deadline });
        id
    }

    /// An ack arrived. Each socket counts once.
    pub(crate) fn answer(&mut self, id: u64, socket: SocketKey) -> Answered {
        let Some((id, awaited)) =
            u32::try_from(id).ok().and_then(|id| Some((id, self.awaited.get_mut(&id)?)))
        else {
            return Answered::Unknown;
        };
        if !awaited.pending.remove(&socket) {
            return Answered::Unknown;
        }
        let token = awaited.token;
        let last = awaited.pending.is_empty();
        if last {
            self.end(id);
        }
        Answered::Expected { token, last }
    }

    /// Forgets what a lost socket owed. Answers the tokens that now wait for nobody.
    pub(crate) fn forget(&mut self, socket: SocketKey) -> Vec<AckToken> {
        let mut ended = Vec::new();
        for (&id, awaited) in &mut self.awaited {
            if awaited.pending.remove(&socket) && awaited.pending.is_empty() {
                ended.push((id, awaited.token));
            }
        }
        // The map's order is nobody's business: the driver sees token order.
        ended.sort_unstable_by_key(|&(_, token)| token);
        ended
            .into_iter()
            .map(|(id, token)| {
                self.end(id);
                token
            })
            .collect()
    }

    /// When [`Acks::expire`] next has something to do.
    pub(crate) fn next(&self) -> Option<Moment> {
        self.deadlines.first().map(|&(at, _)| at)
    }

    /// Ends one wait that is over by `now`: its token, and who never answered.
    pub(crate) fn expire(&mut self, now: Moment) -> Option<(AckToken, Vec<SocketKey>)> {
        let &(at, id) = self.deadlines.first()?;
        if at > now {
            return None;
        }
        let awaited = self.end(id)?;
        let mut pending: Vec<SocketKey> = awaited.pending.into_iter().collect();
        pending.sort_unstable();
        Some((awaited.token, pending))
    }

    fn end(&mut self, id: u32) -> Option<Awaited> {
        let awaited = self.awaited.remove(&id)?;
        if let Some(at) = awaited.deadline {
            self.deadlines.remove(&(at, id));
        }
        Some(awaited)
    }

    /// Adds up how many acks each socket owes.
    pub(crate) fn count_owed(&self, owed: &mut BTreeMap<SocketKey, u32>) {
        for socket in self.awaited.values().flat_map(|awaited| &awaited.pending) {
            *owed.entry(*socket).or_default() += 1;
        }
    }

    /// Emits whose acks are awaited.
    pub(crate) fn len(&self) -> usize {
        self.awaited.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(slot: u64) -> SocketKey {
        SocketKey::from_bits(slot)
    }

    #[test]
    fn each_socket_of_a_broadcast_counts_once() {
        let mut acks = Acks::default();
        let id = u64::from(acks.begin(AckToken(7), [socket(1), socket(2)], None));
        assert_eq!(acks.answer(id, socket(1)), Answered::Expected { token: AckToken(7), last: false });
        assert_eq!(acks.answer(id, socket(1)), Answered::Unknown);
        assert_eq!(acks.answer(id, socket(3)), Answered::Unknown);
        assert_eq!(acks.answer(id, socket(2)), Answered::Expected { token: AckToken(7), last: true });
        assert_eq!(acks.answer(id, socket(2)), Answered::Unknown);
        assert_eq!(acks.len(), 0);
    }

    #[test]
    fn a_wait_ends_at_its_deadline_and_names_the_silent() {
        let mut acks = Acks::default();
        let at = Moment::from_millis(100);
        let id = u64::from(acks.begin(AckToken(1), [socket(1), socket(2)], Some(at)));
        acks.answer(id, socket(2));
        assert_eq!(acks.next(), Some(at));
        assert_eq!(acks.expire(Moment::from_millis(99)), None);
        assert_eq!(acks.expire(at), Some((AckToken(1), vec![socket(1)])));
        assert_eq!(acks.next(), None);
        assert_eq!(acks.answer(id, socket(1)), Answered::Unknown, "a late ack is ignored");
    }

    #[test]
    fn a_lost_socket_owes_nothing() {
        let mut acks = Acks::default();
        acks.begin(AckToken(1), [socket(1)], Some(Moment::from_millis(5)));
        acks.begin(AckToken(2), [socket(1), socket(2)], None);
        assert_eq!(acks.forget(socket(1)), vec![AckToken(1)]);
        assert_eq!(acks.next(), None);
        assert_eq!(acks.len(), 1);
    }
}
