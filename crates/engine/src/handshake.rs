//! Owns what is kept of the request that opened a session. Compact: one text, parsed when somebody asks.

use std::net::SocketAddr;
use std::time::SystemTime;

use http::{HeaderMap, HeaderName, Uri, Version};

/// The request that opened a session, as handlers see it. SIO5 "Connection to a namespace".
#[derive(Debug)]
pub struct Handshake {
    /// Target, then one header a line, `name: value`. One allocation, because there is one of these per session.
    text: Box<str>,
    target_len: u32,
    address: Option<SocketAddr>,
    issued: SystemTime,
    secure: bool,
}

impl Handshake {
    pub(crate) fn new(uri: &Uri, headers: &HeaderMap, address: Option<SocketAddr>, secure: bool) -> Self {
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        let bytes = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 3).sum::<usize>();
        let mut text = String::with_capacity(target.len() + bytes);
        text.push_str(target);
        for (name, value) in headers {
            text.push('\n');
            text.push_str(name.as_str());
            text.push_str(": ");
            // Header values are bytes; what is not UTF-8 is rare and shown with replacement characters.
            text.push_str(&String::from_utf8_lossy(value.as_bytes()));
        }
        Self {
            target_len: u32::try_from(target.len()).unwrap_or(0),
            text: text.into_boxed_str(),
            address,
            issued: SystemTime::now(),
            secure,
        }
    }

    /// Path and query, as they came.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.text[..self.target_len as usize]
    }

    /// The query without `?`; holds `EIO`, `transport` and whatever the application's page added.
    #[must_use]
    pub fn query(&self) -> &str {
        self.url().split_once('?').map_or("", |(_, query)| query)
    }

    /// The decoded value of one query key; the last one if it is repeated.
    #[must_use]
    pub fn query_value(&self, key: &str) -> Option<String> {
        let query = eio_proto::Query::parse(self.query());
        query.pairs().filter(|(name, _)| name == key).last().map(|(_, value)| value.into_owned())
    }

    /// Headers in the order in which they came; names are lower-case.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.text[self.target_len as usize..].split('\n').filter_map(|line| line.split_once(": "))
    }

    /// The first header with this name, which is compared without regard to case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// The peer's address; `None` if the server it was mounted into did not say.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// When the session was opened.
    #[must_use]
    pub fn issued(&self) -> SystemTime {
        self.issued
    }

    /// Whether the link was TLS to us. What a proxy in front says is in the headers.
    #[must_use]
    pub fn is_secure(&self) -> bool {
        self.secure
    }

    /// Whether an `Origin` header came with it: a browser, and perhaps another site.
    #[must_use]
    pub fn is_cross_domain(&self) -> bool {
        self.header("origin").is_some()
    }
}

/// What an [`allow_request`](crate::Builder::allow_request) hook sees: a request that wants to open a session.
#[derive(Debug)]
pub struct OpeningRequest {
    /// Path and query.
    pub uri: Uri,
    /// HTTP version.
    pub version: Version,
    /// All headers.
    pub headers: HeaderMap,
    /// The peer's address, if known.
    pub address: Option<SocketAddr>,
}

impl OpeningRequest {
    /// The first value of a header, if it is text.
    #[must_use]
    pub fn header(&self, name: HeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handshake_keeps_target_and_headers_in_one_text() {
        let uri: Uri = "/socket.io/?EIO=4&room=a%20b&room=c".parse().unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("user-agent", "test: with colon".parse().unwrap());
        headers.append("cookie", "a=1".parse().unwrap());
        let handshake = Handshake::new(&uri, &headers, None, false);
        assert_eq!(handshake.url(), "/socket.io/?EIO=4&room=a%20b&room=c");
        assert_eq!(handshake.query_value("room").as_deref(), Some("c"));
        assert_eq!(handshake.header("User-Agent"), Some("test: with colon"));
        assert_eq!(handshake.headers().count(), 2);
        assert!(!handshake.is_cross_domain());
    }
}
