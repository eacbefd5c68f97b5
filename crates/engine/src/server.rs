//! Owns the server as applications hold it, and what all its threads read.
//! Does not know sockets' insides. Invariant: what is here never changes once the shards run.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use eio_proto::Sid;
use engine_core::{Config, Counters, Gauges, Shard, ShardId, Target};
use serde_json::Value;
use sio_proto::Parser;
use tokio::sync::{oneshot, watch};

use crate::builder::{Builder, DynamicNamespace, OnMessage};
use crate::emitter::Broadcaster;
use crate::forward::Forwarding;
use crate::http::HttpSettings;
use crate::interest::Interest;
use crate::mail::{Mail, Numbers, Port};
use crate::namespace::Namespace;
use crate::restore::Restorer;
use crate::sending::Sending;
use crate::shard::ShardState;
use crate::socket::{IntoRooms, Socket};

/// What every thread of a server reads.
pub(crate) struct Inner {
    pub(crate) config: Config,
    /// The number of this node, which its ids carry.
    pub(crate) node: u16,
    pub(crate) http: HttpSettings,
    pub(crate) recovery_skips_middlewares: bool,
    namespaces: HashMap<Box<str>, Arc<Namespace>, foldhash::fast::RandomState>,
    dynamic: Vec<(DynamicNamespace, Arc<Namespace>)>,
    ports: OnceLock<Box<[Arc<Port>]>>,
    next_port: AtomicUsize,
    pub(crate) interest: Interest,
    pub(crate) sending: Sending,
    pub(crate) control: tokio::runtime::Handle,
    pub(crate) numbers: Numbers,
    /// New sessions and tunnels are refused, and connections closed after each answer, because the server drains.
    pub(crate) is_draining: AtomicBool,
    pub(crate) phase: watch::Sender<Phase>,
    /// That the phase is the last one, for shards, which look at it in every turn.
    pub(crate) stopped: AtomicBool,
    pub(crate) connections: AtomicUsize,
    /// Requests on our own listeners that are being answered.
    pub(crate) requests: Arc<AtomicUsize>,
    pub(crate) on_message: Option<OnMessage>,
    pub(crate) restorer: Option<Box<dyn Restorer>>,
    pub(crate) panics: AtomicU64,
    pub(crate) forwarding: Option<Forwarding>,
}

/// How far a server has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Draining included.
    Running,
    Stopped,
}

impl Inner {
    pub(crate) fn parser(&self) -> Parser {
        self.config.parser
    }

    pub(crate) fn ports(&self) -> &[Arc<Port>] {
        self.ports.get().map_or(&[], |ports| ports)
    }

    /// A shard for a session that none has yet.
    pub(crate) fn next_port(&self) -> &Arc<Port> {
        let ports = self.ports();
        &ports[self.next_port.fetch_add(1, Ordering::Relaxed) % ports.len()]
    }

    /// The shard that made an id, if it is one of ours.
    pub(crate) fn port_of(&self, sid: Sid) -> Option<&Arc<Port>> {
        let id = ShardId::of(sid);
        if id.node == self.node { self.ports().get(usize::from(id.shard)) } else { None }
    }

    fn id_of(&self, port: &Port) -> ShardId {
        ShardId { node: self.node, shard: port.index }
    }

    /// The shard that keeps notes about a pid, as [`Shard::home_of`] has it.
    pub(crate) fn home_of(&self, pid: Sid) -> usize {
        usize::from(ShardId::of(pid).shard) % self.ports().len().max(1)
    }

    /// The shards that may have recipients.
    pub(crate) fn interested<'a>(&'a self, target: &'a Target) -> impl Iterator<Item = &'a Arc<Port>> {
        let ports = self.ports();
        ports.iter().filter(move |port| {
            let shard = usize::from(port.index);
            // A handler may just have asked for a join that makes the room: its own shard is always told.
            if ports.len() == 1 || crate::mail::is_turn_of(port) {
                return true;
            }
            if target.rooms.is_empty() {
                return self.interest.has(shard, &target.namespace, "");
            }
            target.rooms.iter().any(|room| self.has_members(port, &target.namespace, room))
        })
    }

    fn has_members(&self, port: &Port, namespace: &str, room: &str) -> bool {
        self.interest.has(usize::from(port.index), namespace, room)
            // A socket's own room is not announced: its name tells its shard.
            || Sid::parse(room).is_some_and(|sid| ShardId::of(sid) == self.id_of(port))
    }

    pub(crate) fn namespace(&self, name: &str) -> Option<Arc<Namespace>> {
        if let Some(found) = self.namespaces.get(name) {
            return Some(found.clone());
        }
        self.dynamic.iter().find(|(matches, _)| matches(name)).map(|(_, namespace)| namespace.clone())
    }

    pub(crate) fn has_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }
}

/// A running server. Cheap to clone; emits from any thread.
#[derive(Clone)]
pub struct Server {
    pub(crate) inner: Arc<Inner>,
}

/// One connected socket, as [`Broadcaster::fetch_sockets`] finds it.
#[derive(Clone, Debug)]
pub struct SocketInfo {
    pub(crate) socket: Socket,
    pub(crate) rooms: Vec<String>,
}

