//! Owns this server as one of several of other making: what it does when they ask, how it asks them, and what it tells
//! them unasked. Does not know bytes or connections. Invariant: what a server of this program says is never acted upon by
//! another one of it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use store_redis::Connector;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use crate::family::{Family, Incoming, Kind, Outgoing};
use crate::gathering::{Gathered, Questions, Servers};
use crate::local::{AckNews, Local};
use crate::message::{Answer, Ask, Letter, Opts, RemoteSocket, Reply};
use crate::python::{self, Callback};
use crate::report::{Counts, Report};
use crate::session;
use crate::value::Data;

/// What names of servers of this program begin with, by which they know each other.
const OURS: &str = "fanfare-";

/// The same where names must be 32 hexadecimal digits.
const OURS_IN_PYTHON: &str = "fa4fa2e0";

/// Messages that may wait to be published.
const OUTBOX_MAX: usize = 10_000;

/// Questions of others that are worked on at a time; those beyond are not answered, and time out where they were asked.
const WORK_MAX: usize = 64;

/// Pauses between two attempts to connect.
const RECONNECT: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// How long acks are waited for that nobody has set a time for.
const ACK_TIMEOUT: Duration = Duration::from_secs(60);

/// How long they are waited for at the most, whatever others set: so long they take one of [`WORK_MAX`] places.
const ACK_TIMEOUT_MAX: Duration = Duration::from_secs(600);

/// How to be a peer.
#[derive(Clone, Debug)]
pub struct Options {
    /// The way to Redis.
    pub connector: Connector,
    /// What the servers in Node use.
    pub kind: Kind,
    /// What their channels begin with; `socket.io` unless they were told otherwise.
    pub prefix: String,
    /// The namespaces that are shared with them.
    pub namespaces: Vec<String>,
    /// The channel of Python's servers and emitters; `None`: it is not heard.
    pub python: Option<String>,
    /// How long answers are waited for.
    pub patience: Duration,
}

/// This server among the others. Dropping it ends it.
#[derive(Debug)]
pub struct Peer {
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// What all parts of a peer read.
pub(crate) struct Shared {
    pub(crate) connector: Connector,
    pub(crate) family: Family,
    pub(crate) local: Arc<dyn Local>,
    pub(crate) counts: Counts,
    /// Servers of other making that listen, for each namespace.
    pub(crate) others: Vec<AtomicU64>,
    pub(crate) python_others: AtomicU64,
    /// Whether Redis is a Cluster, where nobody can count listeners.
    pub(crate) is_cluster: AtomicBool,
    patience: Duration,
    uid: String,
    host_id: String,
    outbox: mpsc::Sender<Outgoing>,
    connection: Mutex<Option<MultiplexedConnection>>,
    questions: Questions,
    work: Arc<Semaphore>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Shared({})", self.uid)
    }
}

impl Peer {
    /// Begins, as a task of the runtime that this is called in. Never gives up: what goes wrong is in the report.
    #[must_use]
    pub fn start(options: Options, local: Arc<dyn Local>) -> Self {
        let Options { connector, kind, prefix, namespaces, python, patience } = options;
        let uid = format!("{OURS}{:016x}", random());
        let host_id = format!("{OURS_IN_PYTHON}{:016x}{:08x}", random(), random() >> 32);
        let (outbox, waiting) = mpsc::channel(OUTBOX_MAX);
        let shared = Arc::new(Shared {
            connector,
            family: Family::new(kind, &prefix, &uid, &namespaces, python),
            local,
            counts: Counts::new(),
            others: namespaces.iter().map(|_| AtomicU64::new(0)).collect(),
            python_others: AtomicU64::new(0),
            is_cluster: AtomicBool::new(false),
            patience,
            uid,
            host_id,
            outbox,
            connection: Mutex::default(),
            questions: Questions::default(),
            work: Arc::new(Semaphore::new(WORK_MAX)),
        });
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(run(shared.clone(), waiting, stopped));
        Self { shared, stop, task }
    }

    /// How it is doing.
    #[must_use]
    pub fn report(&self) -> Report {
        let shared = &self.shared;
        let names = shared.family.namespaces.iter().map(|(name, _)| name.clone());
        let counts = shared.others.iter().map(|count| count.load(Ordering::Relaxed));
        let mut others: BTreeMap<String, u64> = names.zip(counts).collect();
        if shared.family.python.is_some() {
            others.insert("python".to_owned(), shared.python_others.load(Ordering::Relaxed));
        }
        shared.counts.report(shared.connector.shown(), others)
    }

