//! Who may come in, and where to: settings, proofs, hooks, keys of issuers, revocations, and the guards of sockets and
//! routes.
//!
//! What a proof means is decided by the crate `auth`, what somebody may do by `hub::access`; here is what these cannot
//! have: the clock, HTTP, caches, logs. Invariant: a socket has a [`Identity`] before it has
//! anything else, and loses its place when the identity ends.

mod access;
mod audit;
mod authenticator;
mod cache;
mod commands;
mod config;
mod expiry;
mod guard;
mod hook;
mod http;
mod identity;
mod jwks;
mod policies;
mod presented;
mod revocations;
mod routes;

use ::auth::fault::AuthFault;

use crate::codes::{Code, Fault};
use crate::event::now;

pub(crate) use authenticator::Authenticator;
pub(crate) use commands::{admit, principal_of, register, watch_expiry};
pub(crate) use config::{AuthConfig, url};
pub(crate) use guard::check;
pub(crate) use http::Http;
pub(crate) use identity::Identity;
pub(crate) use policies::policies;
pub(crate) use presented::Presented;
pub(crate) use revocations::due as revocation_due;
pub(crate) use routes::revoke;

/// The namespaces whose sockets are guarded: all that there are.
pub(crate) const NAMESPACES: [&str; 4] = ["/", "/ws", "/logs", ADMIN_NAMESPACE];

/// The namespace of operators: it takes the role `admin`.
pub(crate) const ADMIN_NAMESPACE: &str = "/admin";

impl From<AuthFault> for Fault {
    fn from(fault: AuthFault) -> Self {
        let code = match fault {
            AuthFault::TokenMissing => Code::TokenMissing,
            AuthFault::TokenMalformed => Code::TokenMalformed,
            AuthFault::TokenTooLong => Code::TokenTooLong,
            AuthFault::TokenExpired => Code::TokenExpired,
            AuthFault::TokenNotYetValid => Code::TokenNotYetValid,
            AuthFault::TokenWrongSignature => Code::TokenWrongSignature,
            AuthFault::TokenWrongIssuer => Code::TokenWrongIssuer,
            AuthFault::TokenWrongAudience => Code::TokenWrongAudience,
            AuthFault::TokenAlgorithmRefused => Code::TokenAlgorithmRefused,
            AuthFault::TokenKeyUnknown => Code::TokenKeyUnknown,
            AuthFault::TokenClaimMissing => Code::TokenClaimMissing,
            AuthFault::TokenBadClaim => Code::TokenBadClaim,
            AuthFault::TokenRevoked => Code::TokenRevoked,
            AuthFault::TokenOtherUser => Code::TokenOtherUser,
            AuthFault::KeyUnknown => Code::KeyUnknown,
            AuthFault::ScopeMissing => Code::ScopeMissing,
            AuthFault::RoleMissing => Code::RoleMissing,
            AuthFault::SignatureMissing => Code::SignatureMissing,
            AuthFault::SignatureWrong => Code::SignatureWrong,
            AuthFault::HookRefused => Code::HookRefused,
            AuthFault::HookUnavailable => Code::HookUnavailable,
            AuthFault::KeysUnavailable => Code::KeysUnavailable,
        };
        Fault::new(code, fault.message())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::auth::fault::Blame;

    #[test]
    fn every_fault_keeps_its_code_and_has_the_status_of_its_blame() {
        for fault in AuthFault::ALL {
            let code = Fault::from(*fault).code;
            assert_eq!(code.as_str(), fault.code());
            let status = match fault.blame() {
                Blame::Identity => 401,
                Blame::Rights => 403,
                Blame::Environment => 503,
            };
            assert_eq!((code.status(), code.may_retry()), (status, status == 503), "{}", fault.code());
        }
    }
}
