use aggregates::payment::{AttemptStatus, Payment, PaymentCommand, RefundAmount};
use axum::extract::State;
use event_schemas::{Code, Money, RefundId};
use http_conventions::Problem;
use identity::verifier::Permission;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::PaymentPath;
use crate::answer::{Accepted, ReceiptBody};
use crate::call::{Call, Route};
use crate::execute::{access_problem, execute};
use crate::openapi::{CommandProblems, KeyedCommandHeaders, MoneySchema};
use crate::state::CommandApi;

pub(super) struct RefundPayment;

/// Money to give back.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewRefund)]
pub(super) struct Body {
    #[schema(value_type = MoneySchema)]
    amount: Money,
    #[schema(value_type = String, example = "goodwill")]
    reason: Code,
    /// The payment attempt that took the money; the last one that did if left out.
    #[serde(default)]
    attempt: Option<u32>,
}

/// The payment's receipt, and the refund.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RefundReceipt {
    #[serde(flatten)]
    receipt: ReceiptBody,
    #[schema(value_type = String)]
    refund_id: RefundId,
}

impl Route for RefundPayment {
    type Path = PaymentPath;
    type Body = Body;
    const PERMISSIONS: &'static [Permission] = &[Permission::RefundCreate];
    const KEY_REQUIRED: bool = true;
}

/// Give money back
///
/// At most what was captured and is not given back yet. The answer is 201 once the refund is requested; the provider
/// carries it out afterwards.
#[utoipa::path(
    post, path = "/v1/payments/{id}/refunds", tag = "payments", operation_id = "refundPayment",
    params(("id" = String, Path, description = "The payment"), KeyedCommandHeaders), request_body = Body,
    responses((status = 201, description = "Requested", body = RefundReceipt), CommandProblems),
    security(("bearer" = [])), extensions(("x-omisys-access" = json!("refund.create"))),
)]
pub(super) async fn handler(
    State(api): State<CommandApi>,
    call: Call<RefundPayment>,
) -> Result<Accepted<RefundReceipt>, Problem> {
    let refund_id = RefundId::for_command(call.command_id);
    let prepared = prepare(&api, &call, refund_id).await;
    let receipt = execute(&api.executors().payments, call.path.id, &call, prepared).await?;
    let Accepted {
        body: receipt,
        created,
        replayed,
    } = Accepted::created(&receipt, "/v1/payments");
    Ok(Accepted {
        body: RefundReceipt { receipt, refund_id },
        created,
        replayed,
    })
}

async fn prepare(
    api: &CommandApi,
    call: &Call<RefundPayment>,
    refund_id: RefundId,
) -> Result<PaymentCommand, Problem> {
    let Body {
        amount,
        reason,
        attempt,
    } = &call.body;
    let attempt = if let Some(attempt) = attempt {
        *attempt
    } else {
        let read = api
            .executors()
            .payments
            .with_state(call.path.id, |payment, _| captured_attempt(payment));
        read.await.map_err(access_problem)?
    };
    Ok(PaymentCommand::RequestRefund {
        refund_id,
        attempt,
        amount: RefundAmount::Exactly(*amount),
        reason: reason.clone(),
    })
}

/// The last attempt that took the money; the last one at all if none did, for the aggregate to refuse.
fn captured_attempt(payment: &Payment) -> u32 {
    let last = payment.current_attempt();
    let captured = |number: &u32| {
        payment
            .attempt(*number)
            .is_some_and(|attempt| attempt.status() == AttemptStatus::Captured)
    };
    (1..=last).rev().find(captured).unwrap_or(last)
}
