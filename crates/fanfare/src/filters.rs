//! Owns the filters of subscriptions: which there are in each room, and in which room of the engine the watchers of each
//! are. Does not know sockets. Invariant: who watches a room through a filter is in the filter's room of the engine instead
//! of the room itself, so a filter is asked once for each event, however many watch through it.
//!
//! A filter stays for as long as the engine has somebody in its room, those included who are lost and may come back; then
//! it goes with the next [`Filters::sweep`]. One that is about to get its first watcher is given a minute.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use hub::event::Event;
use hub::filter::{Filter, FilterLimits};
use hub::room::RoomName;
use serde_json::Value;

use crate::codes::{Code, Fault};

/// Filters of all rooms together. 10,000: some kilobytes each at the most.
const FILTERS_MAX: usize = 10_000;

/// How long a filter stays without a watcher.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// What stands between a room's name and the number of a filter in the names of the engine's rooms. No room's name has
/// control characters.
const SEPARATOR: char = '\u{1f}';

/// The part of a room that a filter lets through.
#[derive(Debug, PartialEq)]
pub(crate) struct Channel {
    /// The engine's room.
    name: Box<str>,
    /// What was asked for, by which equal ones are known.
    asked: Value,
    filter: Filter,
}

impl Channel {
    /// The engine's room in which its watchers are.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether an event is for its watchers.
    pub(crate) fn lets_pass(&self, event: &Event) -> bool {
        self.filter.lets_pass(&data_of(event))
    }
}

/// What a filter looks at.
fn data_of(event: &Event) -> Value {
    // Data is JSON since it came in.
    serde_json::from_str(event.data.get()).unwrap_or_default()
}

/// The room that a room of the engine belongs to.
pub(crate) fn room_of(name: &str) -> &str {
    name.split(SEPARATOR).next().unwrap_or(name)
}

struct Entry {
    channel: Arc<Channel>,
    wanted_at: Instant,
}

#[derive(Default)]
struct Table {
    rooms: HashMap<RoomName, Vec<Entry>>,
    next: u64,
}

/// All filters.
pub(crate) struct Filters {
    table: RwLock<Table>,
    /// How many there are: where there are none nothing is locked.
    count: AtomicUsize,
    per_room_max: usize,
}

impl Filters {
    /// None yet; at most `per_room_max` in one room.
    pub(crate) fn new(per_room_max: usize) -> Self {
        Self { table: RwLock::default(), count: AtomicUsize::new(0), per_room_max }
    }

    /// The channel of a filter in a room; a new one if nobody has asked for it before.
    ///
    /// # Errors
    /// The peer's fault: [`Code::BadPayload`] for what is no filter, [`Code::TooMany`] for one beyond its bounds, or if
    /// there are too many different ones.
    pub(crate) fn open(&self, room: &RoomName, asked: &Value) -> Result<Arc<Channel>, Fault> {
        let filter = Filter::parse(asked, &FilterLimits::default())?;
        let now = Instant::now();
        let mut table = self.write();
        let Table { rooms, next } = &mut *table;
        if let Some(entry) = rooms
            .get_mut(room)
            .and_then(|entries| entries.iter_mut().find(|entry| entry.channel.asked == *asked))
        {
            entry.wanted_at = now;
            return Ok(entry.channel.clone());
        }
        let in_room = rooms.get(room).map_or(0, Vec::len);
        if in_room >= self.per_room_max {
            let complaint =
                format!("`{room}` is watched through {in_room} different filters, and no more may be");
            return Err(Fault::new(Code::TooMany, complaint));
        }
        if self.count.load(Ordering::Relaxed) >= FILTERS_MAX {
            let complaint = format!("there are {FILTERS_MAX} different filters, and no more may be");
            return Err(Fault::new(Code::TooMany, complaint));
        }
        *next += 1;
        let name = format!("{room}{SEPARATOR}{next}").into();
        let channel = Arc::new(Channel { name, asked: asked.clone(), filter });
        rooms.entry(room.clone()).or_default().push(Entry { channel: channel.clone(), wanted_at: now });
        self.count.fetch_add(1, Ordering::Relaxed);
        Ok(channel)
    }

    /// The channels of a room.
    pub(crate) fn of(&self, room: &RoomName) -> Vec<Arc<Channel>> {
        if self.count.load(Ordering::Relaxed) == 0 {
            return Vec::new();
        }
        let table = self.read();
        let entries = table.rooms.get(room).map_or(&[][..], Vec::as_slice);
        entries.iter().map(|entry| entry.channel.clone()).collect()
    }

