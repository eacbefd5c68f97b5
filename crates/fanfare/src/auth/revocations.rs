//! Owns the list of what was taken back, as the process keeps it. Does not end sockets.

use std::sync::RwLock;

use auth::revocation::{Full, Revocation, Revocations};
use hub::principal::Principal;

/// A list of revocations: asked on every connect and request, so it answers from memory, wherever else it is kept.
pub(crate) trait RevocationList: Send + Sync {
    /// Takes something back.
    ///
    /// # Errors
    /// [`Full`].
    fn add(&self, revocation: Revocation) -> Result<(), Full>;

    /// Whether what a principal proved was taken back.
    fn covers(&self, principal: &Principal) -> bool;
}

/// A list that ends with the process.
#[derive(Default)]
pub(crate) struct InMemory(RwLock<Revocations>);

impl RevocationList for InMemory {
    fn add(&self, revocation: Revocation) -> Result<(), Full> {
        match self.0.write() {
            Ok(mut revocations) => revocations.add(revocation),
            Err(_) => Err(Full),
        }
    }

    fn covers(&self, principal: &Principal) -> bool {
        // A list that cannot be read lets nobody in.
        self.0.read().map_or(true, |revocations| revocations.covers(principal))
    }
}
