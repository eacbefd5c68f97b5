//! Owns the events that lost sockets may ask for, in the one order in which this shard delivered them.
//! Does not know sessions. Invariant: what was dropped, for want of room or for its age, is
//! a gap to whoever may not have read it, never skipped.
//!
//! The offset that a peer repeats names one event of this log. The order here is the order of delivery, so
//! "everything after it that was for this socket" is exact: no event that was ordered earlier elsewhere and
//! delivered later can be lost between two rooms.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use eio_proto::Sid;

use crate::emit::{BroadcastId, Order};
use crate::message::Message;
use crate::moment::Moment;
use crate::room::NamespaceIndex;
use crate::socket::{Resume, SocketKey};

/// A lost socket that is held for another shard.
pub(crate) struct Departure {
    pub(crate) socket: SocketKey,
    pub(crate) claimant: Claimant,
    pub(crate) resume: Resume,
    /// Position of the log when it was offered.
    pub(crate) offered: u64,
    /// It has left a room since: what the claimant knows of it is wrong, so it is not handed over.
    pub(crate) is_void: bool,
}

/// A socket-to-be that has its place in its rooms, and waits for what it missed elsewhere.
pub(crate) struct Arrival {
    /// The key under which it was asked for.
    pub(crate) asked: SocketKey,
    /// The key that it has: another one, if the peer had gone by the time of the offer.
    pub(crate) socket: SocketKey,
    /// The shard that has it.
    pub(crate) holder: u8,
    /// Position of the log after which events are for it; before, the holder had them. `None`: not settled yet.
    pub(crate) since: Option<u64>,
    /// What the holder gave, until that has settled, too.
    pub(crate) claimed: Option<Box<Claimed>>,
}

/// Whom a logged event was for.
pub(crate) enum Scope {
    Socket(SocketKey),
    /// Everyone in the namespace if `rooms` is empty, else the union of `rooms`; nobody of `except`.
    Rooms {
        namespace: NamespaceIndex,
        rooms: Box<[Box<str>]>,
        except: Box<[Box<str>]>,
    },
}

pub(crate) struct Entry {
    pub(crate) seq: u64,
    at: Moment,
    pub(crate) id: Option<BroadcastId>,
    pub(crate) scope: Scope,
    /// The application's number that its offset tells.
    pub(crate) number: u64,
    /// Whether that is its own, sent when it was the newest.
    pub(crate) is_numbered: bool,
    /// The message with its offset, as it was sent.
    pub(crate) message: Rc<Message>,
}

impl Entry {
    /// What an entry weighs beside its message: itself, its scope's boxes and the reference counts, roughly.
    const OVERHEAD: usize = 160;

    fn weight(&self) -> usize {
        self.message.weight() + Self::OVERHEAD
    }
}

/// The shard's log of recoverable events.
pub(crate) struct Log {
    entries: VecDeque<Entry>,
    next_seq: u64,
    bytes: usize,
    bytes_max: usize,
    /// Events are kept this long: a claim within time finds everything its socket may have missed. Should a loss be
    /// noticed later than heartbeats promise (the machine slept), the socket is not recovered.
    age_max: Duration,
    /// Events before this one were dropped, for want of room or for their age.
    dropped_before: u64,
    /// Tells this log's offsets from those of other shards and earlier processes.
    tag: u32,
    /// The highest of the application's numbers that this shard has been sent; 0 before the first.
    order: u64,
}

/// What an offset says to this log.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Offset {
    /// The event with this number.
    Ours(u64),
    /// Well formed, but of another log.
    Foreign,
    /// Not an offset at all.
    Malformed,
}

impl Log {
    pub(crate) fn new(bytes_max: usize, age_max: Duration, tag: u32) -> Self {
        // Numbers begin at 1, so that "after 0" means everything.
        Self {
            entries: VecDeque::new(),
            next_seq: 1,
            bytes: 0,
            bytes_max,
            age_max,
            dropped_before: 1,
            tag,
            order: 0,
        }
    }

    /// The number that the next event will get.
    pub(crate) fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// Events before this number are not kept any more.
    pub(crate) fn first_seq(&self) -> u64 {
        self.dropped_before
    }

