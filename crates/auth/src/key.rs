//! Owns what tokens are checked with: shared secrets, public keys in PEM, sets of JWKs. RFC 7517, RFC 5280 §4.1.2.7.
//! Does not know where they come from. Invariant: a key is bound to its kind of algorithm, so that a public key can
//! never be used as a shared secret.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::{hmac, signature};
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::algorithm::{Algorithm, hmac_of, rsa_of};
use crate::secret::Secret;

/// Keys of one set. 32: rotation needs two or three, and a token without a key's name costs at most so many checks,
/// about a millisecond.
pub const KEYS_MAX: usize = 32;

/// Bytes of a document with a JWK set: 32 keys of 8192 bits with certificates are about half.
pub const JWKS_BYTES_MAX: usize = 256 * 1024;

/// Bytes of a key's name.
const KEY_ID_BYTES_MAX: usize = 200;

/// Bytes of an RSA modulus of 2048 bits. Shorter ones are not safe, and refused.
const RSA_BYTES_MIN: usize = 256;

/// One key.
#[derive(Clone)]
pub struct Key {
    /// The name that tokens call it by (`kid`); one without a name is tried for all.
    id: Option<Box<str>>,
    material: Material,
    /// The one algorithm that it is for, if it says so.
    only: Option<Algorithm>,
}

#[derive(Clone)]
enum Material {
    /// For HMAC.
    Shared(Secret),
    /// `RSAPublicKey` in DER.
    RsaDer(Box<[u8]>),
    /// Modulus and exponent, big-endian.
    RsaParts { modulus: Box<[u8]>, exponent: Box<[u8]> },
    /// An uncompressed point on P-256.
    P256(Box<[u8]>),
    /// An uncompressed point on P-384.
    P384(Box<[u8]>),
    /// 32 bytes.
    Ed25519(Box<[u8]>),
}

/// Some keys.
#[derive(Clone, Default)]
pub struct KeySet {
    keys: Vec<Key>,
}

/// Why a text is no key. Whoever configured it is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyFault {
    /// There is no `PUBLIC KEY` in the PEM text.
    NoKey,
    /// The key is broken, or of a kind that no algorithm here uses.
    Unsupported,
    /// An RSA key of less than 2048 bits.
    TooSmall,
    /// Not a JWK set.
    NotASet,
    /// More than [`KEYS_MAX`].
    TooMany,
}

impl std::fmt::Display for KeyFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            KeyFault::NoKey => f.write_str("there is no `BEGIN PUBLIC KEY` in it"),
            KeyFault::Unsupported => {
                f.write_str("the key is broken, or none of RSA, P-256, P-384 and Ed25519")
            }
            KeyFault::TooSmall => f.write_str("an RSA key must have 2048 bits or more"),
            KeyFault::NotASet => f.write_str("it is no JWK set"),
            KeyFault::TooMany => write!(f, "there are more than {KEYS_MAX} keys in it"),
        }
    }
}

impl std::error::Error for KeyFault {}

/// Says that it is a key, and of what kind: nothing else.
impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self.material {
            Material::Shared(_) => "HMAC",
            Material::RsaDer(_) | Material::RsaParts { .. } => "RSA",
            Material::P256(_) => "P-256",
            Material::P384(_) => "P-384",
            Material::Ed25519(_) => "Ed25519",
        };
        write!(f, "Key({kind}, {})", self.id.as_deref().unwrap_or("-"))
    }
}

impl std::fmt::Debug for KeySet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(&self.keys).finish()
    }
}

impl Key {
    /// A shared secret, for `HS…` alone. RFC 7518 §3.2 wants as many bytes as the hash has.
    #[must_use]
    pub fn shared(secret: Secret) -> Self {
        Self { id: None, material: Material::Shared(secret), only: None }
    }

    /// Whether it is of the kind that an algorithm needs.
    pub(crate) fn fits(&self, algorithm: Algorithm) -> bool {
        let is_kind = match self.material {
            Material::Shared(_) => matches!(algorithm, Algorithm::Hmac(_)),
            Material::RsaDer(_) | Material::RsaParts { .. } => {
                matches!(algorithm, Algorithm::Rsa(_) | Algorithm::RsaPss(_))
            }
            Material::P256(_) => algorithm == Algorithm::Es256,
            Material::P384(_) => algorithm == Algorithm::Es384,
            Material::Ed25519(_) => algorithm == Algorithm::EdDsa,
        };
        is_kind && self.only.is_none_or(|only| only == algorithm)
    }

