//! permessage-deflate (RFC 7692), always without context takeover in both directions.
//!
//! No message depends on an earlier one, so one [`Deflater`] and one [`Inflater`] per thread serve all its connections, and a
//! broadcast that was compressed once serves every member. Does not know which messages are worth compressing.

mod deflater;
mod inflater;
mod negotiation;

pub use deflater::Deflater;
pub use inflater::Inflater;
pub use negotiation::{Agreement, OFFER, UnacceptableAnswer, accept, negotiate};

/// The window, as a power of two, that a [`Deflater`] never looks back beyond.
///
/// 12 (4 KiB) and not 15, because a client may demand a smaller window, and one compressed broadcast has to suit every member.
/// Messages up to 4 KiB come out the same; longer JSON grows by some 1 to 13 %. Offers that demand less are declined.
pub const WINDOW_BITS: u8 = 12;

/// What ends every flushed block and is left out on the wire (RFC 7692 §7.2.1).
const TAIL: [u8; 4] = [0x00, 0x00, 0xFF, 0xFF];
