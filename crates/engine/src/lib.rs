//! A Socket.IO server engine: shards, HTTP, TLS and the public API.
