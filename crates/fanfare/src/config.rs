//! Owns the settings as the program uses them, and how they are gathered: flags over environment over file.
//! Does not know what each key means; its manual is in `settings.rs`. Invariant: text is converted here, once.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hub::presence::PresenceLimits;
use tools::ToolSettings;

use crate::auth::AuthConfig;
use crate::cluster::ClusterConfig;
use crate::drain::Pace;
use crate::foreign::AdapterConfig;
use crate::limits::LimitsConfig;
use crate::rabbitmq::RabbitmqConfig;
use crate::realtime::PresenceConfig;
use crate::redis_ingest::RedisIngestConfig;
use crate::runners::RunnersConfig;
use crate::settings::{self, ENTRIES, RawConfig};

/// The file that is read if no other is named and it is there.
pub(crate) const FILE_DEFAULT: &str = "fanfare.toml";

/// Names that other servers' set-ups use, and the keys that they stand for.
const ALIASES: &[(&str, &str)] = &[
    ("REST_API_HOST", "api.host"),
    ("REST_API_PORT", "api.port"),
    ("SOCKETIO_HOST", "realtime.host"),
    ("SOCKETIO_PORT", "realtime.port"),
    ("SOCKETIO_CORS_ORIGINS", "cors.origins"),
    ("SOCKET_CORS_ORIGIN", "cors.origins"),
    ("SOCKET_PING_TIMEOUT", "socketio.ping_timeout"),
    ("SOCKET_PING_INTERVAL", "socketio.ping_interval"),
    ("JWT_SECRET", "auth.jwt_secret"),
    ("FANFARE_SIGNING_SECRET", "auth.signing_secret"),
    ("FANFARE_API_KEY", "auth.api_key"),
    ("FANFARE_DATA_DIR", "store.data_dir"),
    ("RABBITMQ_URL", "rabbitmq.url"),
    ("REDIS_URL", "redis.url"),
];

/// Everything that a server needs to know to start.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// Whether unauthenticated listeners may be reached from other machines.
    pub(crate) insecure: bool,
    /// How a shutdown lets connections go.
    pub(crate) drain: Pace,
    /// Threads that own connections; `None` is one for each core.
    pub(crate) shards: Option<usize>,
    /// The api listener, if it is to be opened.
    pub(crate) api: Option<Listener>,
    /// Whether the api listener serves Socket.IO.
    pub(crate) api_socketio: bool,
    /// The realtime listener, if it is to be opened.
    pub(crate) realtime: Option<Listener>,
    /// Who may use the server from a page of another origin.
    pub(crate) origins: Origins,
    /// Who may come in.
    pub(crate) auth: AuthConfig,
    /// What holds for rooms.
    pub(crate) policies: hub::policy::Policies,
    /// Different filters through which one room may be watched.
    pub(crate) filters_per_room_max: usize,
    /// What is told of who is there.
    pub(crate) presence: PresenceConfig,
    /// Where logs and records are kept, if not in Redis.
    pub(crate) store: store_sqlite::Options,
    /// Redis, which makes this server one of several.
    pub(crate) cluster: Option<ClusterConfig>,
    /// Bounds of the HTTP interface.
    pub(crate) rest: RestLimits,
    /// Whose webhooks are taken, if any are.
    pub(crate) github: Option<Github>,
    /// What is taken from RabbitMQ, if there is a broker.
    pub(crate) rabbitmq: Option<RabbitmqConfig>,
    /// What is taken from Redis, if anything is.
    pub(crate) redis_ingest: Option<RedisIngestConfig>,
    /// Servers and emitters of other making, if there may be any.
    pub(crate) adapter: Option<AdapterConfig>,
    /// Where runners hear of what people decide, if anywhere.
    pub(crate) runners: Option<RunnersConfig>,
    /// The tools that sockets may ask, by id.
    pub(crate) tools: BTreeMap<String, tools::ToolConfig>,
    /// How much one may ask for.
    pub(crate) limits: LimitsConfig,
    /// Settings of the shards.
    pub(crate) engine: engine::Config,
    /// Threshold of compressed polling replies.
    pub(crate) http_compression: Option<usize>,
    /// Time that a request's headers may take.
    pub(crate) header_timeout: Duration,
    /// Bytes of a request's headers.
    pub(crate) header_bytes_max: usize,
    /// TCP connections held at once; `None` is no bound of ours.
    pub(crate) connections_max: Option<usize>,
    /// Least severe level that is logged.
    pub(crate) log_level: tracing::Level,
    /// How logs are written.
    pub(crate) log_format: LogFormat,
}

