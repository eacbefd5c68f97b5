//! Owns the description of a server before it runs: settings, hooks and namespaces.
//! Does not start anything until `build`.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use engine_core::{Config, Recovery, Transports};
use http::HeaderMap;
use sio_proto::Parser;

use crate::cors::Cors;
use crate::forward::Nodes;
use crate::handshake::OpeningRequest;
use crate::http::{Cookie, HttpSettings};
use crate::namespace::Namespace;
use crate::restore::Restorer;
use crate::server::Server;

/// Says whether a namespace name is one of a family.
pub(crate) type DynamicNamespace = Box<dyn Fn(&str) -> bool + Send + Sync>;

/// Sees a message and whether it is binary, and may answer with one of the same kind.
pub(crate) type OnMessage = Box<dyn Fn(&[u8], bool) -> Option<Vec<u8>> + Send + Sync>;

/// Long enough for a store that is busy after a restart, and well below the 45 s at which a session without a namespace
/// is closed.
const RESTORE_TIMEOUT: Duration = Duration::from_secs(10);

/// Describes a server. Every setting has a default that suits most; see each for its meaning and bounds.
///
/// ```no_run
/// # async fn f() -> std::io::Result<()> {
/// let server = engine::Server::builder()
///     .namespace("/", |ns| {
///         ns.on("echo", |_socket, text: String| async move { text });
///     })
///     .build()?;
/// server.listen(([127, 0, 0, 1], 3000).into()).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Default)]
pub struct Builder {
    pub(crate) config: Config,
    pub(crate) http: HttpSettings,
    pub(crate) shards: Option<usize>,
    pub(crate) node: u16,
    pub(crate) nodes: Option<Box<Nodes>>,
    pub(crate) recovery_skips_middlewares: bool,
    pub(crate) namespaces: HashMap<Box<str>, Namespace>,
    pub(crate) dynamic: Vec<(DynamicNamespace, Namespace)>,
    pub(crate) on_message: Option<OnMessage>,
    pub(crate) restorer: Option<Box<dyn Restorer>>,
}

impl Builder {
    /// Registers a namespace. A missing leading `/` is added. Called again for the same name, it adds to it.
    #[must_use]
    pub fn namespace(mut self, name: &str, register: impl FnOnce(&mut Namespace)) -> Self {
        let name: Box<str> = if name.starts_with('/') { name.into() } else { format!("/{name}").into() };
        register(self.namespaces.entry(name).or_default());
        self
    }

    /// Registers a family of namespaces: those whose name `matches`, asked in order of registration after the fixed
    /// ones. SIO5 "Connection to a namespace".
    #[must_use]
    pub fn dynamic_namespace(
        mut self,
        matches: impl Fn(&str) -> bool + Send + Sync + 'static,
        register: impl FnOnce(&mut Namespace),
    ) -> Self {
        let mut namespace = Namespace::default();
        register(&mut namespace);
        self.dynamic.push((Box::new(matches), namespace));
        self
    }

    /// Threads that own connections. Default: one for each core, 64 at the most; at most 256.
    #[must_use]
    pub fn shards(mut self, shards: usize) -> Self {
        self.shards = Some(shards.clamp(1, 256));
        self
    }

    /// The number of this process among several that are one server: its ids carry it, so that every other can tell whose
    /// they are. Each must have one of its own. Default 0.
    #[must_use]
    pub fn node(mut self, node: u16) -> Self {
        self.node = node;
        self
    }

    /// Where other nodes take requests for their sessions ([`Server::listen_internal`]), by their number: load balancers then
    /// need not send a session's requests to where it was opened. `None`: there is no such node, and the peer is told that it
    /// has no session, as it is when the node does not answer. It is asked for each such request, so it must not block.
    /// Default: requests of other nodes' sessions are refused.
    #[must_use]
    pub fn forward(mut self, nodes: impl Fn(u16) -> Option<SocketAddr> + Send + Sync + 'static) -> Self {
        self.nodes = Some(Box::new(nodes));
        self
    }

