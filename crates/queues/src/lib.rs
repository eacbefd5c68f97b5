//! RabbitMQ: takes what queues bring, and asks AI tools by way of queues.
//!
//! A [`Consumer`] owns one queue: it connects, declares, takes messages in order and hands each to an [`Intake`], which
//! keeps it. A message is acknowledged only after that; one that nobody can ever keep goes to a queue of the dead with
//! the reason; one that cannot be kept now is tried again without letting later ones pass. [`QueueLine`] is the way to a
//! tool that waits at a queue.
//!
//! Owns connections to the broker, their repetition, and what is counted of them. Does not know HTTP, sockets, or what
//! events mean: the program that has these implements [`Intake`].
//!
//! | module | noun |
//! |---|---|
//! | `address` | where the broker is |
//! | `message` | one message, as far as anybody asks |
//! | `identity` | what makes two deliveries the same message |
//! | `pattern` | a room's or event's name, made from a message |
//! | `intake` | the port: who keeps what comes |
//! | `source` | one queue, as it is configured |
//! | `consumer` | the life of one queue's consumer, over connections |
//! | `session` | one connection of it: what is under way, held back, acknowledged |
//! | `health` | what is counted, and whether messages are heard |
//! | [`celery`] | what Celery's workers tell of their tasks |
//! | `line` | requests to a tool and its replies |

mod address;
mod backoff;
pub mod celery;
mod consumer;
mod health;
mod identity;
mod intake;
mod line;
mod message;
mod pattern;
mod session;
mod source;

pub use address::Address;
pub use backoff::{Backoff, random};
pub use consumer::{Consumer, Running};
pub use health::{DEAF_AFTER, Health, Report};
pub use identity::Identity;
pub use intake::{Answer, Begun, Intake, Turn, Verdict};
pub use line::QueueLine;
pub use message::Message;
pub use pattern::Pattern;
pub use source::{Exchange, Source, SourceFault, check_name};
