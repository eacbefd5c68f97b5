//! Whatever is done to it, the store in a file says what the store in memory says, also after it was opened anew.

use hub::store::Store;
use proptest::prelude::*;
use store_sqlite::{Options, SqliteStore, Synchronous};
use testkit::contract::model;

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn the_file_says_what_the_memory_says(steps in model::steps()) {
        let folder = tempfile::tempdir().unwrap();
        let options = Options {
            synchronous: Synchronous::Normal,
            readers: 1,
            ..Options::new(folder.path().join("fanfare.db"))
        };
        let mut open = || -> Box<dyn Store> { Box::new(SqliteStore::open(options.clone()).unwrap()) };
        model::compare(&steps, &mut open)?;
    }
}