impl SocketInfo {
    /// Its public id.
    #[must_use]
    pub fn id(&self) -> Sid {
        self.socket.id()
    }

    /// The rooms it was in when asked, its own first.
    #[must_use]
    pub fn rooms(&self) -> &[String] {
        &self.rooms
    }

    /// Its loose data.
    #[must_use]
    pub fn data(&self) -> Value {
        self.socket.data()
    }

    /// The socket itself.
    #[must_use]
    pub fn socket(&self) -> &Socket {
        &self.socket
    }
}

/// Figures of a server at one moment.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Totals since it began, one entry for each shard.
    pub counters: Vec<Counters>,
    /// What is held now, one entry for each shard.
    pub gauges: Vec<Gauges>,
    /// Connected sockets of each namespace.
    pub namespaces: HashMap<String, usize>,
    /// Connected sockets of each room, by namespace and room; only if asked for.
    pub rooms: HashMap<(String, String), usize>,
    /// Letters refused because a shard's mailbox was full.
    pub mailbox_refusals: u64,
    /// TCP connections open on the engine's own listeners.
    pub connections: usize,
    /// Handlers and middlewares that panicked before they first waited.
    pub panics: u64,
    /// Requests for sessions of other nodes that were passed on ([`Builder::forward`]), upgrades included.
    pub requests_forwarded: u64,
    /// Requests for sessions of nodes that nobody knew, could reach, or had an answer from.
    pub requests_unreachable: u64,
    /// WebSockets of other nodes' sessions that go through this one.
    pub tunnels: usize,
}

impl Stats {
    /// One counter over all shards.
    #[must_use]
    pub fn total(&self, pick: impl Fn(&Counters) -> u64) -> u64 {
        self.counters.iter().map(pick).sum()
    }

    /// One gauge over all shards.
    #[must_use]
    pub fn held(&self, pick: impl Fn(&Gauges) -> usize) -> usize {
        self.gauges.iter().map(pick).sum()
    }
}

