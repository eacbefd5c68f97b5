//! Owns which channels are heard in each namespace, and what a message on each of them means. Does not connect. Invariant:
//! what cannot be for anybody here is told from its channel, before it is read.

use crate::message::{Answer, Ask, Letter};
use crate::{classic, python, sharded};

/// Which adapter the servers in Node use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `createAdapter`: plain pub/sub. Also what emitters speak.
    Classic,
    /// `createShardedAdapter`, as it is without options: rooms have channels.
    Sharded,
    /// `createShardedAdapter` with `subscriptionMode: "static"`.
    ShardedStatic,
}

/// How a channel is subscribed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Plain,
    Pattern,
    Shard,
}

impl Way {
    pub(crate) fn subscribe(self) -> &'static str {
        match self {
            Way::Plain => "SUBSCRIBE",
            Way::Pattern => "PSUBSCRIBE",
            Way::Shard => "SSUBSCRIBE",
        }
    }
}

/// Something to be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outgoing {
    pub(crate) is_sharded: bool,
    pub(crate) channel: String,
    pub(crate) body: Vec<u8>,
}

/// Something that came.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Incoming {
    Ask(Letter),
    Answer(Answer),
    Python(python::Said),
}

/// Where something came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin<'a> {
    /// Which namespace, by its place in the list; `None`: Python's channel.
    pub(crate) namespace: Option<usize>,
    /// The room that it is for, if the channel says so.
    pub(crate) room: Option<&'a str>,
}

/// What is heard.
#[derive(Clone, Debug)]
pub(crate) struct Family {
    kind: Kind,
    prefix: String,
    uid: String,
    pub(crate) namespaces: Vec<(String, classic::Channels)>,
    pub(crate) python: Option<String>,
}

impl Family {
    pub(crate) fn new(
        kind: Kind,
        prefix: &str,
        uid: &str,
        namespaces: &[String],
        python: Option<String>,
    ) -> Self {
        let named = |namespace: &String| (namespace.clone(), classic::Channels::new(prefix, namespace));
        let namespaces = namespaces.iter().map(named).collect();
        Self { kind, prefix: prefix.to_owned(), uid: uid.to_owned(), namespaces, python }
    }

    pub(crate) fn is_sharded(&self) -> bool {
        self.kind != Kind::Classic
    }

    /// Whether rooms have channels that must be subscribed to one by one.
    pub(crate) fn has_room_channels(&self) -> bool {
        self.kind == Kind::Sharded
    }

    /// Everything that is always subscribed to.
    pub(crate) fn subscriptions(&self) -> Vec<(Way, String)> {
        let mut all = Vec::new();
        for (namespace, channels) in &self.namespaces {
            all.push((Way::Plain, self.marker(namespace)));
            if self.is_sharded() {
                all.push((Way::Shard, sharded::channel(&self.prefix, namespace)));
                all.push((Way::Shard, sharded::channel_of(&self.prefix, namespace, &self.uid)));
            } else {
                all.push((Way::Pattern, channels.pattern()));
                all.push((Way::Plain, channels.answers.clone()));
                all.push((Way::Plain, format!("{}{}#", channels.answers, self.uid)));
                // Last: who counts us expects that we answer.
                all.push((Way::Plain, channels.requests.clone()));
            }
        }
        if let Some(channel) = &self.python {
            all.push((Way::Plain, Self::python_marker(channel)));
            all.push((Way::Plain, channel.clone()));
        }
        all
    }

    /// The channel that servers of this program listen to beside the others', so that they can be told from them by
    /// counting. Nothing is ever said there.
    pub(crate) fn marker(&self, namespace: &str) -> String {
        format!("{}-fanfare#{namespace}#", self.prefix)
    }

    /// The same for Python's channel.
    pub(crate) fn python_marker(channel: &str) -> String {
        format!("{channel}-fanfare")
    }

    /// The channel by whose listeners servers count each other.
    pub(crate) fn counted(&self, namespace: usize) -> String {
        let (name, channels) = &self.namespaces[namespace];
        if self.is_sharded() { sharded::channel(&self.prefix, name) } else { channels.requests.clone() }
    }

    /// The channel of a room, if it has one that is to be subscribed to.
    pub(crate) fn room_channel(&self, namespace: &str, room: &str) -> Option<String> {
        let has = self.has_room_channels() && sharded::has_channel(room);
        has.then(|| sharded::channel_of(&self.prefix, namespace, room))
    }

