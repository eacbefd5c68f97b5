//! Owns publishing over HTTP: one event, or many as a JSON array or NDJSON.
//! Does not know what events mean. Invariant: of a batch with a bad event nothing is published.

use std::collections::BTreeSet;
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
use hub::time::Timestamp;
use serde_json::value::RawValue;

use super::App;
use super::published::{Published, PublishedBatch};
use crate::codes::{Code, Fault};
use crate::dispatch::Underway;
use crate::event::{Draft, Publication};

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
) -> Result<(StatusCode, Published), Fault> {
    let body = app.body(body).await?;
    let draft = Draft::parse(&body, app.limits.rooms_per_event_max)?;
    app.hub.limits.events(principal, 1)?;
    publish_draft(app, headers, draft).await
}

/// Publishes what one request asks for.
///
/// # Errors
/// As [`Draft::complete`] and [`crate::dispatch::Dispatcher::publish`].
pub(super) async fn publish_draft(
    app: &App,
    headers: &HeaderMap,
    mut draft: Draft,
) -> Result<(StatusCode, Published), Fault> {
    if let Some(key) = super::idempotency_header(headers)? {
        draft.idempotency_key.get_or_insert(key);
    }
    let mut publications = complete(app, vec![draft]).await?;
    let Some(publication) = publications.pop() else {
        return Err(Fault::new(Code::Internal, "a publication was lost"));
    };
    let committed = begin(app, publication).await?.done().await?;
    // A repetition is told from what it repeats, but is as good.
    let status = if committed.is_repetition { StatusCode::OK } else { StatusCode::CREATED };
    Ok((status, Published(committed)))
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
) -> Result<(StatusCode, PublishedBatch), Fault> {
    let body = app.body(body).await?;
    let texts = split(&body, app.limits.batch_events_max)?;
    let mut drafts = Vec::with_capacity(texts.len());
    for (nth, text) in texts.into_iter().enumerate() {
        drafts.push(
            Draft::parse(text, app.limits.rooms_per_event_max).map_err(|fault| nth_fault(nth, &fault))?,
        );
    }
    app.hub.limits.events(principal, drafts.len())?;
    let publications = complete(app, drafts).await?;
    // All of them take their places before the first is waited for. Neighbours without a key or a moment of their own are
    // one operation: they are kept together, or refused together.
    let mut underway = Vec::new();
    let mut neighbours = Vec::new();
    for publication in publications {
        if publication.idempotency_key.is_none() && publication.deliver_at.is_none() {
            neighbours.push(publication.outgoing);
        } else {
            underway.extend(begin_together(app, &mut neighbours)?);
            underway.push(begin(app, publication).await?);
        }
    }
    underway.extend(begin_together(app, &mut neighbours)?);
    let mut published = Vec::with_capacity(underway.len());
    for one in underway {
        published.push(one.done().await?);
    }
    Ok((StatusCode::CREATED, PublishedBatch(published)))
}

/// Fills in the templates that drafts name, and checks what comes of it. One look at the store for all of them.
///
/// # Errors
/// [`Code::NotFound`] for a template that there is not, or as [`Draft::complete`]; of several drafts the one is named.
pub(crate) async fn complete(app: &App, drafts: Vec<Draft>) -> Result<Vec<Publication>, Fault> {
    let is_batch = drafts.len() > 1;
    let names: BTreeSet<&str> = drafts.iter().filter_map(|draft| draft.template.as_deref()).collect();
    let templates = super::templates::find_all(app, names).await?;
    let complete = |(nth, draft): (usize, Draft)| {
        let template = match &draft.template {
            None => None,
            Some(name) => match templates.get(name) {
                Some(template) => Some(template),
                None => return Err(Fault::new(Code::NotFound, format!("there is no template `{name}`"))),
            },
        };
        let completed = draft.complete(template);
        if is_batch { completed.map_err(|fault| nth_fault(nth, &fault)) } else { completed }
    };
    drafts.into_iter().enumerate().map(complete).collect()
}

fn nth_fault(nth: usize, fault: &Fault) -> Fault {
    Fault::new(fault.code, format!("event {nth}: {}", fault.message))
}

/// The events of a batch, unread: the elements of an array, or the lines that are not blank.
///
/// # Errors
/// [`Code::BadRequest`] for an array that is none or empty, [`Code::TooMany`].
pub(crate) fn split(body: &[u8], max: usize) -> Result<Vec<&[u8]>, Fault> {
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
    deliver_at: Option<Timestamp>,
) -> Result<(StatusCode, Published), Fault> {
    let idempotency_key = super::idempotency_header(headers)?;
    let publication = Publication { outgoing, deliver_at, idempotency_key };
    let committed = begin(app, publication).await?.done().await?;
    Ok((StatusCode::CREATED, Published(committed)))
}

async fn begin(app: &App, publication: Publication) -> Result<Underway, Fault> {
    let Publication { outgoing, deliver_at, idempotency_key } = publication;
    let key = idempotency_key.map(|key| IdempotencyKey { scope: "events".into(), key: key.into() });
    let underway = match deliver_at {
        None => app.hub.dispatcher().publish(key, vec![outgoing])?,
        Some(deliver_at) => super::schedules::begin(app, key, outgoing, deliver_at).await?,
    };
    app.tally.events_published.fetch_add(1, Ordering::Relaxed);
    Ok(underway)
}

/// Begins to publish what has gathered, as one operation; nothing if nothing has.
fn begin_together(app: &App, gathered: &mut Vec<Outgoing>) -> Result<Option<Underway>, Fault> {
    let events = std::mem::take(gathered);
    let count = events.len() as u64;
    if count == 0 {
        return Ok(None);
    }
    let underway = app.hub.dispatcher().publish(None, events)?;
    app.tally.events_published.fetch_add(count, Ordering::Relaxed);
    Ok(Some(underway))
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