impl Server {
    /// Begins to describe a server.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub(crate) fn start(mut builder: Builder) -> io::Result<Self> {
        let shards = builder.shards.unwrap_or_else(|| {
            std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(64)
        });
        let control = tokio::runtime::Handle::try_current().map_err(|_| {
            io::Error::other("build() must be called within a tokio runtime, which handlers then run on")
        })?;
        let has_recovery = builder.config.recovery.is_some();
        let forwarding = builder.nodes.map(|nodes| Forwarding::new(nodes, builder.http.header_timeout));
        builder.config.shards = u16::try_from(shards).map_err(io::Error::other)?;
        let inner = Arc::new(Inner {
            config: builder.config,
            node: builder.node,
            http: builder.http,
            recovery_skips_middlewares: builder.recovery_skips_middlewares,
            namespaces: builder
                .namespaces
                .into_iter()
                .map(|(name, namespace)| (name, Arc::new(namespace)))
                .collect(),
            dynamic: builder
                .dynamic
                .into_iter()
                .map(|(name, namespace)| (name, Arc::new(namespace)))
                .collect(),
            ports: OnceLock::new(),
            next_port: AtomicUsize::new(0),
            interest: Interest::new(shards),
            sending: Sending::new(shards > 1 && has_recovery),
            control,
            numbers: Numbers::default(),
            is_draining: AtomicBool::new(false),
            phase: watch::Sender::new(Phase::Running),
            stopped: AtomicBool::new(false),
            connections: AtomicUsize::new(0),
            requests: Arc::default(),
            on_message: builder.on_message,
            restorer: builder.restorer,
            panics: AtomicU64::new(0),
            forwarding,
        });
        let origin = Instant::now();
        let mut ports = Vec::with_capacity(shards);
        let mut mailboxes = Vec::with_capacity(shards);
        for index in 0..shards {
            let index = u8::try_from(index).map_err(|_| io::Error::other("more than 256 shards"))?;
            let (port, letters) = Port::new(index);
            ports.push(port.clone());
            mailboxes.push((port, letters));
        }
        let _ = inner.ports.set(ports.into_boxed_slice());
        for (port, letters) in mailboxes {
            let mut seed = [0; 32];
            getrandom::fill(&mut seed).map_err(io::Error::other)?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let server = inner.clone();
            std::thread::Builder::new().name(format!("shard-{}", port.index)).spawn(move || {
                let core = Shard::new(server.id_of(&port), server.config.clone(), seed);
                let local = tokio::task::LocalSet::new();
                match ShardState::new(core, server, port, origin) {
                    Ok(state) => local.block_on(&runtime, state.run(letters)),
                    Err(error) => tracing::error!(%error, "a shard could not start"),
                }
            })?;
        }
        Ok(Self { inner })
    }

    /// Everyone in a namespace.
    #[must_use]
    pub fn of(&self, namespace: &str) -> Broadcaster {
        let target = Target { namespace: namespace.into(), ..Target::default() };
        Broadcaster::new(self.inner.clone(), target)
    }

    /// Whether a room of a namespace may have members, as [`Broadcaster::is_wanted`]; nothing is allocated for the look.
    #[must_use]
    pub fn has_members(&self, namespace: &str, room: &str) -> bool {
        let has =
            |port: &Arc<Port>| crate::mail::is_turn_of(port) || self.inner.has_members(port, namespace, room);
        self.inner.ports().iter().any(has)
    }

    /// The members of rooms of the namespace `/`.
    #[must_use]
    pub fn to<R: IntoRooms>(&self, rooms: R) -> Broadcaster {
        self.of("/").to(rooms)
    }

    /// Sends an event to everyone in the namespace `/`.
    ///
    /// # Errors
    /// As [`Broadcaster::emit`].
    pub fn emit<T: serde::Serialize + ?Sized>(
        &self,
        event: &str,
        payload: &T,
    ) -> Result<(), crate::socket::EmitError> {
        self.of("/").emit(event, payload)
    }

    /// Listens on an address and serves the engine there; other paths get 404. Answers the address that was bound,
    /// which tells the port if 0 was asked for. Stops with [`Server::shutdown`].
    ///
    /// # Errors
    /// The address cannot be bound.
    pub async fn listen(&self, address: SocketAddr) -> io::Result<SocketAddr> {
        crate::listener::listen(self.inner.clone(), address, crate::listener::Serving::default()).await
    }

    /// As [`Server::listen`], with choices: TLS, and an application for all other paths.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub async fn listen_with(
        &self,
        address: SocketAddr,
        serving: crate::listener::Serving,
    ) -> io::Result<SocketAddr> {
        crate::listener::listen(self.inner.clone(), address, serving).await
    }

    /// Listens for requests that other nodes pass on ([`Builder::forward`]), over plain HTTP: keep it from everybody else. Only
    /// requests of sessions of this node are answered, none that opens one, and no other path. Answers the address that was
    /// bound.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub async fn listen_internal(&self, address: SocketAddr) -> io::Result<SocketAddr> {
        crate::listener::listen(self.inner.clone(), address, crate::listener::Serving::internal()).await
    }

    /// The engine as a service, to be mounted into an axum or hyper application under the engine's path.
    #[must_use]
    pub fn service(&self) -> crate::http::EngineService {
        crate::http::EngineService::new(self.inner.clone())
    }

    /// The rooms of a namespace that have connected members, with how many. The rooms that sockets have by their ids alone are
    /// not among them. Walks all rooms.
    pub async fn rooms(&self, namespace: &str) -> BTreeMap<String, usize> {
        let mut answers = Vec::new();
        for port in self.inner.ports() {
            let (to, answer) = oneshot::channel();
            let namespace = namespace.to_owned();
            let call = Mail::Call(Box::new(move |shard: &mut ShardState| {
                let rooms = shard.core.rooms().filter(|(its, _, _)| *its == namespace);
                let _ = to.send(rooms.map(|(_, room, count)| (room.to_owned(), count)).collect::<Vec<_>>());
            }));
            if port.send_waiting(call).await.is_ok() {
                answers.push(answer);
            }
        }
        let mut all = BTreeMap::new();
        for answer in answers {
            for (room, count) in answer.await.unwrap_or_default() {
                *all.entry(room).or_default() += count;
            }
        }
        all
    }

    /// Asks all shards for their figures. With `with_rooms`, every room's size, which walks all of them.
    pub async fn stats(&self, with_rooms: bool) -> Stats {
        let mut answers = Vec::new();
        for port in self.inner.ports() {
            let (to, answer) = oneshot::channel();
            let call = Mail::Call(Box::new(move |shard: &mut ShardState| {
                let mut stats = Stats::default();
                stats.counters.push(*shard.core.counters());
                stats.gauges.push(shard.core.gauges());
                for (name, count) in shard.core.namespaces() {
                    stats.namespaces.insert(name.to_owned(), count);
                }
                if with_rooms {
                    for (namespace, room, count) in shard.core.rooms() {
                        stats.rooms.insert((namespace.to_owned(), room.to_owned()), count);
                    }
                }
                let _ = to.send(stats);
            }));
            if port.send_waiting(call).await.is_ok() {
                answers.push(answer);
            }
        }
        let mut all = Stats::default();
        for answer in answers {
            let Ok(stats) = answer.await else { continue };
            all.counters.extend(stats.counters);
            all.gauges.extend(stats.gauges);
            for (name, count) in stats.namespaces {
                *all.namespaces.entry(name).or_default() += count;
            }
            for (name, count) in stats.rooms {
                *all.rooms.entry(name).or_default() += count;
            }
        }
        all.mailbox_refusals =
            self.inner.ports().iter().map(|port| port.refused.load(Ordering::Relaxed)).sum();
        all.panics = self.inner.panics.load(Ordering::Relaxed);
        if let Some(forwarding) = &self.inner.forwarding {
            all.requests_forwarded = forwarding.passed_on();
            all.requests_unreachable = forwarding.failed();
            all.tunnels = forwarding.tunnels.count();
        }
        all.connections = self.inner.connections.load(Ordering::Relaxed);
        all
    }
}
