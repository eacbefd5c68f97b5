//! Which requests are let in, and what the others are told: the error table and the order of checks. Does not know HTTP types,
//! sessions or applications: what it needs of them comes as arguments.

use std::fmt;

use crate::{Query, Revision, TransportKind};

/// A refused request (EIO4 "Handshake", the table of the reference server). The codes are part of the wire format.
///
/// None of them is worth retrying unchanged, except that after `SessionUnknown` a client starts a new session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HandshakeFault {
    /// `transport` is missing, unknown or not enabled.
    TransportUnknown,
    /// `sid` names no live session.
    SessionUnknown,
    /// A new session is asked for with another method than GET.
    BadMethod,
    /// The `Origin` header has bytes that do not belong there.
    InvalidOrigin,
    /// Another transport than the session's current one, so also every poll after an upgrade.
    TransportMismatch,
    /// Another `EIO` than the session's.
    ProtocolMismatch,
    /// `transport=websocket` without an upgrade, or an upgrade without it.
    TransportHandshake,
    /// No session id could be made.
    IdGeneration,
    /// A middleware in front of the engine failed.
    MiddlewareFailure,
    /// The application, or a limit, refused.
    Forbidden,
    /// Revision 3, and it is not allowed.
    UnsupportedProtocolVersion,
}

impl HandshakeFault {
    /// The code of the table, 0 to 5.
    pub const fn code(self) -> u8 {
        match self {
            Self::TransportUnknown => 0,
            Self::SessionUnknown => 1,
            Self::BadMethod => 2,
            Self::InvalidOrigin
            | Self::TransportMismatch
            | Self::ProtocolMismatch
            | Self::TransportHandshake
            | Self::IdGeneration
            | Self::MiddlewareFailure => 3,
            Self::Forbidden => 4,
            Self::UnsupportedProtocolVersion => 5,
        }
    }

    /// The message of the table; over a refused WebSocket upgrade it is the whole body.
    pub const fn message(self) -> &'static str {
        match self.code() {
            0 => "Transport unknown",
            1 => "Session ID unknown",
            2 => "Bad handshake method",
            3 => "Bad request",
            4 => "Forbidden",
            _ => "Unsupported protocol version",
        }
    }

    /// Which of the cases of code 3 it was, for logs and the `connection_error` event; never sent.
    pub const fn context(self) -> Option<&'static str> {
        match self {
            Self::InvalidOrigin => Some("INVALID_ORIGIN"),
            Self::TransportMismatch => Some("TRANSPORT_MISMATCH"),
            Self::ProtocolMismatch => Some("PROTOCOL_MISMATCH"),
            Self::TransportHandshake => Some("TRANSPORT_HANDSHAKE_ERROR"),
            Self::IdGeneration => Some("ID_GENERATION_ERROR"),
            Self::MiddlewareFailure => Some("MIDDLEWARE_FAILURE"),
            Self::TransportUnknown
            | Self::SessionUnknown
            | Self::BadMethod
            | Self::Forbidden
            | Self::UnsupportedProtocolVersion => None,
        }
    }

    /// The HTTP status of a refused plain request: 403 for code 4, else 400. A refused upgrade is always 400.
    pub const fn http_status(self) -> u16 {
        if self.code() == 4 { 403 } else { 400 }
    }

    /// The JSON body for a plain request.
    pub const fn body(self) -> &'static [u8] {
        match self.code() {
            0 => br#"{"code":0,"message":"Transport unknown"}"#,
            1 => br#"{"code":1,"message":"Session ID unknown"}"#,
            2 => br#"{"code":2,"message":"Bad handshake method"}"#,
            3 => br#"{"code":3,"message":"Bad request"}"#,
            4 => br#"{"code":4,"message":"Forbidden"}"#,
            _ => br#"{"code":5,"message":"Unsupported protocol version"}"#,
        }
    }
}

/// The JSON body of [`HandshakeFault::Forbidden`] with the application's own words in the place of the table's.
pub fn forbidden_body(message: &str) -> Vec<u8> {
    let mut body = br#"{"code":4,"message":""#.to_vec();
    for byte in message.bytes() {
        match byte {
            b'"' | b'\\' => body.extend_from_slice(&[b'\\', byte]),
            0..=0x1F => body.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => body.push(byte),
        }
    }
    body.extend_from_slice(b"\"}");
    body
}

