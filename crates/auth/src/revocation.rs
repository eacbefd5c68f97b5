//! Owns what was taken back before it expired: tokens by their id, sessions, and all that a user had until a moment.
//! Does not know how it is kept. Invariant: bounded, and what is revoked stays so until it is forgotten on purpose.

use std::collections::BTreeMap;

use hub::principal::Principal;
use hub::time::Timestamp;
use serde::{Deserialize, Serialize};

/// Revocations of one server. 100,000 take about 20 MB; one more is refused.
pub const REVOCATIONS_MAX: usize = 100_000;

/// What is taken back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// All that a user had until then: tokens issued later are good. What does not tell when it was issued (signed pairs,
    /// tokens without `iat`) is refused for as long as the revocation is kept.
    User(Box<str>),
    /// A session, for good.
    Session(Box<str>),
    /// One token, for good.
    Jti(Box<str>),
}

/// One revocation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// What.
    #[serde(flatten)]
    pub subject: Subject,
    /// When.
    pub at: Timestamp,
}

impl Revocation {
    /// Whether it takes back what a principal proved.
    ///
    /// A token's `iat` is in whole seconds, so one that was issued in the second of the revocation counts as older.
    #[must_use]
    pub fn covers(&self, principal: &Principal) -> bool {
        match &self.subject {
            Subject::User(user) => {
                principal.user.as_ref() == Some(user) && is_older(principal.issued_at, self.at)
            }
            Subject::Session(session) => principal.session.as_ref() == Some(session),
            Subject::Jti(id) => principal.token_id.as_ref() == Some(id),
        }
    }
}

fn is_older(issued_at: Option<Timestamp>, revoked_at: Timestamp) -> bool {
    issued_at.is_none_or(|issued_at| issued_at <= revoked_at)
}

/// All revocations.
#[derive(Clone, Debug, Default)]
pub struct Revocations {
    users: BTreeMap<Box<str>, Timestamp>,
    sessions: BTreeMap<Box<str>, Timestamp>,
    tokens: BTreeMap<Box<str>, Timestamp>,
}

/// There are [`REVOCATIONS_MAX`] revocations already. Changing the secret revokes everything at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl Revocations {
    /// Adds one. A user's later moment replaces an earlier one.
    ///
    /// # Errors
    /// [`Full`].
    pub fn add(&mut self, revocation: Revocation) -> Result<(), Full> {
        let is_known = match &revocation.subject {
            Subject::User(user) => self.users.contains_key(user),
            Subject::Session(session) => self.sessions.contains_key(session),
            Subject::Jti(id) => self.tokens.contains_key(id),
        };
        if !is_known && self.len() >= REVOCATIONS_MAX {
            return Err(Full);
        }
        let (of_kind, id) = match revocation.subject {
            Subject::User(id) => (&mut self.users, id),
            Subject::Session(id) => (&mut self.sessions, id),
            Subject::Jti(id) => (&mut self.tokens, id),
        };
        let at = of_kind.entry(id).or_default();
        *at = revocation.at.max(*at);
        Ok(())
    }

    /// Forgets those that are older than a moment: whatever they took back has expired by itself.
    pub fn forget_before(&mut self, moment: Timestamp) {
        for of_kind in [&mut self.users, &mut self.sessions, &mut self.tokens] {
            of_kind.retain(|_, at| *at >= moment);
        }
    }

    /// Whether any takes back what a principal proved.
    #[must_use]
    pub fn covers(&self, principal: &Principal) -> bool {
        let by_user = principal
            .user
            .as_ref()
            .and_then(|user| self.users.get(user))
            .is_some_and(|at| is_older(principal.issued_at, *at));
        by_user
            || principal.session.as_ref().is_some_and(|session| self.sessions.contains_key(session))
            || principal.token_id.as_ref().is_some_and(|id| self.tokens.contains_key(id))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.users.len() + self.sessions.len() + self.tokens.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn principal(user: &str, issued_at: Option<u64>) -> Principal {
        Principal {
            user: Some(user.into()),
            session: Some("s1".into()),
            token_id: Some("t1".into()),
            issued_at: issued_at.map(Timestamp),
            ..Principal::anonymous()
        }
    }

    #[test]
    fn a_revocation_covers_what_was_issued_before() {
        let at = Timestamp(5_500);
        for (subject, covered) in [
            (Subject::User("ann".into()), [true, true, true, false]),
            (Subject::User("bob".into()), [false; 4]),
            (Subject::Session("s1".into()), [true; 4]),
            (Subject::Session("s2".into()), [false; 4]),
            (Subject::Jti("t1".into()), [true; 4]),
            (Subject::Jti("t2".into()), [false; 4]),
        ] {
            let revocation = Revocation { subject, at };
            let mut all = Revocations::default();
            assert!(all.is_empty());
            all.add(revocation.clone()).unwrap();
            let issued = [None, Some(4_000), Some(5_000), Some(6_000)];
            for (issued_at, covered) in issued.into_iter().zip(covered) {
                let ann = principal("ann", issued_at);
                assert_eq!(revocation.covers(&ann), covered, "{revocation:?} {issued_at:?}");
                assert_eq!(all.covers(&ann), covered, "{revocation:?} {issued_at:?}");
            }
        }
        assert!(!Revocations::default().covers(&Principal::anonymous()));
    }

    #[test]
    fn the_list_is_bounded_and_keeps_the_latest_moment() {
        let mut all = Revocations::default();
        for nth in 0..REVOCATIONS_MAX {
            let subject = Subject::User(nth.to_string().into());
            all.add(Revocation { subject, at: Timestamp(5_000) }).unwrap();
        }
        let add = |all: &mut Revocations, subject, at| all.add(Revocation { subject, at: Timestamp(at) });
        assert_eq!(add(&mut all, Subject::Jti("one more".into()), 1), Err(Full));
        assert_eq!(add(&mut all, Subject::User("7".into()), 9_000), Ok(()));
        assert_eq!(add(&mut all, Subject::User("7".into()), 1_000), Ok(()));
        assert!(all.covers(&principal("7", Some(8_000))));
        assert!(!all.covers(&principal("8", Some(8_000))));
    }

    #[test]
    fn what_is_older_than_a_moment_is_forgotten() {
        let mut all = Revocations::default();
        for (id, at) in [("old", 1_000), ("new", 2_000)] {
            for subject in [Subject::User(id.into()), Subject::Session(id.into()), Subject::Jti(id.into())] {
                all.add(Revocation { subject, at: Timestamp(at) }).unwrap();
            }
        }
        all.forget_before(Timestamp(2_000));
        assert_eq!(all.len(), 3);
        assert!(all.covers(&principal("new", Some(1_000))));
        assert!(!all.covers(&principal("old", Some(500))));
    }

    #[test]
    fn a_revocation_is_read_as_written() {
        let revocation = Revocation { subject: Subject::Jti("t1".into()), at: Timestamp(7) };
        let json = serde_json::to_string(&revocation).unwrap();
        assert_eq!(json, r#"{"jti":"t1","at":7}"#);
        assert_eq!(serde_json::from_str::<Revocation>(&json).unwrap(), revocation);
    }
}