    /// Where a message came; `None`: on a channel that is not ours.
    pub(crate) fn origin<'a>(&self, way: Way, channel: &'a str) -> Option<Origin<'a>> {
        if way == Way::Plain && self.python.as_deref() == Some(channel) {
            return Some(Origin { namespace: None, room: None });
        }
        for (place, (namespace, channels)) in self.namespaces.iter().enumerate() {
            let namespace_of = |room| Some(Origin { namespace: Some(place), room });
            if way == Way::Shard {
                let own = sharded::channel(&self.prefix, namespace);
                match channel.strip_prefix(&own) {
                    Some("") => return namespace_of(None),
                    Some(name) if name.strip_suffix('#') == Some(&self.uid) => return namespace_of(None),
                    Some(room) => return namespace_of(room.strip_suffix('#')),
                    None => continue,
                }
            }
            match channels.place(channel) {
                Some(classic::Place::Events(room)) => return namespace_of(room),
                Some(classic::Place::Requests | classic::Place::Answers) => return namespace_of(None),
                None => {}
            }
        }
        None
    }

    /// Reads a message; `None` for one that says nothing.
    ///
    /// # Errors
    /// Whoever sent it is at fault.
    pub(crate) fn decode(&self, way: Way, channel: &str, body: &[u8]) -> Result<Option<Incoming>, String> {
        let origin = self.origin(way, channel).ok_or("a channel that nobody subscribed to")?;
        let Some(place) = origin.namespace else {
            return Ok(Some(Incoming::Python(python::decode(body)?)));
        };
        let (namespace, channels) = &self.namespaces[place];
        let incoming = if way == Way::Shard {
            match sharded::decode(body)? {
                sharded::Said::Ask(letter) => Incoming::Ask(letter),
                sharded::Said::Answer(answer) => Incoming::Answer(answer),
                sharded::Said::Sign => return Ok(None),
            }
        } else {
            match channels.place(channel) {
                Some(classic::Place::Events(_)) => Incoming::Ask(classic::decode_event(body)?),
                Some(classic::Place::Requests) => Incoming::Ask(classic::decode_request(namespace, body)?),
                Some(classic::Place::Answers) => match classic::decode_answer(body)? {
                    Some(answer) => Incoming::Answer(answer),
                    None => return Ok(None),
                },
                None => return Ok(None),
            }
        };
        // The pattern of one namespace may match channels of another whose name goes on.
        if let Incoming::Ask(letter) = &incoming
            && letter.namespace != *namespace
        {
            return Ok(None);
        }
        Ok(Some(incoming))
    }

    /// Writes an ask; `None` for what the family has no words for.
    pub(crate) fn encode_ask(&self, letter: &Letter) -> Option<Outgoing> {
        let Letter { namespace, ask, .. } = letter;
        if !self.is_sharded() {
            let (_, channels) = self.namespaces.iter().find(|(name, _)| name == namespace)?;
            let (channel, body) = classic::encode_ask(channels, letter);
            return Some(Outgoing { is_sharded: false, channel, body });
        }
        let room = match ask {
            Ask::Broadcast { opts, request: None, .. } => match opts.rooms.as_slice() {
                [room] => self.room_channel(namespace, room),
                _ => None,
            },
            Ask::Broadcast { .. } | Ask::Join { .. } | Ask::Leave { .. } | Ask::Disconnect { .. } => None,
            Ask::Fetch { .. } | Ask::Ids { .. } | Ask::Rooms { .. } | Ask::ServerSide { .. } => None,
        };
        let channel = room.unwrap_or_else(|| sharded::channel(&self.prefix, namespace));
        Some(Outgoing { is_sharded: true, channel, body: sharded::encode_ask(letter)? })
    }

    /// Writes an answer to whoever has asked.
    pub(crate) fn encode_answer(&self, namespace: &str, asker: &str, answer: &Answer) -> Option<Outgoing> {
        if !self.is_sharded() {
            let (_, channels) = self.namespaces.iter().find(|(name, _)| name == namespace)?;
            let body = classic::encode_answer(answer);
            return Some(Outgoing { is_sharded: false, channel: channels.answers.clone(), body });
        }
        let channel = sharded::channel_of(&self.prefix, namespace, asker);
        Some(Outgoing {
            is_sharded: true,
            channel,
            body: sharded::encode_answer(&self.uid, namespace, answer)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn family(kind: Kind) -> Family {
        let namespaces = ["/".to_owned(), "/x".to_owned()];
        Family::new(kind, "socket.io", "fanfare-1", &namespaces, Some("socketio".to_owned()))
    }

    #[test]
    fn rooms_are_told_from_channels() {
        let classic = family(Kind::Classic);
        let origin = |way, channel| {
            classic.origin(way, channel).map(|origin| (origin.namespace, origin.room.map(str::to_owned)))
        };
        assert_eq!(origin(Way::Pattern, "socket.io#/#"), Some((Some(0), None)));
        assert_eq!(origin(Way::Pattern, "socket.io#/x#a#b#"), Some((Some(1), Some("a#b".into()))));
        assert_eq!(origin(Way::Plain, "socket.io-request#/x#"), Some((Some(1), None)));
        assert_eq!(origin(Way::Plain, "socket.io-response#/#fanfare-1#"), Some((Some(0), None)));
        assert_eq!(origin(Way::Plain, "socketio"), Some((None, None)));
        assert_eq!(origin(Way::Pattern, "socket.io#/y#"), None);
        let sharded = family(Kind::Sharded);
        let origin = |channel| {
            sharded
                .origin(Way::Shard, channel)
                .map(|origin| (origin.namespace, origin.room.map(str::to_owned)))
        };
        assert_eq!(origin("socket.io#/#blue#"), Some((Some(0), Some("blue".into()))));
        assert_eq!(origin("socket.io#/#fanfare-1#"), Some((Some(0), None)));
    }

    #[test]
    fn a_broadcast_to_one_room_goes_where_its_members_listen() {
        let letter = |room: &str| Letter {
            uid: Some("fanfare-1".into()),
            namespace: "/".into(),
            ask: Ask::Broadcast {
                args: vec![crate::Data::text("e")],
                opts: crate::Opts::to(&[room]),
                request: None,
            },
        };
        let channel = |kind, room: &str| family(kind).encode_ask(&letter(room)).map(|out| out.channel);
        assert_eq!(channel(Kind::Classic, "r").as_deref(), Some("socket.io#/#r#"));
        assert_eq!(channel(Kind::Sharded, "r").as_deref(), Some("socket.io#/#r#"));
        assert_eq!(channel(Kind::Sharded, &"r".repeat(20)).as_deref(), Some("socket.io#/#"));
        assert_eq!(channel(Kind::ShardedStatic, "r").as_deref(), Some("socket.io#/#"));
    }
}
