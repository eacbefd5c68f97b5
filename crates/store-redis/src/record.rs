//! Owns how records are written as bytes, found in lists, and read back. Does not know connections.
//!
//! ```text
//! record  1 | version: 8 | made: 8 | due, if ever: 1 | due: 8 | group and status, each behind its length: 4 | JSON
//! ```
//!
//! Lists are sorted sets in which all scores are 0: their members are sorted by bytes, and begin with a big-endian time.
//! So numbers of all 64 bits are told apart, which scores, being doubles, are not. `lua/commit.lua` keeps them:
//!
//! | list | members |
//! |---|---|
//! | `kind:<kind>`, `group:<kind>:<group>`, `status:<kind>:<status>` | when it was made, id |
//! | `due` | when it is due, kind, a zero byte, id |
//!
//! Records of no group or no status are in no list of these; whoever asks for them has the list of the kind filtered.

use hub::store::{Listing, Record, RecordKey, RecordKind, RecordState};
use hub::time::Timestamp;

use crate::body::{Reader, push_text, text};
use crate::fault::Failure;

const FORMAT: u8 = 1;

/// By what name a record is kept: kinds have no colon.
pub(crate) fn name(key: &RecordKey) -> Vec<u8> {
    format!("{}:{}", key.kind.as_str(), key.id).into_bytes()
}

/// Writes a record.
pub(crate) fn encode(version: u64, state: &RecordState) -> Vec<u8> {
    let mut out = Vec::with_capacity(34 + state.group.len() + state.status.len() + state.json.len());
    out.push(FORMAT);
    out.extend_from_slice(&version.to_be_bytes());
    out.extend_from_slice(&state.created_at.0.to_be_bytes());
    out.push(u8::from(state.due_at.is_some()));
    out.extend_from_slice(&state.due_at.map_or(0, |at| at.0).to_be_bytes());
    push_text(&mut out, &state.group);
    push_text(&mut out, &state.status);
    out.extend_from_slice(state.json.as_bytes());
    out
}

/// Reads what [`encode`] wrote.
pub(crate) fn decode(key: RecordKey, value: &[u8]) -> Result<Record, Failure> {
    let mut reader = Reader { rest: value };
    reader.format(FORMAT)?;
    let version = reader.u64()?;
    let created_at = Timestamp(reader.u64()?);
    let is_due = reader.u8()? == 1;
    let due_at = Timestamp(reader.u64()?);
    let (group, status) = (reader.text()?.into(), reader.text()?.into());
    let json = text(reader.rest)?.into();
    let due_at = is_due.then_some(due_at);
    Ok(Record { key, version, state: RecordState { json, group, status, created_at, due_at } })
}

/// Reads what [`name`] wrote.
pub(crate) fn decode_name(name: &[u8]) -> Result<RecordKey, Failure> {
    let name = text(name)?;
    let known = RecordKind::ALL.into_iter().find_map(|kind| {
        let id = name.strip_prefix(kind.as_str())?.strip_prefix(':')?;
        Some(RecordKey { kind, id: id.into() })
    });
    known.ok_or_else(|| Failure::Damaged(format!("{name} names no record")))
}

/// A part of a list, as `lua/list.lua` is asked for it.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) list: String,
    from: Vec<u8>,
    to: Vec<u8>,
    is_reverse: bool,
    kind: &'static str,
    group: Option<Box<str>>,
    status: Option<Box<str>>,
}

impl Part {
    /// Records of a kind, the newest first.
    pub(crate) fn of_kind(kind: RecordKind, listing: &Listing) -> Self {
        let Listing { group, status, after, created_since, limit: _ } = listing;
        let name = kind.as_str();
        // The list that has the fewest in vain; the rest of the filter is the script's.
        let (list, group, status) = match (group, status) {
            (Some(group), status) if !group.is_empty() => {
                (format!("group:{name}:{group}"), None, status.clone())
            }
            (group, Some(status)) if !status.is_empty() => {
                (format!("status:{name}:{status}"), group.clone(), None)
            }
            (group, status) => (format!("kind:{name}"), group.clone(), status.clone()),
        };
        let from = match after {
            Some((made, id)) => [b"(", &made.0.to_be_bytes()[..], id.as_bytes()].concat(),
            None => b"+".to_vec(),
        };
        let to = match created_since {
            Some(since) => [b"[", &since.0.to_be_bytes()[..]].concat(),
            None => b"-".to_vec(),
        };
        Self { list, from, to, is_reverse: true, kind: name, group, status }
    }

