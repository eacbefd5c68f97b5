//! The two revisions of the protocol that are spoken. Does not know which of them a server allows.

/// An Engine.IO protocol revision, fixed for the life of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Revision {
    /// Socket.IO 1 and 2: the client sends the pings.
    V3,
    /// Socket.IO 3 and 4: the server sends the pings.
    V4,
}

impl Revision {
    /// The revision for the value of the `EIO` query key: exactly `4` is [`Revision::V4`], anything else and nothing at all is
    /// [`Revision::V3`], as in the reference server.
    pub fn from_query(eio: Option<&str>) -> Self {
        if eio == Some("4") { Self::V4 } else { Self::V3 }
    }
}
