//! Owns the one task that writes: it takes batches from a bounded queue, joins those that wait, divides them into calls
//! of bounded work, and answers when Redis has. Does not know what a call does; that is `call.rs` and the script.
//!
//! A call whose answer is lost is sent again, under its number, on another connection if need be. The script keeps the
//! last answer to each writer, so that what was done is answered and not done again; and it refuses numbers that a later
//! one has overtaken, so that what was given up is not done late. One call is under way at a time: its successor must not
//! overtake it.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hub::store::{Commit, Outcome, StoreFault};
use hub::time::Timestamp;
use redis::Value;
use tokio::sync::{mpsc, oneshot};

use crate::call::{Answer, Bounds, Call, Heading};
use crate::fault::Failure;
use crate::health::Health;
use crate::link::{Held, Link};
use crate::script;

/// Batches that may wait. 256: a dispatcher has one under way, and many of them a few each.
const QUEUE_MAX: usize = 256;

/// Commits that are joined, if as many wait.
const JOINED_MAX: usize = 4_096;

/// Between two attempts: the first time, and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

/// How the writer does its work.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manner {
    pub(crate) bounds: Bounds,
    pub(crate) publishes: bool,
    /// How long a call is tried.
    pub(crate) patience: Duration,
    /// Replicas that must have a call before it is answered.
    pub(crate) replicas: u32,
    /// How long is waited for them each time.
    pub(crate) replicas_timeout: Duration,
}

/// The way to the task.
pub(crate) struct Writer {
    queue: mpsc::Sender<Request>,
}

enum Request {
    Commit(Waiting),
    Close,
}

struct Waiting {
    now: Timestamp,
    batch: Vec<Commit>,
    answer: oneshot::Sender<Result<Vec<Outcome>, StoreFault>>,
}

impl Writer {
    /// A queue, and the task that must be run for it. It ends after [`Writer::close`], or when nobody can reach it any
    /// more.
    pub(crate) fn new(link: Link, manner: Manner, health: Arc<Health>) -> (Self, impl Future<Output = ()>) {
        let (queue, requests) = mpsc::channel(QUEUE_MAX);
        let random = RandomState::new();
        // Two hashes of a keyed hasher: as good as random, and no dependency.
        let name = format!("{:016x}{:016x}", random.hash_one(1), RandomState::new().hash_one(2));
        let work = Work { link, manner, health, random, name, turn: 0, down_since: None };
        (Self { queue }, work.run(requests))
    }

    /// Queues a batch.
    pub(crate) async fn commit(
        &self,
        now: Timestamp,
        batch: Vec<Commit>,
    ) -> Result<Vec<Outcome>, StoreFault> {
        let (answer, answered) = oneshot::channel();
        match self.queue.try_send(Request::Commit(Waiting { now, batch, answer })) {
            Ok(()) => answered.await.unwrap_or_else(|_| Err(closed())),
            Err(mpsc::error::TrySendError::Full(_)) => {
                Err(StoreFault::Unavailable(format!("{QUEUE_MAX} batches wait already")))
            }
            Err(mpsc::error::TrySendError::Closed(_)) => Err(closed()),
        }
    }

    /// Ends the task when it has done what was queued before.
    pub(crate) async fn close(&self) {
        // If the task has ended, there is nothing to end.
        let _ = self.queue.send(Request::Close).await;
    }
}

/// What whoever comes too late is told.
pub(crate) fn closed() -> StoreFault {
    StoreFault::Unavailable("it is closed".to_owned())
}

struct Work {
    link: Link,
    manner: Manner,
    health: Arc<Health>,
    random: RandomState,
    /// Tells this writer from every other.
    name: String,
    turn: u64,
    /// Since when nothing has worked.
    down_since: Option<Instant>,
}

/// A batch that is under way.
struct Batch {
    outcomes: Vec<Outcome>,
    fault: Option<StoreFault>,
}

