//! A Socket.IO client as a value: what it makes of packets, and what it wants to send.
//! Does not know the network, shards or what others do. Invariant: it behaves like the stock JavaScript client, with
//! recovery or (`is_plain`) without.

use std::collections::{BTreeMap, VecDeque};

use eio_proto::{Data, Packet};
use engine_core::Moment;
use serde_json::Value;
use sio_proto::{Assembler, Incoming, Limits, OwnedPayload, Parser, Payload};
use ws_proto::{Decoder, Message, OpCode, Role, Rules, Step};

/// How a peer travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Travel {
    Polling,
    WebSocket,
    Upgrade,
}

/// What a peer remembers of one namespace across connections.
#[derive(Debug, Default)]
pub(crate) struct Membership {
    pub(crate) sid: Option<String>,
    pub(crate) pid: Option<String>,
    pub(crate) offset: Option<String>,
    pub(crate) is_joined: bool,
    /// Events that came before CONNECT.
    early: Vec<Vec<Value>>,
}

/// Something that a peer took note of.
#[derive(Debug)]
pub(crate) enum Notice {
    /// It joined a namespace under this id, which it had before (`kept`) or not.
    Joined { sid: String, kept: bool },
    /// It was refused.
    Refused { namespace: String },
    /// It was told to leave.
    Left { namespace: String },
    /// An event, for the socket with this id.
    Event { sid: String, args: Vec<Value> },
    /// Its own event with this number was answered.
    Answered { id: u64 },
    /// The server said that the session is over.
    Closed,
    /// The server's open packet.
    Opened { sid: String },
    /// The probe was answered.
    Probed,
}

/// One WebSocket's reading side.
#[derive(Default)]
pub(crate) struct Reader {
    decoder: Decoder,
    unread: Vec<u8>,
}

/// A frame, copied.
pub(crate) enum Frame {
    Text(String),
    Binary(Vec<u8>),
    Close,
}

impl Reader {
    pub(crate) fn read(&mut self, bytes: &[u8]) -> Vec<Frame> {
        let rules = Rules { role: Role::Client, message_bytes_max: 10_000_000, ..Rules::default() };
        self.unread.extend_from_slice(bytes);
        let mut frames = Vec::new();
        let mut start = 0;
        loop {
            match self
                .decoder
                .decode(&mut self.unread[start..], &rules, None)
                .expect("frames are well formed")
            {
                Step::Incomplete { .. } => break,
                Step::Frame { used, message } => {
                    start += used;
                    frames.push(match message.expect("the server does not fragment") {
                        Message::Text(text) => Frame::Text(text.to_owned()),
                        Message::Binary(data) => Frame::Binary(data.to_vec()),
                        Message::Close(..) => Frame::Close,
                        Message::Ping(_) | Message::Pong(_) => continue,
                    });
                }
            }
        }
        self.unread.drain(..start);
        frames
    }
}

/// Writes one masked text frame.
pub(crate) fn text_frame(packet: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    ws_proto::encode_frame_masked(&mut bytes, OpCode::Text, packet.as_bytes(), [1, 2, 3, 4]);
    bytes
}

pub(crate) struct Peer {
    pub(crate) travel: Travel,
    pub(crate) is_plain: bool,
    pub(crate) namespaces: BTreeMap<String, Membership>,
    /// Engine.IO packets that wait to be sent.
    pub(crate) queue: VecDeque<String>,
    pub(crate) heard_at: Moment,
    assembler: Assembler,
    limits: Limits,
    /// Number of the next event it sends on this connection.
    pub(crate) next_event: u64,
}

impl Peer {
    pub(crate) fn new(travel: Travel, is_plain: bool, namespaces: &[&str]) -> Self {
        Self {
            travel,
            is_plain,
            namespaces: namespaces.iter().map(|&name| (name.to_owned(), Membership::default())).collect(),
            queue: VecDeque::new(),
            heard_at: Moment::ORIGIN,
            assembler: Assembler::default(),
            limits: Limits::default(),
            next_event: 0,
        }
    }

    /// Its connection is gone, and it knows.
    pub(crate) fn forget_connection(&mut self) {
        self.queue.clear();
        self.assembler = Assembler::default();
        self.next_event = 0;
        for membership in self.namespaces.values_mut() {
            membership.is_joined = false;
            // The stock client would keep them, and give them to the application with those that it is sent again.
            assert!(membership.early.is_empty(), "events came that should not without their CONNECT");
        }
    }

    /// The secret that belongs to a public id.
    pub(crate) fn pid_of(&self, sid: &str) -> Option<String> {
        let mut memberships = self.namespaces.values();
        memberships
            .find(|membership| membership.sid.as_deref() == Some(sid))
            .and_then(|found| found.pid.clone())
    }

    /// Asks for all its namespaces.
    pub(crate) fn queue_connects(&mut self) {
        let names: Vec<String> = self.namespaces.keys().cloned().collect();
        for name in names {
            self.queue_connect(&name);
        }
    }

    pub(crate) fn queue_connect(&mut self, namespace: &str) {
        let membership = &self.namespaces[namespace];
        let mut auth = serde_json::Map::new();
        if !self.is_plain
            && let Some(pid) = &membership.pid
        {
            auth.insert("pid".into(), pid.as_str().into());
            if let Some(offset) = &membership.offset {
                auth.insert("offset".into(), offset.as_str().into());
            }
        }
        let auth = if auth.is_empty() { String::new() } else { Value::from(auth).to_string() };
        self.queue.push_back(format!("40{}{auth}", prefix(namespace)));
    }

