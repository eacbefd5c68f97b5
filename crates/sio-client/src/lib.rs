//! A small asynchronous Socket.IO 5 client: WebSocket, long polling or an upgrade from one to the other; text or msgpack packets;
//! namespaces sharing one connection; acknowledgements; binary values; reconnection; connection state recovery.
//!
//! It owns the client's side of the two protocols. It does not know TLS: put a terminating proxy before a server that needs it.
//! Invariant: nothing here grows without a bound in [`Options`], and bytes from the server never panic.
//!
//! ```no_run
//! use sio_client::{Client, Notice, Options, args::Many};
//! use std::time::Duration;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let mut client = Client::connect("http://127.0.0.1:3000", Options::default()).await?;
//! client.emit("hello", &Many(("world", 1))).await?;
//! let reply = client.emit_with_ack("sum", &Many((1, 2)), Duration::from_secs(5)).await?;
//! assert_eq!(reply.args::<u32>()?, 3);
//! while let Some(notice) = client.recv().await {
//!     match notice {
//!         Notice::Event(event) if event.name == "tick" => assert!(event.args::<u64>()? > 0),
//!         Notice::Event(_) | Notice::Connected { .. } => {}
//!         Notice::Disconnected { .. } | Notice::Refused(_) | Notice::GaveUp => {}
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! One task per connection runs the sockets ([`Client`]s) over it and, beneath, one runs the Engine.IO session. The application talks
//! to them by channels, so every method may be cancelled.

mod backoff;
mod client;
mod driver;
mod endpoint;
mod engine;
mod fault;
mod http;
mod message;
mod options;
mod polling;
mod slot;
mod websocket;

/// How arguments are given to [`Client::emit`], and binary values within them.
pub mod args {
    pub use sio_proto::{Args, Binary, Many, NoArgs, One, RawArgs};
}

pub use client::{Client, Emitter};
pub use fault::{AckFault, ConnectFault, DisconnectReason, EmitFault, EngineFault, Refusal};
pub use message::{Event, Notice, Reply};
pub use options::{Options, Reconnect, Transports};
pub use sio_proto::{ArgsFault, Parser};
