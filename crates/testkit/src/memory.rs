//! Owns a store that keeps everything in memory, in the plainest way there is: what tests use where no disk is wanted,
//! and what other stores are compared with. Does not know time or files; nothing outlives it. Invariant: every method
//! holds the one lock from beginning to end, so each call is one step.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hub::event::Position;
use hub::policy::{Delivery, Retention};
use hub::room::RoomName;
use hub::store::{
    Answer, Append, Commit, Found, IdempotencyKey, Kept, Listing, Outcome, Page, Placed, Record, RecordKey,
    RecordKind, Repeated, Span, Store, StoreFault, StoreHealth, event_bytes,
};
use hub::time::Timestamp;

/// How long an idempotency key is known.
const KEY_AGE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// A store in memory.
#[derive(Debug, Default)]
pub struct MemoryStore {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    order: u64,
    epochs: u64,
    rooms: BTreeMap<RoomName, Room>,
    records: BTreeMap<RecordKey, Record>,
    keys: BTreeMap<IdempotencyKey, (Timestamp, Repeated)>,
    fault: Option<StoreFault>,
}

#[derive(Debug, Default)]
struct Room {
    /// 0 until the log is first written.
    epoch: u64,
    last_seq: u64,
    /// Order of the newest event that is no longer kept.
    pruned_order: u64,
    log: VecDeque<Kept>,
    /// With the key that the newest is kept for, in the order in which they came.
    latest: Vec<(Box<str>, Kept)>,
    /// Of whatever was last put here.
    age_max: Duration,
}

impl MemoryStore {
    /// An empty store. Its epochs are 1, 2 and so on.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// From now on every call fails like this, and does nothing; `None`: they work again.
    pub fn set_fault(&self, fault: Option<StoreFault>) {
        self.lock().fault = fault;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A test that failed while it held the lock has said so already.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer<'a, T: Send + 'a>(&self, with: impl FnOnce(&mut State) -> T) -> Answer<'a, T> {
        let mut state = self.lock();
        let answer = match &state.fault {
            Some(fault) => Err(fault.clone()),
            None => Ok(with(&mut state)),
        };
        Box::pin(std::future::ready(answer))
    }
}

impl Store for MemoryStore {
    fn look<'a>(&'a self, records: Vec<RecordKey>, keys: Vec<IdempotencyKey>) -> Answer<'a, Found> {
        self.answer(|state| Found {
            records: records.iter().map(|key| state.records.get(key).cloned()).collect(),
            repeated: keys.iter().map(|key| state.keys.get(key).map(|(_, first)| first.clone())).collect(),
        })
    }

    fn commit<'a>(&'a self, now: Timestamp, batch: Vec<Commit>) -> Answer<'a, Vec<Outcome>> {
        self.answer(|state| state.commit(now, batch))
    }

    fn read<'a>(&'a self, room: RoomName, span: Span) -> Answer<'a, Page> {
        self.answer(|state| state.read(&room, span))
    }

    fn read_latest<'a>(&'a self, room: RoomName) -> Answer<'a, Vec<Kept>> {
        self.answer(|state| {
            let latest = state.rooms.get(&room).map(|room| &room.latest[..]).unwrap_or_default();
            latest.iter().map(|(_, kept)| kept.clone()).collect()
        })
    }

    fn read_after_order<'a>(
        &'a self,
        rooms: Vec<RoomName>,
        order: u64,
        limit: usize,
    ) -> Answer<'a, Option<Vec<Kept>>> {
        self.answer(|state| state.read_after_order(&rooms, order, limit))
    }

    fn list<'a>(&'a self, kind: RecordKind, listing: Listing) -> Answer<'a, Vec<Record>> {
        self.answer(|state| state.list(kind, &listing))
    }

    fn due<'a>(&'a self, until: Timestamp, limit: usize) -> Answer<'a, Vec<Record>> {
        self.answer(|state| {
            let mut due: Vec<&Record> =
                state.records.values().filter(|record| is_due(record, until)).collect();
            due.sort_by_key(|record| (record.state.due_at, record.key.kind.as_str(), &record.key.id));
            due.into_iter().take(limit).cloned().collect()
        })
    }

    fn next_due(&self) -> Answer<'_, Option<Timestamp>> {
        self.answer(|state| state.records.values().filter_map(|record| record.state.due_at).min())
    }

    fn health(&self) -> Answer<'_, StoreHealth> {
        // Unlike the rest this works always: it is how one learns what is wrong.
        let state = self.lock();
        let complaint = state.fault.as_ref().map(ToString::to_string);
        Box::pin(std::future::ready(Ok(StoreHealth { complaint, bytes: None, order: state.order })))
    }
}