/// Whether an `Origin` header holds only what belongs into a header: tabs, visible ASCII, spaces and bytes above 0x7F.
pub fn is_legal_origin(origin: &[u8]) -> bool {
    origin.iter().all(|byte| matches!(byte, b'\t' | 0x20..=0x7E | 0x80..))
}

impl fmt::Display for HandshakeFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.context() {
            None => f.write_str(self.message()),
            Some(context) => write!(f, "{} ({context})", self.message()),
        }
    }
}

impl std::error::Error for HandshakeFault {}

/// What of an HTTP method matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// Opens a session, or fetches packets.
    Get,
    /// Delivers packets.
    Post,
    /// Anything else.
    Other,
}

/// What of a request matters to [`verify`].
#[derive(Clone, Copy, Debug)]
pub struct HandshakeRequest<'a> {
    /// Its query.
    pub query: &'a Query<'a>,
    /// Its method.
    pub method: Method,
    /// It asks, validly, to become a WebSocket.
    pub is_websocket_upgrade: bool,
    /// There is no `Origin` header, or it passes [`is_legal_origin`].
    pub has_legal_origin: bool,
}

/// What the server allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Long-polling is enabled.
    pub allows_polling: bool,
    /// WebSocket is enabled.
    pub allows_websocket: bool,
    /// Revision 3 is let in (`allowEIO3`).
    pub allows_v3: bool,
}

/// The state of a live session, as far as a request for it must fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionState {
    /// The transport in use now.
    pub transport: TransportKind,
    /// The revision that it was opened with.
    pub revision: Revision,
}

/// What a request that passed [`verify`] may go on to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Open a session on this transport.
    Open(TransportKind),
    /// Poll or post to its session; the method may still be wrong (500).
    Poll,
    /// Try a WebSocket for its session. Whether one is being tried already is for the session to say.
    Upgrade,
}

/// Judges a request, in the order of the reference server.
///
/// `session_of` finds a live session; it is asked only for a `sid` that is not empty. `is_allowed` asks the application
/// (`allowRequest`) and is asked only for new sessions.
///
/// # Errors
/// The [`HandshakeFault`] to answer with. The peer's fault.
///
/// Spec: EIO4 "Handshake".
/// Deviation: an upgrade with `transport=polling` is refused here; the reference server switches protocols and closes at once.
pub fn verify(
    request: &HandshakeRequest<'_>,
    policy: &Policy,
    session_of: impl FnOnce(&str) -> Option<SessionState>,
    is_allowed: impl FnOnce() -> bool,
) -> Result<Admission, HandshakeFault> {
    let HandshakeRequest { query, method, is_websocket_upgrade, has_legal_origin } = *request;
    let transport = query
        .transport
        .filter(|transport| match transport {
            TransportKind::Polling => policy.allows_polling,
            TransportKind::WebSocket => policy.allows_websocket,
        })
        .ok_or(HandshakeFault::TransportUnknown)?;
    if !has_legal_origin {
        return Err(HandshakeFault::InvalidOrigin);
    }
    if let Some(sid) = &query.sid {
        let session = session_of(sid).ok_or(HandshakeFault::SessionUnknown)?;
        let admission = match (is_websocket_upgrade, transport, session.transport) {
            // Whatever the session is on: it refuses a needless upgrade itself.
            (true, TransportKind::WebSocket, _) => Admission::Upgrade,
            (false, TransportKind::Polling, TransportKind::Polling) => Admission::Poll,
            // A plain request for a WebSocket session never fits, by whatever name.
            (true, TransportKind::Polling, _)
            | (false, TransportKind::WebSocket, _)
            | (false, TransportKind::Polling, TransportKind::WebSocket) => {
                return Err(HandshakeFault::TransportMismatch);
            }
        };
        if query.revision != session.revision {
            return Err(HandshakeFault::ProtocolMismatch);
        }
        return Ok(admission);
    }
    if method != Method::Get {
        return Err(HandshakeFault::BadMethod);
    }
    if is_websocket_upgrade != (transport == TransportKind::WebSocket) {
        return Err(HandshakeFault::TransportHandshake);
    }
    if !is_allowed() {
        return Err(HandshakeFault::Forbidden);
    }
    if query.revision == Revision::V3 && !policy.allows_v3 {
        return Err(HandshakeFault::UnsupportedProtocolVersion);
    }
    Ok(Admission::Open(transport))
}
