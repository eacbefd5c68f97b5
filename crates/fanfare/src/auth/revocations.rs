//! Owns the list of what was taken back, as the process keeps it, and how it comes through a restart: each revocation is
//! a record, too. Does not end sockets. Invariant: what was answered is in the store; what is in the store is in the
//! list before anybody may come in.

use std::sync::RwLock;
use std::time::Duration;

use anyhow::Context;
use auth::revocation::{Full, Revocation, Revocations, Subject};
use hub::principal::Principal;
use hub::record::{State, Step};
use hub::store::{Listing, RecordKind, Store};
use hub::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::now;
use crate::dispatch::{Rule, record_rule};

/// Records read at once when the process begins.
const PAGE: usize = 1_000;

/// A revocation as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeptRevocation {
    id: Box<str>,
    revocation: Revocation,
    /// When it may go; `None`: never.
    until: Option<Timestamp>,
}

impl State for KeptRevocation {
    const KIND: RecordKind = RecordKind::Revocation;

    fn id(&self) -> &str {
        &self.id
    }

    fn group(&self) -> &str {
        ""
    }

    fn status(&self) -> &'static str {
        ""
    }

    fn created_at(&self) -> Timestamp {
        self.revocation.at
    }

    fn due_at(&self) -> Option<Timestamp> {
        self.until
    }
}

impl KeptRevocation {
    /// A revocation, and how long it is to be kept; nothing: for ever.
    pub(super) fn new(revocation: Revocation, lifetime: Duration) -> Self {
        let (kind, id) = match &revocation.subject {
            Subject::User(id) => ("user", id),
            Subject::Session(id) => ("session", id),
            Subject::Jti(id) => ("jti", id),
        };
        // A digest: ids of tokens are as long as a record's id may be, without the kind before them.
        let id = auth::digest::of(format!("{kind}:{id}").as_bytes()).into();
        let until = (!lifetime.is_zero()).then(|| revocation.at.plus(lifetime));
        Self { id, revocation, until }
    }

    /// The rule that keeps it: of two for one subject the later.
    pub(super) fn rule(self) -> Rule {
        record_rule::<Self, _, _>(
            move |present, _| {
                let newest = present.filter(|kept| kept.revocation.at > self.revocation.at).unwrap_or(&self);
                Ok(Step::quiet(newest.clone()))
            },
            |_| serde_json::Value::Null,
        )
    }
}

/// What is done when a revocation may go.
pub(crate) fn due(kept: &KeptRevocation, now: Timestamp) -> Step<KeptRevocation> {
    match kept.until {
        Some(until) if until <= now => Step { next: None, events: Vec::new() },
        _ => Step::quiet(kept.clone()),
    }
}

/// The list: asked on every connect and request, so it answers from memory.
pub(crate) struct RevocationList {
    all: RwLock<Revocations>,
    /// How long a revocation holds; nothing: for ever.
    pub(super) lifetime: Duration,
}

impl RevocationList {
    /// An empty list.
    pub(super) fn new(lifetime: Duration) -> Self {
        Self { all: RwLock::default(), lifetime }
    }

    /// Takes something back.
    ///
    /// # Errors
    /// [`Full`], after what may go has gone.
    pub(super) fn add(&self, revocation: Revocation) -> Result<(), Full> {
        let mut all = self.all.write().map_err(|_| Full)?;
        all.add(revocation.clone()).or_else(|Full| {
            if self.lifetime.is_zero() {
                return Err(Full);
            }
            let lifetime = u64::try_from(self.lifetime.as_millis()).unwrap_or(u64::MAX);
            all.forget_before(Timestamp(now().0.saturating_sub(lifetime)));
            all.add(revocation)
        })
    }

    /// Whether what a principal proved was taken back.
    pub(super) fn covers(&self, principal: &Principal) -> bool {
        // A list that cannot be read lets nobody in.
        self.all.read().map_or(true, |revocations| revocations.covers(principal))
    }

    /// Takes back again what was taken back before the process began.
    ///
    /// # Errors
    /// The environment's: the store cannot be read, or holds more than the list may.
    pub(super) async fn load(&self, store: &dyn Store) -> anyhow::Result<()> {
        let mut after = None;
        loop {
            let listing = Listing { after: after.take(), limit: PAGE, ..Listing::default() };
            let records = store.list(KeptRevocation::KIND, listing).await?;
            for record in &records {
                let kept = KeptRevocation::from_record(&record.state)
                    .with_context(|| format!("the revocation `{}` cannot be read", record.key.id))?;
                let is_over = kept.until.is_some_and(|until| until <= now());
                if !is_over && self.add(kept.revocation).is_err() {
                    anyhow::bail!("the store holds more revocations than a server takes");
                }
            }
            if records.len() < PAGE {
                return Ok(());
            }
            after = records.last().map(|last| (last.state.created_at, last.key.id.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(at: u64, lifetime: u64) -> KeptRevocation {
        let revocation = Revocation { subject: Subject::User("ann".into()), at: Timestamp(at) };
        KeptRevocation::new(revocation, Duration::from_millis(lifetime))
    }

    #[test]
    fn a_revocation_is_read_as_kept_and_goes_when_it_may() {
        let one = kept(1_000, 500);
        assert_eq!(KeptRevocation::from_record(&one.to_record()).unwrap(), one);
        assert_eq!(one.due_at(), Some(Timestamp(1_500)));
        assert_eq!(due(&one, Timestamp(1_499)).next, Some(one.clone()));
        assert_eq!(due(&one, Timestamp(1_500)).next, None);
        assert_eq!(kept(1_000, 0).due_at(), None, "for ever");
    }

    #[test]
    fn subjects_of_different_kinds_and_any_length_have_ids_of_their_own() {
        let id = "x".repeat(200);
        let ids = [Subject::User, Subject::Session, Subject::Jti].map(|subject| {
            let revocation = Revocation { subject: subject(id.as_str().into()), at: Timestamp(1) };
            KeptRevocation::new(revocation, Duration::ZERO).id
        });
        assert!(ids[0] != ids[1] && ids[1] != ids[2] && ids.iter().all(|id| id.len() <= 200));
    }
}
