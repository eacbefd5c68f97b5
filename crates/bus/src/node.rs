//! Owns who a node is, and how that is written where the others look. Does not know whether it lives.

use std::fmt;
use std::net::SocketAddr;

use hub::time::Timestamp;
use serde::{Deserialize, Serialize};

/// The number of a node: drawn at random when it starts, never 0, and nobody else's while the node lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u16);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A node, as it has registered itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeInfo {
    /// Its number.
    pub id: NodeId,
    /// What tells its process from all others, ever.
    pub name: Box<str>,
    /// The version of its program.
    pub version: Box<str>,
    /// Where other nodes may send HTTP requests that are meant for it.
    pub reach: Option<SocketAddr>,
    /// When it was started, by its own clock.
    pub since: Timestamp,
}

/// What is written of a node; its number stands beside it.
#[derive(Serialize, Deserialize)]
struct Registration<'a> {
    name: std::borrow::Cow<'a, str>,
    version: std::borrow::Cow<'a, str>,
    reach: Option<SocketAddr>,
    since: u64,
}

impl NodeInfo {
    /// As JSON, without the number.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let NodeInfo { id: _, name, version, reach, since } = self;
        let registration = Registration {
            name: (&**name).into(),
            version: (&**version).into(),
            reach: *reach,
            since: since.0,
        };
        serde_json::to_vec(&registration).expect("invariant: texts and numbers become JSON")
    }

    /// Reads what [`NodeInfo::encode`] wrote; `None` if it makes no sense. Fields that are not known are passed over, so
    /// that nodes of several versions know each other.
    pub(crate) fn decode(id: NodeId, json: &[u8]) -> Option<Self> {
        let Registration { name, version, reach, since } = serde_json::from_slice(json).ok()?;
        Some(Self { id, name: name.into(), version: version.into(), reach, since: Timestamp(since) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registrations_are_read_as_they_were_written() {
        for reach in [None, Some(SocketAddr::from(([127, 0, 0, 1], 4000)))] {
            let info = NodeInfo {
                id: NodeId(7),
                name: "a \"b\"".into(),
                version: "1.2".into(),
                reach,
                since: Timestamp(9),
            };
            assert_eq!(NodeInfo::decode(NodeId(7), &info.encode()), Some(info));
        }
        let later = br#"{"name":"a","version":"9","reach":null,"since":1,"new":[1]}"#;
        assert!(NodeInfo::decode(NodeId(1), later).is_some());
        for bad in [&b"{}"[..], b"", b"\xff", br#"{"name":1,"version":"","reach":null,"since":1}"#] {
            assert_eq!(NodeInfo::decode(NodeId(1), bad), None);
        }
    }
}
