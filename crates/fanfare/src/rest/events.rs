//! Owns publishing over HTTP: one event, or many as a JSON array or NDJSON.
//! Does not know what events mean. Invariant: of a batch with a bad event nothing is published.

use std::sync::atomic::Ordering;

use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::json;
use serde_json::value::RawValue;

use super::App;
use crate::codes::{Code, Fault};
use crate::event::Publication;

/// `POST /api/v1/events`
pub(super) async fn publish_one(State(app): State<App>, body: Body) -> Response {
    match try_publish_one(&app, body).await {
        Ok(id) => super::json(StatusCode::CREATED, &json!({ "id": id })),
        Err(fault) => app.refuse(fault),
    }
}

async fn try_publish_one(app: &App, body: Body) -> Result<String, Fault> {
    let body = app.body(body).await?;
    publish(app, &Publication::parse(&body, app.limits.rooms_per_event_max)?)
}

/// `POST /api/v1/events/batch`: answers the ids in the order of the events.
pub(super) async fn publish_batch(State(app): State<App>, body: Body) -> Response {
    match try_publish_batch(&app, body).await {
        Ok(ids) => {
            let events: Vec<_> = ids.into_iter().map(|id| json!({ "id": id })).collect();
            super::json(StatusCode::CREATED, &json!({ "events": events }))
        }
        Err(fault) => app.refuse(fault),
    }
}

async fn try_publish_batch(app: &App, body: Body) -> Result<Vec<String>, Fault> {
    let body = app.body(body).await?;
    let texts = split(&body, app.limits.batch_events_max)?;
    let mut publications = Vec::with_capacity(texts.len());
    for (nth, text) in texts.into_iter().enumerate() {
        let publication = Publication::parse(text, app.limits.rooms_per_event_max)
            .map_err(|fault| Fault::new(fault.code, format!("event {nth}: {}", fault.message)))?;
        publications.push(publication);
    }
    publications.iter().map(|publication| publish(app, publication)).collect()
}

/// The events of a batch, unread: the elements of an array, or the lines that are not blank.
fn split(body: &[u8], max: usize) -> Result<Vec<&[u8]>, Fault> {
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

fn publish(app: &App, publication: &Publication) -> Result<String, Fault> {
    let id = publication.publish(&app.server)?;
    app.tally.events_published.fetch_add(1, Ordering::Relaxed);
    Ok(id.to_string())
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
