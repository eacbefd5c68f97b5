//! The task of one connection: carries packets between the sockets over it and the Engine.IO session beneath, and makes a new session
//! when one is lost.
//!
//! Nothing is taken from the session while a notice waits for the application, and nothing from the application while packets wait
//! for the session; both are selected upon together, so neither side can block the other for good.

use crate::client::{Emission, Request};
use crate::engine::{Arrival, Departure, Engine};
use crate::http::Http;
use crate::message::{Answer, Content};
use crate::slot::{Slot, State};
use crate::{DisconnectReason, EngineFault, Event, Options, Refusal, backoff};
use bytes::Bytes;
use serde_json::Value;
use sio_proto::{
    Assembler, Incoming, Limits, Payload, encode_ack, encode_connect_request, encode_disconnect,
    encode_event, to_value,
};
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};

pub(crate) struct Driver {
    http: Http,
    options: Arc<Options>,
    limits: Limits,
    slots: Vec<Slot>,
    next_slot: u64,
    /// Counts connections.
    epoch: u64,
    /// For events that want an answer; weak, so that the handles alone keep us running.
    emissions_in: mpsc::WeakSender<Emission>,
    emissions: mpsc::Receiver<Emission>,
    requests: mpsc::UnboundedReceiver<Request>,
    /// Batches for the session.
    outgoing: VecDeque<Vec<Departure>>,
    assembler: Assembler,
    /// Dropped when everything has been said to the server.
    leaving: Vec<oneshot::Sender<()>>,
}

/// What woke the driver.
enum Wake {
    Notified,
    Requested(Option<Request>),
    Emitted(Option<Emission>),
    Departed,
    Arrived(Arrival),
    EngineEnded,
}

impl Driver {
    pub(crate) fn new(
        http: Http,
        options: Arc<Options>,
        emissions_in: mpsc::WeakSender<Emission>,
        emissions: mpsc::Receiver<Emission>,
        requests: mpsc::UnboundedReceiver<Request>,
    ) -> Self {
        // The server's word on what a packet may hold is as good as ours; only its size is bounded.
        let limits = Limits {
            assembled_bytes_max: options.message_bytes_max,
            event_name_bytes_max: options.message_bytes_max,
            ..Limits::default()
        };
        Driver {
            http,
            options,
            limits,
            slots: Vec::new(),
            next_slot: 0,
            epoch: 0,
            emissions_in,
            emissions,
            requests,
            outgoing: VecDeque::new(),
            assembler: Assembler::default(),
            leaving: Vec::new(),
        }
    }
}

/// Runs until no socket is left.
pub(crate) async fn run(mut driver: Driver) {
    // The first socket's request is on its way.
    match driver.requests.recv().await {
        Some(request) => driver.handle_request(request),
        None => return,
    }
    let mut attempt = 0;
    while driver.until_wanted().await {
        let (http, options) = (driver.http.clone(), driver.options.clone());
        let open = async move { timeout(options.connect_timeout, Engine::open(http, &options)).await };
        let Some(opened) = driver.offline(open).await else { break };
        let lost = match opened {
            Ok(Ok(engine)) => {
                let (reason, has_joined) = driver.session(engine).await;
                if has_joined {
                    attempt = 0;
                }
                reason
            }
            Ok(Err(fault)) => DisconnectReason::Engine(fault),
            Err(_) => {
                DisconnectReason::Engine(EngineFault::Transport("no answer within connect_timeout".into()))
            }
        };
        let delay =
            driver.options.reconnect.as_ref().and_then(|policy| backoff::delay(policy, attempt, random()));
        driver.lose(&lost, delay.is_some());
        match delay {
            Some(delay) if driver.has_live_slots() => {
                attempt = attempt.saturating_add(1);
                if driver.offline(sleep(delay)).await.is_none() {
                    break;
                }
            }
            // A socket that joins from now on starts afresh.
            Some(_) | None => attempt = 0,
        }
    }
}

/// Between 0 and 1; the middle if the system has no randomness to give.
fn random() -> f64 {
    getrandom::u32().map_or(0.5, |number| f64::from(number) / f64::from(u32::MAX))
}

impl Driver {
    fn has_live_slots(&self) -> bool {
        self.slots.iter().any(|slot| slot.state != State::Ended)
    }