    /// The engine's rooms in which the members of `rooms` are who want this event, room by room.
    pub(crate) fn reach<'a>(&self, event: &Event, rooms: &[&'a RoomName]) -> Vec<Vec<Cow<'a, str>>> {
        let mut data = None;
        let of_room = |room: &'a RoomName| {
            let channels = self.of(room).into_iter();
            let wanting = channels
                .filter(|channel| channel.filter.lets_pass(data.get_or_insert_with(|| data_of(event))));
            let names = wanting.map(|channel| Cow::Owned(channel.name.to_string()));
            std::iter::once(Cow::Borrowed(room.as_str())).chain(names).collect()
        };
        rooms.iter().copied().map(of_room).collect()
    }

    /// The engine's rooms in which the members of these rooms are.
    pub(crate) fn names_of<'a>(&self, rooms: &'a [RoomName]) -> Vec<Cow<'a, str>> {
        let mut names = Vec::with_capacity(rooms.len());
        for room in rooms {
            names.push(Cow::Borrowed(room.as_str()));
            names.extend(self.of(room).iter().map(|channel| Cow::Owned(channel.name.to_string())));
        }
        names
    }

    /// Forgets the filters that nobody watches through any more. `is_watched`: whether there may be somebody in a room of
    /// the engine.
    pub(crate) fn sweep(&self, is_watched: impl Fn(&str) -> bool) {
        if self.count.load(Ordering::Relaxed) == 0 {
            return;
        }
        let now = Instant::now();
        let mut table = self.write();
        table.rooms.retain(|_, entries| {
            entries.retain_mut(|entry| {
                if is_watched(&entry.channel.name) {
                    entry.wanted_at = now;
                }
                now.duration_since(entry.wanted_at) < IDLE_MAX
            });
            !entries.is_empty()
        });
        let count = table.rooms.values().map(Vec::len).sum();
        self.count.store(count, Ordering::Relaxed);
    }

    /// A panic of another thread has left nothing half done that matters: at worst a filter is counted that is not there.
    fn read(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use hub::event::{EventId, Shape};
    use hub::time::Timestamp;
    use serde_json::json;
    use serde_json::value::to_raw_value;

    use super::*;

    fn room(name: &str) -> RoomName {
        RoomName::parse(name).unwrap()
    }

    fn event(data: &Value) -> Event {
        let data = to_raw_value(data).unwrap().into();
        let (id, name) = (EventId(1), "e".into());
        Event { id, name, data, at: Timestamp(0), shape: Shape::Flat, expires_at: None }
    }

    #[test]
    fn equal_filters_share_a_channel_and_each_event_finds_its_watchers() {
        let filters = Filters::new(10);
        let (tasks, other) = (room("tasks"), room("other"));
        let failed = filters.open(&tasks, &json!({ "status": "error" })).unwrap();
        assert!(Arc::ptr_eq(&failed, &filters.open(&tasks, &json!({ "status": "error" })).unwrap()));
        let late = filters.open(&tasks, &json!("minutes > 5")).unwrap();
        let elsewhere = filters.open(&other, &json!({ "status": "error" })).unwrap();
        assert_ne!(failed.name(), elsewhere.name());
        assert_eq!((room_of(failed.name()), room_of("tasks")), ("tasks", "tasks"));
        let third = room("third");
        let rooms = [&tasks, &third];
        for (data, watchers) in [
            (json!({}), vec!["tasks"]),
            (json!({ "status": "error" }), vec!["tasks", failed.name()]),
            (json!({ "status": "error", "minutes": 6 }), vec!["tasks", failed.name(), late.name()]),
        ] {
            assert_eq!(filters.reach(&event(&data), &rooms), [watchers, vec!["third"]], "{data}");
        }
        assert_eq!(filters.names_of(&[other]), ["other", elsewhere.name()]);
        assert!(failed.lets_pass(&event(&json!({ "status": "error" }))));
    }

    #[test]
    fn filters_are_bounded_and_named_when_refused() {
        let filters = Filters::new(2);
        let tasks = room("tasks");
        for nth in 0..2 {
            filters.open(&tasks, &json!({ "n": nth })).unwrap();
        }
        assert_eq!(filters.open(&tasks, &json!({ "n": 2 })).unwrap_err().code, Code::TooMany);
        assert!(filters.open(&tasks, &json!({ "n": 1 })).is_ok(), "that one is there");
        assert!(filters.open(&room("other"), &json!({ "n": 2 })).is_ok());
        for nonsense in [json!(7), json!("a =="), json!({ "a": {} })] {
            assert_eq!(filters.open(&tasks, &nonsense).unwrap_err().code, Code::BadPayload, "{nonsense}");
        }
        filters.sweep(|_| false);
        assert_eq!(filters.of(&tasks).len(), 2, "they may be about to be watched through");
    }
}
