use axum::extract::State;
use axum::response::Response;
use event_schemas::ProductId;
use http_conventions::{AtLeast, ConsistencyToken, IfNoneMatch, Path, Problem, Query};
use identity::verifier::MaybeCaller;
use projections::products::ProductView;
use serde::Deserialize;
use utoipa::IntoParams;

use super::{is_visible, reach_stock, scope, sees_all};
use crate::QueryApi;
use crate::read::{Refusals, answer, document, point, view_problem};

/// How to read one product.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Params {
    /// A consistency token of a receipt.
    #[param(value_type = Option<String>)]
    at_least: Option<ConsistencyToken>,
}

/// One product with its variants and what is available of them.
#[utoipa::path(
    get, path = "/v1/products/{id}", tag = "products", operation_id = "getProduct",
    params(("id" = String, Path, format = Uuid), Params, IfNoneMatch),
    responses(
        (status = 200, body = ProductView, headers(("ETag" = String))),
        (status = 304, description = "Not changed."),
        (status = 404, description = "Not there, or not published.", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
    security((), ("bearer" = [])),
    extensions(("x-omisys-access" = json!("public"))),
)]
pub(crate) async fn get(
    caller: MaybeCaller,
    State(api): State<QueryApi>,
    Path(id): Path<ProductId>,
    Query(params): Query<Params>,
    at_least: AtLeast,
    has: IfNoneMatch,
) -> Result<Response, Problem> {
    let point = point(params.at_least, at_least)?;
    let all = sees_all(caller);
    let may_see = |product: &ProductView| is_visible(product, all);
    let id = id.into();
    let point = reach_stock(&api, point).await?;
    document(api.views.products(), &id, point.as_ref(), api.wait, may_see).await?;
    let found = api.views.product(&id).await.map_err(view_problem)?;
    // Asked again: it may have been unpublished between the two reads.
    let detail = found
        .filter(|detail| may_see(&detail.product))
        .ok_or_else(Problem::not_found)?;
    Ok(answer(detail.etag(), || detail.json(), &has, scope(caller)))
}
