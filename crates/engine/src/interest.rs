//! Owns who wants to hear what: for each shard, which rooms have members there, as counts in a fixed table.
//! Does not know rooms' names, only their hashes. Invariant: a room with members on a shard is never denied; one
//! without may be affirmed by a collision, which costs a look-up there and nothing else.

use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicU32, Ordering};

use foldhash::quality::FixedState;

/// Slots for each shard: 64 KiB of counts, at which 10,000 rooms collide once in ten.
const SLOTS: usize = 16_384;

/// Which shards to mail a broadcast to. Written by the shard it speaks of, read by all; no locks.
#[derive(Debug)]
pub(crate) struct Interest {
    shards: Box<[Box<[AtomicU32]>]>,
}

impl Interest {
    pub(crate) fn new(shards: usize) -> Self {
        Self { shards: (0..shards).map(|_| (0..SLOTS).map(|_| AtomicU32::new(0)).collect()).collect() }
    }

    /// A room, or with an empty name a namespace, has its first member on `shard`.
    pub(crate) fn open(&self, shard: usize, namespace: &str, room: &str) {
        // Release, and acquire below: whoever hears that a join is done also sees it here.
        self.shards[shard][slot(namespace, room)].fetch_add(1, Ordering::Release);
    }

    /// It has none left.
    pub(crate) fn close(&self, shard: usize, namespace: &str, room: &str) {
        self.shards[shard][slot(namespace, room)].fetch_sub(1, Ordering::Release);
    }

    pub(crate) fn has(&self, shard: usize, namespace: &str, room: &str) -> bool {
        self.shards[shard][slot(namespace, room)].load(Ordering::Acquire) != 0
    }
}

fn slot(namespace: &str, room: &str) -> usize {
    let mut hasher = FixedState::default().build_hasher();
    hasher.write(namespace.as_bytes());
    hasher.write_u8(0);
    hasher.write(room.as_bytes());
    hasher.finish() as usize % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interest_lasts_from_the_first_member_to_the_last() {
        let interest = Interest::new(2);
        assert!(!interest.has(1, "/", "a"));
        interest.open(1, "/", "a");
        assert!(interest.has(1, "/", "a"));
        assert!(!interest.has(0, "/", "a"));
        interest.close(1, "/", "a");
        assert!(!interest.has(1, "/", "a"));
    }
}
