//! Peers of other making: what Socket.IO servers and emitters in Node and Python say to each other over Redis, so that a
//! server that understands it is one of them.
//!
//! Owns the bytes of three families, the connection on which they travel, and the conversation: who is asked, who answers,
//! how long is waited. Does not know sockets: whoever has them implements [`Local`]. Invariant: nothing that comes over
//! Redis panics, and what servers of this program tell each other is never acted upon here, because they have a bus of
//! their own.
//!
//! | module | noun |
//! |---|---|
//! | `value` | values with bytes in them |
//! | [`msgpack`] | how Node's libraries write them |
//! | `message` | what is asked and answered, whatever the bytes |
//! | [`classic`] | `@socket.io/redis-adapter`, and `@socket.io/redis-emitter` |
//! | [`sharded`] | the same package's sharded adapter |
//! | [`python`] | python-socketio's managers |
//! | `family` | which channels are heard, and what each message means |
//! | `local` | the port: what this server does when it is asked |
//! | `peer` | the server as one of them: asks, answers, mirrors |
//! | `gathering` | answers of several servers to one question |
//! | `session` | one connection: subscriptions, what comes, what goes |
//! | `report` | how it is doing |

pub mod classic;
mod family;
mod gathering;
mod local;
mod message;
pub mod msgpack;
mod peer;
pub mod python;
mod report;
mod session;
pub mod sharded;
mod value;

pub use family::Kind;
pub use gathering::Gathered;
pub use local::{AckNews, Doing, Local};
pub use message::{Answer, Ask, Letter, Opts, RemoteSocket, Reply};
pub use peer::{Options, Peer};
pub use report::Report;
pub use value::{DEPTH_MAX, Data};