    /// Records that are due at this time or earlier, the most urgent first.
    pub(crate) fn due(until: Timestamp) -> Self {
        let to = match until.0.checked_add(1) {
            Some(end) => [b"(", &end.to_be_bytes()[..]].concat(),
            None => b"+".to_vec(),
        };
        let list = "due".to_owned();
        Self { list, from: b"-".to_vec(), to, is_reverse: false, kind: "", group: None, status: None }
    }

    /// Goes on behind this member.
    pub(crate) fn go_on_after(&mut self, member: &[u8]) {
        self.from = [b"(", member].concat();
    }

    /// The arguments of the script; so many records are wanted.
    pub(crate) fn arguments(&self, wanted: usize) -> Vec<Vec<u8>> {
        let flag = |is: bool| if is { b"1".to_vec() } else { b"0".to_vec() };
        let filter = |text: &Option<Box<str>>| text.as_deref().unwrap_or_default().as_bytes().to_vec();
        vec![
            self.list.clone().into_bytes(),
            self.from.clone(),
            self.to.clone(),
            flag(self.is_reverse),
            wanted.to_string().into_bytes(),
            self.kind.as_bytes().to_vec(),
            flag(self.group.is_some()),
            filter(&self.group),
            flag(self.status.is_some()),
            filter(&self.status),
        ]
    }
}

/// The time with which a member of the list `due` begins.
pub(crate) fn due_time(member: &[u8]) -> Result<Timestamp, Failure> {
    Ok(Timestamp(Reader { rest: member }.u64()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use testkit::contract::sample::{job, state};

    #[test]
    fn records_are_read_as_they_were_written() {
        let mut given = state(r#"{"n":1}"#);
        (given.group, given.status) = ("é".into(), "running".into());
        for due_at in [None, Some(Timestamp(0)), Some(Timestamp(u64::MAX))] {
            given.due_at = due_at;
            let value = encode(u64::MAX, &given);
            let record = decode(job("1"), &value).unwrap();
            assert_eq!((record.version, &record.state), (u64::MAX, &given));
            for cut in 0..value.len() - given.json.len() {
                assert!(decode(job("1"), &value[..cut]).is_err(), "cut at {cut}");
            }
        }
    }

    #[test]
    fn names_are_read_as_they_were_written() {
        for kind in RecordKind::ALL {
            for id in ["", "1", "a:b", "a\0b", "é"] {
                let key = RecordKey { kind, id: id.into() };
                assert_eq!(decode_name(&name(&key)).unwrap(), key);
            }
        }
        for bad in [&b"job"[..], b"jobs:1", b":1", b"job:\xff"] {
            assert!(decode_name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_narrowest_list_is_asked() {
        let of = |group: Option<&str>, status: Option<&str>| {
            let listing =
                Listing { group: group.map(Box::from), status: status.map(Box::from), ..Listing::default() };
            let part = Part::of_kind(RecordKind::Job, &listing);
            (part.list, part.group.is_some(), part.status.is_some())
        };
        assert_eq!(of(None, None), ("kind:job".to_owned(), false, false));
        assert_eq!(of(Some("p"), Some("s")), ("group:job:p".to_owned(), false, true));
        assert_eq!(of(Some(""), Some("s")), ("status:job:s".to_owned(), true, false));
        assert_eq!(of(Some(""), Some("")), ("kind:job".to_owned(), true, true));
        assert_eq!(of(Some(""), None), ("kind:job".to_owned(), true, false));
    }
}