    /// The highest of the application's numbers that this shard has been sent.
    pub(crate) fn order(&self) -> u64 {
        self.order
    }

    pub(crate) fn note_order(&mut self, number: u64) {
        self.order = self.order.max(number);
    }

    /// The number that the offset of an event with this order tells.
    pub(crate) fn number_of(&self, order: Order) -> u64 {
        match order {
            Order::None | Order::Live(_) => self.order,
            Order::Replay(number) => number,
        }
    }

    /// Leaves out a number: a position that no offset given so far names or lies beyond.
    pub(crate) fn skip(&mut self) -> u64 {
        self.next_seq += 1;
        self.next_seq - 1
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Writes the offset of event `seq` as it travels, with the application's number unless that is 0: opaque to
    /// peers, and never a number or JSON.
    pub(crate) fn write_offset(&self, seq: u64, number: u64, out: &mut String) {
        out.clear();
        write!(out, "{:x}-{seq:x}", self.tag).expect("invariant: writing to a string cannot fail");
        if number > 0 {
            write!(out, "-{number:x}").expect("invariant: writing to a string cannot fail");
        }
    }

    pub(crate) fn parse_offset(&self, offset: &str) -> Offset {
        match position_in(offset) {
            Some((tag, seq)) if tag == self.tag && seq < self.next_seq => Offset::Ours(seq),
            Some((tag, _)) if tag != self.tag => Offset::Foreign,
            Some(_) | None => Offset::Malformed,
        }
    }

    /// Adds the event that was given number [`Log::next_seq`].
    pub(crate) fn append(
        &mut self,
        now: Moment,
        id: Option<BroadcastId>,
        scope: Scope,
        order: Order,
        message: Rc<Message>,
    ) {
        let number = self.number_of(order);
        let is_numbered = matches!(order, Order::Live(_));
        let entry = Entry { seq: self.next_seq, at: now, id, scope, number, is_numbered, message };
        self.next_seq += 1;
        self.bytes += entry.weight();
        self.entries.push_back(entry);
        while self.bytes > self.bytes_max
            && let Some(oldest) = self.entries.pop_front()
        {
            self.bytes -= oldest.weight();
            self.dropped_before = oldest.seq + 1;
        }
        self.prune(now);
    }

    /// Drops what is too old for anybody to ask for.
    pub(crate) fn prune(&mut self, now: Moment) {
        while let Some(oldest) = self.entries.front()
            && now.since(oldest.at) > self.age_max
        {
            self.bytes -= oldest.weight();
            self.dropped_before = oldest.seq + 1;
            self.entries.pop_front();
        }
    }

    /// Whether every event after `seq` is still here.
    pub(crate) fn reaches(&self, seq: u64) -> bool {
        seq + 1 >= self.first_seq()
    }

    /// The position whose low half is `mark`: the newest, since the log never spans 2^31 events.
    pub(crate) fn position_of(&self, mark: u32) -> u64 {
        let newest = self.next_seq - 1;
        newest - u64::from((newest as u32).wrapping_sub(mark))
    }

    /// Events after `seq`, oldest first.
    pub(crate) fn after(&self, seq: u64) -> impl Iterator<Item = &Entry> {
        let first = self.entries.partition_point(|entry| entry.seq <= seq);
        self.entries.range(first..)
    }
}

/// Whether an offset is of the same log as `other`, and not after it.
pub(crate) fn is_up_to(offset: &str, other: &str) -> bool {
    match (position_in(offset), position_in(other)) {
        (Some((tag, seq)), Some((other_tag, other_seq))) => tag == other_tag && seq <= other_seq,
        (None, _) | (_, None) => false,
    }
}

/// The application's number that an offset of whatever log tells: what follows its second dash.
pub(crate) fn number_in(offset: &str) -> Option<u64> {
    let number = offset.splitn(3, '-').nth(2)?;
    u64::from_str_radix(number, 16).ok()
}

/// The tag of the log that an offset is of, and the position there.
fn position_in(offset: &str) -> Option<(u32, u64)> {
    let (tag, position) = offset.split_once('-')?;
    let (seq, number) = position.split_once('-').unwrap_or((position, "0"));
    u64::from_str_radix(number, 16).ok()?;
    Some((u32::from_str_radix(tag, 16).ok()?, u64::from_str_radix(seq, 16).ok()?))
}

/// What a recovered socket was given again, with offsets, oldest first: it may lose its link once more before it has
/// read them, and by then they may have left the log, or never have been in it.
#[derive(Default)]
pub(crate) struct Carried {
    /// Kept until a pong shows that the peer has read them. They weigh no more than an outbox.
    pub(crate) events: Vec<Given>,
    /// How many of them, from the first, the application gave back: each tells a number of its own.
    pub(crate) restored: usize,
    /// A ping has been queued behind them.
    pub(crate) is_pinged: bool,
    /// The shard where the socket was born keeps a note for its pid, to be released in the end.
    pub(crate) born_elsewhere: bool,
}

impl Carried {
    /// How many of the events a peer has that shows this offset, which is not of the log that sends now. It may be of the
    /// same log as they are. If it is of none that they know, because an earlier connection of the peer was restored later,
    /// its number tells what it has of those that the application gave back.
    pub(crate) fn seen_by(&self, offset: &str) -> usize {
        // A volatile event repeats the offset of another, which need not have been for this socket: what counts is the
        // position, not whether that event is among these.
        if let Some(index) = self.events.iter().rposition(|given| is_up_to(&given.offset, offset)) {
            return index + 1;
        }
        let Some(number) = number_in(offset) else { return 0 };
        let has = |given: &&Given| number_in(&given.offset).is_some_and(|it| it <= number);
        self.events.iter().take(self.restored).take_while(has).count()
    }
}

/// One thing that a socket was given again, or a place among them.
#[derive(Clone)]
pub(crate) struct Given {
    pub(crate) offset: Box<str>,
    /// `None` for a place: no event has this offset as its own, but whoever shows it, or a later one of the same log,
    /// was given everything before it. A volatile event may tell such an offset.
    pub(crate) message: Option<Rc<Message>>,
    /// Whether the number in its offset is its own.
    pub(crate) is_numbered: bool,
}

impl Given {
    /// An event of a log, which has this offset there.
    pub(crate) fn of(event: &Entry, offset: &str) -> Self {
        let (offset, message) = (offset.into(), Some(event.message.clone()));
        Self { offset, message, is_numbered: event.is_numbered }
    }