    /// Whether somebody of other making listens to a namespace: whoever would have to write an event first may save it.
    #[must_use]
    pub fn is_wanted(&self, namespace: &str) -> bool {
        self.shared.is_wanted(namespace) || self.shared.python_others.load(Ordering::Relaxed) > 0
    }

    /// Sends an event, its name first, to the sockets of others, if there are any. Does not wait: what cannot be
    /// published at once, because Redis is away or slow, is dropped and counted.
    pub fn mirror(&self, namespace: &str, opts: &Opts, args: Vec<Data>) {
        let shared = &self.shared;
        if shared.python_others.load(Ordering::Relaxed) > 0
            && let Some(channel) = &shared.family.python
            && let Some(body) = python::encode_event(&shared.host_id, namespace, &args, opts)
        {
            shared.post(Outgoing { is_sharded: false, channel: channel.clone(), body });
        }
        if shared.is_wanted(namespace) {
            shared.tell(namespace, Ask::Broadcast { args, opts: opts.clone(), request: None });
        }
    }

    /// Has sockets of others join rooms.
    pub fn join(&self, namespace: &str, opts: &Opts, rooms: &[String]) {
        self.shared.tell(namespace, Ask::Join { opts: opts.clone(), rooms: rooms.to_vec() });
    }

    /// Has sockets of others leave rooms.
    pub fn leave(&self, namespace: &str, opts: &Opts, rooms: &[String]) {
        self.shared.tell(namespace, Ask::Leave { opts: opts.clone(), rooms: rooms.to_vec() });
    }

    /// Disconnects sockets of others.
    pub fn disconnect(&self, namespace: &str, opts: &Opts, close: bool) {
        self.shared.tell(namespace, Ask::Disconnect { opts: opts.clone(), close });
    }

    /// The sockets of others.
    pub async fn fetch(&self, namespace: &str, opts: &Opts) -> Gathered<RemoteSocket> {
        let ask = |request| Ask::Fetch { opts: opts.clone(), request };
        let Gathered { found, missing } = self.gather(namespace, ask).await;
        let sockets = found.into_iter().filter_map(|reply| match reply {
            Reply::Sockets(sockets) => Some(sockets),
            Reply::Ids(_) | Reply::Rooms(_) | Reply::Value(_) | Reply::Count(_) | Reply::Ack(_) => None,
        });
        Gathered { found: sockets.flatten().collect(), missing }
    }

    /// The rooms of others, socket ids included. Sharded adapters cannot tell: none then.
    pub async fn rooms(&self, namespace: &str) -> Gathered<String> {
        let Gathered { found, missing } = self.gather(namespace, |request| Ask::Rooms { request }).await;
        let rooms = found.into_iter().filter_map(|reply| match reply {
            Reply::Rooms(rooms) => Some(rooms),
            Reply::Ids(_) | Reply::Sockets(_) | Reply::Value(_) | Reply::Count(_) | Reply::Ack(_) => None,
        });
        let rooms: std::collections::BTreeSet<String> = rooms.flatten().collect();
        Gathered { found: rooms.into_iter().collect(), missing }
    }

    /// Tells other servers something that is for them, not for sockets.
    pub fn server_side(&self, namespace: &str, args: Vec<Data>) {
        self.shared.tell(namespace, Ask::ServerSide { args, request: None });
    }

    /// The same, with what each of them answers; servers of this program answer null.
    pub async fn server_side_with_ack(&self, namespace: &str, args: Vec<Data>) -> Gathered<Data> {
        let ask = |request| Ask::ServerSide { args, request: Some(request) };
        let Gathered { found, missing } = self.gather(namespace, ask).await;
        let values = found.into_iter().filter_map(|reply| match reply {
            Reply::Value(value) => Some(value),
            Reply::Ids(_) | Reply::Sockets(_) | Reply::Rooms(_) | Reply::Count(_) | Reply::Ack(_) => None,
        });
        Gathered { found: values.collect(), missing }
    }