    /// Whether a token that calls its key `id` may mean this one.
    pub(crate) fn answers_to(&self, id: Option<&str>) -> bool {
        match (&self.id, id) {
            (Some(own), Some(id)) => **own == *id,
            (None, _) | (_, None) => true,
        }
    }

    /// Whether the signature is this key's. `false` if the key does not fit the algorithm.
    pub(crate) fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        match (&self.material, algorithm) {
            (Material::Shared(secret), Algorithm::Hmac(hash)) => {
                let key = hmac::Key::new(hmac_of(hash), secret.expose().as_bytes());
                hmac::verify(&key, message, signature).is_ok()
            }
            (Material::RsaDer(der), Algorithm::Rsa(hash)) => {
                is_signed(rsa_of(hash, false), der, message, signature)
            }
            (Material::RsaDer(der), Algorithm::RsaPss(hash)) => {
                is_signed(rsa_of(hash, true), der, message, signature)
            }
            (Material::RsaParts { modulus, exponent }, Algorithm::Rsa(hash) | Algorithm::RsaPss(hash)) => {
                let is_pss = matches!(algorithm, Algorithm::RsaPss(_));
                let parts = signature::RsaPublicKeyComponents { n: modulus, e: exponent };
                parts.verify(rsa_of(hash, is_pss), message, signature).is_ok()
            }
            (Material::P256(point), Algorithm::Es256) => {
                is_signed(&signature::ECDSA_P256_SHA256_FIXED, point, message, signature)
            }
            (Material::P384(point), Algorithm::Es384) => {
                is_signed(&signature::ECDSA_P384_SHA384_FIXED, point, message, signature)
            }
            (Material::Ed25519(point), Algorithm::EdDsa) => {
                is_signed(&signature::ED25519, point, message, signature)
            }
            _ => false,
        }
    }
}

fn is_signed(
    algorithm: &'static dyn signature::VerificationAlgorithm,
    key: &[u8],
    message: &[u8],
    signature: &[u8],
) -> bool {
    signature::UnparsedPublicKey::new(algorithm, key).verify(message, signature).is_ok()
}

impl KeySet {
    /// The public keys of a PEM text, each `BEGIN PUBLIC KEY`; during a rotation there are several.
    ///
    /// # Errors
    /// [`KeyFault`]: none, too many, or one that cannot be used.
    pub fn from_pem(text: &[u8]) -> Result<Self, KeyFault> {
        let mut set = Self::default();
        for info in SubjectPublicKeyInfoDer::pem_slice_iter(text) {
            let info = info.map_err(|_| KeyFault::NoKey)?;
            set.push(Key { id: None, material: material_of(&info)?, only: None })?;
        }
        if set.keys.is_empty() { Err(KeyFault::NoKey) } else { Ok(set) }
    }

    /// The public keys of a JWK set (RFC 7517 §5). Keys that are not for signatures, of kinds that are not known, or
    /// broken are passed over, as §5 asks for. So are shared secrets: who can read the set could forge tokens.
    ///
    /// # Errors
    /// [`KeyFault::NotASet`] or [`KeyFault::TooMany`].
    pub fn from_jwks(json: &[u8]) -> Result<Self, KeyFault> {
        #[derive(Deserialize)]
        struct Jwks {
            keys: Vec<serde_json::Value>,
        }
        if json.len() > JWKS_BYTES_MAX {
            return Err(KeyFault::NotASet);
        }
        let jwks: Jwks = serde_json::from_slice(json).map_err(|_| KeyFault::NotASet)?;
        let mut set = Self::default();
        for jwk in jwks.keys {
            if let Some(key) = serde_json::from_value(jwk).ok().and_then(Jwk::into_key) {
                set.push(key)?;
            }
        }
        Ok(set)
    }

    /// Adds a key.
    ///
    /// # Errors
    /// [`KeyFault::TooMany`].
    pub fn push(&mut self, key: Key) -> Result<(), KeyFault> {
        if self.keys.len() >= KEYS_MAX {
            return Err(KeyFault::TooMany);
        }
        self.keys.push(key);
        Ok(())
    }

    /// Adds another set's keys.
    ///
    /// # Errors
    /// [`KeyFault::TooMany`]: those that fitted are there.
    pub fn extend(&mut self, other: KeySet) -> Result<(), KeyFault> {
        other.keys.into_iter().try_for_each(|key| self.push(key))
    }

