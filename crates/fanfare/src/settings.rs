//! Owns the settings as people write them: every section and key, its meaning and its default, in one table.
//! Does not convert them into what the program uses; that is `config.rs`.
//!
//! The manual of each key is its doc comment here; `fanfare config default` prints exactly that.

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
        /// How long a shutdown may take to close connections, spread out so that clients do not all come back at
        /// once. Longer: gentler on the server that takes over. Shorter: faster restarts.
        drain: String = "5s".into(),
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

    /// What the process writes about itself.
    log: Log {
        /// "error", "warn", "info", "debug" or "trace".
        level: String = "info".into(),
        /// "pretty" for people, "json" for machines.
        format: String = "pretty".into(),
    }
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
