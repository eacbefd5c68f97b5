//! Owns how records are found and listed over HTTP, page by page. Does not know any kind of record.
//!
//! The cursor is opaque to peers: when the last record of a page was made, and its id.

use axum::extract::rejection::QueryRejection;
use axum::http::StatusCode;
use hub::record::State;
use hub::store::Listing;
use hub::time::Timestamp;
use serde_json::{Value, json};

use super::App;
use crate::codes::{Code, Fault};

/// Records of one page.
const LIMIT_MAX: usize = 1_000;
const LIMIT_DEFAULT: usize = 100;

/// Which page.
pub(super) struct Page {
    pub(super) after: Option<String>,
    pub(super) limit: Option<usize>,
    pub(super) since: Option<String>,
}

impl Page {
    pub(super) fn listing(self, group: Option<String>, status: Option<String>) -> Result<Listing, Fault> {
        let bad = |message: String| Fault::new(Code::BadRequest, message);
        let after = match &self.after {
            None => None,
            Some(cursor) => {
                let parsed = cursor.split_once('-').and_then(|(made, id)| Some((made.parse().ok()?, id)));
                let (made, id) =
                    parsed.ok_or_else(|| bad("`after` is what the page before gave as `next`".into()))?;
                Some((Timestamp(made), id.into()))
            }
        };
        let created_since = match &self.since {
            None => None,
            Some(text) => Some(
                Timestamp::parse(text).ok_or_else(|| bad("`since` is a moment in RFC 3339".to_owned()))?,
            ),
        };
        let limit = self.limit.unwrap_or(LIMIT_DEFAULT);
        if !(1..=LIMIT_MAX).contains(&limit) {
            return Err(bad(format!("`limit` is 1 to {LIMIT_MAX}, not {limit}")));
        }
        Ok(Listing {
            group: group.map(Into::into),
            status: status.map(Into::into),
            after,
            created_since,
            limit,
        })
    }
}

/// One record.
///
/// # Errors
/// [`Code::NotFound`], or the store cannot be read.
pub(super) async fn find<S: State>(app: &App, id: &str) -> Result<S, Fault> {
    let found = app.hub.dispatcher().store().look(vec![S::key_of(id)], Vec::new()).await?;
    let record = found.records.into_iter().next().flatten();
    let missing = || Fault::new(Code::NotFound, format!("there is no {} `{id}`", S::KIND.as_str()));
    let record = record.ok_or_else(missing)?;
    S::from_record(&record.state).map_err(damaged)
}

/// A page of records, and the cursor of the next one if there may be more.
///
/// # Errors
/// The store cannot be read.
pub(super) async fn list<S: State>(app: &App, listing: Listing) -> Result<(Vec<S>, Option<String>), Fault> {
    let limit = listing.limit;
    let records = app.hub.dispatcher().store().list(S::KIND, listing).await?;
    let next = records
        .last()
        .filter(|_| records.len() == limit)
        .map(|last| format!("{}-{}", last.state.created_at.0, last.key.id));
    let states = records.iter().map(|record| S::from_record(&record.state)).collect::<Result<_, _>>();
    Ok((states.map_err(damaged)?, next))
}

/// A page of records as peers get it: a list under `name`, and what to give as `after` for the next.
///
/// # Errors
/// The store cannot be read.
pub(super) async fn page<S: State>(
    app: &App,
    name: &str,
    listing: Listing,
    view: fn(&S) -> Value,
) -> Result<(StatusCode, Value), Fault> {
    let (states, next) = list::<S>(app, listing).await?;
    let states: Vec<Value> = states.iter().map(view).collect();
    Ok((StatusCode::OK, json!({ name: states, "next": next })))
}

/// A query that does not fit its route.
pub(super) fn bad_query(rejection: QueryRejection) -> Fault {
    Fault::new(Code::BadRequest, rejection.body_text())
}

/// A record that is not what its kind wrote.
pub(super) fn damaged(error: serde_json::Error) -> Fault {
    Fault::new(Code::Internal, format!("a record cannot be read: {error}"))
}
