//! Owns the settings as people write them: every section and key, its meaning and its default, in one table.
//! Does not convert them into what the program uses; that is `config.rs`.
//!
//! The manual of each key is its doc comment here; `fanfare config default` prints exactly that.

use auth::secret::Secret;
use serde::{Deserialize, Serialize};

/// One key as the manual shows it.
pub(crate) struct Entry {
    /// Its section, such as `api`.
    pub(crate) section: &'static str,
    /// Its name within the section.
    pub(crate) key: &'static str,
    /// The manual's lines.
    pub(crate) manual: &'static [&'static str],
}

/// Declares the sections: a struct each, `RawConfig` with all of them, and `ENTRIES` with the manual.
macro_rules! settings {
    ($(
        $(#[doc = $section_doc:literal])+
        $section:ident: $Section:ident {
            $( $(#[doc = $doc:literal])+ $key:ident: $kind:ty = $default:expr, )+
        }
    )+) => {
        $(
            $(#[doc = $section_doc])+
            #[derive(Clone, Debug, Deserialize, Serialize)]
            #[serde(default, deny_unknown_fields)]
            pub(crate) struct $Section { $( $(#[doc = $doc])+ pub(crate) $key: $kind, )+ }

            impl Default for $Section {
                fn default() -> Self {
                    Self { $( $key: $default, )+ }
                }
            }
        )+

        /// All settings, as text and numbers.
        #[derive(Clone, Debug, Default, Deserialize, Serialize)]
        #[serde(default, deny_unknown_fields)]
        pub(crate) struct RawConfig { $( $(#[doc = $section_doc])+ pub(crate) $section: $Section, )+ }

        /// The manual, section by section.
        pub(crate) const SECTIONS: &[(&str, &[&str])] = &[ $( (stringify!($section), &[$($section_doc),+]), )+ ];

        /// The manual, key by key.
        pub(crate) const ENTRIES: &[Entry] = &[ $( $(
            Entry { section: stringify!($section), key: stringify!($key), manual: &[$($doc),+] },
        )+ )+ ];
    };
}

settings! {
    /// The process as a whole.
    server: Server {
        /// Lets a listener bind an address that other machines can reach, although nobody has to say who they are.
        /// Without it such an address is refused.
        insecure: bool = false,
        /// Time over which a shutdown lets connections go, evenly, so that clients do not all come back at once. New
        /// sessions are refused meanwhile, everything else goes on. Longer: gentler on the server that takes over.
        /// Shorter: faster restarts. "0s": all at once.
        drain_time: String = "10s".into(),
        /// Connections a second that a shutdown lets go at most: with many of them it takes longer than
        /// `server.drain_time`, up to `server.drain_time_max`. 0: as many as that time demands.
        drain_rate: u32 = 0,
        /// Longest time that `server.drain_rate` makes of it. Whoever stops the process must be ready to wait for a little
        /// more.
        drain_time_max: String = "60s".into(),
        /// Threads that own connections. 0: one for each core.
        shards: u16 = 0,
    }

    /// The listener of the HTTP interface, the page, and Socket.IO.
    api: Api {
        /// Whether it is opened at all.
        enabled: bool = true,
        /// Address to bind; a name is looked up.
        host: String = "127.0.0.1".into(),
        /// Port to bind; 0 takes any that is free.
        port: u16 = 8000,
        /// Whether Socket.IO is served here too, at `/socket.io/` and `/ws/socket.io/`.
        socketio: bool = true,
        /// PEM file with the certificate and its chain. Empty: no TLS. Read again when it changes.
        tls_certificate: String = String::new(),
        /// PEM file with the private key of that certificate.
        tls_key: String = String::new(),
    }

    /// The listener that serves Socket.IO alone, with `/health` and `/stats`.
    realtime: Realtime {
        /// Whether it is opened at all.
        enabled: bool = true,
        /// Address to bind; a name is looked up.
        host: String = "127.0.0.1".into(),
        /// Port to bind; 0 takes any that is free.
        port: u16 = 7000,
        /// PEM file with the certificate and its chain. Empty: no TLS. Read again when it changes.
        tls_certificate: String = String::new(),
        /// PEM file with the private key of that certificate.
        tls_key: String = String::new(),
    }

    /// Pages of other origins.
    cors: Cors {
        /// Origins whose pages may use the server, such as `https://app.example.com`. The server's own pages always
        /// may. `*` lets every page in; it must be written out and stand alone.
        origins: Vec<String> = [
            "http://localhost:3000",
            "http://localhost:3001",
            "http://127.0.0.1:3000",
            "http://127.0.0.1:3001",
        ].map(String::from).to_vec(),
    }

    /// The HTTP interface.
    rest: Rest {
        /// Bytes of one request's body. More is refused with `body_too_large`.
        body_bytes_max: usize = 1_000_000,
        /// Time that a body may take to arrive.
        body_timeout: String = "30s".into(),
        /// Events of one batch. More is refused with `too_many`.
        batch_events_max: usize = 1_000,
        /// Rooms that one event may name. More is refused with `too_many`.
        rooms_per_event_max: usize = 100,
    }

    /// Socket.IO and the transports below it.
    socketio: Socketio {
        /// Silence before the server asks whether the other side is still there. Lower: more packets from idle
        /// sessions. Higher: proxies that cut idle links after 30 s or 60 s start to do so.
        ping_interval: String = "25s".into(),
        /// Silence allowed after that question. Lower: phones reconnect in loops. Higher: dead sessions hold memory.
        ping_timeout: String = "20s".into(),
        /// Transports that a session may begin with: "polling", "websocket".
        transports: Vec<String> = ["polling", "websocket"].map(String::from).to_vec(),
        /// Whether a polling session is offered a WebSocket.
        allow_upgrades: bool = true,
        /// Time that the change from polling to WebSocket may take.
        upgrade_timeout: String = "10s".into(),
        /// Time a new session has to connect to a namespace; then it is closed.
        connect_timeout: String = "45s".into(),
        /// How long a closing polling session waits for the request that takes its last packets.
        close_grace: String = "30s".into(),
        /// Bytes of one message. A longer WebSocket message closes its session; a longer POST gets 413.
        message_bytes_max: usize = 1_000_000,
        /// Bytes that may wait for one session that does not read; then it is disconnected, and may recover.
        outbox_bytes_max: usize = 1_048_576,
        /// Packets in one POST.
        post_packets_max: usize = 10_000,
        /// Packets in one polling reply. python-engineio accepts no more than 16.
        poll_packets_max: usize = 16,
        /// Bytes of a polling reply after which the rest waits for the next request.
        poll_bytes_max: usize = 1_000_000,
        /// Rooms that one socket may be in. A further join is refused with `too_many_rooms`.
        rooms_per_socket_max: usize = 1_024,
        /// Namespaces that one session may be in.
        namespaces_per_session_max: usize = 64,
        /// Acks that one socket may owe the server.
        acks_per_socket_max: u32 = 4_096,
        /// WebSocket messages of at least this many bytes are compressed, if the other side can. 0: none are; it
        /// costs more CPU than most messages are worth.
        websocket_deflate_bytes_min: usize = 0,
        /// Polling replies of at least this many bytes are compressed, if the other side can. 0: none are.
        http_compression_bytes_min: usize = 1_024,
        /// Time that a request's headers may take to arrive.
        header_timeout: String = "10s".into(),
        /// Bytes of a request's first line and headers; at least 8192.
        header_bytes_max: usize = 16_384,
        /// TCP connections held at once; further ones wait to be accepted. 0: as many as the system allows.
        connections_max: usize = 0,
    }

    /// Connection state recovery: a client that was away for a moment gets its rooms and missed events back.
    recovery: Recovery {
        /// Whether it is offered.
        enabled: bool = true,
        /// How long a lost client may come back.
        disconnection_max: String = "2m".into(),
        /// Bytes of events kept for that, for each shard. When full the oldest go, and who would need them starts
        /// afresh.
        log_bytes_max: usize = 67_108_864,
    }

    /// Who may come in. As soon as one of the secrets, keys or the connect hook is given, everybody must say who they
    /// are; without any, everybody may come in, and only addresses of this machine may be bound.
    auth: Auth {
        /// "auto": as said above. "production": authentication is needed, and without any the server does not start.
        /// "dev": everybody may come in, also without a token; tokens that do come are checked.
        mode: String = "auto".into(),
        /// Secret of tokens signed with HS256, HS384 or HS512; at least 32 bytes, or it can be guessed. Also the
        /// variable JWT_SECRET.
        jwt_secret: Secret = Secret::default(),
        /// PEM file with the public keys (RSA, P-256, P-384, Ed25519) of tokens that are signed with private ones.
        jwt_public_key: String = String::new(),
        /// Address of the issuer's key set (JWKS).
        jwks_url: String = String::new(),
        /// How often the key set is fetched anew. Lower: keys that were withdrawn end sooner. Higher: fewer requests.
        jwks_refresh: String = "10m".into(),
        /// Least time between two fetches when tokens name unknown keys. Lower: new keys are known sooner. Higher:
        /// senders of made-up tokens cause fewer requests.
        jwks_refresh_min: String = "10s".into(),
        /// Issuers (`iss`) whose tokens are taken. Empty: any that has the key.
        issuer: Vec<String> = Vec::new(),
        /// Audiences (`aud`) that tokens may be meant for. Empty: only tokens that name no audience.
        audience: Vec<String> = Vec::new(),
        /// By how much the issuer's clock may differ from ours.
        leeway: String = "5s".into(),
        /// Whether tokens that never expire are refused.
        require_expiry: bool = false,
        /// Secret of signed pairs `user:signature`. Also the variable FANFARE_SIGNING_SECRET.
        signing_secret: Secret = Secret::default(),
        /// One API key as plain text, with every scope. Also the variable FANFARE_API_KEY.
        api_key: Secret = Secret::default(),
        /// More API keys, each "name:hash:scope+scope" as `fanfare key make` prints it. Scopes: publish, read, admin.
        api_keys: Vec<Secret> = Vec::new(),
        /// Address in the application that is asked who a socket is, if no other setting tells. Empty: nobody is.
        connect_hook_url: String = String::new(),
        /// Address in the application that is asked whether somebody may join a room that they were not granted.
        /// Empty: they may not.
        access_hook_url: String = String::new(),
        /// Time that an answer of a hook or key set may take.
        hook_timeout: String = "3s".into(),
        /// How long a hook's answer holds. Lower: changes are noticed sooner. Higher: fewer requests. "0s": it is asked
        /// every time.
        hook_cache: String = "10s".into(),
        /// How long before its token expires a socket is told `token_expiring`.
        expiry_warning: String = "60s".into(),
        /// How long a revocation is kept: at least as long as the longest-lived token, which could be used again after
        /// it. Longer: those that no longer matter count towards the 100,000 that there may be. "0s": for ever.
        revocations_kept: String = "90d".into(),
        /// Whether `/metrics` may be read without a key.
        metrics_public: bool = false,
    }

    /// How much one may ask for, so that nobody takes what is others'. 0 switches a limit off. Whoever is beyond one is
    /// refused with `rate_limited` and told when to try again; nothing is disconnected.
    limits: Limits {
        /// Commands a second of one socket.
        commands_per_socket: u32 = 1_000,
        /// Commands a second of all sockets of one user together.
        commands_per_user: u32 = 5_000,
        /// Sessions opened and namespaces connected to, a second, from one address (of IPv6: one /64). Behind a proxy
        /// everybody comes from its address.
        handshakes_per_address: u32 = 1_000,
        /// Requests a second with one API key, or with tokens of one admin.
        requests_per_key: u32 = 5_000,
        /// Events and log lines a second that are published with them.
        events_per_key: u32 = 50_000,
        /// How many seconds' worth of these may come at once. Lower: evener load. Higher: more patience with whoever
        /// comes rarely and with a lot. Whole seconds.
        burst: String = "20s".into(),
        /// Sockets of one user, in all namespaces, those included that were lost a moment ago and may come back. A
        /// further one is refused with `too_many_sockets`.
        sockets_per_user: usize = 1_000,
    }

    /// Rooms: what holds for each kind. A kind is a table with any of: `join` and `publish` ("everyone", "owner",
    /// "granted", `role:<name>` or "nobody"), `delivery` ("log", "latest" or "volatile"), `presence` (true or false),
    /// and `events_max`, `bytes_max`, `age_max`. What is left out has the default of its kind: presence is told in
    /// `admin`, in rooms of a project, agent, job or run, and in rooms of other names.
    rooms: Rooms {
        /// Events kept of one room's log. When more come, the oldest go.
        events_max: u64 = 10_000,
        /// Bytes kept of one room's log. When more come, the oldest events go.
        bytes_max: u64 = 16_777_216,
        /// Age at which an event leaves the log.
        age_max: String = "7d".into(),
        /// Different filters through which one room may be watched; each of its events is compared with each. A further
        /// one is refused with `too_many`. Higher: busy rooms cost more.
        filters_max: usize = 100,
        /// `global`, where everybody is.
        global: RawPolicy = RawPolicy::default(),
        /// `user:<id>`, where that user's sockets are.
        user: RawPolicy = RawPolicy::default(),
        /// `session:<id>`, where that session's sockets are.
        session: RawPolicy = RawPolicy::default(),
        /// `dashboard`, which mirrors the topics.
        dashboard: RawPolicy = RawPolicy::default(),
        /// `agents`, a topic.
        agents: RawPolicy = RawPolicy::default(),
        /// `tasks`, a topic.
        tasks: RawPolicy = RawPolicy::default(),
        /// `metrics`, a topic.
        metrics: RawPolicy = RawPolicy::default(),
        /// `workflows`, a topic.
        workflows: RawPolicy = RawPolicy::default(),
        /// `system`, a topic.
        system: RawPolicy = RawPolicy::default(),
        /// `admin`, for operators.
        admin: RawPolicy = RawPolicy::default(),
        /// `project:<id>`.
        project: RawPolicy = RawPolicy::default(),
        /// `agent:<id>`.
        agent: RawPolicy = RawPolicy::default(),
        /// `job:<id>`.
        job: RawPolicy = RawPolicy::default(),
        /// `run:<id>`.
        run: RawPolicy = RawPolicy::default(),
        /// Rooms of any other name that no pattern matches.
        other: RawPolicy = RawPolicy::default(),
        /// Rooms of other names, as a list of tables: `name` is a pattern in which `*` stands for anything, the rest
        /// as above. The first that matches holds.
        patterns: Vec<RawPolicy> = Vec::new(),
    }

    /// Who is there: what members are told of each other in rooms whose `presence` is true (`presence_joined`,
    /// `presence_left`, the command `presence`), and what is told of agents (`agent.connected`, `agent.disconnected`).
    presence: PresenceSettings {
        /// How long a user may be without a socket before a room is told that they have left. Lower: reconnecting shows.
        /// Higher: somebody who has gone seems to be there. "0s": it is told at once.
        grace: String = "10s".into(),
        /// Users of a room up to which they are named. In a larger one only their number is told (`presence_count`).
        /// Higher: a room that fills at once costs the square of it in events.
        named_max: usize = 100,
        /// Least time between two counts of one room.
        count_interval: String = "5s".into(),
        /// How long an agent may be without a socket before that is told. Lower: reconnecting shows. Higher: one that
        /// broke down seems to live on. "0s": it is told at once.
        agent_grace: String = "10s".into(),
    }

    /// What goes by itself once it is over, so that a server does not grow for ever. Events of rooms go by `rooms.age_max`,
    /// `rooms.events_max` and `rooms.bytes_max`. "0s": never.
    forget: Forget {
        /// How long a job stays after its end. Holds for jobs that are made from then on. Lower: who asks late finds
        /// nothing. Higher: the database grows.
        jobs: String = "30d".into(),
        /// How long a run stays after its end. Holds for runs that are started from then on.
        runs: String = "30d".into(),
        /// How long a room that was made by `POST /api/v1/rooms` is listed after it was last asked for.
        rooms: String = "30d".into(),
    }

    /// What runners of runs hear. They may also ask: `GET /api/v1/runs/{id}/control?wait=30s`.
    runs: Runs {
        /// Address to which what people decide is POSTed, `{thread_id, command}`, until it is answered with 2xx. Empty:
        /// none. With one, commands count as arrived when it has answered.
        webhook: String = String::new(),
        /// Secret by which requests are signed: `X-Fanfare-Signature-256: sha256=<hex HMAC-SHA256 of the body>`. Empty:
        /// they are not.
        webhook_secret: Secret = Secret::default(),
        /// Time that one request may take.
        webhook_timeout: String = "10s".into(),
    }

    /// Where logs and records are kept.
    store: StoreSettings {
        /// Folder of the database; it is made if it is not there. One process at a time may use it. FANFARE_DATA_DIR.
        data_dir: String = "fanfare-data".into(),
        /// What an answer promises: "full" survives the loss of power, "normal" the end of the process only, and is
        /// faster on slow disks.
        synchronous: String = "full".into(),
        /// Bytes that the database may take; then publishing into logs is refused until something went. 0: as many as
        /// the disk has.
        bytes_max: usize = 0,
    }

    /// Redis: with it, logs and records are kept there, and all servers with the same address and prefix are one. See
    /// `docs/OPERATING.md`.
    redis: Redis {
        /// Address, such as `redis://user:password@host:6379/0`; `rediss://` over TLS, `redis+sentinel://host,host/name` for
        /// the master of that name, `redis+cluster://host,host` for a Cluster. Redis 7 or newer, with
        /// `maxmemory-policy noeviction`. Empty: logs and records are kept in a file, and this server is alone. Also the
        /// variable REDIS_URL.
        url: Secret = Secret::default(),
        /// What all keys begin with. Servers with another one share nothing with these.
        prefix: String = "fanfare".into(),
        /// PEM file with certificates of authorities that are trusted instead of the public ones, for `rediss://`.
        ca_file: String = String::new(),
        /// Replicas that must have an event before it is answered. More: a failover loses less, and publishing waits.
        replicas: u32 = 0,
        /// How long Redis is waited for until publishing is refused with `store_unavailable`. Longer: restarts pass
        /// unnoticed, publishers wait.
        patience: String = "5s".into(),
    }

    /// This server as one of several; only with Redis.
    cluster: ClusterSettings {
        /// How long a server that does not say anything is still thought to be there. Lower: what died is noticed
        /// sooner. Higher: one that pauses, or cannot reach Redis for a moment, does not seem to be gone.
        lease: String = "10s".into(),
        /// IP address at which the other servers reach this one, to pass on polling requests of its sessions. Empty: that
        /// of the interface by which Redis is reached. Must not be reachable for clients.
        host: String = String::new(),
        /// Port there; 0 takes any that is free.
        port: u16 = 0,
    }

    /// Webhooks of GitHub, at `/webhooks/github`.
    github: GithubSettings {
        /// Secret that GitHub signs them with. Empty: none are taken.
        secret: Secret = Secret::default(),
        /// The project of each repository, such as { "owner/name" = "my-project" }. Others are ignored.
        repositories: std::collections::BTreeMap<String, String> = std::collections::BTreeMap::new(),
    }

    /// RabbitMQ: events that are taken from a queue, and Celery's tasks as jobs. See `docs/QUEUES.md`.
    rabbitmq: Rabbitmq {
        /// Address of the broker, such as `amqp://user:password@host:5672/vhost`; `amqps://` over TLS. Empty: there is
        /// none. Also the variable RABBITMQ_URL.
        url: Secret = Secret::default(),
        /// PEM file with certificates of authorities that are trusted beside the public ones, for `amqps://`.
        ca_file: String = String::new(),
        /// Queue that events are taken from. Empty: none are; Celery and tools may use the broker all the same.
        queue: String = "fanfare.events".into(),
        /// Exchange that the queue is bound to. Empty: only the default one reaches it, by the queue's name.
        exchange: String = "fanfare".into(),
        /// What that exchange is: "topic", "direct", "fanout" or "headers".
        exchange_kind: String = "topic".into(),
        /// Keys by which the queue is bound.
        routing_keys: Vec<String> = vec!["#".to_owned()],
        /// Whether exchanges, queues and bindings are made, durable, if they are not there. Otherwise they must be.
        declare: bool = true,
        /// Messages that are taken before the first of them is acknowledged. Lower: less comes twice after a kill, and
        /// is recognised. Higher: more is kept by one flush of the disk.
        prefetch: u16 = 500,
        /// Queue for messages that can never be kept, with the reason in their headers. Empty: they are rejected, and
        /// the broker drops them or does what the queue's own policy says.
        dead_letter: String = "fanfare.dead".into(),
        /// What bodies are: "events", one event or an array of them as `POST /api/v1/events` takes it; or "raw", any
        /// JSON, which becomes the data of one event.
        mode: String = "events".into(),
        /// Room of raw bodies, made from the message, such as `project:{header.project}` or `build:{routing_key.1}`. Empty:
        /// where the event's own schema says.
        room: String = String::new(),
        /// Event that raw bodies are, made alike, such as `{type}`.
        event: String = String::new(),
        /// Rooms that messages may name, as patterns such as `project:acme`. Others are refused. `*`: all.
        rooms: Vec<String> = vec!["*".to_owned()],
        /// How often a message of our own goes through each queue, to notice when none comes. "0s": never; do that if
        /// others take messages from the same queue.
        canary_interval: String = "3s".into(),
        /// Celery's tasks as jobs: a table with `project`, whose jobs they become, and if they differ from what is said
        /// here `exchange` ("celeryev") and `queue` ("fanfare.celery").
        celery: RawCelery = RawCelery::default(),
    }

    /// Events that are taken from Redis: from a stream, each kept once, and from a channel. See `docs/REDIS.md`.
    redis_ingest: RedisIngest {
        /// Address of Redis, such as `redis://user:password@host:6379/0`; `rediss://` over TLS; also `redis+sentinel://`
        /// and `redis+cluster://`. Empty: that of `redis.url`.
        url: Secret = Secret::default(),
        /// PEM file with certificates of authorities that are trusted instead of the machine's, for `rediss://`. Empty:
        /// that of `redis.ca_file`.
        ca_file: String = String::new(),
        /// Stream that events are taken from by a consumer group. Empty: none are.
        stream: String = String::new(),
        /// The consumer group; it is made if it is not there. Servers with one store share one group; a server with a
        /// store of its own needs a group of its own.
        group: String = "fanfare".into(),
        /// Name within the group. Empty: the machine's. One that stays the same finds its unfinished entries at once
        /// after a restart.
        consumer: String = String::new(),
        /// Entries that are read at once. Lower: less is read again after a kill, and is recognised. Higher: more is
        /// kept by one flush of the disk.
        batch: usize = 500,
        /// How long an entry may be unfinished at another consumer before it is taken over. Lower than what a slow
        /// store may take: entries are read twice, and recognised. Higher: what a dead consumer had waits that much
        /// longer.
        claim_after: String = "30s".into(),
        /// Channel that events are taken from, as they come: what is published while nobody listens is lost. With `*`,
        /// `?` or `[` it is a pattern. Empty: none are.
        channel: String = String::new(),
        /// Whether servers at the same channel take turns, so that each event is kept once. Set it to false if each has
        /// a store of its own.
        take_turns: bool = true,
        /// Stream for what can never be kept, with the reason. Empty: the stream's (or channel's) name in braces, and
        /// `.dead`.
        dead_letter: String = String::new(),
        /// Entries of that stream; the oldest go.
        dead_letter_max: usize = 100_000,
        /// Rooms that events may name, as patterns such as `project:acme`. Others are refused. `*`: all.
        rooms: Vec<String> = vec!["*".to_owned()],
    }

    /// Socket.IO servers and emitters in Node and Python that speak over Redis: what they send reaches our sockets, and
    /// what is published here reaches theirs. Nothing of it is kept. See `docs/REDIS.md`.
    adapter: AdapterSettings {
        /// Whether they are heard, where there is a Redis.
        enabled: bool = true,
        /// Address of Redis, as `redis_ingest.url`. Empty: that of `redis.url`.
        url: Secret = Secret::default(),
        /// PEM file with certificates of authorities that are trusted instead of the machine's, for `rediss://`. Empty:
        /// that of `redis.ca_file`.
        ca_file: String = String::new(),
        /// What servers in Node use: "classic" (`createAdapter`, and emitters), "sharded" (`createShardedAdapter`) or
        /// "sharded-static" (the same with `subscriptionMode: "static"`). All must use the same.
        kind: String = "classic".into(),
        /// What their channels begin with: their option `key` or `channelPrefix`.
        prefix: String = "socket.io".into(),
        /// Namespaces that are shared with them: "/", "/ws", "/logs", "/admin".
        namespaces: Vec<String> = ["/", "/ws"].map(String::from).to_vec(),
        /// Channel of python-socketio's managers. Empty: they are not heard. Flask-SocketIO has "flask-socketio".
        python_channel: String = "socketio".into(),
        /// How long their answers are waited for.
        patience: String = "5s".into(),
    }

    /// What the process writes about itself.
    log: Log {
        /// "error", "warn", "info", "debug" or "trace".
        level: String = "info".into(),
        /// "pretty" for people, "json" for machines.
        format: String = "pretty".into(),
    }
}

/// What holds for rooms, as far as it is not the default.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RawPolicy {
    /// The pattern, in the list of patterns.
    pub(crate) name: Option<String>,
    /// Who may join.
    pub(crate) join: Option<String>,
    /// Who may send events into it from a socket.
    pub(crate) publish: Option<String>,
    /// How events are kept.
    pub(crate) delivery: Option<String>,
    /// Whether members are told of each other.
    pub(crate) presence: Option<bool>,
    /// Events kept.
    pub(crate) events_max: Option<u64>,
    /// Bytes kept.
    pub(crate) bytes_max: Option<u64>,
    /// Age at which events go.
    pub(crate) age_max: Option<String>,
}

/// Where Celery's tasks are told of.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RawCelery {
    /// The project whose jobs they become.
    pub(crate) project: Option<String>,
    /// The exchange that workers publish to.
    pub(crate) exchange: Option<String>,
    /// The queue that is bound to it.
    pub(crate) queue: Option<String>,
}

/// The default of a key, as TOML.
pub(crate) fn default_of(defaults: &toml::Table, entry: &Entry) -> toml::Value {
    defaults
        .get(entry.section)
        .and_then(|section| section.get(entry.key))
        .cloned()
        .expect("invariant: the table and its defaults come from one declaration")
}

/// All defaults, as TOML.
pub(crate) fn defaults() -> toml::Table {
    toml::Table::try_from(RawConfig::default()).expect("invariant: defaults are plain text and numbers")
}

/// The whole manual as a `fanfare.toml` in which everything has its default.
pub(crate) fn manual() -> String {
    let defaults = defaults();
    let mut text = String::from(
        "# Settings of fanfare, all at their defaults. Flags come before environment variables, those before this\n\
         # file. The variable of a key is FANFARE_SECTION__KEY, such as FANFARE_API__PORT.\n",
    );
    for (section, manual) in SECTIONS {
        text.push('\n');
        for line in *manual {
            text.push_str(&format!("#{line}\n"));
        }
        text.push_str(&format!("[{section}]\n"));
        for entry in ENTRIES.iter().filter(|entry| entry.section == *section) {
            for line in entry.manual {
                text.push_str(&format!("#{line}\n"));
            }
            text.push_str(&format!("{} = {}\n", entry.key, default_of(&defaults, entry)));
        }
    }
    text
}
