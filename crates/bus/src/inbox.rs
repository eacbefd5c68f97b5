//! Owns what has come and was not taken yet, in the order in which it came. Does not know connections, nor what an event
//! says. Invariant: what is behind the gate of a connection is not taken before the gate is opened, so that
//! [`News::Resumed`] comes before anything of the new connection; and what is dropped is followed by such a mark.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use store_redis::bus::Stamp;
use tokio::sync::Notify;

use crate::feed::News;

/// Events that may wait, and their bytes. 65,536 and 64 MiB: seconds of all that one Redis can publish; a reader that is
/// further behind catches up faster from the store.
pub(crate) const FEED_EVENTS_MAX: usize = 65_536;
/// See [`FEED_EVENTS_MAX`].
pub(crate) const FEED_BYTES_MAX: usize = 64 << 20;

/// What waits to be taken.
#[derive(Debug)]
pub(crate) struct Inbox {
    state: Mutex<State>,
    /// Something may be taken.
    pub(crate) came: Notify,
    bounds: (usize, usize),
}

#[derive(Debug)]
enum Item {
    /// What follows is of a connection that is not complete yet.
    Gate,
    Event(Vec<u8>),
    News(News),
}

#[derive(Debug)]
struct State {
    items: VecDeque<Item>,
    events: usize,
    bytes: usize,
    generation: u64,
    /// The order of the last event that was kept, on this connection: repeats of it follow it.
    last_order: Option<u64>,
    /// The last number of each node's own.
    turns: HashMap<u16, u64>,
    is_ended: bool,
}

/// What has become of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Put {
    Taken,
    Repeat,
    /// Its connection was given up.
    Late,
    /// There was no room: all events that waited were dropped, this one too.
    Overflow,
}

/// What is there to be taken.
#[derive(Debug)]
pub(crate) enum Taken {
    Event(Vec<u8>),
    News(News),
    Nothing,
    /// There will never be more.
    Ended,
}

impl Inbox {
    pub(crate) fn new() -> Self {
        Self::with_bounds(FEED_EVENTS_MAX, FEED_BYTES_MAX)
    }

    fn with_bounds(events_max: usize, bytes_max: usize) -> Self {
        let state = State {
            items: VecDeque::from([Item::Gate]),
            events: 0,
            bytes: 0,
            generation: 0,
            last_order: None,
            turns: HashMap::new(),
            is_ended: false,
        };
        Self { state: Mutex::new(state), came: Notify::new(), bounds: (events_max, bytes_max) }
    }

    /// Which connection is listened to: one more with each [`Inbox::cut`].
    pub(crate) fn generation(&self) -> u64 {
        self.lock().generation
    }

    /// Takes an event in that came by the connection of this generation, unless it has come before.
    pub(crate) fn put_event(&self, generation: u64, stamp: Stamp, bytes: Vec<u8>) -> Put {
        let mut state = self.lock();
        if generation != state.generation || state.is_ended {
            return Put::Late;
        }
        let Stamp { origin, is_kept, number } = stamp;
        if is_kept {
            // No other kept event comes between the copies of one. An older order is none of them, but what follows a
            // failover that has forgotten some.
            if state.last_order == Some(number) {
                return Put::Repeat;
            }
            state.last_order = Some(number);
        } else {
            let last = state.turns.entry(origin).or_default();
            if number <= *last {
                return Put::Repeat;
            }
            *last = number;
        }
        let (events_max, bytes_max) = self.bounds;
        let put = if state.events >= events_max || state.bytes + bytes.len() > bytes_max {
            state.drop_events();
            Put::Overflow
        } else {
            state.events += 1;
            state.bytes += bytes.len();
            state.items.push_back(Item::Event(bytes));
            Put::Taken
        };
        drop(state);
        self.came.notify_one();
        put
    }

    /// Takes something in that is never dropped for lack of room: there is little of it.
    pub(crate) fn put_news(&self, news: News) {
        let mut state = self.lock();
        if !state.is_ended {
            state.items.push_back(Item::News(news));
        }
        drop(state);
        self.came.notify_one();
    }

    /// The connection is gone; what comes next is another's.
    pub(crate) fn cut(&self) {
        let mut state = self.lock();
        state.generation += 1;
        state.last_order = None;
        // One that never became complete has told nothing yet, and what it would have told is missed all the same.
        if let Some(gate) = state.items.iter().position(|item| matches!(item, Item::Gate)) {
            let behind: Vec<Item> = state.items.drain(gate..).collect();
            for item in behind {
                match item {
                    Item::Event(bytes) => {
                        state.events -= 1;
                        state.bytes -= bytes.len();
                    }
                    // Marks end here: whoever waits for them is told.
                    Item::Gate | Item::News(News::Fence(_)) => {}
                    Item::News(news) => state.items.push_back(Item::News(news)),
                }
            }
        }
        state.items.push_back(Item::Gate);
        drop(state);
        self.came.notify_one();
    }

    /// Everything is subscribed on the new connection.
    pub(crate) fn open_gate(&self) {
        for item in &mut self.lock().items {
            if matches!(item, Item::Gate) {
                *item = Item::News(News::Resumed);
            }
        }
        self.came.notify_one();
    }

    /// The node is gone: its numbers begin anew.
    pub(crate) fn forget(&self, origin: u16) {
        self.lock().turns.remove(&origin);
    }

    /// There will never be more, and what is there is nobody's business any more.
    pub(crate) fn end(&self) {
        let mut state = self.lock();
        state.is_ended = true;
        state.items.clear();
        drop(state);
        self.came.notify_one();
    }

