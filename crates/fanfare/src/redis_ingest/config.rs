//! Owns what is taken from Redis, as the program uses it, made from the section `[redis_ingest]` once. Does not connect.

use std::time::Duration;

use hub::policy::Pattern as RoomPattern;
use store_redis::{Address, Connector};

use crate::config::{at_least, nonzero};
use crate::settings::RedisIngest;

/// Time in which a connection must be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A Redis, and what is taken from it.
#[derive(Clone, Debug)]
pub(crate) struct RedisIngestConfig {
    /// The way to it.
    pub(crate) connector: Connector,
    /// The stream, if one is read.
    pub(crate) stream: Option<StreamSource>,
    /// The channel, if one is listened to.
    pub(crate) channel: Option<ChannelSource>,
    /// Rooms that events may name.
    pub(crate) rooms: Vec<RoomPattern>,
}

/// Where the dead go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DeadLetter {
    /// The stream.
    pub(crate) stream: String,
    /// Its entries, about; the oldest go.
    pub(crate) entries_max: usize,
}

/// A stream that is read by a consumer group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StreamSource {
    /// Its name.
    pub(crate) stream: String,
    /// The group.
    pub(crate) group: String,
    /// Our name within it.
    pub(crate) consumer: String,
    /// Entries that are read at once.
    pub(crate) batch: usize,
    /// After what time entries of others are taken over.
    pub(crate) claim_after: Duration,
    /// Where the dead go.
    pub(crate) dead_letter: DeadLetter,
}

/// A channel, or a pattern of channels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ChannelSource {
    /// Its name.
    pub(crate) channel: String,
    /// Whether that is a pattern.
    pub(crate) is_pattern: bool,
    /// Messages that are kept at once.
    pub(crate) batch: usize,
    /// Whether only one server at a time takes what comes.
    pub(crate) takes_turns: bool,
    /// Where the dead go.
    pub(crate) dead_letter: DeadLetter,
}

impl RedisIngestConfig {
    /// Converts the section; `None` if it names nothing to take events from.
    ///
    /// # Errors
    /// Whoever wrote the settings is at fault.
    pub(crate) fn convert(raw: RedisIngest) -> Result<Option<Self>, String> {
        if raw.stream.is_empty() && raw.channel.is_empty() {
            return Ok(None);
        }
        if raw.url.is_empty() {
            return Err(
                "redis_ingest.stream or redis_ingest.channel is set, but redis_ingest.url is not".to_owned()
            );
        }
        let address =
            Address::parse(raw.url.expose()).map_err(|complaint| format!("redis_ingest.url: {complaint}"))?;
        let tls_root = match raw.ca_file.as_str() {
            "" => None,
            path => Some(
                std::fs::read(path)
                    .map_err(|error| format!("redis_ingest.ca_file: {path} cannot be read: {error}"))?,
            ),
        };
        let batch = at_least("redis_ingest.batch", raw.batch, 1)?;
        let entries_max = at_least("redis_ingest.dead_letter_max", raw.dead_letter_max, 1)?;
        let dead_letter = |of: &str| DeadLetter {
            stream: if raw.dead_letter.is_empty() { beside(of) } else { raw.dead_letter.clone() },
            entries_max,
        };
        let stream = if raw.stream.is_empty() {
            None
        } else {
            if raw.group.is_empty() {
                return Err("redis_ingest.group is empty: name the consumer group".to_owned());
            }
            if raw.dead_letter == raw.stream {
                return Err(
                    "redis_ingest.dead_letter is the stream itself: what cannot be kept would come back \
                            for ever"
                        .to_owned(),
                );
            }
            Some(StreamSource {
                dead_letter: dead_letter(&raw.stream),
                stream: raw.stream.clone(),
                group: raw.group,
                consumer: if raw.consumer.is_empty() { machine() } else { raw.consumer },
                batch,
                claim_after: nonzero("redis_ingest.claim_after", &raw.claim_after)?,
            })
        };
        let channel = (!raw.channel.is_empty()).then(|| ChannelSource {
            is_pattern: raw.channel.contains(['*', '?', '[']),
            dead_letter: dead_letter(&raw.channel),
            channel: raw.channel.clone(),
            batch,
            takes_turns: raw.take_turns,
        });
        let rooms = raw.rooms.into_iter().map(RoomPattern::new).collect();
        let connector = Connector::new(address, tls_root, CONNECT_TIMEOUT);
        Ok(Some(Self { connector, stream, channel, rooms }))
    }
}

/// A name beside a key that is in the same slot of a Cluster, so that one step may change both.
fn beside(key: &str) -> String {
    let has_tag = key.split_once('{').and_then(|(_, rest)| rest.split_once('}'));
    match has_tag.filter(|(tag, _)| !tag.is_empty()) {
        Some(_) => format!("{key}.dead"),
        None if key.contains(['{', '}']) => format!("{key}.dead"),
        None => format!("{{{key}}}.dead"),
    }
}

/// The machine's name.
fn machine() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if name.is_empty() { "fanfare".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use ::auth::secret::Secret;

    use super::*;

    fn raw(edit: impl FnOnce(&mut RedisIngest)) -> RedisIngest {
        let url = Secret::new("redis://:hunter2@h");
        let mut raw = RedisIngest { url, stream: "s".into(), ..RedisIngest::default() };
        edit(&mut raw);
        raw
    }

    #[test]
    fn a_name_is_enough_and_without_one_nothing_is_taken() {
        assert!(RedisIngestConfig::convert(raw(|raw| raw.stream.clear())).unwrap().is_none());
        let config = RedisIngestConfig::convert(raw(|_| ())).unwrap().unwrap();
        let stream = config.stream.as_ref().unwrap();
        assert_eq!((stream.group.as_str(), stream.batch), ("fanfare", 500));
        assert_eq!(stream.dead_letter.stream, "{s}.dead");
        assert!(!stream.consumer.is_empty() && config.channel.is_none());
        assert!(!format!("{config:?}").contains("hunter2"));
        let both = RedisIngestConfig::convert(raw(|raw| raw.channel = "events.*".into())).unwrap().unwrap();
        assert!(both.channel.unwrap().is_pattern);
    }

    #[test]
    fn the_dead_are_in_the_slot_of_the_living() {
        assert_eq!(beside("s"), "{s}.dead");
        assert_eq!(beside("{t}:s"), "{t}:s.dead");
        assert_eq!(beside("a{}b"), "a{}b.dead");
    }

    #[test]
    fn settings_that_make_no_sense_are_refused_by_their_names() {
        for (bad, complaint) in [
            (raw(|raw| raw.url = Secret::default()), "redis_ingest.url is not"),
            (raw(|raw| raw.url = Secret::new("http://:hunter2@h")), "redis_ingest.url: "),
            (raw(|raw| raw.ca_file = "/nowhere.pem".into()), "redis_ingest.ca_file: /nowhere.pem"),
            (raw(|raw| raw.batch = 0), "redis_ingest.batch"),
            (raw(|raw| raw.group.clear()), "redis_ingest.group is empty"),
            (raw(|raw| raw.dead_letter = "s".into()), "redis_ingest.dead_letter is the stream"),
            (raw(|raw| raw.claim_after = "soon".into()), "redis_ingest.claim_after is a duration"),
        ] {
            let told = RedisIngestConfig::convert(bad).unwrap_err();
            assert!(told.contains(complaint) && !told.contains("hunter2"), "{told}");
        }
    }
}
