//! Owns how a bus is doing, and what it counts. Does not judge.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How a bus is doing.
#[derive(Clone, Debug)]
pub struct BusHealth {
    /// Whether there is a connection on which all channels are subscribed.
    pub is_connected: bool,
    /// Whether other nodes are not heard now. Over when a fence has passed.
    pub deaf: Option<Deaf>,
    /// How long ago the last fence has passed; `None` if none has yet.
    pub canary_age: Option<Duration>,
    /// How long it took: to be published, to come back, and until the reader of the feed had dealt with everything before it.
    pub canary_trip: Option<Duration>,
    /// Whether somebody else has this node's number, so that it must start anew.
    pub is_superseded: bool,
    /// Live nodes, this one included.
    pub nodes: usize,
    /// What was counted since the start.
    pub counts: Counts,
}

/// That other nodes are not heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deaf {
    /// For how long.
    pub age: Duration,
    /// Why.
    pub why: DeafCause,
}

/// Why other nodes are not heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeafCause {
    /// There is no connection, or nothing can be published.
    NotConnected(String),
    /// There is a connection, and what was published does not come.
    NothingComes,
    /// What was published has come, and whoever reads the feed does not take it.
    SlowConsumer,
}

impl fmt::Display for DeafCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeafCause::NotConnected(why) => write!(f, "not connected: {why}"),
            DeafCause::NothingComes => f.write_str("subscribed, but nothing comes"),
            DeafCause::SlowConsumer => f.write_str("what comes is not taken in time"),
        }
    }
}

/// What a bus has counted since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Events that have come and were put into the feed.
    pub messages_in: u64,
    /// Messages that were published: each event once for each channel, and what nodes tell each other.
    pub messages_out: u64,
    /// Events that have come a second time, by another channel, and were dropped.
    pub repeats: u64,
    /// What has come and cannot be read.
    pub undecodable: u64,
    /// Connections that broke or were given up.
    pub cuts: u64,
    /// How often the feed was full, and what was in it was dropped.
    pub overflows: u64,
    /// Questions of other nodes that were dropped because too many waited.
    pub requests_dropped: u64,
}

macro_rules! tally {
    ($($count:ident),*) => {
        /// The counters, as they are counted.
        #[derive(Debug, Default)]
        pub(crate) struct Tally {
            $(pub(crate) $count: Counter,)*
        }

        impl Tally {
            pub(crate) fn counts(&self) -> Counts {
                Counts { $($count: self.$count.read(),)* }
            }
        }
    };
}

tally!(messages_in, messages_out, repeats, undecodable, cuts, overflows, requests_dropped);

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Whether other nodes are heard.
#[derive(Debug, Default)]
pub(crate) struct Status(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    is_connected: bool,
    deaf: Option<(Instant, DeafCause)>,
    /// When the last mark passed, and how long it took.
    passed: Option<(Instant, Duration)>,
    is_superseded: bool,
}

impl Status {
    pub(crate) fn connect(&self) {
        self.lock().is_connected = true;
    }

    pub(crate) fn cut(&self, why: &str) {
        self.lock().is_connected = false;
        self.deafen(DeafCause::NotConnected(why.to_owned()));
    }

    /// Nobody is heard, for this reason.
    pub(crate) fn deafen(&self, why: DeafCause) {
        let mut state = self.lock();
        let since = state.deaf.as_ref().map(|(since, _)| *since);
        if state.deaf.as_ref().is_none_or(|(_, known)| *known != why) {
            tracing::warn!("other servers are not heard: {why}");
        }
        state.deaf = Some((since.unwrap_or_else(Instant::now), why));
    }

    /// A mark has passed, and took as long.
    pub(crate) fn pass(&self, trip: Duration) {
        let mut state = self.lock();
        state.passed = Some((Instant::now(), trip));
        // One that had come before a cut says nothing of what comes after.
        if state.is_connected
            && let Some((since, _)) = state.deaf.take()
        {
            tracing::info!("other servers are heard again, after {:?}", since.elapsed());
        }
    }

    pub(crate) fn supersede(&self) {
        self.lock().is_superseded = true;
    }

    pub(crate) fn health(&self, nodes: usize, tally: &Tally) -> BusHealth {
        let state = self.lock();
        BusHealth {
            is_connected: state.is_connected,
            deaf: state.deaf.clone().map(|(since, why)| Deaf { age: since.elapsed(), why }),
            canary_age: state.passed.map(|(at, _)| at.elapsed()),
            canary_trip: state.passed.map(|(_, trip)| trip),
            is_superseded: state.is_superseded,
            nodes,
            counts: tally.counts(),
        }
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.lock().is_connected
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