    pub(crate) fn is_ended(&self) -> bool {
        self.lock().is_ended
    }

    pub(crate) fn take(&self) -> Taken {
        let mut state = self.lock();
        if state.is_ended {
            return Taken::Ended;
        }
        if matches!(state.items.front(), Some(Item::Gate)) {
            return Taken::Nothing;
        }
        match state.items.pop_front() {
            Some(Item::Event(bytes)) => {
                state.events -= 1;
                state.bytes -= bytes.len();
                Taken::Event(bytes)
            }
            Some(Item::News(news)) => Taken::News(news),
            Some(Item::Gate) | None => Taken::Nothing,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Makes room, and leaves a mark where the oldest event was.
    fn drop_events(&mut self) {
        let has_gate = self.items.iter().any(|item| matches!(item, Item::Gate));
        self.items.retain(|item| match item {
            Item::Event(_) | Item::Gate | Item::News(News::Resumed) => false,
            Item::News(News::Event(_) | News::Fence(_) | News::NodeCame(_) | News::NodeGone(_)) => true,
        });
        self.items.push_front(if has_gate { Item::Gate } else { Item::News(News::Resumed) });
        (self.events, self.bytes) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feed::Fence;
    use tokio::sync::oneshot::error::TryRecvError;

    fn kept(number: u64) -> Stamp {
        Stamp { origin: 1, is_kept: true, number }
    }

    fn own(origin: u16, number: u64) -> Stamp {
        Stamp { origin, is_kept: false, number }
    }

    fn put(inbox: &Inbox, stamp: Stamp, bytes: Vec<u8>) -> Put {
        inbox.put_event(inbox.generation(), stamp, bytes)
    }

    /// What is taken until nothing is left: events by their first byte, `R` for a mark of a connection, `F` for a fence.
    fn all(inbox: &Inbox) -> String {
        std::iter::from_fn(|| match inbox.take() {
            Taken::Event(bytes) => Some(char::from(bytes[0])),
            Taken::News(News::Resumed) => Some('R'),
            Taken::News(News::Fence(_)) => Some('F'),
            Taken::News(News::Event(_) | News::NodeCame(_) | News::NodeGone(_)) => Some('?'),
            Taken::Nothing | Taken::Ended => None,
        })
        .collect()
    }

    #[test]
    fn a_new_connection_begins_with_its_mark() {
        let inbox = Inbox::new();
        put(&inbox, kept(1), b"a".to_vec());
        assert_eq!(all(&inbox), "", "not everything is subscribed yet");
        inbox.open_gate();
        assert_eq!(all(&inbox), "Ra");
        put(&inbox, kept(2), b"b".to_vec());
        inbox.cut();
        assert_eq!(inbox.put_event(0, kept(3), b"c".to_vec()), Put::Late);
        put(&inbox, kept(4), b"d".to_vec());
        assert_eq!(all(&inbox), "b", "what the old connection has told is whole");
        inbox.open_gate();
        assert_eq!(all(&inbox), "Rd");
    }

    #[test]
    fn a_connection_that_never_became_complete_has_told_nothing() {
        let inbox = Inbox::new();
        inbox.open_gate();
        inbox.cut();
        put(&inbox, kept(2), b"b".to_vec());
        let (fence, mut passed) = Fence::new();
        inbox.put_news(News::Fence(fence));
        inbox.cut();
        assert_eq!(passed.try_recv(), Err(TryRecvError::Closed), "whoever waits is told");
        put(&inbox, kept(2), b"c".to_vec());
        inbox.open_gate();
        assert_eq!(all(&inbox), "RRc");
    }

    #[test]
    fn repeats_are_known() {
        let inbox = Inbox::new();
        inbox.open_gate();
        let taken = [kept(5), kept(5), own(1, 9), kept(5), own(1, 9), own(2, 3), own(1, 8), kept(6), kept(5)]
            .map(|stamp| put(&inbox, stamp, b"x".to_vec()) == Put::Taken);
        // The last is one that was forgotten by a failover and given to another event.
        assert_eq!(taken, [true, false, true, false, false, true, false, true, true]);
        inbox.forget(2);
        assert_eq!(put(&inbox, own(2, 3), b"x".to_vec()), Put::Taken);
    }

    #[test]
    fn what_is_too_much_is_dropped_whole_and_said() {
        for bounds in [(3, 1_000), (1_000, 3)] {
            let inbox = Inbox::with_bounds(bounds.0, bounds.1);
            inbox.open_gate();
            let (fence, _passed) = Fence::new();
            put(&inbox, kept(1), b"a".to_vec());
            inbox.put_news(News::Fence(fence));
            put(&inbox, kept(2), b"b".to_vec());
            put(&inbox, kept(3), b"c".to_vec());
            assert_eq!(put(&inbox, kept(4), b"d".to_vec()), Put::Overflow);
            assert_eq!(put(&inbox, kept(5), b"e".to_vec()), Put::Taken);
            assert_eq!(all(&inbox), "RFe");
            // Behind a gate the mark is that of the gate.
            inbox.cut();
            for order in 10..=13 {
                put(&inbox, kept(order), b"x".to_vec());
            }
            assert_eq!(all(&inbox), "");
            inbox.open_gate();
            assert_eq!(all(&inbox), "R");
        }
    }

    #[test]
    fn the_end_is_the_end() {
        let inbox = Inbox::new();
        inbox.open_gate();
        inbox.end();
        assert_eq!(put(&inbox, kept(1), b"a".to_vec()), Put::Late);
        inbox.put_news(News::Resumed);
        assert!(matches!(inbox.take(), Taken::Ended));
    }
}