    /// Request paths that are the engine's, each as a prefix. Default `/socket.io/`.
    #[must_use]
    pub fn paths<S: Into<String>>(mut self, paths: impl IntoIterator<Item = S>) -> Self {
        self.http.paths = paths.into_iter().map(Into::into).collect();
        self
    }

    /// Time between a pong and the next ping. Default 25 s. EIO4 "Heartbeat".
    #[must_use]
    pub fn ping_interval(mut self, interval: Duration) -> Self {
        self.config.ping_interval = interval;
        self
    }

    /// Time a ping may go unanswered. Default 20 s. EIO4 "Heartbeat".
    #[must_use]
    pub fn ping_timeout(mut self, timeout: Duration) -> Self {
        self.config.ping_timeout = timeout;
        self
    }

    /// Time an upgrade may take. Default 10 s.
    #[must_use]
    pub fn upgrade_timeout(mut self, timeout: Duration) -> Self {
        self.config.upgrade_timeout = timeout;
        self
    }

    /// Time a session has to join its first namespace. Default 45 s.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.config.connect_timeout = timeout;
        self
    }

    /// Largest message or POST body accepted, in bytes. Default 1,000,000.
    #[must_use]
    pub fn payload_bytes_max(mut self, bytes: usize) -> Self {
        self.config.payload_bytes_max = bytes;
        self
    }

    /// Bytes that may wait for a peer that does not read. Default 1 MiB; then it is disconnected.
    #[must_use]
    pub fn outbox_bytes_max(mut self, bytes: usize) -> Self {
        self.config.outbox_bytes_max = bytes;
        self
    }

    /// Which transports sessions may open with. Default both.
    #[must_use]
    pub fn transports(mut self, transports: Transports) -> Self {
        self.config.transports = transports;
        self
    }

    /// Whether polling sessions are offered a WebSocket. Default true.
    #[must_use]
    pub fn allow_upgrades(mut self, allow: bool) -> Self {
        self.config.allow_upgrades = allow;
        self
    }

    /// Lets clients of revision 3 in (`socket.io-client` 2.x). Default false.
    #[must_use]
    pub fn allow_revision_3(mut self, allow: bool) -> Self {
        self.http.allow_revision_3 = allow;
        self
    }

    /// The packet parser; clients must use the same. Default [`Parser::Json`].
    #[must_use]
    pub fn parser(mut self, parser: Parser) -> Self {
        self.config.parser = parser;
        self
    }

    /// Turns connection state recovery on. Default off.
    ///
    /// Sockets of JavaScript clients (judged by their handshake), and those that ask for it by `auth.recovery: true`,
    /// then get a trailing offset with each event; `auth.recovery: false` declines it.
    #[must_use]
    pub fn recovery(mut self, recovery: Recovery) -> Self {
        self.config.recovery = Some(recovery);
        self
    }

    /// Asks the application for sockets that no shard knows any more, because the process was restarted or they were away
    /// for too long. Needs [`Builder::recovery`]. Default: they connect as new.
    #[must_use]
    pub fn restorer(mut self, restorer: impl Restorer) -> Self {
        self.restorer = Some(Box::new(restorer));
        self.config.restore_timeout.get_or_insert(RESTORE_TIMEOUT);
        self
    }

    /// Time the application has to give a socket back. Default 10 s; then the peer connects as new. Lower: a slow store
    /// costs peers their state. Higher: peers wait longer before they hear that theirs is lost.
    #[must_use]
    pub fn restore_timeout(mut self, timeout: Duration) -> Self {
        self.config.restore_timeout = Some(timeout);
        self
    }

    /// Whether recovered sockets pass the middlewares again. Default: they do; the reference server skips them.
    #[must_use]
    pub fn recovery_skips_middlewares(mut self, skip: bool) -> Self {
        self.recovery_skips_middlewares = skip;
        self
    }

    /// Compresses WebSocket messages of at least `threshold` bytes for peers that can. Default off: it costs more
    /// CPU than most messages are worth. RFC 7692.
    #[must_use]
    pub fn websocket_deflate(mut self, threshold: usize) -> Self {
        self.config.deflate_threshold = Some(threshold);
        self
    }

    /// Compresses polling replies of at least `threshold` bytes for peers that can; `None` turns it off. Default
    /// 1,024.
    #[must_use]
    pub fn http_compression(mut self, threshold: Option<usize>) -> Self {
        self.http.compression_threshold = threshold;
        self
    }

    /// Cross-origin rules. Default none: no CORS header is sent.
    #[must_use]
    pub fn cors(mut self, cors: Cors) -> Self {
        self.http.cors = Some(cors);
        self
    }

    /// Has the first polling reply set a cookie with the session id, for load balancers that want one. Default none.
    #[must_use]
    pub fn cookie(mut self, cookie: Cookie) -> Self {
        self.http.cookie = Some(cookie);
        self
    }

    /// Time a request's headers may take to arrive. Default 10 s; then the connection is closed.
    #[must_use]
    pub fn header_timeout(mut self, timeout: Duration) -> Self {
        self.http.header_timeout = timeout;
        self
    }

    /// Time a POST body may take to arrive. Default 30 s; then its session is closed.
    #[must_use]
    pub fn body_timeout(mut self, timeout: Duration) -> Self {
        self.http.body_timeout = timeout;
        self
    }

    /// Bytes of request line and headers accepted. Default 16 KiB, at least 8 KiB; more gets 431.
    #[must_use]
    pub fn header_bytes_max(mut self, bytes: usize) -> Self {
        self.http.header_bytes_max = bytes.max(8192);
        self
    }

    /// TCP connections that the engine's own listeners hold at once. Default: no bound but the system's; beyond it
    /// new ones wait to be accepted.
    #[must_use]
    pub fn connections_max(mut self, connections: usize) -> Self {
        self.http.connections_max = connections;
        self
    }

    /// Asks the application before a session is opened. A refusal's text goes to the client with code 4.
    #[must_use]
    pub fn allow_request<F, Fut>(mut self, allow: F) -> Self
    where
        F: Fn(Arc<OpeningRequest>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), String>> + Send + 'static,
    {
        self.http.allow_request = Some(Arc::new(move |request| Box::pin(allow(request))));
        self
    }

    /// Sees, and may add to, the headers of every reply of the engine. `true` as the second argument: it is the
    /// reply that opens a session.
    #[must_use]
    pub fn headers(mut self, edit: impl Fn(&mut HeaderMap, bool) + Send + Sync + 'static) -> Self {
        self.http.edit_headers = Some(Arc::new(edit));
        self
    }

    /// Speaks Engine.IO alone: there are no namespaces, and every message goes to `on_message`, which sees its bytes
    /// and whether it is binary, and may answer with one of the same kind. Default: Socket.IO.
    #[must_use]
    pub fn raw_messages(
        mut self,
        on_message: impl Fn(&[u8], bool) -> Option<Vec<u8>> + Send + Sync + 'static,
    ) -> Self {
        self.config.raw_messages = true;
        self.on_message = Some(Box::new(on_message));
        self
    }

    /// Changes any other setting, such as the limits on rooms, namespaces and packets.
    #[must_use]
    pub fn configure(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(&mut self.config);
        self
    }

    /// Starts the shards. Call it within a tokio runtime: handlers that wait for something run there.
    ///
    /// # Errors
    /// No runtime, no entropy, or no thread to be had.
    pub fn build(mut self) -> io::Result<Server> {
        // Sockets connect to the main namespace by default, whether or not anything is registered for it.
        self.namespaces.entry("/".into()).or_default();
        Server::start(self)
    }
}
