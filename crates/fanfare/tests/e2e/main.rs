//! The binary as its users meet it: started, configured, published to, watched, stopped. Nothing here links to it.

mod auth;
mod backend;
mod browser;
mod clients;
mod fanfare;
mod gateway;
mod installed;
mod publish;
mod run;
mod sdk;
mod seeds;
mod serving;
mod settings;
mod tls;
mod watcher;
