//! Owns who may use a tool now, who waits, and who is sent away. Does not know what is done with the place. Invariant:
//! there are never more places taken, nor more requests waiting, than the bounds say; a place is given back by being
//! dropped, whatever happens to its holder.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// The bounds of a gate. None but the queues may be 0.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GateLimits {
    pub(crate) concurrency: usize,
    pub(crate) concurrency_per_user: usize,
    pub(crate) queue: usize,
    pub(crate) queue_per_user: usize,
}

/// Counts the places of one tool.
#[derive(Debug)]
pub(crate) struct Gate {
    limits: GateLimits,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    running: usize,
    /// Only those who run or wait have an entry.
    users: HashMap<Arc<str>, Load>,
    /// In the order of arrival.
    queue: VecDeque<Waiter>,
    next_ticket: u64,
}

#[derive(Debug, Default)]
struct Load {
    running: usize,
    waiting: usize,
}

#[derive(Debug)]
struct Waiter {
    ticket: u64,
    user: Arc<str>,
    wake: oneshot::Sender<Place>,
}

/// How a request got in.
#[derive(Debug)]
pub(crate) enum Entry {
    /// At once.
    Placed(Place),
    /// It has to wait.
    Waiting(Waiting),
}

/// Which bound kept a request out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// As many wait as may.
    Queue(usize),
    /// As many of this user wait as may.
    UserQueue(usize),
}

impl Gate {
    pub(crate) fn new(limits: GateLimits) -> Arc<Self> {
        Arc::new(Self { limits, state: Mutex::default() })
    }

    /// Takes a place, or one in the queue.
    pub(crate) fn try_enter(self: &Arc<Self>, user: &str) -> Result<Entry, Full> {
        let mut state = self.lock();
        let user: Arc<str> =
            state.users.get_key_value(user).map_or_else(|| user.into(), |(key, _)| key.clone());
        let load = state.users.get(&user);
        let (user_running, user_waiting) = load.map_or((0, 0), |load| (load.running, load.waiting));
        // Whoever waits although there is a free place waits for their own requests, so they need not be asked.
        if state.running < self.limits.concurrency && user_running < self.limits.concurrency_per_user {
            state.running += 1;
            state.users.entry(user.clone()).or_default().running += 1;
            return Ok(Entry::Placed(Place { gate: self.clone(), user }));
        }
        if state.queue.len() >= self.limits.queue {
            return Err(Full::Queue(self.limits.queue));
        }
        if user_waiting >= self.limits.queue_per_user {
            return Err(Full::UserQueue(self.limits.queue_per_user));
        }
        let (wake, woken) = oneshot::channel();
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        state.users.entry(user.clone()).or_default().waiting += 1;
        state.queue.push_back(Waiter { ticket, user, wake });
        Ok(Entry::Waiting(Waiting { gate: self.clone(), ticket, woken }))
    }

    /// How many run, and how many wait.
    pub(crate) fn load(&self) -> (usize, usize) {
        let state = self.lock();
        (state.running, state.queue.len())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics halfway, so what a panicking thread leaves is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leave(self: &Arc<Self>, user: &Arc<str>) {
        let mut state = self.lock();
        state.running -= 1;
        state.change(user, |load| load.running -= 1);
        // More than one may go on: the place is free for all, and this user's share for their own.
        let mut woken = Vec::new();
        while state.running < self.limits.concurrency {
            let per_user = self.limits.concurrency_per_user;
            let users = &state.users;
            let is_next =
                |waiter: &Waiter| users.get(&waiter.user).is_none_or(|load| load.running < per_user);
            let Some(at) = state.queue.iter().position(is_next) else { break };
            let Some(waiter) = state.queue.remove(at) else { break };
            state.running += 1;
            state.change(&waiter.user, |load| {
                load.running += 1;
                load.waiting -= 1;
            });
            woken.push((waiter.wake, Place { gate: self.clone(), user: waiter.user }));
        }
        drop(state);
        for (wake, place) in woken {
            // Whoever has gone meanwhile gives the place back: it comes back as the error and is dropped.
            drop(wake.send(place));
        }
    }
}

impl State {
    fn change(&mut self, user: &Arc<str>, change: impl FnOnce(&mut Load)) {
        let load = self.users.entry(user.clone()).or_default();
        change(load);
        if load.running == 0 && load.waiting == 0 {
            self.users.remove(user);
        }
    }
}

/// A place at a tool. Dropping it lets the next one in.
#[derive(Debug)]
pub(crate) struct Place {
    gate: Arc<Gate>,
    user: Arc<str>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.gate.leave(&self.user);
    }
}

