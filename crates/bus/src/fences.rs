//! Owns the marks that this node sends to itself, to learn that everything before them has come and was dealt with. Does
//! not know who reads the feed. Invariant: a mark is published after everybody who is told of its return has asked.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::{Notify, oneshot};

use crate::fault::BusFault;
use crate::feed::{Fence, News};
use crate::letter::Letter;
use crate::shared::Shared;

/// Marks, and who waits for them.
#[derive(Debug)]
pub(crate) struct Fences {
    state: Mutex<State>,
    /// Somebody waits.
    asked: Notify,
    nonce: u64,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<oneshot::Sender<Result<(), BusFault>>>,
    number: u64,
    stage: Stage,
    /// Connections that broke.
    cuts: u64,
    is_ended: bool,
}

/// How far the mark that is under way has come.
#[derive(Debug, Default)]
enum Stage {
    #[default]
    Idle,
    /// It is not known to be published; it is given to the reader with this when it comes.
    Publishing(Fence),
    /// It has not come back yet.
    Published(Fence),
    /// It has, and the reader has not passed it yet.
    Arrived,
}

/// How far a mark has come that has not passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    Publishing,
    Published,
    Arrived,
}

impl Fences {
    pub(crate) fn new(nonce: u64) -> Self {
        Self { state: Mutex::default(), asked: Notify::new(), nonce }
    }

    /// Waits for a mark that is published after this call.
    pub(crate) async fn pass(&self) -> Result<(), BusFault> {
        let (answer, answered) = oneshot::channel();
        {
            let mut state = self.lock();
            if state.is_ended {
                return Err(BusFault::Closed);
            }
            state.waiting.push(answer);
        }
        self.asked.notify_one();
        answered.await.unwrap_or(Err(BusFault::Closed))
    }

    /// Publishes marks for those who wait, one at a time: whoever comes meanwhile shares the next.
    pub(crate) async fn run(&self, shared: &Shared) {
        loop {
            self.asked.notified().await;
            let (fence, passing) = Fence::new();
            let (waiting, number) = {
                let mut state = self.lock();
                if state.waiting.is_empty() {
                    continue;
                }
                state.number += 1;
                state.stage = Stage::Publishing(fence);
                (std::mem::take(&mut state.waiting), state.number)
            };
            let begun = Instant::now();
            let how = self.send(shared, number, passing).await;
            self.lock().stage = Stage::Idle;
            if how.is_ok() {
                shared.status.pass(begun.elapsed());
            }
            for answer in waiting {
                // Whoever no longer waits need not be told.
                let _ = answer.send(how.clone());
            }
        }
    }

    async fn send(
        &self,
        shared: &Shared,
        number: u64,
        passing: oneshot::Receiver<()>,
    ) -> Result<(), BusFault> {
        let cuts = self.lock().cuts;
        let mark = Letter::Mark { nonce: self.nonce, number };
        let receivers = shared.publish_letter(shared.own_channel(), &mark).await?;
        if receivers == 0 {
            return Err(BusFault::Down("nobody listens to this node's own channel".to_owned()));
        }
        {
            // It may have come before the answer that it was published.
            let mut state = self.lock();
            state.stage = match std::mem::take(&mut state.stage) {
                // It may have gone to the connection that was there before.
                Stage::Publishing(_) if state.cuts != cuts => Stage::Idle,
                Stage::Publishing(fence) => Stage::Published(fence),
                stage @ (Stage::Idle | Stage::Published(_) | Stage::Arrived) => stage,
            };
        }
        passing.await.map_err(|_| BusFault::Down("the connection broke meanwhile".to_owned()))
    }

    /// A mark has come: what the reader is given, if somebody waits for it.
    pub(crate) fn arrive(&self, nonce: u64, number: u64) -> Option<News> {
        let mut state = self.lock();
        if nonce != self.nonce || number != state.number {
            return None;
        }
        match std::mem::replace(&mut state.stage, Stage::Arrived) {
            Stage::Publishing(fence) | Stage::Published(fence) => Some(News::Fence(fence)),
            stage @ (Stage::Idle | Stage::Arrived) => {
                state.stage = stage;
                None
            }
        }
    }

    /// What was on its way will not come.
    pub(crate) fn cut(&self) {
        let mut state = self.lock();
        state.cuts += 1;
        // It is dropped, so whoever waits is told. One that is not published yet may come by the next connection.
        if matches!(state.stage, Stage::Published(_)) {
            state.stage = Stage::Idle;
        }
    }

    /// How far the mark that is under way has come.
    pub(crate) fn progress(&self) -> Progress {
        match self.lock().stage {
            Stage::Idle | Stage::Publishing(_) => Progress::Publishing,
            Stage::Published(_) => Progress::Published,
            Stage::Arrived => Progress::Arrived,
        }
    }

    /// There will be no marks any more.
    pub(crate) fn end(&self) {
        let mut state = self.lock();
        state.is_ended = true;
        state.stage = Stage::Idle;
        for waiting in state.waiting.drain(..) {
            // Whoever no longer waits need not be told.
            let _ = waiting.send(Err(BusFault::Closed));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
