//! Owns `fanfare serve`: puts the engine, the routes and the listeners together, and ends them.
//! Does not know settings' text or commands' meaning.

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use bus::Bus;
use engine::{Server, Serving};
use hub::record::State as _;
use hub::store::Store;
use store_redis::RedisStore;
use store_sqlite::SqliteStore;
use tokio::signal::unix::{SignalKind, signal};

use crate::auth::Authenticator;
use crate::cluster;
use crate::config::{Config, Listener, Origins};
use crate::dispatch::{Dispatcher, DueRule, Peers, Terms, due_rule};
use crate::filters::Filters;
use crate::foreign::Foreign;
use crate::limits::Limits;
use crate::rabbitmq::{self, Queues};
use crate::realtime::{self, Hub, Member};
use crate::redis_ingest::Ingest;
use crate::rest::{self, App};
use crate::runners::Runners;
use crate::tally::Tally;
use crate::{drain, tls};

/// The engine's paths on the api listener.
const API_PATHS: [&str; 2] = ["/socket.io/", "/ws/socket.io/"];

/// Serves until the process is told to stop.
///
/// # Errors
/// A listener cannot be opened, or its certificate cannot be used.
pub(crate) async fn run(config: Config, print_addresses: bool) -> anyhow::Result<()> {
    // Listened to before anything is announced: who starts us may stop us at once.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;

    let listeners = [("api", config.api.as_ref()), ("realtime", config.realtime.as_ref())];
    let mut doors = Vec::new();
    for (name, listener) in listeners.into_iter().filter_map(|(name, listener)| Some((name, listener?))) {
        let may_be_reached = config.insecure || !config.auth.is_open;
        doors.push((name, listener, free_address(name, listener, may_be_reached).await?));
    }
    let auth = Authenticator::start(&config.auth, config.policies.clone())?;
    let tally = Arc::new(Tally::new());
    let line_to = |place: &tools::Place| rabbitmq::line_to(config.rabbitmq.as_ref(), place);
    let tools = tools::Tools::with_lines(config.tools.clone(), tokio::runtime::Handle::current(), &line_to)?;
    let limits = Limits::new(&config.limits);
    tokio::spawn(limits.clone().sweep());
    let hub =
        Arc::new(Hub::new(tally.clone(), limits, auth.clone(), &config.engine, &config.presence, tools));
    let (store, peers) = match &config.cluster {
        Some(cluster) => {
            let node = cluster::join(cluster).await?;
            (Kept::Redis(node.store.clone()), Some(node))
        }
        None => (Kept::Sqlite(Arc::new(SqliteStore::open(config.store.clone())?)), None),
    };
    let bus = peers.as_ref().map(|node| node.bus.clone());
    let server = build(&config, &hub, bus.clone()).context("the engine could not start")?;
    let policies = Arc::new(config.policies.clone());
    let postman = Arc::downgrade(&hub);
    let due_rules: Vec<(hub::store::RecordKind, DueRule)> = vec![
        (hub::store::RecordKind::Job, Arc::new(|record, now| Ok(due_rule(record, now, hub::job::due)))),
        (hub::agent::Agent::KIND, Arc::new(|record, now| Ok(due_rule(record, now, hub::agent::due)))),
        (
            hub::made_room::MadeRoom::KIND,
            Arc::new(|record, now| Ok(due_rule(record, now, hub::made_room::due))),
        ),
        (hub::run::Run::KIND, Arc::new(|record, now| Ok(due_rule(record, now, hub::run::due)))),
        (Member::KIND, Arc::new(|record, now| Ok(due_rule(record, now, realtime::due)))),
        (
            hub::notification::Inbox::KIND,
            Arc::new(|record, now| {
                Ok(due_rule(record, now, |inbox, now| {
                    hub::notification::due(inbox, now, &hub::notification::NotificationLimits::default())
                }))
            }),
        ),
        (
            hub::store::RecordKind::Revocation,
            Arc::new(|record, now| Ok(due_rule(record, now, crate::auth::revocation_due))),
        ),
        (
            hub::store::RecordKind::Schedule,
            Arc::new(move |record, now| {
                if let Some(hub) = postman.upgrade() {
                    hub.deliver_letter(record, now);
                }
                Ok(due_rule(record, now, hub::schedule::due))
            }),
        ),
    ];
    auth.recall(&*store.port()).await.context("what was revoked cannot be known")?;
    let dispatcher = {
        let filters = Filters::new(config.filters_per_room_max);
        let away_max =
            config.engine.recovery.as_ref().map_or(Duration::ZERO, |recovery| recovery.disconnection_max);
        let terms = Terms {
            server: server.clone(),
            store: store.port(),
            policies,
            filters,
            outbox_bytes_max: config.engine.outbox_bytes_max,
            away_max,
            due_rules,
        };
        let listener = Arc::downgrade(&hub);
        let on_news = Box::new(move |news| {
            if let Some(hub) = listener.upgrade() {
                hub.handle_node_news(news);
            }
        });
        let peers =
            peers.map(|node| (Peers { bus: node.bus, feed: node.feed, on_news }, node.requests, node.reach));
        match peers {
            Some((peers, requests, reach)) => {
                let dispatcher = Dispatcher::start(terms, Some(peers));
                hub.run_on(server.clone(), dispatcher.clone());
                tokio::spawn(hub.clone().answer_nodes(requests));
                tokio::spawn(hub.clone().recount_rooms());
                let bound = server.listen_internal(reach).await;
                let bound = bound.with_context(|| format!("cluster.port: {reach} cannot be bound"))?;
                tracing::info!(address = %bound, "other nodes reach this one");
                dispatcher
            }
            None => Dispatcher::start(terms, None),
        }
    };
    if let Some(runners) = config.runners.clone() {
        hub.tell_runners_by(Runners::start(runners, dispatcher.clone())?);
    }
    hub.run_on(server.clone(), dispatcher);
    let foreign = Foreign::start(config.adapter.as_ref(), &server, &hub);
    hub.dispatcher().mirror_to(foreign.clone());
    tokio::spawn({
        let hub = hub.clone();
        async move { hub.expect_back().await }
    });
    tokio::spawn(hub.clone().watch_presence());
    tokio::spawn(hub.clone().sweep_rooms());
    tokio::spawn(hub.clone().watch_store());
    let app = App {
        server: server.clone(),
        hub,
        limits: config.rest,
        origins: Arc::new(config.origins.clone()),
        cors: rest::cors(&config.origins),
        auth,
        tally,
        rates: Arc::default(),
        github: Arc::new(config.github.clone()),
        queues: rabbitmq::Watch::default(),
        redis_ingest: rabbitmq::Watch::default(),
        foreign: foreign.clone(),
        schedules: Arc::default(),
        made_rooms: Arc::default(),
        is_ready: Arc::new(AtomicBool::new(true)),
        port: Arc::default(),
    };
    tokio::spawn(rest::sample(server.clone(), app.rates.clone()));
    let queues = Queues::start(config.rabbitmq.as_ref(), &app);
    let ingest = Ingest::start(config.redis_ingest.as_ref(), &app);
    let app = App { queues: queues.watch(), redis_ingest: ingest.watch(), ..app };

    let mut open = Vec::new();
    for (name, listener, address) in doors {
        let address = open_door(&server, &app, name, listener, address, config.api_socketio).await?;
        let scheme = if listener.tls.is_some() { "https" } else { "http" };
        open.push(Door { name, url: format!("{scheme}://{address}") });
    }
    announce(&open, &config, print_addresses)?;

    let signal = tokio::select! {
        _ = interrupt.recv() => "SIGINT",
        _ = terminate.recv() => "SIGTERM",
    };
    app.is_ready.store(false, Ordering::Relaxed);
    app.hub.tell_system(hub::admin::SystemNews::Stopping);
    tracing::info!(signal, "stopping");
    let shutdown = async {
        tokio::join!(queues.stop(), ingest.stop(), drain::drain(&server, &config.drain));
        server.shutdown(Duration::ZERO).await;
        foreign.stop();
        if let Some(bus) = &bus {
            bus.close().await;
        }
    };
    tokio::select! {
        () = shutdown => tracing::info!("stopped"),
        _ = interrupt.recv() => tracing::warn!("stopped at once: a second SIGINT came"),
        _ = terminate.recv() => tracing::warn!("stopped at once: a second SIGTERM came"),
    }
    // Nothing is taken any more: what was answered is on disk, and the file is left in order.
    store.close();
    Ok(())
}

