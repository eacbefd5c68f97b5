//! The examples for proxies in `deploy/proxies`: each parsed by its own program, and three of them in front of a server with
//! a stock client behind them.

use std::fs::File;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use testkit::port::Port;
use testkit::redis::RedisServer;
use toml::Value;

use crate::deploy::{default_of, is_served, path_of, text_of};
use crate::fanfare::{DataDir, Fanfare, PATIENCE, agent, until};
use crate::installed::{javascript, succeed};

/// The servers that the examples name.
const NODES: [&str; 3] = ["10.0.0.11:8000", "10.0.0.12:8000", "10.0.0.13:8000"];

/// A proxy that Debian has.
#[derive(Clone, Copy)]
struct Kind {
    program: &'static str,
    file: &'static str,
    /// What the example listens on, and what stands there in a test.
    listens: (&'static str, &'static str),
    /// What else must be different in a test: Caddy has a port for its own settings, and HAProxy would need more
    /// descriptors than a test may have.
    differs: &'static [(&'static str, &'static str)],
    check: &'static [&'static str],
    run: &'static [&'static str],
}

const NGINX: Kind = Kind {
    program: "nginx",
    file: "nginx.conf",
    listens: ("listen 80;", "listen {};"),
    differs: &[("worker_connections 65536", "worker_connections 1024"), ("worker_rlimit_nofile 131072;", "")],
    check: &["-t", "-e", "stderr", "-p", "{folder}", "-g", "pid nginx.pid;", "-c", "{file}"],
    run: &[
        "-e",
        "stderr",
        "-p",
        "{folder}",
        "-g",
        "pid nginx.pid; daemon off; master_process off;",
        "-c",
        "{file}",
    ],
};

const HAPROXY: Kind = Kind {
    program: "haproxy",
    file: "haproxy.cfg",
    listens: ("bind :80", "bind {}"),
    differs: &[("maxconn 100000", "maxconn 1000")],
    check: &["-c", "-f", "{file}"],
    run: &["-db", "-f", "{file}"],
};

const CADDY: Kind = Kind {
    program: "caddy",
    file: "Caddyfile",
    listens: ("\nfanfare.example.com {", "\n{\n\tadmin off\n}\nhttp://{} {"),
    differs: &[],
    check: &["validate", "--config", "{file}", "--adapter", "caddyfile"],
    run: &["run", "--config", "{file}", "--adapter", "caddyfile"],
};

const KINDS: [Kind; 3] = [NGINX, HAPROXY, CADDY];

/// A proxy at work.
struct Proxy {
    child: Child,
    port: Port,
    folder: DataDir,
}

