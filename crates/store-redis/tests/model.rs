//! Whatever is done to it, the store in Redis says what the store in memory says, also after it was opened anew.

use std::sync::atomic::{AtomicU32, Ordering};

use hub::store::Store;
use proptest::test_runner::{Config, TestRunner};
use store_redis::{Address, Options, RedisStore};
use testkit::contract::model;
use testkit::redis::RedisServer;

#[test]
#[ignore = "needs redis-server"]
fn redis_says_what_the_memory_says() {
    let server = RedisServer::start();
    let cases = AtomicU32::new(0);
    let mut runner = TestRunner::new(Config { cases: 64, failure_persistence: None, ..Config::default() });
    let result = runner.run(&model::steps(), |steps| {
        // Each case is in a store of its own.
        let prefix = format!("case-{}", cases.fetch_add(1, Ordering::Relaxed));
        let options = Options { prefix, ..Options::new(Address::parse(&server.address()).unwrap()) };
        let mut open = || -> Box<dyn Store> { Box::new(RedisStore::open(options.clone()).unwrap()) };
        model::compare(&steps, &mut open)
    });
    result.unwrap();
}
