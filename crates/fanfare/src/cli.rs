//! Owns the command line: its subcommands and flags, and how flags become settings.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::{Config, FILE_DEFAULT, Layers};
use crate::run::{self, Run};
use crate::token::{KeyCommand, TokenCommand};
use crate::{logs, serve, settings};

/// Real-time server for jobs, agents and workflows, for stock Socket.IO clients.
#[derive(Parser)]
#[command(name = "fanfare", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the server
    Serve(Serve),
    /// Run a command, and let everybody watch: its output, progress and outcome
    Run(Run),
    /// Print or check settings
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Make a token, or tell what one is worth
    #[command(subcommand)]
    Token(TokenCommand),
    /// Make an API key
    #[command(subcommand)]
    Key(KeyCommand),
}

#[derive(Args)]
struct Serve {
    #[command(flatten)]
    source: Source,
    /// Open one listener only
    #[arg(long, value_enum)]
    only: Option<Only>,
    /// Address of the api listener
    #[arg(long, value_name = "HOST")]
    api_host: Option<String>,
    /// Port of the api listener; 0 takes any
    #[arg(long, value_name = "PORT")]
    api_port: Option<String>,
    /// Do not serve Socket.IO on the api listener
    #[arg(long)]
    no_api_socketio: bool,
    /// Address of the realtime listener
    #[arg(long, value_name = "HOST")]
    realtime_host: Option<String>,
    /// Port of the realtime listener; 0 takes any
    #[arg(long, value_name = "PORT")]
    realtime_port: Option<String>,
    /// Let listeners bind addresses that other machines can reach, without authentication
    #[arg(long)]
    insecure: bool,
    /// Origin whose pages may use the server; repeat for more, `*` for all
    #[arg(long = "cors-origin", value_name = "ORIGIN")]
    cors_origins: Vec<String>,
    /// PEM certificate chain for both listeners
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_certificate: Option<String>,
    /// PEM private key for both listeners
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    tls_key: Option<String>,
    /// Time over which a shutdown lets connections go, such as 10s
    #[arg(long, value_name = "DURATION")]
    drain: Option<String>,
    /// How logs are written: pretty or json
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// Least severe level that is logged
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// Print the listeners' addresses to stdout as one line of JSON when they are open
    #[arg(long)]
    print_addresses: bool,
}

/// Where settings come from besides flags of their own.
#[derive(Args)]
pub(crate) struct Source {
    /// Settings file [default: fanfare.toml, if it is there]
    #[arg(long, value_name = "FILE", env = "FANFARE_CONFIG")]
    config: Option<PathBuf>,
    /// Any setting, such as socketio.ping_interval=10s; repeat for more
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Only {
    Api,
    Realtime,
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Print the manual of all settings, as a file with the defaults
    Default,
    /// Check a settings file and the environment, and say what is wrong
    Check {
        /// Settings file [default: fanfare.toml, if it is there]
        file: Option<PathBuf>,
    },
}

/// Does what the command line asks for.
pub(crate) fn main() -> anyhow::Result<ExitCode> {
    match Cli::parse().command {
        Command::Serve(serve) => {
            let config = serve.config()?;
            logs::start(config.log_level, config.log_format);
            runtime()?.block_on(serve::run(config, serve.print_addresses))?;
        }
        Command::Run(arguments) => return Ok(run::run(arguments)?.into()),
        Command::Token(command) => return command.run(),
        Command::Key(command) => command.run()?,
        Command::Config(ConfigCommand::Default) => print(&settings::manual())?,
        Command::Config(ConfigCommand::Check { file }) => {
            let source = Source { config: file, set: Vec::new() };
            let (mut layers, path) = source.begin()?;
            source.finish(&mut layers)?;
            layers.finish()?;
            let from = path.map_or("no file".to_owned(), |path| path.display().to_string());
            print(&format!("settings are good ({from} and environment)\n"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The control plane. Two threads: it serves HTTP and waits for handlers; connections have threads of their own.
pub(crate) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("control")
        .enable_all()
        .build()
        .context("no runtime")
}

/// Writes to stdout.
///
/// # Errors
/// The environment's: nobody reads it.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    std::io::stdout().lock().write_all(text.as_bytes()).context("stdout")
}

impl Source {
    /// The settings, if nothing else is to be set.
    ///
    /// # Errors
    /// Settings that cannot be read or used.
    pub(crate) fn config(&self) -> anyhow::Result<Config> {
        let (mut layers, _) = self.begin()?;
        self.finish(&mut layers)?;
        Ok(layers.finish()?)
    }

    /// Reads the file and the environment. Answers the file that was read, too.
    fn begin(&self) -> anyhow::Result<(Layers, Option<PathBuf>)> {
        let mut layers = Layers::default();
        let default = Path::new(FILE_DEFAULT);
        let path = self.config.as_deref().or_else(|| default.exists().then_some(default));
        if let Some(path) = path {
            let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
            layers.file(path, &text)?;
        }
        layers.environment(std::env::vars_os())?;
        Ok((layers, path.map(Path::to_path_buf)))
    }

    fn finish(&self, layers: &mut Layers) -> anyhow::Result<()> {
        for setting in &self.set {
            let (key, text) =
                setting.split_once('=').with_context(|| format!("--set takes KEY=VALUE, not `{setting}`"))?;
            layers.set(key.trim(), text)?;
        }
        Ok(())
    }
}

impl Serve {
    fn config(&self) -> anyhow::Result<Config> {
        let (mut layers, _) = self.source.begin()?;
        self.source.finish(&mut layers)?;
        let texts = [
            ("api.host", &self.api_host),
            ("api.port", &self.api_port),
            ("realtime.host", &self.realtime_host),
            ("realtime.port", &self.realtime_port),
            ("api.tls_certificate", &self.tls_certificate),
            ("api.tls_key", &self.tls_key),
            ("realtime.tls_certificate", &self.tls_certificate),
            ("realtime.tls_key", &self.tls_key),
            ("server.drain_time", &self.drain),
            ("log.format", &self.log_format),
            ("log.level", &self.log_level),
        ];
        for (key, text) in texts {
            if let Some(text) = text {
                layers.set(key, text)?;
            }
        }
        if !self.cors_origins.is_empty() {
            layers.set("cors.origins", &self.cors_origins.join(","))?;
        }
        if self.insecure {
            layers.set("server.insecure", "true")?;
        }
        if self.no_api_socketio {
            layers.set("api.socketio", "false")?;
        }
        if let Some(only) = self.only {
            layers.set("api.enabled", if matches!(only, Only::Api) { "true" } else { "false" })?;
            layers.set("realtime.enabled", if matches!(only, Only::Realtime) { "true" } else { "false" })?;
        }
        Ok(layers.finish()?)
    }
}
