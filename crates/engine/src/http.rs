//! Owns the engine's HTTP: which requests are its own, what they mean, and how replies look.
//! Does not know sessions, which live in shards. Invariant: a request is judged before anything is allocated for it.
//!
//! EIO4 "HTTP long-polling", "Handshake".

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use eio_proto::{
    Admission, HandshakeFault, HandshakeRequest, HandshakeTraits, Method, Policy, Query, SessionState, Sid,
    TransportKind,
};
use engine_core::{Opening, Reply, RequestId};
use http::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ORIGIN, RETRY_AFTER,
    SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, SET_COOKIE,
    UPGRADE, USER_AGENT,
};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use tokio::sync::oneshot;

use crate::coding::accepted_coding;
use crate::cors::Cors;
use crate::forward::{END_POLL, pass_on, pass_on_upgrade};
use crate::handshake::{Handshake, OpeningRequest};
use crate::listener::Counted;
use crate::mail::{LinkMail, Mail, Port, RequestMail, Wire};
use crate::reply::ReplyBody;
use crate::server::Inner;
use crate::stream::Stream;

type AllowRequest =
    dyn Fn(Arc<OpeningRequest>) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>> + Send + Sync;

type EditHeaders = dyn Fn(&mut HeaderMap, bool) + Send + Sync;

/// Settings of the HTTP side. See [`Builder`](crate::Builder) for their meaning.
pub(crate) struct HttpSettings {
    pub(crate) paths: Vec<String>,
    pub(crate) allow_revision_3: bool,
    pub(crate) compression_threshold: Option<usize>,
    pub(crate) cors: Option<Cors>,
    pub(crate) cookie: Option<Cookie>,
    pub(crate) header_timeout: Duration,
    pub(crate) body_timeout: Duration,
    pub(crate) header_bytes_max: usize,
    pub(crate) connections_max: usize,
    pub(crate) allow_request: Option<Arc<AllowRequest>>,
    pub(crate) edit_headers: Option<Arc<EditHeaders>>,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            paths: vec!["/socket.io/".to_owned()],
            allow_revision_3: false,
            compression_threshold: Some(1024),
            cors: None,
            cookie: None,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            header_bytes_max: 16 * 1024,
            connections_max: usize::MAX,
            allow_request: None,
            edit_headers: None,
        }
    }
}

/// The cookie that carries the session id for load balancers. The server never reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cookie {
    /// Its name. Default `io`.
    pub name: String,
    /// Its path; `None` leaves the attribute out. Default `/`.
    pub path: Option<String>,
    /// Hidden from scripts. Default true.
    pub http_only: bool,
    /// The `SameSite` attribute; `None` leaves it out. Default `Lax`.
    pub same_site: Option<String>,
    /// Only over TLS. Default false.
    pub secure: bool,
}

impl Default for Cookie {
    fn default() -> Self {
        Self {
            name: "io".to_owned(),
            path: Some("/".to_owned()),
            http_only: true,
            same_site: Some("Lax".to_owned()),
            secure: false,
        }
    }
}

impl Cookie {
    fn header(&self, sid: Sid) -> Option<HeaderValue> {
        let mut text = format!("{}={sid}", self.name);
        if let Some(path) = &self.path {
            text.push_str("; Path=");
            text.push_str(path);
        }
        if self.http_only {
            text.push_str("; HttpOnly");
        }
        if self.secure {
            text.push_str("; Secure");
        }
        if let Some(same_site) = &self.same_site {
            text.push_str("; SameSite=");
            text.push_str(same_site);
        }
        HeaderValue::from_str(&text).ok()
    }
}

/// The address of a request's peer. A server that mounts the engine may put it into the request's extensions, so
/// that handshakes show it.
#[derive(Clone, Copy, Debug)]
pub struct PeerAddress(pub SocketAddr);

/// Where a request came in, as far as the engine cares.
#[derive(Clone)]
pub(crate) struct Origin {
    pub(crate) address: Option<SocketAddr>,
    pub(crate) secure: bool,
    /// The shard whose thread accepted the connection; sessions are opened there.
    pub(crate) home: Option<Arc<Port>>,
    /// By the listener for other nodes.
    pub(crate) is_internal: bool,
}

/// The engine as a service for somebody else's router.
///
/// ```no_run
/// # fn f(server: engine::Server) {
/// let app: axum::Router = axum::Router::new().route_service("/socket.io/", server.service());
/// # }
/// ```
#[derive(Clone)]
pub struct EngineService {
    server: Arc<Inner>,
}

