//! Session ids: 15 bytes that travel as 20 characters. Does not know what the bytes mean or where randomness comes from.

use std::fmt;

use ::base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

/// A session id. 15 bytes make exactly 20 characters from `A-Za-z0-9_-`, the length that cluster tools and sticky balancers
/// look for (EIO4 "Handshake").
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sid([u8; 15]);

impl Sid {
    /// The id made of these bytes; at least 12 of them should be unguessable.
    pub const fn new(bytes: [u8; 15]) -> Self {
        Self(bytes)
    }

    /// The bytes, for what the server hid in them.
    #[inline]
    pub const fn as_bytes(&self) -> &[u8; 15] {
        &self.0
    }

    /// The 20 ASCII characters, base64url.
    #[inline]
    pub fn encode(self) -> [u8; 20] {
        let mut text = [0; 20];
        URL_SAFE_NO_PAD.encode_slice(self.0, &mut text).expect("invariant: 15 bytes make 20 characters");
        text
    }

    /// The id that is written so; `None` for another length or alphabet. The inverse of [`encode`](Self::encode).
    #[inline]
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 15];
        if text.len() != 20 {
            return None;
        }
        URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok().filter(|&n| n == 15)?;
        Some(Self(bytes))
    }
}

impl fmt::Display for Sid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.encode();
        f.pad(str::from_utf8(&text).expect("invariant: base64url is ASCII"))
    }
}

impl fmt::Debug for Sid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sid({self})")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_20_characters_of_the_alphabet_are_one_id() {
        let sid = Sid::parse("hT3kQe9ZbV0cXw5R_-AB").unwrap();
        assert_eq!(sid.to_string(), "hT3kQe9ZbV0cXw5R_-AB");
        assert_eq!(format!("{sid:?}"), "Sid(hT3kQe9ZbV0cXw5R_-AB)");
        for bad in [
            "",
            "hT3kQe9ZbV0cXw5R_-A",
            "hT3kQe9ZbV0cXw5R_-ABC",
            "hT3kQe9ZbV0cXw5R/-AB",
            "hT3kQe9ZbV0cXw5R_-A=",
            "hT3kQe9ZbV0cXw5R_-é",
        ] {
            assert_eq!(Sid::parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn bytes_survive_the_text_form(bytes: [u8; 15]) {
            let text = Sid::new(bytes).encode();
            prop_assert_eq!(Sid::parse(str::from_utf8(&text).unwrap()).map(|sid| *sid.as_bytes()), Some(bytes));
        }
    }
}
