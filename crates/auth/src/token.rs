//! Owns a JSON Web Token: whether it holds, and how one is made. RFC 7515 (compact form), RFC 7519, RFC 8725.
//! Does not know the time or where keys come from. Invariant: nothing a token says counts before its signature does.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hub::principal::Principal;
use hub::time::Timestamp;
use ring::hmac;
use serde::{Deserialize, Serialize};

use crate::algorithm::{Algorithm, Hash, hmac_of};
use crate::claims::{ClaimRules, Claims};
use crate::fault::AuthFault;
use crate::key::{Key, KeySet};
use crate::secret::Secret;

/// Bytes of a token. 8 KiB: what proxies let through as one header.
pub const TOKEN_BYTES_MAX: usize = 8192;

/// What a token says of its own signature. RFC 7515 §4.1.
#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    /// Extensions that must be understood. There are none here, so one that has it is refused (RFC 7515 §4.1.11).
    crit: Option<serde_json::Value>,
}

/// Whether a text has the three parts of a token; nothing is said of what is in them.
#[must_use]
pub fn is_token(text: &str) -> bool {
    text.bytes().filter(|byte| *byte == b'.').count() == 2
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'='))
}

/// Checks a token's signature against all keys that fit it, then its claims.
///
/// # Errors
/// The peer's fault, as [`AuthFault`] tells. [`AuthFault::TokenKeyUnknown`] may mean that the issuer has new keys:
/// fetch them and ask again.
pub fn verify(
    token: &str,
    keys: &[&KeySet],
    rules: &ClaimRules,
    now: Timestamp,
) -> Result<Principal, AuthFault> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(AuthFault::TokenTooLong);
    }
    if token.bytes().filter(|byte| *byte == b'.').count() != 2 {
        return Err(AuthFault::TokenMalformed);
    }
    let (message, signature) = token.rsplit_once('.').ok_or(AuthFault::TokenMalformed)?;
    let (header, claims) = message.split_once('.').ok_or(AuthFault::TokenMalformed)?;
    let header: Header = serde_json::from_slice(&decode(header)?).map_err(|_| AuthFault::TokenMalformed)?;
    if header.crit.is_some() {
        return Err(AuthFault::TokenMalformed);
    }
    let algorithm = Algorithm::parse(&header.alg).ok_or(AuthFault::TokenAlgorithmRefused)?;
    let fitting = || keys.iter().flat_map(|set| set.iter()).filter(|key| key.fits(algorithm));
    if fitting().next().is_none() {
        return Err(AuthFault::TokenAlgorithmRefused);
    }
    let named = |key: &&Key| key.answers_to(header.kid.as_deref());
    if !fitting().any(|key| named(&key)) {
        return Err(AuthFault::TokenKeyUnknown);
    }
    let signature = decode(signature)?;
    if !fitting().filter(named).any(|key| key.verifies(algorithm, message.as_bytes(), &signature)) {
        return Err(AuthFault::TokenWrongSignature);
    }
    let claims = Claims::parse(&decode(claims)?)?;
    claims.check(rules, now)?;
    claims.into_principal(rules.leeway, now)
}

fn decode(part: &str) -> Result<Vec<u8>, AuthFault> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| AuthFault::TokenMalformed)
}

/// The claims of a token to be made. Those that are empty or `None` are left out.
#[derive(Clone, Debug, Default, Serialize)]
pub struct NewToken {
    /// The user, or the agent.
    pub sub: String,
    /// Roles.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
    /// Ids of granted projects.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub projects: Vec<String>,
    /// Ids of granted agents.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub agents: Vec<String>,
    /// Patterns of granted rooms.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rooms: Vec<String>,
    /// `agent`, or nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The application's session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    /// Who says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iss: Option<String>,
    /// For whom.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aud: Option<String>,
    /// When it is made, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iat: Option<u64>,
    /// When it ends, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exp: Option<u64>,
    /// From when on it holds, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nbf: Option<u64>,
    /// Its own id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jti: Option<String>,
}

impl NewToken {
    /// The token, signed with a shared secret.
    #[must_use]
    pub fn sign(&self, hash: Hash, secret: &Secret) -> String {
        let claims = serde_json::to_vec(self).expect("invariant: texts and numbers become JSON");
        let alg = Algorithm::Hmac(hash).as_str();
        let header = format!(r#"{{"typ":"JWT","alg":"{alg}"}}"#);
        let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let key = hmac::Key::new(hmac_of(hash), secret.expose().as_bytes());
        let signature = hmac::sign(&key, message.as_bytes());
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}