impl Work {
    async fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        let mut is_open = true;
        while is_open && let Some(first) = requests.recv().await {
            let mut group = Vec::new();
            let mut commits = 0;
            let mut next = Some(first);
            while let Some(request) = next {
                match request {
                    Request::Commit(waiting) => {
                        commits += waiting.batch.len();
                        group.push(waiting);
                    }
                    Request::Close => {
                        is_open = false;
                        break;
                    }
                }
                next = if commits < JOINED_MAX { requests.try_recv().ok() } else { None };
            }
            self.serve(group).await;
        }
    }

    async fn serve(&mut self, group: Vec<Waiting>) {
        let mut batches: Vec<Batch> = group
            .iter()
            .map(|waiting| Batch { outcomes: Vec::with_capacity(waiting.batch.len()), fault: None })
            .collect();
        let commits: Vec<(usize, &Commit)> = group
            .iter()
            .enumerate()
            .flat_map(|(owner, waiting)| waiting.batch.iter().map(move |commit| (owner, commit)))
            .collect();
        let mut rest = &commits[..];
        if rest.is_empty()
            && let Some(now) = group.iter().map(|waiting| waiting.now).max()
            && let Err(failure) = self.call(now, &[]).await
        {
            // An empty batch is pruning and nothing else.
            batches.iter_mut().for_each(|batch| batch.fault = Some(told(&failure, 0, 0)));
        }
        while !rest.is_empty() {
            let count = self.manner.bounds.take(rest.iter().map(|(_, commit)| *commit));
            let (part, after) = rest.split_at(count);
            rest = after;
            // What is left of a batch that has failed is not tried: its later commits count on its earlier ones.
            let part: Vec<_> = part.iter().filter(|(owner, _)| batches[*owner].fault.is_none()).collect();
            let Some(now) = part.iter().map(|(owner, _)| group[*owner].now).max() else { continue };
            let given: Vec<&Commit> = part.iter().map(|(_, commit)| *commit).collect();
            match self.call(now, &given).await {
                Ok(outcomes) => {
                    for ((owner, _), outcome) in part.iter().zip(outcomes) {
                        batches[*owner].outcomes.push(outcome);
                    }
                }
                Err(failure) => {
                    for (owner, _) in part {
                        let batch = &mut batches[*owner];
                        batch.fault = Some(told(&failure, batch.outcomes.len(), group[*owner].batch.len()));
                    }
                }
            }
        }
        for (waiting, batch) in group.into_iter().zip(batches) {
            // Whoever no longer waits may find out by looking.
            let _ = waiting.answer.send(batch.fault.map_or(Ok(batch.outcomes), Err));
        }
    }

    /// Has one call done, or gives it up.
    async fn call(&mut self, now: Timestamp, commits: &[&Commit]) -> Result<Vec<Outcome>, Failure> {
        self.turn += 1;
        let Manner { publishes, patience, .. } = self.manner;
        let heading = Heading { now, turn: self.turn, known: self.health.order(), publishes };
        let call = Call::encode(heading, commits, &self.random);
        let begun = Instant::now();
        let (mut pause, mut was_sent) = (PAUSES.0, false);
        loop {
            let answer = match self.attempt(&call).await {
                Ok(answer) => call.decode(commits, &answer),
                Err(failure) => Err(failure),
            };
            let failure = match answer {
                Ok(Answer { order, outcomes }) => {
                    self.down_since = None;
                    self.health.see(order);
                    self.health.set_complaint(None);
                    return Ok(outcomes);
                }
                Err(failure) => failure,
            };
            self.health.set_complaint(Some(failure.to_fault().to_string()));
            was_sent |= matches!(failure, Failure::Lost(_));
            // Once all have waited in vain, those who come later need not; only what is unsure is tried as long again.
            let since = *self.down_since.get_or_insert(begun);
            let until = if was_sent { begun } else { since } + patience;
            if !failure.is_passing() || Instant::now() >= until {
                return Err(match failure {
                    Failure::Lost(why) | Failure::Refused(why) if was_sent => Failure::Lost(why),
                    failure => failure,
                });
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    async fn attempt(&self, call: &Call<'_>) -> Result<Vec<u8>, Failure> {
        let held = self.link.hold().await?;
        let own = [&call.numbers[..], self.name.as_bytes()];
        let arguments = own.into_iter().chain(call.texts.iter().map(AsRef::as_ref));
        let answer = self.link.call(&held, &script::COMMIT, arguments).await?;
        self.wait_for_replicas(&held).await?;
        match answer {
            Value::BulkString(answer) => Ok(answer),
            _ => Err(Failure::Damaged("the script's answer is no text".to_owned())),
        }
    }

    async fn wait_for_replicas(&self, held: &Held) -> Result<(), Failure> {
        let Manner { replicas, replicas_timeout, .. } = self.manner;
        if replicas == 0 {
            return Ok(());
        }
        let mut command = redis::cmd("WAIT");
        command.arg(replicas).arg(replicas_timeout.as_millis() as u64);
        match self.link.send(held, &command).await? {
            Value::Int(count) if count >= i64::from(replicas) => Ok(()),
            Value::Int(count) => Err(Failure::Lost(format!("{count} of {replicas} replicas have it"))),
            _ => Err(Failure::Damaged("WAIT answers no number".to_owned())),
        }
    }
}

/// What somebody is told whose batch has failed in a call, after `done` of its commits.
fn told(failure: &Failure, done: usize, commits: usize) -> StoreFault {
    let mut why = failure.why();
    if matches!(failure, Failure::Lost(_)) {
        why += "; whether it was done is not known";
    }
    if done > 0 {
        why += &format!("; the first {done} of {commits} commits are done");
    }
    match failure.to_fault() {
        StoreFault::Unavailable(_) => StoreFault::Unavailable(why),
        StoreFault::Full(_) => StoreFault::Full(why),
        StoreFault::Corrupt(_) => StoreFault::Corrupt(why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unsure_or_partly_done_is_said() {
        let lost = told(&Failure::Lost("gone".to_owned()), 512, 2_048);
        let expected = "gone; whether it was done is not known; the first 512 of 2048 commits are done";
        assert_eq!(lost, StoreFault::Unavailable(expected.to_owned()));
        assert_eq!(told(&Failure::Full("OOM".to_owned()), 0, 3), StoreFault::Full("OOM".to_owned()));
    }
}
