//! Owns the question whether somebody may do something with a room: the rules first, then the application.
//! Does not know sockets. Invariant: without a yes it is a no.

use hub::access::{Access, Action, decide};
use hub::principal::Principal;
use hub::room::RoomName;

use super::Authenticator;
use crate::codes::{Code, Fault};

impl Authenticator {
    /// What the rules say, at once. [`Access::Unknown`] is for [`Authenticator::may`] to find out.
    pub(crate) fn decide(&self, principal: &Principal, room: &RoomName, action: Action) -> Access {
        match decide(principal, room, self.policies.of(room), action) {
            // Nobody can be asked.
            Access::Unknown if self.access_hook.is_none() => Access::Denied,
            decided => decided,
        }
    }

    /// Whether they may, after asking the application if only it can know.
    ///
    /// # Errors
    /// [`Code::Forbidden`], or [`Code::HookUnavailable`] if it could not be asked.
    pub(crate) async fn may(
        &self,
        principal: &Principal,
        room: &RoomName,
        action: Action,
    ) -> Result<(), Fault> {
        let is_allowed = match (self.decide(principal, room, action), &self.access_hook) {
            (Access::Allowed, _) => true,
            (Access::Denied, _) | (Access::Unknown, None) => false,
            (Access::Unknown, Some(hook)) => hook.ask(principal, room, action).await?,
        };
        if is_allowed { Ok(()) } else { Err(forbidden(room, action)) }
    }
}

/// The refusal.
pub(super) fn forbidden(room: &RoomName, action: Action) -> Fault {
    let wish = match action {
        Action::Join => "join",
        Action::Publish => "publish to",
    };
    Fault::new(Code::Forbidden, format!("you may not {wish} the room `{room}`"))
}
