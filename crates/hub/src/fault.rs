//! Owns why the hub refuses something. Does not know HTTP or Socket.IO: their statuses are the doors' business.

/// What kind of refusal it is. Peers compare with the text, which is never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Refusal {
    /// `bad_room_name`: empty, too long, or with control characters.
    BadRoomName,
    /// `bad_payload`: not of the shape that the command or event takes.
    BadPayload,
    /// `forbidden`: this principal may not.
    Forbidden,
    /// `not_found`: there is no such record.
    NotFound,
    /// `already_exists`: there is one with this id, made otherwise.
    AlreadyExists,
    /// `wrong_state`: the record's state does not allow it, such as a second terminal one.
    WrongState,
    /// `too_many`: a bound is reached.
    TooMany,
}

impl Refusal {
    /// The code on the wire.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Refusal::BadRoomName => "bad_room_name",
            Refusal::BadPayload => "bad_payload",
            Refusal::Forbidden => "forbidden",
            Refusal::NotFound => "not_found",
            Refusal::AlreadyExists => "already_exists",
            Refusal::WrongState => "wrong_state",
            Refusal::TooMany => "too_many",
        }
    }
}

/// A refusal, with a sentence for whoever reads it. The peer's fault, always.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What peers compare with.
    pub refusal: Refusal,
    /// What people read: the value, and the bound or rule that it breaks.
    pub message: String,
}

impl Fault {
    /// A refusal.
    pub fn new(refusal: Refusal, message: impl Into<String>) -> Self {
        Self { refusal, message: message.into() }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.refusal.code(), self.message)
    }
}

impl std::error::Error for Fault {}
