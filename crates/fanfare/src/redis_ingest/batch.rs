//! Owns the order in which what was read is kept, and what is tried again. Does not know where it was read from, nor
//! what is done with the dead. Invariant: while one waits to be tried again, no newer one is begun.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use queues::{Backoff, Begun, Health, Identity, Intake, Message, Turn, Verdict, random};

/// Pauses before what cannot be kept now is tried again.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// Attempts with a message that makes something fail which should work; as for queues.
const FAILURES_MAX: u32 = 6;

/// Something that is not settled yet.
pub(super) struct Held<T> {
    /// What it was read as, for whoever acknowledges or buries it.
    pub(super) origin: T,
    message: Arc<Message>,
    identity: Identity,
    failures: u32,
}

impl<T> Held<T> {
    /// What was just read.
    pub(super) fn new(origin: T, message: Message, identity: Identity) -> Self {
        Self { origin, message: Arc::new(message), identity, failures: 0 }
    }
}

/// How something ended.
pub(super) enum End {
    /// It is kept, or was, or means nothing.
    Settled,
    /// It can never be kept.
    Dead {
        /// The code of the refusal.
        code: &'static str,
        /// What people read.
        reason: String,
    },
}

/// What one round brought.
pub(super) struct Round<T> {
    /// What ended, in order.
    pub(super) ended: Vec<(T, End)>,
    /// How long to wait before the next round, if something could not be kept.
    pub(super) pause: Option<Duration>,
}

/// Keeps things in their order.
pub(super) struct Keeper {
    intake: Arc<dyn Intake>,
    health: Arc<Health>,
    /// It grows: whatever waits in the dispatcher knows by it what it must not pass.
    round: u64,
    is_well: bool,
    backoff: Backoff,
}

impl Keeper {
    pub(super) fn new(intake: Arc<dyn Intake>, health: Arc<Health>) -> Self {
        Self { intake, health, round: 0, is_well: true, backoff: Backoff::new(RETRY.0, RETRY.1) }
    }

    /// Tries what waits: all of it, or after a failure the first alone. What must be tried again stays in `waiting`.
    pub(super) async fn keep<T>(&mut self, waiting: &mut VecDeque<Held<T>>) -> Round<T> {
        let rest = if self.is_well { VecDeque::new() } else { waiting.split_off(waiting.len().min(1)) };
        let mut turn = Turn { round: self.round, is_first: true };
        let mut begun: Vec<(Held<T>, Begun)> = Vec::new();
        while let Some(held) = waiting.pop_front() {
            let outcome = self.intake.begin(&held.message, &held.identity, turn).await;
            turn.is_first = false;
            let halts = matches!(outcome, Err(Verdict::Later { .. } | Verdict::Failed { .. }));
            begun.push((held, outcome));
            if halts {
                break;
            }
        }
        let (mut ended, mut again, mut pause) = (Vec::new(), VecDeque::new(), None);
        for (mut held, outcome) in begun {
            let verdict = match outcome {
                Ok(keeping) => keeping.await,
                Err(verdict) => verdict,
            };
            let health = &self.health;
            let (counter, end) = match verdict {
                Verdict::Kept => (&health.kept, End::Settled),
                Verdict::Repeated => (&health.repeated, End::Settled),
                Verdict::Ignored => (&health.ignored, End::Settled),
                Verdict::Later { code, message, after } => {
                    pause = pause.or_else(|| Some(self.wait(code, &message, after)));
                    again.push_back(held);
                    continue;
                }
                Verdict::Failed { code, message } if held.failures + 1 < FAILURES_MAX => {
                    held.failures += 1;
                    pause = pause.or_else(|| Some(self.wait(code, &message, None)));
                    again.push_back(held);
                    continue;
                }
                Verdict::Failed { code, message } | Verdict::Never { code, message } => {
                    (&health.dead, End::Dead { code, reason: message })
                }
            };
            count(counter);
            health.underway.fetch_sub(1, Ordering::Relaxed);
            ended.push((held.origin, end));
        }
        again.append(waiting);
        again.extend(rest);
        *waiting = again;
        self.is_well = pause.is_none();
        if self.is_well {
            self.backoff.reset();
            self.health.waits(None);
        } else {
            self.round += 1;
        }
        Round { ended, pause }
    }

