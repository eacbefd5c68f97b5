//! Owns the registry: every event and command that is known, whose it is, who sends it to whom, what its data must be.
//! Does not know what happens with them.
//!
//! A vocabulary declares its events in a table of its own; here is one line for each vocabulary. Names that no table
//! has are custom events: they are allowed, and nothing is known about their data.

use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::event::{Audience, Shape};
use crate::fault::{Fault, Refusal};
use crate::payload::Payload;
use crate::room::RoomName;
use crate::{commands, dashboard, gateway, jobs, runs, vocabulary, workspace};

/// The vocabularies, each with its table.
const VOCABULARIES: &[&[EventType]] = &[
    commands::EVENTS,
    dashboard::EVENTS,
    workspace::EVENTS,
    jobs::EVENTS,
    runs::EVENTS,
    vocabulary::EVENTS,
    gateway::EVENTS,
];

/// Who sends it to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Sockets to the server.
    Command,
    /// Publishers, or the server itself, to rooms.
    Event,
    /// Sockets or publishers to rooms: a command that is sent on as the event of the same name.
    Relay,
    /// The server to one socket.
    Notice,
}

/// What is known of one event or command.
#[derive(Clone, Copy, Debug)]
pub struct EventType {
    /// Its name on the wire.
    pub name: &'static str,
    /// Whose it is.
    pub vocabulary: &'static str,
    /// Who sends it to whom.
    pub direction: Direction,
    /// What travels.
    pub shape: Shape,
    /// Which namespaces hear of it, or may send it.
    pub audience: Audience,
    /// The rooms that it goes to if its publisher names none; what stands in braces is a field of the data.
    pub rooms: &'static [&'static str],
    about: &'static str,
    inspect: fn(&RawValue) -> Result<Inspected, Complaint>,
    schema: fn(&mut SchemaGenerator) -> Schema,
}

/// What is wrong with some data: where, and what.
type Complaint = serde_path_to_error::Error<serde_json::Error>;

/// What valid data says about where it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspected {
    /// The rooms that it goes to if its publisher names none. Empty for what goes to no room.
    ///
    /// The fault is the peer's and matters only if no rooms are named: the data does not say where it belongs.
    pub rooms: Result<Vec<RoomName>, Fault>,
    /// What "the newest of each" means where only the latest is kept, beside the event's name.
    pub key: Box<str>,
}

impl EventType {
    /// One whose data says where it goes.
    #[must_use]
    pub const fn of<T: Payload>(
        vocabulary: &'static str,
        direction: Direction,
        shape: Shape,
        audience: Audience,
        rooms: &'static [&'static str],
    ) -> Self {
        Self {
            name: T::NAME,
            vocabulary,
            direction,
            shape,
            audience,
            rooms,
            about: T::ABOUT,
            inspect: |data| {
                read::<T>(data).map(|payload| Inspected { rooms: payload.rooms(), key: payload.key() })
            },
            schema: |generator| generator.subschema_for::<T>(),
        }
    }

    /// One that the server's own rules make, and send where they decide.
    #[must_use]
    pub const fn plain<T: DeserializeOwned + JsonSchema>(
        name: &'static str,
        about: &'static str,
        vocabulary: &'static str,
        shape: Shape,
        audience: Audience,
        rooms: &'static [&'static str],
    ) -> Self {
        Self {
            name,
            vocabulary,
            direction: Direction::Event,
            shape,
            audience,
            rooms,
            about,
            inspect: |data| read::<T>(data).map(|_| Inspected { rooms: Err(no_rooms()), key: "".into() }),
            schema: |generator| generator.subschema_for::<T>(),
        }
    }

    /// What it says, in a sentence.
    #[must_use]
    pub fn about(&self) -> &'static str {
        self.about.trim()
    }

    /// Whether publishers may send it; the rest is for sockets or the server to say.
    #[must_use]
    pub fn is_publishable(&self) -> bool {
        match self.direction {
            Direction::Event | Direction::Relay => true,
            Direction::Command | Direction::Notice => false,
        }
    }

    /// The namespaces in which it is sent.
    #[must_use]
    pub fn namespaces(&self) -> &'static [&'static str] {
        match self.audience {
            Audience::Rooms => &["/", "/ws"],
            Audience::Root => &["/"],
            Audience::Ws => &["/ws"],
            Audience::Logs => &["/logs"],
            Audience::Admin => &["/admin"],
        }
    }

    /// The schema of its data; what it refers to is left with the generator.
    #[must_use]
    pub fn schema(&self, generator: &mut SchemaGenerator) -> Schema {
        (self.schema)(generator)
    }
}

fn no_rooms() -> Fault {
    Fault::new(Refusal::BadPayload, "this event does not say where it goes; name rooms")
}

fn read<T: DeserializeOwned>(data: &RawValue) -> Result<T, Complaint> {
    // serde_json's own bound of 128 levels keeps deeply nested data from exhausting the stack.
    let mut deserializer = serde_json::Deserializer::from_str(data.get());
    serde_path_to_error::deserialize(&mut deserializer)
}