/// One listener.
#[derive(Clone, Debug)]
pub(crate) struct Listener {
    /// Name or address.
    pub(crate) host: String,
    /// Port; 0 takes any.
    pub(crate) port: u16,
    /// Certificate and key, if it speaks TLS.
    pub(crate) tls: Option<TlsFiles>,
}

/// PEM files of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TlsFiles {
    /// The certificate and its chain.
    pub(crate) certificate: PathBuf,
    /// The private key.
    pub(crate) key: PathBuf,
}

/// Which origins may use the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origins {
    /// Every one.
    Any,
    /// These, in lower case and without a slash at the end.
    List(Vec<String>),
}

/// Bounds of the HTTP interface.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RestLimits {
    /// Bytes of one body.
    pub(crate) body_bytes_max: usize,
    /// Time that a body may take to arrive.
    pub(crate) body_timeout: Duration,
    /// Events of one batch.
    pub(crate) batch_events_max: usize,
    /// Rooms of one event.
    pub(crate) rooms_per_event_max: usize,
    /// How long a job stays after its end; zero is for ever, as for the others.
    pub(crate) jobs_kept: Duration,
    /// How long a run stays after its end.
    pub(crate) runs_kept: Duration,
    /// How long a room that was made by hand is listed.
    pub(crate) rooms_kept: Duration,
}

/// Whose webhooks are taken.
#[derive(Clone, Debug)]
pub(crate) struct Github {
    /// What GitHub signs them with.
    pub(crate) secret: ::auth::secret::Secret,
    /// The project of each repository, whose names are in lower case.
    pub(crate) repositories: BTreeMap<String, String>,
}

/// How logs are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// For people.
    Pretty,
    /// One JSON object a line.
    Json,
}

/// Settings that cannot be used, and where they came from. Whoever wrote them is at fault.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ConfigFault {
    /// The file, variable or flag.
    source: String,
    complaint: String,
}

impl std::fmt::Display for ConfigFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.source.is_empty() {
            return f.write_str(&self.complaint);
        }
        write!(f, "{}: {}", self.source, self.complaint)
    }
}

impl std::error::Error for ConfigFault {}

/// Gathers settings, the weakest source first: [`Layers::file`], [`Layers::environment`], [`Layers::set`] for each
/// flag, then [`Layers::finish`].
#[derive(Default)]
pub(crate) struct Layers {
    table: toml::Table,
    /// Tools have ids that nobody knows beforehand, so they are not in the table of settings.
    tools: BTreeMap<String, ToolSettings>,
}

impl Layers {
    /// Takes a file's text.
    ///
    /// # Errors
    /// It is not TOML, has an unknown key, or a value of the wrong kind.
    pub(crate) fn file(&mut self, path: &Path, text: &str) -> Result<(), ConfigFault> {
        let source = path.display().to_string();
        let fault = |complaint: String| ConfigFault { source: source.clone(), complaint };
        let table: toml::Table = toml::from_str(text).map_err(|error| {
            // Not the line itself, which the error would show: it may hold a secret.
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            fault(format!("line {}: {}", before.matches('\n').count() + 1, error.message()))
        })?;
        let defaults = settings::defaults();
        for (section, keys) in table {
            let toml::Value::Table(keys) = keys else {
                return Err(fault(unknown(&section)));
            };
            if section == "tools" {
                for (id, settings) in keys {
                    let settings = settings.try_into().map_err(|error: toml::de::Error| {
                        // What is wrong with a key, not its value: it may be a secret.
                        fault(format!("tools.{id}: {}", error.message()))
                    })?;
                    self.tools.insert(id, settings);
                }
                continue;
            }
            if !defaults.contains_key(&section) {
                return Err(fault(unknown(&section)));
            }
            for (key, value) in keys {
                self.put(&format!("{section}.{key}"), value).map_err(&fault)?;
            }
        }
        Ok(())
    }

