//! Owns the engine's own listeners: one socket per shard on the same port, accepted on the shard's thread.
//! Does not know what requests mean. Invariant: a connection that never finishes its first request is closed.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::CONNECTION;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{Domain, Protocol, Socket as RawSocket, Type};
use tokio::net::{TcpListener, TcpStream};

use crate::http::{Cut, Origin, PeerAddress, is_ours, respond};
use crate::mail::Mail;
use crate::server::{Inner, Phase};
use crate::shard::ShardState;

type AnyBody = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;
type Application =
    dyn Fn(Request<Incoming>) -> Pin<Box<dyn Future<Output = Response<AnyBody>> + Send>> + Send + Sync;

/// Connections that may wait to be accepted: a storm of reconnects must not be met with refusals.
const BACKLOG: i32 = 8192;
/// Time that a TLS handshake may take.
#[cfg(feature = "tls")]
const TLS_TIMEOUT: Duration = Duration::from_secs(10);

/// How a listener serves.
#[derive(Clone, Default)]
pub struct Serving {
    application: Option<Arc<Application>>,
    without_engine: bool,
    /// For other nodes only.
    is_internal: bool,
    except_paths: Arc<[Box<str>]>,
    #[cfg(feature = "tls")]
    tls: Option<Arc<dyn Fn() -> Arc<rustls::ServerConfig> + Send + Sync>>,
}

impl Serving {
    pub(crate) fn internal() -> Self {
        Self { is_internal: true, ..Self::default() }
    }

    /// Serves all paths that are not the engine's by an application, such as an axum router. It runs on the control
    /// plane: whatever it does, heartbeats are not delayed. The peer's address is in the request's extensions as
    /// [`PeerAddress`].
    #[must_use]
    pub fn application<S, B>(mut self, service: S) -> Self
    where
        S: tower_service::Service<Request<Incoming>, Response = Response<B>, Error = Infallible>
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.application = Some(Arc::new(move |request| {
            let mut service = service.clone();
            Box::pin(async move {
                let Ok(()) = std::future::poll_fn(|context| service.poll_ready(context)).await;
                let Ok(response) = service.call(request).await;
                response.map(|body| body.map_err(Into::into).boxed_unsync())
            })
        }));
        self
    }

    /// Leaves the engine's own paths to the application, too.
    #[must_use]
    pub fn without_engine(mut self) -> Self {
        self.without_engine = true;
        self
    }

    /// Leaves exactly these paths to the application, although they are below one of the engine's: the files of a
    /// client library, say.
    #[must_use]
    pub fn except_paths<S: Into<Box<str>>>(mut self, paths: impl IntoIterator<Item = S>) -> Self {
        self.except_paths = paths.into_iter().map(Into::into).collect();
        self
    }

    /// Serves over TLS. `config` is asked for each connection, so that certificates can be replaced while running.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, config: impl Fn() -> Arc<rustls::ServerConfig> + Send + Sync + 'static) -> Self {
        self.tls = Some(Arc::new(config));
        self
    }
}

pub(crate) async fn listen(
    server: Arc<Inner>,
    address: SocketAddr,
    serving: Serving,
) -> io::Result<SocketAddr> {
    // The shards share the port on purpose, and so another process that does the same could silently get half of our
    // connections. A socket that does not share tells whether somebody is there.
    if address.port() != 0 {
        drop(bind(address, false)?);
    }
    let mut bound = address;
    for port in server.ports() {
        let listener = bind(bound, true)?;
        // Port 0 asks for any; the other shards then share the one that was given.
        bound = listener.local_addr()?;
        let (server, serving) = (server.clone(), serving.clone());
        let call = Mail::Call(Box::new(move |shard: &mut ShardState| {
            let home = shard.port();
            tokio::task::spawn_local(accept(server, listener, serving, home));
        }));
        port.send_waiting(call).await.map_err(io::Error::other)?;
    }
    Ok(bound)
}

/// Binds, and listens if the port is to be shared.
fn bind(address: SocketAddr, is_shared: bool) -> io::Result<std::net::TcpListener> {
    let socket = RawSocket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(is_shared)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    if is_shared {
        socket.listen(BACKLOG)?;
    }
    Ok(socket.into())
}