impl State {
    fn commit(&mut self, now: Timestamp, batch: Vec<Commit>) -> Vec<Outcome> {
        self.keys.retain(|_, (at, _)| now.since(*at) <= KEY_AGE_MAX);
        let mut touched = BTreeMap::new();
        let outcomes = batch.into_iter().map(|commit| self.apply(now, commit, &mut touched)).collect();
        for (name, retention) in touched {
            let room = self.rooms.get_mut(&name).expect("invariant: what was appended to is a room");
            room.age_max = retention.age_max;
            room.prune(|oldest, events, bytes| {
                events > retention.events_max
                    || bytes > retention.bytes_max
                    || now.since(oldest.event.at) > retention.age_max
            });
        }
        for room in self.rooms.values_mut() {
            let age_max = room.age_max;
            room.prune(|oldest, _, _| now.since(oldest.event.at) > age_max);
        }
        outcomes
    }

    fn apply(
        &mut self,
        now: Timestamp,
        commit: Commit,
        touched: &mut BTreeMap<RoomName, Retention>,
    ) -> Outcome {
        if let Some((_, first)) = commit.idempotency.as_ref().and_then(|key| self.keys.get(key)) {
            return Outcome::Repeated(first.clone());
        }
        let mut changed: BTreeMap<RecordKey, Option<Record>> = BTreeMap::new();
        for change in commit.changes {
            let before = match changed.get(&change.key) {
                Some(record) => record.as_ref(),
                None => self.records.get(&change.key),
            };
            let version = before.map(|record| record.version);
            if version != change.expected {
                return Outcome::Conflict;
            }
            let version = version.unwrap_or(0) + 1;
            let after = change.state.map(|state| Record { key: change.key.clone(), version, state });
            changed.insert(change.key, after);
        }
        for (key, record) in changed {
            match record {
                Some(record) => drop(self.records.insert(key, record)),
                None => drop(self.records.remove(&key)),
            }
        }
        let done: Vec<(u64, Vec<Placed>)> =
            commit.appends.iter().map(|append| self.append(append, touched)).collect();
        if let Some(key) = commit.idempotency {
            let placed = done.iter().map(|(_, placed)| placed.clone()).collect();
            self.keys.insert(key, (now, Repeated { answer: commit.answer, placed }));
        }
        Outcome::Done(done)
    }

    fn append(&mut self, append: &Append, touched: &mut BTreeMap<RoomName, Retention>) -> (u64, Vec<Placed>) {
        self.order += 1;
        let mut placed = Vec::new();
        for placement in &append.placements {
            let mut position = None;
            if placement.delivery != Delivery::Volatile {
                let room = self.rooms.entry(placement.room.clone()).or_default();
                touched.insert(placement.room.clone(), placement.retention);
                let mut kept = Kept {
                    room: placement.room.clone(),
                    position: None,
                    order: self.order,
                    event: append.event.clone(),
                    audience: append.audience,
                };
                if placement.delivery == Delivery::Log {
                    if room.epoch == 0 {
                        self.epochs += 1;
                        room.epoch = self.epochs;
                    }
                    room.last_seq += 1;
                    position = Some(Position { epoch: room.epoch, seq: room.last_seq });
                    kept.position = position;
                    room.log.push_back(kept);
                } else {
                    room.latest
                        .retain(|(key, held)| (key, &held.event.name) != (&append.key, &append.event.name));
                    room.latest.push((append.key.clone(), kept));
                }
            }
            placed.push(Placed { room: placement.room.clone(), position });
        }
        (self.order, placed)
    }

