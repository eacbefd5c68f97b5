//! A Socket.IO server engine: Engine.IO 4 and Socket.IO 5 for stock clients, an order of magnitude lighter.
//!
//! Owns shards on threads, HTTP, TLS, and the public API. Does not know what applications mean by their events.
//! The protocol itself is in `engine-core`, a pure value that this crate drives.
//!
//! ```no_run
//! # async fn f() -> std::io::Result<()> {
//! let server = engine::Server::builder()
//!     .namespace("/", |ns| {
//!         ns.on("chat", |socket: engine::Socket, text: String| async move {
//!             let _ = socket.broadcast().emit("chat", &text);
//!         });
//!     })
//!     .build()?;
//! server.listen(([127, 0, 0, 1], 3000).into()).await?;
//! # Ok(())
//! # }
//! ```

mod ack;
mod builder;
mod calls;
mod coding;
mod cors;
mod drain;
mod emitter;
mod forward;
mod handshake;
mod http;
mod interest;
mod joining;
mod listener;
mod mail;
mod namespace;
mod passing;
mod refusal;
mod release;
mod reply;
mod restore;
mod sending;
mod server;
mod shard;
mod socket;
mod stream;
mod tunnel;

pub use ack::{AckFault, AckStream, Acks, Answer, Answered};
pub use builder::Builder;
pub use cors::{Cors, Origins};
pub use eio_proto::{Sid, TransportKind};
pub use emitter::Broadcaster;
pub use engine_core::{Config, Counters, Flags, Gauges, Order, Reason, Recovery, RestoreFault, Transports};
pub use handshake::{Handshake, OpeningRequest};
pub use http::{Cookie, EngineService, PeerAddress};
pub use joining::{Joined, JoinedAll};
pub use listener::Serving;
pub use mail::Busy;
pub use namespace::{Event, Namespace, PendingAnswer, Relay};
pub use refusal::Refusal;
pub use reply::ReplyBody;
pub use restore::{Missed, RecoveryId, RestoreRequest, Restored, Restorer};
pub use server::{Server, SocketInfo, Stats};
pub use sio_proto::{ArgsFault, Binary, EncodeFault, Limits, Many, NoArgs, One, Parser, RawArgs};
pub use socket::{ConnectRequest, EmitError, IntoRooms, Socket};
