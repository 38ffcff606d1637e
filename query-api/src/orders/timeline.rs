use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use event_schemas::OrderId;
use http_conventions::{AtLeast, ConsistencyToken, IfNoneMatch, Path, Problem, Query};
use identity::verifier::{Caller, Permission};
use projections::order_timeline::TimelineView;
use serde::Deserialize;
use utoipa::IntoParams;

use super::of_order;
use crate::QueryApi;
use crate::read::{Refusals, Scope, answer, point};

/// How to read an order's story.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Params {
    /// A consistency token of a receipt.
    #[param(value_type = Option<String>)]
    at_least: Option<ConsistencyToken>,
}

/// Every event of an order, its payment and its stock lines, with who and why. Customers see the roles of others, not
/// who they are.
#[utoipa::path(
    get, path = "/v1/orders/{id}/timeline", tag = "orders", operation_id = "getOrderTimeline",
    params(("id" = String, Path, format = Uuid), Params, IfNoneMatch),
    responses(
        (status = 200, body = TimelineView, headers(("ETag" = String))),
        (status = 304, description = "Not changed."),
        (status = 404, description = "Not there, or not yours.", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
    security(("bearer" = [])),
    extensions(("x-omisys-access" = json!("owner|order.read_all"))),
)]
pub(crate) async fn timeline(
    caller: Caller,
    State(api): State<QueryApi>,
    Path(id): Path<OrderId>,
    Query(params): Query<Params>,
    at_least: AtLeast,
    has: IfNoneMatch,
) -> Result<Response, Problem> {
    let point = point(params.at_least, at_least)?;
    let stories = api.views.order_timeline();
    let story = of_order(&api, stories, &caller, id, point.as_ref(), |story| {
        story.customer_id
    })
    .await?;
    let json = || {
        if caller.may(Permission::OrderReadAll) {
            return story.json();
        }
        // Plain data with text keys: it always serialises.
        Bytes::from(serde_json::to_vec(&story.doc.for_customer()).unwrap_or_default())
    };
    Ok(answer(&story.etag(), json, &has, Scope::TheCaller))
}
