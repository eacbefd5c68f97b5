//! Owns the port to whoever keeps what queues bring. Does not know how anything is kept.
//!
//! 1. [`Intake::begin`] is called with one message after the other, in the order in which the broker delivered them, and
//!    gives each its place in the order of everything that is kept.
//! 2. The future that it answers tells what became of it; several may be under way.
//! 3. What is [`Verdict::Later`] comes again, with the same identity, before anything newer does, in a new round.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::identity::Identity;
use crate::message::Message;

/// What the port's methods answer.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A message's place in the order of its queue.
///
/// Once one message of a round cannot be kept, none that was begun after it in this round may be: all of them come again
/// in the next round, the first one alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Which round; it grows.
    pub round: u64,
    /// Whether it is the first of its round: the one that finds out whether anything can be kept again.
    pub is_first: bool,
}

/// What became of one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is kept: it survives this process.
    Kept,
    /// It had been kept before, under the same identity.
    Repeated,
    /// It means nothing to us, and that is in order.
    Ignored,
    /// It cannot be kept now, through no fault of its own.
    Later {
        /// The code of the refusal.
        code: &'static str,
        /// What people read.
        message: String,
        /// When it makes sense to try again, if that is known.
        after: Option<Duration>,
    },
    /// Something that should work did not. It is tried a few times, in case that it is the message.
    Failed {
        /// The code of the refusal.
        code: &'static str,
        /// What people read.
        message: String,
    },
    /// It can never be kept: its sender is at fault.
    Never {
        /// The code of the refusal.
        code: &'static str,
        /// What people read.
        message: String,
    },
}

/// What began with a message: a future that tells what became of it, or that at once.
pub type Begun = Result<Answer<'static, Verdict>, Verdict>;

/// Keeps what queues bring.
pub trait Intake: Send + Sync + 'static {
    /// Gives a message its place.
    fn begin<'a>(
        &'a self,
        message: &'a Arc<Message>,
        identity: &'a Identity,
        turn: Turn,
    ) -> Answer<'a, Begun>;
}
