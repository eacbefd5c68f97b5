//! A small asynchronous Socket.IO client.