impl Proxy {
    /// Starts one in front of these servers, of which some may be the same.
    fn start(kind: Kind, nodes: [&str; 3]) -> Self {
        let folder = DataDir::new();
        std::fs::create_dir_all(folder.path()).expect("a folder");
        let port = Port::hold();
        let mut text = text_of(&format!("proxies/{}", kind.file));
        let (listens, differently) = kind.listens;
        let listens = (listens, &*differently.replace("{}", &port.address().to_string()));
        let nodes = nodes.map(|url| url.trim_start_matches("http://"));
        for (from, to) in NODES.into_iter().zip(nodes).chain([listens]).chain(kind.differs.iter().copied()) {
            assert!(text.contains(from), "{}: no {from}", kind.file);
            text = text.replace(from, to);
        }
        let file = folder.path().join(kind.file);
        std::fs::write(&file, text).expect("a file");
        let log = File::create(folder.path().join("log")).expect("a log");
        let child = command(kind.program, kind.run, folder.path(), &file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", kind.program));
        let proxy = Self { child, port, folder };
        until(PATIENCE, &format!("{} listens: {}", kind.program, proxy.log()), || {
            TcpStream::connect(proxy.port.address()).is_ok()
        });
        proxy
    }

    fn url(&self) -> String {
        format!("http://{}", self.port.address())
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Both fail only when it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(program: &str, arguments: &[&str], folder: &Path, file: &Path) -> Command {
    // Where system programs are is not in everybody's path.
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new(program);
    command.env("PATH", format!("{path}:/usr/sbin:/sbin")).env("HOME", folder).env_remove("XDG_DATA_HOME");
    let (folder, file) = (folder.to_str().expect("text"), file.to_str().expect("text"));
    command.args(arguments.iter().map(|word| word.replace("{folder}", folder).replace("{file}", file)));
    command
}

/// Silence after which a connection is over, by default; proxies must wait for longer.
fn silence() -> Duration {
    default_of("socketio", "ping_interval") + default_of("socketio", "ping_timeout")
}

#[test]
fn no_example_is_sticky_and_all_wait_longer_than_the_heartbeat() {
    let long_enough: [(&str, &[&str]); 3] = [
        ("nginx.conf", &["proxy_read_timeout ", "proxy_send_timeout "]),
        ("haproxy.cfg", &["timeout client ", "timeout server ", "timeout tunnel "]),
        ("Caddyfile", &["response_header_timeout "]),
    ];
    for (file, names) in long_enough {
        let text = text_of(&format!("proxies/{file}"));
        let lines = || text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
        for node in NODES {
            assert_eq!(text.matches(node).count(), 1, "{file}: {node}");
        }
        for sticky in ["ip_hash", "sticky", "cookie", "balance source", "stick-table", "hash $", "ip_hash"] {
            assert!(lines().all(|line| !line.contains(sticky)), "{file} has {sticky}");
        }
        for name in names {
            let value = lines().find_map(|line| line.strip_prefix(name));
            let value = value.unwrap_or_else(|| panic!("{file}: no {name}")).trim().trim_end_matches(';');
            assert!(humantime::parse_duration(value).expect("a duration") > silence(), "{file}: {name}");
        }
    }
}

#[test]
fn the_example_for_traefik_says_what_it_should() {
    let read = |name: &str| -> Value {
        text_of(&format!("proxies/{name}")).parse::<toml::Table>().expect(name).into()
    };
    let (fixed, dynamic) = (read("traefik.toml"), read("traefik-dynamic.toml"));
    let file = fixed["providers"]["file"]["filename"].as_str().expect("a file");
    assert!(path_of("proxies").join(Path::new(file).file_name().expect("a name")).exists(), "{file}");
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let longer = |value: &Value| humantime::parse_duration(&text(value)).expect("a duration") > silence();

    let router = &dynamic["http"]["routers"]["fanfare"];
    for entry in router["entryPoints"].as_array().expect("entries") {
        let times = &fixed["entryPoints"][entry.as_str().expect("a name")]["transport"]["respondingTimeouts"];
        assert!(longer(&times["readTimeout"]) && longer(&times["idleTimeout"]), "{times}");
        assert_eq!(text(&times["writeTimeout"]), "0s", "none");
    }
    for middleware in router["middlewares"].as_array().expect("middlewares") {
        assert!(dynamic["http"]["middlewares"].get(middleware.as_str().expect("a name")).is_some());
    }
    let balancer = &dynamic["http"]["services"][&*text(&router["service"])]["loadBalancer"];
    let urls: Vec<String> =
        balancer["servers"].as_array().expect("servers").iter().map(|server| text(&server["url"])).collect();
    assert_eq!(urls, NODES.map(|node| format!("http://{node}")));
    assert!(balancer.get("sticky").is_none());
    assert!(is_served(&text(&balancer["healthCheck"]["path"])));
    assert!(text(&balancer["responseForwarding"]["flushInterval"]).starts_with('-'), "at once");
    let transport = &dynamic["http"]["serversTransports"][&*text(&balancer["serversTransport"])];
    assert!(longer(&transport["forwardingTimeouts"]["responseHeaderTimeout"]));
}

#[test]
#[ignore = "needs nginx, HAProxy and Caddy"]
fn proxies_take_their_examples() {
    let folder = DataDir::new();
    std::fs::create_dir_all(folder.path()).expect("a folder");
    for kind in KINDS {
        let file = path_of("proxies").join(kind.file).canonicalize().expect("a file");
        succeed(&mut command(kind.program, kind.check, folder.path(), &file));
    }
}

#[test]
#[ignore = "needs nginx, HAProxy and Caddy, and installs socket.io-client with npm"]
fn a_stock_client_polls_upgrades_and_watches_through_each_proxy() {
    let folder = javascript();
    for kind in KINDS {
        let server = Fanfare::start(&["--only", "api"]);
        let proxy = Proxy::start(kind, [server.api(); 3]);
        let mut node = Command::new("node");
        node.current_dir(&folder).args(["through-proxy.mjs", &proxy.url()]);
        assert!(succeed(&mut node).ends_with("done\n"), "{}: {}", kind.program, proxy.log());
    }
}

#[test]
#[ignore = "needs redis-server, nginx, HAProxy and Caddy, and installs socket.io-client with npm"]
fn three_nodes_behind_a_proxy_need_nothing_sticky() {
    let folder = javascript();
    let redis = RedisServer::start_durable();
    let nodes = [(); 3].map(|()| {
        let mut serve = crate::fanfare::command(&["serve", "--only", "api", "--api-port", "0"]);
        Fanfare::spawn(serve.env("REDIS_URL", format!("redis://127.0.0.1:{}", redis.port())))
    });
    for node in &nodes {
        let known = || node.get("/health").json()["checks"]["redis"]["nodes"].as_array().map_or(0, Vec::len);
        until(PATIENCE, "the nodes know each other", || known() == nodes.len());
    }
    for kind in KINDS {
        let proxy = Proxy::start(kind, nodes.each_ref().map(Fanfare::api));
        let mut node = Command::new("node");
        node.current_dir(&folder).args(["through-proxy.mjs", &proxy.url()]);
        assert!(succeed(&mut node).ends_with("done\n"), "{}: {}", kind.program, proxy.log());
    }
}

#[test]
#[ignore = "needs nginx and HAProxy"]
fn newcomers_are_sent_from_a_server_that_drains_to_another() {
    for kind in [NGINX, HAPROXY] {
        let leaving = Fanfare::start(&["--only", "api", "--drain", "10m"]);
        let other = Fanfare::start(&["--only", "api"]);
        let proxy = Proxy::start(kind, [leaving.api(), leaving.api(), other.api()]);
        // One that stays for a while, so that it does not end; the first goes at once.
        let open = |url: &str| {
            let url = format!("{url}/socket.io/?EIO=4&transport=polling");
            agent().get(url).call().expect("an answer").status().as_u16()
        };
        assert_eq!((open(leaving.api()), open(leaving.api())), (200, 200));
        leaving.tell_to_stop();
        until(PATIENCE, "it refuses", || open(leaving.api()) == 503);
        for nth in 0..12 {
            assert_eq!(open(&proxy.url()), 200, "{}: {nth}, {}", kind.program, proxy.log());
        }
    }
}
