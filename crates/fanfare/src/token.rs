//! Owns `fanfare token` and `fanfare key`: proofs made by hand, for the first steps and for operators.
//! Does not serve. Invariant: a secret is printed only where it is what was asked for.

use std::io::Read;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail, ensure};
use auth::algorithm::Hash;
use auth::api_key::{ApiKey, RANDOM_BYTES};
use auth::token::NewToken;
use clap::{Args, Subcommand, ValueEnum};
use hub::policy::Pattern;
use hub::principal::{Principal, PrincipalKind, Scope};
use serde_json::json;
use uuid::Uuid;

use crate::auth::{Authenticator, Presented};
use crate::cli::{Source, print, runtime};

/// `fanfare token`.
#[derive(Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token, signed with auth.jwt_secret (JWT_SECRET), and print it
    Make(Box<TokenMake>),
    /// Print whose a token, signed pair or key is, or why it is refused (then the exit code is 1)
    Check(TokenCheck),
}

/// `fanfare key`.
#[derive(Subcommand)]
pub(crate) enum KeyCommand {
    /// Make an API key; print it once, and the line for the settings
    Make(KeyMake),
}

/// What a new token says.
#[derive(Args)]
pub(crate) struct TokenMake {
    #[command(flatten)]
    source: Source,
    /// The user, or the agent
    #[arg(long, value_name = "USER")]
    sub: String,
    /// A role, such as admin; repeat for more
    #[arg(long = "role", value_name = "ROLE")]
    roles: Vec<String>,
    /// A project whose room may be joined; repeat for more
    #[arg(long = "project", value_name = "ID")]
    projects: Vec<String>,
    /// An agent whose room may be joined; repeat for more
    #[arg(long = "agent", value_name = "ID")]
    agents: Vec<String>,
    /// Rooms that may be joined, as a pattern such as `team-*`; repeat for more
    #[arg(long = "room", value_name = "PATTERN")]
    rooms: Vec<String>,
    /// What the user is: `user`, or `agent`
    #[arg(long, value_enum, default_value = "user")]
    kind: Kind,
    /// The application's session
    #[arg(long, value_name = "ID")]
    session: Option<String>,
    /// How long it lasts, such as 30m; `forever` for no end
    #[arg(long, value_name = "DURATION", default_value = "1h")]
    ttl: String,
    /// Issuer [default: the first of auth.issuer]
    #[arg(long, value_name = "ISSUER")]
    issuer: Option<String>,
    /// Audience [default: the first of auth.audience]
    #[arg(long, value_name = "AUDIENCE")]
    audience: Option<String>,
    /// How it is signed
    #[arg(long, value_enum, default_value = "HS256")]
    algorithm: HmacName,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    User,
    Agent,
}

#[derive(Clone, Copy, ValueEnum)]
enum HmacName {
    #[value(name = "HS256")]
    Hs256,
    #[value(name = "HS384")]
    Hs384,
    #[value(name = "HS512")]
    Hs512,
}

/// Which token is checked.
#[derive(Args)]
pub(crate) struct TokenCheck {
    #[command(flatten)]
    source: Source,
    /// The token; `-` reads it from stdin, so that it is not kept in the shell's history
    #[arg(value_name = "TOKEN")]
    token: String,
}

/// What a new key may do.
#[derive(Args)]
pub(crate) struct KeyMake {
    /// Its name in settings and logs
    #[arg(long, value_name = "NAME")]
    name: String,
    /// What it may do: publish, read or admin; repeat for more
    #[arg(long = "scope", value_name = "SCOPE", required = true)]
    scopes: Vec<String>,
}

impl TokenCommand {
    /// Does it.
    ///
    /// # Errors
    /// Settings that cannot be used, or lack what this needs.
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            TokenCommand::Make(make) => make.run().map(|()| ExitCode::SUCCESS),
            TokenCommand::Check(check) => check.run(),
        }
    }
}

