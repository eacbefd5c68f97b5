//! Owns what the application registered for each namespace: middlewares and handlers, by event name.
//! Does not know sockets that are connected. Invariant: frozen when the server starts, so shards read it freely.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use engine_core::Reason;
use serde::de::DeserializeOwned;
use serde_json::Value;
use sio_proto::{ArgsFault, Body, Parser};

use crate::ack::Answer;
use crate::refusal::Refusal;
use crate::socket::{ConnectRequest, Socket};

/// Work that a handler left unfinished.
pub(crate) type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

type EventHandler = Box<dyn Fn(&Socket, &Event<'_>) -> Option<Task> + Send + Sync>;
type Middleware = Box<
    dyn Fn(Arc<ConnectRequest>) -> Pin<Box<dyn Future<Output = Result<(), Refusal>> + Send>> + Send + Sync,
>;
type ConnectHandler = Box<dyn Fn(Socket) -> Task + Send + Sync>;
type DisconnectHandler = Box<dyn Fn(Socket, Reason, Vec<String>) -> Task + Send + Sync>;

/// An event as it came, before it is turned into a type of yours.
pub struct Event<'a> {
    pub(crate) name: &'a str,
    pub(crate) elements: &'a [u8],
    pub(crate) count: u32,
    pub(crate) attachments: &'a [Bytes],
    pub(crate) ack_id: Option<u64>,
    pub(crate) parser: Parser,
}

impl Event<'_> {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.name
    }

    /// How many arguments.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether it has no argument.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The arguments as JSON texts joined by commas, or as msgpack values, just as they came and well-formed.
    #[must_use]
    pub fn raw(&self) -> &[u8] {
        self.elements
    }

    /// The binary arguments; placeholders in [`Event::raw`] name them by number.
    #[must_use]
    pub fn attachments(&self) -> &[Bytes] {
        self.attachments
    }

    /// Whether the sender awaits an ack.
    #[must_use]
    pub fn wants_ack(&self) -> bool {
        self.ack_id.is_some()
    }

    /// The arguments: one as `T` itself, several as a tuple or list, none as `()` or `Option`.
    ///
    /// # Errors
    /// The peer's fault: they do not fit `T`.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, ArgsFault> {
        sio_proto::decode_args(self.parser, self.elements, self.count, self.attachments)
    }

    /// As [`Event::decode`], borrowing text from the event.
    ///
    /// # Errors
    /// The peer's fault: they do not fit `T`, or a text that `T` borrows is written with escapes.
    pub fn decode_borrowed<'de, T: serde::Deserialize<'de>>(&'de self) -> Result<T, ArgsFault> {
        sio_proto::decode_borrowed(self.parser, self.elements, self.count, self.attachments)
    }

    /// All arguments as one list or tuple, however many there are.
    ///
    /// # Errors
    /// The peer's fault: they do not fit `T`.
    pub fn decode_all<T: DeserializeOwned>(&self) -> Result<T, ArgsFault> {
        sio_proto::decode_all(self.parser, self.elements, self.count, self.attachments)
    }

    /// The arguments as loose values, one each.
    ///
    /// # Errors
    /// The peer's fault: a value that JSON cannot hold.
    pub fn values(&self) -> Result<Vec<Value>, ArgsFault> {
        sio_proto::to_value(self.parser, self.elements, self.count, self.attachments)
    }

    /// Answers the sender; nothing happens if it awaits no ack.
    pub fn answer(&self, socket: &Socket, answer: impl Answer) {
        if let Some(id) = self.ack_id {
            answer_with(socket, id, self.parser, answer);
        }
    }

    /// Answers the sender with the event's own arguments.
    pub fn answer_same(&self, socket: &Socket) {
        if let Some(id) = self.ack_id
            && let Ok(body) = Body::relay_ack(self.elements, self.count, self.used_attachments())
        {
            socket.answer(id, body);
        }
    }

    /// The event's arguments, to be sent on under a name as they are.
    ///
    /// # Errors
    /// The name is reserved, or there are too many attachments.
    pub fn relay(&self, name: &str) -> Result<Relay, sio_proto::EncodeFault> {
        Body::relay_event(self.parser, name, self.elements, self.count, self.used_attachments()).map(Relay)
    }

    /// The attachments, unless no placeholder can name any: then they were sent for nothing.
    fn used_attachments(&self) -> &[Bytes] {
        const KEY: &[u8] = b"_placeholder";
        if self.elements.windows(KEY.len()).any(|window| window == KEY) { self.attachments } else { &[] }
    }

    /// Leave to answer later, from anywhere; `None` if the sender awaits no ack.
    #[must_use]
    pub fn reserve_answer(&self, socket: &Socket) -> Option<PendingAnswer> {
        self.ack_id.map(|id| PendingAnswer { socket: socket.clone(), id, parser: self.parser })
    }
}

/// Arguments of an event that came, ready to go out again unread.
pub struct Relay(pub(crate) Body);

/// The right to answer one event, once.
pub struct PendingAnswer {
    socket: Socket,
    id: u64,
    parser: Parser,
}

