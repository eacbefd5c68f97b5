//! Owns what makes two deliveries the same message. Does not know who remembers what was kept.
//!
//! A broker delivers again whatever was not acknowledged when its connection went: after a kill, a restart of the broker,
//! a cut cable. Such a message must count once. By what it is known, the surest first:
//!
//! 1. **`idempotency_key`**, a header: what the sender calls the request, as with the header `Idempotency-Key` over HTTP.
//! 2. **`message_id`**, the property: most libraries set it, or can.
//! 3. **Its content**: a digest of body, exchange, routing key, type, sender, time and headers. A broker gives messages no
//!    number of their own that outlives a connection, so nothing else is left. Two messages that are the same to the last
//!    byte may both be meant, such as two ticks; so a message that comes for the first time always counts, and only one
//!    that the broker calls redelivered is taken for the one that was kept. What remains is this: of two such twins, the
//!    second of which was delivered but not yet kept at the moment of a kill, one counts. Give messages ids.

use std::collections::{HashSet, VecDeque};

use ring::digest::{Context, SHA256};

use crate::message::Message;

/// Bytes of a key as they are; a longer one is known by its digest. 180: stores take 200, and the events of one message
/// have a number each.
const KEY_BYTES_MAX: usize = 180;

/// Contents that are remembered. 10,000: some megabytes; a twin of an older one is found by the store, which takes longer.
const CONTENTS_MAX: usize = 10_000;

/// Headers by which senders name a message, the first that is there counts.
const KEY_HEADERS: [&str; 2] = ["idempotency_key", "idempotency-key"];

/// By what a message is known when it comes again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// What its sender calls the request.
    Key(String),
    /// Its `message_id`.
    Id(String),
    /// A digest of its content.
    Content(String),
    /// It is a twin of one that was kept: the digest, and a number of its own.
    Twin(String),
}

impl Identity {
    /// By what a message is known.
    #[must_use]
    pub fn of(message: &Message) -> Self {
        let named = |text: &String| match text.len() {
            0 => None,
            1..=KEY_BYTES_MAX => Some(text.clone()),
            _ => Some(digest([text.as_bytes()])),
        };
        let key = KEY_HEADERS.iter().find_map(|name| message.headers.get(*name)).and_then(named);
        if let Some(key) = key {
            return Identity::Key(key);
        }
        match message.message_id.as_ref().and_then(named) {
            Some(id) => Identity::Id(id),
            None => Identity::Content(content(message)),
        }
    }

    /// What the store is given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Identity::Key(text) | Identity::Id(text) | Identity::Content(text) | Identity::Twin(text) => text,
        }
    }

    /// The same message, as one that is meant beside its twin.
    pub(crate) fn twin(&self, number: u64) -> Option<Self> {
        match self {
            Identity::Content(digest) => Some(Identity::Twin(format!("{digest}~{number:016x}"))),
            Identity::Key(_) | Identity::Id(_) | Identity::Twin(_) => None,
        }
    }
}

/// The contents that came lately, so that the twins among them need not be found by the store.
#[derive(Debug, Default)]
pub(crate) struct Lately {
    digests: HashSet<String>,
    order: VecDeque<String>,
}

impl Lately {
    /// By what a message is known that has just come: as a twin at once, if it comes for the first time and the same
    /// came before.
    pub(crate) fn identify(&mut self, message: &Message, number: u64) -> Identity {
        let identity = Identity::of(message);
        let Identity::Content(digest) = &identity else { return identity };
        if !self.digests.insert(digest.clone()) {
            return if message.is_redelivered { None } else { identity.twin(number) }.unwrap_or(identity);
        }
        self.order.push_back(digest.clone());
        if self.order.len() > CONTENTS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.digests.remove(&oldest);
        }
        identity
    }
}

fn content(message: &Message) -> String {
    let none = &String::new();
    let time = message.timestamp_s.map(|time| time.to_string()).unwrap_or_default();
    let fields = [
        &message.exchange,
        &message.routing_key,
        message.kind.as_ref().unwrap_or(none),
        message.app_id.as_ref().unwrap_or(none),
        &time,
    ];
    let headers = message.headers.iter().flat_map(|(name, value)| [name.as_bytes(), value.as_bytes()]);
    digest(fields.into_iter().map(String::as_bytes).chain([&message.body[..]]).chain(headers))
}

/// A digest of parts: each with its length before it, so that no two lists of parts are the same bytes.
fn digest<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let digest = context.finish();
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(edit: impl FnOnce(&mut Message)) -> Message {
        let mut message = Message { body: b"{}".to_vec(), routing_key: "k".into(), ..Message::default() };
        edit(&mut message);
        message
    }

    #[test]
    fn a_message_is_known_by_the_surest_that_its_sender_gave() {
        let id = |message: &mut Message| message.message_id = Some("m".into());
        let key = |message: &mut Message| {
            id(message);
            message.headers.insert("idempotency_key".into(), "k".into());
        };
        assert_eq!(Identity::of(&message(key)), Identity::Key("k".into()));
        assert_eq!(Identity::of(&message(id)), Identity::Id("m".into()));
        assert!(matches!(Identity::of(&message(|_| ())), Identity::Content(_)));
        let empty = message(|message| message.message_id = Some(String::new()));
        assert!(matches!(Identity::of(&empty), Identity::Content(_)));
        let long = message(|message| message.message_id = Some("m".repeat(201)));
        assert_eq!(Identity::of(&long).as_str().len(), 64);
    }

    #[test]
    fn content_is_the_same_when_it_comes_again_and_another_when_anything_differs() {
        let first = Identity::of(&message(|_| ()));
        assert_eq!(first, Identity::of(&message(|message| message.is_redelivered = true)));
        let others = [
            message(|message| message.body = b"{ }".to_vec()),
            message(|message| message.routing_key = "l".into()),
            message(|message| message.timestamp_s = Some(1)),
            message(|message| message.kind = Some("t".into())),
            message(|message| message.app_id = Some("t".into())),
            message(|message| drop(message.headers.insert("a".into(), "b".into()))),
            message(|message| drop(message.headers.insert("ab".into(), String::new()))),
        ];
        let mut seen = vec![first];
        for other in &others {
            let identity = Identity::of(other);
            assert!(!seen.contains(&identity), "{other:?}");
            seen.push(identity);
        }
    }

    #[test]
    fn the_same_content_again_is_a_twin_unless_it_is_redelivered() {
        let mut lately = Lately::default();
        let again = message(|message| message.is_redelivered = true);
        assert!(matches!(lately.identify(&message(|_| ()), 1), Identity::Content(_)));
        assert!(matches!(lately.identify(&message(|_| ()), 2), Identity::Twin(_)));
        assert!(matches!(lately.identify(&again, 3), Identity::Content(_)));
        for number in 0..CONTENTS_MAX {
            lately.identify(&message(|message| message.body = number.to_string().into()), 4);
        }
        assert_eq!((lately.digests.len(), lately.order.len()), (CONTENTS_MAX, CONTENTS_MAX));
        assert!(matches!(lately.identify(&message(|_| ()), 5), Identity::Content(_)), "it is forgotten");
    }

    #[test]
    fn only_content_has_twins() {
        let content = Identity::Content("d".into());
        assert_eq!(content.twin(1), Some(Identity::Twin("d~0000000000000001".into())));
        assert_eq!(content.twin(1).and_then(|twin| twin.twin(2)), None);
        assert_eq!(Identity::Id("m".into()).twin(1), None);
    }
}
