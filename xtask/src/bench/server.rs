//! Servers under test: how each is started on a core of its own, known to be ready, and stopped; how peers are installed.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::thread::CpuSet;

/// How long a server may take until it says that it is ready.
const START_LIMIT: Duration = Duration::from_secs(20);

/// A core that a process is bound to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Core(pub(super) usize);

impl Core {
    /// Starts `command` so that all of its threads, from the first on, run on this core.
    ///
    /// Binds the calling thread, whose affinity a child inherits, and gives it its own back: a binding after the start
    /// would miss threads that exist by then.
    ///
    /// # Errors
    /// The environment's: no such core, or the command cannot be run.
    pub(super) fn spawn(self, command: &mut Command) -> anyhow::Result<Child> {
        self.with(|| {
            command.spawn().with_context(|| format!("cannot run {}", command.get_program().display()))
        })
    }

    /// Does something whose processes are to run on this core.
    ///
    /// # Errors
    /// The environment's: no such core; and whatever `work` says.
    pub(super) fn with<T>(self, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
        let before = rustix::thread::sched_getaffinity(None)?;
        ensure!(self.0 < CpuSet::MAX_CPU, "core {} is beyond {}", self.0, CpuSet::MAX_CPU);
        let mut only = CpuSet::new();
        only.set(self.0);
        rustix::thread::sched_setaffinity(None, &only)
            .with_context(|| format!("core {} cannot be used", self.0))?;
        let done = work();
        rustix::thread::sched_setaffinity(None, &before)?;
        done
    }
}

/// A command that serves the fixture on a port.
pub(super) struct Server {
    pub(super) name: String,
    program: OsString,
    /// `{port}` stands for the port.
    arguments: Vec<OsString>,
    /// How the line begins by which it says that it is ready.
    ready: &'static str,
    /// Whether it keeps things in a folder of its own.
    keeps: bool,
    /// Whether it is not ours.
    pub(super) is_peer: bool,
}

/// A server that runs; it is killed when dropped.
pub(super) struct Running {
    child: Child,
    folder: Option<PathBuf>,
}

