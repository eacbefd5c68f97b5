//! Owns why somebody was not believed: one table of codes, never reused. Does not know HTTP or Socket.IO.
//! Invariant: no message holds anything that came with the token or key.

/// Whom a fault is about: the doors choose their status by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// We do not know who they are: they may come back with better proof.
    Identity,
    /// We know who they are, and they may not.
    Rights,
    /// We could not find out: the environment's fault, and the same may succeed later.
    Environment,
}

macro_rules! faults {
    ($($(#[doc = $doc:literal])+ $Variant:ident = $code:literal, $blame:ident, $message:literal;)+) => {
        /// Why somebody was not believed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum AuthFault {
            $($(#[doc = $doc])+ $Variant,)+
        }

        impl AuthFault {
            /// Every fault there is.
            pub const ALL: &'static [AuthFault] = &[$(AuthFault::$Variant,)+];

            /// The code on the wire: what peers compare with.
            #[must_use]
            pub fn code(self) -> &'static str {
                match self { $(AuthFault::$Variant => $code,)+ }
            }

            /// What people read.
            #[must_use]
            pub fn message(self) -> &'static str {
                match self { $(AuthFault::$Variant => $message,)+ }
            }

            /// Whom it is about.
            #[must_use]
            pub fn blame(self) -> Blame {
                match self { $(AuthFault::$Variant => Blame::$blame,)+ }
            }
        }
    };
}

faults! {
    /// Nothing came that says who they are.
    TokenMissing = "token_missing", Identity, "no token came along";
    /// It is none of the kinds of token that this server takes, or broken.
    TokenMalformed = "token_malformed", Identity, "the token is none that this server can read";
    /// It is longer than any token may be.
    TokenTooLong = "token_too_long", Identity, "the token exceeds 8192 bytes";
    /// Its time has passed.
    TokenExpired = "token_expired", Identity, "the token has expired";
    /// Its time has not come.
    TokenNotYetValid = "token_not_yet_valid", Identity, "the token is not valid yet";
    /// The signature is not that of any key of ours.
    TokenWrongSignature = "token_wrong_signature", Identity, "the token's signature is not of a key of ours";
    /// It does not come from an issuer of ours.
    TokenWrongIssuer = "token_wrong_issuer", Identity, "the token's issuer is not one of ours";
    /// It is meant for somebody else.
    TokenWrongAudience = "token_wrong_audience", Identity, "the token is meant for another audience";
    /// It has no signature, or of an algorithm for which there is no key here.
    TokenAlgorithmRefused = "token_algorithm_refused", Identity, "the token's algorithm has no key here";
    /// It names a key that we do not have.
    TokenKeyUnknown = "token_key_unknown", Identity, "the token names a key that is not one of ours";
    /// A claim that must be there is not.
    TokenClaimMissing = "token_claim_missing", Identity, "the token lacks a claim that it needs: sub, or exp where that is required";
    /// A claim is not of its kind, or beyond its bounds.
    TokenBadClaim = "token_bad_claim", Identity, "a claim of the token is not of its kind, or beyond its bounds";
    /// It was taken back.
    TokenRevoked = "token_revoked", Identity, "the token was revoked";
    /// The user that was named beside the token is not the token's, or a refresh names another user.
    TokenOtherUser = "token_other_user", Rights, "the token is another user's";
    /// No such API key.
    KeyUnknown = "key_unknown", Identity, "the key is not known";
    /// The key or token is good, but does not reach as far.
    ScopeMissing = "scope_missing", Rights, "this needs a key with another scope, or an admin's token";
    /// The role `admin` is needed.
    RoleMissing = "role_missing", Rights, "this needs the role admin";
    /// A request that must be signed is not.
    SignatureMissing = "signature_missing", Identity, "the request is not signed";
    /// A request's signature is not made with our secret.
    SignatureWrong = "signature_wrong", Identity, "the request's signature is not made with our secret";
    /// The application does not know them.
    HookRefused = "hook_refused", Identity, "the application refused";
    /// The application cannot be asked.
    HookUnavailable = "hook_unavailable", Environment, "the application could not be asked; try again later";
    /// The keys of the issuer cannot be had.
    KeysUnavailable = "keys_unavailable", Environment, "the issuer's keys could not be fetched; try again later";
}

impl std::fmt::Display for AuthFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.message())
    }
}

impl std::error::Error for AuthFault {}

#[cfg(test)]
mod tests {
    use super::AuthFault;

    #[test]
    fn codes_are_unique_and_everything_has_a_message() {
        let codes: std::collections::BTreeSet<_> = AuthFault::ALL.iter().map(|fault| fault.code()).collect();
        assert_eq!(codes.len(), AuthFault::ALL.len());
        assert!(AuthFault::ALL.iter().all(|fault| !fault.message().is_empty()));
        let long = format!("exceeds {} bytes", crate::token::TOKEN_BYTES_MAX);
        assert!(AuthFault::TokenTooLong.message().contains(&long));
    }
}
