//! Owns what the states of all kinds of records have in common: how they are handed to the store and read again, and
//! what a rule answers. Does not know any kind.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::outgoing::Outgoing;
use crate::store::{RecordKey, RecordKind, RecordState};
use crate::time::Timestamp;

/// The state of a record of one kind.
pub trait State: Serialize + DeserializeOwned {
    /// Which kind.
    const KIND: RecordKind;

    /// Its id, unique among its kind. At most 200 bytes: the rule that makes it sees to that.
    fn id(&self) -> &str;

    /// What it belongs to; empty if nothing.
    fn group(&self) -> &str;

    /// What it has become; empty if that has no meaning.
    fn status(&self) -> &'static str;

    /// When it was made.
    fn created_at(&self) -> Timestamp;

    /// When its due rule wants to be asked, if ever. Asking it too early is harmless.
    fn due_at(&self) -> Option<Timestamp>;

    /// What the store knows the record of this kind and id by.
    fn key_of(id: &str) -> RecordKey {
        RecordKey { kind: Self::KIND, id: id.into() }
    }

    /// What the store knows it by.
    fn key(&self) -> RecordKey {
        Self::key_of(self.id())
    }

    /// What the store keeps.
    fn to_record(&self) -> RecordState {
        let json = serde_json::to_string(self).expect("invariant: states have string keys");
        RecordState {
            json: json.into(),
            group: self.group().into(),
            status: self.status().into(),
            created_at: self.created_at(),
            due_at: self.due_at(),
        }
    }

    /// Reads what the store kept.
    ///
    /// # Errors
    /// The environment's: it was written by something else, or is damaged.
    fn from_record(record: &RecordState) -> Result<Self, serde_json::Error> {
        serde_json::from_str(&record.json)
    }
}

/// What a rule decides: the record's next state, and the events that tell of the change, in their order.
#[derive(Clone, Debug, PartialEq)]
pub struct Step<S> {
    /// What the record becomes; `None` takes it away. Equal to the present one if nothing changes: then there is
    /// nothing to commit.
    pub next: Option<S>,
    /// What is told.
    pub events: Vec<Outgoing>,
}

impl<S> Step<S> {
    /// A change that nobody is told of.
    #[must_use]
    pub fn quiet(next: S) -> Self {
        Self { next: Some(next), events: Vec::new() }
    }
}