/// Every event and command that is known.
pub fn events() -> impl Iterator<Item = &'static EventType> {
    VOCABULARIES.iter().copied().flatten()
}

/// The one of that name.
#[must_use]
pub fn find(name: &str) -> Option<&'static EventType> {
    events().find(|event| event.name == name)
}

/// Checks data, and says where it goes; `None` for custom events.
///
/// # Errors
/// The peer's fault: [`Refusal::BadPayload`], which names the field.
pub fn inspect(name: &str, data: &RawValue) -> Result<Option<Inspected>, Fault> {
    let Some(event) = find(name) else { return Ok(None) };
    match (event.inspect)(data) {
        Ok(inspected) => Ok(Some(inspected)),
        Err(complaint) => {
            let path = complaint.path().to_string();
            let place = if path == "." { name.to_owned() } else { format!("{name}: {path}") };
            Err(Fault::new(Refusal::BadPayload, format!("{place}: {}", complaint.inner())))
        }
    }
}

/// Checks data. Custom events may have any.
///
/// # Errors
/// The peer's fault: [`Refusal::BadPayload`], which names the field.
pub fn validate(name: &str, data: &RawValue) -> Result<(), Fault> {
    inspect(name, data).map(|_| ())
}

/// All schemas: `{$schema, envelope, events: {<name>: {…, data}}, $defs}`. Schemas are of JSON Schema 2020-12; those of
/// `data` refer to `$defs`.
#[must_use]
pub fn bundle() -> Value {
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    let mut described = Map::new();
    for event in events() {
        let data = event.schema(&mut generator);
        described.insert(event.name.to_owned(), describe(event, &data));
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Events and commands",
        "envelope": envelope(&json!(true), &json!({ "type": "string" })),
        "events": described,
        "$defs": generator.take_definitions(true),
    })
}

/// One schema with all that it refers to, by the event's name.
#[must_use]
pub fn schema_of(name: &str) -> Option<Value> {
    let event = find(name)?;
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    let data = event.schema(&mut generator);
    let mut described = describe(event, &data);
    described["$defs"] = Value::Object(generator.take_definitions(true));
    Some(described)
}

fn describe(event: &EventType, data: &Schema) -> Value {
    json!({
        "description": event.about(),
        "vocabulary": event.vocabulary,
        "direction": event.direction,
        "shape": event.shape,
        "namespaces": event.namespaces(),
        "rooms": event.rooms,
        "data": data,
    })
}

/// The schema of what travels for a wrapped event.
pub(crate) fn envelope(data: &Value, event: &Value) -> Value {
    json!({
        "type": "object",
        "description": "What travels for events of the shape `wrapped`.",
        "properties": {
            "event": event,
            "data": data,
            "room": { "type": "string", "description": "The room that it was sent to." },
            "timestamp": { "type": "string", "format": "date-time", "description": "When it was published." },
            "id": { "type": "string", "format": "uuid", "description": "The same in every copy." },
            "epoch": { "type": "integer", "description": "Which log of the room; missing where none is kept." },
            "seq": { "type": "integer", "description": "Which event of it." },
        },
        "required": ["event", "data", "room", "timestamp", "id"],
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_every_event_says_what_it_is() {
        let mut seen = BTreeSet::new();
        for event in events() {
            assert!(seen.insert(event.name), "{} is there twice", event.name);
            assert!(event.about().ends_with('.'), "{}", event.name);
            // Those of other audiences may have rooms beside.
            if event.audience == Audience::Rooms {
                assert_eq!(event.is_publishable(), !event.rooms.is_empty(), "{}", event.name);
            }
        }
    }

    #[test]
    fn custom_events_may_say_anything() {
        let data = RawValue::from_string("[1]".to_owned()).unwrap();
        assert_eq!(inspect("custom_event", &data), Ok(None));
        assert_eq!(schema_of("custom_event"), None);
    }

    #[test]
    fn every_reference_of_the_bundle_leads_somewhere() {
        let bundle = bundle();
        let mut references = BTreeSet::new();
        collect_references(&bundle, &mut references);
        assert!(references.len() > 30, "{references:?}");
        for reference in references {
            let pointer = reference.strip_prefix('#').expect("it stays in the document");
            assert!(bundle.pointer(pointer).is_some(), "{reference}");
        }
        assert!(bundle["events"]["pr.merged"]["data"]["$ref"].is_string());
    }

    #[test]
    fn required_fields_of_schemas_are_those_that_are_missed() {
        let schema = schema_of("workflow.progress").unwrap();
        let fields = &schema["$defs"]["WorkflowProgress"];
        assert_eq!(fields["required"], json!(["workflow_id", "progress"]));
        assert_eq!(fields["additionalProperties"], json!(true));
        assert_eq!(fields["properties"]["progress"]["maximum"], json!(100.0));
    }

    fn collect_references(value: &Value, into: &mut BTreeSet<String>) {
        match value {
            Value::Object(fields) => {
                if let Some(Value::String(reference)) = fields.get("$ref") {
                    into.insert(reference.clone());
                }
                fields.values().for_each(|value| collect_references(value, into));
            }
            Value::Array(values) => values.iter().for_each(|value| collect_references(value, into)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
}
