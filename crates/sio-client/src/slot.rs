//! One socket as the connection's task sees it: what it must remember between connections and within one.

use crate::client::{Emission, Status};
use crate::message::Content;
use crate::{ConnectFault, DisconnectReason, Event, Notice, Refusal, Reply};
use serde_json::{Map, Value};
use std::collections::{HashMap, VecDeque};
use tokio::sync::{mpsc, oneshot, watch};

/// A socket.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) number: u64,
    pub(crate) namespace: String,
    auth: Option<Map<String, Value>>,
    pub(crate) state: State,
    /// The secret by which the server finds what it kept for us.
    pid: Option<String>,
    /// The last event that we had, as far as the server's history goes.
    offset: Option<String>,
    next_ack: u64,
    acks: HashMap<u64, oneshot::Sender<Reply>>,
    /// Size of `acks` at which those that nobody waits for are dropped.
    acks_swept_at: usize,
    /// Events for which the socket is not connected yet.
    pub(crate) unsent: VecDeque<Emission>,
    /// Events that came before the server's CONNECT; recovery sends missed ones so.
    early: Vec<Event>,
    /// What the application has not taken yet.
    pub(crate) undelivered: VecDeque<Notice>,
    pub(crate) notices: mpsc::Sender<Notice>,
    status: watch::Sender<Status>,
    joined: Option<oneshot::Sender<Result<u64, ConnectFault>>>,
}

/// How far it is with the present connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// There is no connection, or CONNECT has not been sent over it.
    Offline,
    /// CONNECT has been sent.
    Joining,
    /// The server has let us in.
    Joined,
    /// For good.
    Ended,
}

impl Slot {
    pub(crate) fn new(number: u64, join: crate::client::Join) -> Self {
        Slot {
            number,
            namespace: join.namespace,
            auth: join.auth,
            state: State::Offline,
            pid: None,
            offset: None,
            next_ack: 0,
            acks: HashMap::new(),
            acks_swept_at: 64,
            unsent: VecDeque::new(),
            early: Vec::new(),
            undelivered: VecDeque::new(),
            notices: join.notices,
            status: join.status,
            joined: Some(join.joined),
        }
    }

    /// What goes along with CONNECT. The application's keys win over ours, as in the JavaScript client.
    pub(crate) fn connect_auth(&self, wants_recovery: bool) -> Option<Map<String, Value>> {
        if !wants_recovery {
            return self.auth.clone();
        }
        let mut auth = Map::new();
        // Servers that offer it only to those they take for JavaScript clients offer it to those that ask, too.
        auth.insert("recovery".into(), true.into());
        if let Some(pid) = &self.pid {
            auth.insert("pid".into(), pid.clone().into());
        }
        if let Some(offset) = &self.offset {
            auth.insert("offset".into(), offset.clone().into());
        }
        auth.extend(self.auth.clone().into_iter().flatten());
        Some(auth)
    }

    /// The server let us in.
    pub(crate) fn handle_connect(&mut self, sid: String, pid: Option<String>) {
        self.state = State::Joined;
        let is_recovered = pid.is_some() && pid == self.pid;
        self.pid = pid;
        self.status.send_modify(|status| status.sid = Some(sid.clone()));
        if let Some(joined) = self.joined.take() {
            // Nobody waits any more: the notices' receiver is gone, too, which ends the socket.
            let _ = joined.send(Ok(self.number));
        }
        self.undelivered.push_back(Notice::Connected { sid, is_recovered });
        for event in std::mem::take(&mut self.early) {
            self.deliver(event);
        }
    }

    /// An event came. Answers whether it could be kept; `early_max` is how many may come before CONNECT.
    pub(crate) fn handle_event(&mut self, event: Event, early_max: usize) -> bool {
        match self.state {
            State::Joined => self.deliver(event),
            State::Joining if self.early.len() < early_max => self.early.push(event),
            State::Joining => return false,
            State::Offline | State::Ended => {}
        }
        true
    }

    fn deliver(&mut self, event: Event) {
        // Events that ask for an answer are not in the server's history.
        if self.pid.is_some()
            && event.answer.is_none()
            && let Some(offset) = event.content.last_text()
        {
            self.offset = Some(offset);
        }
        self.undelivered.push_back(Notice::Event(event));
    }

    /// An answer came; those to unknown events are ignored.
    pub(crate) fn handle_ack(&mut self, id: u64, content: Content) {
        if let Some(ack) = self.acks.remove(&id) {
            // Whoever stopped waiting has been told that time was out.
            let _ = ack.send(Reply { content });
        }
    }

    /// The server said no.
    pub(crate) fn handle_refusal(&mut self, refusal: Refusal) {
        match self.joined.take() {
            Some(joined) => {
                let _ = joined.send(Err(ConnectFault::Refused(refusal)));
            }
            None => self.undelivered.push_back(Notice::Refused(refusal)),
        }
        self.end();
    }

    /// The connection is gone. Events that were sent and not answered never will be.
    pub(crate) fn handle_loss(&mut self, reason: &DisconnectReason, will_reconnect: bool) {
        if let Some(joined) = self.joined.take() {
            let _ = joined.send(Err(match reason {
                DisconnectReason::Engine(fault) => ConnectFault::Engine(fault.clone()),
                DisconnectReason::Server
                | DisconnectReason::Client
                | DisconnectReason::PingTimeout
                | DisconnectReason::TransportClose => ConnectFault::Closed,
            }));
            return self.end();
        }
        self.early.clear();
        self.acks.clear();
        if self.state == State::Joined {
            self.undelivered.push_back(Notice::Disconnected { reason: reason.clone(), will_reconnect });
        }
        self.status.send_modify(|status| status.sid = None);
        if will_reconnect {
            self.state = State::Offline;
        } else {
            self.end();
        }
    }

    /// Whether the application still waits for the handle on it.
    pub(crate) fn is_joining_first(&self) -> bool {
        self.joined.is_some()
    }

    /// No more attempts.
    pub(crate) fn give_up(&mut self) {
        self.undelivered.push_back(Notice::GaveUp);
        self.end();
    }

    pub(crate) fn end(&mut self) {
        self.state = State::Ended;
        self.unsent.clear();
        self.acks.clear();
        self.status.send_modify(|status| *status = Status { sid: None, is_ended: true });
    }

    /// The id under which the answer to an event is awaited.
    pub(crate) fn expect_ack(&mut self, ack: oneshot::Sender<Reply>) -> u64 {
        if self.acks.len() >= self.acks_swept_at {
            self.acks.retain(|_, ack| !ack.is_closed());
            self.acks_swept_at = 64.max(self.acks.len() * 2);
        }
        let id = self.next_ack;
        self.next_ack += 1;
        self.acks.insert(id, ack);
        id
    }

    /// Whether it is over and the application knows.
    pub(crate) fn is_finished(&self) -> bool {
        self.state == State::Ended && (self.undelivered.is_empty() || self.notices.is_closed())
    }
}
