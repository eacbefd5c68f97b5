//! The application's handles on a socket.

use crate::driver::{self, Driver};
use crate::endpoint::Endpoint;
use crate::http::Http;
use crate::{AckFault, ConnectFault, EmitFault, Notice, Options, Reply};
use serde_json::{Map, Value};
use sio_proto::{Args, Body, Parser, is_valid_namespace};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

/// A socket: one namespace of a connection.
///
/// Receive steadily ([`recv`](Self::recv)): what is not received keeps the connection from being read, see
/// [`Options::notices_max`]. Dropping it leaves the namespace, and the last one to go closes the connection.
#[derive(Debug)]
pub struct Client {
    emitter: Emitter,
    notices: mpsc::Receiver<Notice>,
}

/// Sends events over a [`Client`]'s socket, from any task.
#[derive(Clone, Debug)]
pub struct Emitter {
    handle: Handle,
    slot: u64,
    status: watch::Receiver<Status>,
}

/// The way to the connection's task.
#[derive(Clone, Debug)]
pub(crate) struct Handle {
    pub(crate) emissions: mpsc::Sender<Emission>,
    pub(crate) requests: mpsc::UnboundedSender<Request>,
    options: Arc<Options>,
}

/// What a socket sends.
#[derive(Debug)]
pub(crate) enum Emission {
    Event { slot: u64, body: Body, ack: Option<oneshot::Sender<Reply>> },
    Answer { slot: u64, epoch: u64, id: u64, body: Body },
}

/// What is asked of the connection's task; as many as there are sockets.
#[derive(Debug)]
pub(crate) enum Request {
    Join(Join),
    /// `done` is dropped when it is done.
    Leave {
        slot: u64,
        done: Option<oneshot::Sender<()>>,
    },
}

/// A new socket.
#[derive(Debug)]
pub(crate) struct Join {
    pub(crate) namespace: String,
    pub(crate) auth: Option<Map<String, Value>>,
    pub(crate) notices: mpsc::Sender<Notice>,
    pub(crate) status: watch::Sender<Status>,
    /// The socket's number, or why there is none.
    pub(crate) joined: oneshot::Sender<Result<u64, ConnectFault>>,
}

/// What can be asked of a socket at any time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Status {
    pub(crate) sid: Option<String>,
    pub(crate) is_ended: bool,
}

impl Client {
    /// Connects to the server at `url` (`http://host:port` or `ws://…`) and joins [`Options::namespace`]. Needs a tokio runtime with
    /// time and I/O.
    ///
    /// The first notice is [`Notice::Connected`], and events may be queued behind it.
    ///
    /// # Errors
    /// [`ConnectFault`]. There is no second attempt: reconnection is for connections that were there.
    pub async fn connect(url: &str, options: Options) -> Result<Client, ConnectFault> {
        let endpoint = Arc::new(Endpoint::parse(url, &options)?);
        let http = Http::new(endpoint, options.message_bytes_max);
        let options = Arc::new(options);
        // At least one, or nothing could ever be sent.
        let (emissions, emissions_out) = mpsc::channel(options.unsent_max.max(1));
        let (requests, requests_out) = mpsc::unbounded_channel();
        let handle = Handle { emissions, requests, options: options.clone() };
        let emissions = handle.emissions.downgrade();
        let driver = Driver::new(http, options.clone(), emissions, emissions_out, requests_out);
        tokio::spawn(driver::run(driver));
        handle.join(options.namespace.clone(), options.auth.clone()).await
    }

    /// Joins another namespace over the same connection.
    ///
    /// A namespace that was left can be joined again, but not in the same breath: stock servers take a CONNECT that they read together
    /// with the DISCONNECT before it for a violation, and close the connection.
    ///
    /// # Errors
    /// [`ConnectFault`]; [`ConnectFault::Closed`] when the connection has ended for good.
    pub async fn join(
        &self,
        namespace: &str,
        auth: Option<Map<String, Value>>,
    ) -> Result<Client, ConnectFault> {
        self.emitter.handle.join(namespace.to_owned(), auth).await
    }

    /// The next notice; none when the socket has ended.
    pub async fn recv(&mut self) -> Option<Notice> {
        self.notices.recv().await
    }

    /// A handle for sending that can go elsewhere while this one receives.
    pub fn emitter(&self) -> Emitter {
        self.emitter.clone()
    }

