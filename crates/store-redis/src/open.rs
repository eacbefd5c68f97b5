//! Owns what is looked at when a store is opened: that the server is new enough, and that the keys are ours and of a
//! version that we know. Does not know what follows.

use redis::Value;

use crate::Options;
use crate::fault::{Failure, OpenFault};
use crate::read::Reads;

/// Version of the keys and of what is in them. Another one is written when what an older program would do with them is
/// wrong.
const VERSION: u32 = 1;

/// The oldest server whose scripts can do what ours do.
const SERVER_MAJOR_MIN: u32 = 7;

/// Why a store cannot be used.
pub(crate) enum Complaint {
    Failed(Failure),
    TooOld(String),
    Newer(u32),
    Foreign(String),
}

impl From<Failure> for Complaint {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Damaged(why) => Complaint::Foreign(why),
            failure => Complaint::Failed(failure),
        }
    }
}

impl Complaint {
    /// What it means for whoever opens.
    pub(crate) fn to_open_fault(&self, options: &Options) -> OpenFault {
        let prefix = options.prefix.clone();
        match self {
            Complaint::Failed(failure) => {
                OpenFault::Unreachable { address: options.terms.address.to_string(), why: failure.why() }
            }
            Complaint::TooOld(found) => OpenFault::TooOld { found: found.clone() },
            Complaint::Newer(found) => OpenFault::Newer { prefix, found: *found, known: VERSION },
            Complaint::Foreign(why) => OpenFault::Foreign { prefix, why: why.clone() },
        }
    }
}

/// Looks, and writes our version where there is nothing.
pub(crate) async fn check(reads: &Reads) -> Result<(), Complaint> {
    let told = reads.send(redis::cmd("INFO").arg("server")).await?;
    let told = match &told {
        Value::BulkString(told) => String::from_utf8_lossy(told),
        _ => "".into(),
    };
    let version = told.lines().find_map(|line| line.strip_prefix("redis_version:")).map(str::trim_end);
    let major = version.and_then(|version| version.split('.').next()?.parse::<u32>().ok());
    if let (Some(version), Some(major)) = (version, major)
        && major < SERVER_MAJOR_MIN
    {
        return Err(Complaint::TooOld(version.to_owned()));
    }
    let store = reads.keys.of("store");
    reads.send(redis::cmd("HSETNX").arg(&store).arg("version").arg(VERSION)).await?;
    match reads.send(redis::cmd("HGET").arg(&store).arg("version")).await? {
        Value::BulkString(found) => {
            match std::str::from_utf8(&found).ok().and_then(|found| found.parse().ok()) {
                Some(VERSION) => Ok(()),
                Some(found) if found > VERSION => Err(Complaint::Newer(found)),
                _ => Err(Complaint::Foreign("they have no version".to_owned())),
            }
        }
        _ => Err(Complaint::Foreign("they have no version".to_owned())),
    }
}
