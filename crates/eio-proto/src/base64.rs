//! The base64 of binary packets. Does not know packets; offsets are within the base64 text.

use ::base64::{
    DecodeError, Engine,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig, general_purpose},
};

/// Takes padding or leaves it, and ignores the unused bits of the last character, as the reference decoder does.
const TOLERANT: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// Decodes standard or URL-safe base64, even mixed, padded or not.
///
/// # Errors
/// The offset of the first character that does not belong, or the length of the text if it ends too early.
///
/// Deviation: the reference server skips characters outside the alphabet; damaged data is a fault here.
pub(crate) fn decode(text: &str) -> Result<Vec<u8>, usize> {
    let result = if text.bytes().any(|byte| matches!(byte, b'-' | b'_')) {
        let standard: Vec<u8> = text
            .bytes()
            .map(|byte| match byte {
                b'-' => b'+',
                b'_' => b'/',
                other => other,
            })
            .collect();
        TOLERANT.decode(standard)
    } else {
        TOLERANT.decode(text)
    };
    result.map_err(|error| match error {
        DecodeError::InvalidByte(offset, _) | DecodeError::InvalidLastSymbol { offset, .. } => offset,
        _ => text.len(),
    })
}

/// Appends `bytes` in standard, padded base64.
pub(crate) fn encode(out: &mut Vec<u8>, bytes: &[u8]) {
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    general_purpose::STANDARD
        .encode_slice(bytes, &mut out[start..])
        .expect("invariant: room was made for four characters per three bytes");
}
