//! Where the project is, and how to run Cargo in it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use serde_json::Value;

/// The folder of the workspace manifest.
pub(crate) fn root() -> anyhow::Result<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    Ok(here.parent().context("xtask lies in no workspace")?.to_owned())
}

/// Cargo, in the project's folder: the one that runs us, or the one on the path.
pub(crate) fn cargo() -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root()?);
    Ok(command)
}

/// Builds what `arguments` name and returns the path of the executable called `name`.
///
/// # Errors
/// The caller's: it does not compile, or has no such executable.
pub(crate) fn build(name: &str, arguments: &[&str]) -> anyhow::Result<PathBuf> {
    let output = cargo()?
        .arg("build")
        .args(arguments)
        .arg("--message-format=json-render-diagnostics")
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run cargo")?;
    ensure!(output.status.success(), "cargo build {} failed", arguments.join(" "));
    let messages =
        output.stdout.split(|b| *b == b'\n').filter_map(|l| serde_json::from_slice::<Value>(l).ok());
    let built = messages
        .filter(|m| m["target"]["name"] == name)
        .filter_map(|m| Some(m["executable"].as_str()?.into()));
    built.max().with_context(|| format!("cargo built no executable called {name}"))
}

/// What cargo says of the workspace: packages, and where it builds.
///
/// # Errors
/// Cargo cannot be run, or does not understand the workspace.
pub(crate) fn metadata() -> anyhow::Result<serde_json::Value> {
    let output = cargo()?
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .output()
        .context("cannot run cargo metadata")?;
    anyhow::ensure!(
        output.status.success(),
        "cargo metadata failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(serde_json::from_slice(&output.stdout)?)
}
