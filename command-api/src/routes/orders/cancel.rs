use aggregates::order::OrderCommand;
use axum::extract::State;
use event_schemas::{CancelReason, Code};
use http_conventions::Problem;
use identity::verifier::Permission;
use serde::Deserialize;
use utoipa::ToSchema;

use super::OrderPath;
use crate::answer::{Accepted, ReceiptBody};
use crate::call::{Call, Route};
use crate::execute::execute;
use crate::openapi::{CommandProblems, KeyedCommandHeaders};
use crate::state::CommandApi;

pub(super) struct CancelOrder;

/// Why the shop cancels.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Cancellation)]
pub(super) struct Body {
    /// The shop's reason; needs `order.cancel_any`.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "suspected-fraud")]
    reason: Option<Code>,
}

impl Route for CancelOrder {
    type Path = OrderPath;
    type Body = Body;
    const PERMISSIONS: &'static [Permission] = &[Permission::OrderPlace, Permission::OrderCancelAny];
    const KEY_REQUIRED: bool = true;

    fn without_body() -> Option<Body> {
        Some(Body::default())
    }
}

/// Cancel an order
///
/// Until something of it has shipped. What was reserved is released, what was paid is given back.
#[utoipa::path(
    post, path = "/v1/orders/{id}/cancel", tag = "orders", operation_id = "cancelOrder",
    params(("id" = String, Path, description = "The order"), KeyedCommandHeaders), request_body = Option<Body>,
    responses((status = 200, description = "Accepted", body = ReceiptBody), CommandProblems),
    security(("bearer" = [])), extensions(("x-omisys-access" = json!("owner|order.cancel_any"))),
)]
pub(super) async fn handler(
    State(api): State<CommandApi>,
    call: Call<CancelOrder>,
) -> Result<Accepted, Problem> {
    let id = call.path.id;
    let any = Permission::OrderCancelAny;
    let customer = api
        .own_order(id, &call.caller, Some(any), |placed| placed.customer)
        .await?;
    let reason = match &call.body.reason {
        Some(code) => {
            call.caller.require(any)?;
            CancelReason::Staff { code: code.clone() }
        }
        None if call.caller.is(customer) => CancelReason::CustomerRequest,
        None => CancelReason::Staff {
            code: Code::new("unspecified").map_err(Problem::internal)?,
        },
    };
    let command = OrderCommand::Cancel {
        reason,
        by: call.caller.actor().kind,
    };
    let receipt = execute(&api.executors().orders, id, &call, Ok(command)).await?;
    Ok(Accepted::changed(&receipt))
}
