//! Owns an issuer's key set: fetched, kept, fetched again as time passes or a token names an unknown key.
//! Does not know tokens. Invariant: at most one fetch at a time, and tokens cause at most one each `refresh_min`,
//! whatever their number. A fetch that fails leaves the keys as they are.

use std::sync::{Arc, RwLock};
use std::time::Instant;

use auth::key::{JWKS_BYTES_MAX, KeySet};
use tokio::sync::Mutex;

use super::config::JwksConfig;
use super::http::Http;

/// The keys of one issuer.
pub(crate) struct Jwks {
    config: JwksConfig,
    http: Arc<Http>,
    /// `None` until the first fetch succeeded.
    keys: RwLock<Option<Arc<KeySet>>>,
    /// When a fetch began last. Held while one is under way.
    began: Mutex<Option<Instant>>,
}

impl Jwks {
    /// Begins to fetch the keys, and again and again until it is dropped.
    pub(crate) fn start(config: JwksConfig, http: Arc<Http>) -> Arc<Self> {
        let jwks = Arc::new(Self { config, http, keys: RwLock::default(), began: Mutex::default() });
        let weak = Arc::downgrade(&jwks);
        let refresh = jwks.config.refresh;
        tokio::spawn(async move {
            while let Some(jwks) = weak.upgrade() {
                {
                    let mut began = jwks.began.lock().await;
                    *began = Some(Instant::now());
                    jwks.fetch().await;
                }
                drop(jwks);
                tokio::time::sleep(refresh).await;
            }
        });
        jwks
    }

    /// The keys; `None` if they could never be fetched.
    pub(crate) fn keys(&self) -> Option<Arc<KeySet>> {
        self.keys.read().ok().and_then(|keys| keys.clone())
    }

    /// A token needs other keys than `seen`: fetches them, unless that was done a moment ago. Answers what there is then.
    pub(crate) async fn renewed(&self, seen: Option<&Arc<KeySet>>) -> Option<Arc<KeySet>> {
        let mut began = self.began.lock().await;
        let now = self.keys();
        // Somebody else has fetched them while we waited.
        let has_changed = now.as_ref().map(Arc::as_ptr) != seen.map(Arc::as_ptr);
        let was_recent = began.is_some_and(|began| began.elapsed() < self.config.refresh_min);
        if has_changed || was_recent {
            return now;
        }
        *began = Some(Instant::now());
        self.fetch().await;
        self.keys()
    }

    async fn fetch(&self) {
        let fetched = match self.http.get(&self.config.url, JWKS_BYTES_MAX).await {
            Ok(answer) if answer.status == 200 => {
                KeySet::from_jwks(&answer.body).map_err(|fault| fault.to_string())
            }
            Ok(answer) => Err(format!("the answer has status {}", answer.status)),
            Err(error) => Err(error),
        };
        match fetched {
            Ok(keys) => {
                if keys.is_empty() {
                    tracing::warn!(
                        "the issuer's key set has no key that can be used: its tokens are refused"
                    );
                }
                tracing::debug!(keys = keys.len(), "the issuer's key set was fetched");
                if let Ok(mut held) = self.keys.write() {
                    *held = Some(Arc::new(keys));
                }
            }
            Err(error) => {
                tracing::warn!(error, "the issuer's key set could not be fetched; the old one stays")
            }
        }
    }
}
