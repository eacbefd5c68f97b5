//! Owns real Redis servers for tests: one, a master with a replica and Sentinels, a Cluster. Each has a folder and ports
//! of its own, and is killed and forgotten when it is dropped. Does not know what is kept in them. Invariant: nothing
//! listens beyond this machine.
//!
//! They need the program `redis-server`, so tests that use them are `#[ignore]`d by default.

use std::io::{BufRead, BufReader, Error, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::port::Port;

/// How long is waited for a server to do what it must. It takes a fraction of a second where nothing else runs.
const LIMIT: Duration = Duration::from_secs(180);

/// Waits until something is so.
///
/// # Panics
/// If it is not so within three minutes; `what` says what was waited for.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < LIMIT, "{what}: not within {LIMIT:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A server.
#[derive(Debug)]
pub struct RedisServer {
    child: Option<Child>,
    /// Its own also while it is killed.
    port: Port,
    /// Where the nodes of a Cluster speak with each other.
    cluster_port: Option<Port>,
    folder: PathBuf,
    arguments: Vec<String>,
}

impl RedisServer {
    /// Starts one that writes to no disk.
    ///
    /// # Panics
    /// If the program is missing, or does not start.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(&["--save", "", "--appendonly", "no"])
    }

    /// Starts one whose answers mean that its disk has it.
    ///
    /// # Panics
    /// As [`RedisServer::start`].
    #[must_use]
    pub fn start_durable() -> Self {
        Self::start_with(&["--save", "", "--appendonly", "yes", "--appendfsync", "always"])
    }

    /// Starts one with these options, as they are written in its command line.
    ///
    /// # Panics
    /// As [`RedisServer::start`].
    #[must_use]
    pub fn start_with(options: &[&str]) -> Self {
        let (folder, port) = (fresh_folder(), Port::hold());
        let mut arguments = vec!["--port".to_owned(), port.number().to_string()];
        arguments.extend(["--bind", "127.0.0.1", "--dir"].map(str::to_owned));
        arguments.push(folder.display().to_string());
        arguments.extend(options.iter().map(|option| (*option).to_owned()));
        let mut server = Self { child: None, port, cluster_port: None, folder, arguments };
        assert!(server.try_start(), "redis-server does not start: {}", server.log());
        server
    }

    /// What it has written so far.
    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// Where it listens, on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// Its folder: what it keeps, and its log.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> String {
        format!("redis://{}", self.port.address())
    }

    /// Ends it at once, as a loss of power would, but for what the system has.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // One that has ended by itself is as good.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts it again after [`RedisServer::kill`], with what its folder has.
    ///
    /// # Panics
    /// If it does not start.
    pub fn restart(&mut self) {
        until("a server starts again", || self.try_start());
    }

    /// Stops it from answering, without ending it, or lets it go on.
    ///
    /// # Panics
    /// If it is not running.
    pub fn set_frozen(&self, is_frozen: bool) {
        let child = self.child.as_ref().expect("a server that runs");
        let signal = if is_frozen { "-STOP" } else { "-CONT" };
        let status = Command::new("kill").args([signal, &child.id().to_string()]).status();
        assert!(status.is_ok_and(|status| status.success()), "kill {signal} has failed");
    }

    /// Sends a command; its answer as one text, lists with a blank between their parts.
    ///
    /// # Errors
    /// The way to the server, or what it says is wrong.
    pub fn try_ask(&self, words: &[&str]) -> Result<String, Error> {
        let stream = TcpStream::connect(self.port.address())?;
        stream.set_read_timeout(Some(LIMIT))?;
        let mut command = format!("*{}\r\n", words.len());
        for word in words {
            command += &format!("${}\r\n{word}\r\n", word.len());
        }
        (&stream).write_all(command.as_bytes())?;
        read_answer(&mut BufReader::new(stream))
    }

    /// As [`RedisServer::try_ask`].
    ///
    /// # Panics
    /// If there is no answer, or it is an error.
    #[must_use]
    pub fn ask(&self, words: &[&str]) -> String {
        self.try_ask(words).unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    fn try_start(&mut self) -> bool {
        let log = self.folder.join("log");
        let log =
            std::fs::File::options().create(true).append(true).open(&log).expect("a log can be written");
        let mut command = Command::new("redis-server");
        command.args(&self.arguments).stdin(Stdio::null()).stdout(log).stderr(Stdio::null());
        let child =
            command.spawn().expect("redis-server is installed; `cargo xtask test --only setup` does that");
        self.child = Some(child);
        let begun = Instant::now();
        while begun.elapsed() < LIMIT {
            // Anything but a refusal to talk means that it is up: it may want a password.
            match self.try_ask(&["PING"]) {
                Ok(_) => return true,
                Err(error) if error.to_string().contains("NOAUTH") => return true,
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
            let ended = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            if ended.is_some() {
                return false;
            }
        }
        false
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
        // What cannot be deleted is the system's to clear away.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A master, its replica, and three Sentinels that watch them.
#[derive(Debug)]
pub struct RedisSentinels {
    /// The one that is master at first.
    pub first: RedisServer,
    /// Its replica.
    pub second: RedisServer,
    /// Those who watch.
    pub sentinels: Vec<RedisServer>,
}

impl RedisSentinels {
    /// What the Sentinels call the master.
    pub const MASTER: &'static str = "mymaster";

    /// Starts all, and waits until the Sentinels know of each other and of the replica.
    ///
    /// # Panics
    /// As [`RedisServer::start`].
    #[must_use]
    pub fn start() -> Self {
        let first = RedisServer::start();
        let port = first.port().to_string();
        // A replica need not wait for others that might want to have the same.
        assert_eq!(first.ask(&["CONFIG", "SET", "repl-diskless-sync-delay", "0"]), "OK");
        let second = RedisServer::start_with(&["--save", "", "--replicaof", "127.0.0.1", &port]);
        until("the replica follows", || {
            second.ask(&["INFO", "replication"]).contains("master_link_status:up")
        });
        let sentinels = (0..3).map(|_| start_sentinel(first.port())).collect();
        let all = Self { first, second, sentinels };
        until("the Sentinels know all", || {
            all.sentinels.iter().all(|sentinel| {
                let told = sentinel.ask(&["SENTINEL", "MASTER", Self::MASTER]);
                told.contains("num-slaves 1 ") && told.contains("num-other-sentinels 2 ")
            })
        });
        all
    }

    /// Their address.
    #[must_use]
    pub fn address(&self) -> String {
        let hosts = self.sentinels.iter().map(|sentinel| sentinel.port.address().to_string());
        format!("redis+sentinel://{}/{}", hosts.collect::<Vec<_>>().join(","), Self::MASTER)
    }
}

fn start_sentinel(master: u16) -> RedisServer {
    let folder = fresh_folder();
    let file = folder.join("sentinel.conf");
    let name = RedisSentinels::MASTER;
    let port = Port::hold();
    // Five seconds: one that is slow because the machine is busy is not to be replaced.
    let text = format!(
        "port {}\nbind 127.0.0.1\ndir {}\nsentinel monitor {name} 127.0.0.1 {master} 2\n\
         sentinel down-after-milliseconds {name} 5000\nsentinel failover-timeout {name} 10000\n",
        port.number(),
        folder.display()
    );
    std::fs::write(&file, text).expect("a configuration can be written");
    let arguments = vec![file.display().to_string(), "--sentinel".to_owned()];
    let mut server = RedisServer { child: None, port, cluster_port: None, folder, arguments };
    server.restart();
    server
}

/// Three servers that share the slots.
#[derive(Debug)]
pub struct RedisCluster {
    /// The servers.
    pub nodes: Vec<RedisServer>,
}

/// Slots of a Cluster.
const SLOTS: u32 = 16_384;

impl RedisCluster {
    /// Starts them, and waits until all slots are served.
    ///
    /// # Panics
    /// As [`RedisServer::start`].
    #[must_use]
    pub fn start() -> Self {
        let nodes: Vec<RedisServer> = (0..3)
            .map(|_| {
                let bus = Port::hold();
                let number = bus.number().to_string();
                let options = ["--save", "", "--cluster-enabled", "yes", "--cluster-port", &number];
                // None is thought to be gone because the machine is busy.
                let more = ["--cluster-node-timeout", "60000"];
                let mut node = RedisServer::start_with(&[&options[..], &more].concat());
                node.cluster_port = Some(bus);
                node
            })
            .collect();
        for (at, node) in (0..).zip(&nodes) {
            let (from, to) = (SLOTS * at / 3, SLOTS * (at + 1) / 3 - 1);
            assert_eq!(node.ask(&["CLUSTER", "ADDSLOTSRANGE", &from.to_string(), &to.to_string()]), "OK");
            for other in &nodes {
                let bus = other.cluster_port.as_ref().map_or(0, Port::number).to_string();
                let port = other.port().to_string();
                assert_eq!(node.ask(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus]), "OK");
            }
        }
        until("the Cluster serves all slots", || {
            nodes.iter().all(|node| {
                let told = node.ask(&["CLUSTER", "INFO"]);
                told.contains("cluster_state:ok") && told.contains("cluster_known_nodes:3")
            })
        });
        Self { nodes }
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> String {
        let hosts = self.nodes.iter().map(|node| node.port.address().to_string());
        format!("redis+cluster://{}", hosts.collect::<Vec<_>>().join(","))
    }

    /// Moves the slot of a key, and all keys in it, from the node that has it to the next one.
    ///
    /// # Panics
    /// If the servers refuse.
    pub fn move_slot_of(&self, key: &str) {
        let slot = self.nodes[0].ask(&["CLUSTER", "KEYSLOT", key]);
        let has = |node: &RedisServer| node.try_ask(&["EXISTS", key]).is_ok();
        let owner = self.nodes.iter().position(has).expect("some node has the slot");
        let (from, to) = (&self.nodes[owner], &self.nodes[(owner + 1) % self.nodes.len()]);
        let ids = [from, to].map(|node| node.ask(&["CLUSTER", "MYID"]));
        assert_eq!(to.ask(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &ids[0]]), "OK");
        assert_eq!(from.ask(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &ids[1]]), "OK");
        loop {
            let keys = from.ask(&["CLUSTER", "GETKEYSINSLOT", &slot, "100"]);
            if keys.is_empty() {
                break;
            }
            let port = to.port().to_string();
            let command = ["MIGRATE", "127.0.0.1", &port, "", "0", "60000", "KEYS"];
            let keys: Vec<&str> = keys.split(' ').collect();
            assert_eq!(from.ask(&[&command[..], &keys].concat()), "OK");
        }
        for node in [to, from] {
            assert_eq!(node.ask(&["CLUSTER", "SETSLOT", &slot, "NODE", &ids[1]]), "OK");
        }
    }
}

fn fresh_folder() -> PathBuf {
    static MADE: AtomicU32 = AtomicU32::new(0);
    let number = MADE.fetch_add(1, Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("fanfare-redis-{}-{number}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder can be made");
    folder
}

fn read_answer(reader: &mut impl BufRead) -> Result<String, Error> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let bad = || Error::other(format!("an answer begins with {line:?}"));
    let (kind, rest) = line.trim_end().split_at_checked(1).ok_or_else(bad)?;
    match kind {
        "+" | ":" => Ok(rest.to_owned()),
        "-" => Err(Error::other(rest)),
        "$" => {
            let Ok(length) = rest.parse::<usize>() else { return Ok("nothing".to_owned()) };
            let mut bytes = vec![0; length + 2];
            reader.read_exact(&mut bytes)?;
            bytes.truncate(length);
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        }
        "*" => {
            let count: usize = rest.parse().map_err(|_| bad())?;
            let parts = (0..count).map(|_| read_answer(reader)).collect::<Result<Vec<_>, _>>()?;
            Ok(parts.join(" "))
        }
        _ => Err(bad()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_as_text() {
        let read = |text: &str| read_answer(&mut text.as_bytes()).map_err(|error| error.to_string());
        assert_eq!(read("+OK\r\n").as_deref(), Ok("OK"));
        assert_eq!(read("*3\r\n:1\r\n$3\r\na b\r\n$-1\r\n").as_deref(), Ok("1 a b nothing"));
        assert_eq!(read("-NOAUTH no\r\n").unwrap_err(), "NOAUTH no");
        assert!(read("").is_err());
        assert!(read("$5\r\nab").is_err());
    }
}
