//! Owns one call of `lua/commit.lua`: what is given to it, in the order in which it takes it, and what its answer means.
//! Does not know connections or queues. Invariant: [`Bounds`] keep a call short, because Redis does nothing else
//! meanwhile.
//!
//! Numbers and texts go separately: numbers as one msgpack list, texts as arguments of their own, which the script uses
//! without copying. Both are read from the front:
//!
//! ```text
//! numbers  now | turn | known order | rooms | of each: candidate epoch, has a log, has a latest | retentions |
//!          events, bytes and age of each | records | has a key | commits | for each: numbers that follow | texts that
//!          follow | changes | appends | has a key | for each change: has a state | for each append: bytes | at | has a
//!          latest | is published | placements | for each: room | delivery | retention
//! texts    names of the rooms | kind:id of the records | for each commit: if it has a key: its name, the answer | for
//!          each change: kind:id | expected version or nothing | the record if it has a state | for each append: the
//!          event | if it has a latest: by what name | if it is published: its envelope, see `bus.rs`
//! ```

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};

use hub::event::Position;
use hub::policy::{Delivery, Retention};
use hub::room::RoomName;
use hub::store::{Append, Change, Commit, Outcome, Placed, RecordKey, event_bytes};
use hub::time::Timestamp;

use crate::body;
use crate::bus;
use crate::fault::Failure;
use crate::msgpack::{self, Value};
use crate::record;

/// Work of one call at most; a commit that is larger by itself is a call by itself. Default: 512 events or records and
/// 1 MB, which take some 5 ms of the server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) steps_max: usize,
    pub(crate) bytes_max: usize,
}

impl Bounds {
    pub(crate) const DEFAULT: Bounds = Bounds { steps_max: 512, bytes_max: 1_000_000 };

    /// How many of these commits make the next call; at least one.
    pub(crate) fn take<'a>(self, commits: impl Iterator<Item = &'a Commit>) -> usize {
        let (mut steps, mut bytes) = (0, 0);
        let mut count = 0;
        for commit in commits {
            steps += 1 + commit.changes.len();
            // An event in two rooms is two steps, and so is one that two rooms are told of.
            steps += commit.appends.iter().map(rooms_of).sum::<usize>();
            bytes += bytes_of(commit);
            if count > 0 && (steps > self.steps_max || bytes > self.bytes_max) {
                break;
            }
            count += 1;
        }
        count
    }
}

fn bytes_of(commit: &Commit) -> usize {
    let texts = |append: &Append| append.event.data.get().len() * rooms_of(append);
    let states = |change: &Change| change.state.as_ref().map_or(0, |state| state.json.len());
    commit.appends.iter().map(texts).sum::<usize>() + commit.changes.iter().map(states).sum::<usize>()
}

/// In how many rooms an event makes work; at least one.
fn rooms_of(append: &Append) -> usize {
    let told = append.route.as_ref().map_or(0, |route| route.rooms.len());
    append.placements.len().max(told).max(1)
}

/// What is the same for a whole call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heading {
    /// When.
    pub(crate) now: Timestamp,
    /// Which call of this writer: one more with each.
    pub(crate) turn: u64,
    /// The newest order that this writer was ever told.
    pub(crate) known: u64,
    /// Whether events that have a route are published to those who listen.
    pub(crate) publishes: bool,
}

/// What the script is given.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    pub(crate) numbers: Vec<u8>,
    pub(crate) texts: Vec<Cow<'a, [u8]>>,
    rooms: HashMap<&'a RoomName, usize>,
}

/// What a call has come to.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) order: u64,
    pub(crate) outcomes: Vec<Outcome>,
}

/// What is gathered while commits are gone through.
struct Draft<'a> {
    numbers: Vec<f64>,
    texts: Vec<Cow<'a, [u8]>>,
    names: Vec<Use<'a>>,
    rooms: HashMap<&'a RoomName, usize>,
    retentions: Vec<Retention>,
    records: BTreeSet<&'a RecordKey>,
    has_key: bool,
    publishes: bool,
}

/// A room, and what a call puts into it.
struct Use<'a> {
    name: &'a RoomName,
    has_log: bool,
    has_latest: bool,
}

