//! Owns the port to whoever has sockets. Does not know who asks.

use std::pin::Pin;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;

use crate::message::{Opts, RemoteSocket};
use crate::value::Data;

/// What the port's methods answer.
pub type Doing<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// News of a broadcast whose acks are awaited.
#[derive(Clone, Debug, PartialEq)]
pub enum AckNews {
    /// How many sockets were asked. Comes first, and once.
    Count(u64),
    /// What one of them answered.
    Ack(Vec<Data>),
}

/// Does here what others ask for.
pub trait Local: Send + Sync + 'static {
    /// Whether a room (`None`: the namespace) may have members here. Called for every message that comes: it must be
    /// quick, and may say yes in vain.
    fn may_have(&self, namespace: &str, room: Option<&str>) -> bool;

    /// Sends an event, its name first, to sockets here.
    fn broadcast<'a>(&'a self, namespace: &'a str, opts: &'a Opts, args: &'a [Data]) -> Doing<'a, ()>;

    /// The same, telling of acks as they come, for at most `timeout`.
    fn broadcast_with_acks<'a>(
        &'a self,
        namespace: &'a str,
        opts: &'a Opts,
        args: &'a [Data],
        timeout: Duration,
        news: UnboundedSender<AckNews>,
    ) -> Doing<'a, ()>;

    /// Has sockets here join rooms.
    fn join<'a>(&'a self, namespace: &'a str, opts: &'a Opts, rooms: &'a [String]) -> Doing<'a, ()>;

    /// Has sockets here leave rooms.
    fn leave<'a>(&'a self, namespace: &'a str, opts: &'a Opts, rooms: &'a [String]) -> Doing<'a, ()>;

    /// Disconnects sockets here; with `close` their whole connections.
    fn disconnect<'a>(&'a self, namespace: &'a str, opts: &'a Opts, close: bool) -> Doing<'a, ()>;

    /// The sockets here.
    fn fetch<'a>(&'a self, namespace: &'a str, opts: &'a Opts) -> Doing<'a, Vec<RemoteSocket>>;

    /// The rooms that have members here; those of one socket each may be left out.
    fn rooms<'a>(&'a self, namespace: &'a str) -> Doing<'a, Vec<String>>;

    /// Hears an event that is for servers, its name first; answers what whoever sent it gets if it asked.
    fn server_side<'a>(&'a self, namespace: &'a str, args: &'a [Data]) -> Doing<'a, Data>;
}
