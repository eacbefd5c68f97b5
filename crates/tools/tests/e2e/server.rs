//! Owns a real HTTP server that answers each request by a script, and tells what it sees: requests, and clients that
//! leave before they were answered. Knows nothing of tools.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::mpsc;
use tokio::time::{Sleep, sleep, timeout};

/// What a script does next.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    Send(Bytes),
    Pause(Duration),
    /// Closes the connection.
    Break,
    /// Never goes on.
    Hang,
}

/// How a request is answered.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    kind: ReplyKind,
    headers: Vec<(&'static str, String)>,
    acts: VecDeque<Act>,
}

#[derive(Clone, Copy, Debug)]
enum ReplyKind {
    Answer { status: u16, is_whole: bool },
    Hung,
    Closed,
}

impl Reply {
    /// A body of unknown length, which the acts make.
    pub(crate) fn stream(content_type: &str) -> Self {
        let kind = ReplyKind::Answer { status: 200, is_whole: false };
        Self { kind, headers: vec![("content-type", content_type.to_owned())], acts: VecDeque::new() }
    }

    /// A body of known length.
    pub(crate) fn whole(status: u16, content_type: &str, body: &str) -> Self {
        let kind = ReplyKind::Answer { status, is_whole: true };
        Self { kind, ..Self::stream(content_type) }.send(body)
    }

    /// Not even a head.
    pub(crate) fn hung() -> Self {
        Self { kind: ReplyKind::Hung, headers: Vec::new(), acts: VecDeque::new() }
    }

    /// The connection is closed at once.
    pub(crate) fn none() -> Self {
        Self { kind: ReplyKind::Closed, ..Self::hung() }
    }

    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    pub(crate) fn act(mut self, act: Act) -> Self {
        self.acts.push_back(act);
        self
    }

    pub(crate) fn send(self, text: &str) -> Self {
        self.act(Act::Send(Bytes::copy_from_slice(text.as_bytes())))
    }

    pub(crate) fn pause(self, millis: u64) -> Self {
        self.act(Act::Pause(Duration::from_millis(millis)))
    }

    /// Sends so many bytes at a time, characters and lines cut as it happens.
    pub(crate) fn send_in_pieces_of(self, bytes: usize, text: &str) -> Self {
        text.as_bytes().chunks(bytes).fold(self, |reply, piece| {
            reply.act(Act::Send(Bytes::copy_from_slice(piece))).act(Act::Pause(Duration::from_micros(200)))
        })
    }
}

/// What the server has seen.
#[derive(Debug)]
pub(crate) enum Seen {
    Asked {
        path: String,
        headers: HeaderMap,
        body: serde_json::Value,
    },
    /// The client closed the connection before the answer's end.
    Gone,
}

/// A server; it ends with the test's runtime.
pub(crate) struct Server {
    /// Without a path.
    pub(crate) url: String,
    seen: mpsc::UnboundedReceiver<Seen>,
    connections: Arc<AtomicUsize>,
}

/// A file that is there as long as this is.
pub(crate) struct TemporaryFile(PathBuf);

impl TemporaryFile {
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        // A file that is gone already is no matter.
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Server {
    /// Answers the nth request by the nth reply, and all further ones by the last.
    pub(crate) async fn start<const N: usize>(replies: [Reply; N]) -> Self {
        Self::listen(replies.to_vec(), None).await
    }

    /// The same over TLS, with a certificate that only the file vouches for.
    pub(crate) async fn start_tls(reply: Reply) -> (Self, TemporaryFile) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let path = std::env::temp_dir().join(format!("fanfare-tools-{}.pem", std::process::id()));
        std::fs::write(&path, made.cert.pem()).unwrap();
        (Self::listen(vec![reply], Some(config)).await, TemporaryFile(path))
    }

    /// An address that nobody listens at, as long as the socket is held.
    pub(crate) fn closed_url() -> (String, TcpSocket) {
        // Bound, and never made to listen.
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        (format!("http://{}", socket.local_addr().unwrap()), socket)
    }

