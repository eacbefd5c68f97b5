//! Owns why something failed: what SQLite's errors mean for whoever asked. Does not decide what happens then.

use std::path::PathBuf;

use hub::store::StoreFault;
use rusqlite::ErrorCode;
use rusqlite::ffi;

/// Why a database could not be opened. The environment's fault; each says what to do.
#[derive(Debug)]
pub enum OpenFault {
    /// Another process has it open, or this one a second time.
    InUse {
        /// The database.
        path: PathBuf,
        /// The process that has it, where it says so.
        by: Option<u32>,
    },
    /// It was written by a newer version of the program.
    Newer {
        /// The database.
        path: PathBuf,
        /// Version of its tables.
        found: u32,
        /// The newest that this program knows.
        known: u32,
    },
    /// It is a database of some other program.
    Foreign {
        /// The database.
        path: PathBuf,
    },
    /// It is no database, or a damaged one.
    Corrupt {
        /// The database.
        path: PathBuf,
        /// What SQLite says.
        why: String,
    },
    /// It cannot be made, read or written here.
    Unusable {
        /// The database.
        path: PathBuf,
        /// What the system says.
        why: String,
    },
}

impl std::fmt::Display for OpenFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            OpenFault::InUse { path, by } => {
                write!(f, "{} is in use by ", path.display())?;
                match by {
                    Some(process) => write!(f, "process {process}")?,
                    None => write!(f, "another process")?,
                }
                write!(f, "; stop it first, or give this one a folder of its own")
            }
            OpenFault::Newer { path, found, known } => write!(
                f,
                "{} has tables of version {found}, and this program knows versions up to {known}; use a program at \
                 least as new as the one that wrote it",
                path.display()
            ),
            OpenFault::Foreign { path } => {
                write!(f, "{} is a database of another program; choose another file", path.display())
            }
            OpenFault::Corrupt { path, why } => write!(
                f,
                "{} is damaged ({why}); put a backup in its place, or move it away to begin anew",
                path.display()
            ),
            OpenFault::Unusable { path, why } => write!(
                f,
                "cannot use {}: {why}; the folder and the file must be writable, with space to grow",
                path.display()
            ),
        }
    }
}

impl std::error::Error for OpenFault {}

/// What goes wrong in here.
#[derive(Debug)]
pub(crate) enum Failure {
    Sqlite(rusqlite::Error),
    /// What was kept makes no sense.
    Damaged(String),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Failure::Sqlite(error)
    }
}

impl Failure {
    /// What it means for whoever asked.
    pub(crate) fn to_fault(&self) -> StoreFault {
        let error = match self {
            Failure::Damaged(why) => return StoreFault::Corrupt(why.clone()),
            Failure::Sqlite(error) => error,
        };
        let why = error.to_string();
        let rusqlite::Error::SqliteFailure(cause, _) = error else {
            // A column of another type than was ever written.
            return StoreFault::Corrupt(why);
        };
        match cause.code {
            // A file limit or a quota is told as a failed write, and only the system's number would tell them from a
            // broken disk; either way nothing can be added until somebody acts.
            _ if cause.extended_code == ffi::SQLITE_IOERR_WRITE => StoreFault::Full(why),
            ErrorCode::DiskFull | ErrorCode::ReadOnly | ErrorCode::TooBig | ErrorCode::PermissionDenied => {
                StoreFault::Full(why)
            }
            // `Unknown`: a table or column that our statements name is not there.
            ErrorCode::DatabaseCorrupt
            | ErrorCode::NotADatabase
            | ErrorCode::ConstraintViolation
            | ErrorCode::TypeMismatch
            | ErrorCode::Unknown => StoreFault::Corrupt(why),
            // Theirs is a list that may grow.
            _ => StoreFault::Unavailable(why),
        }
    }

    /// What it means for whoever opens the database.
    pub(crate) fn to_open_fault(&self, path: PathBuf) -> OpenFault {
        match self.to_fault() {
            StoreFault::Corrupt(why) => OpenFault::Corrupt { path, why },
            StoreFault::Full(why) | StoreFault::Unavailable(why) => OpenFault::Unusable { path, why },
        }
    }
}
