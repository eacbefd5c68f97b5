//! Owns the audit log: one line, of target `audit`, for each connect, refusal, join and act of an operator.
//! Does not decide anything. Invariant: no token, key or secret is in it.

use engine::Socket;
use hub::principal::Principal;

/// The target of the lines.
const TARGET: &str = "audit";

/// A socket is in. Where everybody may come in this is no news, and shown at level `debug`.
pub(super) fn connected(socket: &Socket, principal: &Principal, is_open: bool) {
    if is_news_to_nobody(is_open) {
        return;
    }
    let (sid, namespace) = (socket.id().to_string(), socket.namespace());
    let (user, session, address) = (user(principal), session(principal), address(socket));
    let recovered = socket.recovered();
    if is_open {
        tracing::debug!(target: TARGET, action = "connect", user, session, namespace, sid, address, recovered);
    } else {
        tracing::info!(target: TARGET, action = "connect", user, session, namespace, sid, address, recovered);
    }
}

/// A CONNECT was refused. Nothing is known of who it was, unless they proved it.
pub(super) fn connect_refused(namespace: &str, address: Option<&str>, code: &str) {
    let address = address.unwrap_or("-");
    tracing::info!(target: TARGET, action = "connect_refused", code, namespace, address);
}

/// A socket joined a room, or may not.
pub(super) fn joined(
    socket: &Socket,
    principal: &Principal,
    room: &str,
    refused: Option<&str>,
    is_open: bool,
) {
    if refused.is_none() && is_news_to_nobody(is_open) {
        return;
    }
    let (sid, user, address) = (socket.id().to_string(), user(principal), address(socket));
    match refused {
        Some(code) => {
            tracing::info!(target: TARGET, action = "join_refused", code, user, room, sid, address);
        }
        None if is_open => tracing::debug!(target: TARGET, action = "join", user, room, sid, address),
        None => tracing::info!(target: TARGET, action = "join", user, room, sid, address),
    }
}

/// A socket's token was replaced, or the one that came was refused.
pub(super) fn refreshed(socket: &Socket, principal: &Principal, refused: Option<&str>) {
    let (sid, user, address) = (socket.id().to_string(), user(principal), address(socket));
    match refused {
        Some(code) => tracing::info!(target: TARGET, action = "refresh_refused", code, user, sid, address),
        None => tracing::info!(target: TARGET, action = "refresh", user, sid, address),
    }
}

/// A socket's token expired.
pub(super) fn expired(sid: &str, principal: &Principal) {
    tracing::info!(target: TARGET, action = "expired", user = user(principal), sid);
}

/// A request was refused for who sent it.
pub(super) fn request_refused(method: &str, path: &str, address: Option<&str>, code: &str) {
    let address = address.unwrap_or("-");
    tracing::info!(target: TARGET, action = "request_refused", code, method, path, address);
}

/// An operator did something that changes what others may do.
pub(super) fn operated(principal: &Principal, method: &str, path: &str, address: Option<&str>) {
    let (user, address) = (user(principal), address.unwrap_or("-"));
    tracing::info!(target: TARGET, action = "operate", user, method, path, address);
}

/// Something was revoked, and so many sockets ended by it.
pub(super) fn revoked(principal: &Principal, kind: &str, subject: &str, disconnected: usize) {
    tracing::info!(target: TARGET, action = "revoke", user = user(principal), kind, subject, disconnected);
}

/// Whether a line would be at level `debug`, and nobody reads that: then it is not worth putting together.
fn is_news_to_nobody(is_open: bool) -> bool {
    is_open && !tracing::enabled!(target: TARGET, tracing::Level::DEBUG)
}

fn user(principal: &Principal) -> &str {
    principal.user.as_deref().unwrap_or("-")
}

fn session(principal: &Principal) -> &str {
    principal.session.as_deref().unwrap_or("-")
}

fn address(socket: &Socket) -> String {
    socket.handshake().address().map_or_else(|| "-".to_owned(), |address| address.ip().to_string())
}
