//! Where the load goes: the address, the request that opens a connection, and the texts that carry a scenario's words.
//!
//! Owns the rule that only loopback is ever loaded. Opens nothing itself.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::{Context, bail, ensure};

use crate::wire;

/// Connections from one source address before the next is used: well below the 28,000 ephemeral ports of a Linux default.
const CONNS_PER_SOURCE: usize = 12_000;
/// Source addresses that may be spread over: 127.0.0.2 to 127.0.0.201.
const SOURCES_MAX: usize = 200;

/// A server on this machine, and how one asks it for a connection.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    /// Other servers of the same cluster.
    also: Vec<SocketAddr>,
    host: String,
    path: String,
    query: String,
    pub(crate) namespace: String,
    auth: Option<String>,
    sources: usize,
}

/// What the flags say about a target, unchecked.
pub(crate) struct RawTarget<'a> {
    pub(crate) url: &'a str,
    pub(crate) also: &'a [String],
    pub(crate) path: &'a str,
    pub(crate) query: &'a [String],
    pub(crate) namespace: &'a str,
    pub(crate) auth: Option<&'a str>,
    /// 0 spreads by itself.
    pub(crate) src_ips: usize,
    pub(crate) conns: usize,
}

impl Target {
    /// Checks the flags.
    ///
    /// # Errors
    /// The caller's: not `http://` or `ws://` on loopback with a port, auth that is no JSON object, too many sources.
    pub(crate) fn parse(raw: &RawTarget<'_>) -> anyhow::Result<Self> {
        let (host, address) = parse_url(raw.url)?;
        let also = raw.also.iter().map(|url| Ok(parse_url(url)?.1)).collect::<anyhow::Result<_>>()?;
        if let Some(auth) = raw.auth {
            let value: serde_json::Value = serde_json::from_str(auth).context("--auth is not JSON")?;
            ensure!(value.is_object(), "--auth must be a JSON object");
        }
        ensure!(raw.path.starts_with('/'), "--path must start with /");
        ensure!(raw.namespace.starts_with('/'), "--ns must start with /");
        let sources = match raw.src_ips {
            0 => raw.conns.div_ceil(CONNS_PER_SOURCE),
            n => n,
        };
        ensure!(sources <= SOURCES_MAX, "{sources} source addresses exceed {SOURCES_MAX}");
        ensure!(sources <= 1 || address.is_ipv4(), "several source addresses need an IPv4 target");
        Ok(Self {
            address,
            also,
            host: host.to_owned(),
            path: raw.path.to_owned(),
            query: raw.query.iter().map(|q| format!("&{q}")).collect(),
            namespace: raw.namespace.to_owned(),
            auth: raw.auth.map(str::to_owned),
            sources,
        })
    }

    /// The server of connection number `link`.
    pub(crate) fn address_of(&self, link: usize) -> SocketAddr {
        match link % (1 + self.also.len()) {
            0 => self.address,
            nth => self.also[nth - 1],
        }
    }

    /// The address that connection number `link` binds to, or `None` for the kernel's choice.
    pub(crate) fn source(&self, link: usize) -> Option<IpAddr> {
        let last = 2 + (link % self.sources.max(1)) as u8;
        (self.sources > 1).then(|| Ipv4Addr::new(127, 0, 0, last).into())
    }

    /// The request that opens a WebSocket connection (EIO4 "Handshake", RFC 6455 §4.1).
    pub(crate) fn upgrade_request(&self, key: &str) -> String {
        let Self { path, query, host, .. } = self;
        format!(
            "GET {path}?EIO=4&transport=websocket{query} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
        )
    }

    /// A long-polling request without its body (EIO4 "HTTP long-polling"); `body_len` makes it a POST.
    pub(crate) fn polling_request(&self, sid: Option<&str>, body_len: Option<usize>) -> String {
        let Self { path, query, host, .. } = self;
        let method = if body_len.is_some() { "POST" } else { "GET" };
        let mut request = format!("{method} {path}?EIO=4&transport=polling{query}");
        if let Some(sid) = sid {
            request += "&sid=";
            request += sid;
        }
        request += " HTTP/1.1\r\nHost: ";
        request += host;
        if let Some(len) = body_len {
            request += &format!("\r\nContent-Type: text/plain;charset=UTF-8\r\nContent-Length: {len}");
        }
        request + "\r\n\r\n"
    }

