//! Owns the two questions to the application: who is this, and may they. Does not know sockets.
//! Invariant: an answer that did not come, came late or makes no sense is never a yes.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use auth::claims::{CLAIMS_BYTES_MAX, Claims};
use auth::fault::AuthFault;
use hub::access::Action;
use hub::principal::Principal;
use hub::room::RoomName;
use serde::Deserialize;
use serde_json::json;

use super::cache::Cache;
use super::http::Http;
use super::presented::Presented;

/// Answers that each hook's cache keeps. 2,000 connects in `auth.hook_cache` are more than one backend answers; at
/// their longest, the questions take 64 MB, and some megabytes in practice.
const ANSWERS_MAX: usize = 2_000;

/// Bytes of a question who somebody is. A token, cookies and an auth payload that names a tenant or so are far less;
/// more is not worth the application's time, nor the cache's memory.
const QUESTION_BYTES_MAX: usize = 32 * 1024;

/// Bytes of an answer about access.
const ACCESS_BYTES_MAX: usize = 4_096;

/// The question who somebody is.
pub(crate) struct ConnectHook {
    url: String,
    http: Arc<Http>,
    cache: Mutex<Cache<String, Result<Principal, AuthFault>>>,
}

/// The question whether somebody may do something with a room.
pub(crate) struct AccessHook {
    url: String,
    http: Arc<Http>,
    cache: Mutex<Cache<String, bool>>,
}

/// What the application says about access.
#[derive(Deserialize)]
struct Verdict {
    allow: bool,
}

impl ConnectHook {
    /// Asks at this address; answers hold for `lifetime`.
    pub(crate) fn new(url: String, http: Arc<Http>, lifetime: Duration) -> Self {
        Self { url, http, cache: Mutex::new(Cache::new(ANSWERS_MAX, lifetime)) }
    }

    /// Asks.
    ///
    /// # Errors
    /// [`AuthFault::HookRefused`] if the application says 401 or 403, [`AuthFault::HookUnavailable`] if it says nothing
    /// useful, [`AuthFault::TokenExpired`] if its claims say so, [`AuthFault::TokenTooLong`] before it is asked.
    pub(crate) async fn ask(&self, presented: &Presented) -> Result<Principal, AuthFault> {
        let question = presented.to_json().to_string();
        if question.len() > QUESTION_BYTES_MAX {
            return Err(AuthFault::TokenTooLong);
        }
        // The question itself is the key: whatever may change the answer is in it.
        let known = self.cache.lock().ok().and_then(|cache| cache.find(&question, Instant::now()));
        if let Some(known) = known {
            return match known {
                Ok(principal) if has_ended(&principal) => Err(AuthFault::TokenExpired),
                other => other,
            };
        }
        let answer =
            self.http.post(&self.url, question.clone(), CLAIMS_BYTES_MAX).await.map_err(|error| {
                tracing::warn!(error, "the connect hook gave no answer");
                AuthFault::HookUnavailable
            })?;
        let outcome =
            match answer.status {
                200 => Claims::parse(&answer.body)
                    .and_then(|claims| claims.into_principal(Duration::ZERO, super::now()))
                    .and_then(|principal| {
                        if has_ended(&principal) { Err(AuthFault::TokenExpired) } else { Ok(principal) }
                    }),
                401 | 403 => Err(AuthFault::HookRefused),
                status => {
                    tracing::warn!(status, "the connect hook answered with a status that means nothing here");
                    return Err(AuthFault::HookUnavailable);
                }
            };
        if let Err(
            fault @ (AuthFault::TokenMalformed | AuthFault::TokenBadClaim | AuthFault::TokenClaimMissing),
        ) = outcome
        {
            tracing::warn!(code = fault.code(), "the connect hook's claims cannot be used");
            return Err(AuthFault::HookUnavailable);
        }
        if let Ok(mut cache) = self.cache.lock() {
            cache.put(question, outcome.clone(), Instant::now());
        }
        outcome
    }
}

fn has_ended(principal: &Principal) -> bool {
    principal.expires_at.is_some_and(|end| end <= super::now())
}

impl AccessHook {
    /// Asks at this address; answers hold for `lifetime`.
    pub(crate) fn new(url: String, http: Arc<Http>, lifetime: Duration) -> Self {
        Self { url, http, cache: Mutex::new(Cache::new(ANSWERS_MAX, lifetime)) }
    }

    /// Asks whether `principal` may.
    ///
    /// # Errors
    /// [`AuthFault::HookUnavailable`].
    pub(crate) async fn ask(
        &self,
        principal: &Principal,
        room: &RoomName,
        action: Action,
    ) -> Result<bool, AuthFault> {
        let action = match action {
            Action::Join => "join",
            Action::Publish => "publish",
        };
        let question = json!({
            "user": principal.user,
            "session": principal.session,
            "roles": principal.roles,
            "room": room.as_str(),
            "action": action,
        })
        .to_string();
        let known = self.cache.lock().ok().and_then(|cache| cache.find(&question, Instant::now()));
        if let Some(known) = known {
            return Ok(known);
        }
        let unavailable = |error: String| {
            tracing::warn!(error, "the access hook gave no answer");
            AuthFault::HookUnavailable
        };
        let answer = self.http.post(&self.url, question.clone(), ACCESS_BYTES_MAX).await;
        let answer = answer.map_err(unavailable)?;
        let verdict = match answer.status {
            200 => match serde_json::from_slice::<Verdict>(&answer.body) {
                Ok(verdict) => verdict.allow,
                Err(_) => return Err(unavailable("an answer other than {\"allow\": true or false}".into())),
            },
            204 => true,
            403 | 404 => false,
            status => return Err(unavailable(format!("status {status}"))),
        };
        if let Ok(mut cache) = self.cache.lock() {
            cache.put(question, verdict, Instant::now());
        }
        Ok(verdict)
    }
}
