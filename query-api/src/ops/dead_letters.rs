use axum::extract::{OriginalUri, State};
use axum::http::HeaderValue;
use axum::http::header::CACHE_CONTROL;
use axum::response::Response;
use event_bus::{ParkedScope, ScopeId};
use event_schemas::Timestamp;
use http_conventions::{Cursor, Limit, Page, Problem, Query};
use identity::verifier::{Caller, Permission};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::QueryApi;
use crate::read::{Refusals, view_problem};

/// Longer than any subscriber's name.
const SUBSCRIBER_CHARS_MAX: usize = 128;

/// Whose dead letters.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Params {
    /// Only those of this subscriber, such as `orders.g1`, `sagas` or `sagas.work`.
    #[param(max_length = 128)]
    subscriber: Option<String>,
    #[serde(default)]
    #[param(value_type = u16, minimum = 1, maximum = 100, default = 20)]
    limit: Limit,
    /// From `next_cursor` of the page before.
    #[param(value_type = Option<String>)]
    cursor: Option<Cursor>,
}

/// What waits for someone.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = DeadLetters)]
pub(crate) struct Parked {
    /// `<subscriber>:<scope>`; percent-encoded in paths.
    #[schema(example = "orders.g1:order/0197f3a0-5f0e-8c1e-9d52-0d5a4c8f1b7a")]
    id: String,
    /// Events that wait, the one that failed among them.
    letters: u64,
    first: First,
}

/// The letter that the others wait behind.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = DeadLetter)]
pub(crate) struct First {
    position: u64,
    #[schema(example = "order/0197f3a0-5f0e-8c1e-9d52-0d5a4c8f1b7a/3")]
    event_id: String,
    #[serde(rename = "type")]
    event_type: String,
    /// What went wrong; none once the one before it was dealt with.
    reason: Option<String>,
    /// How often it was tried.
    attempts: u32,
    #[schema(value_type = String, format = DateTime)]
    parked_at: Timestamp,
}

impl From<ParkedScope> for Parked {
    fn from(parked: ParkedScope) -> Self {
        let id = parked.id().to_string();
        let first = parked.first;
        Self {
            id,
            letters: parked.letters,
            first: First {
                position: first.position.0,
                event_id: first.event_id.to_string(),
                event_type: first.event_type,
                reason: first.reason,
                attempts: first.attempts,
                parked_at: first.parked_at,
            },
        }
    }
}

/// Events that a view or a policy could not handle, and what waits behind them. Needs `ops.read`.
#[utoipa::path(
    get, path = "/ops/dead-letters", tag = "ops", operation_id = "listDeadLetters", params(Params),
    responses(
        (status = 200, body = Page<Parked>, headers(("Link" = String, description = "The next page."))),
        (status = 403, description = "Without `ops.read`.", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
    security(("bearer" = [])),
    extensions(("x-omisys-access" = json!("ops.read"))),
)]
pub(crate) async fn list(
    caller: Caller,
    State(api): State<QueryApi>,
    OriginalUri(uri): OriginalUri,
    Query(params): Query<Params>,
) -> Result<Response, Problem> {
    caller.require(Permission::OpsRead)?;
    let too_long = |name: &String| name.chars().count() > SUBSCRIBER_CHARS_MAX;
    if params.subscriber.as_ref().is_some_and(too_long) {
        return Err(Problem::malformed("subscriber is at most 128 characters"));
    }
    let after: Option<String> = params.cursor.as_ref().map(Cursor::decode).transpose()?;
    let malformed = |_| Problem::malformed("the cursor is none that this list gave out");
    let after: Option<ScopeId> = after.map(|id| id.parse().map_err(malformed)).transpose()?;
    let found = api
        .healing
        .list(
            params.subscriber.as_deref(),
            after.as_ref(),
            params.limit.get() + 1,
        )
        .await
        .map_err(|error| view_problem(error.into()))?;
    let items: Vec<Parked> = found.into_iter().map(Parked::from).collect();
    let mut response = Page::cut(items, params.limit, |last| last.id.clone()).answer(&uri);
    let caching = HeaderValue::from_static("no-store");
    response.headers_mut().insert(CACHE_CONTROL, caching);
    Ok(response)
}
