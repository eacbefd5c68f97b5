//! Owns what happens to requests of sessions that live on another node: they are passed on there, and answers come back.
//! Does not know which nodes there are, nor sessions. Invariant: a request is passed on once at the most.
//!
//! A request of a polling session goes over a connection that is kept for the next one. An upgrade takes a connection of
//! its own, and when it is agreed on, both become a [tunnel](crate::tunnel) and HTTP is done with them. All of this runs on
//! the control plane: a shard's thread only waits for the outcome.
//!
//! RFC 9110 §7.6.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Buf, Bytes};
use eio_proto::Sid;
use engine_core::ShardId;
use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HeaderName, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body::Body;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;

use crate::http::Origin;
use crate::listener::{AbortOnDrop, Counted};
use crate::passing::Passing;
use crate::reply::ReplyBody;
use crate::server::Inner;
use crate::tunnel::Tunnel;

/// Marks a request that another node has passed on, with the number of that node. Whoever sees it answers for itself.
static FORWARDED: HeaderName = HeaderName::from_static("x-fanfare-forwarded");
static FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
static PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Time to reach another node. They are near each other: whoever takes longer is gone or overwhelmed, and peers that are told
/// at once come back elsewhere.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Time another node may take to say whether it takes an upgrade: a look into one shard.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections kept to one node that are not in use. Those beyond are closed: only bursts need them.
const IDLE_MAX: usize = 64;
/// A waiting GET is silent for as long as its session is. A node that vanished without a word is noticed by these: after 30 s.
const KEEPALIVE: Duration = Duration::from_secs(15);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_RETRIES: u32 = 3;

/// What the internal listener is asked for a session whose waiting GET is to be answered now: whoever carries it stops. One
/// that does not know it refuses it, and does nothing.
pub(crate) const END_POLL: Method = Method::DELETE;

type Fault = Box<dyn std::error::Error + Send + Sync>;
type RequestBody = UnsyncBoxBody<Bytes, Fault>;

/// Says where a node takes requests that are passed on; `None` if there is no such node.
pub(crate) type Nodes = dyn Fn(u16) -> Option<SocketAddr> + Send + Sync;

/// The ways to other nodes.
pub(crate) struct Forwarding {
    nodes: Box<Nodes>,
    client: Client<HttpConnector, RequestBody>,
    passed_on: AtomicU64,
    failed: AtomicU64,
    pub(crate) tunnels: Arc<Passing>,
    /// GETs that wait for their answer.
    pub(crate) polls: Arc<Passing>,
}

impl Forwarding {
    /// `header_timeout`: after which the other node closes a connection that says nothing.
    pub(crate) fn new(nodes: Box<Nodes>, header_timeout: Duration) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        connector.set_nodelay(true);
        connector.set_keepalive(Some(KEEPALIVE));
        connector.set_keepalive_interval(Some(KEEPALIVE_INTERVAL));
        connector.set_keepalive_retries(Some(KEEPALIVE_RETRIES));
        let client = Client::builder(TokioExecutor::new())
            // Before the other side closes it: a request must not meet that.
            .pool_idle_timeout(header_timeout / 2)
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(IDLE_MAX)
            .build(connector);
        Self {
            nodes,
            client,
            passed_on: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            tunnels: Passing::new(),
            polls: Passing::new(),
        }
    }

    /// Requests that were passed on, upgrades included.
    pub(crate) fn passed_on(&self) -> u64 {
        self.passed_on.load(Ordering::Relaxed)
    }

    /// Those of them that no node answered, and those of sessions of which nobody knows where their node is.
    pub(crate) fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }
}

impl Inner {
    /// Where a request with this session id is to be passed on to; `None` if it is for this node to answer, because it names
    /// this node, or one that nobody knows, or was passed on already.
    pub(crate) fn elsewhere(&self, sid: Sid, headers: &HeaderMap, origin: &Origin) -> Option<SocketAddr> {
        let forwarding = self.forwarding.as_ref()?;
        let node = ShardId::of(sid).node;
        if node == self.node || origin.is_internal || headers.contains_key(&FORWARDED) {
            return None;
        }
        let found = (forwarding.nodes)(node);
        if found.is_none() {
            forwarding.failed.fetch_add(1, Ordering::Relaxed);
        }
        found
    }
}

