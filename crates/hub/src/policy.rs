//! Owns what holds for the rooms of each kind: who may join and publish, what is kept, whether presence is told.
//! Does not decide; that is `access.rs`.

use std::time::Duration;

use crate::room::{RoomKind, RoomName};

/// How a room's events are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Every event, with (epoch, seq): late and returning watchers get what they missed.
    Log,
    /// The newest event of each name and key: watchers converge to it.
    Latest,
    /// Nothing: whoever is there gets it.
    Volatile,
}

/// How much of a log is kept. The oldest events go as soon as one bound is exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Events of one room.
    pub events_max: u64,
    /// Bytes of one room's events.
    pub bytes_max: u64,
    /// Age of an event.
    pub age_max: Duration,
}

/// Who may do something with a room. Admins and the server itself always may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Everybody who is connected.
    Everyone,
    /// Whoever the room is named after: `user:<id>` that user, `session:<id>` that session.
    Owner,
    /// Whoever was granted the room; else the access hook is asked, if there is one.
    Granted,
    /// Whoever has this role.
    Role(Box<str>),
    /// Nobody.
    Nobody,
}

/// What holds for a room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Who may join, and read the log.
    pub join: Rule,
    /// Who may send events into it from a socket. Publishers with a key need the scope instead.
    pub publish: Rule,
    /// How its events are kept.
    pub delivery: Delivery,
    /// How much of them.
    pub retention: Retention,
    /// Whether members are told who else is there, and may ask. By default so in rooms that are joined on purpose and have
    /// an id or a name of their own; not where everybody is (`global`, `dashboard`, the topics), where nobody watches
    /// for people, or where only one's own sockets are (`user:<id>`, `session:<id>`).
    pub has_presence: bool,
}

/// The policies of a server: one for each kind, and patterns for rooms of kind [`RoomKind::Other`].
#[derive(Clone, Debug)]
pub struct Policies {
    kinds: Vec<(RoomKind, Policy)>,
    /// In the order of the settings; the first that matches holds.
    patterns: Vec<(Pattern, Policy)>,
}

/// A name with `*` for any run of characters, also none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(Box<str>);

impl Pattern {
    /// Takes a pattern as written.
    pub fn new(text: impl Into<Box<str>>) -> Self {
        Self(text.into())
    }

    /// Whether it matches the whole of `name`. Takes time proportional to the product of both lengths at worst.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        let (pattern, name) = (self.0.as_bytes(), name.as_bytes());
        let (mut at, mut from) = (0, 0);
        // Where to go on if the text after the last star does not fit: one byte further.
        let mut retry = None;
        while from < name.len() {
            if pattern.get(at) == Some(&b'*') {
                retry = Some((at + 1, from));
                at += 1;
            } else if pattern.get(at) == Some(&name[from]) {
                at += 1;
                from += 1;
            } else if let Some((after_star, start)) = retry {
                retry = Some((after_star, start + 1));
                at = after_star;
                from = start + 1;
            } else {
                return false;
            }
        }
        pattern[at..].iter().all(|byte| *byte == b'*')
    }

    /// The pattern as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Policies {
    /// The defaults: `is_dev` lets everybody into rooms of no known kind, and reach projects without a
    /// grant; in production both need a grant or a pattern.
    #[must_use]
    pub fn defaults(is_dev: bool, retention: Retention) -> Self {
        let kinds =
            RoomKind::ALL.into_iter().map(|kind| (kind, default_of(kind, is_dev, retention))).collect();
        Self { kinds, patterns: Vec::new() }
    }

    /// Replaces the policy of one kind.
    pub fn set(&mut self, kind: RoomKind, policy: Policy) {
        for (known, held) in &mut self.kinds {
            if *known == kind {
                *held = policy;
                return;
            }
        }
    }

    /// Adds a policy for rooms of no known kind whose names match.
    pub fn add_pattern(&mut self, pattern: Pattern, policy: Policy) {
        self.patterns.push((pattern, policy));
    }

    /// What holds for a room.
    #[must_use]
    pub fn of(&self, room: &RoomName) -> &Policy {
        let kind = room.kind();
        if kind == RoomKind::Other
            && let Some((_, policy)) =
                self.patterns.iter().find(|(pattern, _)| pattern.matches(room.as_str()))
        {
            return policy;
        }
        self.of_kind(kind)
    }

    /// What holds for a kind of rooms.
    #[must_use]
    pub fn of_kind(&self, kind: RoomKind) -> &Policy {
        let found = self.kinds.iter().find(|(known, _)| *known == kind);
        &found.expect("invariant: every kind has a policy").1
    }
}