    /// Hands out last notices until a socket needs a connection; false when no socket is left.
    async fn until_wanted(&mut self) -> bool {
        while !self.has_live_slots() {
            // Any request may bring a socket, so each is looked at on its own.
            let Some(()) = self.offline(std::future::ready(())).await else { return false };
            tokio::select! {
                () = deliver_one(&mut self.slots) => {}
                request = self.requests.recv() => match request {
                    Some(request) => self.handle_request(request),
                    None => return false,
                },
            }
        }
        true
    }

    /// Waits for something while there is no session. None when no socket is left to wait for it.
    async fn offline<T>(&mut self, wait: impl Future<Output = T>) -> Option<T> {
        tokio::pin!(wait);
        loop {
            self.slots.retain(|slot| !slot.is_finished());
            if self.slots.is_empty() {
                return None;
            }
            tokio::select! {
                done = &mut wait => return Some(done),
                () = deliver_one(&mut self.slots) => {}
                request = self.requests.recv() => match request {
                    Some(request) => self.handle_request(request),
                    None => return None,
                },
            }
        }
    }

    /// Runs a session to its end; answers why it ended and whether any socket was let in.
    async fn session(&mut self, mut engine: Engine) -> (DisconnectReason, bool) {
        self.epoch += 1;
        self.outgoing.clear();
        self.assembler = Assembler::default();
        let mut has_joined = false;
        loop {
            for slot in &mut self.slots {
                if slot.state != State::Ended && slot.notices.is_closed() {
                    leave(&mut self.outgoing, &self.options, slot);
                }
                if slot.state == State::Offline {
                    slot.state = State::Joining;
                    let auth = slot.connect_auth(self.options.recovery);
                    let mut packet = Vec::new();
                    encode_connect_request(&mut packet, self.options.parser, &slot.namespace, auth.as_ref());
                    self.outgoing.push_back(vec![wrap(&self.options, packet)]);
                }
            }
            self.slots.retain(|slot| !slot.is_finished());
            if !self.has_live_slots() {
                return (self.finish(engine).await, has_joined);
            }
            match self.wake(&mut engine).await {
                Wake::Notified | Wake::Departed => {}
                Wake::Requested(Some(request)) => self.handle_request(request),
                Wake::Emitted(Some(emission)) => self.handle_emission(emission),
                // No handle is left, and so no receiver of notices.
                Wake::Requested(None) | Wake::Emitted(None) => {
                    self.slots.iter_mut().for_each(|slot| leave(&mut self.outgoing, &self.options, slot));
                }
                Wake::Arrived(arrival) => match self.handle_arrival(arrival) {
                    Ok(is_connect) => has_joined |= is_connect,
                    // Dropping the session closes it.
                    Err(fault) => return (DisconnectReason::Engine(fault), has_joined),
                },
                Wake::EngineEnded => {
                    let reason = engine.task.await.unwrap_or_else(|error| {
                        DisconnectReason::Engine(EngineFault::Transport(format!(
                            "session task failed: {error}"
                        )))
                    });
                    return (reason, has_joined);
                }
            }
        }
    }

    async fn wake(&mut self, engine: &mut Engine) -> Wake {
        let has_notices =
            self.slots.iter().any(|slot| !slot.undelivered.is_empty() && !slot.notices.is_closed());
        let has_outgoing = !self.outgoing.is_empty();
        let unsent_max = self.options.unsent_max.max(1);
        let may_emit = !has_outgoing && self.slots.iter().all(|slot| slot.unsent.len() < unsent_max);
        let Engine { arrivals, departures, .. } = engine;
        tokio::select! {
            () = deliver_one(&mut self.slots), if has_notices => Wake::Notified,
            permit = departures.reserve(), if has_outgoing => match (permit, self.outgoing.pop_front()) {
                (Ok(permit), Some(batch)) => {
                    permit.send(batch);
                    Wake::Departed
                }
                (Ok(_), None) => Wake::Departed,
                // The session has ended; its last arrivals are still to come.
                (Err(_), _) => {
                    self.outgoing.clear();
                    Wake::Departed
                }
            },
            request = self.requests.recv() => Wake::Requested(request),
            emission = self.emissions.recv(), if may_emit => Wake::Emitted(emission),
            arrival = arrivals.recv(), if !has_notices => arrival.map_or(Wake::EngineEnded, Wake::Arrived),
        }
    }

