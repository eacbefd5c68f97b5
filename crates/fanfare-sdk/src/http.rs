//! Owns requests to the server: one attempt, and attempts until it is answered. Does not know what is asked for.
//!
//! Invariant: the attempts of one call carry the same idempotency key, so what arrived twice is done once.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hub::rest::ErrorAnswer;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::http::uri::{Authority, Scheme};
use hyper::{HeaderMap, Method, Request, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::error::Error;
use crate::settings::Settings;

/// Bytes of an answer, 16 MiB: a page of logs with the largest events.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// The longest that a server may make us wait for another attempt. An hour: more is a mistake, such as milliseconds.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3_600);

/// A body that is sent as often as it takes.
#[derive(Clone, Debug)]
pub(crate) struct Body {
    pub(crate) bytes: Bytes,
    pub(crate) content_type: &'static str,
}

impl Body {
    /// A body of JSON.
    pub(crate) fn json(value: &impl Serialize) -> Self {
        let bytes = serde_json::to_vec(value).expect("invariant: bodies have texts for keys");
        Self { bytes: bytes.into(), content_type: "application/json" }
    }
}

/// What is asked of the server.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) method: Method,
    /// With the query.
    pub(crate) path: String,
    pub(crate) body: Option<Body>,
    /// By which a repetition is known.
    pub(crate) key: Option<String>,
    /// Time that the server may take on purpose.
    pub(crate) wait: Duration,
}

impl Call {
    /// Reads something.
    pub(crate) fn get(path: impl Into<String>) -> Self {
        Self { method: Method::GET, path: path.into(), body: None, key: None, wait: Duration::ZERO }
    }

    /// Does something, once.
    pub(crate) fn post(path: impl Into<String>, body: &impl Serialize) -> Self {
        let key = Some(new_key());
        let body = Some(Body::json(body));
        Self { method: Method::POST, path: path.into(), body, key, wait: Duration::ZERO }
    }
}

/// A new idempotency key.
pub(crate) fn new_key() -> String {
    uuid::Uuid::now_v7().to_string()
}

/// How one attempt failed.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Failure {
    /// Trying again makes no sense.
    Final(Error),
    /// The server is away or busy.
    Away { why: String, retry_after: Option<Duration> },
}

/// A server, and how it is talked to.
pub(crate) struct Http {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    scheme: Scheme,
    authority: Authority,
    /// What stands before our paths, without a slash at its end.
    prefix: String,
    authorization: Option<HeaderValue>,
    settings: Arc<Settings>,
    /// Why the newest attempt was not answered; `None` if it was.
    failure: Mutex<Option<String>>,
}

impl Http {
    /// # Errors
    /// [`Error::BadUrl`]: not `http://` or `https://` with a host; or https, and the machine trusts nobody.
    /// [`Error::BadKey`]: the key cannot be in a header.
    pub(crate) fn new(url: &str, settings: Arc<Settings>) -> Result<Self, Error> {
        let uri: Uri = url.parse().map_err(|error| Error::BadUrl(format!("`{url}`: {error}")))?;
        let parts = uri.into_parts();
        let (Some(scheme), Some(authority)) = (parts.scheme, parts.authority) else {
            return Err(Error::BadUrl(format!("`{url}` is not like http://127.0.0.1:8000")));
        };
        if scheme != Scheme::HTTP && scheme != Scheme::HTTPS {
            return Err(Error::BadUrl(format!("`{url}` is neither http nor https")));
        }
        let path = parts.path_and_query.as_ref().map_or("", |path| path.path());
        let prefix = path.trim_end_matches('/').to_owned();
        let authorization = match &settings.api_key {
            None => None,
            Some(key) => {
                let mut value =
                    HeaderValue::try_from(format!("Bearer {}", key.as_str())).map_err(|_| Error::BadKey)?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        let client = Client::builder(TokioExecutor::new()).build(connector(&scheme)?);
        let failure = Mutex::default();
        Ok(Self { client, scheme, authority, prefix, authorization, settings, failure })
    }

    /// Why the newest attempt was not answered; `None` if it was, or there was none.
    pub(crate) fn failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, failure: Option<String>) {
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = failure;
    }

    pub(crate) fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }

