use axum::extract::{OriginalUri, State};
use axum::http::HeaderValue;
use axum::http::header::CACHE_CONTROL;
use axum::response::Response;
use event_schemas::{CustomerId, OrderId, Timestamp};
use http_conventions::{AtLeast, ConsistencyToken, Cursor, Limit, Page, Problem, Query};
use identity::verifier::{Caller, Permission};
use projections::orders::{OrderFilter, OrderStatus, OrderSummary};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::QueryApi;
use crate::read::{Refusals, Scope, after, cursor, owned_or, point, reach, view_problem};

/// Names the list in cursors.
const LIST: &str = "orders";

/// Which orders.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Params {
    status: Option<OrderStatus>,
    /// Whose orders; somebody else's needs `order.read_all`.
    #[param(value_type = Option<String>, format = Uuid)]
    customer: Option<CustomerId>,
    /// Sold at this time or later.
    #[param(value_type = Option<String>, format = DateTime)]
    from: Option<Timestamp>,
    /// Sold before this time.
    #[param(value_type = Option<String>, format = DateTime)]
    to: Option<Timestamp>,
    #[serde(default)]
    #[param(value_type = u16, minimum = 1, maximum = 100, default = 20)]
    limit: Limit,
    /// From `next_cursor` of the page before.
    #[param(value_type = Option<String>)]
    cursor: Option<Cursor>,
    /// A consistency token of a receipt.
    #[param(value_type = Option<String>)]
    at_least: Option<ConsistencyToken>,
}

/// Orders, the latest sale first: one's own, or everybody's with `order.read_all`.
#[utoipa::path(
    get, path = "/v1/orders", tag = "orders", operation_id = "listOrders", params(Params),
    responses(
        (status = 200, body = Page<OrderSummary>, headers(("Link" = String, description = "The next page."))),
        (status = 403, description = "Another `customer` without `order.read_all`.", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
    security(("bearer" = [])),
    extensions(("x-omisys-access" = json!("caller"))),
)]
pub(crate) async fn list(
    caller: Caller,
    State(api): State<QueryApi>,
    OriginalUri(uri): OriginalUri,
    Query(params): Query<Params>,
    at_least: AtLeast,
) -> Result<Response, Problem> {
    let is_theirs = owned_or(&caller, Permission::OrderReadAll);
    if params.customer.is_some_and(|customer| !is_theirs(customer)) {
        return Err(Problem::forbidden(Permission::OrderReadAll.as_str()));
    }
    let sees_all = caller.may(Permission::OrderReadAll);
    let filter = OrderFilter {
        customer: params.customer.or((!sees_all).then(|| caller.customer_id())),
        status: params.status,
        from: params.from,
        until: params.to,
    };
    let after = after::<OrderId>(LIST, params.cursor.as_ref())?;
    let point = point(params.at_least, at_least)?;
    reach(api.views.orders(), point.as_ref(), api.wait).await?;

    let found = api
        .views
        .orders()
        .find(&filter.page(after, params.limit.get()))
        .await
        .map_err(view_problem)?;
    let items: Vec<OrderSummary> = found.items.iter().map(|order| order.doc.summary()).collect();
    let mut response = Page {
        items,
        next_cursor: cursor(LIST, found.next),
    }
    .answer(&uri);
    let caching = HeaderValue::from_static(Scope::TheCaller.cache_control());
    response.headers_mut().insert(CACHE_CONTROL, caching);
    Ok(response)
}