/// A place in the queue. Dropping it leaves the queue.
#[derive(Debug)]
pub(crate) struct Waiting {
    gate: Arc<Gate>,
    ticket: u64,
    woken: oneshot::Receiver<Place>,
}

impl Waiting {
    /// Waits for a place.
    pub(crate) async fn place(&mut self) -> Place {
        (&mut self.woken)
            .await
            .expect("invariant: a waiter leaves the queue with a place, or by its own drop")
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut state = self.gate.lock();
        let at = state.queue.iter().position(|waiter| waiter.ticket == self.ticket);
        if let Some(waiter) = at.and_then(|at| state.queue.remove(at)) {
            state.change(&waiter.user, |load| load.waiting -= 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(
        concurrency: usize,
        concurrency_per_user: usize,
        queue: usize,
        queue_per_user: usize,
    ) -> Arc<Gate> {
        Gate::new(GateLimits { concurrency, concurrency_per_user, queue, queue_per_user })
    }

    fn place(gate: &Arc<Gate>, user: &str) -> Place {
        match gate.try_enter(user) {
            Ok(Entry::Placed(place)) => place,
            other => panic!("{user}: {other:?}"),
        }
    }

    fn wait(gate: &Arc<Gate>, user: &str) -> Waiting {
        match gate.try_enter(user) {
            Ok(Entry::Waiting(waiting)) => waiting,
            other => panic!("{user}: {other:?}"),
        }
    }

    fn placed(waiting: &mut Waiting) -> Option<Place> {
        waiting.woken.try_recv().ok()
    }

    #[test]
    fn places_go_to_those_who_came_first() {
        let gate = gate(1, 1, 2, 2);
        let first = place(&gate, "a");
        let (mut second, mut third) = (wait(&gate, "b"), wait(&gate, "c"));
        assert_eq!(gate.try_enter("d").unwrap_err(), Full::Queue(2));
        assert!(placed(&mut second).is_none());
        drop(first);
        let second = placed(&mut second).unwrap();
        assert!(placed(&mut third).is_none());
        drop(second);
        drop(placed(&mut third).unwrap());
        assert_eq!(gate.load(), (0, 0));
        assert!(gate.lock().users.is_empty());
    }

    #[test]
    fn one_user_holds_up_themselves_and_nobody_else() {
        let gate = gate(3, 1, 9, 1);
        let first = place(&gate, "a");
        let mut second = wait(&gate, "a");
        assert_eq!(gate.try_enter("a").unwrap_err(), Full::UserQueue(1));
        let other = place(&gate, "b");
        let third = place(&gate, "c");
        let mut fourth = wait(&gate, "d");
        drop(third);
        assert!(placed(&mut second).is_none());
        let fourth = placed(&mut fourth).unwrap();
        drop(other);
        assert!(placed(&mut second).is_none());
        drop(first);
        let second = placed(&mut second).unwrap();
        assert_eq!(gate.load(), (2, 0));
        drop((second, fourth));
        assert!(gate.lock().users.is_empty());
    }

    #[test]
    fn whoever_stops_waiting_leaves_nothing_behind() {
        let gate = gate(1, 1, 3, 3);
        let first = place(&gate, "a");
        let (second, third) = (wait(&gate, "b"), wait(&gate, "c"));
        drop(second);
        assert_eq!(gate.load(), (1, 1));
        // The place is on its way to the third when that goes: it comes back.
        drop(first);
        drop(third);
        assert_eq!(gate.load(), (0, 0));
        assert!(gate.lock().users.is_empty());
        drop(place(&gate, "d"));
    }
}
