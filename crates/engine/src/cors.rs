//! Owns cross-origin rules: which headers a browser gets to see on replies and preflights.
//! Does not know the engine. CORS never blocks a WebSocket: that is what `allow_request` is for.
//!
//! The semantics are those of the middleware that the reference server uses (EIO4 "CORS").

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue};

/// Which origins may read replies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origins {
    /// Any, as a literal `*`. Browsers refuse it together with credentials.
    Any,
    /// Any, by repeating the request's origin.
    Mirror,
    /// Exactly these, such as `https://app.example.com`.
    List(Vec<String>),
}

/// Cross-origin rules. Without any, no CORS header is ever sent and OPTIONS is an ordinary, failing request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cors {
    origins: Origins,
    credentials: bool,
    methods: String,
    headers: Option<String>,
    exposed: Option<String>,
    max_age_seconds: Option<u64>,
}

impl Cors {
    /// Rules for these origins, with the usual methods, whatever headers are asked for, and no credentials.
    #[must_use]
    pub fn new(origins: Origins) -> Self {
        Self {
            origins,
            credentials: false,
            methods: "GET,HEAD,PUT,PATCH,POST,DELETE".to_owned(),
            headers: None,
            exposed: None,
            max_age_seconds: None,
        }
    }

    /// Lets browsers send cookies and client certificates.
    #[must_use]
    pub fn credentials(mut self, allow: bool) -> Self {
        self.credentials = allow;
        self
    }

    /// Methods allowed by a preflight, comma-separated.
    #[must_use]
    pub fn methods(mut self, methods: &str) -> Self {
        methods.clone_into(&mut self.methods);
        self
    }

    /// Request headers allowed by a preflight, comma-separated. Default: whatever is asked for.
    #[must_use]
    pub fn allowed_headers(mut self, headers: &str) -> Self {
        self.headers = Some(headers.to_owned());
        self
    }

    /// Reply headers that scripts may read, comma-separated.
    #[must_use]
    pub fn exposed_headers(mut self, headers: &str) -> Self {
        self.exposed = Some(headers.to_owned());
        self
    }

    /// How long a browser may keep a preflight's answer, in seconds.
    #[must_use]
    pub fn max_age_seconds(mut self, seconds: u64) -> Self {
        self.max_age_seconds = Some(seconds);
        self
    }

    /// Whether a page of `origin` may read replies.
    #[must_use]
    pub fn allows(&self, origin: &str) -> bool {
        match &self.origins {
            Origins::Any | Origins::Mirror => true,
            Origins::List(list) => list.iter().any(|allowed| allowed == origin),
        }
    }

    /// Adds what every reply carries.
    pub fn apply(&self, request: &HeaderMap, reply: &mut HeaderMap) {
        match &self.origins {
            Origins::Any => {
                reply.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
            }
            Origins::Mirror | Origins::List(_) => {
                reply.append(VARY, HeaderValue::from_static("Origin"));
                if let Some(origin) = request.get(ORIGIN)
                    && origin.to_str().is_ok_and(|origin| self.allows(origin))
                {
                    reply.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
                }
            }
        }
        if self.credentials {
            reply.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        if let Some(exposed) = self.exposed.as_deref().and_then(|text| HeaderValue::from_str(text).ok()) {
            reply.insert(ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
        }
    }

    /// Adds what a preflight's `204` carries.
    pub fn apply_preflight(&self, request: &HeaderMap, reply: &mut HeaderMap) {
        self.apply(request, reply);
        if let Ok(methods) = HeaderValue::from_str(&self.methods) {
            reply.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
        }
        match &self.headers {
            Some(headers) => {
                if let Ok(headers) = HeaderValue::from_str(headers) {
                    reply.insert(ACCESS_CONTROL_ALLOW_HEADERS, headers);
                }
            }
            None => {
                reply.append(VARY, HeaderValue::from_static("Access-Control-Request-Headers"));
                if let Some(asked) = request.get(ACCESS_CONTROL_REQUEST_HEADERS) {
                    reply.insert(ACCESS_CONTROL_ALLOW_HEADERS, asked.clone());
                }
            }
        }
        if let Some(seconds) = self.max_age_seconds {
            reply.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from(seconds));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(origin: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(ORIGIN, origin.parse().unwrap());
        headers.insert(ACCESS_CONTROL_REQUEST_HEADERS, "x-a,x-b".parse().unwrap());
        headers
    }

    #[test]
    fn a_listed_origin_is_mirrored_and_another_gets_no_header() {
        let cors = Cors::new(Origins::List(vec!["http://a".to_owned()])).credentials(true);
        let mut reply = HeaderMap::new();
        cors.apply(&request("http://a"), &mut reply);
        assert_eq!(reply[ACCESS_CONTROL_ALLOW_ORIGIN], "http://a");
        assert_eq!(reply[ACCESS_CONTROL_ALLOW_CREDENTIALS], "true");
        assert_eq!(reply[VARY], "Origin");
        let mut reply = HeaderMap::new();
        cors.apply(&request("http://b"), &mut reply);
        assert!(!reply.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN));
    }

    #[test]
    fn a_preflight_allows_what_is_asked_for() {
        let mut reply = HeaderMap::new();
        Cors::new(Origins::Any).max_age_seconds(60).apply_preflight(&request("http://a"), &mut reply);
        assert_eq!(reply[ACCESS_CONTROL_ALLOW_ORIGIN], "*");
        assert_eq!(reply[ACCESS_CONTROL_ALLOW_HEADERS], "x-a,x-b");
        assert_eq!(reply[ACCESS_CONTROL_ALLOW_METHODS], "GET,HEAD,PUT,PATCH,POST,DELETE");
        assert_eq!(reply[ACCESS_CONTROL_MAX_AGE], "60");
    }
}
