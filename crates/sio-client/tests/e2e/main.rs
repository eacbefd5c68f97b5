//! The client against servers over real sockets: a scripted one for what stock servers never do, and a stock one for the rest.
//!
//! The tests against the stock server are ignored by default, because they need Node and its packages:
//!
//! ```text
//! npm install --prefix DIR socket.io@4.8.4 socket.io-msgpack-parser@3.0.2
//! NODE_PATH=DIR/node_modules cargo test -p sio-client --test e2e -- --include-ignored
//! ```
//!
//! `TEST_PORT_BASE` chooses the ports of the stock servers, counting up from it; without it the system does.

mod scripted;
mod stock;
