//! Owns how many things of other nodes' sessions go through this node, and which of them are told to find another way because
//! it stops. Does not know what they carry, nor how they end. Invariant: whoever was told is not told again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Semaphore;

/// All that passes of one kind.
pub(crate) struct Passing {
    here: AtomicUsize,
    /// Those of them that are told to go and have not noticed yet.
    told: AtomicUsize,
    /// A permit for each that is told.
    exits: Semaphore,
}

impl Passing {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { here: AtomicUsize::new(0), told: AtomicUsize::new(0), exits: Semaphore::new(0) })
    }

    /// One more passes, while the answer is held.
    pub(crate) fn enter(self: &Arc<Self>) -> Passage {
        self.here.fetch_add(1, Ordering::Relaxed);
        Passage { of: self.clone(), is_leaving: false }
    }

    /// How many pass and have not been told to go.
    pub(crate) fn count(&self) -> usize {
        self.here.load(Ordering::Relaxed).saturating_sub(self.told.load(Ordering::Relaxed))
    }

    /// Whether nothing passes, not even what was just told to go.
    pub(crate) fn is_empty(&self) -> bool {
        self.here.load(Ordering::Relaxed) == 0
    }

    /// Tells so many to go, those first that have been there longest. Whoever comes later is not meant.
    pub(crate) fn send_away(&self, count: usize) {
        let count = count.min(self.count());
        self.told.fetch_add(count, Ordering::Relaxed);
        self.exits.add_permits(count);
    }
}

/// One of them.
pub(crate) struct Passage {
    of: Arc<Passing>,
    is_leaving: bool,
}

impl Passage {
    /// Waits until it is told to go. It is not counted from then on.
    pub(crate) async fn told_to_go(&mut self) {
        // Never closed.
        if let Ok(permit) = self.of.exits.acquire().await {
            permit.forget();
            self.is_leaving = true;
            let one_less = |told: usize| told.checked_sub(1);
            let _ = self.of.told.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less);
            self.of.here.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        // The last one takes along what was meant for others that left by themselves.
        if !self.is_leaving && self.of.here.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.of.exits.forget_permits(usize::MAX);
            self.of.told.store(0, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    #[test]
    fn as_many_go_as_are_told_and_the_oldest_first() {
        let passing = Passing::new();
        let (mut first, mut second, third) = (passing.enter(), passing.enter(), passing.enter());
        assert_eq!(passing.count(), 3);
        let mut context = Context::from_waker(Waker::noop());
        let (mut one, mut two) = (Box::pin(first.told_to_go()), Box::pin(second.told_to_go()));
        assert!(one.as_mut().poll(&mut context).is_pending() && two.as_mut().poll(&mut context).is_pending());
        passing.send_away(1);
        assert_eq!(passing.count(), 2, "it counts as gone before it has noticed");
        assert!(two.as_mut().poll(&mut context).is_pending());
        assert_eq!(one.as_mut().poll(&mut context), Poll::Ready(()));
        drop(one);
        assert_eq!(passing.count(), 2);
        drop((first, third));
        assert_eq!(passing.count(), 1);
        passing.send_away(7);
        assert!(passing.count() == 0 && !passing.is_empty());
        assert_eq!(two.as_mut().poll(&mut context), Poll::Ready(()));
        drop(two);
        drop(second);
        assert!(passing.is_empty());
    }

    #[test]
    fn what_was_meant_for_one_that_left_by_itself_does_not_meet_the_next() {
        let passing = Passing::new();
        let first = passing.enter();
        passing.send_away(1);
        drop(first);
        let mut second = passing.enter();
        assert_eq!(passing.count(), 1);
        assert!(pin!(second.told_to_go()).poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }
}
