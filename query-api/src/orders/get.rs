use axum::extract::State;
use axum::response::Response;
use event_schemas::OrderId;
use event_store::AsOf;
use http_conventions::{AtLeast, ConsistencyToken, IfNoneMatch, Path, Problem, Query};
use identity::verifier::Caller;
use serde::Deserialize;
use utoipa::IntoParams;

use super::as_of::{OrderAtMoment, order_as_of};
use super::of_order;
use crate::QueryApi;
use crate::read::{Refusals, Scope, answer, point};

/// How to read one order.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Params {
    /// A consistency token of a receipt.
    #[param(value_type = Option<String>)]
    at_least: Option<ConsistencyToken>,
    /// The order as it was: when it had come to this version (such as `3`, as receipts and bodies carry it), or with all that
    /// had been recorded by this time (RFC 3339; a `+` is written `%2B`). A time to come is now. Not with `at_least`.
    #[param(value_type = Option<String>, example = "2026-01-31T09:30:00Z")]
    as_of: Option<AsOf>,
}

/// One order with its lines, payment, shipments and returns.
#[utoipa::path(
    get, path = "/v1/orders/{id}", tag = "orders", operation_id = "getOrder",
    params(("id" = String, Path, format = Uuid), Params, IfNoneMatch),
    responses(
        (status = 200, body = OrderAtMoment, headers(("ETag" = String))),
        (status = 304, description = "Not changed."),
        (status = 404, description = "Not there, not yours, or with `as_of`: not there then.", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`as_of`: the order has more events than are folded for one answer.", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
    security(("bearer" = [])),
    extensions(("x-omisys-access" = json!("owner|order.read_all"))),
)]
pub(crate) async fn get(
    caller: Caller,
    State(api): State<QueryApi>,
    Path(id): Path<OrderId>,
    Query(params): Query<Params>,
    at_least: AtLeast,
    has: IfNoneMatch,
) -> Result<Response, Problem> {
    let point = point(params.at_least, at_least)?;
    if let Some(moment) = params.as_of {
        return match point {
            None => order_as_of(&api, &caller, id, moment, &has).await,
            Some(_) => Err(Problem::malformed(
                "as_of is about the past and at_least about the present: send one of them",
            )),
        };
    }
    let orders = api.views.orders();
    let order = of_order(&api, orders, &caller, id, point.as_ref(), |order| {
        order.customer_id
    })
    .await?;
    Ok(answer(&order.etag(), || order.json(), &has, Scope::TheCaller))
}
