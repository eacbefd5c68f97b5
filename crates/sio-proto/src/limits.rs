//! The bounds a decoder keeps. Each is a number with a default; none depends on another.

/// Most attachments one packet may carry in either direction.
///
/// Current stock clients refuse a packet with more and drop the connection, and with recovery they would do so for ever, since the
/// packet is replayed. So we neither send nor, by default, accept more.
pub const ATTACHMENTS_MAX: u32 = 10;

/// The deepest nesting that any setting of [`Limits::json_depth_max`] can allow; higher settings mean this.
///
/// Below the 128 at which `serde_json` gives up, so that what we accept can also be decoded.
pub const DEPTH_CEILING: u32 = 120;

/// What a decoder accepts at most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Attachments of one packet. Default 10, which is also the stock clients' bound. Higher: peers can make us hold more.
    pub attachments_max: u32,
    /// Nesting of arrays and objects, the packet's own array counted; for both parsers. Default 64, at most [`DEPTH_CEILING`].
    /// Lower: honest deep documents close their connection. Higher: decoding into Rust types uses more stack.
    pub json_depth_max: u32,
    /// Decimal digits of an ack id. Default 19, and never more, since 19 digits always fit a `u64`.
    pub ack_id_digits_max: u32,
    /// Length of a namespace with its leading slash, in bytes. Default 256.
    pub namespace_bytes_max: usize,
    /// Length of an event name as written on the wire (escapes counted), in bytes. Default 1024.
    pub event_name_bytes_max: usize,
    /// Header and attachments of one binary packet together, in bytes. Default 16 MiB. What a peer can make us hold for a packet
    /// that it never completes.
    pub assembled_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            attachments_max: ATTACHMENTS_MAX,
            json_depth_max: 64,
            ack_id_digits_max: 19,
            namespace_bytes_max: 256,
            event_name_bytes_max: 1024,
            assembled_bytes_max: 16 << 20,
        }
    }
}

impl Limits {
    pub(crate) fn depth_max(&self) -> u32 {
        self.json_depth_max.min(DEPTH_CEILING)
    }
}