    /// As [`Emitter::emit`].
    ///
    /// # Errors
    /// As [`Emitter::emit`].
    pub async fn emit<A: Args + ?Sized>(&self, name: &str, args: &A) -> Result<(), EmitFault> {
        self.emitter.emit(name, args).await
    }

    /// As [`Emitter::emit_with_ack`].
    ///
    /// # Errors
    /// As [`Emitter::emit_with_ack`].
    pub async fn emit_with_ack<A: Args + ?Sized>(
        &self,
        name: &str,
        args: &A,
        time_max: Duration,
    ) -> Result<Reply, AckFault> {
        self.emitter.emit_with_ack(name, args, time_max).await
    }

    /// The socket's id while it is connected.
    pub fn sid(&self) -> Option<String> {
        self.emitter.sid()
    }

    /// Leaves the namespace. When it was the connection's last, the connection is closed in order, and that is waited for, two
    /// seconds at most.
    ///
    /// Events emitted before are sent before. Stock servers ignore those that they read together with the farewell behind them; where that
    /// matters, ask for an answer to the last one first.
    pub async fn close(self) {
        let (done, is_done) = oneshot::channel();
        let request = Request::Leave { slot: self.emitter.slot, done: Some(done) };
        if self.emitter.handle.requests.send(request).is_ok() {
            // An error is how it says that it is done.
            let _ = is_done.await;
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let request = Request::Leave { slot: self.emitter.slot, done: None };
        // When the task has ended there is nothing to leave.
        let _ = self.emitter.handle.requests.send(request);
    }
}

impl Emitter {
    /// Sends an event. While there is no connection it waits in a queue, in order, and is sent after the next one is made; when the
    /// queue is full ([`Options::unsent_max`]), this waits.
    ///
    /// # Errors
    /// [`EmitFault`] when the arguments cannot be encoded or the socket has ended. That there is none does not mean that the server has
    /// got the event: for that, ask for an answer.
    pub async fn emit<A: Args + ?Sized>(&self, name: &str, args: &A) -> Result<(), EmitFault> {
        self.send(name, args, None).await
    }

    /// Sends an event and waits for the server's answer; `time_max` counts from now, waiting for a connection included.
    ///
    /// # Errors
    /// [`AckFault`].
    pub async fn emit_with_ack<A: Args + ?Sized>(
        &self,
        name: &str,
        args: &A,
        time_max: Duration,
    ) -> Result<Reply, AckFault> {
        let (ack, answer) = oneshot::channel();
        let answered = timeout(time_max, async {
            self.send(name, args, Some(ack)).await.map_err(AckFault::Emit)?;
            answer.await.map_err(|_| AckFault::Disconnected)
        });
        answered.await.unwrap_or(Err(AckFault::TimedOut))
    }

    /// The socket's id while it is connected.
    pub fn sid(&self) -> Option<String> {
        self.status.borrow().sid.clone()
    }

    async fn send<A: Args + ?Sized>(
        &self,
        name: &str,
        args: &A,
        ack: Option<oneshot::Sender<Reply>>,
    ) -> Result<(), EmitFault> {
        let body = self.handle.parser().encode_event_args(name, args)?;
        if self.status.borrow().is_ended {
            return Err(EmitFault::Closed);
        }
        let emission = Emission::Event { slot: self.slot, body, ack };
        self.handle.emissions.send(emission).await.map_err(|_| EmitFault::Closed)
    }
}

impl Handle {
    fn parser(&self) -> Parser {
        self.options.parser
    }

    async fn join(
        &self,
        namespace: String,
        auth: Option<Map<String, Value>>,
    ) -> Result<Client, ConnectFault> {
        if !is_valid_namespace(&namespace) {
            return Err(ConnectFault::Options(format!("{namespace:?} is no namespace")));
        }
        let (notices, notices_out) = mpsc::channel(self.options.notices_max.max(1));
        let (status, status_out) = watch::channel(Status::default());
        let (joined, is_joined) = oneshot::channel();
        let request = Request::Join(Join { namespace, auth, notices, status, joined });
        self.requests.send(request).map_err(|_| ConnectFault::Closed)?;
        match timeout(self.options.connect_timeout, is_joined).await {
            // A socket that joins too late finds its receiver gone and leaves.
            Err(_) => Err(ConnectFault::TimedOut),
            Ok(Err(_)) => Err(ConnectFault::Closed),
            Ok(Ok(joined)) => {
                let slot = joined?;
                let emitter = Emitter { handle: self.clone(), slot, status: status_out };
                Ok(Client { emitter, notices: notices_out })
            }
        }
    }
}