    /// Takes what is meant for us from the environment.
    ///
    /// Of the names that begin with `FANFARE_` only those with `__` are settings: container platforms make up names
    /// such as `FANFARE_PORT` on their own.
    ///
    /// # Errors
    /// An unknown key, or a value of the wrong kind.
    pub(crate) fn environment(
        &mut self,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<(), ConfigFault> {
        let variables: Vec<(String, String)> = variables
            .into_iter()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        // Ours come last, so that they win over names made for other servers.
        for (alias, key) in ALIASES.iter().rev() {
            let Some((_, value)) = variables.iter().find(|(name, value)| name == alias && !value.is_empty())
            else {
                continue;
            };
            // These two are numbers of milliseconds where they come from.
            let is_milliseconds =
                alias.starts_with("SOCKET_PING_") && value.bytes().all(|b| b.is_ascii_digit());
            let value = if is_milliseconds { format!("{value}ms") } else { value.clone() };
            self.set(key, &value).map_err(|fault| ConfigFault { source: (*alias).to_owned(), ..fault })?;
        }
        for (name, value) in &variables {
            let Some((section, key)) = name.strip_prefix("FANFARE_").and_then(|rest| rest.split_once("__"))
            else {
                continue;
            };
            let key = format!("{}.{}", section.to_lowercase(), key.to_lowercase());
            self.set(&key, value).map_err(|fault| ConfigFault { source: name.clone(), ..fault })?;
        }
        Ok(())
    }

    /// Takes one setting as text, such as `api.port` and `8001`. Lists are separated by commas.
    ///
    /// # Errors
    /// An unknown key, or a text that is not of its kind.
    pub(crate) fn set(&mut self, key: &str, text: &str) -> Result<(), ConfigFault> {
        let fault = |complaint: String| ConfigFault { source: format!("--set {key}"), complaint };
        let Some(default) = default_of(key) else { return Err(fault(unknown(key))) };
        let value = match default {
            toml::Value::Boolean(_) => match text {
                "true" | "1" | "yes" | "on" => toml::Value::Boolean(true),
                "false" | "0" | "no" | "off" => toml::Value::Boolean(false),
                other => return Err(fault(format!("{key} is true or false, not `{other}`"))),
            },
            toml::Value::Integer(_) => toml::Value::Integer(
                text.trim().parse().map_err(|_| fault(format!("{key} is a whole number, not `{text}`")))?,
            ),
            // Tables, and lists of them, have no plainer text than TOML.
            toml::Value::Table(_) => inline(key, text).map_err(&fault)?,
            toml::Value::Array(_) if text.trim_start().starts_with('[') => {
                inline(key, text).map_err(&fault)?
            }
            toml::Value::Array(_) => {
                let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
                toml::Value::Array(items.map(|item| toml::Value::String(item.to_owned())).collect())
            }
            _ => toml::Value::String(text.to_owned()),
        };
        self.put(key, value).map_err(fault)
    }

    fn put(&mut self, key: &str, value: toml::Value) -> Result<(), String> {
        let default = default_of(key).ok_or_else(|| unknown(key))?;
        if default.type_str() != value.type_str() {
            return Err(format!("{key} is of kind {}, not {}", default.type_str(), value.type_str()));
        }
        let (section, name) = key.split_once('.').ok_or_else(|| unknown(key))?;
        let section = self.table.entry(section).or_insert_with(|| toml::Value::Table(toml::Table::new()));
        if let toml::Value::Table(section) = section {
            section.insert(name.to_owned(), value);
        }
        Ok(())
    }

    /// Converts what was gathered.
    ///
    /// # Errors
    /// A value that is out of bounds or does not say what it should.
    pub(crate) fn finish(self) -> Result<Config, ConfigFault> {
        let names_origins = self.table.get("cors").is_some_and(|cors| cors.get("origins").is_some());
        let raw: RawConfig =
            toml::Value::Table(self.table).try_into().map_err(|error: toml::de::Error| ConfigFault {
                source: String::new(),
                complaint: error.message().into(),
            })?;
        let fault = |complaint| ConfigFault { source: String::new(), complaint };
        let mut config = convert(raw, names_origins).map_err(fault)?;
        for (id, settings) in self.tools {
            let variable = |name: &str| std::env::var(name).ok();
            let tool =
                settings.into_config(&id, &variable).map_err(|complaint| fault(complaint.to_string()))?;
            config.tools.insert(id, tool);
        }
        Ok(config)
    }
}

/// The value of a key that is written as TOML.
fn inline(key: &str, text: &str) -> Result<toml::Value, String> {
    let table: Option<toml::Table> = toml::from_str(&format!("value = {text}")).ok();
    let value = table.filter(|table| table.len() == 1).and_then(|mut table| table.remove("value"));
    value.ok_or_else(|| {
        format!("{key} is a table or list as TOML writes it, such as {{ join = \"everyone\" }}")
    })
}

fn default_of(key: &str) -> Option<toml::Value> {
    let entry = ENTRIES.iter().find(|entry| key.split_once('.') == Some((entry.section, entry.key)))?;
    Some(settings::default_of(&settings::defaults(), entry))
}

/// Names a key that there is not, and the nearest that there is.
fn unknown(key: &str) -> String {
    let known = ENTRIES.iter().map(|entry| format!("{}.{}", entry.section, entry.key));
    let names: Vec<String> = if key.contains('.') {
        known.collect()
    } else {
        settings::SECTIONS.iter().map(|(section, _)| (*section).to_owned()).collect()
    };
    let nearest = names.iter().min_by_key(|name| {
        // A key that is right but in the wrong section is nearer than its distance says.
        let is_elsewhere = name.rsplit('.').next() == key.rsplit('.').next();
        (!is_elsewhere, strsim::osa_distance(name, key))
    });
    match nearest {
        Some(nearest) if key.contains('.') => {
            format!("there is no setting `{key}`; the nearest is `{nearest}`")
        }
        Some(nearest) => format!("there is no section `{key}`; the nearest is `{nearest}`"),
        None => format!("there is no setting `{key}`"),
    }
}

fn store_options(store: &settings::StoreSettings) -> Result<store_sqlite::Options, String> {
    if store.data_dir.is_empty() {
        return Err("store.data_dir is empty: name the folder where logs and records are kept".to_owned());
    }
    let synchronous = match store.synchronous.as_str() {
        "full" => store_sqlite::Synchronous::Full,
        "normal" => store_sqlite::Synchronous::Normal,
        other => return Err(format!("store.synchronous is \"full\" or \"normal\", not \"{other}\"")),
    };
    let mut options = store_sqlite::Options::new(Path::new(&store.data_dir).join("fanfare.db"));
    options.synchronous = synchronous;
    options.bytes_max = u64::try_from(store.bytes_max).ok().filter(|bytes| *bytes > 0);
    Ok(options)
}

fn convert(raw: RawConfig, names_origins: bool) -> Result<Config, String> {
    let RawConfig {
        server,
        api,
        realtime,
        cors,
        rest,
        socketio,
        recovery,
        auth,
        limits,
        rooms,
        presence,
        forget,
        runs,
        store,
        redis,
        cluster,
        github,
        rabbitmq,
        redis_ingest,
        adapter,
        log,
    } = raw;
    let redis_ingest = settings::RedisIngest {
        // What it does not say is as for the cluster.
        url: if redis_ingest.url.is_empty() { redis.url.clone() } else { redis_ingest.url },
        ca_file: if redis_ingest.ca_file.is_empty() { redis.ca_file.clone() } else { redis_ingest.ca_file },
        ..redis_ingest
    };
    let adapter = settings::AdapterSettings {
        url: if adapter.url.is_empty() { redis.url.clone() } else { adapter.url },
        ca_file: if adapter.ca_file.is_empty() { redis.ca_file.clone() } else { adapter.ca_file },
        ..adapter
    };
    let auth = AuthConfig::convert(auth)?;
    let policies = crate::auth::policies(&rooms, auth.is_open)?;
    let store = store_options(&store)?;
    let transports = transports(&socketio.transports)?;
    let recovery = if recovery.enabled {
        Some(engine::Recovery {
            disconnection_max: duration("recovery.disconnection_max", &recovery.disconnection_max)?,
            log_bytes_max: recovery.log_bytes_max,
        })
    } else {
        None
    };
    let engine = engine::Config {
        ping_interval: nonzero("socketio.ping_interval", &socketio.ping_interval)?,
        ping_timeout: nonzero("socketio.ping_timeout", &socketio.ping_timeout)?,
        upgrade_timeout: nonzero("socketio.upgrade_timeout", &socketio.upgrade_timeout)?,
        connect_timeout: nonzero("socketio.connect_timeout", &socketio.connect_timeout)?,
        close_grace: duration("socketio.close_grace", &socketio.close_grace)?,
        payload_bytes_max: at_least("socketio.message_bytes_max", socketio.message_bytes_max, 1)?,
        post_packets_max: at_least("socketio.post_packets_max", socketio.post_packets_max, 1)?,
        poll_packets_max: at_least("socketio.poll_packets_max", socketio.poll_packets_max, 1)?,
        poll_bytes_max: at_least("socketio.poll_bytes_max", socketio.poll_bytes_max, 1)?,
        outbox_bytes_max: at_least("socketio.outbox_bytes_max", socketio.outbox_bytes_max, 1024)?,
        // Two rooms are joined without being asked for.
        rooms_per_socket_max: at_least("socketio.rooms_per_socket_max", socketio.rooms_per_socket_max, 2)?,
        namespaces_per_session_max: at_least(
            "socketio.namespaces_per_session_max",
            socketio.namespaces_per_session_max,
            1,
        )?,
        acks_per_socket_max: socketio.acks_per_socket_max,
        transports,
        allow_upgrades: socketio.allow_upgrades,
        deflate_threshold: Some(socketio.websocket_deflate_bytes_min).filter(|bytes| *bytes > 0),
        recovery,
        ..engine::Config::default()
    };
    if server.shards > 256 {
        return Err(format!("server.shards of {} exceeds 256", server.shards));
    }
    if !api.enabled && !realtime.enabled {
        return Err("both listeners are switched off: enable api or realtime".to_owned());
    }
    // Something to try the way with, where nobody is harmed by it.
    let tools = if auth.is_open {
        BTreeMap::from([("echo".to_owned(), tools::ToolConfig::echo())])
    } else {
        BTreeMap::new()
    };
    Ok(Config {
        insecure: server.insecure,
        drain: Pace {
            time: duration("server.drain_time", &server.drain_time)?,
            per_second_max: NonZeroU32::new(server.drain_rate),
            time_max: duration("server.drain_time_max", &server.drain_time_max)?,
        },
        shards: Some(usize::from(server.shards)).filter(|shards| *shards > 0),
        api: if api.enabled {
            let tls = tls("api", &api.tls_certificate, &api.tls_key)?;
            Some(Listener { host: api.host, port: api.port, tls })
        } else {
            None
        },
        api_socketio: api.socketio,
        realtime: if realtime.enabled {
            let tls = tls("realtime", &realtime.tls_certificate, &realtime.tls_key)?;
            Some(Listener { host: realtime.host, port: realtime.port, tls })
        } else {
            None
        },
        // The default is for pages that are being developed on this machine.
        origins: if auth.is_open || names_origins {
            origins(&cors.origins)?
        } else {
            Origins::List(Vec::new())
        },
        auth,
        policies,
        filters_per_room_max: rooms.filters_max,
        presence: presence_settings(&presence)?,
        store,
        cluster: ClusterConfig::convert(redis, cluster)?,
        rest: RestLimits {
            body_bytes_max: at_least("rest.body_bytes_max", rest.body_bytes_max, 1)?,
            body_timeout: nonzero("rest.body_timeout", &rest.body_timeout)?,
            batch_events_max: at_least("rest.batch_events_max", rest.batch_events_max, 1)?,
            rooms_per_event_max: at_least("rest.rooms_per_event_max", rest.rooms_per_event_max, 1)?,
            jobs_kept: duration("forget.jobs", &forget.jobs)?,
            runs_kept: duration("forget.runs", &forget.runs)?,
            rooms_kept: duration("forget.rooms", &forget.rooms)?,
        },
        github: github_settings(github)?,
        runners: runners(runs)?,
        rabbitmq: RabbitmqConfig::convert(rabbitmq)?,
        redis_ingest: RedisIngestConfig::convert(redis_ingest)?,
        adapter: AdapterConfig::convert(adapter)?,
        tools,
        limits: LimitsConfig::convert(&limits)?,
        engine,
        http_compression: Some(socketio.http_compression_bytes_min).filter(|bytes| *bytes > 0),
        header_timeout: nonzero("socketio.header_timeout", &socketio.header_timeout)?,
        header_bytes_max: at_least("socketio.header_bytes_max", socketio.header_bytes_max, 8192)?,
        connections_max: Some(socketio.connections_max).filter(|connections| *connections > 0),
        log_level: log
            .level
            .parse()
            .map_err(|_| format!("log.level is error, warn, info, debug or trace, not `{}`", log.level))?,
        log_format: match log.format.as_str() {
            "pretty" => LogFormat::Pretty,
            "json" => LogFormat::Json,
            other => return Err(format!("log.format is pretty or json, not `{other}`")),
        },
    })
}

fn presence_settings(presence: &settings::PresenceSettings) -> Result<PresenceConfig, String> {
    let limits = PresenceLimits {
        grace: duration("presence.grace", &presence.grace)?,
        named_max: presence.named_max,
        count_interval: nonzero("presence.count_interval", &presence.count_interval)?,
        ..PresenceLimits::default()
    };
    Ok(PresenceConfig { limits, agent_grace: duration("presence.agent_grace", &presence.agent_grace)? })
}

fn runners(runs: settings::Runs) -> Result<Option<RunnersConfig>, String> {
    let settings::Runs { webhook, webhook_secret: secret, webhook_timeout } = runs;
    let timeout = nonzero("runs.webhook_timeout", &webhook_timeout)?;
    let url = crate::auth::url("runs.webhook", webhook)?;
    Ok(url.map(|url| RunnersConfig { url, secret, timeout }))
}

fn github_settings(github: settings::GithubSettings) -> Result<Option<Github>, String> {
    let settings::GithubSettings { secret, repositories } = github;
    if secret.is_empty() {
        if repositories.is_empty() {
            return Ok(None);
        }
        return Err("github.repositories are named, but github.secret is not set".to_owned());
    }
    let mut projects = BTreeMap::new();
    for (name, project) in repositories {
        if name.split('/').filter(|part| !part.is_empty()).count() != 2 {
            return Err(format!("github.repositories: `{name}` is no repository; write it as owner/name"));
        }
        hub::room::RoomName::of(hub::room::RoomKind::Project, &project)
            .map_err(|fault| format!("github.repositories: the project of `{name}`: {fault}"))?;
        projects.insert(name.to_lowercase(), project);
    }
    Ok(Some(Github { secret, repositories: projects }))
}

/// Reads a duration such as `25s`.
///
/// # Errors
/// Whoever wrote the setting is at fault.
pub(crate) fn duration(key: &str, text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|_| format!("{key} is a duration such as 25s, 500ms or 2m, not `{text}`"))
}