    /// Something must wait, because of this.
    fn wait(&mut self, code: &str, message: &str, after: Option<Duration>) -> Duration {
        self.health.waits(Some(format!("{code}: {message}")));
        count(&self.health.retried);
        self.backoff.next(random()).max(after.unwrap_or_default().min(RETRY.1))
    }
}

/// One more of these.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use queues::Answer;

    use super::*;

    /// Answers what it was told to, and remembers what it was given.
    struct Script {
        verdicts: Mutex<VecDeque<Verdict>>,
        given: Mutex<Vec<(String, Turn)>>,
    }

    impl Script {
        fn new(verdicts: impl IntoIterator<Item = Verdict>) -> Arc<Self> {
            let verdicts = Mutex::new(verdicts.into_iter().collect());
            Arc::new(Self { verdicts, given: Mutex::default() })
        }
    }

    impl Intake for Script {
        fn begin<'a>(&'a self, message: &'a Arc<Message>, _: &'a Identity, turn: Turn) -> Answer<'a, Begun> {
            let text = String::from_utf8_lossy(&message.body).into_owned();
            self.given.lock().unwrap().push((text, turn));
            let verdict = self.verdicts.lock().unwrap().pop_front().unwrap_or(Verdict::Kept);
            let keeping: Answer<'static, Verdict> = Box::pin(async move { verdict });
            Box::pin(async move { Ok(keeping) })
        }
    }

    fn later() -> Verdict {
        Verdict::Later { code: "store_unavailable", message: "full".into(), after: None }
    }

    fn held(names: &[&'static str]) -> VecDeque<Held<&'static str>> {
        let held = |name: &&'static str| {
            let message = Message { body: name.as_bytes().into(), ..Message::default() };
            Held::new(*name, message, Identity::Id((*name).into()))
        };
        names.iter().map(held).collect()
    }

    #[tokio::test]
    async fn what_cannot_be_kept_waits_in_its_order_and_the_first_finds_out() {
        let script = Script::new([Verdict::Kept, later(), later(), later(), Verdict::Kept]);
        let health = Arc::new(Health::new("s", "h"));
        health.connected();
        let mut keeper = Keeper::new(script.clone(), health.clone());
        let mut waiting = held(&["a", "b", "c"]);
        let round = keeper.keep(&mut waiting).await;
        assert_eq!(round.ended.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["a"]);
        assert!(round.pause.is_some());
        assert_eq!(health.report().status, "waiting");
        assert!(keeper.keep(&mut waiting).await.ended.is_empty());
        assert_eq!(waiting.iter().map(|held| held.origin).collect::<Vec<_>>(), ["b", "c"]);
        assert!(keeper.keep(&mut waiting).await.pause.is_none());
        let last = keeper.keep(&mut waiting).await;
        assert_eq!((last.ended.len(), waiting.len()), (1, 0));
        let given = script.given.lock().unwrap().clone();
        let expected = [("a", 0, true), ("b", 0, false), ("c", 0, false), ("b", 1, true), ("b", 2, true)];
        for ((name, turn), (expected, round, is_first)) in given.iter().zip(expected) {
            assert_eq!((name.as_str(), *turn), (expected, Turn { round, is_first }));
        }
        assert_eq!(given.last().map(|(name, _)| name.as_str()), Some("c"));
        assert_eq!(health.report().status, "ok");
    }

    #[tokio::test]
    async fn what_fails_again_and_again_is_dead_and_poison_at_once() {
        let failed = || Verdict::Failed { code: "internal", message: "broken".into() };
        let never = Verdict::Never { code: "bad_request", message: "no event".into() };
        let mut verdicts: VecDeque<Verdict> = (0..FAILURES_MAX).map(|_| failed()).collect();
        verdicts.push_back(never);
        let script = Script::new(verdicts);
        let mut keeper = Keeper::new(script, Arc::new(Health::new("s", "h")));
        let mut waiting = held(&["a"]);
        for _ in 1..FAILURES_MAX {
            assert!(keeper.keep(&mut waiting).await.ended.is_empty());
        }
        let round = keeper.keep(&mut waiting).await;
        assert!(matches!(round.ended[..], [("a", End::Dead { code: "internal", .. })]));
        let mut poison = held(&["b"]);
        let round = keeper.keep(&mut poison).await;
        assert!(matches!(round.ended[..], [("b", End::Dead { code: "bad_request", .. })]));
    }
}
