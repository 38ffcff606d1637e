use aggregates::payment::PaymentCommand;
use axum::extract::State;
use event_schemas::Timestamp;
use http_conventions::Problem;
use identity::verifier::Permission;
use serde::Deserialize;
use utoipa::ToSchema;

use super::PaymentPath;
use crate::answer::{Accepted, ReceiptBody};
use crate::call::{Call, Route};
use crate::execute::{access_problem, earlier, execute};
use crate::openapi::{CommandProblems, KeyedCommandHeaders};
use crate::paying::PaymentInput;
use crate::state::CommandApi;

pub(super) struct RetryPayment;

/// How to pay this time.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = PaymentRetry)]
pub(super) struct Body {
    payment: PaymentInput,
}

impl Route for RetryPayment {
    type Path = PaymentPath;
    type Body = Body;
    const PERMISSIONS: &'static [Permission] = &[Permission::OrderPlace];
    const KEY_REQUIRED: bool = true;
}

/// Try to pay again
///
/// After a decline, until the order's payment deadline.
#[utoipa::path(
    post, path = "/v1/payments/{id}/retry", tag = "payments", operation_id = "retryPayment",
    params(("id" = String, Path, description = "The payment"), KeyedCommandHeaders), request_body = Body,
    responses((status = 200, description = "Accepted", body = ReceiptBody), CommandProblems),
    security(("bearer" = [])), extensions(("x-omisys-access" = json!("owner"))),
)]
pub(super) async fn handler(
    State(api): State<CommandApi>,
    call: Call<RetryPayment>,
) -> Result<Accepted, Problem> {
    let payments = &api.executors().payments;
    let order_id = payments
        .with_state(call.path.id, |payment, _| payment.order_id())
        .await;
    let order_id = order_id.map_err(access_problem)?.ok_or_else(Problem::not_found)?;
    let deadline = api
        .own_order(order_id, &call.caller, None, |placed| placed.payment_deadline)
        .await?;
    // First, since a repeat must not leave another token behind.
    let receipt = match earlier(payments, call.path.id, &call).await? {
        Some(receipt) => receipt,
        None => {
            execute(
                payments,
                call.path.id,
                &call,
                prepare(&api, &call, deadline).await,
            )
            .await?
        }
    };
    Ok(Accepted::changed(&receipt))
}

async fn prepare(
    api: &CommandApi,
    call: &Call<RetryPayment>,
    deadline: Timestamp,
) -> Result<PaymentCommand, Problem> {
    let input = &call.body.payment;
    let provider = api.provider(input)?;
    Ok(PaymentCommand::Retry {
        method: api.keep_token(input, provider, deadline).await?,
    })
}
