//! The two keys of the opening handshake (RFC 6455 §4). Does not know HTTP: headers are read and written elsewhere.

use base64::{Engine, engine::general_purpose::STANDARD};
use sha1::{Digest, Sha1};

/// What every server appends to the client's key (RFC 6455 §1.3).
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The `Sec-WebSocket-Accept` value (28 ASCII characters) that answers a `Sec-WebSocket-Key` (RFC 6455 §4.2.2).
///
/// The key is taken as it came, without white space around it; whether it holds 16 bytes is the caller's business.
pub fn accept_key(client_key: &str) -> [u8; 28] {
    let digest = Sha1::new().chain_update(client_key).chain_update(GUID).finalize();
    let mut accept = [0; 28];
    STANDARD.encode_slice(digest, &mut accept).expect("invariant: 20 bytes make 28 characters");
    accept
}

/// The `Sec-WebSocket-Key` value (24 ASCII characters) for 16 fresh random bytes (RFC 6455 §4.1).
pub fn client_key(random: [u8; 16]) -> [u8; 24] {
    let mut key = [0; 24];
    STANDARD.encode_slice(random, &mut key).expect("invariant: 16 bytes make 24 characters");
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_key_matches_the_example_of_the_rfc() {
        assert_eq!(&accept_key("dGhlIHNhbXBsZSBub25jZQ=="), b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn client_key_is_the_base64_of_its_bytes() {
        assert_eq!(&client_key(*b"the sample nonce"), b"dGhlIHNhbXBsZSBub25jZQ==");
    }
}
