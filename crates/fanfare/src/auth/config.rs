//! Owns the settings of authentication as the program uses them. Does not read files: what is named is read at the
//! start. Invariant: `is_open` is decided here, once.

use std::path::PathBuf;
use std::time::Duration;

use auth::api_key::{ApiKey, ApiKeys};
use auth::claims::ClaimRules;
use auth::secret::Secret;
use hub::principal::Scope;

use crate::config::{duration, nonzero};
use crate::settings;

/// Who may come in.
#[derive(Clone, Debug)]
pub(crate) struct AuthConfig {
    /// Whether everybody may come in without saying who they are.
    pub(crate) is_open: bool,
    /// Whether there is anything to check a proof with.
    pub(crate) is_configured: bool,
    /// Secret of tokens.
    pub(crate) jwt_secret: Secret,
    /// File with public keys of tokens.
    pub(crate) jwt_public_key: Option<PathBuf>,
    /// The issuer's key set.
    pub(crate) jwks: Option<JwksConfig>,
    /// What tokens must say.
    pub(crate) rules: ClaimRules,
    /// Secret of signed pairs.
    pub(crate) signing_secret: Secret,
    /// API keys.
    pub(crate) keys: ApiKeys,
    /// Who is asked who somebody is.
    pub(crate) connect_hook: Option<String>,
    /// Who is asked whether somebody may join.
    pub(crate) access_hook: Option<String>,
    /// Time that an answer may take.
    pub(crate) hook_timeout: Duration,
    /// How long an answer holds.
    pub(crate) hook_cache: Duration,
    /// How long before its end a socket is warned.
    pub(crate) expiry_warning: Duration,
    /// How long a revocation is kept; nothing: for ever.
    pub(crate) revocations_kept: Duration,
    /// Whether `/metrics` needs no key.
    pub(crate) metrics_public: bool,
}

/// Where an issuer's keys are, and how often they are fetched.
#[derive(Clone, Debug)]
pub(crate) struct JwksConfig {
    /// Where.
    pub(crate) url: String,
    /// How often.
    pub(crate) refresh: Duration,
    /// Least time between two fetches.
    pub(crate) refresh_min: Duration,
}

impl AuthConfig {
    /// Converts the section.
    ///
    /// # Errors
    /// Whoever wrote the settings is at fault. The text holds no secret.
    pub(crate) fn convert(raw: settings::Auth) -> Result<Self, String> {
        let mut keys = ApiKeys::default();
        if !raw.api_key.is_empty() {
            // The name by which the one key of the environment is known in logs.
            let key = ApiKey::of("default", &raw.api_key, Scope::ALL.to_vec());
            key.and_then(|key| keys.push(key)).map_err(|fault| format!("auth.api_key: {fault}"))?;
        }
        for (nth, line) in raw.api_keys.iter().enumerate() {
            let pushed = ApiKey::parse(line.expose()).and_then(|key| keys.push(key));
            pushed.map_err(|fault| format!("auth.api_keys, entry {}: {fault}", nth + 1))?;
        }
        let connect_hook = url("auth.connect_hook_url", raw.connect_hook_url)?;
        let jwks = match url("auth.jwks_url", raw.jwks_url)? {
            Some(url) => Some(JwksConfig {
                url,
                refresh: nonzero("auth.jwks_refresh", &raw.jwks_refresh)?,
                refresh_min: nonzero("auth.jwks_refresh_min", &raw.jwks_refresh_min)?,
            }),
            None => None,
        };
        let is_configured = !raw.jwt_secret.is_empty()
            || !raw.jwt_public_key.is_empty()
            || jwks.is_some()
            || !raw.signing_secret.is_empty()
            || !keys.is_empty()
            || connect_hook.is_some();
        let is_open = match raw.mode.as_str() {
            "auto" => !is_configured,
            "dev" => true,
            "production" if is_configured => false,
            "production" => {
                return Err("auth.mode is production, but there is nothing to check a token or key with: give \
                            auth.jwt_secret (JWT_SECRET), auth.jwt_public_key, auth.jwks_url, auth.signing_secret \
                            (FANFARE_SIGNING_SECRET), auth.api_key (FANFARE_API_KEY) or auth.connect_hook_url"
                    .to_owned());
            }
            other => return Err(format!("auth.mode is auto, dev or production, not `{other}`")),
        };
        let names = |names: Vec<String>| names.into_iter().map(String::into_boxed_str).collect();
        Ok(Self {
            is_open,
            is_configured,
            jwt_secret: raw.jwt_secret,
            jwt_public_key: Some(raw.jwt_public_key).filter(|path| !path.is_empty()).map(PathBuf::from),
            jwks,
            rules: ClaimRules {
                issuers: names(raw.issuer),
                audiences: names(raw.audience),
                leeway: duration("auth.leeway", &raw.leeway)?,
                requires_expiry: raw.require_expiry,
            },
            signing_secret: raw.signing_secret,
            keys,
            connect_hook,
            access_hook: url("auth.access_hook_url", raw.access_hook_url)?,
            hook_timeout: nonzero("auth.hook_timeout", &raw.hook_timeout)?,
            hook_cache: duration("auth.hook_cache", &raw.hook_cache)?,
            expiry_warning: duration("auth.expiry_warning", &raw.expiry_warning)?,
            revocations_kept: duration("auth.revocations_kept", &raw.revocations_kept)?,
            metrics_public: raw.metrics_public,
        })
    }
}

/// An address of HTTP, if one is given.
pub(crate) fn url(key: &str, text: String) -> Result<Option<String>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    // Not repeated: it may have a password in it.
    let complaint = || format!("{key} is an address such as https://app.example.com/path");
    let parsed = reqwest::Url::parse(&text).map_err(|_| complaint())?;
    let is_http = matches!(parsed.scheme(), "http" | "https") && parsed.host_str().is_some();
    if is_http { Ok(Some(text)) } else { Err(complaint()) }
}
