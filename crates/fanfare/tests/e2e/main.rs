//! The binary as its users meet it: started, configured, published to, watched, stopped. Nothing here links to it.

mod auth;
mod backend;
mod broker;
mod browser;
mod celery;
mod clients;
mod durability;
mod fanfare;
mod gateway;
mod installed;
mod ledger;
mod limits;
mod publish;
mod queues;
mod robustness;
mod run;
mod sdk;
mod seeds;
mod serving;
mod settings;
mod store;
mod tls;
mod watcher;