/// As [`duration`], but not nothing.
///
/// # Errors
/// Whoever wrote the setting is at fault.
pub(crate) fn nonzero(key: &str, text: &str) -> Result<Duration, String> {
    let duration = duration(key, text)?;
    if duration.is_zero() { Err(format!("{key} must be more than nothing")) } else { Ok(duration) }
}

pub(crate) fn at_least(key: &str, value: usize, least: usize) -> Result<usize, String> {
    if value < least { Err(format!("{key} of {value} is less than {least}")) } else { Ok(value) }
}

fn transports(names: &[String]) -> Result<engine::Transports, String> {
    let mut transports = engine::Transports { polling: false, websocket: false };
    for name in names {
        match name.as_str() {
            "polling" => transports.polling = true,
            "websocket" => transports.websocket = true,
            other => return Err(format!("socketio.transports knows polling and websocket, not `{other}`")),
        }
    }
    if names.is_empty() {
        return Err("socketio.transports must name polling, websocket or both".to_owned());
    }
    Ok(transports)
}

fn tls(section: &str, certificate: &str, key: &str) -> Result<Option<TlsFiles>, String> {
    match (certificate.is_empty(), key.is_empty()) {
        (true, true) => Ok(None),
        (false, false) => Ok(Some(TlsFiles { certificate: certificate.into(), key: key.into() })),
        _ => {
            Err(format!("{section}.tls_certificate and {section}.tls_key go together: give both or neither"))
        }
    }
}

