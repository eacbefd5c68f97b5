//! Owns how the process becomes one node of several: the store and the bus in Redis, and where other nodes reach it.
//! Does not know what is told on the bus.

use std::net::{IpAddr, SocketAddr, TcpListener, ToSocketAddrs as _, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ::auth::secret::Secret;
use anyhow::{Context as _, anyhow};
use bus::{Bus, Feed, Requests};
use store_redis::{Address, RedisStore};

use crate::settings;

/// Where Redis is, and how this process takes part.
#[derive(Clone, Debug)]
pub(crate) struct ClusterConfig {
    address: Address,
    prefix: String,
    ca_file: Option<PathBuf>,
    replicas: u32,
    patience: Duration,
    lease: Duration,
    /// Address at which other nodes reach this one; `None`: that by which Redis is reached.
    host: Option<IpAddr>,
    /// Port there; 0 takes any that is free.
    port: u16,
}

impl ClusterConfig {
    /// Converts the settings; `None` without an address of Redis.
    ///
    /// # Errors
    /// A value that does not say what it should.
    pub(crate) fn convert(
        redis: settings::Redis,
        cluster: settings::ClusterSettings,
    ) -> Result<Option<Self>, String> {
        if redis.url.expose().is_empty() {
            return Ok(None);
        }
        let address = parse_address(&redis.url)?;
        let host = match cluster.host.as_str() {
            "" => None,
            host => Some(host.parse().map_err(|_| format!("cluster.host: `{host}` is no IP address"))?),
        };
        let lease = crate::config::duration("cluster.lease", &cluster.lease)?;
        if lease < Duration::from_secs(2) {
            return Err(
                "cluster.lease is shorter than 2s: nodes would seem gone while they only pause".into()
            );
        }
        Ok(Some(Self {
            address,
            prefix: redis.prefix,
            ca_file: Some(redis.ca_file).filter(|file| !file.is_empty()).map(PathBuf::from),
            replicas: redis.replicas,
            patience: crate::config::duration("redis.patience", &redis.patience)?,
            lease,
            host,
            port: cluster.port,
        }))
    }
}

fn parse_address(url: &Secret) -> Result<Address, String> {
    // It tells without secrets what is wrong.
    Address::parse(url.expose()).map_err(|fault| format!("redis.url is no address of Redis: {fault}"))
}

/// The process as a node.
pub(crate) struct Node {
    pub(crate) store: Arc<RedisStore>,
    pub(crate) bus: Bus,
    pub(crate) feed: Feed,
    pub(crate) requests: Requests,
    /// Where other nodes are to reach it.
    pub(crate) reach: SocketAddr,
}

/// Opens the store and takes part.
///
/// # Errors
/// Redis cannot be reached or used, or there is no address for other nodes.
pub(crate) async fn join(config: &ClusterConfig) -> anyhow::Result<Node> {
    let tls_root = match &config.ca_file {
        Some(file) => Some(
            std::fs::read(file)
                .with_context(|| format!("redis.ca_file: {} cannot be read", file.display()))?,
        ),
        None => None,
    };
    let terms = store_redis::Terms { tls_root, ..store_redis::Terms::new(config.address.clone()) };
    let mut options = store_redis::Options::new(config.address.clone());
    options.terms = terms.clone();
    options.prefix.clone_from(&config.prefix);
    options.replicas = config.replicas;
    options.patience = config.patience;
    options.publishes = true;
    let finding = config.clone();
    // It waits for Redis, and for whoever knows names.
    let opening = move || anyhow::Ok((RedisStore::open(options)?, reach(&finding)?));
    let (store, reach) = tokio::task::spawn_blocking(opening).await??;
    let (bus, feed, requests) = Bus::open(bus::Options {
        terms,
        prefix: config.prefix.clone(),
        lease: config.lease,
        name: uuid::Uuid::now_v7().to_string().into(),
        version: env!("CARGO_PKG_VERSION").into(),
        reach: Some(reach),
    })
    .await?;
    Ok(Node { store: Arc::new(store), bus, feed, requests, reach })
}

/// The address at which other nodes reach this one: nobody else has it at the moment.
fn reach(config: &ClusterConfig) -> anyhow::Result<SocketAddr> {
    let host = match config.host {
        Some(host) => host,
        None => host_towards(&config.address)?,
    };
    let asked = SocketAddr::new(host, config.port);
    let bound = TcpListener::bind(asked).and_then(|listener| listener.local_addr());
    bound.with_context(|| format!("cluster.host, cluster.port: {asked} cannot be bound"))
}

/// The address of the interface by which Redis is reached: other nodes reach it, too, and so most likely us there.
fn host_towards(address: &Address) -> anyhow::Result<IpAddr> {
    let places = address.places();
    let nobody = || anyhow!("none of {} can be looked up", places.join(", "));
    let redis = places.iter().find_map(|place| place.to_socket_addrs().ok()?.next()).ok_or_else(nobody)?;
    let any: SocketAddr = if redis.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
    // Nothing is sent: the system only looks up the way.
    let socket = UdpSocket::bind(any)?;
    socket.connect(redis)?;
    Ok(socket.local_addr()?.ip())
}