/// Passes a polling request on, and answers what the other node answers. `None`: it could not be reached, or went away.
pub(crate) async fn pass_on<B>(
    server: &Arc<Inner>,
    request: Request<B>,
    to: SocketAddr,
    origin: &Origin,
) -> Option<Response<ReplyBody>>
where
    B: Body + Send + 'static,
{
    let forwarding = server.forwarding.as_ref()?;
    let (parts, body) = request.into_parts();
    let body = body
        .map_frame(|frame| frame.map_data(|mut data| data.copy_to_bytes(data.remaining())))
        .map_err(|_| Fault::from("the request broke off"))
        .boxed_unsync();
    let mut outgoing = Request::new(body);
    *outgoing.method_mut() = parts.method;
    *outgoing.uri_mut() = uri_at(to, &parts.uri)?;
    *outgoing.headers_mut() = headers_on(server, parts.headers, origin);
    forwarding.passed_on.fetch_add(1, Ordering::Relaxed);
    let client = forwarding.client.clone();
    let poll = (*outgoing.method() == Method::GET).then(|| outgoing.uri().clone());
    // Dropped with the peer's connection, and so is the one to the other node, which sees the peer go by that.
    let sent = AbortOnDrop::new(server.control.spawn(async move { client.request(outgoing).await }));
    let answered = match poll {
        Some(uri) => finish_poll(server, forwarding, sent, &uri).await,
        None => sent.finish().await,
    };
    match answered {
        Some(Ok(response)) => {
            let (mut parts, body) = response.into_parts();
            remove_hop_by_hop(&mut parts.headers);
            Some(Response::from_parts(parts, ReplyBody::streamed(body)))
        }
        Some(Err(error)) => {
            tracing::debug!(%to, %error, "another node did not answer");
            forwarding.failed.fetch_add(1, Ordering::Relaxed);
            None
        }
        None => None,
    }
}

/// Waits for the answer to a GET. While this node stops it is asked for one that comes at once, so that it is not cut.
async fn finish_poll<T>(
    server: &Inner,
    forwarding: &Forwarding,
    sent: AbortOnDrop<T>,
    uri: &Uri,
) -> Option<T> {
    let mut answer = std::pin::pin!(sent.finish());
    loop {
        let mut passage = forwarding.polls.enter();
        tokio::select! {
            biased;
            answered = &mut answer => return answered,
            () = passage.told_to_go() => {}
        }
        let mut asking = Request::new(Empty::new().map_err(|never| match never {}).boxed_unsync());
        *asking.method_mut() = END_POLL;
        *asking.uri_mut() = uri.clone();
        asking.headers_mut().insert(FORWARDED.clone(), HeaderValue::from(server.node));
        let client = forwarding.client.clone();
        // Whether it was heard shows in the GET.
        server.control.spawn(async move { client.request(asking).await });
    }
}