    /// Says goodbye: everything that is still to be sent, then the end of the session.
    async fn finish(&mut self, engine: Engine) -> DisconnectReason {
        let Engine { mut arrivals, departures, task } = engine;
        let outgoing = std::mem::take(&mut self.outgoing);
        let depart = async move {
            for batch in outgoing {
                if departures.send(batch).await.is_err() {
                    break;
                }
            }
            // Here the senders' end is dropped, which tells the session to close.
        };
        // What still comes is taken, so that the session is never held up by it.
        let drain = async { while arrivals.recv().await.is_some() {} };
        tokio::join!(depart, drain);
        // It closes within a bound of its own; that it was told to go is all that can be wrong.
        let _ = task.await;
        DisconnectReason::Client
    }

    /// Tells every socket that the connection is gone, and forgets those that have ended.
    fn lose(&mut self, reason: &DisconnectReason, will_reconnect: bool) {
        for slot in self.slots.iter_mut().filter(|slot| slot.state != State::Ended) {
            let was_trying = slot.state != State::Joined && !slot.is_joining_first();
            slot.handle_loss(reason, will_reconnect);
            if was_trying && !will_reconnect {
                slot.give_up();
            }
        }
        self.leaving.clear();
        self.slots.retain(|slot| !slot.is_finished());
    }

    fn handle_request(&mut self, request: Request) {
        match request {
            Request::Join(join) => {
                let number = self.next_slot;
                self.next_slot += 1;
                self.slots.push(Slot::new(number, join));
            }
            Request::Leave { slot, done } => {
                // What was emitted before leaving is sent before leaving.
                while let Ok(emission) = self.emissions.try_recv() {
                    self.handle_emission(emission);
                }
                if let Some(slot) = self.slots.iter_mut().find(|found| found.number == slot) {
                    leave(&mut self.outgoing, &self.options, slot);
                    self.leaving.extend(done);
                }
                // Others go on, so there is no end to wait for.
                if self.has_live_slots() {
                    self.leaving.clear();
                }
            }
        }
    }

    fn handle_emission(&mut self, emission: Emission) {
        let number = match &emission {
            Emission::Event { slot, .. } | Emission::Answer { slot, .. } => *slot,
        };
        let Some(slot) = self.slots.iter_mut().find(|slot| slot.number == number) else { return };
        match slot.state {
            State::Joined => send(&mut self.outgoing, &self.options, self.epoch, slot, emission),
            State::Offline | State::Joining => slot.unsent.push_back(emission),
            State::Ended => {}
        }
    }

    /// Answers whether a socket was let in.
    fn handle_arrival(&mut self, arrival: Arrival) -> Result<bool, EngineFault> {
        let broken = |fault: sio_proto::Fault| EngineFault::Protocol(fault.to_string());
        let parser = self.options.parser;
        match arrival {
            Arrival::Text(_) if self.assembler.is_waiting() => Err(broken(sio_proto::Fault::UnexpectedText)),
            Arrival::Text(text) => {
                let packet = parser.decode_text(&text, &self.limits).map_err(broken)?;
                if packet.attachments > 0 {
                    self.assembler.begin(&packet, &self.limits).map_err(broken)?;
                    return Ok(false);
                }
                self.handle_packet(&packet, &[])
            }
            Arrival::Binary(bytes) if parser.is_binary() => {
                let packet = parser.decode_binary(&bytes, &self.limits).map_err(broken)?;
                self.handle_packet(&packet, &[])
            }
            Arrival::Binary(bytes) => match self.assembler.push_bytes(bytes, &self.limits).map_err(broken)? {
                Some(whole) => self.handle_packet(&whole.as_incoming(), &whole.attachments),
                None => Ok(false),
            },
        }
    }

