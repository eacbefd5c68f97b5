//! The shard: Engine.IO sessions, sockets, rooms, acks and outboxes as one pure state machine.
//!
//! Owns the rules of Engine.IO 4 (and 3) and Socket.IO 5 between decoded requests on one side and the application on
//! the other. Does not know threads, clocks, randomness, HTTP, TLS or descriptors: moments, seeds and bytes are
//! arguments. Invariant: given the same inputs at the same moments, a [`Shard`] gives the same outputs.
//!
//! Drive it as [`Shard`] says. The engine does so with one thread per shard; the simulator with hundreds of shards in
//! virtual time.

mod ack;
mod audit;
mod claim;
mod close;
mod config;
mod connect;
mod counters;
mod emit;
mod heartbeat;
mod incoming;
mod link;
mod message;
mod moment;
mod outbox;
mod output;
mod polling;
mod reason;
mod recovery;
mod release;
mod restore;
mod room;
mod session;
mod shard;
mod slab;
mod socket;
mod upgrade;
mod websocket;
mod wheel;

pub use ack::AckToken;
pub use config::{Config, Recovery, Transports};
pub use connect::{Accepted, JoinFault};
pub use counters::{Counters, Gauges};
pub use emit::{AckRequest, BroadcastId, EmitFault, Flags, Order, Target};
pub use link::{LinkKey, LinkTag};
pub use moment::Moment;
pub use output::{Output, Reply};
pub use reason::Reason;
pub use recovery::{Claim, Claimant, Claimed, Handover, Missed, MissedEvent, Offer};
pub use release::Released;
pub use restore::{RestoreFault, Restored};
pub use session::{Opening, RequestId, SessionKey, SessionTag};
pub use shard::{Shard, ShardId};
pub use slab::Key;
pub use socket::{SocketKey, SocketTag};
