//! Owns the decision whether a principal may do something with a room. Does not ask anybody: where only the
//! application can know, it says so.

use crate::policy::{Policy, Rule};
use crate::principal::Principal;
use crate::room::RoomName;

/// What somebody wants with a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Join it, or read its log.
    Join,
    /// Send an event into it from a socket.
    Publish,
}

/// Whether they may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// They may.
    Allowed,
    /// They may not.
    Denied,
    /// Nothing that is known here allows it: the access hook decides, and without one they may not.
    Unknown,
}

/// Decides.
#[must_use]
pub fn decide(principal: &Principal, room: &RoomName, policy: &Policy, action: Action) -> Access {
    if principal.is_admin() {
        return Access::Allowed;
    }
    let rule = match action {
        Action::Join => &policy.join,
        Action::Publish => &policy.publish,
    };
    let is_allowed = match rule {
        Rule::Everyone => true,
        Rule::Owner => principal.owns(room),
        Rule::Granted if principal.is_granted(room) => true,
        Rule::Granted => return Access::Unknown,
        Rule::Role(role) => principal.has_role(role),
        Rule::Nobody => false,
    };
    if is_allowed { Access::Allowed } else { Access::Denied }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::policy::{Pattern, Policies, Retention};

    #[test]
    fn rooms_open_to_owners_grants_and_roles_only() {
        let retention = Retention { events_max: 1, bytes_max: 1, age_max: Duration::ZERO };
        let policies = Policies::defaults(false, retention);
        let somebody = Principal {
            user: Some("ann".into()),
            session: Some("s1".into()),
            grants: vec![Pattern::new("project:p*")],
            ..Principal::anonymous()
        };
        let admin = Principal { roles: vec!["admin".into()], ..Principal::anonymous() };
        let join = |who: &Principal, name: &str| {
            let room = RoomName::parse(name).unwrap();
            decide(who, &room, policies.of(&room), Action::Join)
        };
        for name in ["global", "user:ann", "session:s1", "project:p7", "tasks", "dashboard"] {
            assert_eq!(join(&somebody, name), Access::Allowed, "{name}");
        }
        for name in ["user:bob", "session:s2", "admin"] {
            assert_eq!(join(&somebody, name), Access::Denied, "{name}");
            assert_eq!(join(&admin, name), Access::Allowed, "{name}");
        }
        for name in ["project:q", "agent:a", "job:j", "run:r", "anything"] {
            assert_eq!(join(&somebody, name), Access::Unknown, "{name}");
            assert_eq!(join(&admin, name), Access::Allowed, "{name}");
        }
    }
}
