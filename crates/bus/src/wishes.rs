//! Owns which channels this node wants to listen to, how far that has come for each, and who waits for it. Does not
//! subscribe. Invariant: whoever is told that a channel is listened to is told so after Redis and the other nodes were.
//!
//! Subscribing goes by rounds: what is wanted and not had yet, and what is had and not wanted any more, is taken at once
//! with all who wait; when the round has succeeded they are told. Whoever comes meanwhile waits for the next round.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot};

use crate::channel::Channel;
use crate::fault::BusFault;

/// What is wanted.
#[derive(Debug, Default)]
pub(crate) struct Wishes {
    state: Mutex<State>,
    /// There is something to do for the next round.
    pub(crate) changed: Notify,
}

/// How far it has come with a channel that is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Wished,
    /// Redis has it; the other nodes do not know yet.
    Subscribed,
    /// They do.
    Announced,
}

/// Who waits for a round.
pub(crate) type Waiting = oneshot::Sender<Result<(), BusFault>>;

#[derive(Debug, Default)]
struct State {
    stage: Stage,
    wanted: HashMap<Channel, Standing>,
    /// To be subscribed in the next round, if still wanted.
    wished: Vec<Channel>,
    /// Those that are [`Standing::Subscribed`].
    untold: HashSet<Channel>,
    /// Subscribed, and not wanted any more.
    leaving: HashSet<Channel>,
    /// The same, and the round is under way.
    left: HashSet<Channel>,
    waiting: Vec<Waiting>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Down,
    Up,
    Closed,
}

/// Whether Redis counts this node among the listeners of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Listens {
    Yes,
    No,
    Unsure,
}

/// What is to be done at once.
#[derive(Debug, Default)]
pub(crate) struct Round {
    pub(crate) subscribe: Vec<Channel>,
    pub(crate) unsubscribe: Vec<Channel>,
    waiting: Vec<Waiting>,
}

impl Wishes {
    /// Wants these. What must be waited for, if something must.
    pub(crate) fn want(
        &self,
        channels: &[Channel],
    ) -> Result<Option<oneshot::Receiver<Result<(), BusFault>>>, BusFault> {
        let mut state = self.lock();
        if state.stage == Stage::Closed {
            return Err(BusFault::Closed);
        }
        let mut is_had = true;
        for channel in channels {
            match state.wanted.get(channel).copied() {
                Some(standing) => is_had &= standing == Standing::Announced,
                None if state.leaving.remove(channel) => {
                    state.wanted.insert(channel.clone(), Standing::Subscribed);
                    state.untold.insert(channel.clone());
                    is_had = false;
                }
                None => {
                    state.wanted.insert(channel.clone(), Standing::Wished);
                    state.wished.push(channel.clone());
                    is_had = false;
                }
            }
        }
        match (state.stage, is_had) {
            (Stage::Down | Stage::Closed, _) => Err(BusFault::Down("there is no connection now".to_owned())),
            (Stage::Up, true) => Ok(None),
            (Stage::Up, false) => {
                let (answer, answered) = oneshot::channel();
                state.waiting.push(answer);
                drop(state);
                self.changed.notify_one();
                Ok(Some(answered))
            }
        }
    }

    /// Does not want these any more.
    pub(crate) fn drop(&self, channels: &[Channel]) {
        let mut state = self.lock();
        for channel in channels {
            match state.wanted.remove(channel) {
                Some(Standing::Subscribed | Standing::Announced) => {
                    state.untold.remove(channel);
                    state.leaving.insert(channel.clone());
                }
                Some(Standing::Wished) | None => {}
            }
        }
        drop(state);
        self.changed.notify_one();
    }

    /// All that is wanted.
    pub(crate) fn all(&self) -> Vec<Channel> {
        self.lock().wanted.keys().cloned().collect()
    }

    /// Whether Redis counts this node among the listeners of a channel.
    pub(crate) fn listens(&self, channel: &Channel) -> Listens {
        let state = self.lock();
        match state.wanted.get(channel) {
            Some(Standing::Subscribed | Standing::Announced) if state.stage == Stage::Up => Listens::Yes,
            None if !state.leaving.contains(channel) && !state.left.contains(channel) => Listens::No,
            Some(_) | None => Listens::Unsure,
        }
    }

