//! Owns the connections to one endpoint: TLS, pooling, the headers of requests. Does not know what bodies mean.
//! Invariant: a response or its future that is dropped closes its connection, so whoever answers notices.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, Request, Response, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::settings::{Endpoint, Limits};
use crate::step::{Again, Code, Failure, Trouble};

/// Time after which an unused connection is closed. 30 s: below what proxies and load balancers grant.
const IDLE_CONNECTION: Duration = Duration::from_secs(30);

/// Lets a tool notice that a repetition is one.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// One endpoint.
#[derive(Debug)]
pub(crate) struct Upstream {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    url: Uri,
    headers: HeaderMap,
}

impl Upstream {
    /// Prepares the connections; makes none.
    ///
    /// # Errors
    /// The environment's: a file with certificates that cannot be read.
    pub(crate) fn new(endpoint: Endpoint, accept: &'static str, limits: &Limits) -> Result<Self, String> {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(limits.connect_timeout));
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(tls(endpoint.ca_file.as_deref())?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(http);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_CONNECTION)
            .pool_max_idle_per_host(limits.concurrency)
            .build(https);
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static(accept));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("fanfare/", env!("CARGO_PKG_VERSION"))));
        let has_secrets = !endpoint.headers.is_empty();
        if has_secrets && !is_private(&endpoint.url) {
            tracing::warn!(url = %endpoint.url, "headers or a key go to another machine without TLS; use https");
        }
        headers.extend(endpoint.headers);
        Ok(Self { client, url: endpoint.url, headers })
    }

    /// Posts a body; answers with the response's head.
    pub(crate) async fn post(&self, body: Bytes, key: &HeaderValue) -> Result<Response<Incoming>, Trouble> {
        let mut request = Request::post(self.url.clone())
            .body(Full::new(body))
            .expect("invariant: the address was parsed when the settings were read");
        *request.headers_mut() = self.headers.clone();
        request.headers_mut().insert(IDEMPOTENCY_KEY, key.clone());
        self.client.request(request).await.map_err(|fault| {
            let detail = chain(&fault);
            if fault.is_connect() {
                let failure = Failure::passing(Code::ToolFailed, "the tool cannot be reached");
                Trouble::new(failure, Again::Always).with_detail(detail)
            } else {
                broken().with_detail(detail)
            }
        })
    }
}

/// Whether what is sent there can be read by nobody in between.
fn is_private(url: &Uri) -> bool {
    let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
    let is_here = host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
    url.scheme_str() == Some("https") || is_here
}

/// The connection broke after the request was sent.
pub(crate) fn broken() -> Trouble {
    let failure =
        Failure::passing(Code::ToolFailed, "the tool closed its connection before the answer was complete");
    Trouble::new(failure, Again::IfHarmless)
}

/// What an error says, with its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// How long the tool wants to be left alone. RFC 9110 §10.2.3.
pub(crate) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    match text.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        // A date that has passed means now.
        Err(_) => Some(httpdate::parse_http_date(text).ok()?.duration_since(now).unwrap_or_default()),
    }
}

fn tls(ca_file: Option<&Path>) -> Result<rustls::ClientConfig, String> {
    let mut roots = rustls::RootCertStore::empty();
    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    if let Some(path) = ca_file {
        let fault = |why: String| format!("ca_file {}: {why}", path.display());
        let mut count = 0;
        for certificate in CertificateDer::pem_file_iter(path).map_err(|why| fault(why.to_string()))? {
            let certificate = certificate.map_err(|why| fault(why.to_string()))?;
            roots.add(certificate).map_err(|why| fault(why.to_string()))?;
            count += 1;
        }
        if count == 0 {
            return Err(fault("has no certificate in it".into()));
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|why| why.to_string())?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tls_and_this_machine_are_private() {
        for (url, expected) in [
            ("https://h/v1", true),
            ("http://localhost:1/v1", true),
            ("http://127.9.0.1/v1", true),
            ("http://[::1]:1/v1", true),
            ("http://10.0.0.1/v1", false),
            ("http://localhost.example.org", false),
        ] {
            assert_eq!(is_private(&url.parse().unwrap()), expected, "{url}");
        }
    }

    #[test]
    fn a_pause_is_told_in_seconds_or_as_a_date() {
        let after = |text: &'static str| {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(text))]);
            retry_after(&headers, SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000))
        };
        assert_eq!(after(" 7 "), Some(Duration::from_secs(7)));
        assert_eq!(after("Sun, 09 Sep 2001 01:46:50 GMT"), Some(Duration::from_secs(10)));
        assert_eq!(after("Sun, 09 Sep 2001 01:46:30 GMT"), Some(Duration::ZERO));
        for nonsense in ["", "-1", "soon", "99999999999999999999999"] {
            assert_eq!(after(nonsense), None, "{nonsense}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), SystemTime::UNIX_EPOCH), None);
    }
}
