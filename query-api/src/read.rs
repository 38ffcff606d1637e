//! What every read does the same way.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use event_schemas::CustomerId;
use http_conventions::{AtLeast, ConsistencyToken, Cursor, IfNoneMatch, Problem};
use identity::verifier::{Caller, Permission};
use projections::{After, ConsistencyPoint, DocId, Served, View, ViewError, ViewReader, WaitError};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// After how long a read that came too early is worth another try.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What the client has to see at least: `?at_least=` or the header `Omisys-At-Least`, which may not disagree.
pub(crate) fn point(
    query: Option<ConsistencyToken>,
    header: AtLeast,
) -> Result<Option<ConsistencyPoint>, Problem> {
    let token = match (query, header.0) {
        (Some(query), Some(header)) if query != header => {
            return Err(Problem::malformed(
                "at_least and Omisys-At-Least disagree: send one of them",
            ));
        }
        (query, header) => query.or(header),
    };
    Ok(token.map(
        |ConsistencyToken {
             stream,
             version,
             position,
         }| ConsistencyPoint {
            stream,
            version,
            position,
        },
    ))
}

/// The document `id`, as fresh as `point` asks; waits no longer than `wait`. A document that is there already has to
/// pass `may_see` before anything waits for it: whoever may not see it learns nothing, not even how fresh it is.
pub(crate) async fn document<V: View>(
    reader: &ViewReader<V>,
    id: &DocId,
    point: Option<&ConsistencyPoint>,
    wait: Duration,
    may_see: impl Fn(&V::Doc) -> bool,
) -> Result<Arc<Served<V::Doc>>, Problem> {
    let visible = |found: Option<Arc<Served<V::Doc>>>| {
        found
            .filter(|served| may_see(&served.doc))
            .ok_or_else(Problem::not_found)
    };
    let found = reader.get(id).await.map_err(view_problem)?;
    let Some(point) = point else { return visible(found) };
    if found.is_some() {
        visible(found)?;
    }
    visible(
        reader
            .get_at_least(id, point, Instant::now() + wait)
            .await
            .map_err(wait_problem)?,
    )
}

/// Waits until a list shows what `point` asks for.
pub(crate) async fn reach<V: View>(
    reader: &ViewReader<V>,
    point: Option<&ConsistencyPoint>,
    wait: Duration,
) -> Result<(), Problem> {
    match point {
        Some(point) => reader
            .reach(point, Instant::now() + wait)
            .await
            .map_err(wait_problem),
        None => Ok(()),
    }
}

/// The caller's own, or anybody's for those with `all`.
pub(crate) fn owned_or(caller: &Caller, all: Permission) -> impl Fn(CustomerId) -> bool + use<> {
    let (caller, sees_all) = (*caller, caller.may(all));
    move |owner| sees_all || caller.is(owner)
}

/// A document as an answer: 304 if the client has it already.
pub(crate) fn answer(etag: &str, json: impl FnOnce() -> Bytes, has: &IfNoneMatch, scope: Scope) -> Response {
    let mut headers = HeaderMap::with_capacity(3);
    if let Ok(tag) = HeaderValue::from_str(etag) {
        headers.insert(ETAG, tag);
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(scope.cache_control()));
    if has.matches(etag) {
        return (StatusCode::NOT_MODIFIED, headers).into_response();
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    (headers, Body::from(json())).into_response()
}

/// Who may be answered from the same copy.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Scope {
    Everybody,
    TheCaller,
}

impl Scope {
    /// Kept, but asked about each time: an entity tag costs less than a stale price.
    pub(crate) const fn cache_control(self) -> &'static str {
        match self {
            Self::Everybody => "public, no-cache",
            Self::TheCaller => "private, no-cache",
        }
    }
}

/// A list's cursor: which list, and where its last page ended.
#[derive(Serialize, Deserialize)]
struct Place {
    #[serde(rename = "l")]
    list: String,
    #[serde(flatten)]
    after: After,
}

/// The cursor after `after` of the list `list` (a name that covers how it is ordered).
pub(crate) fn cursor(list: &str, after: Option<After>) -> Option<Cursor> {
    after.and_then(|after| {
        Cursor::encode(&Place {
            list: list.to_owned(),
            after,
        })
    })
}

/// Where to go on; 400 when the cursor is another list's, or names no document of this one.
pub(crate) fn after<Id: std::str::FromStr>(
    list: &str,
    cursor: Option<&Cursor>,
) -> Result<Option<After>, Problem> {
    let Some(cursor) = cursor else { return Ok(None) };
    let place: Place = cursor.decode()?;
    if place.list != list || place.after.id.parse::<Id>().is_err() {
        return Err(Problem::malformed("the cursor is none that this list gave out"));
    }
    Ok(Some(place.after))
}

/// What the client is told when the read models cannot answer.
pub(crate) fn view_problem(error: ViewError) -> Problem {
    if error.retryable() {
        Problem::unavailable(error, RETRY_AFTER)
    } else {
        Problem::internal(error)
    }
}

fn wait_problem(error: WaitError) -> Problem {
    match error {
        WaitError::NotRead { aggregate_type, .. } => Problem::malformed(format!(
            "at_least names a {aggregate_type}, which has no part in what this route answers"
        )),
        WaitError::TimedOut { .. } => Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "not-yet-visible",
            "Not yet visible",
        )
        .detail("the read model has not come as far as at_least asks; try again")
        .retry_after(RETRY_AFTER),
        WaitError::View(error) => view_problem(error),
    }
}

/// What routes for callers may answer besides.
#[derive(utoipa::IntoResponses)]
#[expect(dead_code, reason = "documentation")]
pub(crate) enum Refusals {
    /// The request is malformed, or `at_least` names what this route does not read.
    #[response(status = 400, content_type = "application/problem+json")]
    Malformed(#[to_schema] Problem),
    /// No token, or a bad one.
    #[response(status = 401, content_type = "application/problem+json")]
    Unauthorized(#[to_schema] Problem),
    /// The read model is not available, or not as fresh as `at_least` asks (`Retry-After`).
    #[response(status = 503, content_type = "application/problem+json")]
    Unavailable(#[to_schema] Problem),
}
