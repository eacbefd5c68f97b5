//! Owns what a room's name may be. Does not know who may join it.

use crate::codes::{Code, Fault};

/// Bytes of a room's name. 200: `project:` and the like in front of the longest ids in use (SHA-512 in hex is 128),
/// and a thousand of them still fit a few memory pages.
pub(crate) const ROOM_NAME_BYTES_MAX: usize = 200;

/// A room's name that keeps the rules: not empty, at most [`ROOM_NAME_BYTES_MAX`] bytes, no control characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RoomName(String);

impl RoomName {
    /// Takes a name that keeps the rules.
    ///
    /// # Errors
    /// The peer's fault: [`Code::BadRoomName`].
    pub(crate) fn parse(raw: String) -> Result<Self, Fault> {
        let complaint = if raw.is_empty() {
            "a room's name must not be empty".to_owned()
        } else if raw.len() > ROOM_NAME_BYTES_MAX {
            format!("a room's name of {} bytes exceeds the {ROOM_NAME_BYTES_MAX} allowed", raw.len())
        } else if raw.chars().any(char::is_control) {
            "a room's name must not have control characters".to_owned()
        } else {
            return Ok(Self(raw));
        };
        Err(Fault::new(Code::BadRoomName, complaint))
    }

    /// The name.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::{ROOM_NAME_BYTES_MAX, RoomName};

    #[test]
    fn names_are_bounded_and_printable() {
        let longest = "x".repeat(ROOM_NAME_BYTES_MAX);
        for good in ["agents", "project:42", "Räume 🎺", &longest] {
            assert_eq!(RoomName::parse(good.to_owned()).unwrap().as_str(), good);
        }
        for bad in ["", "a\nb", "\u{0}", "\u{85}", &format!("{longest}x")] {
            assert!(RoomName::parse(bad.to_owned()).is_err(), "{bad:?}");
        }
    }
}
