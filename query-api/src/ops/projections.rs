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

/// One generation of a view: there may be some beside the one that is read.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
struct Generation {
    /// `<view>.g<N>`
    name: String,
    /// Of the view that folds it.
    version: u32,
    /// `requested`, `building` or `following`.
    stage: &'static str,
    /// Whether it is read.
    serving: bool,
    /// Everything up to here in the log is in it.
    position: u64,
    /// Where the log ended when building it began.
    target: u64,
    /// Who builds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    builder: Option<String>,
}

/// All views.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Projections)]
pub(crate) struct Standing {
    /// The log's last position.
    head: u64,
    projections: Vec<Projection>,
    generations: Vec<Generation>,
}

/// How far each view has come, and which generations of it there are. Needs `ops.read`.
#[utoipa::path(
    get, path = "/ops/projections", tag = "ops", operation_id = "listProjections",
    responses(
        (status = 200, body = Standing),
        (status = 403, description = "Without `ops.read`.", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
    security(("bearer" = [])),
    extensions(("x-omisys-access" = json!("ops.read"))),
)]
pub(crate) async fn projections(caller: Caller, State(api): State<QueryApi>) -> Result<Response, Problem> {
    caller.require(Permission::OpsRead)?;
    let views = api.views.progress().await.map_err(view_problem)?;
    let generations = api.views.generations().await.map_err(view_problem)?;
    // Read after the views, so that no lag is negative.
    let head = api.log.watch().borrow().0;
    let projections = views
        .into_iter()
        .map(|view| Projection {
            view: view.view,
            generation: view.generation,
            position: view.position.0,
            lag: head.saturating_sub(view.position.0),
        })
        .collect();
    let generations = generations.into_iter().map(|generation| Generation {
        name: generation.name,
        version: generation.version,
        stage: generation.stage,
        serving: generation.serving,
        position: generation.position.0,
        target: generation.target.0,
        builder: generation.builder,
    });
    let found = Standing {
        head,
        projections,
        generations: generations.collect(),
    };
    let caching = HeaderValue::from_static("no-store");
    Ok(([(CACHE_CONTROL, caching)], Json(found)).into_response())
}
