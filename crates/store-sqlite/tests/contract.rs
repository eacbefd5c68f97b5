//! The store keeps the contract of stores.

use store_sqlite::{Options, SqliteStore, Synchronous};
use testkit::contract::store::Subject;

fn fresh() -> Subject {
    let folder = tempfile::tempdir().unwrap();
    // The suite is about what is answered, not about the disk; `crash.rs` is.
    let synchronous = Synchronous::Normal;
    let options = Options { synchronous, ..Options::new(folder.path().join("fanfare.db")) };
    Subject { store: Box::new(SqliteStore::open(options).unwrap()), keep: Box::new(folder) }
}

testkit::store_contract!(fresh);
