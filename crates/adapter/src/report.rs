//! Owns what is counted of the conversation with others. Does not decide anything by it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

/// How the conversation is doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// `ok`, or `connecting`.
    pub status: &'static str,
    /// Why, if it is not `ok`.
    pub complaint: Option<String>,
    /// Redis, without user and password.
    pub redis: String,
    /// Servers of other making that listen, by namespace; `python` is who listens to the channel of Python.
    pub others: BTreeMap<String, u64>,
    /// Messages that came and were for somebody here.
    pub received: u64,
    /// Messages that were sent.
    pub sent: u64,
    /// Events that were for servers.
    pub server_side: u64,
    /// Messages that could not be understood.
    pub undecodable: u64,
    /// Messages that came or were to go faster than they can be handled, and were dropped.
    pub dropped: u64,
    /// Connections that were made.
    pub connections: u64,
}

/// The same as it grows.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) received: AtomicU64,
    pub(crate) sent: AtomicU64,
    pub(crate) server_side: AtomicU64,
    pub(crate) undecodable: AtomicU64,
    pub(crate) dropped: AtomicU64,
    pub(crate) connections: AtomicU64,
    /// Why there is no connection; `None`: there is.
    complaint: Mutex<Option<String>>,
}

impl Counts {
    pub(crate) fn new() -> Self {
        let complaint = Mutex::new(Some("not connected yet".to_owned()));
        Self { complaint, ..Self::default() }
    }

    pub(crate) fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn complain(&self, why: Option<String>) {
        *self.complaint.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    pub(crate) fn report(&self, redis: String, others: BTreeMap<String, u64>) -> Report {
        let complaint = self.complaint.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Report {
            status: if complaint.is_none() { "ok" } else { "connecting" },
            complaint,
            redis,
            others,
            received: count(&self.received),
            sent: count(&self.sent),
            server_side: count(&self.server_side),
            undecodable: count(&self.undecodable),
            dropped: count(&self.dropped),
            connections: count(&self.connections),
        }
    }
}
