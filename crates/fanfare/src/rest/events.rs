//! Owns publishing over HTTP: one event, or many as a JSON array or NDJSON.
//! Does not know what events mean. Invariant: of a batch with a bad event nothing is published.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use hub::outgoing::Outgoing;
use hub::principal::Principal;
use hub::store::IdempotencyKey;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::App;
use crate::codes::{Code, Fault};
use crate::dispatch::{Committed, Underway, position_json};
use crate::event::Publication;

/// `POST /api/v1/events`
pub(super) async fn publish_one(
    State(app): State<App>,
    Extension(principal): Extension<Arc<Principal>>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let outcome = try_publish_one(&app, &principal, &headers, body).await;
    app.answer(outcome)
}

async fn try_publish_one(
    app: &App,
    principal: &Principal,
    headers: &HeaderMap,
    body: Body,
) -> Result<(StatusCode, Value), Fault> {
    let body = app.body(body).await?;
    let mut publication = Publication::parse(&body, app.limits.rooms_per_event_max)?;
    if let Some(key) = super::idempotency_header(headers)? {
        publication.idempotency_key.get_or_insert(key);
    }
    app.hub.limits.events(principal, 1)?;
    let committed = begin(app, publication)?.done().await?;
    // A repetition is told from what it repeats, but is as good.
    let status = if committed.is_repetition { StatusCode::OK } else { StatusCode::CREATED };
    Ok((status, published(&committed)))
}

/// `POST /api/v1/events/batch`: answers in the order of the events.
pub(super) async fn publish_batch(
    State(app): State<App>,
    Extension(principal): Extension<Arc<Principal>>,
    body: Body,
) -> Response {
    let outcome = try_publish_batch(&app, &principal, body).await;
    app.answer(outcome)
}

async fn try_publish_batch(
    app: &App,
    principal: &Principal,
    body: Body,
) -> Result<(StatusCode, Value), Fault> {
    let body = app.body(body).await?;
    let texts = split(&body, app.limits.batch_events_max)?;
    let mut publications = Vec::with_capacity(texts.len());
    for (nth, text) in texts.into_iter().enumerate() {
        let publication = Publication::parse(text, app.limits.rooms_per_event_max)
            .map_err(|fault| Fault::new(fault.code, format!("event {nth}: {}", fault.message)))?;
        publications.push(publication);
    }
    app.hub.limits.events(principal, publications.len())?;
    // All of them take their places before the first is waited for.
    let underway =
        publications.into_iter().map(|publication| begin(app, publication)).collect::<Result<Vec<_>, _>>()?;
    let mut events = Vec::with_capacity(underway.len());
    for one in underway {
        events.push(published(&one.done().await?));
    }
    Ok((StatusCode::CREATED, json!({ "events": events })))
}

/// The events of a batch, unread: the elements of an array, or the lines that are not blank.
pub(super) fn split(body: &[u8], max: usize) -> Result<Vec<&[u8]>, Fault> {
    let texts: Vec<&[u8]> = if body.trim_ascii_start().starts_with(b"[") {
        let elements: Vec<&RawValue> = serde_json::from_slice(body)
            .map_err(|error| Fault::new(Code::BadRequest, format!("not an array of events: {error}")))?;
        elements.into_iter().map(|element| element.get().as_bytes()).collect()
    } else {
        body.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty()).collect()
    };
    if texts.is_empty() {
        return Err(Fault::new(Code::BadRequest, "a batch must have an event"));
    }
    if texts.len() > max {
        let count = texts.len();
        return Err(Fault::new(
            Code::TooMany,
            format!("a batch of {count} exceeds rest.batch_events_max of {max}"),
        ));
    }
    Ok(texts)
}

/// Publishes one event, once for each idempotency key.
///
/// # Errors
/// As [`crate::dispatch::Dispatcher::publish`].
pub(super) async fn publish(
    app: &App,
    headers: &HeaderMap,
    outgoing: Outgoing,
) -> Result<(StatusCode, Value), Fault> {
    let idempotency_key = super::idempotency_header(headers)?;
    let committed = begin(app, Publication { outgoing, idempotency_key })?.done().await?;
    Ok((StatusCode::CREATED, published(&committed)))
}

fn begin(app: &App, publication: Publication) -> Result<Underway, Fault> {
    let Publication { outgoing, idempotency_key } = publication;
    let key = idempotency_key.map(|key| IdempotencyKey { scope: "events".into(), key: key.into() });
    let underway = app.hub.dispatcher().publish(key, vec![outgoing])?;
    app.tally.events_published.fetch_add(1, Ordering::Relaxed);
    Ok(underway)
}

/// What the publisher of one event is told: its id, and where it stands in the log of its first room that has one.
fn published(committed: &Committed) -> Value {
    let id = committed.ids.first().map(ToString::to_string);
    let placed = committed.placed.first().map_or(&[][..], Vec::as_slice);
    let mut answer = position_json(placed.iter().find_map(|placed| placed.position));
    answer["id"] = id.into();
    if placed.len() > 1 {
        let rooms = placed.iter().map(|placed| (placed.room.to_string(), position_json(placed.position)));
        answer["rooms"] = Value::Object(rooms.collect());
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn arrays_and_lines_are_split_alike() {
        let expected: Vec<&[u8]> = vec![b"{\"a\":1}", b"{}"];
        assert_eq!(split(b" [{\"a\":1}, {}]", 2).unwrap(), expected);
        assert_eq!(split(b"{\"a\":1}\r\n\n  {}\n", 2).unwrap(), expected);
        for bad in [&b""[..], b" \n", b"[]", b"[{}", b"{}\n{}\n{}"] {
            assert!(split(bad, 2).is_err(), "{bad:?}");
        }
    }
}