    /// Asks until there is an answer, and reads it.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Unavailable`] or [`Error::BadAnswer`].
    pub(crate) async fn call<T: DeserializeOwned>(&self, call: &Call) -> Result<T, Error> {
        let answer = self.insist(call).await?;
        serde_json::from_slice(&answer).map_err(|error| Error::BadAnswer(format!("{}: {error}", call.path)))
    }

    /// Asks until there is an answer.
    ///
    /// # Errors
    /// [`Error::Refused`] or [`Error::Unavailable`].
    pub(crate) async fn insist(&self, call: &Call) -> Result<Bytes, Error> {
        let mut backoff = Backoff::new(self.settings.retry_first, self.settings.retry_max);
        let until = Instant::now() + self.settings.give_up_after;
        loop {
            let attempt = self.attempt(call).await;
            self.note(match &attempt {
                Ok(_) | Err(Failure::Final(_)) => None,
                Err(Failure::Away { why, .. }) => Some(why.clone()),
            });
            let (why, retry_after) = match attempt {
                Ok(answer) => return Ok(answer),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Away { why, retry_after }) => (why, retry_after),
            };
            let wait = backoff.fail(retry_after, chance());
            if Instant::now() + wait > until {
                return Err(Error::Unavailable { attempts: backoff.attempts(), last: why });
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// Asks once.
    async fn attempt(&self, call: &Call) -> Result<Bytes, Failure> {
        let request = self.request(call).map_err(Failure::Final)?;
        let within = self.settings.request_timeout + call.wait;
        match tokio::time::timeout(within, self.exchange(request)).await {
            Ok(answer) => answer,
            Err(_) => Err(away(format!("no answer within {within:?}"))),
        }
    }

    fn request(&self, call: &Call) -> Result<Request<Full<Bytes>>, Error> {
        let uri = Uri::builder()
            .scheme(self.scheme.clone())
            .authority(self.authority.clone())
            .path_and_query(format!("{}{}", self.prefix, call.path))
            .build()
            .map_err(|error| Error::BadUrl(format!("{}: {error}", call.path)))?;
        let mut request = Request::builder().method(call.method.clone()).uri(uri);
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        if let Some(key) = &call.key {
            request = request.header("idempotency-key", key);
        }
        let mut bytes = Bytes::new();
        if let Some(body) = &call.body {
            request = request.header(CONTENT_TYPE, body.content_type);
            bytes = body.bytes.clone();
        }
        request.body(Full::new(bytes)).map_err(|error| Error::BadUrl(format!("{}: {error}", call.path)))
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Bytes, Failure> {
        let response = self.client.request(request).await.map_err(|error| {
            // What hyper says of itself is that a connection failed; its source says why.
            let why = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            away(format!("{error}: {why}"))
        })?;
        let (head, body) = response.into_parts();
        let answer = match Limited::new(body, ANSWER_BYTES_MAX).collect().await {
            Ok(collected) => collected.to_bytes(),
            Err(error) if error.is::<http_body_util::LengthLimitError>() => {
                let complaint = format!("more than {ANSWER_BYTES_MAX} bytes");
                return Err(Failure::Final(Error::BadAnswer(complaint)));
            }
            Err(error) => return Err(away(format!("the answer broke off: {error}"))),
        };
        if head.status.is_success() { Ok(answer) } else { Err(refusal(head.status, &head.headers, &answer)) }
    }
}

fn connector(scheme: &Scheme) -> Result<HttpsConnector<HttpConnector>, Error> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    // Batches are written whole: nothing is gained by holding back the last packet of one.
    tcp.set_nodelay(true);
    let provider = rustls::crypto::ring::default_provider();
    let builder = HttpsConnectorBuilder::new();
    let builder = if *scheme == Scheme::HTTPS {
        builder
            .with_provider_and_native_roots(provider)
            .map_err(|error| Error::BadUrl(format!("https: no certificates of this machine: {error}")))?
    } else {
        // Nothing is verified over http, so nothing is read from the disk for it.
        let config = rustls::ClientConfig::builder_with_provider(provider.into())
            .with_safe_default_protocol_versions()
            .expect("invariant: ring has the default versions of TLS")
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        builder.with_tls_config(config)
    };
    Ok(builder.https_or_http().enable_http1().wrap_connector(tcp))
}

fn away(why: String) -> Failure {
    Failure::Away { why, retry_after: None }
}

/// What an answer other than success means.
fn refusal(status: StatusCode, headers: &HeaderMap, answer: &[u8]) -> Failure {
    let error = serde_json::from_slice::<ErrorAnswer>(answer).ok().map(|answer| answer.error);
    let (code, message, asked) = match error {
        Some(error) => (error.code, error.message, error.retry_after),
        // Not one of ours: a proxy, most likely. What it says is cut, since it may be a page.
        None => (
            "unknown".to_owned(),
            String::from_utf8_lossy(&answer[..answer.len().min(200)]).into_owned(),
            None,
        ),
    };
    let may_retry = matches!(status.as_u16(), 408 | 425 | 429 | 500..=599);
    if !may_retry {
        return Failure::Final(Error::Refused { status: status.as_u16(), code, message });
    }
    let in_header =
        || headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse::<f64>().ok());
    let retry_after = asked
        .or_else(in_header)
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .map(|wait| wait.min(RETRY_AFTER_MAX));
    Failure::Away { why: format!("{} {code}: {message}", status.as_u16()), retry_after }
}

/// A number from 0 to 1: unpredictable enough to keep publishers apart.
fn chance() -> f64 {
    // The random part of a UUID; 2^32 and all that is below it are exact.
    let low = uuid::Uuid::now_v7().as_u128() as u32;
    f64::from(low) / f64::from(u32::MAX)
}

/// Writes an id as a part of a path or query.
pub(crate) fn escape(id: &str) -> String {
    let mut escaped = String::with_capacity(id.len());
    for byte in id.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                escaped.push(char::from(byte))
            }
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_that_are_no_servers_are_refused() {
        for bad in ["", "localhost", "/x", "ftp://h", "http://", "http://a b"] {
            let refused = Http::new(bad, Arc::default()).err();
            assert!(matches!(refused, Some(Error::BadUrl(_))), "{bad}");
        }
        let settings = Settings { api_key: Some("line\nbreak".into()), ..Settings::default() };
        assert_eq!(Http::new("http://h", Arc::new(settings)).err(), Some(Error::BadKey));
        let http = Http::new("http://h:1/behind/", Arc::default()).unwrap();
        let request = http.request(&Call::get("/api/v1/jobs?limit=1")).unwrap();
        assert_eq!(request.uri().to_string(), "http://h:1/behind/api/v1/jobs?limit=1");
    }

