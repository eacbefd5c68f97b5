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
}

impl Watcher {
    /// Connects to a namespace of a server, and takes its greeting.
    pub(crate) fn connect(server: &str, path: &str, namespace: &str) -> (Self, Value) {
        let url = format!("{server}{path}?EIO=4&transport=polling");
        let open = agent().get(&url).call().expect("a session").body_mut().read_to_string().expect("text");
        let open: Value =
            serde_json::from_str(open.strip_prefix('0').expect("an open packet")).expect("json");
        let url = format!("{url}&sid={}", open["sid"].as_str().expect("a sid"));
        let namespace = if namespace == "/" { String::new() } else { format!("{namespace},") };
        let mut watcher = Self { url, namespace, packets: VecDeque::new(), next_ack: 0 };
        watcher.post(&format!("40{}", watcher.namespace));
        let packet = watcher.packet();
        assert!(packet.starts_with(&format!("40{}{{\"sid\":", watcher.namespace)), "{packet}");
        let (name, greeting) = watcher.event();
        assert_eq!(name, "connection_established");
        (watcher, greeting)
    }

    /// The next event.
    pub(crate) fn event(&mut self) -> (String, Value) {
        let packet = self.packet();
        let body =
            packet.strip_prefix(&format!("42{}", self.namespace)).unwrap_or_else(|| panic!("{packet}"));
        let Ok([name, payload]) = serde_json::from_str::<[Value; 2]>(body) else { panic!("{packet}") };
        (name.as_str().expect("a name").to_owned(), payload)
    }

    /// Sends an event without asking for an ack.
    pub(crate) fn emit(&mut self, event: &str, payload: &Value) {
        self.post(&format!("42{}{}", self.namespace, json!([event, payload])));
    }

    /// Sends an event, and answers the ack and the events that came before it.
    pub(crate) fn ask(&mut self, event: &str, payload: &Value) -> (Value, Vec<(String, Value)>) {
        let id = self.next_ack;
        self.next_ack += 1;
        self.post(&format!("42{}{id}{}", self.namespace, json!([event, payload])));
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
