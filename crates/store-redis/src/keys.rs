//! Owns the names of keys. Does not know what is in them.
//!
//! All begin with `{prefix}:`, so that a Cluster keeps them on one server:
//!
//! | key | type | what |
//! |---|---|---|
//! | `store` | hash | newest order, order up to which a failover may have lost events, how often that was, version |
//! | `room:<name>` | string | where a log begins and ends and what it weighs; stays when the log is empty |
//! | `log:<name>` | stream | a log; ids are `<seq>-0` |
//! | `latest:<name>`, `latest-order:<name>` | hash, sorted set | the latest of each name and key; in which order they came |
//! | `expiry` | sorted set | rooms, by when something in them becomes too old |
//! | `record:<kind>:<id>` | string | a record |
//! | `kind:…`, `group:…`, `status:…`, `due` | sorted sets | lists of records, see `record.rs` |
//! | `keys`, `keys-at` | hash, sorted set | idempotency keys and answers; by age |
//! | `writer:<name>` | string | the last answer to a writer; goes after an hour |

use hub::store::RecordKey;

use crate::record;

/// What all keys begin with.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    base: String,
}

impl Keys {
    /// # Errors
    /// The caller's fault: what is wrong with the prefix.
    pub(crate) fn new(prefix: &str) -> Result<Self, String> {
        if prefix.is_empty() || prefix.contains(['{', '}']) {
            return Err(format!("the prefix {prefix:?} must have characters, and no braces"));
        }
        Ok(Self { base: format!("{{{prefix}}}:") })
    }

    pub(crate) fn of(&self, name: &str) -> String {
        format!("{}{name}", self.base)
    }

    pub(crate) fn record(&self, key: &RecordKey) -> Vec<u8> {
        [self.base.as_bytes(), b"record:", &record::name(key)].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_the_tag_of_the_prefix() {
        assert_eq!(Keys::new("fanfare").unwrap().of("store"), "{fanfare}:store");
        assert!(Keys::new("").is_err());
        assert!(Keys::new("a}b").is_err());
    }
}
