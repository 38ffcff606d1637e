use axum::extract::State;
use axum::response::Response;
use event_schemas::Sku;
use http_conventions::{AtLeast, ConsistencyToken, IfNoneMatch, Path, Problem, Query};
use identity::verifier::{Caller, Permission};
use projections::stock::StockView;
use serde::Deserialize;
use utoipa::IntoParams;

use crate::QueryApi;
use crate::read::{Refusals, Scope, answer, document, point};

/// How to read one SKU's stock.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Params {
    /// A consistency token of a receipt.
    #[param(value_type = Option<String>)]
    at_least: Option<ConsistencyToken>,
}

/// One SKU's stock: on hand, reserved, available. Needs `stock.read`.
#[utoipa::path(
    get, path = "/v1/inventory/{sku}", tag = "inventory", operation_id = "getStock",
    params(("sku" = String, Path, max_length = 64), Params, IfNoneMatch),
    responses(
        (status = 200, body = StockView, headers(("ETag" = String))),
        (status = 304, description = "Not changed."),
        (status = 403, description = "Without `stock.read`.", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such SKU.", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
    security(("bearer" = [])),
    extensions(("x-omisys-access" = json!("stock.read"))),
)]
pub(crate) async fn get(
    caller: Caller,
    State(api): State<QueryApi>,
    Path(sku): Path<Sku>,
    Query(params): Query<Params>,
    at_least: AtLeast,
    has: IfNoneMatch,
) -> Result<Response, Problem> {
    caller.require(Permission::StockRead)?;
    let point = point(params.at_least, at_least)?;
    let stock = document(
        api.views.stock(),
        &(&sku).into(),
        point.as_ref(),
        api.wait,
        |_| true,
    )
    .await?;
    Ok(answer(&stock.etag(), || stock.json(), &has, Scope::TheCaller))
}