async fn accept(
    server: Arc<Inner>,
    listener: std::net::TcpListener,
    serving: Serving,
    home: Arc<crate::mail::Port>,
) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "a listener cannot be watched");
            return;
        }
    };
    let mut phase = server.phase.subscribe();
    loop {
        let is_full = server.connections.load(Ordering::Relaxed) >= server.http.connections_max;
        // Those of other nodes have been accepted once already.
        if is_full && !serving.is_internal {
            tokio::time::sleep(Duration::from_millis(10)).await;
            if *phase.borrow() == Phase::Stopped {
                return;
            }
            continue;
        }
        let accepted = tokio::select! {
            biased;
            _ = phase.wait_for(|phase| *phase == Phase::Stopped) => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, address)) => {
                // Replies are whole when they are written: waiting for more only delays them.
                let _ = stream.set_nodelay(true);
                let origin = Origin {
                    address: Some(address),
                    secure: false,
                    home: Some(home.clone()),
                    is_internal: serving.is_internal,
                };
                tokio::task::spawn_local(serve(server.clone(), stream, serving.clone(), origin));
            }
            Err(error) => {
                // Out of descriptors, most likely: those that wait are served when others have gone.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn serve(server: Arc<Inner>, stream: TcpStream, serving: Serving, origin: Origin) {
    let _counted = Counted::new(server.clone());
    #[cfg(feature = "tls")]
    if let Some(config) = &serving.tls {
        let acceptor = tokio_rustls::TlsAcceptor::from(config());
        let Ok(Ok(stream)) = tokio::time::timeout(TLS_TIMEOUT, acceptor.accept(stream)).await else { return };
        return serve_http(server, stream, serving, Origin { secure: true, ..origin }).await;
    }
    serve_http(server, stream, serving, origin).await;
}

async fn serve_http<S>(server: Arc<Inner>, stream: S, serving: Serving, origin: Origin)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let mut phase = server.phase.subscribe();
    let service = {
        let (server, serving) = (server.clone(), serving.clone());
        service_fn(move |request: Request<Incoming>| {
            let (server, serving, origin) = (server.clone(), serving.clone(), origin.clone());
            async move {
                let _answering = Answering::new(&server);
                let is_internal = origin.is_internal;
                let mut response = route(server.clone(), serving, origin, request).await;
                if response.extensions().get::<Cut>().is_some() {
                    return Err(io::Error::other("the connection is to be cut"));
                }
                // The next request is to come to a server that stays. Other nodes have no other way to our sessions.
                if !is_internal
                    && server.is_draining.load(Ordering::Relaxed)
                    && response.status() != StatusCode::SWITCHING_PROTOCOLS
                {
                    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                Ok(response)
            }
        })
    };
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(server.http.header_timeout)
        .max_buf_size(server.http.header_bytes_max)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        // A peer that breaks HTTP has been answered by hyper, and is nobody else's concern.
        _ = connection.as_mut() => {}
        _ = phase.wait_for(|phase| *phase == Phase::Stopped) => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}

async fn route(
    server: Arc<Inner>,
    serving: Serving,
    origin: Origin,
    mut request: Request<Incoming>,
) -> Response<AnyBody> {
    let path = request.uri().path();
    let is_excepted = || serving.except_paths.iter().any(|excepted| **excepted == *path);
    if !serving.without_engine && is_ours(&server, path) && !is_excepted() {
        let response = respond(&server, request, origin).await;
        return response.map(|body| body.map_err(Into::into).boxed_unsync());
    }
    let Some(application) = serving.application else {
        let mut response = Response::new(Full::default().map_err(|never| match never {}).boxed_unsync());
        *response.status_mut() = StatusCode::NOT_FOUND;
        if request.headers().contains_key(http::header::UPGRADE) {
            // Whoever wanted to speak another protocol has nothing more to say in this one.
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        return response;
    };
    if let Some(address) = origin.address {
        request.extensions_mut().insert(PeerAddress(address));
    }
    // On the other plane, and dropped with the connection.
    let running = AbortOnDrop::new(server.control.spawn(application(request)));
    running.finish().await.unwrap_or_else(|| {
        let mut response = Response::new(Full::default().map_err(|never| match never {}).boxed_unsync());
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        response
    })
}

/// A task of the control plane that must not outlive the request it serves.
pub(crate) struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> AbortOnDrop<T> {
    pub(crate) fn new(task: tokio::task::JoinHandle<T>) -> Self {
        Self(task)
    }

    /// The task's result; `None` if it panicked.
    pub(crate) async fn finish(mut self) -> Option<T> {
        (&mut self.0).await.ok()
    }
}

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Counts a connection of our own listeners while it is open: one is held while HTTP has it, another by the link that
/// it becomes.
pub(crate) struct Counted(Arc<Inner>);

impl Counted {
    pub(crate) fn new(server: Arc<Inner>) -> Self {
        server.connections.fetch_add(1, Ordering::Relaxed);
        Self(server)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts a request while it is being answered.
struct Answering(Arc<AtomicUsize>);

impl Answering {
    fn new(server: &Inner) -> Self {
        server.requests.fetch_add(1, Ordering::Relaxed);
        Self(server.requests.clone())
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
