//! The compressing half. Does not know frames: the caller writes the header, with RSV1.

use flate2::{Compress, Compression, FlushCompress, Status};

use super::{TAIL, WINDOW_BITS};

/// Compresses one message at a time; shared by all connections of a thread.
#[derive(Debug)]
pub struct Deflater {
    state: Compress,
}

impl Default for Deflater {
    /// Level 3, on the fast side: every member of a room waits while its broadcast is compressed.
    fn default() -> Self {
        Self::with_level(3)
    }
}

impl Deflater {
    /// A deflater at `level`, 1 (fast) to 9 (small); other values are moved to the nearer end.
    pub fn with_level(level: u32) -> Self {
        let level = Compression::new(level.clamp(1, 9));
        Self { state: Compress::new_with_window_bits(level, false, WINDOW_BITS) }
    }

    /// Appends the compressed form of one whole message to `out`: a payload for a frame with RSV1 (RFC 7692 §7.2.1).
    ///
    /// Compressed data may be longer than `payload`: compare, and send the plain form then.
    pub fn compress(&mut self, payload: &[u8], out: &mut Vec<u8>) {
        self.state.reset();
        let start = out.len();
        let mut rest = payload;
        // Room for a typical result at once; the loop below grows it where that was too little.
        out.reserve(payload.len() / 2 + 64);
        loop {
            let before = self.state.total_in();
            let status = self
                .state
                .compress_vec(rest, out, FlushCompress::Sync)
                .expect("invariant: deflating from and to memory cannot fail");
            rest = &rest[(self.state.total_in() - before) as usize..];
            // A flush is complete when all is consumed and room is left; without room there may be more to come.
            let is_flushed = rest.is_empty() && out.len() < out.capacity();
            if is_flushed || status == Status::StreamEnd {
                break;
            }
            out.reserve(out.len() - start + 64);
        }
        if out[start..].ends_with(&TAIL) {
            out.truncate(out.len() - TAIL.len());
        }
        // An empty message leaves an empty block, which goes out as one zero byte (RFC 7692 §7.2.3.6).
        if out.len() == start {
            out.push(0);
        }
    }
}
