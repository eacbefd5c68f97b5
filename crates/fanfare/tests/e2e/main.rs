//! The binary as its users meet it: started, configured, published to, watched, stopped. Nothing here links to it.

mod auth;
mod backend;
mod browser;
mod clients;
mod durability;
mod fanfare;
mod gateway;
mod installed;
mod ledger;
mod limits;
mod publish;
mod robustness;
mod run;
mod sdk;
mod seeds;
mod serving;
mod settings;
mod silence;
mod store;
mod tls;
mod watcher;
