//! Packets that arrive: Engine.IO packets, and the Socket.IO packets inside them.
//! Does not know transports. Invariant: a packet that breaks a rule ends its own session and nothing else.
//!
//! SIO5 "Packet encoding"; the violations are those of the reference server.

use eio_proto::{Data, Packet, Revision};
use sio_proto::{Incoming, OwnedPayload, Parser, Payload, revision4};

use crate::ack::Answered;
use crate::close::Goodbye;
use crate::moment::Moment;
use crate::output::{Attachments, Pending};
use crate::reason::Reason;
use crate::session::{Session, SessionKey};
use crate::shard::Shard;
use crate::socket::{SocketKey, State};

/// What a packet's rule-breaking is answered with; the session is closed by the one caller that sees it.
struct Violation;

/// How far a session's socket in a namespace is.
#[derive(Clone, Copy)]
enum Place {
    /// The application has not answered its CONNECT yet.
    Awaited,
    /// It is connected.
    Taken,
}

impl Shard {
    /// One Engine.IO packet, from whichever transport.
    #[inline]
    pub(crate) fn handle_packet(&mut self, now: Moment, session: SessionKey, packet: Packet<'_>) {
        self.note_packet(now, session, &packet);
        let outcome = match packet {
            Packet::Message(data) if self.config.raw_messages => {
                let (data, is_binary) = match &data {
                    Data::Text(text) => (text.as_bytes(), false),
                    Data::Binary(data) => (&data[..], true),
                };
                let data = self.outputs.keep(data);
                self.push_output(Pending::Message { session, data, is_binary });
                Ok(())
            }
            Packet::Message(Data::Text(text)) => self.handle_text(now, session, text),
            Packet::Message(Data::Binary(data)) => self.handle_binary(now, session, &data),
            Packet::Close => {
                self.close_session(now, session, Reason::TransportClose, Goodbye::Answer);
                Ok(())
            }
            Packet::Ping(_) => {
                if self.sessions.get(session).is_some_and(|entry| entry.revision == Revision::V4) {
                    // Revision 4 has the server ping; a ping from the peer is the wrong way round.
                    self.counters.faults_engine += 1;
                    self.close_session(now, session, Reason::TransportError, Goodbye::Prompt);
                }
                Ok(())
            }
            Packet::Pong(_) | Packet::Open(_) | Packet::Upgrade | Packet::Noop => Ok(()),
        };
        if let Err(Violation) = outcome {
            self.counters.faults_socket += 1;
            self.close_session(now, session, Reason::ForcedClose, Goodbye::Prompt);
        }
    }

    fn handle_text(&mut self, now: Moment, session: SessionKey, text: &str) -> Result<(), Violation> {
        let Some(entry) = self.sessions.get_mut(session) else { return Ok(()) };
        if self.config.parser != Parser::Json || entry.assembler.is_waiting() {
            return Err(Violation);
        }
        let incoming = sio_proto::decode_text(text, &self.config.packets).map_err(|_| Violation)?;
        if incoming.attachments > 0 {
            return entry.assembler.begin(&incoming, &self.config.packets).map_err(|_| Violation);
        }
        self.handle_incoming(now, session, &incoming, None)
    }

    fn handle_binary(&mut self, now: Moment, session: SessionKey, data: &[u8]) -> Result<(), Violation> {
        let Some(entry) = self.sessions.get_mut(session) else { return Ok(()) };
        match self.config.parser {
            Parser::Msgpack => {
                let incoming =
                    sio_proto::decode_msgpack(data, &self.config.packets).map_err(|_| Violation)?;
                self.handle_incoming(now, session, &incoming, None)
            }
            Parser::Json => {
                let Some(whole) = entry.assembler.push(data, &self.config.packets).map_err(|_| Violation)?
                else {
                    return Ok(());
                };
                let payload = match &whole.payload {
                    OwnedPayload::Event { name, elements, count } => {
                        Payload::Event { name: (&**name).into(), elements, count: *count }
                    }
                    OwnedPayload::Ack { elements, count } => Payload::Ack { elements, count: *count },
                };
                let incoming =
                    Incoming { namespace: &whole.namespace, ack_id: whole.ack_id, attachments: 0, payload };
                let attachments = (!whole.attachments.is_empty()).then(|| Box::new(whole.attachments));
                self.handle_incoming(now, session, &incoming, attachments)
            }
        }
    }