    /// How many keys.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Key> {
        self.keys.iter()
    }
}

/// A JWK, as far as signatures need it.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    /// A private key does not belong where everybody can read it; it is passed over.
    d: Option<IgnoredAny>,
}

impl Jwk {
    fn into_key(self) -> Option<Key> {
        let is_for_signatures = self.purpose.as_deref().is_none_or(|purpose| purpose == "sig")
            && self.key_ops.as_ref().is_none_or(|uses| uses.iter().any(|one| one == "verify"));
        if !is_for_signatures || self.d.is_some() {
            return None;
        }
        let only = match self.alg.as_deref() {
            Some(name) => Some(Algorithm::parse(name)?),
            None => None,
        };
        let id = self.kid.map(String::into_boxed_str);
        if id.as_ref().is_some_and(|id| id.len() > KEY_ID_BYTES_MAX) {
            return None;
        }
        let material = match (self.kty.as_str(), self.crv.as_deref()) {
            ("RSA", _) => {
                let modulus = number(&self.n?)?;
                if modulus.len() < RSA_BYTES_MIN {
                    return None;
                }
                Material::RsaParts { modulus, exponent: number(&self.e?)? }
            }
            ("EC", Some("P-256")) => Material::P256(point(&self.x?, &self.y?, 32)?),
            ("EC", Some("P-384")) => Material::P384(point(&self.x?, &self.y?, 48)?),
            ("OKP", Some("Ed25519")) => {
                let bytes = URL_SAFE_NO_PAD.decode(self.x?).ok().filter(|bytes| bytes.len() == 32)?;
                Material::Ed25519(bytes.into())
            }
            _ => return None,
        };
        Some(Key { id, material, only })
    }
}

/// A number as its bytes, big-endian, without zeros in front.
fn number(text: &str) -> Option<Box<[u8]>> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    (zeros < bytes.len()).then(|| bytes[zeros..].into())
}

/// SEC 1 §2.3.3: 4, then both coordinates.
fn point(x: &str, y: &str, bytes: usize) -> Option<Box<[u8]>> {
    let mut point = vec![4];
    for coordinate in [x, y] {
        let coordinate = URL_SAFE_NO_PAD.decode(coordinate).ok().filter(|found| found.len() == bytes)?;
        point.extend(coordinate);
    }
    Some(point.into())
}

const SEQUENCE: u8 = 0x30;
const OBJECT_IDENTIFIER: u8 = 0x06;
const BIT_STRING: u8 = 0x03;

/// 1.2.840.113549.1.1.1
const RSA_ENCRYPTION: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
/// 1.2.840.10045.2.1
const EC_PUBLIC_KEY: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
/// 1.2.840.10045.3.1.7
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
/// 1.3.132.0.34
const P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
/// 1.3.101.112
const ED25519: &[u8] = &[0x2b, 0x65, 0x70];

/// The key inside a `SubjectPublicKeyInfo`: its algorithm's number, and the bits that are the key. RFC 5280 §4.1.
fn material_of(info: &[u8]) -> Result<Material, KeyFault> {
    let parts = || {
        let (info, after) = element(info, SEQUENCE)?;
        let (algorithm, bits) = element(info, SEQUENCE)?;
        let (kind, parameters) = element(algorithm, OBJECT_IDENTIFIER)?;
        let (bits, rest) = element(bits, BIT_STRING)?;
        // The first byte says how many bits of the last one do not count: none, for keys.
        let (0, key) = bits.split_first().map(|(unused, key)| (*unused, key))? else { return None };
        (after.is_empty() && rest.is_empty()).then_some((kind, parameters, key))
    };
    let (kind, parameters, key) = parts().ok_or(KeyFault::Unsupported)?;
    let curve = element(parameters, OBJECT_IDENTIFIER).map(|(curve, _)| curve);
    match (kind, curve) {
        (RSA_ENCRYPTION, _) if key.len() < RSA_BYTES_MIN => Err(KeyFault::TooSmall),
        (RSA_ENCRYPTION, _) => Ok(Material::RsaDer(key.into())),
        (EC_PUBLIC_KEY, Some(P256)) if key.len() == 65 => Ok(Material::P256(key.into())),
        (EC_PUBLIC_KEY, Some(P384)) if key.len() == 97 => Ok(Material::P384(key.into())),
        (ED25519, None) if key.len() == 32 => Ok(Material::Ed25519(key.into())),
        _ => Err(KeyFault::Unsupported),
    }
}

