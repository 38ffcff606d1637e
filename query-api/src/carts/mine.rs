use axum::extract::State;
use axum::response::Response;
use event_schemas::CartId;
use http_conventions::{AtLeast, ConsistencyToken, IfNoneMatch, Problem, Query};
use identity::verifier::{Caller, Permission};
use projections::carts::CartView;
use serde::Deserialize;
use utoipa::IntoParams;

use crate::QueryApi;
use crate::read::{Refusals, Scope, answer, document, point};

/// How to read the cart.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Params {
    /// A consistency token of a receipt.
    #[param(value_type = Option<String>)]
    at_least: Option<ConsistencyToken>,
}

/// The caller's cart. It opens with its first item, and lives on through check-outs.
#[utoipa::path(
    get, path = "/v1/carts/mine", tag = "carts", operation_id = "getMyCart",
    params(Params, IfNoneMatch),
    responses(
        (status = 200, body = CartView, headers(("ETag" = String))),
        (status = 304, description = "Not changed."),
        (status = 403, description = "Without `cart.use`.", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "Nothing was ever put in.", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
    security(("bearer" = [])),
    extensions(("x-omisys-access" = json!("caller"))),
)]
pub(crate) async fn mine(
    caller: Caller,
    State(api): State<QueryApi>,
    Query(params): Query<Params>,
    at_least: AtLeast,
    has: IfNoneMatch,
) -> Result<Response, Problem> {
    caller.require(Permission::CartUse)?;
    let point = point(params.at_least, at_least)?;
    let id = CartId::for_owner(caller.customer_id()).into();
    let cart = document(api.views.carts(), &id, point.as_ref(), api.wait, |cart| {
        caller.is(cart.owner)
    })
    .await?;
    Ok(answer(&cart.etag(), || cart.json(), &has, Scope::TheCaller))
}
