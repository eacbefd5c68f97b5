//! Owns whether a socket is still there for the reason for which something was begun for it. Does not know sockets. Lives with a
//! socket's identity, which it keeps when it is lost and comes back: each time is a stay of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The comings and goings of one socket in this process.
#[derive(Default)]
pub(crate) struct Stays(Arc<AtomicU64>);

/// One stay: from when a socket connects until it is disconnected, here or by taking it over elsewhere.
pub(crate) struct Stay {
    changes: Arc<AtomicU64>,
    began: u64,
}

impl Stays {
    /// The socket connects; an earlier stay is over.
    pub(crate) fn begin(&self) -> Stay {
        // Whoever asks learns of the change through other channels as well, which bring order.
        let began = self.0.fetch_add(1, Ordering::Relaxed) + 1;
        Stay { changes: self.0.clone(), began }
    }

    /// The socket is disconnected.
    pub(crate) fn end(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Stay {
    /// Whether the socket has gone since, even if it is back.
    pub(crate) fn is_over(&self) -> bool {
        self.changes.load(Ordering::Relaxed) != self.began
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stay_is_over_when_the_socket_goes_and_when_it_comes_again() {
        let stays = Stays::default();
        let first = stays.begin();
        assert!(!first.is_over());
        stays.end();
        assert!(first.is_over());
        let second = stays.begin();
        assert!(first.is_over() && !second.is_over());
        let third = stays.begin();
        assert!(second.is_over() && !third.is_over());
    }
}