    async fn listen(replies: Vec<Reply>, tls: Option<rustls::ServerConfig>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let url = if tls.is_some() {
            format!("https://localhost:{port}")
        } else {
            format!("http://127.0.0.1:{port}")
        };
        let (tell, seen) = mpsc::unbounded_channel();
        let connections = Arc::new(AtomicUsize::new(0));
        let script = Arc::new(Script { replies, asked: AtomicUsize::new(0), tell });
        let acceptor = tls.map(|config| tokio_rustls::TlsAcceptor::from(Arc::new(config)));
        let count = connections.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                count.fetch_add(1, Ordering::Relaxed);
                let script = script.clone();
                match acceptor.clone() {
                    None => drop(tokio::spawn(serve(stream, script))),
                    Some(acceptor) => drop(tokio::spawn(async move {
                        // A client that does not trust the certificate breaks off.
                        if let Ok(stream) = acceptor.accept(stream).await {
                            serve(stream, script).await;
                        }
                    })),
                }
            }
        });
        Self { url, seen, connections }
    }

    /// What it sees next.
    pub(crate) async fn seen(&mut self) -> Seen {
        timeout(Duration::from_secs(120), self.seen.recv())
            .await
            .expect("something in time")
            .expect("a server")
    }

    /// Waits for so many requests; their headers. Fails if another one follows that is there already.
    pub(crate) async fn expect_asked(&mut self, count: usize) -> Vec<HeaderMap> {
        let mut all = Vec::new();
        while all.len() < count {
            match self.seen().await {
                Seen::Asked { headers, .. } => all.push(headers),
                Seen::Gone => {}
            }
        }
        if let Ok(Seen::Asked { .. }) = self.seen.try_recv() {
            panic!("more than {count} requests");
        }
        all
    }

    /// Waits for a client to leave.
    pub(crate) async fn expect_gone(&mut self) {
        let seen = self.seen().await;
        assert!(matches!(seen, Seen::Gone), "{seen:?}");
    }

    /// Waits for so many requests and one client that leaves, in any order.
    pub(crate) async fn expect_gone_among(&mut self, count: usize) {
        let (mut asked, mut gone) = (0, 0);
        while asked < count || gone < 1 {
            match self.seen().await {
                Seen::Asked { .. } => asked += 1,
                Seen::Gone => gone += 1,
            }
        }
        assert_eq!((asked, gone), (count, 1));
    }

    /// How many connections were made so far.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

struct Script {
    replies: Vec<Reply>,
    asked: AtomicUsize,
    tell: mpsc::UnboundedSender<Seen>,
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, script: Arc<Script>) {
    let service = service_fn(move |request| answer(request, script.clone()));
    // Broken connections are what these tests are about.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(request: Request<Incoming>, script: Arc<Script>) -> io::Result<Response<Playing>> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let body = serde_json::from_slice(&body).unwrap();
    let asked = script.asked.fetch_add(1, Ordering::Relaxed);
    let reply = script.replies.get(asked).or(script.replies.last()).expect("a reply").clone();
    // A test that is over does not listen.
    let _ = script.tell.send(Seen::Asked { path: head.uri.path().to_owned(), headers: head.headers, body });
    let mut leaving = Leaving { tell: script.tell.clone(), is_over: false };
    let (status, is_whole) = match reply.kind {
        ReplyKind::Answer { status, is_whole } => (status, is_whole),
        ReplyKind::Hung => std::future::pending().await,
        ReplyKind::Closed => {
            leaving.is_over = true;
            return Err(io::Error::other("closed by script"));
        }
    };
    let mut response = Response::builder().status(status);
    for (name, value) in reply.headers {
        response = response.header(name, value);
    }
    let bytes =
        reply.acts.iter().map(|act| if let Act::Send(bytes) = act { bytes.len() as u64 } else { 0 }).sum();
    let bytes = is_whole.then_some(bytes);
    Ok(response.body(Playing { acts: reply.acts, pause: None, bytes, leaving }).unwrap())
}

/// A body that plays its script.
struct Playing {
    acts: VecDeque<Act>,
    pause: Option<Pin<Box<Sleep>>>,
    /// Its length, if it is told.
    bytes: Option<u64>,
    leaving: Leaving,
}

impl Body for Playing {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        loop {
            if let Some(pause) = &mut self.pause {
                std::task::ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            match self.acts.front() {
                None => {
                    self.leaving.is_over = true;
                    return Poll::Ready(None);
                }
                Some(Act::Hang) => return Poll::Pending,
                Some(Act::Break) => {
                    self.leaving.is_over = true;
                    return Poll::Ready(Some(Err(io::Error::other("broken by script"))));
                }
                Some(Act::Pause(time)) => self.pause = Some(Box::pin(sleep(*time))),
                Some(Act::Send(bytes)) => {
                    let bytes = bytes.clone();
                    self.acts.pop_front();
                    // hyper does not ask again for the end of a body whose length it knows.
                    self.leaving.is_over = self.bytes.is_some() && self.acts.is_empty();
                    if bytes.is_empty() {
                        continue;
                    }
                    return Poll::Ready(Some(Ok(Frame::data(bytes))));
                }
            }
            self.acts.pop_front();
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.bytes.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// Tells when it is dropped too early.
struct Leaving {
    tell: mpsc::UnboundedSender<Seen>,
    is_over: bool,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        if !self.is_over {
            // A test that is over does not listen.
            let _ = self.tell.send(Seen::Gone);
        }
    }
}
