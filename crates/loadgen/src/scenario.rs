//! The scenarios: each opens connections, does one kind of work, and reports what it cost.

pub(crate) mod echo;
pub(crate) mod fanout;
pub(crate) mod idle;
pub(crate) mod ingest;
mod ledger;
pub(crate) mod polling;
pub(crate) mod publish;
pub(crate) mod slow;
pub(crate) mod storm;