impl EngineService {
    pub(crate) fn new(server: Arc<Inner>) -> Self {
        Self { server }
    }
}

impl<B> tower_service::Service<Request<B>> for EngineService
where
    B: Body + Send + 'static,
    B::Data: Send,
{
    type Response = Response<ReplyBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let server = self.server.clone();
        let address = request.extensions().get::<PeerAddress>().map(|address| address.0);
        let origin = Origin { address, secure: false, home: None, is_internal: false };
        Box::pin(async move { Ok(respond(&server, request, origin).await) })
    }
}

/// Whether a path is the engine's.
pub(crate) fn is_ours(server: &Inner, path: &str) -> bool {
    server.http.paths.iter().any(|prefix| path.starts_with(prefix.as_str()))
}

/// Answers one request of the engine's.
pub(crate) async fn respond<B>(
    server: &Arc<Inner>,
    request: Request<B>,
    origin: Origin,
) -> Response<ReplyBody>
where
    B: Body + Send + 'static,
{
    if origin.is_internal {
        // Whoever passed it on adds what the peer is to see beside the answer.
        return answer(server, request, origin).await;
    }
    let settings = &server.http;
    let mut headers = HeaderMap::new();
    if let Some(cors) = &settings.cors {
        if request.method() == http::Method::OPTIONS {
            cors.apply_preflight(request.headers(), &mut headers);
            let mut response = Response::new(ReplyBody::default());
            *response.status_mut() = StatusCode::NO_CONTENT;
            response.headers_mut().extend(headers);
            return response;
        }
        cors.apply(request.headers(), &mut headers);
    }
    let user_agent_is_old = request
        .headers()
        .get(USER_AGENT)
        .and_then(|agent| agent.to_str().ok())
        .is_some_and(|agent| agent.contains(";MSIE") || agent.contains("Trident/"));
    let is_opening = request.uri().query().is_none_or(|query| Query::parse(query).sid.is_none());
    let mut response = answer(server, request, origin).await;
    response.headers_mut().extend(headers);
    if user_agent_is_old {
        // The reference server's courtesy to a filter that mangled payloads.
        response.headers_mut().insert("x-xss-protection", HeaderValue::from_static("0"));
    }
    if let Some(edit) = &settings.edit_headers {
        edit(response.headers_mut(), is_opening);
    }
    response
}