    fn handle_packet(&mut self, packet: &Incoming<'_>, attachments: &[Bytes]) -> Result<bool, EngineFault> {
        let parser = self.options.parser;
        let live = |slot: &&mut Slot| slot.namespace == packet.namespace && slot.state != State::Ended;
        let Some(slot) = self.slots.iter_mut().find(live) else { return Ok(false) };
        let content = |elements: &[u8], count| Content {
            parser,
            elements: elements.to_vec(),
            count,
            attachments: attachments.to_vec(),
        };
        match &packet.payload {
            Payload::Connect { auth } => {
                let auth =
                    auth.and_then(|auth| to_value(parser, auth, 1, &[]).ok()?.pop()).unwrap_or(Value::Null);
                let text = |key: &str| auth.get(key).and_then(Value::as_str).map(str::to_owned);
                let Some(sid) = text("sid") else {
                    return Err(EngineFault::Protocol(
                        "CONNECT without a sid; the server may be of version 2".into(),
                    ));
                };
                let pid = if self.options.recovery { text("pid") } else { None };
                slot.handle_connect(sid, pid);
                for emission in std::mem::take(&mut slot.unsent) {
                    send(&mut self.outgoing, &self.options, self.epoch, slot, emission);
                }
                return Ok(true);
            }
            Payload::Disconnect => {
                slot.handle_loss(&DisconnectReason::Server, false);
            }
            Payload::Event { name, elements, count } => {
                let answer = packet.ack_id.zip(self.emissions_in.upgrade()).map(|(id, emissions)| Answer {
                    emissions,
                    slot: slot.number,
                    epoch: self.epoch,
                    id,
                });
                let event =
                    Event { name: name.clone().into_owned(), content: content(elements, *count), answer };
                if !slot.handle_event(event, self.options.notices_max.max(1)) {
                    return Err(EngineFault::Protocol("more than notices_max events before CONNECT".into()));
                }
            }
            Payload::Ack { elements, count } => {
                if let Some(id) = packet.ack_id {
                    slot.handle_ack(id, content(elements, *count));
                }
            }
            Payload::ConnectError { data } => {
                let data = if data.is_empty() { None } else { to_value(parser, data, 1, &[]).ok() };
                let data = data.and_then(|mut values| values.pop()).unwrap_or(Value::Null);
                let refusal = match &data {
                    Value::Object(object) => Refusal {
                        message: object.get("message").and_then(Value::as_str).unwrap_or_default().to_owned(),
                        data: object.get("data").cloned(),
                    },
                    Value::String(message) => Refusal { message: message.clone(), data: None },
                    Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => {
                        Refusal { message: String::new(), data: None }
                    }
                };
                slot.handle_refusal(refusal);
            }
        }
        Ok(false)
    }
}

/// Ends a socket at the application's wish.
fn leave(outgoing: &mut VecDeque<Vec<Departure>>, options: &Options, slot: &mut Slot) {
    if matches!(slot.state, State::Joined | State::Joining) {
        let mut packet = Vec::new();
        encode_disconnect(&mut packet, options.parser, &slot.namespace);
        outgoing.push_back(vec![wrap(options, packet)]);
    }
    // Nobody wants to know any more.
    slot.undelivered.clear();
    slot.end();
}

/// Encodes what a connected socket sends.
fn send(
    outgoing: &mut VecDeque<Vec<Departure>>,
    options: &Options,
    epoch: u64,
    slot: &mut Slot,
    emission: Emission,
) {
    let mut packet = Vec::new();
    let body = match emission {
        Emission::Event { body, ack, .. } => {
            let id = ack.map(|ack| slot.expect_ack(ack));
            encode_event(&mut packet, options.parser, &slot.namespace, id, &body, None);
            body
        }
        Emission::Answer { epoch: of, id, body, .. } if of == epoch => {
            encode_ack(&mut packet, options.parser, &slot.namespace, id, &body);
            body
        }
        // The connection that asked is gone, and its ids with it.
        Emission::Answer { .. } => return,
    };
    let mut batch = vec![wrap(options, packet)];
    batch.extend(body.attachments.into_iter().map(Departure::Binary));
    outgoing.push_back(batch);
}

/// A Socket.IO packet as an Engine.IO message.
fn wrap(options: &Options, mut packet: Vec<u8>) -> Departure {
    if options.parser.is_binary() {
        return Departure::Binary(packet.into());
    }
    packet.insert(0, b'4');
    Departure::Text(packet)
}

/// Hands one notice to an application; waits for ever when there is none to hand out.
///
/// Loses nothing when it is dropped before it has answered.
async fn deliver_one(slots: &mut [Slot]) {
    for slot in slots {
        if slot.undelivered.is_empty() {
            continue;
        }
        match slot.notices.reserve().await {
            Ok(permit) => {
                if let Some(notice) = slot.undelivered.pop_front() {
                    permit.send(notice);
                }
            }
            Err(_) => {
                // The application is gone, and a request to leave on its way.
                slot.undelivered.clear();
            }
        }
        return;
    }
    std::future::pending().await
}
