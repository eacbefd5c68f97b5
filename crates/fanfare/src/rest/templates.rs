//! Owns the routes of templates, and how publications find theirs. Does not know how one is filled.

use std::collections::{BTreeMap, BTreeSet};

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use hub::record::State as _;
use hub::store::{Listing, RecordKind};
use hub::template::{self, NewTemplate, Template, TemplateLimits};
use serde_json::{Value, json};

use super::{App, listing};
use crate::codes::{Code, Fault};
use crate::dispatch::record_rule;

/// Templates that are kept. 1,000: they are written by people, and one answer lists them all.
const TEMPLATES_MAX: usize = 1_000;

/// The templates of these names, as far as they are there.
///
/// # Errors
/// The store cannot be read.
pub(super) async fn find_all(app: &App, names: BTreeSet<&str>) -> Result<BTreeMap<String, Template>, Fault> {
    if names.is_empty() {
        return Ok(BTreeMap::new());
    }
    // What makes no template's name is no template, and need not be looked for.
    let name_bytes_max = TemplateLimits::default().name_bytes_max;
    let keys = names.into_iter().filter(|name| name.len() <= name_bytes_max).map(Template::key_of).collect();
    let found = app.hub.dispatcher().store().look(keys, Vec::new()).await?;
    let read = |record: hub::store::Record| {
        let template = Template::from_record(&record.state).map_err(listing::damaged)?;
        Ok((record.key.id.into(), template))
    };
    found.records.into_iter().flatten().map(read).collect()
}

/// `PUT /api/v1/templates/{name}`
pub(super) async fn put(
    State(app): State<App>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let outcome = try_put(&app, name, &headers, body).await;
    app.answer(outcome)
}

async fn try_put(
    app: &App,
    name: String,
    headers: &HeaderMap,
    body: Body,
) -> Result<(StatusCode, Value), Fault> {
    let mut body: Value = app.read(body).await?;
    // As `GET` shows it, so that what was read can be changed and put back.
    if let Some(fields) = body.as_object_mut() {
        for shown in ["name", "placeholders", "created_at", "updated_at"] {
            fields.remove(shown);
        }
    }
    let new: NewTemplate = super::parse_value(body)?;
    crate::event::check_name(&new.event)?;
    if is_new(app, &name).await? && is_full(app).await? {
        let complaint = format!("there are {TEMPLATES_MAX} templates already; remove one first");
        return Err(Fault::new(Code::TooMany, complaint));
    }
    let key = Template::key_of(&name);
    let rule = record_rule::<Template, _, _>(
        move |present, now| template::put(present, now, &name, new.clone(), &TemplateLimits::default()),
        view,
    );
    let committed = app.change(headers, key, rule).await?;
    Ok((StatusCode::OK, committed.answer))
}

async fn is_new(app: &App, name: &str) -> Result<bool, Fault> {
    Ok(find_all(app, [name].into()).await?.is_empty())
}

async fn is_full(app: &App) -> Result<bool, Fault> {
    let listing = Listing { limit: TEMPLATES_MAX, ..Listing::default() };
    let store = app.hub.dispatcher().store();
    let records = store.list(RecordKind::Template, listing).await?;
    Ok(records.len() >= TEMPLATES_MAX)
}

/// `GET /api/v1/templates/{name}`
pub(super) async fn show(State(app): State<App>, Path(name): Path<String>) -> Response {
    let outcome = listing::find::<Template>(&app, &name).await;
    app.answer(outcome.map(|template| (StatusCode::OK, view(&template))))
}

/// `GET /api/v1/templates`
pub(super) async fn list(State(app): State<App>) -> Response {
    let listing = Listing { limit: TEMPLATES_MAX, ..Listing::default() };
    let outcome = listing::list::<Template>(&app, listing).await;
    app.answer(outcome.map(|(mut templates, _)| {
        templates.sort_by(|a, b| a.id().cmp(b.id()));
        let templates: Vec<Value> = templates.iter().map(view).collect();
        (StatusCode::OK, json!({ "templates": templates }))
    }))
}

/// `DELETE /api/v1/templates/{name}`
pub(super) async fn remove(State(app): State<App>, Path(name): Path<String>, headers: HeaderMap) -> Response {
    let rule = record_rule::<Template, _, _>(|present, _| template::remove(present), view);
    let outcome = app.change(&headers, Template::key_of(&name), rule).await;
    app.answer(outcome.map(|committed| (StatusCode::OK, committed.answer)))
}

fn view(template: &Template) -> Value {
    serde_json::to_value(template.view()).unwrap_or_default()
}