    /// Whether a peer that has everything up to this number has it.
    pub(crate) fn is_seen(&self, number: u64) -> bool {
        self.is_numbered && number_in(&self.offset).is_some_and(|own| own <= number)
    }
}

/// Adds the place at `offset` to what a socket was given, unless what stands last says as much already.
pub(crate) fn mark_place(events: &mut Vec<Given>, offset: &str) {
    let mut places = events.iter().rev().take_while(|given| given.message.is_none());
    if !places.any(|given| is_up_to(&given.offset, offset)) {
        events.push(Given { offset: offset.into(), message: None, is_numbered: false });
    }
}

/// Who claims a socket on behalf of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claimant {
    /// The shard that the peer has come to.
    pub shard: u8,
    /// The socket-to-be there.
    pub socket: SocketKey,
}

/// A lost socket that can be had: the claiming shard takes its place in its rooms before the holding one gives it up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Its public id, which it keeps.
    pub sid: Sid,
    /// Its secret, which it keeps.
    pub pid: Sid,
    /// The rooms it is in, its own apart.
    pub rooms: Vec<String>,
}

/// A lost socket, taken from the shard that lost it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimed {
    /// Its key there, for what the driver keeps beside it.
    pub socket: SocketKey,
    /// Its public id, which it keeps.
    pub sid: Sid,
    /// Its secret, which it keeps.
    pub pid: Sid,
    /// The rooms it was in, its own apart.
    pub rooms: Vec<String>,
    /// What it missed, oldest first.
    pub missed: Vec<Missed>,
    /// Broadcasts that the shard had while it held the socket for the claimant: whichever of them were for the socket
    /// are among `missed`.
    pub had: Vec<BroadcastId>,
    /// The highest of the application's numbers that the shard has been sent.
    pub order: u64,
}

