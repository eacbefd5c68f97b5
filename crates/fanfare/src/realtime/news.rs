//! Owns what operators in `/admin` are told beside runs and jobs: who comes and goes, and how the server is doing. Does not
//! write it; that is `hub::admin`. While nobody is there nothing is made.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use engine::{Reason, Socket};
use hub::admin::{self, ConnectionEvent, ConnectionNews, SystemNews};
use hub::outgoing::Outgoing;

use super::Hub;
use crate::auth::{ADMIN_NAMESPACE, principal_of};
use crate::event::{now, timestamp};

/// How often the store's health is looked at: operators hear of a change so much later.
const HEALTH_EVERY: Duration = Duration::from_millis(500);

/// How many operators are listening.
#[derive(Default)]
pub(crate) struct Operators(AtomicUsize);

impl Hub {
    /// A socket has connected, or come back, in any namespace.
    pub(super) fn tell_connected(&self, socket: &Socket) {
        let news = if socket.recovered() { ConnectionNews::Recovered } else { ConnectionNews::Connected };
        self.tell_of(socket, news, None);
        // It is no news to itself.
        if socket.namespace() == ADMIN_NAMESPACE {
            self.operators.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A socket has gone, or was lost.
    pub(super) fn tell_disconnected(&self, socket: &Socket, reason: Reason) {
        if socket.namespace() == ADMIN_NAMESPACE {
            self.operators.0.fetch_sub(1, Ordering::Relaxed);
        }
        self.tell_of(socket, ConnectionNews::Disconnected, Some(reason));
    }

    fn tell_of(&self, socket: &Socket, event: ConnectionNews, reason: Option<Reason>) {
        let own = socket.id().to_string();
        self.tell_operators(Some(&own), || {
            let told = ConnectionEvent {
                event,
                connection_id: own.as_str().into(),
                namespace: socket.namespace().into(),
                user_id: principal_of(socket).user.clone(),
                reason: reason.map(|reason| reason.as_str().into()),
                timestamp: timestamp(),
            };
            told.outgoing()
        });
    }

    /// Something has happened to the server.
    pub(crate) fn tell_system(&self, news: SystemNews) {
        self.tell_operators(None, || admin::system(news, now()));
    }

    fn tell_operators(&self, except: Option<&str>, event: impl FnOnce() -> Outgoing) {
        if self.operators.0.load(Ordering::Relaxed) == 0 {
            return;
        }
        let event = event();
        let mut operators = self.server().of(ADMIN_NAMESPACE).transient();
        if let Some(except) = except {
            operators = operators.except(except);
        }
        if let Err(error) = operators.emit(&event.name, &*event.data.0) {
            tracing::debug!(event = &*event.name, %error, "operators could not be told");
        }
    }

    /// Tells operators when the store fails, and when it is well again. Never ends.
    pub(crate) async fn watch_store(self: Arc<Self>) {
        let mut was_failing = false;
        let mut ticks = tokio::time::interval(HEALTH_EVERY);
        loop {
            ticks.tick().await;
            let is_failing = self.dispatcher().is_failing();
            if is_failing != was_failing {
                self.tell_system(if is_failing {
                    SystemNews::StoreFailing
                } else {
                    SystemNews::StoreRecovered
                });
                was_failing = is_failing;
            }
        }
    }
}
