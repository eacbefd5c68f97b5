//! Owns the lock that keeps a second process from a database: a file beside it, locked for as long as the store lives
//! and by the kernel released with the process. Does not know what is locked.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use crate::fault::OpenFault;

/// A database that is ours.
#[derive(Debug)]
pub(crate) struct Lock {
    /// Locked until it is closed.
    _file: File,
}

impl Lock {
    /// Takes the lock of a database.
    pub(crate) fn take(path: &Path) -> Result<Self, OpenFault> {
        let unusable = |error: std::io::Error| OpenFault::Unusable {
            path: path.to_owned(),
            why: format!("its lock file: {error}"),
        };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(beside(path))
            .map_err(unusable)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                // Who holds it is a courtesy; without it the message is as true.
                let _ = file.read_to_string(&mut text);
                return Err(OpenFault::InUse { path: path.to_owned(), by: text.trim().parse().ok() });
            }
            Err(TryLockError::Error(error)) => return Err(unusable(error)),
        }
        // A full disk must not keep a store from opening: it can be read all the same.
        let _ = file.set_len(0).and_then(|()| file.rewind());
        let _ = writeln!(file, "{}", std::process::id());
        Ok(Self { _file: file })
    }
}

/// The lock file of a database: its name with `.lock` behind.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    name.into()
}