fn origins(names: &[String]) -> Result<Origins, String> {
    if names.iter().any(|name| name == "*") {
        return if names.len() == 1 {
            Ok(Origins::Any)
        } else {
            Err("cors.origins: `*` stands alone, because it makes the others pointless".to_owned())
        };
    }
    let mut list = Vec::with_capacity(names.len());
    for name in names {
        let host = name.strip_prefix("http://").or_else(|| name.strip_prefix("https://"));
        let origin = name.trim_end_matches('/').to_ascii_lowercase();
        if host.is_none_or(|host| host.trim_end_matches('/').contains('/') || host.is_empty()) {
            return Err(format!("cors.origins: `{name}` is no origin; write it as https://app.example.com"));
        }
        list.push(origin);
    }
    Ok(Origins::List(list))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layers(file: &str, environment: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<Config, String> {
        let mut layers = Layers::default();
        layers.file(Path::new("fanfare.toml"), file).map_err(|fault| fault.to_string())?;
        let environment = environment.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        layers.environment(environment).map_err(|fault| fault.to_string())?;
        for (key, text) in flags {
            layers.set(key, text).map_err(|fault| fault.to_string())?;
        }
        layers.finish().map_err(|fault| fault.to_string())
    }

    #[track_caller]
    fn refused(file: &str, environment: &[(&str, &str)], with: &str) {
        let complaint = layers(file, environment, &[]).expect_err("it is accepted");
        assert!(complaint.contains(with), "{complaint}");
    }

    #[test]
    fn flags_win_over_environment_over_file() {
        let file = "[api]\nport = 1\nhost = \"::1\"\n[socketio]\nping_interval = \"1s\"";
        let environment =
            [("FANFARE_API__PORT", "2"), ("REST_API_PORT", "9"), ("SOCKET_PING_INTERVAL", "60000")];
        let config = layers(file, &environment, &[]).unwrap();
        let api = config.api.unwrap();
        assert_eq!((api.host.as_str(), api.port), ("::1", 2));
        assert_eq!(config.engine.ping_interval, Duration::from_secs(60));
        assert_eq!(layers(file, &environment, &[("api.port", "3")]).unwrap().api.unwrap().port, 3);
    }

    #[test]
    fn the_manual_read_back_is_the_default() {
        let from_manual = layers(&settings::manual(), &[], &[]).unwrap();
        let default = layers("", &[], &[]).unwrap();
        assert_eq!(format!("{from_manual:?}"), format!("{default:?}"));
        let engine =
            engine::Config { recovery: Some(engine::Recovery::default()), ..engine::Config::default() };
        assert_eq!(format!("{:?}", default.engine), format!("{engine:?}"), "our defaults are the engine's");
    }

    #[test]
    fn unknown_names_are_refused_with_the_nearest_known_one() {
        refused("[socketio]\nping_intervall = \"1s\"", &[], "`socketio.ping_interval`");
        refused("[ap]\nport = 1", &[], "nearest is `api`");
        refused("[server]\nbody_bytes_max = 1", &[], "`rest.body_bytes_max`");
        refused("port = 1", &[], "there is no section `port`");
        refused("", &[("FANFARE_API__PROT", "1")], "FANFARE_API__PROT: there is no setting `api.prot`");
    }

    #[test]
    fn values_of_another_kind_or_out_of_bounds_are_refused() {
        refused("[api]\nport = \"1\"", &[], "api.port is of kind integer, not string");
        refused("[api]\nport = 70000", &[], "70000");
        refused("[api]\nport = -1", &[], "-1");
        refused("", &[("REST_API_PORT", "eight")], "REST_API_PORT: api.port is a whole number, not `eight`");
        refused("[socketio]\nping_interval = \"soon\"", &[], "socketio.ping_interval is a duration");
        refused("[socketio]\nping_interval = \"0s\"", &[], "socketio.ping_interval must be more");
        refused("[socketio]\ntransports = []", &[], "socketio.transports must name");
        refused("[api]\ntls_key = \"k.pem\"", &[], "go together");
        refused("[cors]\norigins = [\"*\", \"http://a\"]", &[], "`*` stands alone");
        refused("[cors]\norigins = [\"app.example.com\"]", &[], "is no origin");
        refused("[api]\nenabled = false\n[realtime]\nenabled = false", &[], "both listeners");
        refused("[log]\nlevel = \"loud\"", &[], "log.level");
        refused("[auth]\nmode = \"safe\"", &[], "auth.mode is auto, dev or production");
        refused("[auth]\nmode = \"production\"", &[], "auth.mode is production");
        refused("[auth]\njwks_url = \"keys.example.com\"", &[], "auth.jwks_url");
        refused("[rooms.project]\njoin = \"all\"", &[], "rooms.project.join");
        refused("[rooms.project]\njion = \"everyone\"", &[], "jion");
        refused("[rooms.projects]\njoin = \"everyone\"", &[], "`rooms.project`");
        refused("[[rooms.patterns]]\njoin = \"everyone\"", &[], "name");
        refused("[rabbitmq]\nurl = \"http://rabbit\"", &[], "rabbitmq.url is no address of a broker");
    }

    #[test]
    fn secrets_are_not_repeated_by_errors_or_shown_by_settings() {
        for file in [
            "[auth]\njwt_secret = \"hunter2",
            "[auth]\njwt_secret = hunter2",
            "[auth]\napi_keys = [\"hunter2\"]",
            "[auth]\napi_keys = [\"a:hunter2:read\"]",
            "[auth]\njwt_secret = \"hunter2\"\njwt_secret = \"hunter2\"",
        ] {
            let complaint = layers(file, &[], &[]).expect_err(file);
            assert!(!complaint.contains("hunter2"), "{complaint}");
        }
        let environment = [
            ("JWT_SECRET", "hunter2"),
            ("FANFARE_SIGNING_SECRET", "hunter2"),
            ("FANFARE_API_KEY", "hunter2"),
        ];
        let config = layers("", &environment, &[]).unwrap();
        assert!(!config.auth.is_open);
        assert_eq!(config.origins, Origins::List(Vec::new()), "no page of this machine by default");
        assert!(!format!("{config:?}").contains("hunter2"));
    }

    #[test]
    fn policies_of_rooms_come_from_tables_and_patterns() {
        use hub::policy::{Delivery, Rule};
        use hub::room::RoomName;
        let file = "[rooms]\nevents_max = 7\n[rooms.project]\njoin = \"role:staff\"\nage_max = \"1h\"\n\
                    [[rooms.patterns]]\nname = \"cursor-*\"\ndelivery = \"volatile\"\npresence = false";
        let environment = [("FANFARE_ROOMS__TASKS", "{ publish = \"nobody\" }")];
        let policies = layers(file, &environment, &[]).unwrap().policies;
        let of = |name: &str| policies.of(&RoomName::parse(name).unwrap()).clone();
        let project = of("project:1");
        assert_eq!(project.join, Rule::Role("staff".into()));
        assert_eq!((project.retention.events_max, project.retention.age_max), (7, Duration::from_secs(3600)));
        assert_eq!(of("tasks").publish, Rule::Nobody);
        assert_eq!((of("cursor-1").delivery, of("cursor-1").has_presence), (Delivery::Volatile, false));
        assert_eq!(of("else").delivery, Delivery::Log);
    }

    #[test]
    fn names_made_for_other_servers_are_understood() {
        let config = layers(
            "",
            &[
                ("REST_API_HOST", "127.0.0.2"),
                ("SOCKETIO_HOST", "::1"),
                ("SOCKETIO_PORT", "7001"),
                ("SOCKETIO_CORS_ORIGINS", "http://a:3000, https://b/"),
                ("SOCKET_PING_TIMEOUT", "60000"),
                ("FANFARE_PORT", "tcp://10.0.0.1:80"),
            ],
            &[],
        )
        .unwrap();
        assert_eq!(config.api.unwrap().host, "127.0.0.2");
        let realtime = config.realtime.unwrap();
        assert_eq!((realtime.host.as_str(), realtime.port), ("::1", 7001));
        assert_eq!(config.origins, Origins::List(vec!["http://a:3000".into(), "https://b".into()]));
        assert_eq!(config.engine.ping_timeout, Duration::from_secs(60));
        assert_eq!(layers("", &[("SOCKET_CORS_ORIGIN", "*")], &[]).unwrap().origins, Origins::Any);
    }
}
