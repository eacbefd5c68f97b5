//! Owns the documents that describe the server to programs: schemas of events, AsyncAPI, OpenAPI.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;

use super::App;
use crate::codes::{Code, Fault};

/// `GET /api/v1/schemas`
pub(super) async fn bundle(State(app): State<App>) -> Response {
    app.answer(Ok((StatusCode::OK, hub::schema::bundle())))
}

/// `GET /api/v1/schemas/{event}`
pub(super) async fn one(State(app): State<App>, Path(event): Path<String>) -> Response {
    let unknown = || Fault::new(Code::NotFound, format!("no event or command is known as `{event}`"));
    app.answer(hub::schema::schema_of(&event).map(|schema| (StatusCode::OK, schema)).ok_or_else(unknown))
}

/// `GET /api/v1/asyncapi.json`
pub(super) async fn asyncapi(State(app): State<App>) -> Response {
    app.answer(Ok((StatusCode::OK, hub::asyncapi::document())))
}

/// `GET /api/v1/openapi.json`
pub(super) async fn openapi(State(app): State<App>) -> Response {
    app.answer(Ok((StatusCode::OK, hub::openapi::document())))
}
