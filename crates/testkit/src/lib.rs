//! Virtual time and network, the shard simulator, transcripts and fuzz target bodies.
//!
//! Owns what the tests of the pure crates share. Does not know real clocks, threads or descriptors. Invariant: the same
//! script or seed gives the same run.

pub mod cluster;
pub mod fuzz;
pub mod simulator;
pub mod transcript;
