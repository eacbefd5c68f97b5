//! Owns the signatures that a token may have, and which of them belong to one kind of key. RFC 7518 §3, RFC 8037.
//! Does not know keys' bytes. Invariant: `none` is not among them, so a token that says so cannot be taken for signed.

use ring::{hmac, signature};

/// SHA-2 of one length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hash {
    /// 256 bits.
    Sha256,
    /// 384 bits.
    Sha384,
    /// 512 bits.
    Sha512,
}

/// How a token is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// `HS…`: HMAC with a shared secret.
    Hmac(Hash),
    /// `RS…`: RSA, PKCS #1 v1.5.
    Rsa(Hash),
    /// `PS…`: RSA, PSS.
    RsaPss(Hash),
    /// `ES256`: ECDSA on P-256.
    Es256,
    /// `ES384`: ECDSA on P-384.
    Es384,
    /// `EdDSA`, on Ed25519.
    EdDsa,
}

impl Algorithm {
    /// Every algorithm there is. `ES512` is not: the cryptography below has no P-521.
    pub const ALL: [Algorithm; 12] = [
        Algorithm::Hmac(Hash::Sha256),
        Algorithm::Hmac(Hash::Sha384),
        Algorithm::Hmac(Hash::Sha512),
        Algorithm::Rsa(Hash::Sha256),
        Algorithm::Rsa(Hash::Sha384),
        Algorithm::Rsa(Hash::Sha512),
        Algorithm::RsaPss(Hash::Sha256),
        Algorithm::RsaPss(Hash::Sha384),
        Algorithm::RsaPss(Hash::Sha512),
        Algorithm::Es256,
        Algorithm::Es384,
        Algorithm::EdDsa,
    ];

    /// The name in a token's header.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Algorithm::Hmac(Hash::Sha256) => "HS256",
            Algorithm::Hmac(Hash::Sha384) => "HS384",
            Algorithm::Hmac(Hash::Sha512) => "HS512",
            Algorithm::Rsa(Hash::Sha256) => "RS256",
            Algorithm::Rsa(Hash::Sha384) => "RS384",
            Algorithm::Rsa(Hash::Sha512) => "RS512",
            Algorithm::RsaPss(Hash::Sha256) => "PS256",
            Algorithm::RsaPss(Hash::Sha384) => "PS384",
            Algorithm::RsaPss(Hash::Sha512) => "PS512",
            Algorithm::Es256 => "ES256",
            Algorithm::Es384 => "ES384",
            Algorithm::EdDsa => "EdDSA",
        }
    }

    /// The algorithm of that name; names differ by case (RFC 7515 §4.1.1).
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Algorithm::ALL.into_iter().find(|algorithm| algorithm.as_str() == name)
    }
}

/// How `ring` computes an HMAC.
pub(crate) fn hmac_of(hash: Hash) -> hmac::Algorithm {
    match hash {
        Hash::Sha256 => hmac::HMAC_SHA256,
        Hash::Sha384 => hmac::HMAC_SHA384,
        Hash::Sha512 => hmac::HMAC_SHA512,
    }
}

/// How `ring` checks RSA, of 2048 to 8192 bits.
pub(crate) fn rsa_of(hash: Hash, is_pss: bool) -> &'static signature::RsaParameters {
    match (hash, is_pss) {
        (Hash::Sha256, false) => &signature::RSA_PKCS1_2048_8192_SHA256,
        (Hash::Sha384, false) => &signature::RSA_PKCS1_2048_8192_SHA384,
        (Hash::Sha512, false) => &signature::RSA_PKCS1_2048_8192_SHA512,
        (Hash::Sha256, true) => &signature::RSA_PSS_2048_8192_SHA256,
        (Hash::Sha384, true) => &signature::RSA_PSS_2048_8192_SHA384,
        (Hash::Sha512, true) => &signature::RSA_PSS_2048_8192_SHA512,
    }
}

#[cfg(test)]
mod tests {
    use super::Algorithm;

    #[test]
    fn names_are_read_as_written_and_none_is_no_algorithm() {
        for algorithm in Algorithm::ALL {
            assert_eq!(Algorithm::parse(algorithm.as_str()), Some(algorithm));
        }
        for bad in ["none", "None", "NONE", "", "hs256", "ES512", "HS256 "] {
            assert_eq!(Algorithm::parse(bad), None, "{bad}");
        }
    }
}