impl TokenMake {
    fn run(self) -> anyhow::Result<()> {
        let config = self.source.config()?.auth;
        ensure!(
            !config.jwt_secret.is_empty(),
            "there is no secret to sign with: give auth.jwt_secret or JWT_SECRET"
        );
        let ttl = match self.ttl.as_str() {
            "forever" => None,
            text => {
                Some(humantime::parse_duration(text).context("--ttl is a duration such as 30m, or forever")?)
            }
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is set before 1970")?;
        let first = |list: &[Box<str>]| list.first().map(|text| text.to_string());
        let token = NewToken {
            sub: self.sub,
            roles: self.roles,
            projects: self.projects,
            agents: self.agents,
            rooms: self.rooms,
            kind: match self.kind {
                Kind::User => None,
                Kind::Agent => Some("agent".to_owned()),
            },
            session_id: self.session,
            iss: self.issuer.or_else(|| first(&config.rules.issuers)),
            aud: self.audience.or_else(|| first(&config.rules.audiences)),
            iat: Some(now.as_secs()),
            exp: ttl.map(|ttl: Duration| now.saturating_add(ttl).as_secs()),
            nbf: None,
            jti: Some(Uuid::now_v7().to_string()),
        };
        let hash = match self.algorithm {
            HmacName::Hs256 => Hash::Sha256,
            HmacName::Hs384 => Hash::Sha384,
            HmacName::Hs512 => Hash::Sha512,
        };
        print(&format!("{}\n", token.sign(hash, &config.jwt_secret)))
    }
}

impl TokenCheck {
    fn run(self) -> anyhow::Result<ExitCode> {
        let config = self.source.config()?;
        if !config.auth.is_configured {
            bail!("there is nothing to check a token with: give a setting of [auth], such as JWT_SECRET");
        }
        let token = if self.token == "-" {
            let mut text = String::new();
            // A little more than any token has, so that one that is too long is still told as that.
            std::io::stdin().take(16_384).read_to_string(&mut text).context("stdin")?;
            text.trim().to_owned()
        } else {
            self.token
        };
        let judged = runtime()?.block_on(async {
            let authenticator = Authenticator::start(&config.auth, config.policies)?;
            anyhow::Ok(authenticator.judge(&Presented::by_hand(token)).await)
        })?;
        match judged {
            Ok(principal) => {
                print(&format!("{:#}\n", describe(&principal)))?;
                Ok(ExitCode::SUCCESS)
            }
            Err(fault) => {
                print(&format!("{:#}\n", json!({ "code": fault.code(), "message": fault.message() })))?;
                Ok(ExitCode::FAILURE)
            }
        }
    }
}

fn describe(principal: &Principal) -> serde_json::Value {
    let kind = match principal.kind {
        PrincipalKind::User => "user",
        PrincipalKind::Agent => "agent",
        PrincipalKind::Anonymous => "anonymous",
        PrincipalKind::Key => "key",
    };
    json!({
        "kind": kind,
        "user": principal.user,
        "session": principal.session,
        "roles": principal.roles,
        "rooms": principal.grants.iter().map(Pattern::as_str).collect::<Vec<_>>(),
        "scopes": principal.scopes.iter().map(|scope| scope.as_str()).collect::<Vec<_>>(),
        "issued_at": principal.issued_at.map(|at| at.to_string()),
        "expires_at": principal.expires_at.map(|at| at.to_string()),
        "jti": principal.token_id,
    })
}

impl KeyCommand {
    /// Does it.
    ///
    /// # Errors
    /// A name or scope that cannot be, or no random bytes to be had.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let KeyCommand::Make(make) = self;
        let scopes: Option<Vec<Scope>> = make.scopes.iter().map(|scope| Scope::parse(scope)).collect();
        let scopes = scopes.context("--scope is publish, read or admin")?;
        let mut random = [0; RANDOM_BYTES];
        getrandom::fill(&mut random).context("no random bytes")?;
        let (key, kept) = ApiKey::make(&make.name, scopes, random)?;
        print(&format!(
            "The key, which is shown this once:\n\n    {}\n\nIn fanfare.toml, under [auth], or in FANFARE_AUTH__API_KEYS:\n\n    \
             api_keys = [\"{kept}\"]\n",
            key.expose()
        ))
    }
}
