use axum::extract::State;
use axum::response::Response;
use event_schemas::PaymentId;
use http_conventions::{AtLeast, ConsistencyToken, IfNoneMatch, Path, Problem, Query};
use identity::verifier::{Caller, Permission};
use projections::payments::PaymentView;
use serde::Deserialize;
use utoipa::IntoParams;

use crate::QueryApi;
use crate::read::{Refusals, Scope, answer, document, point, view_problem};

/// How to read one payment.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Params {
    /// A consistency token of a receipt.
    #[param(value_type = Option<String>)]
    at_least: Option<ConsistencyToken>,
}

/// One payment with its attempts and refunds.
#[utoipa::path(
    get, path = "/v1/payments/{id}", tag = "payments", operation_id = "getPayment",
    params(("id" = String, Path, format = Uuid), Params, IfNoneMatch),
    responses(
        (status = 200, body = PaymentView, headers(("ETag" = String))),
        (status = 304, description = "Not changed."),
        (status = 404, description = "Not there, or not yours.", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
    security(("bearer" = [])),
    extensions(("x-omisys-access" = json!("owner|payment.read_all"))),
)]
pub(crate) async fn get(
    caller: Caller,
    State(api): State<QueryApi>,
    Path(id): Path<PaymentId>,
    Query(params): Query<Params>,
    at_least: AtLeast,
    has: IfNoneMatch,
) -> Result<Response, Problem> {
    let point = point(params.at_least, at_least)?;
    let id = id.into();
    if let Some(payment) = api.views.payments().get(&id).await.map_err(view_problem)? {
        check_owner(&api, &caller, &payment.doc).await?;
    }
    let payment = document(api.views.payments(), &id, point.as_ref(), api.wait, |_| true).await?;
    check_owner(&api, &caller, &payment.doc).await?;
    Ok(answer(&payment.etag(), || payment.json(), &has, Scope::TheCaller))
}

/// A payment is its order's customer's. The order is older than its payment, but its view may be behind: until it
/// shows the order, the payment is nobody's.
async fn check_owner(api: &QueryApi, caller: &Caller, payment: &PaymentView) -> Result<(), Problem> {
    if caller.may(Permission::PaymentReadAll) {
        return Ok(());
    }
    let order = api
        .views
        .orders()
        .get(&payment.order_id.into())
        .await
        .map_err(view_problem)?;
    order
        .filter(|order| caller.is(order.doc.customer_id))
        .map(|_| ())
        .ok_or_else(Problem::not_found)
}
