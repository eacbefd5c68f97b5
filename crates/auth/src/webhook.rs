//! Owns the signatures of webhooks, those that others send us and our own: GitHub's `X-Hub-Signature-256`.
//! Does not know what is in them. The signature is over the body's bytes as they came, before anybody reads them.

use ring::hmac;

use crate::fault::AuthFault;
use crate::hex;
use crate::secret::Secret;

/// The signature of a body: `sha256=<lower-case hex HMAC-SHA256(secret, body)>`.
#[must_use]
pub fn sign(secret: &Secret, body: &[u8]) -> String {
    let signature = hmac::sign(&key_of(secret), body);
    format!("sha256={}", hex::encode(signature.as_ref()))
}

/// Checks `sha256=<lower-case hex HMAC-SHA256(secret, body)>`, in a time that does not depend on where they differ.
///
/// # Errors
/// The peer's fault: there is no such header, it is of another form, or another secret made it.
pub fn verify_github(secret: &Secret, header: Option<&str>, body: &[u8]) -> Result<(), AuthFault> {
    let header = header.ok_or(AuthFault::SignatureMissing)?;
    let signature = header.strip_prefix("sha256=").and_then(hex::decode::<32>);
    let signature = signature.ok_or(AuthFault::SignatureWrong)?;
    hmac::verify(&key_of(secret), body, &signature).map_err(|_| AuthFault::SignatureWrong)
}

fn key_of(secret: &Secret) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_secret_signs_a_request() {
        // The example of GitHub's manual.
        let secret = Secret::new("It's a Secret to Everybody");
        let body = b"Hello, World!";
        let good = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
        let check = |header: Option<&str>, body: &[u8]| verify_github(&secret, header, body);
        assert_eq!(check(Some(good), body), Ok(()));
        assert_eq!(sign(&secret, body), good);
        assert_eq!(check(Some(good), b"Hello, World?"), Err(AuthFault::SignatureWrong));
        assert_eq!(check(None, body), Err(AuthFault::SignatureMissing));
        for bad in ["", "sha256=", &good[7..], &good.to_uppercase(), &format!("{good}0"), "sha1=00"] {
            assert_eq!(check(Some(bad), body), Err(AuthFault::SignatureWrong), "{bad}");
        }
        let other = Secret::new("other");
        assert_eq!(verify_github(&other, Some(good), body), Err(AuthFault::SignatureWrong));
    }
}
