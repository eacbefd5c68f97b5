//! The binary as its users meet it: started, configured, published to, watched, stopped. Nothing here links to it.

mod auth;
mod backend;
mod browser;
mod clients;
mod fanfare;
mod installed;
mod limits;
mod publish;
mod run;
mod serving;
mod settings;
mod tls;
mod watcher;
