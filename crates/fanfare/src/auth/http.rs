//! Owns the requests to other people's servers: bounded in time, bytes and number. Does not know what they are about.
//! Invariant: no redirect is followed, so an answer comes from the address that the settings name.

use std::time::Duration;

use anyhow::Context;
use tokio::sync::Semaphore;

/// Requests that are under way at once; further ones wait, within their own time. 64: what one backend process answers
/// side by side, and a flood of connects holds no more sockets than that.
const REQUESTS_MAX: usize = 64;

/// A client for hooks and key sets.
pub(crate) struct Http {
    client: reqwest::Client,
    slots: Semaphore,
    timeout: Duration,
}

/// An answer, whatever its status.
pub(crate) struct Answer {
    /// Its status.
    pub(crate) status: u16,
    /// Its body.
    pub(crate) body: Vec<u8>,
}

impl Http {
    /// A client whose requests take `timeout` at most, waiting included.
    ///
    /// # Errors
    /// The environment's: this machine's certificates cannot be read.
    pub(crate) fn new(timeout: Duration) -> anyhow::Result<Self> {
        // An error means that there is one already, which does as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("fanfare/", env!("CARGO_PKG_VERSION")))
            .no_proxy()
            .build()
            .context("no HTTP client")?;
        Ok(Self { client, slots: Semaphore::new(REQUESTS_MAX), timeout })
    }

    /// GETs a document of at most `bytes_max`.
    ///
    /// # Errors
    /// The environment's: no answer in time, or one that is too long. The text names no address.
    pub(crate) async fn get(&self, url: &str, bytes_max: usize) -> Result<Answer, String> {
        self.send(self.client.get(url), bytes_max).await
    }

    /// POSTs JSON.
    ///
    /// # Errors
    /// As [`Http::get`].
    pub(crate) async fn post(&self, url: &str, json: String, bytes_max: usize) -> Result<Answer, String> {
        self.post_signed(url, json, None, bytes_max).await
    }

    /// POSTs JSON with a signature of its bytes, if there is one.
    ///
    /// # Errors
    /// As [`Http::get`].
    pub(crate) async fn post_signed(
        &self,
        url: &str,
        json: String,
        signature: Option<String>,
        bytes_max: usize,
    ) -> Result<Answer, String> {
        let mut request = self.client.post(url).header("content-type", "application/json").body(json);
        if let Some(signature) = signature {
            request = request.header("x-fanfare-signature-256", signature);
        }
        self.send(request, bytes_max).await
    }

    async fn send(&self, request: reqwest::RequestBuilder, bytes_max: usize) -> Result<Answer, String> {
        let answering = async {
            let _slot = self.slots.acquire().await.map_err(|_| "stopped".to_owned())?;
            let mut response = request.send().await.map_err(|error| tell(&error))?;
            let status = response.status().as_u16();
            let mut body = Vec::new();
            while let Some(chunk) = response.chunk().await.map_err(|error| tell(&error))? {
                if body.len() + chunk.len() > bytes_max {
                    return Err(format!("an answer of more than {bytes_max} bytes"));
                }
                body.extend_from_slice(&chunk);
            }
            Ok(Answer { status, body })
        };
        let within = self.timeout;
        match tokio::time::timeout(within, answering).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("no answer within {}", humantime::format_duration(within))),
        }
    }
}

/// What went wrong, without the address, which may hold a password.
fn tell(error: &reqwest::Error) -> String {
    let kind = if error.is_connect() { "it cannot be reached" } else { "the answer broke off" };
    let mut cause = std::error::Error::source(error);
    while let Some(deeper) = cause.and_then(std::error::Error::source) {
        cause = Some(deeper);
    }
    cause.map_or_else(|| kind.to_owned(), |cause| format!("{kind}: {cause}"))
}