    fn read(&self, room: &RoomName, span: Span) -> Page {
        let nothing = Room::default();
        let room = self.rooms.get(room).unwrap_or(&nothing);
        let seq_of = |kept: &Kept| kept.position.map_or(0, |position| position.seq);
        let events: Vec<Kept> = match span {
            Span::After { seq, limit } => {
                room.log.iter().filter(|kept| seq_of(kept) > seq).take(limit).cloned().collect()
            }
            Span::Last { limit } => {
                room.log.iter().skip(room.log.len().saturating_sub(limit)).cloned().collect()
            }
        };
        Page {
            epoch: room.epoch,
            first_seq: room.last_seq + 1 - room.log.len() as u64,
            last_seq: room.last_seq,
            order: self.order,
            events,
        }
    }

    fn read_after_order(&self, rooms: &[RoomName], order: u64, limit: usize) -> Option<Vec<Kept>> {
        if order > self.order {
            return None;
        }
        let mut found = Vec::new();
        for (at, name) in rooms.iter().enumerate().filter(|(at, name)| !rooms[..*at].contains(name)) {
            let Some(room) = self.rooms.get(name) else { continue };
            if room.pruned_order > order {
                return None;
            }
            let kept = room.log.iter().chain(room.latest.iter().map(|(_, kept)| kept));
            found.extend(kept.filter(|kept| kept.order > order).map(|kept| (at, kept.clone())));
        }
        found.sort_by_key(|(at, kept)| (kept.order, *at));
        (found.len() <= limit).then(|| found.into_iter().map(|(_, kept)| kept).collect())
    }

    fn list(&self, kind: RecordKind, listing: &Listing) -> Vec<Record> {
        let place = |record: &Record| (record.state.created_at, record.key.id.clone());
        let mut found: Vec<&Record> = self
            .records
            .values()
            .filter(|record| record.key.kind == kind)
            .filter(|record| listing.group.as_ref().is_none_or(|group| *group == record.state.group))
            .filter(|record| listing.status.as_ref().is_none_or(|status| *status == record.state.status))
            .filter(|record| listing.created_since.is_none_or(|since| record.state.created_at >= since))
            .filter(|record| listing.after.as_ref().is_none_or(|after| place(record) < *after))
            .collect();
        found.sort_by_key(|record| std::cmp::Reverse(place(record)));
        found.into_iter().take(listing.limit).cloned().collect()
    }
}

impl Room {
    /// Drops the oldest for as long as `is_over` says so of it, given how many events there are and their bytes.
    fn prune(&mut self, is_over: impl Fn(&Kept, u64, u64) -> bool) {
        let mut bytes: u64 = self.log.iter().map(|kept| event_bytes(&kept.event)).sum();
        while let Some(oldest) = self.log.front().filter(|kept| is_over(kept, self.log.len() as u64, bytes)) {
            bytes -= event_bytes(&oldest.event);
            self.pruned_order = oldest.order;
            self.log.pop_front();
        }
        let mut bytes: u64 = self.latest.iter().map(|(_, kept)| event_bytes(&kept.event)).sum();
        while let Some((_, oldest)) =
            self.latest.first().filter(|(_, kept)| is_over(kept, self.latest.len() as u64, bytes))
        {
            bytes -= event_bytes(&oldest.event);
            self.latest.remove(0);
        }
    }
}

fn is_due(record: &Record, until: Timestamp) -> bool {
    record.state.due_at.is_some_and(|due| due <= until)
}