fn default_of(kind: RoomKind, is_dev: bool, retention: Retention) -> Policy {
    let granted = if is_dev { Rule::Everyone } else { Rule::Granted };
    let (join, publish, delivery) = match kind {
        RoomKind::Global => (Rule::Everyone, Rule::Nobody, Delivery::Log),
        RoomKind::User | RoomKind::Session => (Rule::Owner, Rule::Nobody, Delivery::Log),
        RoomKind::Dashboard => (Rule::Everyone, Rule::Everyone, Delivery::Latest),
        RoomKind::Agents | RoomKind::Tasks | RoomKind::Workflows | RoomKind::System => {
            (Rule::Everyone, Rule::Everyone, Delivery::Log)
        }
        RoomKind::Metrics => (Rule::Everyone, Rule::Everyone, Delivery::Latest),
        RoomKind::Admin => (Rule::Role("admin".into()), Rule::Nobody, Delivery::Log),
        RoomKind::Project | RoomKind::Agent | RoomKind::Job | RoomKind::Run => {
            (granted, Rule::Nobody, Delivery::Log)
        }
        RoomKind::Other => (granted, Rule::Nobody, Delivery::Log),
    };
    Policy { join, publish, delivery, retention, has_presence: has_presence(kind) }
}

fn has_presence(kind: RoomKind) -> bool {
    match kind {
        RoomKind::Global
        | RoomKind::User
        | RoomKind::Session
        | RoomKind::Dashboard
        | RoomKind::Agents
        | RoomKind::Tasks
        | RoomKind::Metrics
        | RoomKind::Workflows
        | RoomKind::System => false,
        RoomKind::Admin
        | RoomKind::Project
        | RoomKind::Agent
        | RoomKind::Job
        | RoomKind::Run
        | RoomKind::Other => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETENTION: Retention =
        Retention { events_max: 10, bytes_max: 1_000, age_max: Duration::from_secs(60) };

    #[test]
    fn stars_stand_for_anything() {
        for (pattern, name) in [
            ("*", ""),
            ("*", "x"),
            ("a*c", "abc"),
            ("a*c", "ac"),
            ("*:b*", "aa:bb"),
            ("a*b*c", "a-b-b-c"),
            ("é*", "éa"),
        ] {
            assert!(Pattern::new(pattern).matches(name), "{pattern} {name}");
        }
        for (pattern, name) in
            [("", "x"), ("a", "ab"), ("a*c", "abd"), ("a*b", "a"), ("*a", "ab"), ("project:*", "project")]
        {
            assert!(!Pattern::new(pattern).matches(name), "{pattern} {name}");
        }
    }

    #[test]
    fn the_first_pattern_that_matches_holds() {
        let mut policies = Policies::defaults(false, RETENTION);
        let volatile = Policy {
            delivery: Delivery::Volatile,
            join: Rule::Everyone,
            ..policies.of_kind(RoomKind::Other).clone()
        };
        policies.add_pattern(Pattern::new("cursor-*"), volatile.clone());
        policies.add_pattern(Pattern::new("*"), policies.of_kind(RoomKind::Admin).clone());
        let of = |name: &str| policies.of(&RoomName::parse(name).unwrap()).clone();
        assert_eq!(of("cursor-7"), volatile);
        assert_eq!(of("else").join, Rule::Role("admin".into()));
        assert_eq!(of("project:cursor-7").join, Rule::Granted, "patterns are for rooms of no known kind");
    }
}
