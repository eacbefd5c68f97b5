//! Owns what the threads tell about how they are doing. Does not know what they do.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

/// How the store is doing.
#[derive(Debug, Default)]
pub(crate) struct Health {
    order: AtomicU64,
    /// What was found damaged: that does not heal while the process runs.
    damage: OnceLock<String>,
    /// Not on the way of any event: it changes when something fails or works again.
    complaint: Mutex<Option<String>>,
}

impl Health {
    pub(crate) fn set_order(&self, order: u64) {
        self.order.store(order, Ordering::Release);
    }

    pub(crate) fn order(&self) -> u64 {
        self.order.load(Ordering::Acquire)
    }

    pub(crate) fn set_complaint(&self, complaint: Option<String>) {
        *self.complaint.lock().unwrap_or_else(PoisonError::into_inner) = complaint;
    }

    pub(crate) fn set_damage(&self, damage: &str) {
        // The first is the one to look at.
        let _ = self.damage.set(damage.to_owned());
    }

    pub(crate) fn complaint(&self) -> Option<String> {
        let damage = self.damage.get().cloned();
        damage.or_else(|| self.work_complaint())
    }

    fn work_complaint(&self) -> Option<String> {
        self.complaint.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
