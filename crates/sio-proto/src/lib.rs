//! Socket.IO packets, text and msgpack, without I/O.
