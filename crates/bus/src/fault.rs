//! Owns why the bus could not do what was asked. Does not know what is done about it.

use store_redis::Failure;

use crate::node::NodeId;

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BusFault {
    /// There is no connection to Redis, or it broke meanwhile: the environment's fault, which may pass. Whether others
    /// were told is not known.
    Down(String),
    /// Too much waits to be sent already, or somebody who asked had no more patience: nothing was told.
    Busy,
    /// It is larger than what may be told: the caller's fault.
    TooLarge {
        /// Its bytes.
        bytes: usize,
        /// How many there may be.
        bytes_max: usize,
    },
    /// Nobody has answered in time; whether the question has arrived is not known.
    NoAnswer,
    /// There is no such node, or it has gone.
    NoSuchNode(NodeId),
    /// The bus is closed, or somebody else has its number.
    Closed,
}

impl std::fmt::Display for BusFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            BusFault::Down(why) => write!(f, "other servers cannot be reached: {why}"),
            BusFault::Busy => f.write_str("too much waits to be told to other servers"),
            BusFault::TooLarge { bytes, bytes_max } => {
                write!(f, "{bytes} bytes exceed the {bytes_max} that other servers may be told at once")
            }
            BusFault::NoAnswer => f.write_str("the other server has not answered in time"),
            BusFault::NoSuchNode(node) => write!(f, "there is no server with the number {node}"),
            BusFault::Closed => f.write_str("this server has left the others"),
        }
    }
}

impl std::error::Error for BusFault {}

impl From<Failure> for BusFault {
    fn from(failure: Failure) -> Self {
        BusFault::Down(failure.why())
    }
}
