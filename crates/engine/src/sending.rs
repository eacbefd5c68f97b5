//! Owns the knowledge of which broadcasts are being mailed right now, so that a shard can wait for those that began
//! before it opened a room. Does not know broadcasts. Invariant: whoever begins after [`Sending::settle`] was called
//! sees what was done before that call.
//!
//! Two counters and a phase that says which one new senders use: to settle is to flip the phase and wait until the
//! old counter is empty, twice, because a sender may have read the phase and not yet have counted itself. No sender
//! ever waits. The technique is that of sleepable read-copy-update.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

#[derive(Debug)]
pub(crate) struct Sending {
    /// Nobody ever waits where sockets cannot move between shards; then nothing is counted.
    is_counted: bool,
    phase: AtomicUsize,
    under_way: [AtomicUsize; 2],
    /// One at a time flips the phase.
    settling: tokio::sync::Mutex<()>,
}

/// Somebody mails a broadcast as long as this lives.
pub(crate) struct Mailing<'a> {
    counter: Option<&'a AtomicUsize>,
}

impl Drop for Mailing<'_> {
    fn drop(&mut self) {
        if let Some(counter) = self.counter {
            counter.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

impl Sending {
    pub(crate) fn new(is_counted: bool) -> Self {
        Self {
            is_counted,
            phase: AtomicUsize::new(0),
            under_way: [AtomicUsize::new(0), AtomicUsize::new(0)],
            settling: tokio::sync::Mutex::new(()),
        }
    }

    /// Counts a sender, before it looks at who wants its broadcast.
    pub(crate) fn begin(&self) -> Mailing<'_> {
        if !self.is_counted {
            return Mailing { counter: None };
        }
        let counter = &self.under_way[self.phase.load(Ordering::SeqCst) & 1];
        counter.fetch_add(1, Ordering::SeqCst);
        Mailing { counter: Some(counter) }
    }

    /// Waits until everything that was being mailed at the call is in the mailboxes. Mailing takes microseconds, and
    /// never waits for anybody.
    pub(crate) async fn settle(&self) {
        let _alone = self.settling.lock().await;
        for _ in 0..2 {
            let old = self.phase.fetch_add(1, Ordering::SeqCst) & 1;
            while self.under_way[old].load(Ordering::SeqCst) > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn settling_waits_for_those_who_began_before() {
        let sending = Sending::new(true);
        let before = sending.begin();
        let mut settling = std::pin::pin!(sending.settle());
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(settling.as_mut().poll(&mut context).is_pending());
        // One that begins now is counted apart.
        let after = sending.begin();
        assert_eq!(sending.under_way[0].load(Ordering::SeqCst), 1);
        assert_eq!(sending.under_way[1].load(Ordering::SeqCst), 1);
        drop(before);
        drop(after);
        settling.await;
        assert_eq!(sending.phase.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn nothing_is_counted_where_sockets_cannot_move() {
        let sending = Sending::new(false);
        let _mailing = sending.begin();
        sending.settle().await;
        assert_eq!(sending.under_way[0].load(Ordering::SeqCst), 0);
    }
}
