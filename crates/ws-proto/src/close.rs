//! Close codes (RFC 6455 §7.4) and which of them may travel. Does not know when a connection closes.

use std::fmt;

/// A number that says why a connection closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CloseCode(pub u16);

impl CloseCode {
    /// The purpose is fulfilled.
    pub const NORMAL: Self = Self(1000);
    /// The server goes down or the page was left.
    pub const GOING_AWAY: Self = Self(1001);
    /// The peer broke RFC 6455.
    pub const PROTOCOL: Self = Self(1002);
    /// A kind of data that this end cannot take.
    pub const UNSUPPORTED: Self = Self(1003);
    /// Data that does not fit its kind: text that is not UTF-8, or a damaged deflate stream.
    pub const INVALID_PAYLOAD: Self = Self(1007);
    /// The peer broke a rule of ours.
    pub const POLICY: Self = Self(1008);
    /// A message above the size limit.
    pub const TOO_BIG: Self = Self(1009);
    /// The server could not fulfil the request.
    pub const INTERNAL: Self = Self(1011);
    /// The server restarts: come back after a while.
    pub const RESTART: Self = Self(1012);
    /// The server is overloaded: come back later.
    pub const TRY_AGAIN_LATER: Self = Self(1013);

    /// Whether this code may stand in a close frame: 1000–1003, 1007–1014 and 3000–4999.
    ///
    /// The rest is reserved, made for reports only (1004, 1005, 1006, 1015), or out of range (RFC 6455 §7.4.1, §7.4.2).
    #[inline]
    pub const fn is_sendable(self) -> bool {
        matches!(self.0, 1000..=1003 | 1007..=1014 | 3000..=4999)
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
