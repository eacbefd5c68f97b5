//! Owns the AsyncAPI document: what travels over Socket.IO, made from the registry. Does not know HTTP.

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::event::{Audience, Shape};
use crate::schema::{Direction, EventType, envelope, events};

/// The namespaces that have a vocabulary of their own: a channel's name, what it is, and whose it is.
const CHANNELS: [(&str, &str, &str, Audience); 3] = [
    ("rooms", "/", "Rooms and commands; the namespace `/ws` is the same.", Audience::Rooms),
    ("logs", "/logs", "Lines of logs as they come.", Audience::Logs),
    ("admin", "/admin", "Runs, for operators.", Audience::Admin),
];

/// The document, of AsyncAPI 3.0. It is the server's: it receives commands and sends events.
#[must_use]
pub fn document() -> Value {
    // The dialect that AsyncAPI takes without being told.
    let mut settings = SchemaSettings::draft07();
    settings.definitions_path = "/components/schemas".into();
    let mut generator = settings.into_generator();
    let mut messages = Map::new();
    for event in events() {
        let data = event.schema(&mut generator).to_value();
        let payload = match event.shape {
            Shape::Wrapped => envelope(&data, &json!({ "const": event.name })),
            Shape::Flat => data.clone(),
        };
        // Commands travel as they are, whatever the event of the same name looks like.
        if event.direction == Direction::Relay {
            messages.insert(command_message(event), message(event, &data));
        }
        messages.insert(event.name.to_owned(), message(event, &payload));
    }
    let mut channels = Map::new();
    let mut operations = Map::new();
    for (name, address, about, audience) in CHANNELS {
        let members: Vec<_> = events().filter(|event| event.audience == audience).collect();
        let received: Vec<_> =
            members.iter().filter(|event| is_received(event)).map(|event| received_message(event)).collect();
        let sent: Vec<_> =
            members.iter().filter(|event| is_sent(event)).map(|event| event.name.to_owned()).collect();
        let of_channel: Map<_, _> = received
            .iter()
            .chain(&sent)
            .map(|id| (id.clone(), json!({ "$ref": format!("#/components/messages/{id}") })))
            .collect();
        let channel = json!({ "address": address, "description": about, "messages": of_channel });
        channels.insert(name.to_owned(), channel);
        for (action, summary, ids) in
            [("receive", "Commands of sockets.", received), ("send", "What sockets are told.", sent)]
        {
            if ids.is_empty() {
                continue;
            }
            let references: Vec<_> =
                ids.iter().map(|id| json!({ "$ref": format!("#/channels/{name}/messages/{id}") })).collect();
            let operation = json!({
                "action": action,
                "channel": { "$ref": format!("#/channels/{name}") },
                "summary": summary,
                "messages": references,
            });
            operations.insert(format!("{name}_{action}"), operation);
        }
    }
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Fanfare over Socket.IO",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Events and commands of the server. A channel's address is a Socket.IO namespace, a \
                message's name the event's name, its payload the event's one argument. Custom events may go to any room; \
                they are wrapped.",
        },
        "servers": {
            "api": { "host": "localhost:8000", "pathname": "/socket.io/", "protocol": "ws" },
            "realtime": { "host": "localhost:7000", "pathname": "/socket.io/", "protocol": "ws" },
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": { "messages": messages, "schemas": generator.take_definitions(true) },
    })
}

fn is_received(event: &EventType) -> bool {
    matches!(event.direction, Direction::Command | Direction::Relay)
}

fn is_sent(event: &EventType) -> bool {
    matches!(event.direction, Direction::Event | Direction::Relay | Direction::Notice)
}

fn received_message(event: &EventType) -> String {
    match event.direction {
        Direction::Relay => command_message(event),
        Direction::Command | Direction::Event | Direction::Notice => event.name.to_owned(),
    }
}

fn command_message(event: &EventType) -> String {
    format!("{}_command", event.name)
}

fn message(event: &EventType, payload: &Value) -> Value {
    let mut message = json!({
        "name": event.name,
        "summary": event.about(),
        "tags": [{ "name": event.vocabulary }],
        "payload": payload,
    });
    if !event.rooms.is_empty() {
        message["description"] = json!(format!("Goes to {}.", event.rooms.join(", ")));
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_is_received_or_sent_in_its_channel() {
        let document = document();
        for event in events() {
            let (channel, ..) = CHANNELS.into_iter().find(|channel| channel.3 == event.audience).unwrap();
            for (is_there, action, id) in [
                (is_received(event), "receive", received_message(event)),
                (is_sent(event), "send", event.name.to_owned()),
            ] {
                let reference = json!({ "$ref": format!("#/channels/{channel}/messages/{id}") });
                let messages = document["operations"][format!("{channel}_{action}")]["messages"].as_array();
                let is_listed = messages.is_some_and(|messages| messages.contains(&reference));
                assert_eq!(is_listed, is_there, "{} {action}", event.name);
            }
        }
    }

    #[test]
    fn relayed_updates_are_flat_when_they_come_and_wrapped_when_they_go() {
        let document = document();
        let messages = &document["components"]["messages"];
        let reference = json!("#/components/schemas/TaskUpdate");
        assert_eq!(messages["task_update_command"]["payload"]["$ref"], reference);
        let payload = &messages["task_update"]["payload"];
        assert_eq!(payload["properties"]["data"]["$ref"], reference);
        assert_eq!(payload["properties"]["event"]["const"], json!("task_update"));
    }
}
