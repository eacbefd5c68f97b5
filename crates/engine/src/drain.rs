//! Owns how a server ends: new sessions are refused, those that are there are let go little by little, then the listeners
//! and the shards end. Does not know when that is, nor what peers are told of it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::mail::Mail;
use crate::server::{Phase, Server};
use crate::shard::ShardState;

/// Between two steps of letting go: short beside what a peer takes to come back.
const STEP: Duration = Duration::from_millis(100);
/// For close frames to leave, when everything else has ended.
const FAREWELL: Duration = Duration::from_millis(50);

impl Server {
    /// Refuses new sessions with 503 from now on, and closes those that are there, spread evenly over `within` so that
    /// they do not come back all at once. Peers see a closed transport and reconnect by themselves. Everything else goes
    /// on meanwhile: listeners take connections, applications answer, sessions that are left are served. It does not
    /// end: [`Server::shutdown`] does that.
    pub async fn drain(&self, within: Duration) {
        self.inner.refuses_sessions.store(true, Ordering::Relaxed);
        self.inner.phase.send_replace(Phase::Draining { within });
        let steps = usize::try_from(within.as_millis() / STEP.as_millis()).unwrap_or(usize::MAX).max(1);
        let all = self.let_go(0).await;
        let mut left = all;
        for remaining_steps in (0..steps).rev() {
            // As many as are to be there after this step, of all.
            let keeps = (all as u128 * remaining_steps as u128 / steps as u128) as usize;
            left = self.let_go(left.saturating_sub(keeps)).await;
            if left == 0 {
                break;
            }
            if remaining_steps > 0 {
                tokio::time::sleep(STEP).await;
            }
        }
    }

    /// Stops: sessions are let go as [`Server::drain`] does it, then listeners, connections and shards end.
    pub async fn shutdown(&self, within: Duration) {
        self.drain(within).await;
        self.inner.phase.send_replace(Phase::Stopped);
        // Those whose handshakes were under way when new ones began to be refused.
        self.let_go(usize::MAX).await;
        tokio::time::sleep(FAREWELL).await;
        self.inner.stopped.store(true, Ordering::Relaxed);
        for port in self.inner.ports() {
            let _ = port.send_waiting(Mail::Call(Box::new(|_| {}))).await;
        }
    }

    /// Closes `count` sessions, as evenly over the shards as they have them. Answers how many are left.
    async fn let_go(&self, count: usize) -> usize {
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