impl<'a> Call<'a> {
    /// Writes a call.
    pub(crate) fn encode(heading: Heading, commits: &[&'a Commit], random: &RandomState) -> Self {
        let mut draft = Draft {
            numbers: Vec::new(),
            texts: Vec::new(),
            names: Vec::new(),
            rooms: HashMap::new(),
            retentions: Vec::new(),
            records: BTreeSet::new(),
            has_key: false,
            publishes: heading.publishes,
        };
        for commit in commits {
            draft.commit(commit);
        }
        let Heading { now, turn, known, publishes: _ } = heading;
        let flag = |is: bool| f64::from(u8::from(is));
        let mut numbers = vec![now.0 as f64, turn as f64, known as f64];
        numbers.push(draft.names.len() as f64);
        for Use { has_log, has_latest, .. } in &draft.names {
            numbers.extend([epoch(random, now) as f64, flag(*has_log), flag(*has_latest)]);
        }
        numbers.push(draft.retentions.len() as f64);
        for Retention { events_max, bytes_max, age_max } in &draft.retentions {
            numbers.extend([*events_max as f64, *bytes_max as f64, age_max.as_millis() as f64]);
        }
        numbers.extend([draft.records.len() as f64, flag(draft.has_key), commits.len() as f64]);
        numbers.append(&mut draft.numbers);
        let names = draft.names.iter().map(|room| Cow::Borrowed(room.name.as_str().as_bytes()));
        let records = draft.records.iter().map(|key| Cow::Owned(record::name(key)));
        let texts = names.chain(records).chain(draft.texts).collect();
        Self { numbers: msgpack::encode_numbers(&numbers), texts, rooms: draft.rooms }
    }

    /// Reads the answer to a call of these commits.
    pub(crate) fn decode(&self, commits: &[&'a Commit], answer: &[u8]) -> Result<Answer, Failure> {
        let parts: [Value; 3] = msgpack::decode(answer)?.into_list()?.try_into().map_err(|_| short())?;
        let [order, epochs, outcomes] = parts;
        let epochs =
            epochs.into_list()?.into_iter().map(Value::into_number).collect::<Result<Vec<u64>, _>>()?;
        let mut told = outcomes.into_list()?.into_iter();
        let mut next = || told.next().ok_or_else(short);
        let mut outcomes = Vec::with_capacity(commits.len());
        for commit in commits {
            outcomes.push(match next()?.into_number()? {
                0 => {
                    let mut done = Vec::with_capacity(commit.appends.len());
                    for append in &commit.appends {
                        let order = next()?.into_number()?;
                        let placed = append.placements.iter().map(|placement| {
                            let room = placement.room.clone();
                            let position = match placement.delivery {
                                Delivery::Log => {
                                    let epoch = self.rooms.get(&room).and_then(|at| epochs.get(*at));
                                    let epoch = *epoch.ok_or_else(short)?;
                                    Some(Position { epoch, seq: next()?.into_number()? })
                                }
                                Delivery::Latest | Delivery::Volatile => None,
                            };
                            Ok(Placed { room, position })
                        });
                        done.push((order, placed.collect::<Result<_, Failure>>()?));
                    }
                    Outcome::Done(done)
                }
                1 => Outcome::Conflict,
                2 => Outcome::Repeated(body::decode_answer(&next()?.into_bytes()?)?),
                other => return Err(Failure::Damaged(format!("a commit has the outcome {other}"))),
            });
        }
        Ok(Answer { order: order.into_number()?, outcomes })
    }
}

impl<'a> Draft<'a> {
    fn commit(&mut self, commit: &'a Commit) {
        // How much follows is known when it has been written.
        let (lengths, texts) = (self.numbers.len(), self.texts.len());
        self.numbers.extend([0.0, 0.0]);
        let counts = [commit.changes.len(), commit.appends.len(), usize::from(commit.idempotency.is_some())];
        self.numbers.extend(counts.map(|count| count as f64));
        if let Some(key) = &commit.idempotency {
            self.has_key = true;
            self.texts.push(Cow::Owned(body::key_field(key)));
            self.texts.push(Cow::Borrowed(commit.answer.as_bytes()));
        }
        for change in &commit.changes {
            self.change(change);
        }
        for append in &commit.appends {
            self.append(append);
        }
        self.numbers[lengths] = (self.numbers.len() - lengths - 2) as f64;
        self.numbers[lengths + 1] = (self.texts.len() - texts) as f64;
    }

    fn change(&mut self, change: &'a Change) {
        let Change { key, expected, state } = change;
        self.records.insert(key);
        self.texts.push(Cow::Owned(record::name(key)));
        let expected_bytes = expected.map(|version| version.to_be_bytes().to_vec());
        self.texts.push(Cow::Owned(expected_bytes.unwrap_or_default()));
        self.numbers.push(f64::from(u8::from(state.is_some())));
        if let Some(state) = state {
            let version = expected.unwrap_or(0).saturating_add(1);
            self.texts.push(Cow::Owned(record::encode(version, state)));
        }
    }

    fn append(&mut self, append: &'a Append) {
        let kept: Vec<_> =
            append.placements.iter().filter(|placement| placement.delivery != Delivery::Volatile).collect();
        let has_latest = kept.iter().any(|placement| placement.delivery == Delivery::Latest);
        let route = append.route.as_ref().filter(|_| self.publishes);
        self.numbers.extend([
            event_bytes(&append.event) as f64,
            append.event.at.0 as f64,
            f64::from(u8::from(has_latest)),
            f64::from(u8::from(route.is_some())),
            kept.len() as f64,
        ]);
        self.texts.push(Cow::Owned(body::encode_event(&append.event, append.audience)));
        if has_latest {
            self.texts.push(Cow::Owned(body::latest_field(append)));
        }
        if let Some(route) = route {
            self.texts.push(Cow::Owned(bus::encode_envelope(route)));
        }
        for placement in kept {
            let room = *self.rooms.entry(&placement.room).or_insert_with(|| {
                self.names.push(Use { name: &placement.room, has_log: false, has_latest: false });
                self.names.len() - 1
            });
            let delivery = match placement.delivery {
                Delivery::Log => {
                    self.names[room].has_log = true;
                    0.0
                }
                Delivery::Latest | Delivery::Volatile => {
                    self.names[room].has_latest = true;
                    1.0
                }
            };
            let retention = self.retention(placement.retention);
            // Scripts count from 1.
            self.numbers.extend([(room + 1) as f64, delivery, (retention + 1) as f64]);
        }
    }

    fn retention(&mut self, retention: Retention) -> usize {
        // Of few sorts in practice; when they are many, one that was seen long ago may be there twice.
        let known = self.retentions.iter().rev().take(16).position(|known| *known == retention);
        if let Some(back) = known {
            return self.retentions.len() - 1 - back;
        }
        self.retentions.push(retention);
        self.retentions.len() - 1
    }
}

/// A number that no other log has, as far as chance and the clock allow. Below 2^53, because scripts and programs that
/// keep every number as a double read it. Never 0.
fn epoch(random: &RandomState, now: Timestamp) -> u64 {
    // A thousand rooms begun in one millisecond must differ no less: the hasher has a secret, and the counter moves.
    static BEGUN: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let count = BEGUN.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    (random.hash_one((now.0, count)) >> 11).max(1)
}

fn short() -> Failure {
    Failure::Damaged("an answer of the script ends early".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use hub::store::Route;
    use testkit::contract::sample::{
        NOW, change, event, events, job, key, latest, logged, placed, room, state,
    };

    fn heading() -> Heading {
        Heading { now: NOW, turn: 1, known: 0, publishes: true }
    }

    #[test]
    fn calls_are_bounded_by_steps_and_bytes() {
        let bounds = Bounds { steps_max: 6, bytes_max: 100 };
        let small = events(vec![logged("tasks", event("a", "1"))]);
        assert_eq!(bounds.take([&small; 9].into_iter()), 3);
        let large = events(vec![logged("tasks", event("a", &format!("\"{}\"", "x".repeat(60))))]);
        assert_eq!(bounds.take([&large, &small, &large].into_iter()), 2);
        let huge = events(vec![logged("tasks", event("a", "1")); 50]);
        assert_eq!(bounds.take([&huge, &small].into_iter()), 1, "a commit is never divided");
        assert_eq!(bounds.take(std::iter::empty()), 0);
    }

    #[test]
    fn what_is_written_counts_itself() {
        let mut both = change(job("1"), Some(4), Some(state("{}")));
        both.idempotency = Some(key("a", "b"));
        both.appends = vec![
            placed(event("a", "1"), &[("tasks", Delivery::Log), ("x", Delivery::Volatile)]),
            latest("metrics", "k", event("b", "2")),
        ];
        let mut told = logged("tasks", event("c", "3"));
        told.route = Some(Route { origin: 7, rooms: vec![room("tasks"), room("other")], except: vec![] });
        let last = events(vec![told]);
        let call = Call::encode(heading(), &[&both, &last], &RandomState::new());
        let numbers = msgpack::decode(&call.numbers).unwrap().into_list().unwrap();
        let mut numbers = numbers.into_iter().map(|number| number.into_number().unwrap());
        let head: Vec<u64> = numbers.by_ref().take(3).collect();
        assert_eq!(head, [NOW.0, 1, 0]);
        assert_eq!(numbers.next(), Some(2), "rooms that something is kept for");
        for uses in [[1, 0], [0, 1]] {
            let room: Vec<u64> = numbers.by_ref().take(3).collect();
            assert!((1..1 << 53).contains(&room[0]));
            assert_eq!(room[1..], uses);
        }
        assert_eq!(numbers.by_ref().nth(3), Some(1_000_000_000_000), "one retention, its age last");
        let rest: Vec<u64> = numbers.collect();
        // One record, a key and two commits; the first has 20 numbers and 8 texts.
        assert_eq!(rest[..8], [1, 1, 2, 20, 8, 1, 2, 1]);
        assert_eq!(rest[rest.len() - 13..], [11, 2, 0, 1, 0, 2, NOW.0, 0, 1, 1, 1, 0, 1]);
        assert_eq!(call.texts.len(), 2 + 1 + 8 + 2);
        assert_eq!((&*call.texts[0], &*call.texts[2]), (&b"tasks"[..], &b"job:1"[..]));
        assert_eq!(&*call.texts[6], 4_u64.to_be_bytes());
    }

    #[test]
    fn what_nobody_is_to_be_told_has_no_envelope() {
        let mut told = logged("tasks", event("c", "3"));
        let route = Route { origin: 7, rooms: vec![room("tasks"); 9], except: vec![] };
        let texts = |append: &Append, publishes| {
            let commit = events(vec![append.clone()]);
            Call::encode(Heading { publishes, ..heading() }, &[&commit], &RandomState::new()).texts.len()
        };
        assert_eq!((texts(&told, true), texts(&told, false)), (2, 2));
        told.route = Some(route);
        assert_eq!((texts(&told, true), texts(&told, false)), (3, 2));
        let bounds = Bounds { steps_max: 20, bytes_max: 1_000 };
        let commit = events(vec![told]);
        assert_eq!(bounds.take([&commit; 9].into_iter()), 2, "who is told counts as work");
    }

    #[test]
    fn answers_that_end_early_are_refused() {
        let commit = events(vec![logged("tasks", event("a", "1"))]);
        let call = Call::encode(heading(), &[&commit], &RandomState::new());
        // [9, [7], [0, 9, 3]]: done, with order 9, at seq 3 of epoch 7.
        let answer = [0x93, 9, 0x91, 7, 0x93, 0, 9, 3];
        let read = call.decode(&[&commit], &answer).unwrap();
        let position = Some(Position { epoch: 7, seq: 3 });
        assert_eq!(read.outcomes, [Outcome::Done(vec![(9, vec![Placed { room: room("tasks"), position }])])]);
        assert_eq!(read.order, 9);
        for bad in
            [&[0x93, 9, 0x91, 7, 0x92, 0, 9][..], &[0x93, 9, 0x90, 0x93, 0, 9, 3], &[0x92, 9, 0x90], &[0x90]]
        {
            assert!(call.decode(&[&commit], bad).is_err(), "{bad:?}");
        }
        assert!(call.decode(&[&commit], &[0x93, 9, 0x91, 7, 0x91, 5]).is_err(), "no outcome has number 5");
    }

    #[test]
    fn epochs_differ_and_fit_a_double() {
        let (one, other) = (RandomState::new(), RandomState::new());
        let epochs: std::collections::BTreeSet<u64> =
            (0..1_000).flat_map(|_| [epoch(&one, Timestamp(7)), epoch(&other, Timestamp(7))]).collect();
        assert_eq!(epochs.len(), 2_000);
        assert!(epochs.iter().all(|epoch| (1..1 << 53).contains(epoch)));
    }
}
