//! The store keeps the contract of stores, wherever Redis is: alone, behind Sentinels, in a Cluster.

/// What the three have in common.
mod servers {
    use std::any::Any;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::{Arc, Mutex, PoisonError, Weak};

    use store_redis::{Address, Options, RedisStore};
    use testkit::contract::store::Subject;

    /// Servers that tests share while any of them runs.
    pub(super) type Shared<T> = Mutex<Weak<T>>;

    /// An empty store, with a prefix of its own, on servers that are started if there are none.
    pub(super) fn fresh<T: Any>(shared: &Shared<T>, start: fn() -> T, address: fn(&T) -> String) -> Subject {
        static STORES: AtomicU32 = AtomicU32::new(0);
        let mut held = shared.lock().unwrap_or_else(PoisonError::into_inner);
        let servers = held.upgrade().unwrap_or_else(|| {
            let servers = Arc::new(start());
            *held = Arc::downgrade(&servers);
            servers
        });
        let prefix = format!("contract-{}", STORES.fetch_add(1, Ordering::Relaxed));
        let options = Options { prefix, ..Options::new(Address::parse(&address(&servers)).unwrap()) };
        Subject { store: Box::new(RedisStore::open(options).unwrap()), keep: Box::new(servers) }
    }
}

mod single {
    use super::servers::{Shared, fresh};
    use testkit::redis::RedisServer;

    static SERVER: Shared<RedisServer> = Shared::new(std::sync::Weak::new());

    testkit::store_contract!(|| fresh(&SERVER, RedisServer::start, RedisServer::address), #[ignore = "needs redis-server"]);
}

mod sentinel {
    use super::servers::{Shared, fresh};
    use testkit::redis::RedisSentinels;

    static SERVERS: Shared<RedisSentinels> = Shared::new(std::sync::Weak::new());

    testkit::store_contract!(|| fresh(&SERVERS, RedisSentinels::start, RedisSentinels::address), #[ignore = "needs redis-server"]);
}

mod cluster {
    use super::servers::{Shared, fresh};
    use testkit::redis::RedisCluster;

    static SERVERS: Shared<RedisCluster> = Shared::new(std::sync::Weak::new());

    testkit::store_contract!(|| fresh(&SERVERS, RedisCluster::start, RedisCluster::address), #[ignore = "needs redis-server"]);
}
