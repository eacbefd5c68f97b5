//! Owns the judgement of proofs: which kind it is, what it is checked with, whose it is, whether it was revoked.
//! Does not know sockets or routes. Invariant: what no configured kind takes is refused.

use std::sync::Arc;

use anyhow::Context;
use auth::api_key::{ApiKeys, is_api_key};
use auth::claims::ClaimRules;
use auth::fault::AuthFault;
use auth::key::{Key, KeySet};
use auth::revocation::{Full, Revocation};
use auth::secret::Secret;
use auth::token::TOKEN_BYTES_MAX;
use auth::{pair, token};
use hub::policy::Policies;
use hub::principal::{Principal, PrincipalKind};
use hub::room::{RoomKind, RoomName};
use hub::store::Store;

use super::config::AuthConfig;
use super::expiry::Expiries;
use super::hook::{AccessHook, ConnectHook};
use super::http::Http;
use super::jwks::Jwks;
use super::presented::Presented;
use super::revocations::{KeptRevocation, RevocationList};

/// Bytes below which a shared secret can be guessed. RFC 7518 §3.2 asks for as many as HS256 has.
const SECRET_BYTES_MIN: usize = 32;

/// Judges who somebody is and what they may do.
pub(crate) struct Authenticator {
    is_open: bool,
    is_configured: bool,
    /// Keys of tokens that the settings give.
    local: KeySet,
    jwks: Option<Arc<Jwks>>,
    rules: ClaimRules,
    signing_secret: Secret,
    keys: ApiKeys,
    connect_hook: Option<ConnectHook>,
    revocations: RevocationList,
    pub(super) access_hook: Option<AccessHook>,
    pub(super) policies: Policies,
    pub(super) expiries: Arc<Expiries>,
    pub(super) metrics_public: bool,
}

impl Authenticator {
    /// Reads the files that the settings name, and begins to fetch the issuer's keys. Needs a tokio runtime.
    ///
    /// # Errors
    /// A key file that cannot be read or used: whoever configured it is at fault.
    pub(crate) fn start(config: &AuthConfig, policies: Policies) -> anyhow::Result<Arc<Self>> {
        let mut local = KeySet::default();
        if !config.jwt_secret.is_empty() {
            warn_of_short("auth.jwt_secret", &config.jwt_secret, SECRET_BYTES_MIN);
            local.push(Key::shared(config.jwt_secret.clone()))?;
        }
        if let Some(path) = &config.jwt_public_key {
            let named = || format!("auth.jwt_public_key: {}", path.display());
            let text = std::fs::read(path).with_context(named)?;
            local.extend(KeySet::from_pem(&text).with_context(named)?).with_context(named)?;
        }
        if !config.signing_secret.is_empty() {
            warn_of_short("auth.signing_secret", &config.signing_secret, SECRET_BYTES_MIN);
        }
        let needs_http =
            config.jwks.is_some() || config.connect_hook.is_some() || config.access_hook.is_some();
        let http = if needs_http { Some(Arc::new(Http::new(config.hook_timeout)?)) } else { None };
        let lifetime = config.hook_cache;
        let hook = |url: &Option<String>| Some((url.clone()?, http.clone()?, lifetime));
        Ok(Arc::new(Self {
            is_open: config.is_open,
            is_configured: config.is_configured,
            local,
            jwks: config.jwks.clone().zip(http.clone()).map(|(jwks, http)| Jwks::start(jwks, http)),
            rules: config.rules.clone(),
            signing_secret: config.signing_secret.clone(),
            keys: config.keys.clone(),
            connect_hook: hook(&config.connect_hook)
                .map(|(url, http, lifetime)| ConnectHook::new(url, http, lifetime)),
            revocations: RevocationList::new(config.revocations_kept),
            access_hook: hook(&config.access_hook)
                .map(|(url, http, lifetime)| AccessHook::new(url, http, lifetime)),
            policies,
            expiries: Expiries::start(config.expiry_warning),
            metrics_public: config.metrics_public,
        }))
    }

    /// Whether everybody may come in without saying who they are.
    pub(crate) fn is_open(&self) -> bool {
        self.is_open
    }

    /// Whoever shows this.
    ///
    /// # Errors
    /// [`AuthFault`]: the peer's fault, or the environment's if somebody who must be asked did not answer.
    pub(crate) async fn judge(&self, presented: &Presented) -> Result<Principal, AuthFault> {
        let mut principal = match &presented.token {
            // Where nothing is configured nothing can be checked, and nobody is asked for anything.
            Some(token) if self.is_configured => self.judge_token(token, presented).await?,
            _ if self.is_open => named(presented)?,
            _ => match &self.connect_hook {
                Some(hook) => hook.ask(presented).await?,
                None => return Err(AuthFault::TokenMissing),
            },
        };
        narrow(&mut principal, presented)?;
        if self.is_revoked(&principal) {
            return Err(AuthFault::TokenRevoked);
        }
        Ok(principal)
    }