    /// Sends an event to sockets of others and gathers their acks, the first argument of each, for at most `timeout`.
    /// Missing are sockets that did not answer.
    pub async fn broadcast_with_acks(
        &self,
        namespace: &str,
        opts: &Opts,
        args: Vec<Data>,
        timeout: Duration,
    ) -> Gathered<Data> {
        let shared = &self.shared;
        let until = Instant::now() + timeout;
        let Some(servers) = shared.count_servers(namespace).await else { return Gathered::default() };
        let timeout_ms = u64::try_from(timeout.as_millis()).ok();
        let opts = Opts { timeout_ms, ..opts.clone() };
        let mut question = shared.questions.open(request_id());
        let request = Some(question.request.clone());
        shared.tell(namespace, Ask::Broadcast { args, opts, request });
        let (mut acks, mut asked, mut counted) = (Vec::new(), 0_u64, 0_u64);
        while servers.are_awaited(counted) || (acks.len() as u64) < asked {
            match timeout_at(until, question.replies.recv()).await {
                Ok(Some(Reply::Count(count))) => {
                    counted += 1;
                    asked = asked.saturating_add(count);
                }
                Ok(Some(Reply::Ack(ack))) => acks.push(ack),
                Ok(Some(Reply::Ids(_) | Reply::Sockets(_) | Reply::Rooms(_) | Reply::Value(_))) => {}
                Ok(None) | Err(_) => break,
            }
        }
        let missing = asked.saturating_sub(acks.len() as u64);
        Gathered { found: acks, missing }
    }

    /// Asks all others, and waits until they have answered, or no longer than patience allows.
    async fn gather(&self, namespace: &str, ask: impl FnOnce(String) -> Ask) -> Gathered<Reply> {
        let shared = &self.shared;
        let until = Instant::now() + shared.patience;
        let Some(servers) = shared.count_servers(namespace).await else { return Gathered::default() };
        let mut question = shared.questions.open(request_id());
        if !servers.are_awaited(0) || !shared.tell(namespace, ask(question.request.clone())) {
            return Gathered::default();
        }
        let mut found = Vec::new();
        while servers.are_awaited(found.len() as u64) {
            match timeout_at(until, question.replies.recv()).await {
                Ok(Some(reply)) => found.push(reply),
                Ok(None) | Err(_) => break,
            }
        }
        let missing = servers.missing(found.len() as u64);
        Gathered { found, missing }
    }

    /// Ends, soon: others no longer count it.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Is a peer over all connections.
async fn run(shared: Arc<Shared>, mut outbox: mpsc::Receiver<Outgoing>, mut stopped: watch::Receiver<bool>) {
    let mut pause = RECONNECT.0;
    let mut is_complaining = false;
    while !*stopped.borrow() {
        let before = shared.counts.connections.load(Ordering::Relaxed);
        let Err(why) = session::run(&shared, &mut outbox, &mut stopped).await else { break };
        if shared.counts.connections.load(Ordering::Relaxed) != before {
            (pause, is_complaining) = (RECONNECT.0, false);
        }
        if std::mem::replace(&mut is_complaining, true) {
            tracing::debug!(why, "still not with other servers");
        } else {
            tracing::warn!(why, "other Socket.IO servers are not heard; trying again until they are");
        }
        shared.counts.complain(Some(why));
        // Half of it is chance, so that servers do not come back together.
        let half = pause / 2;
        let share = u32::try_from(random() % 1_000).unwrap_or_default();
        tokio::select! {
            () = tokio::time::sleep(half + half * share / 1_000) => {}
            _ = stopped.wait_for(|is_stopped| *is_stopped) => {}
        }
        pause = (pause * 2).min(RECONNECT.1);
        // What waited is late by now: it was for those who were there.
        while outbox.try_recv().is_ok() {
            Counts::add(&shared.counts.dropped);
        }
    }
}

impl Shared {
    /// Notes the connection on which questions about listeners can be asked.
    pub(crate) fn hold(&self, connection: Option<MultiplexedConnection>) {
        *self.connection.lock().unwrap_or_else(PoisonError::into_inner) = connection;
    }

    fn place(&self, namespace: &str) -> Option<usize> {
        self.family.namespaces.iter().position(|(name, _)| name == namespace)
    }

