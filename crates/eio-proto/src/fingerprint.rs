//! Guesses the library behind a handshake. Only a guess, for defaults that suit one library and hurt another; never for access.

use crate::{Query, Revision, TransportKind};

/// What a handshake shows of the program behind it.
#[derive(Clone, Copy, Debug)]
pub struct HandshakeTraits<'a> {
    /// The query of the request that opens the session.
    pub query: &'a Query<'a>,
    /// The `User-Agent` header.
    pub user_agent: Option<&'a str>,
    /// A `Sec-WebSocket-Extensions` header is there, whatever it says.
    pub offers_extensions: bool,
}

/// Whether the peer looks like a JavaScript Socket.IO client, which understands connection state recovery: it keeps the offset
/// that is appended to events and sends it back, while in other libraries handlers with fixed parameters fail on it.
///
/// The signs: JavaScript puts custom keys first, then `EIO`,
/// `transport` and `t` side by side; `t` is eight base-36 digits or, in older versions, a text of seven in base 64; it needs
/// no `User-Agent`, but where it cannot set one it is the browser's; its WebSockets offer compression. Versions 3.0
/// to 4.2 say `b64=1` in Node and know no recovery. Elsewhere old versions look like later ones, which does no harm, because
/// a JavaScript listener ignores an argument too many. The tests hold what real clients sent.
pub fn looks_like_javascript(traits: &HandshakeTraits<'_>) -> bool {
    let HandshakeTraits { query, user_agent, offers_extensions } = *traits;
    let is_browser = user_agent.is_some_and(|agent| agent.starts_with("Mozilla/"));
    if query.revision != Revision::V4 || query.b64 || !has_javascript_order(query) {
        return false;
    }
    if !is_browser && user_agent.is_some_and(|agent| FOREIGN_AGENTS.iter().any(|other| agent.contains(other)))
    {
        return false;
    }
    let has_its_t = query.t.is_some_and(|t| is_base36_stamp(t) || is_yeast(t));
    match query.transport {
        None => false,
        Some(TransportKind::Polling) => has_its_t,
        // Without a `t` unless the application asks for it. Native clients copy this query, so it takes a second sign.
        Some(TransportKind::WebSocket) => {
            let is_native =
                user_agent.is_some_and(|agent| NATIVE_AGENTS.iter().any(|other| agent.contains(other)));
            (query.t.is_none() || has_its_t) && (is_browser || offers_extensions) && !is_native
        }
    }
}

/// Programs that are not JavaScript, by a piece of their `User-Agent`.
const FOREIGN_AGENTS: [&str; 10] = [
    "python-requests",
    "Python/",
    "aiohttp",
    "python-httpx",
    "Dart/",
    "Go-http-client",
    "Java/",
    "WebSocket++",
    "tungstenite",
    ".NET",
];

/// HTTP stacks of phones. React Native polls through them with JavaScript's query; on a bare WebSocket it cannot be told from the
/// Java and Swift clients, and counts as one of those.
const NATIVE_AGENTS: [&str; 2] = ["okhttp", "CFNetwork"];

/// Custom keys, then `EIO`, `transport` and perhaps `t`, and nothing after them.
fn has_javascript_order(query: &Query<'_>) -> bool {
    let positions = &query.positions;
    let (Some(eio), Some(transport)) = (positions.eio, positions.transport) else { return false };
    let last = match positions.t {
        None => transport,
        Some(t) if t == transport + 1 => t,
        Some(_) => return false,
    };
    transport == eio + 1 && last + 1 == positions.len
}

/// `t` since 4.8: five base-36 digits of the time and up to three of chance. Never all decimal, which is a clock's.
fn is_base36_stamp(t: &str) -> bool {
    (6..=8).contains(&t.len())
        && t.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'z'))
        && !t.bytes().all(|byte| byte.is_ascii_digit())
}

/// `t` before 4.8: the milliseconds in base 64, seven digits until the year 2109, and `.n` for the n-th in one millisecond.
fn is_yeast(t: &str) -> bool {
    let (stamp, seed) = t.split_once('.').map_or((t, None), |(stamp, seed)| (stamp, Some(seed)));
    stamp.len() == 7
        && stamp.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        && !stamp.bytes().all(|byte| byte.is_ascii_digit())
        && seed.is_none_or(|seed| !seed.is_empty() && seed.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}