    /// A POST of a body to a path of the HTTP interface.
    pub(crate) fn post_request(&self, path: &str, key: Option<&str>, body: &str) -> String {
        let host = &self.host;
        let key = key.map(|key| format!("Authorization: Bearer {key}\r\n")).unwrap_or_default();
        let len = body.len();
        format!("POST {path} HTTP/1.1\r\nHost: {host}\r\n{key}Content-Length: {len}\r\n\r\n{body}")
    }

    /// `kind`, the namespace unless it is the main one, and `id`: how every Socket.IO packet starts.
    pub(crate) fn packet_head(&self, kind: char, id: Option<u32>) -> String {
        let mut head = format!("4{kind}");
        if self.namespace != "/" {
            head += &self.namespace;
            head.push(',');
        }
        if let Some(id) = id {
            head += &id.to_string();
        }
        head
    }

    /// The CONNECT packet of connection number `link` (SIO5 "Connection to a namespace").
    pub(crate) fn connect_packet(&self, link: usize) -> String {
        let auth = self.auth.as_deref().unwrap_or_default();
        self.packet_head('0', None) + &auth.replace("%CONN%", &link.to_string())
    }

    /// An EVENT packet: `["name",argument]`.
    pub(crate) fn event_packet(&self, id: Option<u32>, name: &str, argument: &str) -> String {
        format!("{}[{},{argument}]", self.packet_head('2', id), serde_json::Value::from(name))
    }
}

/// Host with port, and address, of a server on this machine.
fn parse_url(url: &str) -> anyhow::Result<(&str, SocketAddr)> {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("ws://"));
    let host = rest.context("the url must start with http:// or ws://")?.trim_end_matches('/');
    ensure!(!host.contains('/'), "the url has a path; use --path for it");
    let (name, port) = host.rsplit_once(':').context("the url needs a port")?;
    let port: u16 = port.parse().with_context(|| format!("port {port} is not a number below 65536"))?;
    let ip: IpAddr = match name {
        "localhost" => Ipv4Addr::LOCALHOST.into(),
        other => other
            .trim_matches(['[', ']'])
            .parse()
            .with_context(|| format!("{other} is neither localhost nor an IP address"))?,
    };
    if !ip.is_loopback() {
        bail!("{ip} is not a loopback address; this tool loads only the machine it runs on");
    }
    Ok((host, SocketAddr::new(ip, port)))
}

/// The start of every payload that is checked on arrival; eight hexadecimal digits follow it.
pub(crate) const STAMP: &str = "@fan";
/// The bytes of a payload that the stamp takes, so the least `--size`.
pub(crate) const STAMP_BYTES: usize = STAMP.len() + 8;

/// A text with a hole for eight hexadecimal digits: prebuilt, so that making a message costs one copy.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    head: Vec<u8>,
    tail: Vec<u8>,
}

impl Template {
    /// Cuts `text` behind its stamp. A text without one has its hole at the end.
    pub(crate) fn cut(text: &str) -> Self {
        let (head, tail) = match text.find(STAMP) {
            Some(at) => (&text[..at + STAMP.len()], &text[at + STAMP_BYTES..]),
            None => (text, ""),
        };
        Self { head: head.into(), tail: tail.into() }
    }

    /// Appends the text as a client's frame with `number` in the hole.
    pub(crate) fn encode(&self, number: u32, key: [u8; 4], out: &mut Vec<u8>) {
        self.encode_behind(&[b"", b""], number, key, out);
    }

    /// Like `encode`, with two more parts before the text.
    pub(crate) fn encode_behind(&self, [a, b]: &[&[u8]; 2], number: u32, key: [u8; 4], out: &mut Vec<u8>) {
        wire::encode_client_text(&[a, b, &self.head, &wire::encode_hex8(number), &self.tail], key, out);
    }

    /// The whole text with `number` in the hole.
    pub(crate) fn text(&self, number: u32) -> Vec<u8> {
        [&self.head[..], &wire::encode_hex8(number), &self.tail].concat()
    }