    fn is_wanted(&self, namespace: &str) -> bool {
        let Some(place) = self.place(namespace) else { return false };
        self.is_cluster.load(Ordering::Relaxed) || self.others[place].load(Ordering::Relaxed) > 0
    }

    /// How many servers will answer, those of this program included; `None`: nobody can be asked now.
    async fn count_servers(&self, namespace: &str) -> Option<Servers> {
        let place = self.place(namespace)?;
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        if self.is_cluster.load(Ordering::Relaxed) {
            return Some(Servers::Unknown);
        }
        let channel = self.family.counted(place);
        let all = session::listeners(&mut connection, self.family.is_sharded(), &channel).await;
        // We are one of them.
        all.ok().map(|all| Servers::Count(all.saturating_sub(1)))
    }

    fn tell(&self, namespace: &str, ask: Ask) -> bool {
        let letter = Letter { uid: Some(self.uid.clone()), namespace: namespace.to_owned(), ask };
        self.family.encode_ask(&letter).is_some_and(|outgoing| self.post(outgoing))
    }

    fn reply(&self, letter: &Letter, request: &str, reply: Reply) {
        let answer = Answer { request: request.to_owned(), reply };
        let asker = letter.uid.as_deref().unwrap_or_default();
        if let Some(outgoing) = self.family.encode_answer(&letter.namespace, asker, &answer) {
            self.post(outgoing);
        }
    }

    fn post(&self, outgoing: Outgoing) -> bool {
        let is_taken = self.outbox.try_send(outgoing).is_ok();
        if !is_taken {
            Counts::add(&self.counts.dropped);
        }
        is_taken
    }

    /// Does what a message asks for: at once and in order what changes something, beside it what is a question.
    pub(crate) async fn handle(self: &Arc<Self>, incoming: Incoming) {
        match incoming {
            Incoming::Answer(answer) => {
                if !self.questions.answer(&answer.request, answer.reply) {
                    Counts::add(&self.counts.dropped);
                }
            }
            Incoming::Python(said) => self.handle_python(said).await,
            Incoming::Ask(letter) => match letter.uid.as_deref() {
                Some(uid) if uid == self.uid => {}
                Some(uid) if uid.starts_with(OURS) => self.handle_sibling(&letter),
                _ => self.handle_ask(letter).await,
            },
        }
    }

    /// Another server of this program asks the servers of other making. We are counted among them, and have nothing.
    fn handle_sibling(&self, letter: &Letter) {
        match &letter.ask {
            Ask::Broadcast { request: Some(request), .. } => self.reply(letter, request, Reply::Count(0)),
            Ask::Fetch { request, .. } => self.reply(letter, request, Reply::Sockets(Vec::new())),
            Ask::Ids { request, .. } => self.reply(letter, request, Reply::Ids(Vec::new())),
            Ask::Rooms { request } => self.reply(letter, request, Reply::Rooms(Vec::new())),
            Ask::ServerSide { request: Some(request), .. } => {
                self.reply(letter, request, Reply::Value(Data::Null));
            }
            Ask::Broadcast { request: None, .. } | Ask::ServerSide { request: None, .. } => {}
            Ask::Join { .. } | Ask::Leave { .. } | Ask::Disconnect { .. } => {}
        }
    }

    async fn handle_ask(self: &Arc<Self>, letter: Letter) {
        Counts::add(&self.counts.received);
        let namespace = letter.namespace.as_str();
        match &letter.ask {
            Ask::Broadcast { args, opts, request: None } => self.local.broadcast(namespace, opts, args).await,
            Ask::Join { opts, rooms } => self.local.join(namespace, opts, rooms).await,
            Ask::Leave { opts, rooms } => self.local.leave(namespace, opts, rooms).await,
            Ask::Disconnect { opts, close } => self.local.disconnect(namespace, opts, *close).await,
            Ask::ServerSide { args, request: None } => {
                Counts::add(&self.counts.server_side);
                self.local.server_side(namespace, args).await;
            }
            Ask::Broadcast { request: Some(_), .. } | Ask::ServerSide { request: Some(_), .. } => {
                self.work_on(letter);
            }
            Ask::Fetch { .. } | Ask::Ids { .. } | Ask::Rooms { .. } => self.work_on(letter),
        }
    }

