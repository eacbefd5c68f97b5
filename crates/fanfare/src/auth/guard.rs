//! Owns what a request needs: nothing, a key with a scope, or an admin's token. One table for all routes.
//! Does not know what routes do. Invariant: a path that is not in the table needs the scope `admin`.

use std::sync::Arc;

use auth::fault::AuthFault;
use axum::extract::Request;
use axum::http::Method;
use engine::PeerAddress;
use hub::principal::{Principal, PrincipalKind, Scope};

use super::presented::Presented;
use super::{Authenticator, audit};
use crate::codes::Fault;

/// What a request needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    /// Nothing: probes, the page's files, and routes with a signature of their own.
    Nothing,
    /// A key with this scope, or an admin's token.
    Scope(Scope),
}

/// Paths that POST publishes to, and what is below them.
const PUBLISHING: [&str; 12] = [
    "/api/v1/events",
    "/api/v1/jobs",
    "/api/v1/runs",
    "/api/v1/logs",
    "/api/v1/notifications",
    "/api/v1/announcements",
    "/socket/notifications",
    "/socket/rooms/message",
    "/api/v1/rooms/message",
    "/start",
    "/approve",
    "/api/v1/schedules",
];

/// Paths that anybody may read.
const PUBLIC: [&str; 6] = ["/health", "/livez", "/readyz", "/socket/health", "/", "/ui"];

/// Checks a request, and notes in its extensions whose it is, as `Arc<Principal>`.
///
/// # Errors
/// 401 for whoever is not known, 403 for whoever is and may not, 503 if somebody who must be asked did not answer.
pub(crate) async fn check(auth: &Authenticator, request: &mut Request) -> Result<(), Fault> {
    if auth.is_open() {
        let anybody = Principal { scopes: Scope::ALL.to_vec(), ..Principal::anonymous() };
        request.extensions_mut().insert(Arc::new(anybody));
        return Ok(());
    }
    let Need::Scope(scope) = need(request.method(), request.uri().path(), auth.metrics_public) else {
        return Ok(());
    };
    let address = request.extensions().get::<PeerAddress>().map(|peer| peer.0.ip().to_string());
    let presented = Presented::by_request(request.headers(), address.clone());
    let judged = match presented.token {
        // Not for the connect hook: it knows sockets.
        None => Err(AuthFault::TokenMissing),
        Some(_) => auth.judge(&presented).await,
    };
    let (method, path) = (request.method().as_str(), request.uri().path());
    let outcome = judged.and_then(|principal| {
        if principal.has_scope(scope) { Ok(principal) } else { Err(AuthFault::ScopeMissing) }
    });
    match outcome {
        Ok(principal) => {
            if scope == Scope::Admin {
                audit::operated(&principal, method, path, address.as_deref());
            }
            debug_assert!(principal.kind != PrincipalKind::Anonymous, "nobody has scopes");
            request.extensions_mut().insert(Arc::new(principal));
            Ok(())
        }
        Err(fault) => {
            audit::request_refused(method, path, address.as_deref(), fault.code());
            Err(fault.into())
        }
    }
}

fn need(method: &Method, path: &str, metrics_public: bool) -> Need {
    let is_read = matches!(*method, Method::GET | Method::HEAD);
    let is_below =
        |root: &str| path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    // The page and the client library say nothing that the project's repository does not.
    let is_file = is_below("/ui") || crate::rest::CLIENT_PATHS.contains(&path);
    let is_public = PUBLIC.contains(&path) || is_file || (path == "/metrics" && metrics_public);
    // Webhooks are signed, and their routes check that.
    if (is_read && is_public) || is_below("/webhooks") {
        Need::Nothing
    } else if is_below("/debug") {
        Need::Scope(Scope::Admin)
    } else if is_read {
        Need::Scope(Scope::Read)
    } else if (*method == Method::POST && PUBLISHING.into_iter().any(is_below))
        || (*method == Method::DELETE && is_below("/api/v1/schedules"))
    {
        // Whoever may publish may also take back what has not been published yet.
        Need::Scope(Scope::Publish)
    } else {
        Need::Scope(Scope::Admin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_route_needs_what_it_does() {
        use Need::Nothing;
        let (read, publish, admin) =
            (Need::Scope(Scope::Read), Need::Scope(Scope::Publish), Need::Scope(Scope::Admin));
        for (method, path, needed) in [
            (Method::GET, "/health", Nothing),
            (Method::HEAD, "/livez", Nothing),
            (Method::POST, "/health", admin),
            (Method::GET, "/", Nothing),
            (Method::GET, "/ui/page.js", Nothing),
            (Method::GET, "/socket.io/socket.io.min.js", Nothing),
            (Method::GET, "/uix", read),
            (Method::GET, "/api/v1/rooms/a.js", read),
            (Method::POST, "/webhooks/github", Nothing),
            (Method::GET, "/metrics", read),
            (Method::GET, "/stats", read),
            (Method::GET, "/api/v1/jobs/1", read),
            (Method::GET, "/debug/socketio", admin),
            (Method::POST, "/api/v1/events", publish),
            (Method::POST, "/api/v1/events/batch", publish),
            (Method::POST, "/api/v1/eventsx", admin),
            (Method::POST, "/approve", publish),
            (Method::POST, "/socket/rooms/message", publish),
            (Method::POST, "/socket/rooms/join", admin),
            (Method::POST, "/api/v1/revocations", admin),
            (Method::DELETE, "/api/v1/events", admin),
            (Method::DELETE, "/api/v1/schedules/1", publish),
            (Method::PUT, "/api/v1/templates/a", admin),
            (Method::DELETE, "/api/v1/templates/a", admin),
            (Method::PUT, "/anything", admin),
        ] {
            assert_eq!(need(&method, path, false), needed, "{method} {path}");
        }
        assert_eq!(need(&Method::GET, "/metrics", true), Nothing);
    }
}