async fn answer<B>(server: &Arc<Inner>, request: Request<B>, origin: Origin) -> Response<ReplyBody>
where
    B: Body + Send + 'static,
{
    let is_upgrade = is_websocket_upgrade(request.headers());
    let refuse = |fault: HandshakeFault| refusal(fault, None, is_upgrade);
    let raw_query = request.uri().query().unwrap_or_default().to_owned();
    let query = Query::parse(&raw_query);
    let method = match *request.method() {
        http::Method::GET => Method::Get,
        http::Method::POST => Method::Post,
        _ => Method::Other,
    };
    let transports = server.config.transports;
    let policy = Policy {
        allows_polling: transports.polling,
        allows_websocket: transports.websocket,
        allows_v3: server.http.allow_revision_3,
    };
    let asked = HandshakeRequest {
        query: &query,
        method,
        is_websocket_upgrade: is_upgrade,
        has_legal_origin: request
            .headers()
            .get(ORIGIN)
            .is_none_or(|origin| eio_proto::is_legal_origin(origin.as_bytes())),
    };
    // What the session says itself is asked of its shard below; here it only must be one that could exist.
    let sid = query.sid.as_deref().and_then(Sid::parse);
    let elsewhere = sid.and_then(|sid| server.elsewhere(sid, request.headers(), &origin));
    let could_exist = |_: &str| {
        sid.filter(|sid| elsewhere.is_some() || server.port_of(*sid).is_some())
            .map(|_| SessionState { transport: TransportKind::Polling, revision: query.revision })
    };
    let admission = match eio_proto::verify(&asked, &policy, could_exist, || true) {
        Ok(admission) => admission,
        Err(fault) => return refuse(fault),
    };
    if query.jsonp.is_some() && query.transport == Some(TransportKind::Polling) {
        // JSONP left the protocol with revision 4.
        return refuse(HandshakeFault::TransportHandshake);
    }
    if let Some(to) = elsewhere {
        if admission == Admission::Upgrade && server.is_draining.load(Ordering::Relaxed) {
            // It would be cut in a moment. The session goes on as it is, or the proxy asks another node.
            return draining(is_upgrade);
        }
        let answered = match (admission, method) {
            (Admission::Poll, Method::Get | Method::Post) => pass_on(server, request, to, &origin).await,
            (Admission::Upgrade, _) => {
                let counted = count_link(server, &origin);
                pass_on_upgrade(server, request, to, &origin, counted).await
            }
            (Admission::Poll, Method::Other) => Some(status(StatusCode::INTERNAL_SERVER_ERROR)),
            // With a session id nobody asks for another session.
            (Admission::Open(_), _) => None,
        };
        // As if the session had ended: the peer opens another one.
        return answered.unwrap_or_else(|| refuse(HandshakeFault::SessionUnknown));
    }
    match (admission, sid.and_then(|sid| Some((sid, server.port_of(sid)?)))) {
        (Admission::Open(_), _) if origin.is_internal => refuse(HandshakeFault::Forbidden),
        (Admission::Open(transport), _) => {
            if server.is_draining.load(Ordering::Relaxed) {
                return draining(is_upgrade);
            }
            if let Some(allow) = &server.http.allow_request {
                let opening = Arc::new(OpeningRequest {
                    uri: request.uri().clone(),
                    version: request.version(),
                    headers: request.headers().clone(),
                    address: origin.address,
                });
                if let Err(message) = allow(opening).await {
                    return refusal(HandshakeFault::Forbidden, Some(&message), is_upgrade);
                }
            }
            let handshake = Handshake::new(request.uri(), request.headers(), origin.address, origin.secure);
            let traits = HandshakeTraits {
                query: &query,
                user_agent: request.headers().get(USER_AGENT).and_then(|agent| agent.to_str().ok()),
                offers_extensions: request.headers().contains_key(SEC_WEBSOCKET_EXTENSIONS),
            };
            let opening = Opening {
                revision: query.revision,
                base64: query.b64
                    && (transport == TransportKind::WebSocket || query.revision == eio_proto::Revision::V3),
                is_javascript: eio_proto::looks_like_javascript(&traits),
                deflate: false,
            };
            let counted = count_link(server, &origin);
            let port = origin.home.unwrap_or_else(|| server.next_port().clone());
            match transport {
                TransportKind::Polling => {
                    open_polling(server, request.headers(), &port, opening, handshake).await
                }
                TransportKind::WebSocket => {
                    switch(server, request, port, counted, Switching::Open(opening, handshake))
                }
            }
        }
        (Admission::Poll, Some((sid, port))) => match method {
            Method::Get => poll(server, request.headers(), port, sid, &query).await,
            Method::Post => post(server, request, port, sid, query.revision).await,
            Method::Other if origin.is_internal && *request.method() == END_POLL => {
                // A shard that has stopped has answered it.
                let _ = port.send_waiting(Mail::Request(Box::new(RequestMail::EndPoll { sid }))).await;
                status(StatusCode::NO_CONTENT)
            }
            Method::Other => status(StatusCode::INTERNAL_SERVER_ERROR),
        },
        (Admission::Upgrade, Some((sid, port))) => {
            let (reply, checked) = oneshot::channel();
            let letter = RequestMail::CheckUpgrade { sid, revision: query.revision, reply };
            if port.send_waiting(Mail::Request(Box::new(letter))).await.is_err() {
                return status(StatusCode::SERVICE_UNAVAILABLE);
            }
            match checked.await {
                Ok(Ok(())) => {
                    let counted = count_link(server, &origin);
                    switch(server, request, port.clone(), counted, Switching::Upgrade(sid, query.revision))
                }
                Ok(Err(fault)) => refuse(fault),
                Err(_) => status(StatusCode::SERVICE_UNAVAILABLE),
            }
        }
        (Admission::Poll | Admission::Upgrade, None) => refuse(HandshakeFault::SessionUnknown),
    }
}

async fn open_polling(
    server: &Arc<Inner>,
    request: &HeaderMap,
    port: &Arc<Port>,
    opening: Opening,
    handshake: Handshake,
) -> Response<ReplyBody> {
    let (reply, answer) = oneshot::channel();
    let id = server.numbers.request();
    let letter = RequestMail::OpenPolling { request: id, opening, handshake, reply };
    if port.send_waiting(Mail::Request(Box::new(letter))).await.is_err() {
        return status(StatusCode::SERVICE_UNAVAILABLE);
    }
    reply_to_response(server, request, answer.await)
}