    fn handle_incoming(
        &mut self,
        now: Moment,
        session: SessionKey,
        incoming: &Incoming<'_>,
        attachments: Attachments,
    ) -> Result<(), Violation> {
        let Some(entry) = self.sessions.get(session) else { return Ok(()) };
        let revision = entry.revision;
        let mut namespace = incoming.namespace;
        let mut query = None;
        if revision == Revision::V3 {
            // Revision 3 clients carry a query in the name; it takes the place of the auth payload.
            (namespace, query) = revision4::split_query(namespace);
        }
        let found = self.find_socket(entry, namespace);
        match (&incoming.payload, found) {
            (Payload::Connect { .. }, Some(_)) if revision == Revision::V3 && namespace == "/" => Ok(()),
            (Payload::Connect { .. }, Some((_, Place::Taken))) => Err(Violation),
            (Payload::Connect { .. }, Some((_, Place::Awaited))) => {
                // Still being answered: the impatience of a peer that asked twice makes no second socket.
                self.counters.faults_socket += 1;
                Ok(())
            }
            (Payload::Connect { auth }, None) => {
                let from_query = query.and_then(|query| self.encode_auth(&revision4::query_to_auth(query)));
                self.begin_connect(now, session, namespace, from_query.as_deref().or(*auth));
                Ok(())
            }
            (Payload::ConnectError { .. }, _) | (_, None) => Err(Violation),
            // Nothing may come for a namespace that has not answered yet.
            (_, Some((_, Place::Awaited))) => Err(Violation),
            (Payload::Disconnect, Some((socket, Place::Taken))) => {
                self.detach_from_session(session, socket);
                self.disconnect_socket(now, socket, Reason::ClientNamespaceDisconnect);
                Ok(())
            }
            (Payload::Event { name, elements, count }, Some((socket, Place::Taken))) => {
                self.counters.events_in += 1;
                let name = self.outputs.keep_text(name);
                let elements = self.outputs.keep(elements);
                let (count, ack_id) = (*count, incoming.ack_id);
                self.outputs.push_with(|| Pending::Event {
                    socket,
                    name,
                    elements,
                    count,
                    attachments,
                    ack_id,
                });
                Ok(())
            }
            (Payload::Ack { elements, count }, Some((socket, Place::Taken))) => {
                if let Some(id) = incoming.ack_id
                    && let Answered::Expected { token, last } = self.acks.answer(id, socket)
                {
                    if let Some(entry) = self.sockets.get_mut(socket) {
                        entry.acks_owed = entry.acks_owed.saturating_sub(1);
                    }
                    self.counters.acks_in += 1;
                    let elements = self.outputs.keep(elements);
                    self.push_output(Pending::Ack {
                        token,
                        socket,
                        elements,
                        count: *count,
                        attachments,
                        last,
                    });
                }
                Ok(())
            }
        }
    }

    /// An auth payload as the parser would have given it.
    fn encode_auth(&self, auth: &serde_json::Map<String, serde_json::Value>) -> Option<Vec<u8>> {
        let body = self.config.parser.encode_ack_args(&sio_proto::One(auth)).ok()?;
        Some(body.elements)
    }

    /// The session's socket in a namespace.
    #[inline]
    fn find_socket(&self, session: &Session, namespace: &str) -> Option<(SocketKey, Place)> {
        session.sockets.iter().find_map(|&slot| {
            let socket = self.sockets.at(slot)?;
            let (is_it, place) = match &socket.state {
                State::Connecting(connecting) => (&*connecting.namespace == namespace, Place::Awaited),
                State::Connected => {
                    let name = &*self.namespace(socket.namespace).name;
                    // Every name begins with a slash, so of this length there is only one.
                    let is_it = name.len() == namespace.len() && (name.len() == 1 || name == namespace);
                    (is_it, Place::Taken)
                }
                State::Lost { .. } => (false, Place::Awaited),
            };
            if is_it { Some((self.sockets.key_at(slot)?, place)) } else { None }
        })
    }
}
