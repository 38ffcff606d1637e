use axum::Json;
use axum::extract::State;
use axum::http::HeaderValue;
use axum::http::header::CACHE_CONTROL;
use axum::response::{IntoResponse as _, Response};
use http_conventions::Problem;
use identity::verifier::{Caller, Permission};
use serde::Serialize;
use utoipa::ToSchema;

use crate::QueryApi;
use crate::read::{Refusals, view_problem};

/// How far one view has come.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
struct Projection {
    view: &'static str,
    /// Which build of the view is read.
    generation: u32,
    /// Everything up to here in the log is in the view.
    position: u64,
    /// Events that are not in the view yet.
    lag: u64,
}

/// All views.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Projections {
    /// The log's last position.
    head: u64,
    projections: Vec<Projection>,
}

/// How far each view has come. Needs `ops.read`.
#[utoipa::path(
    get, path = "/ops/projections", tag = "ops", operation_id = "listProjections",
    responses(
        (status = 200, body = Projections),
        (status = 403, description = "Without `ops.read`.", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
    security(("bearer" = [])),
    extensions(("x-omisys-access" = json!("ops.read"))),
)]
pub(crate) async fn projections(caller: Caller, State(api): State<QueryApi>) -> Result<Response, Problem> {
    caller.require(Permission::OpsRead)?;
    let views = api.views.progress().await.map_err(view_problem)?;
    // Read after the views, so that no lag is negative.
    let head = api.head.borrow().0;
    let projections = views
        .into_iter()
        .map(|view| Projection {
            view: view.view,
            generation: view.generation,
            position: view.position.0,
            lag: head.saturating_sub(view.position.0),
        })
        .collect();
    let caching = HeaderValue::from_static("no-store");
    Ok((
        [(CACHE_CONTROL, caching)],
        Json(Projections { head, projections }),
    )
        .into_response())
}
