//! Owns short ways to write the commits that suites and tests give to stores. Does not know any store.

use std::sync::Arc;
use std::time::Duration;

use hub::event::{Audience, Event, EventId, Shape};
use hub::policy::{Delivery, Retention};
use hub::room::RoomName;
use hub::store::{Append, Change, Commit, IdempotencyKey, Placement, RecordKey, RecordKind, RecordState};
use hub::time::Timestamp;
use serde_json::value::RawValue;

/// When samples happen, unless they say otherwise: some day of 2023.
pub const NOW: Timestamp = Timestamp(1_700_000_000_000);

/// Keeps more than any sample has.
pub const AMPLE: Retention =
    Retention { events_max: 1_000_000, bytes_max: 1 << 40, age_max: Duration::from_secs(1_000_000_000) };

/// A room.
///
/// # Panics
/// If rooms may not be called so.
#[must_use]
pub fn room(name: &str) -> RoomName {
    RoomName::parse(name).expect("a sample's room has a good name")
}

/// An event of this name, with a JSON text as its data, published at [`NOW`].
///
/// # Panics
/// If the data is not JSON.
#[must_use]
pub fn event(name: &str, data: &str) -> Event {
    let data = RawValue::from_string(data.to_owned()).expect("a sample's data is JSON");
    // An id that tells samples apart, so that a mix-up shows.
    let id = name.bytes().chain(data.get().bytes()).fold(7_u128, |id, byte| {
        (id ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
    });
    let (name, data) = (name.into(), Arc::from(data));
    Event { id: EventId(id), name, data, at: NOW, shape: Shape::Wrapped, expires_at: None }
}

/// An event that a room keeps in its log, with ample retention.
#[must_use]
pub fn logged(room_name: &str, event: Event) -> Append {
    placed(event, &[(room_name, Delivery::Log)])
}

/// An event that a room keeps as the latest of its name and `key`.
#[must_use]
pub fn latest(room_name: &str, key: &str, event: Event) -> Append {
    Append { key: key.into(), ..placed(event, &[(room_name, Delivery::Latest)]) }
}

/// An event that goes to several rooms, with ample retention.
#[must_use]
pub fn placed(event: Event, rooms: &[(&str, Delivery)]) -> Append {
    let placements = rooms.iter().map(|(name, delivery)| Placement {
        room: room(name),
        delivery: *delivery,
        retention: AMPLE,
    });
    let placements = placements.collect();
    Append { event, audience: Audience::Rooms, placements, key: "".into(), route: None }
}

/// The same with another retention everywhere.
#[must_use]
pub fn retained(mut append: Append, retention: Retention) -> Append {
    for placement in &mut append.placements {
        placement.retention = retention;
    }
    append
}

/// A commit of events alone.
#[must_use]
pub fn events(appends: Vec<Append>) -> Commit {
    Commit { appends, ..Commit::default() }
}

/// The key of a job.
#[must_use]
pub fn job(id: &str) -> RecordKey {
    RecordKey { kind: RecordKind::Job, id: id.into() }
}

/// A record's state, made at [`NOW`], of no group and no status, not due.
#[must_use]
pub fn state(json: &str) -> RecordState {
    RecordState { json: json.into(), group: "".into(), status: "".into(), created_at: NOW, due_at: None }
}

/// A commit of one change.
#[must_use]
pub fn change(key: RecordKey, expected: Option<u64>, state: Option<RecordState>) -> Commit {
    Commit { changes: vec![Change { key, expected, state }], ..Commit::default() }
}

/// An idempotency key.
#[must_use]
pub fn key(scope: &str, key: &str) -> IdempotencyKey {
    IdempotencyKey { scope: scope.into(), key: key.into() }
}
