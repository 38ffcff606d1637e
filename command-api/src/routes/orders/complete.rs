use aggregates::order::OrderCommand;
use axum::extract::State;
use http_conventions::Problem;
use identity::verifier::Permission;

use super::OrderPath;
use crate::answer::{Accepted, ReceiptBody};
use crate::call::{Call, NoBody, Route};
use crate::execute::execute;
use crate::openapi::{CommandProblems, KeyedCommandHeaders};
use crate::state::CommandApi;

pub(super) struct CompleteOrder;

impl Route for CompleteOrder {
    type Path = OrderPath;
    type Body = NoBody;
    const PERMISSIONS: &'static [Permission] = super::FULFILS;
    const KEY_REQUIRED: bool = true;

    fn without_body() -> Option<NoBody> {
        Some(NoBody {})
    }
}

/// Complete an order
///
/// Once it is delivered and no return is open. It completes by itself some days after delivery.
#[utoipa::path(
    post, path = "/v1/orders/{id}/complete", tag = "orders", operation_id = "completeOrder",
    params(("id" = String, Path, description = "The order"), KeyedCommandHeaders), request_body = Option<NoBody>,
    responses((status = 200, description = "Accepted", body = ReceiptBody), CommandProblems),
    security(("bearer" = [])), extensions(("x-omisys-access" = json!("order.fulfil"))),
)]
pub(super) async fn handler(
    State(api): State<CommandApi>,
    call: Call<CompleteOrder>,
) -> Result<Accepted, Problem> {
    let receipt = execute(
        &api.executors().orders,
        call.path.id,
        &call,
        Ok(OrderCommand::Complete),
    )
    .await?;
    Ok(Accepted::changed(&receipt))
}
