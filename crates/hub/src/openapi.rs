//! Owns the OpenAPI document, made from the table of routes. Does not know the routes' handlers.

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::rest;
use crate::routes::{Code, Door, ROUTES, Route};

/// The document, of OpenAPI 3.1. An alias is there as a path of its own, marked as such.
#[must_use]
pub fn document() -> Value {
    let mut settings = SchemaSettings::draft2020_12();
    settings.definitions_path = "/components/schemas".into();
    let mut generator = settings.into_generator();
    let error = generator.subschema_for::<rest::ErrorAnswer>().to_value();
    let mut paths = Map::new();
    for route in ROUTES {
        for path in route.paths() {
            let operation = operation(route, path, &mut generator, &error);
            let item = paths.entry(path).or_insert_with(|| json!({}));
            item[route.method.as_str()] = operation;
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Fanfare over HTTP",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "What publishers and operators use. Every refusal is `{error: {code, message}}`, with \
                `retry_after` in seconds where the same request may succeed later.",
            "license": { "name": "MIT OR Apache-2.0" },
        },
        "servers": [{ "url": "http://localhost:8000" }],
        "paths": paths,
        "components": {
            "schemas": generator.take_definitions(true),
            "securitySchemes": {
                "bearer": { "type": "http", "scheme": "bearer", "description": "An API key, or an admin's token." },
                "key": { "type": "apiKey", "in": "header", "name": "X-API-Key" },
                "github": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "X-Hub-Signature-256",
                    "description": "`sha256=` and the HMAC-SHA256 of the body under the webhook's secret, in hexadecimal.",
                },
            },
        },
    })
}

fn operation(route: &Route, path: &str, generator: &mut schemars::SchemaGenerator, error: &Value) -> Value {
    let mut about = match route.door {
        Door::Open => String::new(),
        Door::Key(scope) => {
            format!("Needs the scope `{}` where authentication is configured. ", scope.as_str())
        }
        Door::Signed => "The body must be signed. ".to_owned(),
    };
    if route.is_dev {
        about.push_str("There in development only. ");
    }
    if path != route.path {
        about.push_str(&format!("The same as `{}`. ", route.path));
    }
    let mut operation = json!({
        "operationId": operation_id(route, path),
        "tags": [route.tag],
        "summary": route.about,
        "responses": responses(route, generator, error),
    });
    if !about.is_empty() {
        operation["description"] = json!(about.trim_end());
    }
    let parameters = parameters(route, path);
    if !parameters.is_empty() {
        operation["parameters"] = json!(parameters);
    }
    if let Some(request) = route.request {
        let one = (request.schema)(generator).to_value();
        let mut content = Map::new();
        for media in request.media {
            let schema = if request.is_list && *media == "application/json" {
                json!({ "anyOf": [{ "type": "array", "items": one, "minItems": 1 }, one] })
            } else {
                one.clone()
            };
            content.insert((*media).to_owned(), json!({ "schema": schema }));
        }
        operation["requestBody"] = json!({ "required": true, "content": content });
    }
    match route.door {
        Door::Open => operation["security"] = json!([]),
        Door::Key(_) => operation["security"] = json!([{ "bearer": [] }, { "key": [] }]),
        Door::Signed => operation["security"] = json!([{ "github": [] }]),
    }
    operation
}

/// The method and the words of the path: unique, because method and path are.
fn operation_id(route: &Route, path: &str) -> String {
    let words = path.split(['/', '.', '-']).filter(|word| !word.is_empty());
    words.fold(route.method.as_str().to_owned(), |id, word| format!("{id}_{}", word.trim_matches(['{', '}'])))
}

fn parameters(route: &Route, path: &str) -> Vec<Value> {
    let in_path = path
        .split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }));
    let in_query = route.query.iter().map(|parameter| {
        json!({
            "name": parameter.name,
            "in": "query",
            "description": parameter.about,
            "schema": { "type": parameter.kind },
        })
    });
    let key = route.takes_idempotency_key().then(|| {
        json!({
            "name": "Idempotency-Key",
            "in": "header",
            "description": "The same request again is known by this: it does nothing, and is answered as before.",
            "schema": { "type": "string", "minLength": 1, "maxLength": 200 },
        })
    });
    in_path.chain(in_query).chain(key).collect()
}

fn responses(route: &Route, generator: &mut schemars::SchemaGenerator, error: &Value) -> Value {
    let mut responses = Map::new();
    let schema = (route.answer.schema)(generator);
    responses.insert(
        route.answer.status.to_string(),
        json!({ "description": "Done.", "content": { route.answer.media: { "schema": schema } } }),
    );
    let codes = route.codes();
    for of_status in codes.chunk_by(|a, b| a.status == b.status) {
        let names: Vec<_> = of_status.iter().map(|code| format!("`{}`", code.code)).collect();
        let mut response = json!({
            "description": format!("{}.", names.join(", ")),
            "content": { "application/json": { "schema": error } },
        });
        if of_status.iter().any(|code: &&Code| code.may_retry) {
            let schema = json!({ "type": "integer", "description": "Seconds." });
            response["headers"] = json!({ "Retry-After": { "schema": schema } });
        }
        responses.insert(of_status[0].status.to_string(), response);
    }
    Value::Object(responses)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_route_and_alias_is_there_under_an_id_of_its_own() {
        let document = document();
        let mut ids = BTreeSet::new();
        for route in ROUTES {
            for path in route.paths() {
                let operation = &document["paths"][path][route.method.as_str()];
                assert_eq!(operation["summary"], json!(route.about), "{path}");
                assert!(ids.insert(operation["operationId"].to_string()), "{path}");
            }
        }
    }

    #[test]
    fn refusals_are_grouped_by_status() {
        let document = document();
        let responses = &document["paths"]["/api/v1/jobs/{id}/complete"]["post"]["responses"];
        assert_eq!(responses["409"]["description"], json!("`wrong_state`."));
        assert!(responses["503"]["headers"]["Retry-After"].is_object());
        assert!(responses["409"].get("headers").is_none());
        assert_eq!(
            responses["200"]["content"]["application/json"]["schema"]["$ref"],
            json!("#/components/schemas/Job")
        );
    }

    #[test]
    fn batches_are_arrays_or_lines() {
        let document = document();
        let content = &document["paths"]["/api/v1/events/batch"]["post"]["requestBody"]["content"];
        let one = json!({ "$ref": "#/components/schemas/Publication" });
        assert_eq!(content["application/x-ndjson"]["schema"], one);
        assert_eq!(content["application/json"]["schema"]["anyOf"][0]["items"], one);
    }
}