async fn poll(
    server: &Arc<Inner>,
    request: &HeaderMap,
    port: &Arc<Port>,
    sid: Sid,
    query: &Query<'_>,
) -> Response<ReplyBody> {
    let (reply, answer) = oneshot::channel();
    let id = server.numbers.request();
    let mut watch = LostRequest::new(port.clone(), id);
    let letter = RequestMail::Get { request: id, sid, revision: query.revision, reply };
    if port.send_waiting(Mail::Request(Box::new(letter))).await.is_err() {
        watch.is_answered = true;
        return status(StatusCode::SERVICE_UNAVAILABLE);
    }
    let answer = answer.await;
    watch.is_answered = true;
    reply_to_response(server, request, answer)
}

async fn post<B>(
    server: &Arc<Inner>,
    request: Request<B>,
    port: &Arc<Port>,
    sid: Sid,
    revision: eio_proto::Revision,
) -> Response<ReplyBody>
where
    B: Body + Send + 'static,
{
    let (reply, mut answer) = oneshot::channel();
    let id = server.numbers.request();
    let mut watch = LostRequest::new(port.clone(), id);
    let letter = RequestMail::PostBegin { request: id, sid, revision, reply };
    if port.send_waiting(Mail::Request(Box::new(letter))).await.is_err() {
        watch.is_answered = true;
        return status(StatusCode::SERVICE_UNAVAILABLE);
    }
    let (parts, body) = request.into_parts();
    let is_octets = parts
        .headers
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/octet-stream"));
    let bytes_max = server.config.payload_bytes_max;
    // A body that says itself that it is too large need not be waited for.
    let announced =
        parts.headers.get(CONTENT_LENGTH).and_then(|len| len.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|len| len > bytes_max) {
        watch.is_answered = true;
        let letter = RequestMail::PostBody { request: id, body: None, is_octets };
        let _ = port.send_waiting(Mail::Request(Box::new(letter))).await;
        return status(StatusCode::PAYLOAD_TOO_LARGE);
    }
    let reading = tokio::time::timeout(server.http.body_timeout, read_body(body, bytes_max));
    tokio::select! {
        biased;
        // Another POST of the session, or its end, answers this one before its body is there.
        answer = &mut answer => {
            watch.is_answered = true;
            return reply_to_response(server, &parts.headers, answer);
        }
        body = reading => match body {
            Ok(Ok(body)) => {
                let is_too_large = body.is_none();
                let letter = RequestMail::PostBody { request: id, body, is_octets };
                if port.send_waiting(Mail::Request(Box::new(letter))).await.is_err() {
                    return status(StatusCode::SERVICE_UNAVAILABLE);
                }
                if is_too_large {
                    watch.is_answered = true;
                    return status(StatusCode::PAYLOAD_TOO_LARGE);
                }
            }
            // Cut, or too slow: the watch tells the shard, which ends the session.
            Ok(Err(())) => return status(StatusCode::BAD_REQUEST),
            Err(_) => return status(StatusCode::REQUEST_TIMEOUT),
        },
    }
    let answer = answer.await;
    watch.is_answered = true;
    reply_to_response(server, &parts.headers, answer)
}

/// Gathers a body; `None` if it is larger than allowed.
async fn read_body<B: Body>(body: B, bytes_max: usize) -> Result<Option<Bytes>, ()> {
    let mut body = std::pin::pin!(body);
    let mut whole: Vec<u8> = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return Err(()) };
        let Ok(data) = frame.into_data() else { continue };
        let mut data = data;
        while bytes::Buf::has_remaining(&data) {
            let chunk = bytes::Buf::chunk(&data);
            if whole.len() + chunk.len() > bytes_max {
                return Ok(None);
            }
            whole.extend_from_slice(chunk);
            let len = chunk.len();
            bytes::Buf::advance(&mut data, len);
        }
    }
    Ok(Some(whole.into()))
}

/// Tells the shard if a request's connection goes before its answer: the future that holds this is dropped then.
struct LostRequest {
    port: Arc<Port>,
    request: RequestId,
    is_answered: bool,
}

impl LostRequest {
    fn new(port: Arc<Port>, request: RequestId) -> Self {
        Self { port, request, is_answered: false }
    }
}