    async fn judge_token(&self, token: &str, presented: &Presented) -> Result<Principal, AuthFault> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(AuthFault::TokenTooLong);
        }
        if !self.keys.is_empty() {
            match self.keys.find(token) {
                Ok(principal) => return Ok(principal),
                Err(fault) if is_api_key(token) => return Err(fault),
                Err(_) => {}
            }
        }
        let takes_tokens = !self.local.is_empty() || self.jwks.is_some();
        if takes_tokens && token::is_token(token) {
            return self.judge_jwt(token).await;
        }
        if !self.signing_secret.is_empty() && pair::is_pair(token) {
            return pair::verify(&self.signing_secret, token);
        }
        match &self.connect_hook {
            Some(hook) => hook.ask(presented).await,
            None => Err(AuthFault::TokenMalformed),
        }
    }

    async fn judge_jwt(&self, token: &str) -> Result<Principal, AuthFault> {
        let fetched = self.jwks.as_ref().and_then(|jwks| jwks.keys());
        let outcome = self.check_jwt(token, fetched.as_deref());
        let (Err(AuthFault::TokenKeyUnknown | AuthFault::TokenAlgorithmRefused), Some(jwks)) =
            (&outcome, &self.jwks)
        else {
            return outcome;
        };
        // The issuer may have new keys.
        match jwks.renewed(fetched.as_ref()).await {
            Some(keys) => self.check_jwt(token, Some(&keys)),
            None => Err(AuthFault::KeysUnavailable),
        }
    }

    fn check_jwt(&self, token: &str, fetched: Option<&KeySet>) -> Result<Principal, AuthFault> {
        let sets: Vec<&KeySet> = std::iter::once(&self.local).chain(fetched).collect();
        token::verify(token, &sets, &self.rules, super::now())
    }

    /// Whether what a principal proved was taken back.
    pub(crate) fn is_revoked(&self, principal: &Principal) -> bool {
        self.revocations.covers(principal)
    }

    /// Takes something back, at once; it is the caller's to have the record kept that it answers. Sockets that are
    /// connected stay so: [`super::revoke`] ends them.
    ///
    /// # Errors
    /// [`Full`].
    pub(super) fn revoke(&self, revocation: Revocation) -> Result<KeptRevocation, Full> {
        self.revocations.add(revocation.clone())?;
        Ok(KeptRevocation::new(revocation, self.revocations.lifetime))
    }

    /// Takes something back that another node keeps, and ends the connections that it covers. Answers how many.
    pub(crate) async fn revoke_here(&self, server: &engine::Server, revocation: &Revocation) -> usize {
        // A full list is the other node's to tell.
        let _ = self.revocations.add(revocation.clone());
        super::routes::disconnect(server, revocation).await
    }

    /// Takes back again what was taken back before the process began. Call it before anybody may come in.
    ///
    /// # Errors
    /// The environment's: what was taken back cannot be known.
    pub(crate) async fn recall(&self, store: &dyn Store) -> anyhow::Result<()> {
        self.revocations.load(store).await
    }
}

fn warn_of_short(key: &str, secret: &Secret, least: usize) {
    if secret.expose().len() < least {
        tracing::warn!("{key} has less than {least} bytes: who sees one token can find it by trying");
    }
}

/// Whoever they say to be: only where nobody has to prove it.
fn named(presented: &Presented) -> Result<Principal, AuthFault> {
    let Some(user) = &presented.user else { return Ok(Principal::anonymous()) };
    RoomName::of(RoomKind::User, user).map_err(|_| AuthFault::TokenBadClaim)?;
    Ok(Principal { kind: PrincipalKind::User, user: Some(user.as_str().into()), ..Principal::anonymous() })
}

/// What is said beside a proof can only narrow it: the user must be the same, a session may be named if the proof
/// names none.
fn narrow(principal: &mut Principal, presented: &Presented) -> Result<(), AuthFault> {
    if presented.user.as_deref().is_some_and(|user| principal.user.as_deref() != Some(user)) {
        return Err(AuthFault::TokenOtherUser);
    }
    let Some(session) = presented.session.as_deref() else { return Ok(()) };
    RoomName::of(RoomKind::Session, session).map_err(|_| AuthFault::TokenBadClaim)?;
    match principal.session.as_deref() {
        Some(own) if own != session => Err(AuthFault::TokenOtherUser),
        Some(_) => Ok(()),
        None => {
            principal.session = Some(session.into());
            Ok(())
        }
    }
}