    /// The number in `text`, if the rest of it is exactly this template.
    #[inline]
    pub(crate) fn number(&self, text: &[u8]) -> Option<u32> {
        let rest = text.strip_prefix(&self.head[..])?;
        let (digits, tail) = rest.split_first_chunk::<8>()?;
        if tail == &self.tail[..] { wire::decode_hex8(digits) } else { None }
    }
}

/// The number behind the first stamp anywhere in `text`: for servers that put more than the payload into an event.
pub(crate) fn stamped_number(text: &[u8]) -> Option<u32> {
    let at = wire::find(text, STAMP.as_bytes())? + STAMP.len();
    wire::decode_hex8(text.get(at..at + 8)?.first_chunk()?)
}

/// A payload of `size` bytes: a stamp with zeros, then filler. In quotes it is a JSON string that needs no escaping.
pub(crate) fn payload(size: usize) -> String {
    let mut text = format!("{STAMP}00000000");
    text.extend(std::iter::repeat_n('.', size.saturating_sub(STAMP_BYTES)));
    text
}

/// The payload as a JSON string.
pub(crate) fn payload_json(size: usize) -> String {
    format!("\"{}\"", payload(size))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(url: &str) -> RawTarget<'_> {
        RawTarget {
            url,
            also: &[],
            path: "/socket.io/",
            query: &[],
            namespace: "/",
            auth: None,
            src_ips: 0,
            conns: 1,
        }
    }

    #[test]
    fn only_loopback_is_accepted() {
        for good in ["http://localhost:80", "ws://127.0.0.9:1/", "http://[::1]:8080"] {
            assert!(Target::parse(&raw(good)).is_ok(), "{good}");
        }
        for bad in [
            "http://192.0.2.1:80",
            "http://example.org:80",
            "http://0.0.0.0:80",
            "localhost:80",
            "http://localhost",
        ] {
            assert!(Target::parse(&raw(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn sources_are_spread_above_twelve_thousand_connections() {
        let few = Target::parse(&raw("http://127.0.0.1:80")).unwrap();
        assert_eq!(few.source(5), None);
        let many = Target::parse(&RawTarget { conns: 18_000, ..raw("http://127.0.0.1:80") }).unwrap();
        assert_eq!(many.source(0), Some(Ipv4Addr::new(127, 0, 0, 2).into()));
        assert_eq!(many.source(1), Some(Ipv4Addr::new(127, 0, 0, 3).into()));
        assert_eq!(many.source(2), many.source(0));
    }

    #[test]
    fn connections_go_to_all_servers_in_turn() {
        let also = ["http://127.0.0.1:2".to_owned(), "http://127.0.0.1:3".to_owned()];
        let target = Target::parse(&RawTarget { also: &also, ..raw("http://127.0.0.1:1") }).unwrap();
        assert_eq!([0, 1, 2, 3].map(|link| target.address_of(link).port()), [1, 2, 3, 1]);
        let abroad = ["http://192.0.2.1:80".to_owned()];
        assert!(Target::parse(&RawTarget { also: &abroad, ..raw("http://127.0.0.1:1") }).is_err());
    }

    #[test]
    fn packets_carry_namespace_and_auth() {
        let raw = RawTarget {
            namespace: "/chat",
            auth: Some(r#"{"user":"u%CONN%"}"#),
            ..raw("http://127.0.0.1:80")
        };
        let target = Target::parse(&raw).unwrap();
        assert_eq!(target.connect_packet(7), r#"40/chat,{"user":"u7"}"#);
        assert_eq!(target.event_packet(Some(3), "join", "{}"), r#"42/chat,3["join",{}]"#);
        let bad = RawTarget { auth: Some("[1]"), ..raw };
        assert!(Target::parse(&bad).is_err());
    }

    #[test]
    fn template_finds_its_own_numbers_and_nothing_else() {
        let text = format!("42[\"msg\",\"{}\"]", payload(20));
        assert_eq!(text.len(), 9 + 20 + 3);
        let template = Template::cut(&text);
        let made = template.text(0xbeef);
        assert_eq!(template.number(&made), Some(0xbeef));
        assert_eq!(stamped_number(&made), Some(0xbeef));
        for at in 0..made.len() {
            let mut other = made.clone();
            other[at] = b'!';
            assert_eq!(template.number(&other), None, "changed at {at}");
            assert_eq!(template.number(&made[..at]), None, "cut at {at}");
        }
    }
}
