//! Owns a RabbitMQ node of a test's own: ports, folders, its port mapper, and its end. Needs Debian's `rabbitmq-server`,
//! whose scripts run as anybody as long as all folders are theirs.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use testkit::port::Port;

use crate::fanfare::{DataDir, PATIENCE};
use crate::installed::{python_of, succeed};

/// The server's own script; the one in the path changes to the user `rabbitmq` first.
const SERVER: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";

/// A node at work. Everything of it ends with it.
pub(crate) struct Broker {
    folder: DataDir,
    ports: Ports,
    mapper: Child,
    node: Child,
}

/// Where it listens. All are its own also while it is down.
struct Ports {
    plain: Port,
    tls: Port,
    /// Of the port mapper, without which no node starts.
    mapper: Port,
    /// For other nodes, of which there are none.
    distribution: Port,
}

impl Broker {
    /// Starts one, and waits until it takes connections.
    pub(crate) fn start() -> Self {
        let folder = DataDir::new();
        for name in ["home", "mnesia", "log"] {
            std::fs::create_dir_all(folder.path().join(name)).expect("a folder");
        }
        let [plain, tls, mapper, distribution] = std::array::from_fn(|_| Port::hold());
        let ports = Ports { plain, tls, mapper, distribution };
        configure(&folder, &ports.tls);
        let mapper = Command::new("epmd")
            .args(["-address", "127.0.0.1", "-port", &ports.mapper.number().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect(
                "epmd starts: rabbitmq-server must be installed, as `cargo xtask test --only setup` does",
            );
        let node = spawn(&folder, &ports);
        let mut broker = Self { folder, ports, mapper, node };
        broker.wait_until_ready();
        broker
    }

    /// Its address over TLS; [`Broker::certificate`] must be trusted.
    pub(crate) fn tls_url(&self) -> String {
        format!("amqps://guest:guest@localhost:{}/", self.ports.tls.number())
    }

    /// PEM file with its certificate.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.folder.path().join("certificate.pem")
    }

    /// Its address.
    pub(crate) fn url(&self) -> String {
        format!("amqp://guest:guest@{}/", self.ports.plain.address())
    }

    /// Ends it as an operator does, and starts it again with what it had.
    pub(crate) fn restart(&mut self) {
        // The script passes it on to the node, which closes its files first.
        rustix::process::kill_process(pid(&self.node), Signal::TERM).expect("the signal is sent");
        let begun = Instant::now();
        while self.node.try_wait().expect("a child of ours").is_none() {
            assert!(begun.elapsed() < PATIENCE, "the node does not end");
            std::thread::sleep(Duration::from_millis(50));
        }
        self.signal(Signal::KILL);
        self.node = spawn(&self.folder, &self.ports);
        self.wait_until_ready();
    }

    /// Stops its processes where they are, or lets them go on.
    pub(crate) fn freeze(&self, is_frozen: bool) {
        self.signal(if is_frozen { Signal::STOP } else { Signal::CONT });
    }

    /// Does something at it with stock Python packages; see `tests/amqp-python/broker.py`.
    pub(crate) fn python(&self, arguments: &[&str]) -> String {
        succeed(&mut self.python_command(arguments))
    }

    /// The command of [`Broker::python`].
    pub(crate) fn python_command(&self, arguments: &[&str]) -> Command {
        let folder = python_of("amqp-python");
        let mut python = Command::new(folder.join(".venv/bin/python"));
        python.current_dir(&folder).arg("broker.py").arg(self.url()).args(arguments);
        python
    }

    /// A signal to all processes of the node; there may be none left.
    fn signal(&self, signal: Signal) {
        let _ = rustix::process::kill_process_group(pid(&self.node), signal);
    }

    fn wait_until_ready(&mut self) {
        let begun = Instant::now();
        while !answers(&self.ports.plain) {
            assert_eq!(self.node.try_wait().expect("a child of ours"), None, "the node has ended");
            assert!(begun.elapsed() < PATIENCE, "the node takes no connections");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.signal(Signal::CONT);
        self.signal(Signal::KILL);
        let _ = self.node.wait();
        let _ = self.mapper.kill();
        let _ = self.mapper.wait();
    }
}

/// Its settings: TLS with a certificate of its own.
fn configure(folder: &DataDir, tls: &Port) {
    let certified = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("certificate.pem"), certified.cert.pem()).expect("a file");
    std::fs::write(at("key.pem"), certified.signing_key.serialize_pem()).expect("a file");
    let settings = format!(
        "listeners.ssl.default = {}\nssl_options.verify = verify_none\n\
         ssl_options.certfile = {}\nssl_options.keyfile = {}\n",
        tls.address(),
        at("certificate.pem").display(),
        at("key.pem").display(),
    );
    std::fs::write(at("rabbitmq.conf"), settings).expect("a file");
}

fn spawn(folder: &DataDir, ports: &Ports) -> Child {
    let at = |name: &str| folder.path().join(name);
    let log = std::fs::File::create(at("output")).expect("a file");
    Command::new(SERVER)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        // The cookie of the node is made there.
        .env("HOME", at("home"))
        .env("ERL_EPMD_PORT", ports.mapper.number().to_string())
        .env("ERL_EPMD_ADDRESS", "127.0.0.1")
        .env("RABBITMQ_NODENAME", format!("fanfare-{}@localhost", ports.plain.number()))
        .env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1")
        .env("RABBITMQ_NODE_PORT", ports.plain.number().to_string())
        .env("RABBITMQ_DIST_PORT", ports.distribution.number().to_string())
        .env("RABBITMQ_MNESIA_BASE", at("mnesia"))
        .env("RABBITMQ_LOG_BASE", at("log"))
        .env("RABBITMQ_ENABLED_PLUGINS_FILE", at("plugins"))
        .env("RABBITMQ_CONFIG_FILE", at("rabbitmq.conf"))
        .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
        // One scheduler that does not spin: others use the machine, too.
        .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "+S 1:1 +sbwt none")
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .expect("rabbitmq-server starts")
}

/// Whether a broker says something to who speaks AMQP. AMQP 0-9-1 §2.2.4.
fn answers(port: &Port) -> bool {
    let Ok(mut stream) = TcpStream::connect(port.address()) else { return false };
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a socket");
    stream.write_all(b"AMQP\0\0\x09\x01").is_ok() && stream.read(&mut [0]).is_ok_and(|bytes| bytes == 1)
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).expect("a pid")).expect("a pid")
}

/// Waits until it is so, for as long as a node may take.
#[track_caller]
pub(crate) fn wait(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