/// The content of the DER element in front, if it has this tag, and what follows it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, rest) = der.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (len, rest) = match *first {
        short @ 0..=0x7f => (usize::from(short), rest),
        0x81 => rest.split_first().map(|(len, rest)| (usize::from(*len), rest))?,
        // Keys are far shorter than the 65,535 bytes that two bytes can say.
        0x82 => rest
            .split_at_checked(2)
            .map(|(len, rest)| (usize::from(len[0]) << 8 | usize::from(len[1]), rest))?,
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(len)?;
    (*found == tag).then_some((content, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RSA_PEM: &[u8] = include_bytes!("../tests/keys/rsa.pub.pem");
    const SMALL_PEM: &[u8] = include_bytes!("../tests/keys/small.pub.pem");

    #[test]
    fn pem_files_are_public_keys_or_refused() {
        let set = KeySet::from_pem(RSA_PEM).unwrap();
        assert_eq!(format!("{set:?}"), "[Key(RSA, -)]");
        assert_eq!(KeySet::from_pem(&[RSA_PEM, RSA_PEM].concat()).unwrap().len(), 2);
        assert_eq!(KeySet::from_pem(SMALL_PEM).unwrap_err(), KeyFault::TooSmall);
        assert_eq!(KeySet::from_pem(b"").unwrap_err(), KeyFault::NoKey);
        assert_eq!(KeySet::from_pem(b"a secret").unwrap_err(), KeyFault::NoKey);
        let broken = b"-----BEGIN PUBLIC KEY-----\nMAA=\n-----END PUBLIC KEY-----\n";
        assert_eq!(KeySet::from_pem(broken).unwrap_err(), KeyFault::Unsupported);
        assert_eq!(KeySet::from_pem(&RSA_PEM.repeat(KEYS_MAX + 1)).unwrap_err(), KeyFault::TooMany);
    }

    #[test]
    fn any_cut_of_a_key_is_refused_without_a_panic() {
        let info = SubjectPublicKeyInfoDer::from_pem_slice(RSA_PEM).unwrap();
        for end in 0..info.len() {
            assert!(material_of(&info[..end]).is_err(), "{end}");
        }
        for at in 0..24 {
            for bit in 0..8 {
                let mut changed = info.to_vec();
                changed[at] ^= 1 << bit;
                // Whatever it says: it must not panic.
                let _ = material_of(&changed);
            }
        }
    }

    #[test]
    fn of_a_jwk_set_only_public_keys_for_signatures_are_taken() {
        let ed = r#""kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo""#;
        let count = |keys: &str| {
            KeySet::from_jwks(format!(r#"{{"keys":[{keys}],"more":1}}"#).as_bytes()).map(|set| set.len())
        };
        assert_eq!(count(&format!(r#"{{{ed},"kid":"a","use":"sig","alg":"EdDSA","extra":[1]}}"#)), Ok(1));
        assert_eq!(count(&format!("{{{ed}}},{{{ed}}}")), Ok(2));
        for passed_over in [
            format!(r#"{{{ed},"use":"enc"}}"#),
            format!(r#"{{{ed},"key_ops":["sign"]}}"#),
            format!(r#"{{{ed},"alg":"none"}}"#),
            format!(r#"{{{ed},"d":"private"}}"#),
            format!(r#"{{{ed},"kid":"{}"}}"#, "k".repeat(201)),
            r#"{"kty":"oct","k":"c2VjcmV0"}"#.to_owned(),
            r#"{"kty":"OKP","crv":"Ed25519","x":"AAAA"}"#.to_owned(),
            r#"{"kty":"EC","crv":"P-521","x":"AA","y":"AA"}"#.to_owned(),
            r#"{"kty":"RSA","n":"AQAB","e":"AQAB"}"#.to_owned(),
            r#"{"kty":7}"#.to_owned(),
            "null".to_owned(),
        ] {
            assert_eq!(count(&passed_over), Ok(0), "{passed_over}");
        }
        assert_eq!(count(&vec![format!("{{{ed}}}"); KEYS_MAX + 1].join(",")), Err(KeyFault::TooMany));
        for bad in [&b""[..], b"{}", b"[]", b"{\"keys\":{}}", &[b' '; JWKS_BYTES_MAX + 1]] {
            assert_eq!(KeySet::from_jwks(bad).unwrap_err(), KeyFault::NotASet);
        }
    }
}