impl Running {
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it has so many descriptors open, as a server with so many connections must.
    ///
    /// # Errors
    /// The environment's: it has not within `START_LIMIT`.
    pub(super) fn wait_for_descriptors(&self, count: usize) -> anyhow::Result<()> {
        let folder = format!("/proc/{}/fd", self.pid());
        let begin = Instant::now();
        while std::fs::read_dir(&folder).map_or(0, Iterator::count) < count {
            ensure!(begin.elapsed() < START_LIMIT, "{count} connections were not open after {START_LIMIT:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only when it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(folder) = &self.folder {
            // A folder that stays behind is in nobody's way.
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}

impl Server {
    /// The load generator's own floor, with `flags`.
    pub(super) fn floor(name: &str, loadgen: &Path, flags: &[&str]) -> Self {
        let arguments = ["floor", "--port", "{port}"].iter().chain(flags).map(OsString::from).collect();
        Self::new(name, loadgen, arguments)
    }

    /// A program that takes the port as its argument.
    pub(super) fn at(name: &str, program: &Path) -> Self {
        Self::new(name, program, vec!["{port}".into()])
    }

    /// The product, with limits off that are there to keep single peers from such a load.
    pub(super) fn product(name: &str, program: &Path) -> Self {
        let flags = "serve --only api --api-port {port} --print-addresses --drain 0s \
                     --set limits.commands_per_socket=0 --set limits.commands_per_user=0 \
                     --set limits.handshakes_per_address=0";
        let arguments = flags.split_whitespace().map(OsString::from).collect();
        Self { ready: "{", keeps: true, ..Self::new(name, program, arguments) }
    }

    fn new(name: &str, program: impl Into<OsString>, arguments: Vec<OsString>) -> Self {
        let (name, program) = (name.into(), program.into());
        Self { name, program, arguments, ready: "ready", keeps: false, is_peer: false }
    }

    /// A command line, split at spaces; without `{port}` the port is appended.
    ///
    /// # Errors
    /// The caller's: it is empty.
    pub(super) fn parse(name: &str, command: &str) -> anyhow::Result<Self> {
        let mut words = command.split_whitespace().map(OsString::from);
        let program = words.next().context("--server is empty")?;
        let mut arguments: Vec<_> = words.collect();
        if !command.contains("{port}") {
            arguments.push("{port}".into());
        }
        Ok(Self::new(name, program, arguments))
    }

    /// A peer by its name.
    ///
    /// # Errors
    /// The caller's: unknown, or not installed.
    pub(super) fn peer(root: &Path, name: &str) -> anyhow::Result<Self> {
        let folder = root.join("bench/peers").join(name);
        let (program, script, needed): (PathBuf, _, _) = match name {
            "node" => ("node".into(), Some("server.js"), folder.join("node_modules/socket.io")),
            "python" => {
                (folder.join(".venv/bin/python"), Some("server.py"), folder.join(".venv/bin/uvicorn"))
            }
            "socketioxide" => {
                let program = folder.join("target/release/fanfare-bench-peer-socketioxide");
                (program.clone(), None, program)
            }
            other => bail!("no peer is called {other}; there are batched, node, python, socketioxide"),
        };
        ensure!(needed.exists(), "{name} is not installed; --install-peers does it");
        let mut arguments: Vec<OsString> =
            script.map(|script| folder.join(script).into()).into_iter().collect();
        arguments.push("{port}".into());
        Ok(Self { is_peer: true, ..Self::new(name, program, arguments) })
    }

    /// Starts it on `core` and waits until it says `ready`. With `redis` it is one of several.
    ///
    /// # Errors
    /// The environment's: it ends, or says nothing within `START_LIMIT`.
    pub(super) fn start(&self, port: u16, core: Core, redis: Option<&str>) -> anyhow::Result<Running> {
        let mut command = Command::new(&self.program);
        match redis {
            Some(url) => command.env("REDIS_URL", url),
            None => command.env_remove("REDIS_URL"),
        };
        let port = port.to_string();
        command.args(self.arguments.iter().map(|a| a.to_string_lossy().replace("{port}", &port)));
        let folder = self.keeps.then(|| {
            let name = format!("fanfare-bench-{}-{port}", std::process::id());
            std::env::temp_dir().join(name)
        });
        if let Some(folder) = &folder {
            command.env("FANFARE_DATA_DIR", folder).stderr(Stdio::null());
        }
        let mut child = core.spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()))?;
        let stdout = child.stdout.take().context("invariant: stdout is piped")?;
        let running = Running { child, folder };
        let ready = self.ready;
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
            if lines.any(|line| line.starts_with(ready)) {
                // Nobody listens when it took too long.
                let _ = sender.send(());
            }
            // Reads on, so that a talkative server does not wait for us.
            lines.for_each(drop);
        });
        match receiver.recv_timeout(START_LIMIT) {
            Ok(()) => Ok(running),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                bail!("{} was not ready after {START_LIMIT:?}", self.name)
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => bail!("{} ended before it was ready", self.name),
        }
    }
}

/// Installs `peers` from the package registries, in their folders.
///
/// # Errors
/// The environment's: no npm, Python or network.
pub(super) fn install(root: &Path, peers: &[String]) -> anyhow::Result<()> {
    for peer in peers {
        let folder = root.join("bench/peers").join(peer);
        let steps: &[&[&str]] = match peer.as_str() {
            "node" => &[&["npm", "ci", "--no-audit", "--no-fund"]],
            "python" => &[
                &["python3", "-m", "venv", ".venv"],
                &[".venv/bin/pip", "install", "--quiet", "-r", "requirements.txt"],
            ],
            "socketioxide" => &[&["cargo", "build", "--release", "--locked", "--target-dir", "target"]],
            _ => continue,
        };
        for step in steps {
            // The Cargo that runs us, where a step names Cargo.
            let program =
                Some(step[0]).filter(|name| *name == "cargo").and_then(|_| std::env::var_os("CARGO"));
            let program = program.unwrap_or_else(|| step[0].into());
            let status = Command::new(program).args(&step[1..]).current_dir(&folder).status();
            let status = status.with_context(|| format!("cannot run {}", step[0]))?;
            ensure!(status.success(), "{} failed in {}", step.join(" "), folder.display());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_get_the_port_once() {
        let appended = Server::parse("x", "node server.js").unwrap();
        assert_eq!(appended.arguments, ["server.js", "{port}"]);
        let placed = Server::parse("x", "serve --port={port} --fast").unwrap();
        assert_eq!(placed.arguments, ["--port={port}", "--fast"]);
        assert!(Server::parse("x", " ").is_err());
    }

    #[test]
    fn unknown_peers_are_refused() {
        assert!(Server::peer(Path::new("/"), "nobody").is_err());
    }
}
