//! Owns what breaks in a run and when: servers that are killed or told to stop and begin again, and what they hear from Redis.
//! Does not know who watches or publishes.

use std::time::{Duration, Instant};

use anyhow::bail;

use super::nodes::{Node, Redis};
use super::{Args, Counts};

/// What breaks, and when next.
pub(crate) struct Breaking {
    kill_every: Duration,
    cut_every: Duration,
    away: Duration,
    next_kill: Instant,
    next_cut: Instant,
    victim: usize,
    /// Whether they may leave in good order.
    stops: bool,
    /// Who is told to stop, and has not ended yet.
    is_stopping: Option<usize>,
    /// Who is away, and until when.
    is_away: Option<(usize, Instant)>,
}

impl Breaking {
    /// Nothing is broken yet.
    pub(crate) fn new(args: &Args) -> Self {
        let (kill_every, cut_every) =
            (Duration::from_secs(args.kill_every), Duration::from_secs(args.cut_every));
        let now = Instant::now();
        Self {
            kill_every,
            cut_every,
            away: Duration::from_secs(args.away),
            next_kill: now + kill_every,
            next_cut: now + cut_every,
            victim: 0,
            stops: args.stop,
            is_stopping: None,
            is_away: None,
        }
    }

    /// Does what is due. With `breaks` false nothing more breaks, and whoever is away begins again in its time.
    ///
    /// # Errors
    /// A server ended by itself, or does not begin. The environment's: one cannot be told to stop.
    pub(crate) fn go_on(
        &mut self,
        nodes: &mut [Node],
        redis: Option<&Redis>,
        counts: &mut Counts,
        breaks: bool,
    ) -> anyhow::Result<()> {
        let now = Instant::now();
        if let Some((nth, until)) = self.is_away {
            if now >= until {
                nodes[nth].begin()?;
                self.is_away = None;
            }
        } else if let Some(nth) = self.is_stopping {
            if nodes[nth].has_ended() {
                nodes[nth].kill();
                (self.is_stopping, self.is_away) = (None, Some((nth, now + self.away)));
            }
        } else if breaks && !self.kill_every.is_zero() && now >= self.next_kill {
            if self.stops {
                nodes[self.victim].stop()?;
                self.is_stopping = Some(self.victim);
            } else {
                nodes[self.victim].kill();
                self.is_away = Some((self.victim, now + self.away));
            }
            counts.kills += 1;
            self.victim = (self.victim + 1) % nodes.len();
            self.next_kill = now + self.kill_every;
        }
        if let Some(redis) = redis.filter(|_| breaks && !self.cut_every.is_zero() && now >= self.next_cut) {
            counts.cuts += redis.cut_subscribers()?;
            self.next_cut = now + self.cut_every;
        }
        let mut others = nodes.iter_mut().enumerate().filter(|(nth, _)| self.is_stopping != Some(*nth));
        match others.find_map(|(_, node)| node.has_ended().then_some(node.address)) {
            Some(address) => bail!("the server at {address} ended by itself"),
            None => Ok(()),
        }
    }

    /// Whether all servers are there.
    pub(crate) fn is_whole(&self) -> bool {
        self.is_stopping.is_none() && self.is_away.is_none()
    }
}