    #[test]
    fn ids_cannot_leave_their_place_in_a_path() {
        assert_eq!(escape("a/../b?c=é"), "a%2F..%2Fb%3Fc%3D%C3%A9");
    }

    #[test]
    fn answers_say_whether_and_when_to_try_again() {
        let mut headers = HeaderMap::new();
        let busy = br#"{"error":{"code":"busy","message":"m","retry_after":2}}"#;
        let expected =
            Failure::Away { why: "503 busy: m".to_owned(), retry_after: Some(Duration::from_secs(2)) };
        assert_eq!(refusal(StatusCode::SERVICE_UNAVAILABLE, &headers, busy), expected);
        headers.insert(RETRY_AFTER, HeaderValue::from_static("7"));
        let expected = Failure::Away {
            why: "502 unknown: <html>".to_owned(),
            retry_after: Some(Duration::from_secs(7)),
        };
        assert_eq!(refusal(StatusCode::BAD_GATEWAY, &headers, b"<html>"), expected);
        for absurd in ["-1", "NaN", "1e300", "soon"] {
            headers.insert(RETRY_AFTER, HeaderValue::from_str(absurd).unwrap());
            let Failure::Away { retry_after, .. } = refusal(StatusCode::BAD_GATEWAY, &headers, b"") else {
                panic!("it may be tried again")
            };
            assert_eq!(retry_after, None, "{absurd}");
        }
        let bad = br#"{"error":{"code":"bad_payload","message":"m"}}"#;
        let Failure::Final(error) = refusal(StatusCode::UNPROCESSABLE_ENTITY, &headers, bad) else {
            panic!("it is final")
        };
        assert_eq!(error.code(), Some("bad_payload"));
    }
}
