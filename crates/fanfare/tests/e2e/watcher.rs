//! Owns the plainest client there is: Socket.IO over polling, packet by packet, as EIO4 and SIO5 write them.

use std::collections::VecDeque;

use serde_json::{Value, json};

use crate::fanfare::agent;

/// One socket in one namespace, over polling.
pub(crate) struct Watcher {
    url: String,
    namespace: String,
    packets: VecDeque<String>,
    next_ack: u64,
    /// Whether its events carry an offset.
    has_offsets: bool,
    /// The newest of them.
    newest_offset: String,
}

impl Watcher {
    /// Connects to a namespace of a server, and takes its greeting.
    pub(crate) fn connect(server: &str, path: &str, namespace: &str) -> (Self, Value) {
        let (mut watcher, _) = Self::open(&format!("{server}{path}"), namespace, "", &[], &Value::Null)
            .unwrap_or_else(|refusal| panic!("{refusal}"));
        let (name, greeting) = watcher.event();
        assert_eq!(name, "connection_established");
        (watcher, greeting)
    }

    /// Opens a session with this query and these headers, and connects with this auth payload. Answers the reply to
    /// the CONNECT, or its refusal; nothing else is read.
    pub(crate) fn open(
        url: &str,
        namespace: &str,
        query: &str,
        headers: &[(&str, &str)],
        auth: &Value,
    ) -> Result<(Self, Value), Value> {
        let mut opening = agent().get(format!("{url}?EIO=4&transport=polling{query}"));
        for (name, value) in headers {
            opening = opening.header(*name, *value);
        }
        let url = format!("{url}?EIO=4&transport=polling");
        let open = opening.call().expect("a session").body_mut().read_to_string().expect("text");
        let open: Value =
            serde_json::from_str(open.strip_prefix('0').expect("an open packet")).expect("json");
        let url = format!("{url}&sid={}", open["sid"].as_str().expect("a sid"));
        let namespace = if namespace == "/" { String::new() } else { format!("{namespace},") };
        let has_offsets = auth["recovery"] == true;
        let packets = VecDeque::new();
        let mut watcher =
            Self { url, namespace, packets, next_ack: 0, has_offsets, newest_offset: String::new() };
        let auth = if auth.is_null() { String::new() } else { auth.to_string() };
        watcher.post(&format!("40{}{auth}", watcher.namespace));
        // A socket that is recovered gets what it missed first, if one reply takes all.
        let mut missed = Vec::new();
        let packet = loop {
            let packet = watcher.packet();
            if !packet.starts_with("42") {
                break packet;
            }
            missed.push(packet);
        };
        for packet in missed.into_iter().rev() {
            watcher.packets.push_front(packet);
        }
        if let Some(refusal) = packet.strip_prefix(&format!("44{}", watcher.namespace)) {
            return Err(serde_json::from_str(refusal).expect("json"));
        }
        let reply =
            packet.strip_prefix(&format!("40{}", watcher.namespace)).unwrap_or_else(|| panic!("{packet}"));
        let reply: Value = serde_json::from_str(reply).expect("json");
        assert!(reply["sid"].is_string(), "{packet}");
        Ok((watcher, reply))
    }

    /// Reads until the server ends the socket or its session; answers the events that came before.
    pub(crate) fn end(&mut self) -> Vec<(String, Value)> {
        std::iter::from_fn(|| self.event_or_end()).collect()
    }

    /// The next event, unless the server ends the socket or its session first.
    pub(crate) fn event_or_end(&mut self) -> Option<(String, Value)> {
        loop {
            if self.packets.is_empty() {
                let mut answer = agent().get(&self.url).call().ok()?;
                if answer.status() != 200 {
                    return None;
                }
                let payload = answer.body_mut().read_to_string().expect("text");
                self.packets.extend(payload.split('\u{1e}').map(str::to_owned));
            }
            match self.packets.front().map(String::as_str) {
                Some("1") => return None,
                Some(packet) if packet.starts_with("41") => return None,
                Some("2") => {
                    self.packets.pop_front();
                    self.post("3");
                }
                Some("6") => {
                    self.packets.pop_front();
                }
                Some(_) => return Some(self.event()),
                None => {}
            }
        }
    }

    /// The next event.
    pub(crate) fn event(&mut self) -> (String, Value) {
        let packet = self.packet();
        let body =
            packet.strip_prefix(&format!("42{}", self.namespace)).unwrap_or_else(|| panic!("{packet}"));
        let Ok(mut arguments) = serde_json::from_str::<VecDeque<Value>>(body) else { panic!("{packet}") };
        if self.has_offsets {
            let offset = arguments.pop_back().and_then(|offset| offset.as_str().map(str::to_owned));
            self.newest_offset = offset.expect("an offset");
        }
        assert_eq!(arguments.len(), 2, "{packet}");
        let [Some(name), Some(payload)] = [arguments.pop_front(), arguments.pop_front()] else {
            panic!("{packet}")
        };
        (name.as_str().expect("a name").to_owned(), payload)
    }

    /// The offset of the next event, for a socket that asked for recovery.
    pub(crate) fn offset(&mut self) -> String {
        self.event();
        self.newest_offset().to_owned()
    }

    /// The offset of the newest event that was read.
    pub(crate) fn newest_offset(&self) -> &str {
        &self.newest_offset
    }

    /// Closes the session, as a client whose network changes.
    pub(crate) fn close(&self) {
        self.post("1");
    }

    /// Sends an event without asking for an ack.
    pub(crate) fn emit(&mut self, event: &str, payload: &Value) {
        self.post(&format!("42{}{}", self.namespace, json!([event, payload])));
    }

    /// Sends an event, and answers the ack and the events that came before it.
    pub(crate) fn ask(&mut self, event: &str, payload: &Value) -> (Value, Vec<(String, Value)>) {
        self.ask_with(event, std::slice::from_ref(payload))
    }

    /// As [`Watcher::ask`], with any number of arguments.
    pub(crate) fn ask_with(&mut self, event: &str, arguments: &[Value]) -> (Value, Vec<(String, Value)>) {
        let id = self.next_ack;
        self.next_ack += 1;
        let arguments: Vec<Value> = std::iter::once(event.into()).chain(arguments.iter().cloned()).collect();
        self.post(&format!("42{}{id}{}", self.namespace, json!(arguments)));
        let prefix = format!("43{}{id}", self.namespace);
        let mut events = Vec::new();
        loop {
            let packet = self.packet();
            if let Some(body) = packet.strip_prefix(&prefix) {
                let [answer] = serde_json::from_str::<[Value; 1]>(body).expect("one argument");
                return (answer, events);
            }
            self.packets.push_front(packet);
            events.push(self.event());
        }
    }

    fn post(&self, body: &str) {
        let answer = agent().post(&self.url).send(body).expect("an answer").body_mut().read_to_string();
        assert_eq!(answer.expect("text"), "ok");
    }

    fn packet(&mut self) -> String {
        loop {
            match self.packets.pop_front() {
                Some(packet) if packet == "2" => self.post("3"),
                Some(packet) if packet == "6" => {}
                Some(packet) => return packet,
                None => {
                    let payload =
                        agent().get(&self.url).call().expect("an answer").body_mut().read_to_string();
                    self.packets.extend(payload.expect("text").split('\u{1e}').map(str::to_owned));
                }
            }
        }
    }
}
