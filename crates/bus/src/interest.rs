//! Owns which channels other nodes listen to, as far as is known here. Does not ask. Invariant: a channel that somebody
//! listens to is missing only while nobody can have been told of it.
//!
//! A channel that was found to have no listener is forgotten, unless somebody has announced it since the attempt: the
//! attempt may have been before that.

use std::collections::{HashMap, HashSet};
use std::sync::{PoisonError, RwLock};

use crate::channel::Channel;

/// Channels beyond twice those of the last look that are remembered before all are looked at anew. Whoever stops
/// listening says nothing, and a channel that nobody publishes on is never found to be empty.
const UNCHECKED_MAX: usize = 65_536;

/// A lock that is read for each event that is not kept, and written when interest changes.
#[derive(Debug, Default)]
pub(crate) struct Interest(RwLock<Table>);

#[derive(Debug, Default)]
struct Table {
    /// Whether what is not in it is wanted by nobody.
    is_known: bool,
    /// When each was announced last, by a count of announcements.
    wanted: HashMap<Channel, u64>,
    announcements: u64,
    looked_at: usize,
}

/// When a channel was announced last: a later announcement outweighs what was found before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Announced(u64);

impl Interest {
    /// Whether somebody listens, as far as is known; yes if nothing is.
    pub(crate) fn find(&self, channel: &Channel) -> Option<Announced> {
        let table = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let found = table.wanted.get(channel).copied().map(Announced);
        found.or_else(|| (!table.is_known).then_some(Announced(table.announcements)))
    }

    /// Somebody listens to these from now on.
    pub(crate) fn announce(&self, channels: Vec<Channel>) {
        let mut table = self.0.write().unwrap_or_else(PoisonError::into_inner);
        table.announcements += 1;
        let stamp = table.announcements;
        table.wanted.extend(channels.into_iter().map(|channel| (channel, stamp)));
    }

    /// It was found that nobody listens to this one, by an attempt for which it was found so.
    pub(crate) fn forget(&self, channel: &Channel, found: Announced) {
        let mut table = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if table.wanted.get(channel).is_some_and(|stamp| *stamp <= found.0) {
            table.wanted.remove(channel);
        }
    }

    /// Announcements may be missed from now on: nothing is known until the next [`Interest::load`].
    pub(crate) fn lose(&self) {
        let mut table = self.0.write().unwrap_or_else(PoisonError::into_inner);
        table.is_known = false;
        table.wanted.clear();
    }

    /// It is about to be looked who listens.
    pub(crate) fn begin_look(&self) -> Announced {
        Announced(self.0.read().unwrap_or_else(PoisonError::into_inner).announcements)
    }

    /// It was found that these are listened to. What was announced since the look began is, too. Of those that this node
    /// itself listens to it is not known by whom, so nothing is learned of them.
    pub(crate) fn load(&self, begun: Announced, found: &HashSet<Channel>, is_own: impl Fn(&Channel) -> bool) {
        let mut table = self.0.write().unwrap_or_else(PoisonError::into_inner);
        table.wanted.retain(|channel, stamp| *stamp > begun.0 || found.contains(channel));
        for channel in found {
            if !is_own(channel) {
                table.wanted.entry(channel.clone()).or_insert(begun.0);
            }
        }
        table.is_known = true;
        table.looked_at = table.wanted.len();
    }

    /// Whether so much was announced since the last look that it is time for another.
    pub(crate) fn is_stale(&self) -> bool {
        let table = self.0.read().unwrap_or_else(PoisonError::into_inner);
        table.is_known && table.wanted.len() > table.looked_at * 2 + UNCHECKED_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hub::room::RoomName;

    fn room(name: &str) -> Channel {
        Channel::Room(RoomName::parse(name).unwrap())
    }

    /// Looks, and finds these.
    fn look(interest: &Interest, names: &[&str]) {
        let found = names.iter().map(|name| room(name)).collect();
        interest.load(interest.begin_look(), &found, |channel| *channel == room("own"));
    }

    #[test]
    fn while_nothing_is_known_everything_is_wanted() {
        let interest = Interest::default();
        assert!(interest.find(&room("a")).is_some());
        let begun = interest.begin_look();
        interest.announce(vec![room("b")]);
        interest.load(begun, &HashSet::from([room("c")]), |_| false);
        let wanted = ["a", "b", "c"].map(|name| interest.find(&room(name)).is_some());
        assert_eq!(wanted, [false, true, true]);
        interest.lose();
        assert!(interest.find(&room("a")).is_some());
        look(&interest, &[]);
        assert!(interest.find(&room("b")).is_none());
    }

    #[test]
    fn an_announcement_outweighs_what_was_found_before_it() {
        let interest = Interest::default();
        look(&interest, &["a", "b"]);
        let (a, b) = (interest.find(&room("a")).unwrap(), interest.find(&room("b")).unwrap());
        interest.announce(vec![room("b")]);
        interest.forget(&room("a"), a);
        interest.forget(&room("b"), b);
        assert!(interest.find(&room("a")).is_none());
        assert!(interest.find(&room("b")).is_some());
        let again = interest.find(&room("b")).unwrap();
        interest.forget(&room("b"), again);
        assert!(interest.find(&room("b")).is_none());
    }

    #[test]
    fn a_look_says_nothing_of_what_this_node_listens_to() {
        let interest = Interest::default();
        look(&interest, &["own", "a"]);
        assert!(interest.find(&room("own")).is_none());
        interest.announce(vec![room("own")]);
        look(&interest, &["own"]);
        assert!(interest.find(&room("own")).is_some(), "somebody else has said so");
        assert!(interest.find(&room("a")).is_none());
    }

    #[test]
    fn what_nobody_checks_is_bounded() {
        let interest = Interest::default();
        look(&interest, &[]);
        interest.announce((0..UNCHECKED_MAX).map(|at| room(&at.to_string())).collect());
        assert!(!interest.is_stale());
        interest.announce(vec![room("one more")]);
        assert!(interest.is_stale());
    }
}
