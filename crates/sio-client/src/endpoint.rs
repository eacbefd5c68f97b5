//! Where the server is: the addresses of all requests of a connection, checked once.

use crate::{ConnectFault, Options};
use eio_proto::TransportKind;
use hyper::Uri;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use std::fmt::Write;

/// A server's address and what goes along with every request to it.
#[derive(Debug)]
pub(crate) struct Endpoint {
    /// `http://authority/path/?` and the application's part of the query, with a trailing `&` if there is any.
    base: String,
    pub(crate) headers: HeaderMap,
}

impl Endpoint {
    pub(crate) fn parse(url: &str, options: &Options) -> Result<Self, ConnectFault> {
        let refuse = |message: String| Err(ConnectFault::Options(message));
        let uri: Uri = match url.parse() {
            Ok(uri) => uri,
            Err(error) => return refuse(format!("{url:?} is no address: {error}")),
        };
        match uri.scheme_str() {
            Some("http" | "ws") => {}
            Some(other) => return refuse(format!("scheme {other:?}; this client speaks http and ws")),
            None => return refuse(format!("{url:?} has no scheme")),
        }
        let Some(authority) = uri.authority() else { return refuse(format!("{url:?} has no host")) };
        if !matches!(uri.path(), "" | "/") {
            return refuse(format!("path {:?} in the address; it goes into Options::path", uri.path()));
        }
        let mut base = format!("http://{authority}/{}", options.path.trim_matches('/'));
        if !base.ends_with('/') {
            base.push('/');
        }
        base.push('?');
        if let Some(query) = uri.query().filter(|query| !query.is_empty()) {
            base.push_str(query);
            base.push('&');
        }
        for (name, value) in &options.query {
            percent_encode(&mut base, name);
            base.push('=');
            percent_encode(&mut base, value);
            base.push('&');
        }
        if let Err(error) = base.parse::<Uri>() {
            return refuse(format!("{base:?} is no address: {error}"));
        }
        let mut headers = HeaderMap::new();
        for (name, value) in &options.headers {
            let (Ok(header), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) else {
                return refuse(format!("header {name:?} cannot be sent"));
            };
            headers.append(header, value);
        }
        Ok(Endpoint { base, headers })
    }

    /// The address of a request; `sid` is none for the first.
    pub(crate) fn uri(
        &self,
        transport: TransportKind,
        sid: Option<&str>,
    ) -> Result<Uri, hyper::http::uri::InvalidUri> {
        let mut uri = format!("{}EIO=4&transport={}", self.base, transport.name());
        if let Some(sid) = sid {
            uri.push_str("&sid=");
            // The server chose it, so it may be anything.
            percent_encode(&mut uri, sid);
        }
        uri.parse()
    }
}

/// Everything but RFC 3986's unreserved characters is escaped.
fn percent_encode(out: &mut String, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => write!(out, "%{byte:02X}").expect("invariant: a String takes everything"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_carry_the_applications_query_first() {
        let options = Options { query: vec![("to ken".into(), "a&b/é".into())], ..Options::default() };
        let endpoint = Endpoint::parse("ws://localhost:3000?x=1", &options).expect("an address");
        let uri = endpoint.uri(TransportKind::Polling, None).expect("an address");
        assert_eq!(
            uri.to_string(),
            "http://localhost:3000/socket.io/?x=1&to%20ken=a%26b%2F%C3%A9&EIO=4&transport=polling"
        );
        let uri = endpoint.uri(TransportKind::WebSocket, Some("a b")).expect("an address");
        assert!(uri.to_string().ends_with("&EIO=4&transport=websocket&sid=a%20b"), "{uri}");
        let options = Options { path: "engine".into(), ..Options::default() };
        let endpoint = Endpoint::parse("http://[::1]/", &options).expect("an address");
        let uri = endpoint.uri(TransportKind::Polling, None).expect("an address");
        assert_eq!(uri.to_string(), "http://[::1]/engine/?EIO=4&transport=polling");
        let options = Options { path: "/".into(), ..Options::default() };
        assert_eq!(Endpoint::parse("http://h", &options).expect("an address").base, "http://h/?");
    }

    #[test]
    fn what_cannot_be_requested_is_refused_at_once() {
        let check = |url: &str, options: Options, part: &str| match Endpoint::parse(url, &options) {
            Err(ConnectFault::Options(message)) => assert!(message.contains(part), "{message}"),
            other => panic!("{other:?}"),
        };
        check("https://h", Options::default(), "scheme \"https\"");
        check("h:80", Options::default(), "no scheme");
        check("/x", Options::default(), "no scheme");
        check("http://h/chat", Options::default(), "path \"/chat\"");
        check("", Options::default(), "no address");
        check(
            "http://h",
            Options { headers: vec![("a b".into(), "c".into())], ..Options::default() },
            "header",
        );
        check(
            "http://h",
            Options { headers: vec![("a".into(), "\n".into())], ..Options::default() },
            "header",
        );
        check("http://h", Options { path: "a b".into(), ..Options::default() }, "no address");
    }
}
