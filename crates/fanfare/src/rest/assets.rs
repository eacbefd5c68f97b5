//! Owns the files that are part of the binary: the page, and the stock client library that it uses.
//! Invariant: nothing here is fetched from anywhere else, by us or by the page.

use axum::extract::{Path, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};

use super::App;
use crate::codes::{Code, Fault};

/// The version of the client library as its files' `ETag`.
const CLIENT_ETAG: &str = "\"4.8.4\"";
const CLIENT: &str = include_str!("../../assets/socket.io-client/socket.io.js");
const CLIENT_MIN: &str = include_str!("../../assets/socket.io-client/socket.io.min.js");

/// Where the client library is served: below the engine's paths, but not by the engine.
pub(crate) const CLIENT_PATHS: [&str; 4] = [
    "/socket.io/socket.io.js",
    "/socket.io/socket.io.min.js",
    "/ws/socket.io/socket.io.js",
    "/ws/socket.io/socket.io.min.js",
];

const JAVASCRIPT: &str = "application/javascript; charset=utf-8";
const PAGE: &str = include_str!("../../assets/page/index.html");
const PAGE_STYLE: &str = include_str!("../../assets/page/page.css");
const PAGE_SCRIPT: &str = include_str!("../../assets/page/page.js");
const PAGE_JOBS: &str = include_str!("../../assets/page/jobs.js");
const PAGE_ICON: &str = include_str!("../../assets/page/icon.svg");

/// What the page may do: talk to this server, and nothing else.
const PAGE_POLICY: &str = "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; \
                           form-action 'none'";

/// `GET /socket.io/socket.io.js` and `.min.js`
pub(super) async fn client_file(uri: Uri, headers: HeaderMap) -> Response {
    let known = [(ETAG, CLIENT_ETAG), (CACHE_CONTROL, "public, max-age=0")];
    let asked = headers.get(IF_NONE_MATCH).and_then(|tag| tag.to_str().ok()).unwrap_or_default();
    if asked.split(',').any(|tag| tag.trim().trim_start_matches("W/") == CLIENT_ETAG) {
        return (StatusCode::NOT_MODIFIED, known).into_response();
    }
    let file = if uri.path().ends_with(".min.js") { CLIENT_MIN } else { CLIENT };
    (known, [(CONTENT_TYPE, JAVASCRIPT)], file).into_response()
}

/// `GET /` and `/ui`
pub(super) async fn page() -> Response {
    own("text/html; charset=utf-8", PAGE)
}

/// `GET /ui/…`: what the page refers to.
pub(super) async fn page_file(State(app): State<App>, Path(file): Path<String>) -> Response {
    match file.as_str() {
        "page.css" => own("text/css; charset=utf-8", PAGE_STYLE),
        "page.js" => own(JAVASCRIPT, PAGE_SCRIPT),
        "jobs.js" => own(JAVASCRIPT, PAGE_JOBS),
        "icon.svg" => own("image/svg+xml", PAGE_ICON),
        _ => app.refuse(Fault::new(Code::NotFound, "there is nothing at this path")),
    }
}

fn own(kind: &'static str, text: &'static str) -> Response {
    // Asked for each time: the page of the next version must not meet the script of this one.
    let headers = [(CONTENT_TYPE, kind), (CACHE_CONTROL, "no-cache"), (CONTENT_SECURITY_POLICY, PAGE_POLICY)];
    (headers, text).into_response()
}
