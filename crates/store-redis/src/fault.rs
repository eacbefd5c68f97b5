//! Owns why something failed: what errors of Redis and of the way to it mean for whoever asked. Does not decide what
//! happens then. Invariant: no text has a password.

use hub::store::StoreFault;
use redis::{ErrorKind, RedisError, ServerErrorKind};

/// Why a store could not be opened. The environment's fault; each says what to do.
#[derive(Debug)]
pub enum OpenFault {
    /// The address makes no sense.
    Address(String),
    /// No server could be reached, or none that takes us.
    Unreachable {
        /// Where, without secrets.
        address: String,
        /// What happened.
        why: String,
    },
    /// The server is older than what we need.
    TooOld {
        /// Its version.
        found: String,
    },
    /// The keys were written by a newer version of the program.
    Newer {
        /// The prefix of the keys.
        prefix: String,
        /// Version of what is kept.
        found: u32,
        /// The newest that this program knows.
        known: u32,
    },
    /// The keys are of another program.
    Foreign {
        /// The prefix of the keys.
        prefix: String,
        /// What Redis says.
        why: String,
    },
}

impl std::fmt::Display for OpenFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            OpenFault::Address(why) => write!(f, "the address of Redis makes no sense: {why}"),
            OpenFault::Unreachable { address, why } => {
                write!(f, "cannot use Redis at {address}: {why}; it must run there and let us in")
            }
            OpenFault::TooOld { found } => write!(f, "Redis {found} is too old; use 7.0 or newer"),
            OpenFault::Newer { prefix, found, known } => write!(
                f,
                "keys of {prefix} have version {found}, and this program knows versions up to {known}; use a program \
                 at least as new as the one that wrote them"
            ),
            OpenFault::Foreign { prefix, why } => {
                write!(f, "keys of {prefix} are of another program ({why}); choose another prefix")
            }
        }
    }
}

impl std::error::Error for OpenFault {}

/// What goes wrong between us and Redis. The environment's fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No answer came: whether it was done is not known. May pass.
    Lost(String),
    /// Nothing was done, and may be soon: no connection, a server that loads or is none to write to.
    Refused(String),
    /// Nothing was done, and somebody must act: memory, disk or rights are missing.
    Full(String),
    /// What is kept makes no sense.
    Damaged(String),
    /// The server does not have the script.
    NoScript,
    /// Another server has the keys.
    Moved {
        /// `host:port`; the host is empty if it is the one that was asked.
        to: String,
    },
}

impl From<RedisError> for Failure {
    fn from(error: RedisError) -> Self {
        if let Some((to, _slot)) = error.redirect_node() {
            return Failure::Moved { to: to.to_owned() };
        }
        let why = error.to_string();
        match error.kind() {
            ErrorKind::Server(kind) => match kind {
                ServerErrorKind::NoScript => Failure::NoScript,
                ServerErrorKind::NoPerm => Failure::Full(why),
                ServerErrorKind::BusyLoading
                | ServerErrorKind::TryAgain
                | ServerErrorKind::ClusterDown
                | ServerErrorKind::MasterDown
                | ServerErrorKind::ReadOnly
                | ServerErrorKind::Moved
                | ServerErrorKind::Ask => Failure::Refused(why),
                // While a Cluster moves our slot; nothing was done.
                ServerErrorKind::ResponseError if why.contains("non local key") => Failure::Refused(why),
                // A script or a command that does not fit what it finds. Their list may grow.
                _ => Failure::Damaged(why),
            },
            ErrorKind::Extension => match error.code().unwrap_or_default() {
                // `MISCONF`: the disk does not take what must be written to it.
                "OOM" | "MISCONF" => Failure::Full(why),
                "WRONGTYPE" | "MISSING" => Failure::Damaged(why),
                // `NOAUTH`, `WRONGPASS`, `NOREPLICAS`, `BUSY`, `UNBLOCKED` and such: what may be set right.
                _ => Failure::Refused(why),
            },
            ErrorKind::Io => Failure::Lost(why),
            ErrorKind::Parse | ErrorKind::UnexpectedReturnType => Failure::Damaged(why),
            // Before anything was sent. Theirs is a list that may grow.
            _ => Failure::Refused(why),
        }
    }
}

impl Failure {
    /// Whether trying again may help, without anybody's doing.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Failure::Lost(_) | Failure::Refused(_) | Failure::NoScript | Failure::Moved { .. } => true,
            Failure::Full(_) | Failure::Damaged(_) => false,
        }
    }

    /// What it means for whoever asked.
    pub(crate) fn to_fault(&self) -> StoreFault {
        match self {
            Failure::Lost(why) | Failure::Refused(why) => StoreFault::Unavailable(why.clone()),
            Failure::Full(why) => StoreFault::Full(why.clone()),
            Failure::Damaged(why) => StoreFault::Corrupt(why.clone()),
            Failure::NoScript => StoreFault::Unavailable("the server forgets its scripts".to_owned()),
            Failure::Moved { to } => StoreFault::Unavailable(format!("the keys are at {to} by now")),
        }
    }

    /// What happened, as a part of a sentence.
    #[must_use]
    pub fn why(&self) -> String {
        match self.to_fault() {
            StoreFault::Unavailable(why) | StoreFault::Full(why) | StoreFault::Corrupt(why) => why,
        }
    }
}
