//! Owns what a room's name may be, and which kind of room it names. Does not know who may join.

use std::sync::Arc;

use crate::fault::{Fault, Refusal};

/// Bytes of a room's name. 200: `project:` and the like in front of the longest ids in use (SHA-512 in hex is 128),
/// and a thousand of them still fit a few memory pages.
pub const ROOM_NAME_BYTES_MAX: usize = 200;

/// A room's name that keeps the rules: not empty, at most [`ROOM_NAME_BYTES_MAX`] bytes, no control characters. Cheap to
/// clone: an event's name is kept with every place where it is put.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoomName(Arc<str>);

/// What a room is for, told by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RoomKind {
    /// `global`: everybody.
    Global,
    /// `user:<id>`: one user's sockets.
    User,
    /// `session:<id>`: the sockets of one session of an application.
    Session,
    /// `dashboard`: a mirror of the topic rooms.
    Dashboard,
    /// `agents`, a topic.
    Agents,
    /// `tasks`, a topic.
    Tasks,
    /// `metrics`, a topic.
    Metrics,
    /// `workflows`, a topic.
    Workflows,
    /// `system`, a topic.
    System,
    /// `admin`: operators.
    Admin,
    /// `project:<id>`.
    Project,
    /// `agent:<id>`.
    Agent,
    /// `job:<id>`.
    Job,
    /// `run:<id>`.
    Run,
    /// Any other name.
    Other,
}

impl RoomKind {
    /// Every kind there is.
    pub const ALL: [RoomKind; 15] = [
        RoomKind::Global,
        RoomKind::User,
        RoomKind::Session,
        RoomKind::Dashboard,
        RoomKind::Agents,
        RoomKind::Tasks,
        RoomKind::Metrics,
        RoomKind::Workflows,
        RoomKind::System,
        RoomKind::Admin,
        RoomKind::Project,
        RoomKind::Agent,
        RoomKind::Job,
        RoomKind::Run,
        RoomKind::Other,
    ];

    /// The name in settings; for rooms with an id, what stands before the colon.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            RoomKind::Global => "global",
            RoomKind::User => "user",
            RoomKind::Session => "session",
            RoomKind::Dashboard => "dashboard",
            RoomKind::Agents => "agents",
            RoomKind::Tasks => "tasks",
            RoomKind::Metrics => "metrics",
            RoomKind::Workflows => "workflows",
            RoomKind::System => "system",
            RoomKind::Admin => "admin",
            RoomKind::Project => "project",
            RoomKind::Agent => "agent",
            RoomKind::Job => "job",
            RoomKind::Run => "run",
            RoomKind::Other => "other",
        }
    }

    /// Whether rooms of this kind are named `<kind>:<id>`.
    #[must_use]
    pub fn has_id(self) -> bool {
        match self {
            RoomKind::User
            | RoomKind::Session
            | RoomKind::Project
            | RoomKind::Agent
            | RoomKind::Job
            | RoomKind::Run => true,
            RoomKind::Global
            | RoomKind::Dashboard
            | RoomKind::Agents
            | RoomKind::Tasks
            | RoomKind::Metrics
            | RoomKind::Workflows
            | RoomKind::System
            | RoomKind::Admin
            | RoomKind::Other => false,
        }
    }
}

impl RoomName {
    /// Takes a name that keeps the rules.
    ///
    /// # Errors
    /// The peer's fault: [`Refusal::BadRoomName`].
    pub fn parse(raw: impl Into<Arc<str>>) -> Result<Self, Fault> {
        let raw = raw.into();
        let complaint = if raw.is_empty() {
            "a room's name must not be empty".to_owned()
        } else if raw.len() > ROOM_NAME_BYTES_MAX {
            format!("a room's name of {} bytes exceeds the {ROOM_NAME_BYTES_MAX} allowed", raw.len())
        } else if raw.chars().any(char::is_control) {
            "a room's name must not have control characters".to_owned()
        } else {
            return Ok(Self(raw));
        };
        Err(Fault::new(Refusal::BadRoomName, complaint))
    }

    /// The room `<kind>:<id>`.
    ///
    /// # Errors
    /// The peer's fault: the id makes it too long, or has control characters.
    pub fn of(kind: RoomKind, id: &str) -> Result<Self, Fault> {
        debug_assert!(kind.has_id(), "a room of kind {} has no id", kind.as_str());
        if id.is_empty() {
            return Err(Fault::new(
                Refusal::BadRoomName,
                format!("the id of a {} must not be empty", kind.as_str()),
            ));
        }
        Self::parse(format!("{}:{id}", kind.as_str()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What kind of room it names.
    #[must_use]
    pub fn kind(&self) -> RoomKind {
        self.split().0
    }

    /// What follows the colon, for the kinds that have an id; the whole name for others.
    #[must_use]
    pub fn id(&self) -> &str {
        self.split().1
    }

    fn split(&self) -> (RoomKind, &str) {
        for kind in RoomKind::ALL {
            if kind == RoomKind::Other {
                continue;
            }
            if kind.has_id() {
                let id = self.0.strip_prefix(kind.as_str()).and_then(|rest| rest.strip_prefix(':'));
                if let Some(id) = id.filter(|id| !id.is_empty()) {
                    return (kind, id);
                }
            } else if *self.0 == *kind.as_str() {
                return (kind, &self.0);
            }
        }
        (RoomKind::Other, &self.0)
    }
}

impl std::fmt::Display for RoomName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_bounded_and_printable() {
        let longest = "x".repeat(ROOM_NAME_BYTES_MAX);
        for good in ["agents", "project:42", "Räume 🎺", &longest] {
            assert_eq!(RoomName::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", "a\nb", "\u{0}", "\u{85}", &format!("{longest}x")] {
            assert!(RoomName::parse(bad).is_err(), "{bad:?}");
        }
        assert!(RoomName::of(RoomKind::Project, "").is_err());
        assert!(RoomName::of(RoomKind::Project, "a\u{7}").is_err());
    }

    #[test]
    fn a_name_tells_its_kind_and_id() {
        for (name, kind, id) in [
            ("global", RoomKind::Global, "global"),
            ("user:7", RoomKind::User, "7"),
            ("project:a:b", RoomKind::Project, "a:b"),
            ("project:", RoomKind::Other, "project:"),
            ("projects:1", RoomKind::Other, "projects:1"),
            ("agents", RoomKind::Agents, "agents"),
            ("agent:agents", RoomKind::Agent, "agents"),
            ("other", RoomKind::Other, "other"),
        ] {
            let room = RoomName::parse(name).unwrap();
            assert_eq!((room.kind(), room.id()), (kind, id), "{name}");
        }
    }
}
