//! Owns the way of events that nobody keeps past a store that cannot be reached: sockets that are here go on getting them.
//! Does not keep anything, and takes nothing that is to be kept.

use std::sync::Arc;

use hub::event::EventId;
use hub::outgoing::Outgoing;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use super::draft::Drafts;
use super::mirroring;
use super::{Committed, OPERATIONS_MAX, Shared, Underway, busy};
use crate::codes::Fault;
use crate::event::now;

type Reply = oneshot::Sender<Result<Committed, Fault>>;

/// Who gets them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// The sockets of all nodes.
    All,
    /// The sockets of this process.
    Here,
    /// The other nodes, which know what to do with them.
    Elsewhere,
}

/// The way to the task that sends them.
#[derive(Clone)]
pub(super) struct Lane {
    shared: Arc<Shared>,
    requests: mpsc::Sender<Request>,
}

struct Request {
    events: Vec<Outgoing>,
    reach: Reach,
    reply: Reply,
}

impl Lane {
    pub(super) fn start(shared: Arc<Shared>) -> Self {
        let (requests, waiting) = mpsc::channel(OPERATIONS_MAX);
        tokio::spawn(run(shared.clone(), waiting));
        Self { shared, requests }
    }

    /// Sends events, if nothing of them is to be kept; else they are given back.
    ///
    /// # Errors
    /// Too much is waiting.
    pub(super) fn send(&self, events: Vec<Outgoing>) -> Result<Result<Underway, Vec<Outgoing>>, Fault> {
        if events.iter().any(|event| self.shared.keeps(event)) {
            return Ok(Err(events));
        }
        self.push(events, Reach::All).map(Ok)
    }

    /// Sends events, none of which is to be kept.
    ///
    /// # Errors
    /// Too much is waiting.
    pub(super) fn push(&self, events: Vec<Outgoing>, reach: Reach) -> Result<Underway, Fault> {
        let (reply, outcome) = oneshot::channel();
        self.requests.try_send(Request { events, reach, reply }).map_err(|_| busy())?;
        Ok(Underway(outcome))
    }
}

async fn run(shared: Arc<Shared>, mut waiting: mpsc::Receiver<Request>) {
    let mut drafts = Drafts::new(shared.clone());
    while let Some(Request { events, reach, reply }) = waiting.recv().await {
        let mut ids: Vec<EventId> = Vec::with_capacity(events.len());
        for event in events {
            let prepared = drafts.prepare(now(), event, &mut Vec::new());
            ids.push(prepared.delivery.event.id);
            match reach {
                Reach::All => {
                    mirroring::mirror(shared.foreign(), &prepared.delivery);
                    shared.send_unkept(&prepared.delivery).await;
                }
                Reach::Here => shared.send_here(&prepared.delivery).await,
                Reach::Elsewhere => shared.tell(&prepared.delivery).await,
            }
        }
        let placed = ids.iter().map(|_| Vec::new()).collect();
        // Nobody waits any more: the request was given up.
        let _ = reply.send(Ok(Committed { ids, placed, answer: Value::Null, is_repetition: false }));
    }
}
