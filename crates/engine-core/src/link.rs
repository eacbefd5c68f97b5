//! Owns one WebSocket link: bytes that are not a frame yet, and bytes that the kernel has not taken yet.
//! Does not know sockets or rooms. Invariant: a link with nothing underway holds no buffer.

use crate::session::SessionKey;
use crate::slab::Key;

/// Names one WebSocket link of a shard.
pub type LinkKey = Key<LinkTag>;

/// Marks keys of links.
pub enum LinkTag {}

pub(crate) struct Link {
    pub(crate) session: SessionKey,
    pub(crate) decoder: ws_proto::Decoder,
    // Boxed, both: a pointer on each of many idle links instead of several words.
    pub(crate) partial: Option<Box<Partial>>,
    /// Bytes to write before anything else: what the kernel refused, and control frames.
    #[allow(clippy::box_collection)]
    pub(crate) unsent: Option<Box<Vec<u8>>>,
    pub(crate) deflate: bool,
    /// The kernel took less than it was given; wait until it says that it takes more.
    pub(crate) is_blocked: bool,
    /// Queued for transmission.
    pub(crate) is_dirty: bool,
    /// Nothing is read any more; what is staged is written, then the link is closed.
    pub(crate) is_closing: bool,
}

/// The beginning of a frame whose rest has not arrived. Bounded by `payload_bytes_max` and a header.
pub(crate) struct Partial {
    pub(crate) bytes: Vec<u8>,
    /// How many bytes it takes to read on: those of the whole frame, or of its header while that is not all there.
    pub(crate) need: usize,
}

impl Link {
    pub(crate) fn new(session: SessionKey, deflate: bool) -> Self {
        Self {
            session,
            decoder: ws_proto::Decoder::default(),
            partial: None,
            unsent: None,
            deflate,
            is_blocked: false,
            is_dirty: false,
            is_closing: false,
        }
    }

    pub(crate) fn stage(&mut self) -> &mut Vec<u8> {
        self.unsent.get_or_insert_default()
    }

    pub(crate) fn staged_bytes(&self) -> usize {
        self.unsent.as_ref().map_or(0, |bytes| bytes.len())
    }
}