/// Passes an upgrade on. If the other node agrees, its 101 is answered, and both connections become a tunnel.
pub(crate) async fn pass_on_upgrade<B>(
    server: &Arc<Inner>,
    mut request: Request<B>,
    to: SocketAddr,
    origin: &Origin,
    counted: Option<Counted>,
) -> Option<Response<ReplyBody>> {
    let forwarding = server.forwarding.as_ref()?;
    let target = request.uri().path_and_query()?.as_str().to_owned();
    let mut outgoing = Request::new(Empty::new());
    *outgoing.uri_mut() = target.parse().ok()?;
    *outgoing.headers_mut() = headers_on(server, request.headers().clone(), origin);
    say_upgrade(outgoing.headers_mut());
    forwarding.passed_on.fetch_add(1, Ordering::Relaxed);
    let asked = AbortOnDrop::new(server.control.spawn(ask_upgrade(to, outgoing)));
    let response = match asked.finish().await {
        Some(Ok(response)) => response,
        Some(Err(error)) => {
            tracing::debug!(%to, %error, "another node did not answer to an upgrade");
            forwarding.failed.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        None => return None,
    };
    let (mut parts, body) = response.into_parts();
    remove_hop_by_hop(&mut parts.headers);
    if parts.status != StatusCode::SWITCHING_PROTOCOLS {
        return Some(Response::from_parts(parts, ReplyBody::streamed(body)));
    }
    say_upgrade(&mut parts.headers);
    let mut theirs = Response::from_parts(parts, body);
    let tunnel = Tunnel {
        server: server.clone(),
        near: hyper::upgrade::on(&mut request),
        far: hyper::upgrade::on(&mut theirs),
        counted,
    };
    server.control.spawn(tunnel.run());
    Some(theirs.map(|_| ReplyBody::default()))
}

async fn ask_upgrade(to: SocketAddr, request: Request<Empty<Bytes>>) -> Result<Response<Incoming>, Fault> {
    let tcp = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(to)).await??;
    tcp.set_nodelay(true)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tcp)).await?;
    // Ends with the exchange, or with the answer's last byte if there is no tunnel.
    tokio::spawn(connection.with_upgrades());
    Ok(tokio::time::timeout(UPGRADE_TIMEOUT, sender.send_request(request)).await??)
}

fn uri_at(to: SocketAddr, uri: &Uri) -> Option<Uri> {
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Some(to.to_string().parse::<Authority>().ok()?);
    parts.path_and_query = Some(uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/")));
    Uri::from_parts(parts).ok()
}

/// The headers of a request as the other node gets them.
fn headers_on(server: &Inner, mut headers: HeaderMap, origin: &Origin) -> HeaderMap {
    remove_hop_by_hop(&mut headers);
    // Whoever reads the body has said what was expected.
    headers.remove(EXPECT);
    headers.insert(FORWARDED.clone(), HeaderValue::from(server.node));
    if let Some(address) = origin.address
        && let Ok(address) = HeaderValue::from_str(&address.ip().to_string())
    {
        headers.append(FORWARDED_FOR.clone(), address);
    }
    headers
}

/// Takes out what is between two neighbours only. RFC 9110 §7.6.1.
fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        // The length of the body is no neighbour's affair, whatever a peer says.
        .filter(|name| *name != CONTENT_LENGTH)
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in [CONNECTION, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE]
    {
        headers.remove(name);
    }
    headers.remove(&KEEP_ALIVE);
    headers.remove(&PROXY_CONNECTION);
}

fn say_upgrade(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_between_neighbours_stays_between_them() {
        let mut headers = HeaderMap::new();
        let all = [
            ("connection", "keep-alive, X-Mine"),
            ("connection", "content-length"),
            ("keep-alive", "timeout=5"),
            ("x-mine", "1"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("proxy-authorization", "Basic eA=="),
            ("content-length", "3"),
            ("cookie", "a=b"),
            ("sec-websocket-key", "k"),
        ];
        for (name, value) in all {
            headers.append(name, HeaderValue::from_static(value));
        }
        remove_hop_by_hop(&mut headers);
        let mut left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["content-length", "cookie", "sec-websocket-key"]);
    }

    #[test]
    fn an_address_of_either_family_and_the_whole_target_make_the_uri() {
        let uri = "/socket.io/?EIO=4&sid=a%20b".parse().unwrap();
        let at = |address: &str| uri_at(address.parse().unwrap(), &uri).unwrap().to_string();
        assert_eq!(at("127.0.0.1:80"), "http://127.0.0.1:80/socket.io/?EIO=4&sid=a%20b");
        assert_eq!(at("[::1]:8080"), "http://[::1]:8080/socket.io/?EIO=4&sid=a%20b");
    }
}