    /// Begins a round of at most so many channels to be subscribed; `None` if there is nothing to do.
    pub(crate) fn begin(&self, channels_max: usize) -> Option<Round> {
        let mut state = self.lock();
        let State { wanted, wished, untold, leaving, left, waiting, .. } = &mut *state;
        let mut round = Round::default();
        while round.subscribe.len() < channels_max
            && let Some(channel) = wished.pop()
        {
            if wanted.get(&channel) == Some(&Standing::Wished) {
                round.subscribe.push(channel);
            }
        }
        round.unsubscribe = leaving.drain().collect();
        left.extend(round.unsubscribe.iter().cloned());
        // Those who wait are told when all is done.
        if wished.is_empty() {
            round.waiting = std::mem::take(waiting);
        }
        let is_idle = round.subscribe.is_empty() && round.unsubscribe.is_empty() && round.waiting.is_empty();
        (!is_idle || !untold.is_empty()).then_some(round)
    }

    /// Redis has done it. What the others are to be told.
    pub(crate) fn subscribed(&self, round: &mut Round) -> Vec<Channel> {
        let mut state = self.lock();
        let State { wanted, untold, leaving, left, .. } = &mut *state;
        left.clear();
        for channel in round.subscribe.drain(..) {
            match wanted.get_mut(&channel) {
                Some(standing) => {
                    *standing = Standing::Subscribed;
                    untold.insert(channel);
                }
                None => {
                    leaving.insert(channel);
                }
            }
        }
        untold.iter().cloned().collect()
    }

    /// The others were told of these.
    pub(crate) fn announced(&self, channels: &[Channel]) {
        let mut state = self.lock();
        for channel in channels {
            // One that was taken back meanwhile, and wanted again, is not among them.
            if state.untold.remove(channel) {
                state.wanted.insert(channel.clone(), Standing::Announced);
            }
        }
    }

    /// Whether the server was asked to unsubscribe this one.
    pub(crate) fn is_left(&self, channel: &Channel) -> bool {
        self.lock().left.contains(channel)
    }

    /// Everything is to be subscribed anew: there is another connection, or none.
    pub(crate) fn cut(&self, why: &BusFault) {
        let mut state = self.lock();
        let State { wanted, wished, untold, .. } = &mut *state;
        wished.clear();
        untold.clear();
        for (channel, standing) in wanted {
            *standing = Standing::Wished;
            wished.push(channel.clone());
        }
        state.leaving.clear();
        state.left.clear();
        if state.stage == Stage::Up {
            state.stage = Stage::Down;
        }
        for waiting in state.waiting.drain(..) {
            // Whoever no longer waits need not be told.
            let _ = waiting.send(Err(why.clone()));
        }
    }

    /// Notes that all is had, if it is.
    pub(crate) fn try_rise(&self) -> bool {
        let mut state = self.lock();
        if state.stage == Stage::Down && state.wished.is_empty() {
            state.stage = Stage::Up;
        }
        state.stage == Stage::Up
    }

