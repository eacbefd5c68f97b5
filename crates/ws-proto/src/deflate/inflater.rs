//! The decompressing half. Its output buffer is reused; what it keeps between messages is bounded.

use flate2::{Decompress, FlushDecompress, Status};

use crate::Fault;

/// The tail that was left out on the wire, then an empty last block: only what stopped between two blocks gets past it.
const END: [u8; 9] = [0x00, 0x00, 0xFF, 0xFF, 0x01, 0x00, 0x00, 0xFF, 0xFF];

/// Output grows by at least this much at a time, and never further than this beyond the limit.
const CHUNK_BYTES: usize = 16 * 1024;

/// Output memory kept from one message to the next. A larger message's buffer is given back by the message after it.
const KEPT_BYTES_MAX: usize = 256 * 1024;

/// Decompresses one message at a time; shared by all connections of a thread.
#[derive(Debug)]
pub struct Inflater {
    state: Decompress,
    out: Vec<u8>,
}

impl Default for Inflater {
    fn default() -> Self {
        // `Decompress::new` has the full window of 15 bits: whatever window the peer uses fits in.
        Self { state: Decompress::new(false), out: Vec::new() }
    }
}

impl Inflater {
    /// Decompresses the payload of one whole message (all its fragments), which stays readable until the next call.
    ///
    /// # Errors
    /// [`Fault::MessageTooBig`] once more than `bytes_max` came out; at most `bytes_max` and one chunk of 16 KiB are ever
    /// produced. [`Fault::BadDeflate`] for what is not deflate, or stops in the middle of a block.
    ///
    /// Spec: RFC 7692 §7.2.2.
    pub fn inflate(&mut self, payload: &[u8], bytes_max: usize) -> Result<&[u8], Fault> {
        self.state.reset(false);
        self.out.clear();
        self.out.shrink_to(KEPT_BYTES_MAX.min(bytes_max.saturating_add(CHUNK_BYTES)));
        if payload.is_empty() {
            // Not even the one zero byte of an empty block; harmless, so it counts as an empty message.
            return Ok(&self.out);
        }
        let mut input = payload;
        let mut is_in_end = false;
        let mut has_restarted = false;
        loop {
            if self.out.len() == self.out.capacity() {
                // Doubled, so that a large message is not copied once per chunk; all room there is may be filled before
                // the limit is looked at, so there must not be more of it than that.
                let room_max = bytes_max.saturating_add(CHUNK_BYTES) - self.out.len();
                self.out.reserve_exact(self.out.len().max(CHUNK_BYTES).min(room_max));
            }
            let (in_before, out_before) = (self.state.total_in(), self.out.len());
            let status = self
                .state
                .decompress_vec(input, &mut self.out, FlushDecompress::Sync)
                .map_err(|_| Fault::BadDeflate)?;
            let consumed = (self.state.total_in() - in_before) as usize;
            input = &input[consumed..];
            if self.out.len() > bytes_max {
                return Err(Fault::MessageTooBig { bytes: self.out.len() as u64, max: bytes_max });
            }
            match status {
                Status::StreamEnd if input.is_empty() => break,
                // A sender may end its stream and pad it to a whole byte (RFC 7692 §7.2.3.4), but once: each restart costs more
                // than the two bytes that ask for it.
                Status::StreamEnd if is_in_end || has_restarted => return Err(Fault::BadDeflate),
                Status::StreamEnd => {
                    has_restarted = true;
                    self.state.reset(false);
                }
                Status::Ok | Status::BufError => {
                    if self.out.len() == self.out.capacity() {
                        continue;
                    }
                    // With room left, nothing more comes out of this input.
                    match (input.is_empty(), is_in_end) {
                        (true, false) => (input, is_in_end) = (&END, true),
                        // Whole messages end at `StreamEnd` above; this one stopped inside a block.
                        (true, true) => return Err(Fault::BadDeflate),
                        (false, _) if consumed == 0 && self.out.len() == out_before => {
                            return Err(Fault::BadDeflate);
                        }
                        (false, _) => {}
                    }
                }
            }
        }
        Ok(&self.out)
    }
}
