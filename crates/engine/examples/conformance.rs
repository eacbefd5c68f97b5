//! The server that the conformance suite drives: `conformance --port P [flags]`. The contract, flags and events, is
//! in `conformance/README.md`.

use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::Parser as _;
use engine::{
    AckFault, Answered, Binary, Broadcaster, Builder, Cookie, Cors, Event, Flags, Many, Namespace, One,
    Origins, Parser, Recovery, Refusal, Server, Socket, Transports,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use testkit::proxy::Proxy;
use tokio::signal::unix::{SignalKind, signal};

/// Flags of the conformance contract.
#[derive(clap::Parser)]
struct Args {
    #[arg(long)]
    port: u16,
    #[arg(long, default_value_t = 25_000)]
    ping_interval: u64,
    #[arg(long, default_value_t = 20_000)]
    ping_timeout: u64,
    #[arg(long, default_value_t = 1_000_000)]
    max_payload: usize,
    #[arg(long, default_value_t = 45_000)]
    connect_timeout: u64,
    #[arg(long, default_value_t = 10_000)]
    upgrade_timeout: u64,
    #[arg(long)]
    path: Option<String>,
    #[arg(long)]
    raw_engine_io: bool,
    #[arg(long)]
    recovery: Option<u64>,
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    recovery_skip_middlewares: bool,
    #[arg(long)]
    allow_eio3: bool,
    #[arg(long, default_value = "json")]
    parser: String,
    #[arg(long)]
    cors: Option<String>,
    #[arg(long)]
    cookie: bool,
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    http_compression: bool,
    #[arg(long)]
    ws_deflate: bool,
    #[arg(long, default_value = "polling,websocket")]
    transports: String,
    /// Dynamic namespaces always vanish with their last socket; the flag is taken for the contract's sake.
    #[arg(long)]
    cleanup_empty: bool,
    #[arg(long, default_value_t = 2)]
    shards: usize,
    #[arg(long, default_value_t = 1)]
    nodes: u16,
}

/// What handlers share: the server, once it runs, and why sockets have gone.
#[derive(Clone, Default)]
struct App {
    server: Arc<std::sync::OnceLock<Server>>,
    reasons: Arc<Mutex<HashMap<String, String>>>,
}

impl App {
    fn server(&self) -> &Server {
        self.server.get().expect("invariant: sockets connect after the server has started")
    }
}

/// Any JSON value, or bytes where the sender put bytes.
#[derive(Clone, Serialize, Deserialize)]
#[serde(untagged)]
enum Loose {
    Binary(Binary),
    List(Vec<Loose>),
    Map(serde_json::Map<String, Value>),
    Other(Value),
}

#[derive(Deserialize)]
struct To {
    #[serde(default)]
    rooms: Option<Rooms>,
    #[serde(default)]
    except: Option<Rooms>,
    event: String,
    #[serde(default)]
    args: Vec<Loose>,
    #[serde(default)]
    volatile: bool,
    #[serde(default, rename = "self")]
    with_self: bool,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Rooms {
    One(String),
    Many(Vec<String>),
}

impl Rooms {
    fn list(self) -> Vec<String> {
        match self {
            Rooms::One(room) => vec![room],
            Rooms::Many(rooms) => rooms,
        }
    }
}

#[derive(Deserialize)]
struct Ask {
    #[serde(default)]
    room: Option<String>,
    timeout: u64,
    event: String,
    #[serde(default)]
    args: Vec<Loose>,
}

#[derive(Deserialize)]
struct Text {
    bytes: usize,
    #[serde(default = "yes")]
    compress: bool,
}

fn yes() -> bool {
    true
}

#[derive(Deserialize)]
struct Later {
    ms: u64,
    event: String,
    #[serde(default)]
    args: Vec<Loose>,
    #[serde(default)]
    room: Option<String>,
    #[serde(default)]
    volatile: bool,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 1)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let args = Args::parse();
    let mut nodes = Nodes::start(&args).await?;
    #[allow(clippy::print_stdout)] // Whoever started this waits for the line.
    {
        println!("ready {}", nodes.address.port());
    }
    let mut term = signal(SignalKind::terminate())?;
    let mut kill = signal(SignalKind::user_defined2())?;
    loop {
        tokio::select! {
            _ = term.recv() => break,
            _ = kill.recv() => nodes.kill_last(),
        }
    }
    for server in nodes.servers {
        server.shutdown(Duration::ZERO).await;
    }
    Ok(())
}

/// One server, or several nodes behind a balancer that takes connections in turn.
struct Nodes {
    servers: Vec<Server>,
    address: SocketAddr,
    _balancer: Option<Proxy>,
    /// What stands before the listeners of each node, so that it can die without a word.
    fronts: Vec<[Proxy; 2]>,
}

impl Nodes {
    async fn start(args: &Args) -> Result<Self, Box<dyn std::error::Error>> {
        let at = SocketAddr::from(([127, 0, 0, 1], args.port));
        if args.nodes == 1 {
            let server = serve(builder(args))?;
            let address = server.listen(at).await?;
            return Ok(Self { servers: vec![server], address, _balancer: None, fronts: Vec::new() });
        }
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let known: Arc<Mutex<HashMap<u16, SocketAddr>>> = Arc::default();
        let (mut servers, mut fronts) = (Vec::new(), Vec::new());
        for number in 1..=args.nodes {
            let addresses = known.clone();
            let builder = builder(args).node(number).forward(move |node| {
                addresses.lock().ok().and_then(|addresses| addresses.get(&node).copied())
            });
            let server = serve(builder)?;
            let public = Proxy::start([server.listen(any).await?])?;
            let internal = Proxy::start([server.listen_internal(any).await?])?;
            if let Ok(mut addresses) = known.lock() {
                addresses.insert(number, internal.address());
            }
            servers.push(server);
            fronts.push([public, internal]);
        }
        let targets: Vec<SocketAddr> = fronts.iter().map(|[public, _]| public.address()).collect();
        let balancer = Proxy::start_on(at, targets)?;
        Ok(Self { servers, address: balancer.address(), _balancer: Some(balancer), fronts })
    }

    fn kill_last(&mut self) {
        self.fronts.pop();
    }
}

fn builder(args: &Args) -> Builder {
    let default_path = if args.raw_engine_io { "/engine.io/" } else { "/socket.io/" };
    let path = args.path.clone().unwrap_or_else(|| default_path.to_owned());
    let mut builder = Server::builder()
        .shards(args.shards)
        .paths([path])
        .ping_interval(Duration::from_millis(args.ping_interval))
        .ping_timeout(Duration::from_millis(args.ping_timeout))
        .payload_bytes_max(args.max_payload)
        .connect_timeout(Duration::from_millis(args.connect_timeout))
        .upgrade_timeout(Duration::from_millis(args.upgrade_timeout))
        .recovery_skips_middlewares(args.recovery_skip_middlewares)
        .allow_revision_3(args.allow_eio3)
        .http_compression(args.http_compression.then_some(1024))
        .header_timeout(Duration::from_secs(2))
        .body_timeout(Duration::from_secs(3))
        .outbox_bytes_max(16 << 20)
        .transports(Transports {
            polling: args.transports.contains("polling"),
            websocket: args.transports.contains("websocket"),
        })
        .parser(if args.parser == "msgpack" { Parser::Msgpack } else { Parser::Json });
    if let Some(millis) = args.recovery {
        builder = builder
            .recovery(Recovery { disconnection_max: Duration::from_millis(millis), ..Recovery::default() });
    }
    if let Some(origin) = &args.cors {
        let origins = if origin == "*" { Origins::Any } else { Origins::List(vec![origin.clone()]) };
        builder = builder.cors(Cors::new(origins));
    }
    if args.cookie {
        builder = builder.cookie(Cookie::default());
    }
    if args.ws_deflate {
        builder = builder.websocket_deflate(1024);
    }
    if args.raw_engine_io {
        builder = builder.raw_messages(|message, _| Some(message.to_vec()));
    }
    builder
}

fn serve(builder: Builder) -> std::io::Result<Server> {
    let app = App::default();
    let dynamic = |name: &str| {
        name.strip_prefix("/dynamic-")
            .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let server = builder
        .namespace("/", |ns| register(ns, &app, true))
        .namespace("/custom", |ns| register(ns, &app, true))
        .namespace("/guarded", |ns| {
            ns.middleware(|request| async move {
                let auth: Value = request.auth().unwrap_or_default();
                if auth["token"] == "secret" {
                    return Ok(());
                }
                let data = json!({ "code": "UNAUTHORIZED", "details": { "need": "token" } });
                Err(Refusal::new("not authorized").with_data(data))
            });
            register(ns, &app, false);
        })
        .dynamic_namespace(dynamic, |ns| register(ns, &app, false))
        .build()?;
    let _ = app.server.set(server.clone());
    Ok(server)
}

fn register(ns: &mut Namespace, app: &App, says_auth: bool) {
    if says_auth {
        ns.on_connect(|socket| async move {
            tokio::time::sleep(Duration::from_millis(5)).await;
            let auth: Value = socket.auth().unwrap_or_else(|_| json!({}));
            let _ = socket.emit("auth", &auth);
        });
    }
    let reasons = app.reasons.clone();
    ns.on_disconnect(move |socket, reason, _| {
        if let Ok(mut reasons) = reasons.lock() {
            reasons.insert(socket.id().to_string(), reason.to_string());
        }
        async {}
    });
    ns.on_raw("message", |socket, event| {
        if let Ok(relay) = event.relay("message-back") {
            let _ = socket.within(socket.id()).emit_relay(relay);
        }
    });
    ns.on_raw("message-with-ack", |socket, event| event.answer_same(socket));
    register_rooms(ns, app);
    register_emits(ns, app);
    register_state(ns, app);
}

fn register_rooms(ns: &mut Namespace, app: &App) {
    ns.on("join", |socket, room: String| async move {
        socket.join(room);
        "ok"
    });
    ns.on("leave", |socket, room: String| async move {
        socket.leave(room);
        "ok"
    });
    ns.on("rooms", |socket, _: serde::de::IgnoredAny| async move {
        let mut rooms = socket.rooms().await;
        rooms.sort_unstable();
        rooms
    });
    ns.on("to", |socket, to: To| async move {
        let from = if to.with_self { socket.within(Vec::<String>::new()) } else { socket.broadcast() };
        let mut chosen = from
            .to(to.rooms.map(Rooms::list).unwrap_or_default())
            .except(to.except.map(Rooms::list).unwrap_or_default());
        if to.volatile {
            chosen = chosen.volatile();
        }
        let _ = chosen.emit_args(&to.event, &Many(to.args));
        "ok"
    });
    let app_ = app.clone();
    ns.on("fetch", move |socket, room: Option<String>| {
        let chosen = all_or_room(&app_, &socket, room);
        async move {
            let mut found: Vec<Value> = Vec::new();
            for info in chosen.fetch_sockets().await {
                let mut rooms = info.rooms().to_vec();
                rooms.sort_unstable();
                found
                    .push(json!({ "id": info.id().to_string(), "rooms": rooms, "data": shown(info.data()) }));
            }
            found
        }
    });
    let app_ = app.clone();
    ns.on("sockets-join", move |socket, (room, other): (String, String)| {
        let _ = all_or_room(&app_, &socket, Some(room)).sockets_join(other);
        async { "ok" }
    });
    let app_ = app.clone();
    ns.on("sockets-leave", move |socket, (room, other): (String, String)| {
        let _ = all_or_room(&app_, &socket, Some(room)).sockets_leave(other);
        async { "ok" }
    });
    let app_ = app.clone();
    ns.on_raw("disconnect-sockets", move |socket, event| {
        event.answer(socket, "ok");
        if let Ok((room, close)) = event.decode::<(String, bool)>() {
            let _ = all_or_room(&app_, socket, Some(room)).disconnect_sockets(close);
        }
    });
    ns.on("disconnect-me", |socket, close: Option<bool>| async move {
        if close == Some(true) { socket.disconnect_connection() } else { socket.disconnect() }
    });
}

fn register_emits(ns: &mut Namespace, app: &App) {
    let app_ = app.clone();
    ns.on("ask", move |socket, ask: Ask| {
        let room = ask.room.clone().map(|room| all_or_room(&app_, &socket, Some(room)));
        async move {
            let timeout = Duration::from_millis(ask.timeout);
            match room {
                Some(room) => {
                    let Ok(acks) = room.emit_with_acks(&ask.event, &Many(ask.args), timeout).await else {
                        return json!({ "error": "not sent", "answers": [] });
                    };
                    let answers: Vec<Value> = acks.answers.iter().map(first).collect();
                    if acks.timed_out {
                        json!({ "error": AckFault::TimedOut.to_string(), "answers": answers })
                    } else {
                        json!({ "answers": answers })
                    }
                }
                None => match socket.emit_with_ack(&ask.event, &Many(ask.args), timeout).await {
                    Ok(answer) => json!({ "answers": answer.values().unwrap_or_default() }),
                    Err(fault) => json!({ "error": fault.to_string(), "answers": [] }),
                },
            }
        }
    });
    ns.on_raw("ask-me", |socket, event| {
        let mut args = event.decode_all::<Vec<Loose>>().unwrap_or_default().into_iter();
        let Some(Loose::Other(Value::String(event))) = args.next() else { return };
        let (socket, rest) = (socket.clone(), args.collect::<Vec<Loose>>());
        spawn(async move {
            if let Ok(answer) = socket.emit_with_ack(&event, &Many(rest), Duration::from_secs(10)).await {
                let values = answer.decode_all::<Vec<Loose>>().unwrap_or_default();
                let _ = socket.emit_args("asked", &Many(values), Flags::default());
            }
        });
    });
    ns.on("burst", |socket, n: u32| async move {
        for i in 0..n {
            let _ = socket.emit("burst", &i);
        }
    });
    ns.on("volatile-burst", |socket, n: u32| async move {
        for i in 0..n {
            let _ = socket.emit_volatile("volatile-burst", &i);
        }
    });
    ns.on("bin", |socket, n: usize| async move {
        let bytes: Vec<u8> = (0..n).map(|i| i as u8).collect();
        let _ = socket.emit("bin", &Binary::from(bytes));
    });
    ns.on("bin-many", |socket, n: usize| async move {
        let many: Vec<Binary> = (0..n).map(|i| Binary::from(vec![i as u8])).collect();
        match socket.emit("bin-many", &many) {
            Ok(()) => json!("ok"),
            Err(error) => json!({ "error": error.to_string() }),
        }
    });
    ns.on("text", |socket, text: Text| async move {
        let flags = Flags { uncompressed: !text.compress, ..Flags::default() };
        let _ = socket.emit_args("text", &One("x".repeat(text.bytes)), flags);
    });
    let app_ = app.clone();
    ns.on_raw("later", move |socket, event| {
        event.answer(socket, "ok");
        let Ok(later) = event.decode::<Later>() else { return };
        let room = later.room.clone().unwrap_or_else(|| socket.id().to_string());
        let mut chosen = all_or_room(&app_, socket, Some(room));
        if later.volatile {
            chosen = chosen.volatile();
        }
        spawn(async move {
            tokio::time::sleep(Duration::from_millis(later.ms)).await;
            let _ = chosen.emit_args(&later.event, &Many(later.args));
        });
    });
    ns.on("drop-me", |socket, _: serde::de::IgnoredAny| async move { socket.sever() });
}

fn register_state(ns: &mut Namespace, app: &App) {
    ns.on("set-data", |socket, data: Value| async move {
        socket.set_data(data);
        "ok"
    });
    ns.on("get-data", |socket, _: serde::de::IgnoredAny| async move { shown(socket.data()) });
    ns.on("recovered", |socket, _: serde::de::IgnoredAny| async move { socket.recovered() });
    let reasons = app.reasons.clone();
    ns.on("last-reason", move |_, id: String| {
        let reason = reasons.lock().ok().and_then(|reasons| reasons.get(&id).cloned());
        async move { json!(reason) }
    });
    let app_ = app.clone();
    ns.on("namespaces", move |_, _: serde::de::IgnoredAny| {
        let server = app_.server().clone();
        async move {
            let mut names: Vec<String> = server.stats(false).await.namespaces.into_keys().collect();
            for fixed in ["/", "/custom", "/guarded"] {
                if !names.iter().any(|name| name == fixed) {
                    names.push(fixed.to_owned());
                }
            }
            names.sort_unstable();
            names
        }
    });
    ns.on_raw("handshake", |socket, event| event.answer(socket, handshake(socket, event)));
}

fn handshake(socket: &Socket, _: &Event<'_>) -> Value {
    let handshake = socket.handshake();
    let headers: serde_json::Map<String, Value> =
        handshake.headers().map(|(name, value)| (name.to_owned(), value.into())).collect();
    let mut query = serde_json::Map::new();
    for pair in handshake.query().split('&').filter(|pair| !pair.is_empty()) {
        let key = pair.split('=').next().unwrap_or_default();
        query.insert(key.to_owned(), handshake.query_value(key).unwrap_or_default().into());
    }
    json!({
        "headers": headers,
        "query": query,
        "auth": socket.auth::<Value>().unwrap_or_else(|_| json!({})),
        "address": handshake.address().map(|address| address.ip().to_string()),
        "secure": handshake.is_secure(),
        "xdomain": handshake.is_cross_domain(),
        "url": handshake.url(),
    })
}

fn all_or_room(app: &App, socket: &Socket, room: Option<String>) -> Broadcaster {
    let all = app.server().of(socket.namespace());
    match room {
        Some(room) => all.to(room),
        None => all,
    }
}

/// The first value of an answer, as broadcasts show it.
fn first(answer: &Answered) -> Value {
    answer.values().ok().and_then(|values| values.into_iter().next()).unwrap_or(Value::Null)
}

/// Data is an empty object until somebody sets it.
fn shown(data: Value) -> Value {
    if data.is_null() { json!({}) } else { data }
}

fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    // Raw handlers run on a shard's thread, in the context of that thread's own runtime.
    tokio::spawn(task);
}
