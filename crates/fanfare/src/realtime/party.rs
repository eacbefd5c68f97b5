//! Owns what the server knows of a socket beside what the engine knows: who it is, and its commands' order.
//! Does not know how somebody proves who they are. Invariant: every socket of every namespace has one.

use std::sync::{Arc, RwLock};

use engine::Socket;
use hub::principal::Principal;

use super::turns::Turns;

/// What is kept with each socket, and goes along when it is recovered.
pub(crate) struct Party {
    principal: RwLock<Arc<Principal>>,
    pub(crate) turns: Turns,
}

impl Party {
    pub(crate) fn new(principal: Principal) -> Self {
        Self { principal: RwLock::new(Arc::new(principal)), turns: Turns::default() }
    }

    /// Who it is now.
    pub(crate) fn principal(&self) -> Arc<Principal> {
        match self.principal.read() {
            Ok(principal) => principal.clone(),
            Err(poisoned) => poisoned.into_inner().clone(),
        }
    }

    /// Replaces who it is: the same party with newer proof.
    pub(crate) fn set_principal(&self, principal: Principal) {
        match self.principal.write() {
            Ok(mut held) => *held = Arc::new(principal),
            Err(poisoned) => *poisoned.into_inner() = Arc::new(principal),
        }
    }
}

/// What is kept with a socket.
pub(crate) fn party_of(socket: &Socket) -> Arc<Party> {
    socket.state::<Party>().unwrap_or_else(|| {
        // A middleware gives every socket one; whoever came past it would be nobody.
        socket.set_state(Party::new(Principal::anonymous()));
        socket.state().unwrap_or_else(|| Arc::new(Party::new(Principal::anonymous())))
    })
}