/// Where logs and records are kept.
enum Kept {
    Sqlite(Arc<SqliteStore>),
    Redis(Arc<RedisStore>),
}

impl Kept {
    fn port(&self) -> Arc<dyn Store> {
        match self {
            Kept::Sqlite(store) => store.clone(),
            Kept::Redis(store) => store.clone(),
        }
    }

    fn close(&self) {
        match self {
            Kept::Sqlite(store) => store.close(),
            Kept::Redis(store) => store.close(),
        }
    }
}

/// An open listener.
struct Door {
    name: &'static str,
    url: String,
}

fn build(config: &Config, hub: &Arc<Hub>, bus: Option<Bus>) -> std::io::Result<Server> {
    let engine = config.engine.clone();
    let origins = config.origins.clone();
    let opening_hub = hub.clone();
    let mut builder = Server::builder()
        .configure(move |settings| *settings = engine)
        .paths(API_PATHS)
        .http_compression(config.http_compression)
        .body_timeout(config.rest.body_timeout)
        .header_timeout(config.header_timeout)
        .header_bytes_max(config.header_bytes_max)
        .cors(rest::cors(&config.origins))
        // CORS does not hold for WebSocket: without this, any page that somebody opens could watch.
        .allow_request(move |request| {
            let verdict = if rest::is_origin_allowed(&origins, &request.headers) {
                realtime::may_open(&opening_hub, request.address.map(|address| address.ip()))
            } else {
                Err(rest::ORIGIN_ADVICE.to_owned())
            };
            async move { verdict }
        });
    if let Some(bus) = bus {
        builder = builder
            .node(bus.node().0)
            .forward(move |node| bus.nodes().into_iter().find(|other| other.id.0 == node)?.reach);
    }
    if let Some(shards) = config.shards {
        builder = builder.shards(shards);
    }
    if let Some(connections) = config.connections_max {
        builder = builder.connections_max(connections);
    }
    realtime::register(builder, hub).build()
}

