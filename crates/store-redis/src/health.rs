//! Owns what is remembered of how the store is doing. Does not know connections.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a complaint is told if nothing is committed that could show whether it still holds: a server that is asked
/// for nothing because it complains must not complain for ever.
const COMPLAINT_AGE_MAX: Duration = Duration::from_secs(30);

/// How the store is doing.
#[derive(Debug, Default)]
pub(crate) struct Health {
    /// The newest order that was ever told to us. A database that has less has lost something.
    order: AtomicU64,
    /// Not on the way of any event: it changes when something fails or works again.
    complaint: Mutex<Option<(Instant, String)>>,
}

impl Health {
    pub(crate) fn see(&self, order: u64) {
        self.order.fetch_max(order, Ordering::AcqRel);
    }

    pub(crate) fn order(&self) -> u64 {
        self.order.load(Ordering::Acquire)
    }

    pub(crate) fn set_complaint(&self, complaint: Option<String>) {
        let complaint = complaint.map(|complaint| (Instant::now(), complaint));
        *self.complaint.lock().unwrap_or_else(PoisonError::into_inner) = complaint;
    }

    pub(crate) fn complaint(&self) -> Option<String> {
        let complaint = self.complaint.lock().unwrap_or_else(PoisonError::into_inner).clone();
        complaint.filter(|(at, _)| at.elapsed() < COMPLAINT_AGE_MAX).map(|(_, complaint)| complaint)
    }
}
