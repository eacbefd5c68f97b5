//! Servers and emitters of other making at work in the server: what comes from them reaches our sockets, what is published
//! here reaches theirs, and both answer each other's questions.
//!
//! The conversation is the crate `adapter`'s; here is what it cannot have: rooms with filters, presence, who is whose.
//! Invariant: nothing that comes this way is kept in a log.

mod config;
mod local;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use adapter::{Data, Opts, Peer, Report};
use engine::Server;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::realtime::Hub;
use local::Sockets;

pub(crate) use config::AdapterConfig;

/// The others, if there may be any. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Foreign(Option<Arc<Others>>);

#[derive(Debug)]
struct Others {
    peer: Peer,
    refused: Arc<Refused>,
}

/// How it is with the others.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ForeignReport {
    /// The conversation.
    #[serde(flatten)]
    pub(crate) peer: Report,
    /// Events of theirs that our sockets may not be sent: by their name, or because they are nested too deeply.
    pub(crate) refused: u64,
}

/// To whom an event goes, in one namespace.
#[derive(Clone, Copy, Debug)]
pub(crate) struct To<'a> {
    /// Which namespace.
    pub(crate) namespace: &'a str,
    /// Rooms; none is everybody.
    pub(crate) rooms: &'a [&'a str],
    /// Rooms and sockets that are left out.
    pub(crate) except: &'a [&'a str],
    /// Whether it may be dropped where it cannot be sent at once.
    pub(crate) is_volatile: bool,
}

impl Foreign {
    /// There are no others.
    pub(crate) const fn nobody() -> Self {
        Self(None)
    }

    /// Begins to be one of them, if that is configured.
    pub(crate) fn start(config: Option<&AdapterConfig>, server: &Server, hub: &Arc<Hub>) -> Self {
        Self(config.map(|config| {
            let refused = Arc::new(Refused::default());
            let sockets = Arc::new(Sockets::new(server.clone(), hub.clone(), refused.clone()));
            Arc::new(Others { peer: Peer::start(config.options.clone(), sockets), refused })
        }))
    }

    /// Whether somebody of other making listens to a namespace: only then an event need be written for them.
    pub(crate) fn is_wanted(&self, namespace: &str) -> bool {
        self.0.as_ref().is_some_and(|others| others.peer.is_wanted(namespace))
    }

    /// Sends an event with one argument to their sockets, if there are any. To be called once for each event, on the
    /// server where it was published. Does not wait; what cannot be sent now is dropped and counted.
    pub(crate) fn mirror(&self, to: To<'_>, event: &str, argument: &RawValue) {
        let peer = self.0.as_ref().map(|others| &others.peer);
        let Some(peer) = peer.filter(|peer| peer.is_wanted(to.namespace)) else { return };
        let argument = match Data::parse(argument.get().as_bytes()) {
            Ok(argument) => argument,
            Err(why) => return tracing::warn!(event, why, "an event is not for other servers"),
        };
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let (rooms, except) = (names(to.rooms), names(to.except));
        let opts = Opts { rooms, except, is_volatile: to.is_volatile, timeout_ms: None };
        peer.mirror(to.namespace, &opts, vec![Data::text(event), argument]);
    }

    /// How it is doing; `None` if there may be no others.
    pub(crate) fn report(&self) -> Option<ForeignReport> {
        let report = |others: &Arc<Others>| ForeignReport {
            peer: others.peer.report(),
            refused: others.refused.0.load(Ordering::Relaxed),
        };
        self.0.as_ref().map(report)
    }

    /// Ends: they no longer count us.
    pub(crate) fn stop(&self) {
        if let Some(others) = &self.0 {
            others.peer.stop();
        }
    }
}

/// Events that could not be sent on.
#[derive(Debug, Default)]
struct Refused(AtomicU64);

impl Refused {
    /// Notes one; whether it is worth a line.
    fn note(&self) -> bool {
        // The first, and then each thousandth: a sender that is wrong is wrong all the time.
        self.0.fetch_add(1, Ordering::Relaxed) % 1_000 == 0
    }
}
