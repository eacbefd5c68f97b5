//! Owns what waits to be written to one session, in the order it was emitted.
//! Does not know transports, nor what to do when full. Invariant: `bytes` is the weight of what is queued.

use std::collections::VecDeque;
use std::rc::Rc;

use crate::message::Message;

/// A queue of shared messages. Holds no memory while empty: its ring goes back to the shard's [`Rings`].
#[derive(Default)]
pub(crate) struct Outbox {
    queue: VecDeque<Rc<Message>>,
    bytes: usize,
}

impl Outbox {
    #[inline]
    pub(crate) fn push(&mut self, message: Rc<Message>, rings: &mut Rings) {
        if self.queue.capacity() == 0
            && let Some(ring) = rings.spare.pop()
        {
            self.queue = ring;
        }
        self.bytes += message.weight();
        self.queue.push_back(message);
    }

    pub(crate) fn pop(&mut self) -> Option<Rc<Message>> {
        let message = self.queue.pop_front()?;
        self.bytes -= message.weight();
        Some(message)
    }

    pub(crate) fn front(&self) -> Option<&Rc<Message>> {
        self.queue.front()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Weight of everything queued, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many Engine.IO packets are queued.
    pub(crate) fn packets(&self) -> usize {
        self.queue.iter().map(|message| message.packets()).sum()
    }

    /// Gives the empty ring back, so that an idle session holds none.
    pub(crate) fn release(&mut self, rings: &mut Rings) {
        if self.queue.is_empty() && self.queue.capacity() > 0 {
            let ring = std::mem::take(&mut self.queue);
            // A ring that grew for one slow reader is not worth keeping for the others.
            if ring.capacity() <= 64 && rings.spare.len() < rings.spare_max {
                rings.spare.push(ring);
            }
        }
    }

    pub(crate) fn clear(&mut self) {
        self.queue = VecDeque::new();
        self.bytes = 0;
    }
}

/// Spare rings for outboxes, so that a broadcast to a thousand sessions does not allocate a thousand times.
pub(crate) struct Rings {
    spare: Vec<VecDeque<Rc<Message>>>,
    spare_max: usize,
}

impl Rings {
    pub(crate) fn new() -> Self {
        // 16,384 rings of four references are under 1 MiB, and cover a broadcast to that many sessions per turn.
        Self { spare: Vec::new(), spare_max: 16_384 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_emptied_outbox_weighs_nothing_and_gives_its_ring_back() {
        let mut rings = Rings::new();
        let mut outbox = Outbox::default();
        let hello = Message::text(b"4hello");
        outbox.push(hello.clone(), &mut rings);
        outbox.push(hello.clone(), &mut rings);
        assert_eq!(outbox.bytes(), 16);
        assert!(outbox.pop().is_some());
        assert!(outbox.pop().is_some());
        assert_eq!(outbox.bytes(), 0);
        outbox.release(&mut rings);
        assert_eq!(rings.spare.len(), 1);
        outbox.push(hello, &mut rings);
        assert!(rings.spare.is_empty());
    }
}