    /// Answers a question beside whatever else comes.
    fn work_on(self: &Arc<Self>, letter: Letter) {
        let Ok(place) = self.work.clone().try_acquire_owned() else {
            return Counts::add(&self.counts.dropped);
        };
        let shared = self.clone();
        tokio::spawn(async move {
            shared.answer(&letter).await;
            drop(place);
        });
    }

    async fn answer(&self, letter: &Letter) {
        let namespace = letter.namespace.as_str();
        match &letter.ask {
            Ask::Fetch { opts, request } => {
                let sockets = self.local.fetch(namespace, opts).await;
                self.reply(letter, request, Reply::Sockets(sockets));
            }
            Ask::Ids { rooms, request } => {
                let opts = Opts { rooms: rooms.clone(), ..Opts::default() };
                let sockets = self.local.fetch(namespace, &opts).await;
                let ids = sockets.into_iter().map(|socket| socket.id).collect();
                self.reply(letter, request, Reply::Ids(ids));
            }
            Ask::Rooms { request } => {
                let mut rooms = self.local.rooms(namespace).await;
                let sockets = self.local.fetch(namespace, &Opts::default()).await;
                rooms.extend(sockets.into_iter().map(|socket| socket.id));
                self.reply(letter, request, Reply::Rooms(rooms));
            }
            Ask::ServerSide { args, request: Some(request) } => {
                Counts::add(&self.counts.server_side);
                let value = self.local.server_side(namespace, args).await;
                self.reply(letter, request, Reply::Value(value));
            }
            Ask::Broadcast { args, opts, request: Some(request) } => {
                let timeout = opts.timeout_ms.map_or(ACK_TIMEOUT, Duration::from_millis).min(ACK_TIMEOUT_MAX);
                let (to, mut news) = mpsc::unbounded_channel();
                let sending = self.local.broadcast_with_acks(namespace, opts, args, timeout, to);
                let telling = async {
                    while let Some(one) = news.recv().await {
                        let reply = match one {
                            AckNews::Count(count) => Reply::Count(count),
                            AckNews::Ack(args) => Reply::Ack(args.into_iter().next().unwrap_or(Data::Null)),
                        };
                        self.reply(letter, request, reply);
                    }
                };
                futures_util::future::join(sending, telling).await;
            }
            Ask::Broadcast { request: None, .. } | Ask::ServerSide { request: None, .. } => {}
            Ask::Join { .. } | Ask::Leave { .. } | Ask::Disconnect { .. } => {}
        }
    }

    async fn handle_python(self: &Arc<Self>, said: python::Said) {
        let is_ours = said.host_id.as_deref().is_some_and(|host| host.starts_with(OURS_IN_PYTHON));
        let (Some(ask), Some(_), false) = (said.ask, self.place(&said.namespace), is_ours) else { return };
        if let (Some(callback), Ask::Broadcast { args, opts, .. }) = (&said.callback, &ask) {
            Counts::add(&self.counts.received);
            return self.call_back(callback.clone(), said.namespace, opts.clone(), args.clone());
        }
        self.handle_ask(Letter { uid: None, namespace: said.namespace, ask }).await;
    }

    /// Sends an event whose first ack somebody in Python awaits.
    fn call_back(self: &Arc<Self>, callback: Callback, namespace: String, opts: Opts, args: Vec<Data>) {
        let Ok(place) = self.work.clone().try_acquire_owned() else {
            return Counts::add(&self.counts.dropped);
        };
        let shared = self.clone();
        tokio::spawn(async move {
            let (to, mut news) = mpsc::unbounded_channel();
            let sending = shared.local.broadcast_with_acks(&namespace, &opts, &args, ACK_TIMEOUT, to);
            let telling = async {
                while let Some(one) = news.recv().await {
                    if let (AckNews::Ack(args), Some(channel)) = (one, &shared.family.python) {
                        let body = python::encode_callback(&callback, &args);
                        shared.post(Outgoing { is_sharded: false, channel: channel.clone(), body });
                        break;
                    }
                }
            };
            futures_util::future::join(sending, telling).await;
            drop(place);
        });
    }
}

fn request_id() -> String {
    format!("{:016x}", random())
}

/// A random number; the same one each time if the system has none, which costs the chance only.
fn random() -> u64 {
    getrandom::u64().unwrap_or_default()
}