/// The address that a listener asks for, if it may be bound and nobody else has it.
async fn free_address(name: &str, listener: &Listener, may_be_reached: bool) -> anyhow::Result<SocketAddr> {
    let Listener { host, port, .. } = listener;
    let address = tokio::net::lookup_host((host.as_str(), *port))
        .await
        .with_context(|| format!("{name}.host: `{host}` cannot be looked up"))?
        .next()
        .with_context(|| format!("{name}.host: `{host}` has no address"))?;
    if !address.ip().is_loopback() && !may_be_reached {
        bail!(
            "{name}: {address} can be reached from other machines, and anyone who reaches it may publish and watch.\n\
             Give JWT_SECRET, FANFARE_API_KEY or another setting of [auth], or bind 127.0.0.1, or allow it with \
             --insecure (FANFARE_SERVER__INSECURE=true)."
        );
    }
    // Asked for once before the engine is built, so that nothing has begun when it is refused.
    std::net::TcpListener::bind(address).with_context(|| {
        format!("{name}: {address} cannot be bound; choose another with --{name}-port or {name}.port")
    })?;
    Ok(address)
}

async fn open_door(
    server: &Server,
    app: &App,
    name: &str,
    listener: &Listener,
    address: SocketAddr,
    api_socketio: bool,
) -> anyhow::Result<SocketAddr> {
    let mut serving = Serving::default().except_paths(rest::CLIENT_PATHS);
    if let Some(files) = &listener.tls {
        let certificate = tls::watched(files.clone()).with_context(|| name.to_owned())?;
        serving = serving.tls(move || certificate.borrow().clone());
    }
    // Each listener's routes tell its own port, which is known once it is bound.
    let port = Arc::new(AtomicU16::new(address.port()));
    let app = App { port: port.clone(), ..app.clone() };
    let serving = if name == "api" {
        let serving = if api_socketio { serving } else { serving.without_engine() };
        serving.application(app.api())
    } else {
        serving.application(app.realtime())
    };
    let bound = server.listen_with(address, serving).await;
    let bound = bound.with_context(|| format!("{name}: {address} cannot be bound"))?;
    port.store(bound.port(), Ordering::Relaxed);
    Ok(bound)
}

/// Tells people where to go, and programs if they asked.
fn announce(open: &[Door], config: &Config, print_addresses: bool) -> anyhow::Result<()> {
    for door in open {
        tracing::info!(listener = door.name, url = door.url, "listening");
    }
    if config.log_format == crate::config::LogFormat::Pretty {
        let mut err = std::io::stderr().lock();
        // A banner that cannot be written is no reason not to serve.
        let _ = err.write_all(banner(open, config, std::io::stderr().is_terminal()).as_bytes());
    }
    if print_addresses {
        let addresses: serde_json::Map<String, serde_json::Value> =
            open.iter().map(|door| (door.name.to_owned(), door.url.clone().into())).collect();
        let mut out = std::io::stdout().lock();
        writeln!(out, "{}", serde_json::Value::Object(addresses))?;
        out.flush()?;
    }
    Ok(())
}

fn banner(open: &[Door], config: &Config, in_colour: bool) -> String {
    let paint = |code: &str, text: &str| {
        if in_colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    };
    let mut text = format!("\n  {} {}\n\n", paint("1;35", "fanfare"), env!("CARGO_PKG_VERSION"));
    for door in open {
        let what = match (door.name, config.api_socketio) {
            ("api", true) => "page, REST, Socket.IO at /socket.io/ and /ws/socket.io/",
            ("api", false) => "page, REST",
            _ => "Socket.IO at /socket.io/",
        };
        text.push_str(&format!("  {:<9} {}   {}\n", door.name, paint("36", &door.url), paint("2", what)));
    }
    let origins = match &config.origins {
        Origins::Any => "pages of any origin".to_owned(),
        Origins::List(list) if list.is_empty() => "own pages only".to_owned(),
        Origins::List(list) => format!("own pages, {}", list.join(", ")),
    };
    text.push_str(&format!("  {:<9} {}\n\n", "browsers", origins));
    let access = if config.auth.is_open {
        paint("33", "No authentication: whoever reaches these addresses may publish and watch.")
    } else {
        "Everybody must say who they are: sockets by a token, requests by a key or an admin's token."
            .to_owned()
    };
    text.push_str(&format!("  {access}\n\n"));
    text
}
