//! Virtual time and network, the shard simulator, transcripts, fuzz target bodies, and the contracts of ports.
//!
//! Owns what the tests of the pure crates share. Does not know real clocks, threads or descriptors; a contract waits for
//! whatever its subject does on threads of its own. Invariant: the same script or seed gives the same run.

pub mod cluster;
pub mod contract;
pub mod fuzz;
pub mod memory;
pub mod simulator;
pub mod transcript;
