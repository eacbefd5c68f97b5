//! Owns connections for others than the store: whoever subscribes, or reads streams, at the same Redis. Does not know what
//! they say on them. Invariant: the right server is found here as it is for the store, and nowhere else.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::PushInfo;
use redis::aio::MultiplexedConnection;

use crate::address::Address;
use crate::link::{Hear, Link};
use crate::terms::Terms;

/// Hears what a server says unasked: messages of channels, and that the connection has ended. Must not wait.
#[derive(Clone)]
pub struct Push(Hear);

impl Push {
    /// Hands everything to `hear`, on the thread that reads from the connection.
    pub fn new(hear: impl Fn(PushInfo) + Send + Sync + 'static) -> Self {
        Self(Arc::new(hear))
    }
}

impl fmt::Debug for Push {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Push")
    }
}

/// Makes connections to wherever Redis is.
#[derive(Clone, Debug)]
pub struct Connector {
    address: Address,
    tls_root: Option<Vec<u8>>,
    connect_timeout: Duration,
}

impl Connector {
    /// To this server, Sentinels or Cluster, over TLS with authorities of PEM if given, else with those that the machine
    /// trusts. A connection must be made within `connect_timeout`.
    #[must_use]
    pub fn new(address: Address, tls_root: Option<Vec<u8>>, connect_timeout: Duration) -> Self {
        Self { address, tls_root, connect_timeout }
    }

    /// Where it connects to, without secrets.
    #[must_use]
    pub fn shown(&self) -> String {
        self.address.to_string()
    }

    /// Connects to the server that has `key`; each command must be answered within `command_timeout`. With `push` the
    /// connection may subscribe, and speaks RESP3.
    ///
    /// # Errors
    /// The environment's fault, in words without secrets.
    pub async fn connect(
        &self,
        key: &str,
        command_timeout: Duration,
        push: Option<Push>,
    ) -> Result<MultiplexedConnection, String> {
        let Self { address, tls_root, connect_timeout } = self.clone();
        let terms = Terms { address, tls_root, connect_timeout, command_timeout };
        let link = Link::new(terms, key.to_owned());
        link.find_in_time(push.map(|push| push.0)).await.map_err(|failure| failure.why())
    }
}
