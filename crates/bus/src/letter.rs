//! Owns what nodes tell each other that is no event, and how that is written as bytes. Does not know what it leads to.
//! Invariant: bytes from outside never panic.
//!
//! ```text
//! channel  {prefix}:node:<number>, one node's own; {prefix}:nodes, everybody's
//! letter   1 | kind: 1 | from: 2 | then by its kind:
//! 1 mark       nonce: 8 | number: 8
//! 2 question   number: 8 | body
//! 3 answer     number: 8 | body
//! 4 interest   channels: 4 | of each: length: 2 | name without the prefix
//! 5 came       registration
//! 6 gone       name of the process
//! ```
//!
//! Numbers are big-endian. A kind that is not known is refused as a format is: some later version sent it.

use bytes::{Buf, BufMut, Bytes};

use crate::channel::Channel;
use crate::node::{NodeId, NodeInfo};

/// Format of letters.
const FORMAT: u8 = 1;

const MARK: u8 = 1;
const QUESTION: u8 = 2;
const ANSWER: u8 = 3;
const INTEREST: u8 = 4;
const CAME: u8 = 5;
const GONE: u8 = 6;

/// Something that a node tells another, itself, or all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Letter {
    /// To oneself: everything before it has come. The nonce tells whoever had the number before from us.
    Mark { nonce: u64, number: u64 },
    /// Somebody wants to know.
    Question { number: u64, body: Bytes },
    /// What was asked under this number.
    Answer { number: u64, body: Bytes },
    /// Whoever writes listens to these from now on.
    Interest(Vec<Channel>),
    /// Whoever writes is there.
    Came(NodeInfo),
    /// The process of this name leaves.
    Gone(Box<str>),
}

impl Letter {
    /// As bytes. `prefix` is the deployment's.
    pub(crate) fn encode(&self, from: NodeId, prefix: &str) -> Vec<u8> {
        let mut out = vec![FORMAT];
        let mut head = |kind: u8| {
            out.put_u8(kind);
            out.put_u16(from.0);
        };
        match self {
            Letter::Mark { nonce, number } => {
                head(MARK);
                out.put_u64(*nonce);
                out.put_u64(*number);
            }
            Letter::Question { number, body } => {
                head(QUESTION);
                out.put_u64(*number);
                out.put_slice(body);
            }
            Letter::Answer { number, body } => {
                head(ANSWER);
                out.put_u64(*number);
                out.put_slice(body);
            }
            Letter::Interest(channels) => {
                head(INTEREST);
                out.put_u32(u32::try_from(channels.len()).expect("invariant: channels are told in parts"));
                for channel in channels {
                    let name = channel.name(prefix);
                    // Behind the prefix, its braces and its colon.
                    let rest = &name.as_bytes()[prefix.len() + 3..];
                    out.put_u16(u16::try_from(rest.len()).expect("invariant: names of rooms are short"));
                    out.put_slice(rest);
                }
            }
            Letter::Came(info) => {
                head(CAME);
                out.put_slice(&info.encode());
            }
            Letter::Gone(name) => {
                head(GONE);
                out.put_slice(name.as_bytes());
            }
        }
        out
    }

    /// Reads what [`Letter::encode`] wrote, and from whom it is.
    ///
    /// # Errors
    /// Why it makes no sense, as a sentence.
    pub(crate) fn decode(bytes: Vec<u8>) -> Result<(NodeId, Self), String> {
        let mut bytes = Bytes::from(bytes);
        let format = bytes.try_get_u8().map_err(short)?;
        if format != FORMAT {
            return Err(format!("a letter has the unknown format {format}"));
        }
        let kind = bytes.try_get_u8().map_err(short)?;
        let from = NodeId(bytes.try_get_u16().map_err(short)?);
        let mut number = || bytes.try_get_u64().map_err(short);
        let letter = match kind {
            MARK => Letter::Mark { nonce: number()?, number: number()? },
            QUESTION => Letter::Question { number: number()?, body: bytes },
            ANSWER => Letter::Answer { number: number()?, body: bytes },
            INTEREST => Letter::Interest(read_channels(bytes)?),
            CAME => {
                let info = NodeInfo::decode(from, &bytes);
                Letter::Came(info.ok_or("a registration makes no sense")?)
            }
            GONE => {
                let name = std::str::from_utf8(&bytes).map_err(|error| error.to_string())?;
                Letter::Gone(name.into())
            }
            other => return Err(format!("a letter is of the unknown kind {other}")),
        };
        Ok((from, letter))
    }
}

fn read_channels(mut bytes: Bytes) -> Result<Vec<Channel>, String> {
    let mut channels = Vec::new();
    // What is counted need not be there: nothing is reserved for it.
    for _ in 0..bytes.try_get_u32().map_err(short)? {
        let length = usize::from(bytes.try_get_u16().map_err(short)?);
        if length > bytes.len() {
            return Err(format!("a letter ends {} bytes early", length - bytes.len()));
        }
        let name = bytes.split_to(length);
        // One that a later version knows is nothing that we tell anybody.
        channels.extend(Channel::parse(&name));
    }
    Ok(channels)
}

fn short(_: bytes::TryGetError) -> String {
    "a letter ends early".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use hub::event::Audience;
    use hub::room::RoomName;
    use hub::time::Timestamp;

    fn letters() -> Vec<Letter> {
        let body = Bytes::from_static(b"\x00body");
        let room = |name: &str| Channel::Room(RoomName::parse(name).unwrap());
        let (name, version) = ("n".into(), "v".into());
        let info = NodeInfo { id: NodeId(513), name, version, reach: None, since: Timestamp(1) };
        vec![
            Letter::Mark { nonce: u64::MAX, number: 2 },
            Letter::Question { number: 3, body: body.clone() },
            Letter::Answer { number: 4, body },
            Letter::Interest(vec![room("tasks"), Channel::Everyone(Audience::Logs), room("é")]),
            Letter::Came(info),
            Letter::Gone("host-1".into()),
        ]
    }

    #[test]
    fn letters_are_read_as_they_were_written() {
        for letter in letters() {
            let bytes = letter.encode(NodeId(513), "p");
            assert_eq!(Letter::decode(bytes), Ok((NodeId(513), letter)));
        }
    }

    #[test]
    fn damage_is_noticed_and_never_panics() {
        let mut refused = 0;
        for letter in letters() {
            let bytes = letter.encode(NodeId(513), "p");
            for cut in 0..bytes.len() {
                refused += usize::from(Letter::decode(bytes[..cut].to_vec()).is_err());
            }
            for at in 0..bytes.len() {
                for with in 0..=255 {
                    let mut bytes = bytes.clone();
                    bytes[at] = with;
                    refused += usize::from(Letter::decode(bytes).is_err());
                }
            }
        }
        assert!(refused > 1_000, "{refused}");
        assert_eq!(Letter::decode(vec![2, 1]), Err("a letter has the unknown format 2".to_owned()));
        let unknown = Letter::decode(vec![1, 99, 0, 1]);
        assert_eq!(unknown, Err("a letter is of the unknown kind 99".to_owned()));
    }
}
