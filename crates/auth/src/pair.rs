//! Owns signed pairs: a user's id, and an HMAC that says that the application vouches for it.
//! Does not know users. A pair never expires; it ends when the secret changes or the user is revoked.

use hub::principal::{Principal, PrincipalKind};
use hub::room::{RoomKind, RoomName};
use ring::hmac;

use crate::fault::AuthFault;
use crate::hex;
use crate::secret::Secret;

/// The pair for a user: `user:signature`, the signature being HMAC-SHA256(secret, user) in lower-case hexadecimal.
#[must_use]
pub fn sign(secret: &Secret, user: &str) -> String {
    let signature = hmac::sign(&key_of(secret), user.as_bytes());
    format!("{user}:{}", hex::encode(signature.as_ref()))
}

/// Whether a text ends like a pair: a colon and 64 hexadecimal digits.
#[must_use]
pub fn is_pair(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(_, signature)| hex::decode::<32>(signature).is_some())
}

/// Checks a pair. What stands before the last colon is the user, so that a user's id may have colons, too.
///
/// # Errors
/// The peer's fault: it is no pair, another secret made it, or the user's id makes no room name.
pub fn verify(secret: &Secret, pair: &str) -> Result<Principal, AuthFault> {
    let (user, signature) = pair.rsplit_once(':').ok_or(AuthFault::TokenMalformed)?;
    let signature = hex::decode::<32>(signature).ok_or(AuthFault::TokenMalformed)?;
    // Compares in a time that does not depend on where they differ.
    hmac::verify(&key_of(secret), user.as_bytes(), &signature).map_err(|_| AuthFault::TokenWrongSignature)?;
    RoomName::of(RoomKind::User, user).map_err(|_| AuthFault::TokenBadClaim)?;
    Ok(Principal { kind: PrincipalKind::User, user: Some(user.into()), ..Principal::anonymous() })
}

fn key_of(secret: &Secret) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_is_whoever_the_secret_signed() {
        let secret = Secret::new("secret");
        // printf ann | openssl dgst -sha256 -hmac secret
        let pair = "ann:aad4e6199b77de3305e568999486a8be43b4cbc7d6299ff32eacded10d1a126b";
        assert_eq!(sign(&secret, "ann"), pair);
        for user in ["ann", "tenant:ann", "änn"] {
            let principal = verify(&secret, &sign(&secret, user)).unwrap();
            assert_eq!(principal.user.as_deref(), Some(user));
            assert_eq!(principal.kind, PrincipalKind::User);
            assert!(!principal.is_admin() && principal.scopes.is_empty());
            assert!(is_pair(&sign(&secret, user)));
        }
    }

    #[test]
    fn other_users_secrets_and_writings_are_refused() {
        let secret = Secret::new("secret");
        let good = sign(&secret, "ann");
        let (_, signature) = good.split_once(':').unwrap();
        for (bad, fault) in [
            (String::new(), AuthFault::TokenMalformed),
            ("ann".to_owned(), AuthFault::TokenMalformed),
            ("ann:".to_owned(), AuthFault::TokenMalformed),
            (format!("ann:{}", signature.to_uppercase()), AuthFault::TokenMalformed),
            (format!("ann:{signature}00"), AuthFault::TokenMalformed),
            (format!("bob:{signature}"), AuthFault::TokenWrongSignature),
            (sign(&Secret::new("other"), "ann"), AuthFault::TokenWrongSignature),
            (sign(&secret, ""), AuthFault::TokenBadClaim),
            (sign(&secret, "a\nb"), AuthFault::TokenBadClaim),
        ] {
            assert_eq!(verify(&secret, &bad).err(), Some(fault), "{bad}");
        }
    }
}
