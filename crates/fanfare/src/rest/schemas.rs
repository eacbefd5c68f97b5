//! Owns the documents that describe the server to programs: schemas of events, AsyncAPI, OpenAPI.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::App;

/// `GET /api/v1/schemas`
pub(super) async fn bundle(State(app): State<App>) -> Response {
    app.answer(Ok((StatusCode::OK, hub::schema::bundle())))
}

/// `GET /api/v1/asyncapi.json`
pub(super) async fn asyncapi(State(app): State<App>) -> Response {
    app.answer(Ok((StatusCode::OK, hub::asyncapi::document())))
}

/// `GET /api/v1/openapi.json`
pub(super) async fn openapi(State(app): State<App>) -> Response {
    app.answer(Ok((StatusCode::OK, hub::openapi::document())))
}
