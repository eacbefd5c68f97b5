//! Virtual time and network, the shard simulator, contract suites and fuzz target bodies.