    /// Sends a numbered event, if it has joined.
    pub(crate) fn queue_event(&mut self, namespace: &str, connection: u64, wants_ack: bool) -> bool {
        if !self.namespaces[namespace].is_joined {
            return false;
        }
        let number = self.next_event;
        self.next_event += 1;
        let id = if wants_ack { number.to_string() } else { String::new() };
        self.queue.push_back(format!("42{}{id}[\"up\",{connection},{number}]", prefix(namespace)));
        true
    }

    pub(crate) fn hear_text(&mut self, now: Moment, text: &str) -> Vec<Notice> {
        self.hear(now, eio_proto::decode_text(text).expect("packets are well formed"))
    }

    pub(crate) fn hear_binary(&mut self, now: Moment, data: &[u8]) -> Vec<Notice> {
        self.hear(now, Packet::Message(Data::Binary(data.into())))
    }

    fn hear(&mut self, now: Moment, packet: Packet<'_>) -> Vec<Notice> {
        let mut notices = Vec::new();
        match packet {
            Packet::Open(json) => {
                let json: Value = serde_json::from_str(json).expect("the open packet is JSON");
                self.heard_at = now;
                notices.push(Notice::Opened { sid: json["sid"].as_str().unwrap_or("").to_owned() });
            }
            Packet::Close => notices.push(Notice::Closed),
            Packet::Ping(_) => {
                self.heard_at = now;
                self.queue.push_back("3".into());
            }
            Packet::Pong("probe") => notices.push(Notice::Probed),
            Packet::Message(Data::Text(text)) => {
                let limits = self.limits.clone();
                assert!(!self.assembler.is_waiting(), "nothing comes between an event and its attachments");
                let incoming = sio_proto::decode_text(text, &limits).expect("packets are well formed");
                if incoming.attachments > 0 {
                    self.assembler.begin(&incoming, &limits).expect("it can be assembled");
                } else {
                    self.hear_incoming(&incoming, &[], &mut notices);
                }
            }
            Packet::Message(Data::Binary(data)) => {
                let limits = self.limits.clone();
                if let Some(whole) = self.assembler.push(&data, &limits).expect("an attachment was due") {
                    let incoming = whole.as_incoming();
                    debug_assert!(matches!(whole.payload, OwnedPayload::Event { .. }));
                    self.hear_incoming(&incoming, &whole.attachments, &mut notices);
                }
            }
            Packet::Pong(_) | Packet::Upgrade | Packet::Noop => {}
        }
        notices
    }

    fn hear_incoming(
        &mut self,
        incoming: &Incoming<'_>,
        attachments: &[bytes::Bytes],
        notices: &mut Vec<Notice>,
    ) {
        let name = incoming.namespace.to_owned();
        let Some(membership) = self.namespaces.get_mut(&name) else {
            panic!("a packet for {name}, which was never asked for");
        };
        match &incoming.payload {
            Payload::Connect { auth } => {
                let json: Value =
                    serde_json::from_slice(auth.expect("CONNECT has data")).expect("its data is JSON");
                let (sid, pid) =
                    (json["sid"].as_str().map(str::to_owned), json["pid"].as_str().map(str::to_owned));
                let kept = pid.is_some() && pid == membership.pid;
                assert!(
                    kept || membership.early.is_empty(),
                    "events came before the CONNECT of a session that is not recovered"
                );
                (membership.sid, membership.pid, membership.is_joined) = (sid.clone(), pid, true);
                let sid = sid.expect("CONNECT has a sid");
                notices.push(Notice::Joined { sid: sid.clone(), kept });
                for args in std::mem::take(&mut membership.early) {
                    note_event(membership, sid.clone(), args, false, notices);
                }
            }
            Payload::ConnectError { .. } => notices.push(Notice::Refused { namespace: name }),
            Payload::Disconnect => {
                membership.is_joined = false;
                notices.push(Notice::Left { namespace: name });
            }
            Payload::Event { name: event, elements, count } => {
                let mut args = sio_proto::to_value(Parser::Json, elements, *count, attachments)
                    .expect("arguments are well formed");
                args.insert(0, (&**event).into());
                match (membership.is_joined, membership.sid.clone()) {
                    (true, Some(sid)) => {
                        note_event(membership, sid, args, incoming.ack_id.is_some(), notices);
                        if let Some(id) = incoming.ack_id {
                            self.queue.push_back(format!("43{}{id}[\"yes\"]", prefix(&name)));
                        }
                    }
                    _ => membership.early.push(args),
                }
            }
            Payload::Ack { .. } => {
                notices.push(Notice::Answered { id: incoming.ack_id.expect("an ack has an id") });
            }
        }
    }
}

fn note_event(
    membership: &mut Membership,
    sid: String,
    args: Vec<Value>,
    wants_ack: bool,
    notices: &mut Vec<Notice>,
) {
    if membership.pid.is_some()
        && !wants_ack
        && let Some(offset) = args.last().and_then(Value::as_str)
    {
        membership.offset = Some(offset.to_owned());
    }
    notices.push(Notice::Event { sid, args });
}

fn prefix(namespace: &str) -> String {
    if namespace == "/" { String::new() } else { format!("{namespace},") }
}
