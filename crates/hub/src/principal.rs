//! Owns who somebody is: user, session, roles, and the rooms they were granted. Does not know how they proved it.

use std::fmt;

use crate::policy::Pattern;
use crate::room::{RoomKind, RoomName};
use crate::time::Timestamp;

/// The role that may do everything.
pub const ADMIN: &str = "admin";

/// What kind of party a principal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrincipalKind {
    /// A person, or a program on behalf of one.
    User,
    /// An agent: its coming and going is told in `agent:<id>`.
    Agent,
    /// Nobody knows: only where no authentication is configured.
    Anonymous,
    /// A publisher with an API key.
    Key,
}

/// What an API key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Publish events, jobs, runs, logs and notifications.
    Publish,
    /// Read logs, records, presence and statistics.
    Read,
    /// Everything else: rooms, users, revocation, settings that can be changed while running.
    Admin,
}

impl Scope {
    /// Every scope there is.
    pub const ALL: [Scope; 3] = [Scope::Publish, Scope::Read, Scope::Admin];

    /// The name in settings.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Scope::Publish => "publish",
            Scope::Read => "read",
            Scope::Admin => "admin",
        }
    }

    /// The scope of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Scope::ALL.into_iter().find(|scope| scope.as_str() == name)
    }
}

/// Somebody, as far as the server is concerned.
#[derive(Clone, PartialEq, Eq)]
pub struct Principal {
    /// What kind of party.
    pub kind: PrincipalKind,
    /// The user's id (`sub`); the agent's id for an agent; the key's name for a key.
    pub user: Option<Box<str>>,
    /// The application's session, which `session:<id>` is named after.
    pub session: Option<Box<str>>,
    /// Roles, [`ADMIN`] among them.
    pub roles: Vec<Box<str>>,
    /// Rooms that may be joined, as patterns such as `project:*`.
    pub grants: Vec<Pattern>,
    /// What a key may do; for others nothing.
    pub scopes: Vec<Scope>,
    /// When what it proved stops to hold.
    pub expires_at: Option<Timestamp>,
    /// When what it proved was issued: revocations name a moment.
    pub issued_at: Option<Timestamp>,
    /// The id of the token that it came with, by which that can be revoked.
    pub token_id: Option<Box<str>>,
}

/// Short: what a token says may be private.
impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({})", self.kind, self.user.as_deref().unwrap_or("-"))
    }
}

impl Principal {
    /// Nobody in particular, with no rights beyond being connected.
    #[must_use]
    pub fn anonymous() -> Self {
        Self {
            kind: PrincipalKind::Anonymous,
            user: None,
            session: None,
            roles: Vec::new(),
            grants: Vec::new(),
            scopes: Vec::new(),
            expires_at: None,
            issued_at: None,
            token_id: None,
        }
    }

    /// Whether it has a role.
    #[must_use]
    pub fn has_role(&self, role: &str) -> bool {
        self.roles.iter().any(|held| **held == *role)
    }

    /// Whether it may do everything.
    #[must_use]
    pub fn is_admin(&self) -> bool {
        self.has_role(ADMIN)
    }

    /// Whether a key has a scope; `admin` includes the others. Admins count as having all.
    #[must_use]
    pub fn has_scope(&self, scope: Scope) -> bool {
        self.is_admin() || self.scopes.iter().any(|held| *held == scope || *held == Scope::Admin)
    }

    /// Whether a room was granted.
    #[must_use]
    pub fn is_granted(&self, room: &RoomName) -> bool {
        self.grants.iter().any(|grant| grant.matches(room.as_str()))
    }

    /// Whether a room is named after it.
    #[must_use]
    pub fn owns(&self, room: &RoomName) -> bool {
        let owner = match room.kind() {
            RoomKind::User => &self.user,
            RoomKind::Session => &self.session,
            _ => return false,
        };
        owner.as_deref() == Some(room.id())
    }

    /// The rooms that its sockets are in from the beginning, beside `global`.
    pub fn own_rooms(&self) -> impl Iterator<Item = RoomName> {
        // An id that makes no room name has no room; nobody else can have it either.
        let user = self.user.as_deref().and_then(|id| RoomName::of(RoomKind::User, id).ok());
        let session = self.session.as_deref().and_then(|id| RoomName::of(RoomKind::Session, id).ok());
        user.into_iter().chain(session)
    }
}