impl Drop for LostRequest {
    fn drop(&mut self) {
        if !self.is_answered {
            // If the mailbox is full the heartbeat will find out later.
            let _ = self.port.send(Mail::Request(Box::new(RequestMail::Lost { request: self.request })));
        }
    }
}

fn reply_to_response(
    server: &Inner,
    request: &HeaderMap,
    reply: Result<Reply, oneshot::error::RecvError>,
) -> Response<ReplyBody> {
    match reply {
        Ok(Reply::Payload { body, is_octets, compress, opens }) => {
            let kind = if is_octets { "application/octet-stream" } else { "text/plain; charset=UTF-8" };
            let mut response = Response::new(ReplyBody::default());
            let headers = response.headers_mut();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            if let (Some((_, sid)), Some(cookie)) = (opens, &server.http.cookie)
                && let Some(cookie) = cookie.header(sid)
            {
                headers.insert(SET_COOKIE, cookie);
            }
            let large_enough = server.http.compression_threshold.is_some_and(|least| body.len() >= least);
            let body = match (compress && large_enough).then(|| accepted_coding(request)).flatten() {
                Some(coding) => {
                    headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
                    coding.encode(&body)
                }
                None => body,
            };
            *response.body_mut() = body.into();
            response
        }
        Ok(Reply::Ok) => {
            let mut response = Response::new(ReplyBody::from(Bytes::from_static(b"ok")));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html"));
            response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            response
        }
        Ok(Reply::Refused(fault)) => refusal(fault, None, false),
        Ok(Reply::BadRequest) => status(StatusCode::BAD_REQUEST),
        // The shard has stopped, or was told to cut the connection.
        Err(_) => {
            let mut response = status(StatusCode::SERVICE_UNAVAILABLE);
            response.extensions_mut().insert(Cut);
            response
        }
    }
}

/// Marks a response that our own listeners do not send: they drop the connection instead.
#[derive(Clone, Copy)]
pub(crate) struct Cut;

fn status(code: StatusCode) -> Response<ReplyBody> {
    let mut response = Response::new(ReplyBody::default());
    *response.status_mut() = code;
    response
}