impl PendingAnswer {
    /// Answers.
    pub fn answer(self, answer: impl Answer) {
        answer_with(&self.socket, self.id, self.parser, answer);
    }
}

fn answer_with(socket: &Socket, id: u64, parser: Parser, answer: impl Answer) {
    match answer.encode(parser) {
        Ok(body) => socket.answer(id, body),
        Err(fault) => tracing::warn!(?socket, %fault, "an answer could not be encoded"),
    }
}

/// What is registered for one namespace.
#[derive(Default)]
pub struct Namespace {
    pub(crate) middlewares: Vec<Middleware>,
    pub(crate) on_connect: Option<ConnectHandler>,
    pub(crate) on_disconnect: Option<DisconnectHandler>,
    pub(crate) events: HashMap<Box<str>, EventHandler, foldhash::fast::RandomState>,
    pub(crate) on_any: Option<EventHandler>,
    pub(crate) fallback: Option<EventHandler>,
}

impl Namespace {
    /// Adds a middleware: it runs for each CONNECT, in order of registration, and may refuse it. Recovered sockets
    /// pass it too, unless [`Builder::recovery_skips_middlewares`](crate::Builder) says otherwise.
    pub fn middleware<F, Fut>(&mut self, middleware: F) -> &mut Self
    where
        F: Fn(Arc<ConnectRequest>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), Refusal>> + Send + 'static,
    {
        self.middlewares.push(Box::new(move |request| Box::pin(middleware(request))));
        self
    }

    /// Runs when a socket has joined this namespace. What it emits arrives after the CONNECT reply.
    pub fn on_connect<F, Fut>(&mut self, handler: F) -> &mut Self
    where
        F: Fn(Socket) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.on_connect = Some(Box::new(move |socket| Box::pin(handler(socket))));
        self
    }

    /// Runs when a socket has gone, with the reason and the rooms it was in, its own apart.
    pub fn on_disconnect<F, Fut>(&mut self, handler: F) -> &mut Self
    where
        F: Fn(Socket, Reason, Vec<String>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.on_disconnect =
            Some(Box::new(move |socket, reason, rooms| Box::pin(handler(socket, reason, rooms))));
        self
    }

    /// Handles an event. Its arguments become a `T`: one argument is `T` itself, several a tuple, none `()`; use
    /// [`serde_json::Value`] for anything and [`serde::de::IgnoredAny`] for don't-care. What the handler returns is
    /// the answer, if the sender awaits one.
    ///
    /// Handlers begin in the order in which a socket's events came. One that waits for something goes on
    /// concurrently with those that follow.
    pub fn on<T, F, Fut, A>(&mut self, event: &str, handler: F) -> &mut Self
    where
        T: DeserializeOwned,
        F: Fn(Socket, T) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = A> + Send + 'static,
        A: Answer + Send,
    {
        let wrapped = move |socket: &Socket, event: &Event<'_>| {
            let payload = match event.decode::<T>() {
                Ok(payload) => payload,
                Err(fault) => {
                    report_malformed(socket, event, &fault);
                    return None;
                }
            };
            let answering = event.reserve_answer(socket);
            let running = handler(socket.clone(), payload);
            let task: Task = Box::pin(async move {
                let answer = running.await;
                if let Some(answering) = answering {
                    answering.answer(answer);
                }
            });
            Some(task)
        };
        self.events.insert(event.into(), Box::new(wrapped));
        self
    }

    /// Handles an event as it came, at once, on the shard's thread: for the few that are too many to wait for
    /// anything. The handler must not block.
    pub fn on_raw<F>(&mut self, event: &str, handler: F) -> &mut Self
    where
        F: Fn(&Socket, &Event<'_>) + Send + Sync + 'static,
    {
        self.events.insert(
            event.into(),
            Box::new(move |socket, event| {
                handler(socket, event);
                None
            }),
        );
        self
    }

    /// Sees every event before its own handler does. Must not block.
    pub fn on_any<F>(&mut self, handler: F) -> &mut Self
    where
        F: Fn(&Socket, &Event<'_>) + Send + Sync + 'static,
    {
        self.on_any = Some(Box::new(move |socket, event| {
            handler(socket, event);
            None
        }));
        self
    }

    /// Handles events that nothing else handles. Must not block. Without one they are ignored, and an ack that was
    /// awaited never comes.
    pub fn fallback<F>(&mut self, handler: F) -> &mut Self
    where
        F: Fn(&Socket, &Event<'_>) + Send + Sync + 'static,
    {
        self.fallback = Some(Box::new(move |socket, event| {
            handler(socket, event);
            None
        }));
        self
    }
}

/// Tells the sender, if it listens, that its arguments do not fit.
fn report_malformed(socket: &Socket, event: &Event<'_>, fault: &ArgsFault) {
    tracing::debug!(?socket, event = event.name(), %fault, "an event's arguments do not fit its handler");
    event.answer(
        socket,
        serde_json::json!({
            "ok": false,
            "error": { "code": "bad_payload", "message": format!("{}: {fault}", event.name()) },
        }),
    );
}
