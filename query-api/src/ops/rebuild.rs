use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use http_conventions::{Path, Problem};
use identity::verifier::{Caller, Permission};
use projections::{RebuildError, VIEW_NAMES};
use serde::Serialize;
use utoipa::ToSchema;

use crate::QueryApi;
use crate::read::{Refusals, view_problem};

/// What will be built.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct RebuildRequested {
    view: String,
    /// The generation that will be read once it is built: follow it at `/ops/projections`.
    generation: u32,
}

/// Rebuild a view
///
/// Folds the view from the log again, beside what is read, and has the result read once it is as far and the same; a
/// difference stops that, and is for `omisys rebuild --diff` to show. Asking again while it is under way changes nothing.
/// Needs `ops.write`.
#[utoipa::path(
    post, path = "/ops/projections/{view}/rebuild", tag = "ops", operation_id = "rebuildProjection",
    params(("view" = String, Path, description = "The view's name.", example = "orders")),
    responses(
        (status = 202, description = "A projector will build it.", body = RebuildRequested),
        (status = 403, description = "Without `ops.write`.", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is no such view.", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
    security(("bearer" = [])),
    extensions(("x-omisys-access" = json!("ops.write"))),
)]
pub(crate) async fn rebuild(
    caller: Caller,
    State(api): State<QueryApi>,
    Path(view): Path<String>,
) -> Result<Response, Problem> {
    caller.require(Permission::OpsWrite)?;
    let generation = match api.views.request_rebuild(&view).await {
        Ok(generation) => generation,
        Err(RebuildError::UnknownView(_)) => {
            return Err(Problem::not_found().detail(format!("the views are {}", VIEW_NAMES.join(", "))));
        }
        Err(RebuildError::View(error)) => return Err(view_problem(error)),
        Err(error) => return Err(Problem::internal(error)),
    };
    let headers = [
        (header::LOCATION, HeaderValue::from_static("/ops/projections")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    Ok((
        StatusCode::ACCEPTED,
        headers,
        Json(RebuildRequested { view, generation }),
    )
        .into_response())
}
