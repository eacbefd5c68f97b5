//! The binary as its users meet it: started, configured, published to, watched, stopped. Nothing here links to it.

mod auth;
mod backend;
mod browser;
mod clients;
mod durability;
mod fanfare;
mod filters;
mod gateway;
mod installed;
mod ledger;
mod limits;
mod notices;
mod presence;
mod publish;
mod robustness;
mod rooms;
mod run;
mod sdk;
mod serving;
mod settings;
mod silence;
mod store;
mod tls;
mod vocabularies;
mod watcher;
