//! Owns how a server ends: new sessions are refused, what is there is let go little by little, then the listeners and the
//! shards end. Does not know when that is, nor what peers are told of it. Invariant: no step lets more go than its share.
//!
//! Who must come back because of this node are its own sessions, and those of other nodes whose WebSocket goes through it
//! ([`crate::tunnel`]): they share the steps. Requests that wait here for another node's answer are not cut: that node is
//! asked to answer now, and their peers ask again elsewhere, without a word about it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::mail::Mail;
use crate::passing::Passing;
use crate::server::{Phase, Server};
use crate::shard::ShardState;

/// Between two steps of letting go: short beside what a peer takes to come back, and so many in a second that one more makes
/// little of a rate.
const STEP: Duration = Duration::from_millis(50);
/// For close frames to leave, when everything else has ended.
const FAREWELL: Duration = Duration::from_millis(50);
/// For requests under way to be answered: those of other nodes' sessions after the last session has been let go, and all when
/// the server stops.
const ANSWERS_MAX: Duration = Duration::from_secs(2);

/// Who would have to come back if the server ended now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Leaving {
    sessions: usize,
    tunnels: usize,
}

impl Leaving {
    fn count(self) -> usize {
        self.sessions + self.tunnels
    }

    /// So many of them, or all, of each kind in proportion.
    fn share(self, count: usize) -> Self {
        let count = count.min(self.count());
        let all = self.count().max(1) as u128;
        // To the nearest, so that neither kind waits for the other where one goes at a time.
        let tunnels = ((count as u128 * self.tunnels as u128 + all / 2) / all) as usize;
        Self { sessions: count - tunnels, tunnels }
    }
}

impl Server {
    /// Refuses new sessions with 503 from now on, and closes those that are there, spread evenly over `within` so that
    /// they do not come back all at once; the WebSockets of other nodes' sessions that go through this one are among them.
    /// Peers see a closed transport and reconnect by themselves. Everything else goes on meanwhile: listeners take
    /// connections, applications answer, sessions that are left are served. Connections close after each answer, so that the
    /// next request comes to another server. On a machine that is too busy it takes longer, rather than letting more go at a
    /// time. It does not end: [`Server::shutdown`] does that.
    pub async fn drain(&self, within: Duration) {
        self.inner.is_draining.store(true, Ordering::Relaxed);
        let steps = usize::try_from(within.as_millis() / STEP.as_millis()).unwrap_or(usize::MAX).max(1);
        let polls = self.polls();
        let polls_each = polls.as_ref().map_or(0, |polls| polls.count().div_ceil(steps));
        let all = self.leaving().await.count();
        for step in 1..=steps {
            if let Some(polls) = &polls {
                polls.send_away(polls_each);
            }
            let left = self.leaving().await;
            // As many as are to be there after this step; whoever came meanwhile waits for the end.
            let keeps = (all as u128 * (steps - step) as u128 / steps as u128) as usize;
            let goes = left.count().saturating_sub(keeps).min(all.div_ceil(steps).max(1));
            self.let_go(left.share(goes)).await;
            if goes == left.count() {
                break;
            }
            if step < steps {
                tokio::time::sleep(STEP).await;
            }
        }
        if let Some(polls) = polls {
            answer_polls(&polls, within.min(ANSWERS_MAX)).await;
        }
    }

    /// Stops: sessions are let go as [`Server::drain`] does it, then listeners, connections and shards end. Requests that are
    /// under way are waited for, 2 s at the most.
    pub async fn shutdown(&self, within: Duration) {
        self.drain(within).await;
        self.inner.phase.send_replace(Phase::Stopped);
        // Those whose handshakes were under way when new ones began to be refused.
        self.let_go(Leaving { sessions: usize::MAX, tunnels: 0 }).await;
        let until = Instant::now() + ANSWERS_MAX;
        while self.inner.requests.load(Ordering::Relaxed) > 0 && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        tokio::time::sleep(FAREWELL).await;
        self.inner.stopped.store(true, Ordering::Relaxed);
        for port in self.inner.ports() {
            let _ = port.send_waiting(Mail::Call(Box::new(|_| {}))).await;
        }
    }

    fn polls(&self) -> Option<Arc<Passing>> {
        self.inner.forwarding.as_ref().map(|forwarding| forwarding.polls.clone())
    }

    /// Who is left.
    async fn leaving(&self) -> Leaving {
        let sessions = self.close_sessions(0).await;
        let tunnels = self.inner.forwarding.as_ref().map_or(0, |forwarding| forwarding.tunnels.count());
        Leaving { sessions, tunnels }
    }

    async fn let_go(&self, some: Leaving) {
        if let Some(forwarding) = &self.inner.forwarding {
            forwarding.tunnels.send_away(some.tunnels);
        }
        self.close_sessions(some.sessions).await;
    }

    /// Closes `count` sessions, as evenly over the shards as they have them. Answers how many are left.
    async fn close_sessions(&self, count: usize) -> usize {
        let ports = self.inner.ports();
        let (mut remaining, mut left) = (count, 0);
        // What some shards did not have the others close in a second round.
        for _ in 0..2 {
            left = 0;
            for (index, port) in ports.iter().enumerate() {
                let share = remaining.div_ceil(ports.len() - index);
                let (to, answer) = oneshot::channel();
                let call = Mail::Call(Box::new(move |shard: &mut ShardState| {
                    let before = shard.drain(0);
                    let after = shard.drain(share);
                    let _ = to.send((before - after, after));
                }));
                if port.send_waiting(call).await.is_ok() {
                    let (closed, after) = answer.await.unwrap_or_default();
                    remaining = remaining.saturating_sub(closed);
                    left += after;
                }
            }
            if remaining == 0 || left == 0 {
                break;
            }
        }
        left
    }
}

/// Has the GETs answered that still wait, and those that come meanwhile: from peers whose proxy has not noticed, or that have
/// no other way.
async fn answer_polls(polls: &Passing, within: Duration) {
    let until = Instant::now() + within;
    loop {
        polls.send_away(polls.count());
        if polls.is_empty() || Instant::now() >= until {
            return;
        }
        tokio::time::sleep(STEP).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_and_tunnels_go_in_proportion_and_never_more_than_there_are() {
        let all = |sessions, tunnels| Leaving { sessions, tunnels };
        assert_eq!(all(0, 0).share(5), all(0, 0));
        assert_eq!(all(30, 10).share(4), all(3, 1));
        assert_eq!(all(30, 10).share(1), all(1, 0));
        assert_eq!(all(10, 10).share(1), all(0, 1));
        assert_eq!(all(10, 9).share(1), all(1, 0));
        assert_eq!(all(30, 0).share(7), all(7, 0));
        assert_eq!(all(0, 30).share(7), all(0, 7));
        for sessions in 0..6 {
            for tunnels in 0..6 {
                for count in 0..14 {
                    let share = all(sessions, tunnels).share(count);
                    assert_eq!(share.count(), count.min(sessions + tunnels));
                    assert!(share.sessions <= sessions && share.tunnels <= tunnels, "{share:?}");
                }
            }
        }
    }
}
