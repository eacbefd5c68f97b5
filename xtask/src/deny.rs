//! `cargo xtask deny`: licences, sources and advisories of everything that is linked in, by cargo-deny and `deny.toml`.
//!
//! A command of its own, not a step of the tests: building cargo-deny takes longer than all of them.

use std::process::Stdio;

use anyhow::{Context, bail};

use crate::project;

/// Flags of the chore.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Build and install cargo-deny first if it is not there; takes many minutes.
    #[arg(long)]
    install: bool,
    /// Look for known vulnerabilities, too; fetches the list of them.
    #[arg(long)]
    advisories: bool,
}

/// Whether everything that is linked in is allowed.
pub(crate) fn run(args: &Args) -> anyhow::Result<bool> {
    let version =
        project::cargo()?.args(["deny", "--version"]).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    if !version.success() {
        if !args.install {
            bail!(
                "cargo-deny is not installed: cargo install cargo-deny --locked, or cargo xtask deny --install"
            );
        }
        let installed = project::cargo()?.args(["install", "cargo-deny", "--locked"]).status()?;
        if !installed.success() {
            bail!("cargo-deny could not be installed");
        }
    }
    let mut checks = vec!["deny", "--locked", "check", "licenses", "bans", "sources"];
    if args.advisories {
        checks.push("advisories");
    }
    let status = project::cargo()?.args(checks).status().context("cannot run cargo deny")?;
    Ok(status.success())
}
