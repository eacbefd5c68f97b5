//! Virtual time and network, the shard simulator, transcripts, fuzz target bodies, the contracts of ports, and servers
//! that implementations of ports need.
//!
//! Owns what the tests of several crates share. But for `redis`, `port` and `proxy` it does not know real clocks, threads or descriptors; a
//! contract waits for whatever its subject does on threads of its own. Invariant: the same script or seed gives the same
//! run.

pub mod cluster;
pub mod contract;
pub mod fuzz;
pub mod memory;
pub mod port;
pub mod proxy;
pub mod redis;
pub mod simulator;
pub mod transcript;
