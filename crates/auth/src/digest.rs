//! Owns digests of secrets that are random and long: what is kept in their place, so that whoever reads it has nothing.
//! Not for passwords, which can be guessed.

use ring::digest;

use crate::hex;

/// SHA-256, in lower-case hexadecimal digits.
#[must_use]
pub fn of(secret: &[u8]) -> String {
    hex::encode(digest::digest(&digest::SHA256, secret).as_ref())
}

#[cfg(test)]
mod tests {
    #[test]
    fn digests_are_those_of_fips_180() {
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(super::of(b"abc"), expected);
    }
}
