//! Owns the servers under test: one Redis and the processes of `fanfare`, their ports, their hard ends and new beginnings.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

/// Time that a server may take to begin, on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(120);

/// A process that is killed when dropped.
struct Running(Child);

impl Running {
    fn kill(&mut self) {
        // Both fail only when it is gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A Redis of the run's own.
pub(crate) struct Redis {
    _process: Running,
    address: SocketAddr,
}

impl Redis {
    /// Starts one that keeps nothing on disk.
    ///
    /// # Errors
    /// The environment's: it is not installed, or does not begin.
    pub(crate) fn start(folder: &Path) -> anyhow::Result<Self> {
        let address = free_address()?;
        let mut command = Command::new("redis-server");
        command.args(["--port", &address.port().to_string(), "--bind", "127.0.0.1", "--save", ""]);
        command.args(["--appendonly", "no", "--maxmemory-policy", "noeviction", "--dir"]).arg(folder);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let process = Running(
            child.context("redis-server cannot be run; `cargo xtask test --only setup` installs it")?,
        );
        let redis = Self { _process: process, address };
        let begun = Instant::now();
        while redis.ask("PING").is_err() {
            ensure!(begun.elapsed() < START_LIMIT, "redis-server does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(redis)
    }

    /// What `redis.url` is.
    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// Cuts all connections that subscribe. Answers how many there were.
    ///
    /// # Errors
    /// The environment's: it does not answer.
    pub(crate) fn cut_subscribers(&self) -> anyhow::Result<u64> {
        let answer = self.ask("CLIENT KILL TYPE pubsub")?;
        answer.trim_start_matches(':').parse().with_context(|| format!("no number: {answer}"))
    }

    fn ask(&self, command: &str) -> anyhow::Result<String> {
        let mut stream = TcpStream::connect_timeout(&self.address, Duration::from_secs(2))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(format!("{command}\r\n").as_bytes())?;
        let mut answer = [0; 64];
        let len = stream.read(&mut answer)?;
        let answer = String::from_utf8_lossy(&answer[..len]).trim().to_owned();
        ensure!(answer.starts_with(['+', ':']), "{command}: {answer}");
        Ok(answer)
    }
}

/// One process of `fanfare`, at a place of its own, running or not.
pub(crate) struct Node {
    program: PathBuf,
    folder: PathBuf,
    redis: Option<String>,
    drain_rate: u32,
    pub(crate) address: SocketAddr,
    process: Option<Running>,
}

impl Node {
    /// Starts one; without Redis it keeps its logs in `folder`.
    ///
    /// # Errors
    /// The environment's: it does not begin.
    pub(crate) fn start(
        program: &Path,
        folder: PathBuf,
        redis: Option<String>,
        drain_rate: u32,
    ) -> anyhow::Result<Self> {
        let address = free_address()?;
        let mut node =
            Self { program: program.to_owned(), folder, redis, drain_rate, address, process: None };
        node.begin()?;
        Ok(node)
    }

    /// Tells it to leave in good order.
    ///
    /// # Errors
    /// The environment's: it does not run, or cannot be told.
    pub(crate) fn stop(&self) -> anyhow::Result<()> {
        let process = self.process.as_ref().context("a server that does not run cannot be stopped")?;
        let status = Command::new("kill").args(["-TERM", &process.0.id().to_string()]).status()?;
        ensure!(status.success(), "{} cannot be told to stop", self.address);
        Ok(())
    }

    /// Ends it as a power cut would.
    pub(crate) fn kill(&mut self) {
        self.process = None;
    }

    /// Whether it runs, or is meant not to.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.process.as_mut().is_some_and(|process| process.0.try_wait().is_ok_and(|status| status.is_some()))
    }

    /// Starts it at its old place.
    ///
    /// # Errors
    /// The environment's: it ends before it listens.
    pub(crate) fn begin(&mut self) -> anyhow::Result<()> {
        let mut command = Command::new(&self.program);
        command.args(["serve", "--only", "api", "--print-addresses", "--api-port"]);
        command.arg(self.address.port().to_string()).args(["--log-level", "warn"]);
        // Limits that keep single peers from such a load.
        for limit in ["commands_per_socket", "commands_per_user", "handshakes_per_address"] {
            command.arg("--set").arg(format!("limits.{limit}=0"));
        }
        command.arg("--set").arg(format!("server.drain_rate={}", self.drain_rate));
        command.env("FANFARE_DATA_DIR", &self.folder).env_remove("REDIS_URL");
        if let Some(redis) = &self.redis {
            command.env("REDIS_URL", redis);
        }
        let log =
            std::fs::File::options().create(true).append(true).open(self.folder.with_extension("log"))?;
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn();
        let mut process = Running(child.with_context(|| self.program.display().to_string())?);
        let stdout = process.0.stdout.take().context("invariant: stdout is piped")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        ensure!(
            line.starts_with('{'),
            "{} ended before it listened; see {}.log",
            self.address,
            self.folder.display()
        );
        self.process = Some(process);
        Ok(())
    }
}

/// An address of this machine that nobody has.
fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}