    /// There will be no connection any more.
    pub(crate) fn close(&self) {
        self.cut(&BusFault::Closed);
        self.lock().stage = Stage::Closed;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Round {
    /// Tells those who wait how it ended.
    pub(crate) fn end(&mut self, how: &Result<(), BusFault>) {
        for waiting in self.waiting.drain(..) {
            // Whoever no longer waits need not be told.
            let _ = waiting.send(how.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hub::room::RoomName;

    fn room(name: &str) -> Channel {
        Channel::Room(RoomName::parse(name).unwrap())
    }

    fn risen() -> Wishes {
        let wishes = Wishes::default();
        assert!(wishes.try_rise());
        wishes
    }

    fn play(wishes: &Wishes) -> (Vec<Channel>, Vec<Channel>) {
        let mut round = wishes.begin(100).expect("something to do");
        let done = (round.subscribe.clone(), round.unsubscribe.clone());
        let told = wishes.subscribed(&mut round);
        wishes.announced(&told);
        round.end(&Ok(()));
        done
    }

    #[test]
    fn a_wish_is_fulfilled_by_a_round() {
        let wishes = risen();
        let mut waiting = wishes.want(&[room("a"), room("b")]).unwrap().expect("it takes a round");
        assert_eq!(wishes.listens(&room("a")), Listens::Unsure);
        assert_eq!(play(&wishes), (vec![room("b"), room("a")], vec![]));
        assert_eq!(waiting.try_recv().unwrap(), Ok(()));
        assert!(wishes.want(&[room("a")]).unwrap().is_none(), "it is had");
        assert_eq!(wishes.listens(&room("a")), Listens::Yes);
        wishes.drop(&[room("a")]);
        assert_eq!(wishes.listens(&room("a")), Listens::Unsure);
        assert_eq!(play(&wishes), (vec![], vec![room("a")]));
        assert_eq!(wishes.listens(&room("a")), Listens::No);
        assert!(wishes.begin(100).is_none());
        assert_eq!(wishes.all(), [room("b")]);
    }

    #[test]
    fn whoever_comes_while_a_round_is_under_way_waits_for_the_next() {
        let wishes = risen();
        let mut first = wishes.want(&[room("a")]).unwrap().unwrap();
        let mut round = wishes.begin(100).unwrap();
        let mut second = wishes.want(&[room("a")]).unwrap().unwrap();
        wishes.subscribed(&mut round);
        wishes.announced(&[room("a")]);
        round.end(&Ok(()));
        drop(round);
        assert_eq!(first.try_recv().unwrap(), Ok(()));
        assert!(second.try_recv().is_err());
        assert_eq!(play(&wishes), (vec![], vec![]));
        assert_eq!(second.try_recv().unwrap(), Ok(()));
    }

    #[test]
    fn a_wish_that_is_taken_back_during_its_round_is_undone_by_the_next() {
        let wishes = risen();
        let _waiting = wishes.want(&[room("a")]).unwrap().unwrap();
        let mut round = wishes.begin(100).unwrap();
        wishes.drop(&[room("a")]);
        assert!(wishes.subscribed(&mut round).is_empty());
        assert_eq!(play(&wishes), (vec![], vec![room("a")]));
    }

    #[test]
    fn what_is_wanted_again_while_it_is_left_is_subscribed_anew() {
        let wishes = risen();
        let _waiting = wishes.want(&[room("a")]).unwrap();
        play(&wishes);
        wishes.drop(&[room("a")]);
        assert!(wishes.want(&[room("a")]).unwrap().is_some());
        assert_eq!(
            play(&wishes),
            (vec![], vec![]),
            "nothing was done yet, but to be told again is never wrong"
        );
        wishes.drop(&[room("a")]);
        let mut round = wishes.begin(100).unwrap();
        assert!(wishes.is_left(&room("a")));
        assert!(wishes.want(&[room("a")]).unwrap().is_some());
        assert!(wishes.subscribed(&mut round).is_empty());
        assert!(!wishes.is_left(&room("a")));
        assert_eq!(play(&wishes), (vec![room("a")], vec![]));
    }

    #[test]
    fn wishes_outlive_connections() {
        let wishes = risen();
        let mut waiting = wishes.want(&[room("a")]).unwrap().unwrap();
        let down = BusFault::Down("gone".to_owned());
        wishes.cut(&down);
        assert_eq!(waiting.try_recv().unwrap(), Err(down));
        assert!(matches!(wishes.want(&[room("b")]), Err(BusFault::Down(_))));
        assert!(!wishes.try_rise(), "not all is had");
        let (mut subscribed, _) = play(&wishes);
        subscribed.sort_by_key(|channel| format!("{channel:?}"));
        assert_eq!(subscribed, [room("a"), room("b")]);
        assert!(wishes.try_rise());
        wishes.close();
        assert_eq!(wishes.want(&[room("a")]).unwrap_err(), BusFault::Closed);
    }

    #[test]
    fn rounds_are_bounded_and_those_who_wait_are_told_after_the_last() {
        let wishes = risen();
        let rooms: Vec<Channel> = (0..5).map(|at| room(&at.to_string())).collect();
        let mut waiting = wishes.want(&rooms).unwrap().unwrap();
        let mut sizes = Vec::new();
        while let Some(mut round) = wishes.begin(2) {
            assert!(waiting.try_recv().is_err());
            sizes.push(round.subscribe.len());
            let told = wishes.subscribed(&mut round);
            wishes.announced(&told);
            round.end(&Ok(()));
        }
        assert_eq!(sizes, [2, 2, 1]);
        assert_eq!(waiting.try_recv().unwrap(), Ok(()));
    }
}