/// What a new session or tunnel gets from a server that drains. Peers try again by themselves, and proxies at another server.
fn draining(is_upgrade: bool) -> Response<ReplyBody> {
    let mut response = refusal(HandshakeFault::Forbidden, Some("the server is shutting down"), is_upgrade);
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    // In seconds. Another server is there at once; this one, if it is the only one, is back in a moment.
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

/// A refusal as EIO4 "Handshake" has it: JSON to a plain request, bare text to an upgrade.
fn refusal(fault: HandshakeFault, message: Option<&str>, is_upgrade: bool) -> Response<ReplyBody> {
    tracing::debug!(code = fault.code(), context = fault.context(), "a request was refused");
    let mut response = Response::new(ReplyBody::default());
    if is_upgrade {
        *response.status_mut() = StatusCode::BAD_REQUEST;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html"));
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        *response.body_mut() = message.unwrap_or(fault.message()).to_owned().into();
    } else {
        *response.status_mut() = StatusCode::from_u16(fault.http_status()).unwrap_or(StatusCode::BAD_REQUEST);
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let body = match message {
            Some(message) => eio_proto::forbidden_body(message).into(),
            None => Bytes::from_static(fault.body()),
        };
        *response.body_mut() = body.into();
    }
    response
}

/// Whether the headers ask, validly, for a WebSocket. RFC 6455 §4.2.1.
fn is_websocket_upgrade(headers: &HeaderMap) -> bool {
    let has = |name: &http::HeaderName, token: &str| {
        headers
            .get_all(name)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .any(|value| value.split(',').any(|part| part.trim().eq_ignore_ascii_case(token)))
    };
    has(&UPGRADE, "websocket")
        && has(&CONNECTION, "upgrade")
        && headers.get(SEC_WEBSOCKET_VERSION).is_some_and(|version| version == "13")
        && headers.get(SEC_WEBSOCKET_KEY).is_some_and(|key| {
            // Sixteen bytes in base64: 22 digits and their padding.
            matches!(key.as_bytes(), [digits @ .., b'=', b'='] if digits.len() == 22
                && digits.iter().all(|digit| digit.is_ascii_alphanumeric() || matches!(digit, b'+' | b'/')))
        })
}

/// Counts the link that a connection is about to become, if our own listeners accepted it.
fn count_link(server: &Arc<Inner>, origin: &Origin) -> Option<Counted> {
    origin.home.as_ref().map(|_| Counted::new(server.clone()))
}

/// Why a connection is switched to WebSocket.
enum Switching {
    Open(Opening, Handshake),
    Upgrade(Sid, eio_proto::Revision),
}

/// Answers 101, and hands the connection to its shard once hyper has let go of it.
fn switch<B>(
    server: &Arc<Inner>,
    mut request: Request<B>,
    port: Arc<Port>,
    counted: Option<Counted>,
    switching: Switching,
) -> Response<ReplyBody> {
    let Some(key) = request.headers().get(SEC_WEBSOCKET_KEY).and_then(|key| key.to_str().ok()) else {
        return refusal(HandshakeFault::TransportHandshake, None, true);
    };
    let mut response = Response::new(ReplyBody::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    if let Ok(accept) = HeaderValue::from_bytes(&ws_proto::accept_key(key)) {
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    let mut deflate = false;
    if server.config.deflate_threshold.is_some() {
        let offers: Vec<&str> = request
            .headers()
            .get_all(SEC_WEBSOCKET_EXTENSIONS)
            .iter()
            .filter_map(|offer| offer.to_str().ok())
            .collect();
        if let Some(agreement) = ws_proto::deflate::negotiate(&offers.join(", "))
            && let Ok(answer) = HeaderValue::from_str(&agreement.response_header())
        {
            headers.insert(SEC_WEBSOCKET_EXTENSIONS, answer);
            deflate = true;
        }
    }
    let upgrading = hyper::upgrade::on(&mut request);
    let hand_over = async move {
        let Ok(upgraded) = upgrading.await else { return };
        let Ok((stream, early)) = take_stream(upgraded) else { return };
        let wire = Wire { stream, early, counted };
        let letter = match switching {
            Switching::Open(opening, handshake) => {
                LinkMail::Open { wire, opening: Opening { deflate, ..opening }, handshake }
            }
            Switching::Upgrade(sid, revision) => LinkMail::Upgrade { wire, sid, revision, deflate },
        };
        let _ = port.send_waiting(Mail::Link(Box::new(letter))).await;
    };
    tokio::spawn(hand_over);
    response
}

/// The stream under an upgraded connection, and what was read from it too early.
fn take_stream(upgraded: hyper::upgrade::Upgraded) -> std::io::Result<(Stream, Bytes)> {
    let upgraded = match upgraded.downcast::<TokioIo<tokio::net::TcpStream>>() {
        Ok(parts) => {
            let tcp = parts.io.into_inner().into_std()?;
            return Ok((Stream::Tcp(mio::net::TcpStream::from_std(tcp)), parts.read_buf));
        }
        Err(upgraded) => upgraded,
    };
    #[cfg(feature = "tls")]
    let upgraded =
        match upgraded.downcast::<TokioIo<tokio_rustls::server::TlsStream<tokio::net::TcpStream>>>() {
            Ok(parts) => {
                let (tcp, session) = parts.io.into_inner().into_inner();
                let tcp = mio::net::TcpStream::from_std(tcp.into_std()?);
                return Ok((Stream::Tls(Box::new(crate::stream::Tls { tcp, session })), parts.read_buf));
            }
            Err(upgraded) => upgraded,
        };
    // Somebody else's kind of connection: it stays where it is, and a pair of sockets connects it to the shard.
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    theirs.set_nonblocking(true)?;
    let mut theirs = tokio::net::UnixStream::from_std(theirs)?;
    tokio::spawn(async move {
        let mut upgraded = TokioIo::new(upgraded);
        // Either side's end ends both.
        let _ = tokio::io::copy_bidirectional(&mut upgraded, &mut theirs).await;
    });
    Ok((Stream::Pair(mio::net::UnixStream::from_std(ours)), Bytes::new()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_has_the_attributes_it_was_given() {
        let sid = Sid::parse("AAAAAAAAAAAAAAAAAAAA").unwrap();
        assert_eq!(
            Cookie::default().header(sid).unwrap(),
            "io=AAAAAAAAAAAAAAAAAAAA; Path=/; HttpOnly; SameSite=Lax"
        );
        let bare = Cookie { path: None, http_only: false, same_site: None, ..Cookie::default() };
        assert_eq!(bare.header(sid).unwrap(), "io=AAAAAAAAAAAAAAAAAAAA");
    }
}
