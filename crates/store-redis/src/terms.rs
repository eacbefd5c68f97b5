//! Owns where Redis is and how it is reached: what the store and all that works beside it have in common. Does not connect.

use std::time::Duration;

use crate::address::Address;

/// Where Redis is, and how a connection is made.
#[derive(Clone, Debug)]
pub struct Terms {
    /// Where Redis is.
    pub address: Address,
    /// Certificates of authorities that the server's must be of, in PEM, for addresses with TLS. Default: those that the
    /// machine trusts.
    pub tls_root: Option<Vec<u8>>,
    /// Time in which a connection must be made, asking Sentinels or a Cluster included. Default 5 s.
    pub connect_timeout: Duration,
    /// Time in which a command must be answered. Default 5 s. Lower than what Redis needs to fork or to fetch a megabyte:
    /// calls fail that would have worked.
    pub command_timeout: Duration,
}

impl Terms {
    /// The defaults, for this server.
    #[must_use]
    pub fn new(address: Address) -> Self {
        Self {
            address,
            tls_root: None,
            connect_timeout: Duration::from_secs(5),
            command_timeout: Duration::from_secs(5),
        }
    }
}