/// A socket leaves its shard, or was not to be had after all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handover {
    /// Who gets it.
    pub claimant: Claimant,
    /// The namespace it is for.
    pub namespace: String,
    /// The socket; `None` to connect as new.
    pub claimed: Option<Box<Claimed>>,
}

/// One missed event on its way between shards, or a place among them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missed {
    /// Its offset.
    pub offset: String,
    /// `None` for a place: who shows its offset, or a later one of the same shard, has all that stands before it.
    pub event: Option<MissedEvent>,
    /// Whether the number in its offset is its own.
    pub is_numbered: bool,
}

/// A missed event as it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissedEvent {
    /// The Engine.IO packet: text, or for the msgpack parser binary.
    pub packet: Vec<u8>,
    /// Whether `packet` is binary.
    pub is_binary: bool,
    /// The attachments that follow it.
    pub attachments: Vec<Bytes>,
}

/// What a shard knows of a claimed pid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// No shard has it: the claimant says [`Shard::handle_unclaimed`](crate::Shard::handle_unclaimed).
    Unknown,
    /// It is here, but not to be had: the claimant says [`Shard::handle_claimed`](crate::Shard::handle_claimed) without
    /// it.
    Refused,
    /// Another shard knows more: ask that one. After half a dozen of these the note that leads there is stale: give up,
    /// as if it were refused.
    Moved {
        /// Index of the shard to ask.
        shard: u8,
    },
    /// It is held for the claimant, who says [`Shard::handle_offered`](crate::Shard::handle_offered).
    Offered(Offer),
    /// Here it is: it was lost by the shard that claims it. Say [`Shard::handle_claimed`](crate::Shard::handle_claimed) at
    /// once: what comes in between finds it nowhere.
    Taken(Box<Claimed>),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log() -> Log {
        Log::new(2_000, Duration::from_secs(10), 0xbeef)
    }

    fn append(log: &mut Log, millis: u64) {
        let scope = Scope::Rooms { namespace: 0, rooms: Box::new([]), except: Box::new([]) };
        log.append(Moment::from_millis(millis), None, scope, Order::None, Message::text(b"42[\"x\"]"));
    }

    #[test]
    fn offsets_are_recognised_as_ours_foreign_or_nonsense() {
        let mut log = log();
        append(&mut log, 0);
        let mut text = String::new();
        log.write_offset(1, 0, &mut text);
        assert_eq!(text, "beef-1");
        assert_eq!(log.parse_offset(&text), Offset::Ours(1));
        assert_eq!(log.parse_offset("beef-2"), Offset::Malformed, "an event that never was");
        assert_eq!(log.parse_offset("bee-1"), Offset::Foreign);
        log.write_offset(1, 300, &mut text);
        assert_eq!((text.as_str(), log.parse_offset(&text)), ("beef-1-12c", Offset::Ours(1)));
        assert!(is_up_to("beef-9", "beef-10-12c") && is_up_to("beef-9", "beef-9"));
        assert!(!is_up_to("beef-a", "beef-9") && !is_up_to("bee-1", "beef-9") && !is_up_to("", "beef-9"));
        for nonsense in
            ["", "-", "x", "1", "beef", "beef-", "beef-x", "beef-1-", "beef-1-1-1", "1795000000123-0-1"]
        {
            assert_eq!(log.parse_offset(nonsense), Offset::Malformed, "{nonsense}");
        }
    }

    #[test]
    fn what_is_dropped_leaves_a_gap() {
        let mut log = log();
        append(&mut log, 0);
        append(&mut log, 9_000);
        append(&mut log, 12_000);
        assert_eq!(log.after(0).map(|entry| entry.seq).collect::<Vec<_>>(), vec![2, 3]);
        assert!(!log.reaches(0) && log.reaches(1), "one event was dropped for its age");
        assert_eq!((log.position_of(0), log.position_of(3)), (0, 3));
        for _ in 0..20 {
            append(&mut log, 12_000);
        }
        assert!(log.bytes() <= 2_000);
        assert!(!log.reaches(3));
        assert!(log.reaches(log.next_seq() - 1));
    }
}
