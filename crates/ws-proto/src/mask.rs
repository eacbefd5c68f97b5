//! Masking (RFC 6455 §5.3): the same operation in both directions. Does not know who must mask.

/// Applies `key` to `payload`, which starts at the payload's first byte. Applying it again takes it off.
///
/// A zero key changes nothing and costs nothing.
#[inline]
pub fn mask(key: [u8; 4], payload: &mut [u8]) {
    if key == [0; 4] {
        return;
    }
    let [a, b, c, d] = key;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = payload.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    // Words are whole multiples of the key, so the rest starts at the key's first byte again.
    for (byte, key) in rest.iter_mut().zip([a, b, c, d, a, b, c]) {
        *byte ^= key;
    }
}
