//! Owns what publishers are told of their events. Does not know how they were published.

use hub::store::Placed;
use serde::ser::{SerializeMap, SerializeStruct};
use serde::{Serialize, Serializer};

use crate::dispatch::Committed;

/// What the publisher of one event is told: its id, and where it stands in the log of its first room that has one.
///
/// One that waits for its moment has the id by which it can be cancelled, and that moment.
pub(super) struct Published(pub(super) Committed);

impl Serialize for Published {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        Nth(&self.0, 0).serialize(to)
    }
}

/// What the publisher of a batch is told: `{events: [...]}`, in their order.
pub(super) struct PublishedBatch(pub(super) Vec<Committed>);

impl Serialize for PublishedBatch {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut batch = to.serialize_struct("Batch", 1)?;
        batch.serialize_field("events", &Events(&self.0))?;
        batch.end()
    }
}

struct Events<'a>(&'a [Committed]);

impl Serialize for Events<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.0.iter().flat_map(|committed| {
            // One that waits for its moment has no event yet.
            (0..committed.ids.len().max(1)).map(move |nth| Nth(committed, nth))
        }))
    }
}

/// An event of an operation.
struct Nth<'a>(&'a Committed, usize);

impl Serialize for Nth<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let Self(committed, nth) = *self;
        if !committed.answer.is_null() {
            return committed.answer.serialize(to);
        }
        let placed = committed.placed.get(nth).map_or(&[][..], Vec::as_slice);
        let mut event = to.serialize_map(None)?;
        event.serialize_entry("id", &committed.ids.get(nth))?;
        if let Some(position) = placed.iter().find_map(|placed| placed.position) {
            event.serialize_entry("epoch", &position.epoch)?;
            event.serialize_entry("seq", &position.seq)?;
        }
        if placed.len() > 1 {
            event.serialize_entry("rooms", &Rooms(placed))?;
        }
        event.end()
    }
}

/// Where an event of several rooms stands in each: `{}` where the room has no log.
struct Rooms<'a>(&'a [Placed]);

impl Serialize for Rooms<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct At {
            #[serde(skip_serializing_if = "Option::is_none")]
            epoch: Option<u64>,
            #[serde(skip_serializing_if = "Option::is_none")]
            seq: Option<u64>,
        }
        to.collect_map(self.0.iter().map(|Placed { room, position }| {
            let at = At { epoch: position.map(|at| at.epoch), seq: position.map(|at| at.seq) };
            (room.as_str(), at)
        }))
    }
}

#[cfg(test)]
mod tests {
    use hub::event::{EventId, Position};
    use hub::room::RoomName;
    use serde_json::{Value, json};

    use super::*;

    fn committed(ids: u128, placed: Vec<Vec<Placed>>) -> Committed {
        let ids = (1..=ids).map(EventId).collect();
        Committed { ids, placed, answer: Value::Null, is_repetition: false }
    }

    fn placed(room: &str, seq: Option<u64>) -> Placed {
        let position = seq.map(|seq| Position { epoch: 7, seq });
        Placed { room: RoomName::parse(room).unwrap(), position }
    }

    #[test]
    fn publishers_learn_where_their_event_stands() {
        let told = |committed| serde_json::to_value(Published(committed)).unwrap();
        let id = "00000000-0000-0000-0000-000000000001";
        assert_eq!(told(committed(1, vec![vec![]])), json!({ "id": id }));
        let one = vec![placed("a", Some(3))];
        assert_eq!(told(committed(1, vec![one])), json!({ "id": id, "epoch": 7, "seq": 3 }));
        let two = vec![placed("metrics", None), placed("a", Some(3))];
        let rooms = json!({ "metrics": {}, "a": { "epoch": 7, "seq": 3 } });
        assert_eq!(told(committed(1, vec![two])), json!({ "id": id, "epoch": 7, "seq": 3, "rooms": rooms }));
    }

    #[test]
    fn a_batch_is_told_in_its_order() {
        let later = Committed { answer: json!({ "id": "s" }), ..committed(0, vec![]) };
        let events = vec![vec![placed("a", Some(1))], vec![placed("a", Some(2))]];
        let batch = PublishedBatch(vec![committed(2, events), later]);
        let told = serde_json::to_value(batch).unwrap();
        let seqs: Vec<&Value> =
            told["events"].as_array().unwrap().iter().map(|event| &event["seq"]).collect();
        assert_eq!(seqs, [&json!(1), &json!(2), &Value::Null]);
        assert_eq!(told["events"][2], json!({ "id": "s" }));
    }
}
