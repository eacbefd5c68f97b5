//! The floor over HTTP long-polling: one queue and at most one parked poll for each session (EIO4 "HTTP long-polling").
//!
//! Sessions are never ended: the floor lives as long as one run.

use std::collections::HashMap;

use super::{Floor, Kind, POLLING, open_packet, sid};
use crate::http;
use crate::reactor::Reactor;
use crate::wire::Fault;

/// What separates packets in a payload.
const SEPARATOR: u8 = 0x1e;

/// One session.
#[derive(Default)]
struct Session {
    /// The connection whose poll waits.
    parked: Option<usize>,
    /// Packets that no poll has fetched.
    queue: Vec<u8>,
}

/// All sessions, by number and by sid.
#[derive(Default)]
pub(super) struct Sessions {
    list: Vec<Session>,
    by_sid: HashMap<String, u32>,
}

impl Sessions {
    /// Whether nobody polls.
    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The parked poll of `session` is gone.
    pub(super) fn unpark(&mut self, session: u32) {
        self.list[session as usize].parked = None;
    }
}

impl Floor {
    /// A GET or POST, once it is whole.
    pub(super) fn take_polling_request(
        &mut self,
        reactor: &mut Reactor,
        slot: usize,
        bytes: &[u8],
    ) -> Result<usize, Fault> {
        let Some(request) = http::decode_message(bytes)? else { return Ok(0) };
        let head = String::from_utf8_lossy(&bytes[request.head.clone()]).into_owned();
        let target = head.split(' ').nth(1).unwrap_or_default();
        let Some(wanted) = target.split(['?', '&']).find_map(|p| p.strip_prefix("sid=")) else {
            self.open_session(reactor, slot);
            return Ok(request.len);
        };
        let Some(&session) = self.sessions.by_sid.get(wanted) else {
            reactor.send(slot, b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            return Err(Fault::Packet(format!("unknown sid {wanted}")));
        };
        if head.starts_with("POST") {
            for packet in request.body.split(|b| *b == SEPARATOR) {
                self.take_text(reactor, session | POLLING, packet);
            }
            respond(reactor, slot, b"ok");
        } else {
            self.sessions.list[session as usize].parked = Some(slot);
            self.peers[slot].kind = Kind::Parked(session);
            self.answer_poll(reactor, session);
        }
        Ok(request.len)
    }

    fn open_session(&mut self, reactor: &mut Reactor, slot: usize) {
        self.sids += 1;
        let session = self.sessions.list.len() as u32;
        let sid = sid(self.sids);
        respond(reactor, slot, open_packet(&sid).as_bytes());
        self.sessions.list.push(Session::default());
        self.sessions.by_sid.insert(sid, session);
        self.wheel[self.place].push((session | POLLING, 0));
    }

    /// Queues a packet for `session` and answers its poll, if one waits.
    pub(super) fn say(&mut self, reactor: &mut Reactor, session: u32, packet: &[u8]) {
        let queue = &mut self.sessions.list[session as usize].queue;
        if !queue.is_empty() {
            queue.push(SEPARATOR);
        }
        queue.extend_from_slice(packet);
        self.answer_poll(reactor, session);
    }

    fn answer_poll(&mut self, reactor: &mut Reactor, session: u32) {
        let state = &mut self.sessions.list[session as usize];
        if !state.queue.is_empty()
            && let Some(slot) = state.parked.take()
        {
            self.peers[slot].kind = Kind::Http;
            respond(reactor, slot, &state.queue);
            state.queue = Vec::new();
        }
    }
}

fn respond(reactor: &mut Reactor, slot: usize, body: &[u8]) {
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=UTF-8\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    reactor.send(slot, &[head.as_bytes(), body].concat());
}
