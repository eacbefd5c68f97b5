//! Owns who a socket is for as long as it lives. Does not judge proofs, nor wait for their end.

use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use hub::principal::Principal;

use super::expiry::Watch;
use crate::codes::Fault;
use crate::limits::Seat;
use crate::realtime::{Standings, Stays, Turns};

/// Who a socket is. Attached to it as its state; survives recovery, and may be replaced in place.
pub(crate) struct Identity {
    principal: RwLock<Arc<Principal>>,
    pub(super) watch: Watch,
    /// The order of its commands, which outlives the principal.
    pub(crate) turns: Turns,
    /// As what it is in rooms.
    pub(crate) standings: Standings,
    /// Its comings and goings.
    pub(crate) stays: Stays,
    /// Its place among its user's sockets.
    seat: OnceLock<Seat>,
}

impl Identity {
    /// The identity of a socket that has proved to be `principal`.
    pub(crate) fn new(principal: Principal) -> Self {
        Self {
            principal: RwLock::new(Arc::new(principal)),
            watch: Watch::default(),
            turns: Turns::default(),
            standings: Standings::default(),
            stays: Stays::default(),
            seat: OnceLock::new(),
        }
    }

    /// Gives the socket its place, if it has none.
    ///
    /// # Errors
    /// Whatever `take` refuses with.
    pub(crate) fn sit(&self, take: impl FnOnce() -> Result<Seat, Fault>) -> Result<(), Fault> {
        if self.seat.get().is_none() {
            // If somebody was faster, theirs holds and ours is given back.
            let _ = self.seat.set(take()?);
        }
        Ok(())
    }

    /// Its place; `None` while it is not connected.
    pub(crate) fn seat(&self) -> Option<&Seat> {
        self.seat.get()
    }

    /// Who that is now.
    pub(crate) fn principal(&self) -> Arc<Principal> {
        self.principal.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces it.
    pub(crate) fn replace(&self, principal: Principal) {
        *self.principal.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(principal);
    }
}
