//! Owns which nodes live. Does not ask. Invariant: a node that was there is gone only when it said so, when its lease has
//! ended, or when somebody else has its number.

use std::collections::BTreeMap;

use crate::feed::News;
use crate::node::{NodeId, NodeInfo};

/// The other nodes.
#[derive(Debug, Default)]
pub(crate) struct Roster {
    others: BTreeMap<NodeId, NodeInfo>,
}

impl Roster {
    /// All others, by number.
    pub(crate) fn others(&self) -> impl Iterator<Item = &NodeInfo> {
        self.others.values()
    }

    pub(crate) fn has(&self, id: NodeId) -> bool {
        self.others.contains_key(&id)
    }

    /// A node says that it is there.
    pub(crate) fn handle_came(&mut self, info: NodeInfo) -> Vec<News> {
        let before = self.others.insert(info.id, info.clone());
        match before {
            Some(before) if before.name == info.name => Vec::new(),
            Some(before) => vec![News::NodeGone(before), News::NodeCame(info)],
            None => vec![News::NodeCame(info)],
        }
    }

    /// The process of this name says that it leaves.
    pub(crate) fn handle_gone(&mut self, id: NodeId, name: &str) -> Vec<News> {
        match self.others.get(&id) {
            // Another process may have the number by now.
            Some(info) if &*info.name == name => {
                self.others.remove(&id).map(News::NodeGone).into_iter().collect()
            }
            Some(_) | None => Vec::new(),
        }
    }

    /// These have leases now. `is_whole`: whoever is not among them has none; else Redis may have forgotten some, who
    /// will register again.
    pub(crate) fn handle_list(&mut self, list: Vec<NodeInfo>, is_whole: bool) -> Vec<News> {
        let mut news = Vec::new();
        if is_whole {
            let gone: Vec<NodeId> =
                self.others.keys().copied().filter(|id| list.iter().all(|info| info.id != *id)).collect();
            news.extend(gone.into_iter().filter_map(|id| self.others.remove(&id)).map(News::NodeGone));
        }
        for info in list {
            news.append(&mut self.handle_came(info));
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hub::time::Timestamp;

    fn info(id: u16, name: &str) -> NodeInfo {
        let (name, version) = (name.into(), "1".into());
        NodeInfo { id: NodeId(id), name, version, reach: None, since: Timestamp(1) }
    }

    /// `+1a` for a node that came, `-1a` for one that went.
    fn told(news: Vec<News>) -> Vec<String> {
        let told = |news| match news {
            News::NodeCame(info) => format!("+{}{}", info.id, info.name),
            News::NodeGone(info) => format!("-{}{}", info.id, info.name),
            News::Event(_) | News::Fence(_) | News::Resumed => panic!("{news:?}"),
        };
        news.into_iter().map(told).collect()
    }

    #[test]
    fn nodes_come_and_go_once() {
        let mut roster = Roster::default();
        assert_eq!(told(roster.handle_came(info(1, "a"))), ["+1a"]);
        assert!(roster.handle_came(info(1, "a")).is_empty());
        assert_eq!(told(roster.handle_list(vec![info(1, "a"), info(2, "b")], true)), ["+2b"]);
        assert!(roster.handle_gone(NodeId(2), "c").is_empty(), "that was an earlier one");
        assert_eq!(told(roster.handle_gone(NodeId(2), "b")), ["-2b"]);
        assert!(roster.handle_gone(NodeId(2), "b").is_empty());
        assert_eq!(told(roster.handle_list(vec![], true)), ["-1a"]);
        assert_eq!(roster.others().count(), 0);
    }

    #[test]
    fn whoever_has_a_number_now_is_not_whoever_had_it() {
        let mut roster = Roster::default();
        roster.handle_came(info(1, "a"));
        assert_eq!(told(roster.handle_came(info(1, "b"))), ["-1a", "+1b"]);
        assert!(roster.has(NodeId(1)));
    }

    #[test]
    fn what_redis_has_forgotten_is_not_gone() {
        let mut roster = Roster::default();
        roster.handle_came(info(1, "a"));
        assert_eq!(told(roster.handle_list(vec![info(2, "b")], false)), ["+2b"]);
        assert_eq!(roster.others().count(), 2);
    }
}
