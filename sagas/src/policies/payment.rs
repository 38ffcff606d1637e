//! From one step of a payment to the next, and what a capture means for the order.

use aggregates::order::OrderCommand;
use aggregates::payment::{PaymentCommand, RefundAmount};
use event_schemas::{Code, PaymentEvent, PaymentId, RecordedEvent};

use super::{Action, Command, EffectKind, Folded, PolicyCommand, Refusal, order};

const REQUESTED: &str = "payment-requested";
const AUTHORIZED: &str = "payment-authorized";
const CAPTURED: &str = "payment-captured";
const REFUNDED: &str = "refund-succeeded";

/// None if the event's policy needs the folded payment and `state` is not that.
pub(super) fn react(
    recorded: &RecordedEvent,
    event: &PaymentEvent,
    state: Folded<'_>,
) -> Option<Vec<Action>> {
    // The stream's id; a stored one has that form.
    let Ok(payment_id) = recorded.stream.aggregate_id.as_str().parse::<PaymentId>() else {
        return Some(Vec::new());
    };
    let command = |policy, command| {
        vec![PolicyCommand::new(recorded, policy, 0, Command::Payment(payment_id, command)).into()]
    };
    let effect = |kind| vec![Action::Effect { kind }];
    Some(match event {
        PaymentEvent::PaymentRequested { attempt, .. } | PaymentEvent::PaymentRetried { attempt, .. } => {
            command(REQUESTED, PaymentCommand::RequestSession { attempt: *attempt })
        }
        PaymentEvent::PaymentAuthorized { attempt, .. } => {
            let Folded::Payment(payment) = state else {
                return None;
            };
            let attempt = *attempt;
            // An attempt that a later one has replaced is wanted no more than one of a cancelled order.
            let given_up = payment.is_given_up(attempt);
            command(
                AUTHORIZED,
                if given_up {
                    PaymentCommand::RequestVoid { attempt }
                } else {
                    PaymentCommand::RequestCapture { attempt }
                },
            )
        }
        PaymentEvent::PaymentCaptured {
            order_id,
            attempt,
            amount,
            ..
        } => {
            let (attempt, amount) = (*attempt, *amount);
            let surplus = Code::new("surplus").ok()?;
            let refund = order::request_refund(recorded, CAPTURED, payment_id, |refund_id| {
                PaymentCommand::RequestRefund {
                    refund_id,
                    attempt,
                    amount: RefundAmount::Everything,
                    reason: surplus,
                }
            });
            let paid = Command::Order(
                *order_id,
                OrderCommand::MarkPaid {
                    payment_id,
                    attempt,
                    amount,
                },
            );
            let paid = PolicyCommand::new(recorded, CAPTURED, 0, paid);
            vec![
                paid.if_refused(&[Refusal::Cancelled, Refusal::PaidByAnotherAttempt], Some(refund))
                    .into(),
            ]
        }
        PaymentEvent::RefundSucceeded {
            order_id,
            attempt,
            refund_id,
            amount,
            ..
        } => {
            let record = OrderCommand::RecordRefund {
                payment_id,
                attempt: *attempt,
                refund_id: *refund_id,
                amount: *amount,
            };
            vec![PolicyCommand::new(recorded, REFUNDED, 0, Command::Order(*order_id, record)).into()]
        }
        PaymentEvent::SessionRequested { .. } => effect(EffectKind::Session),
        PaymentEvent::CaptureRequested { .. } => effect(EffectKind::Capture),
        PaymentEvent::VoidRequested { .. } => effect(EffectKind::Void),
        PaymentEvent::RefundRequested { .. } => effect(EffectKind::Refund),
        PaymentEvent::PaymentSessionCreated { .. }
        | PaymentEvent::PaymentDeclined { .. }
        | PaymentEvent::PaymentCloseRequested { .. }
        | PaymentEvent::PaymentVoided { .. }
        | PaymentEvent::PaymentExpired { .. }
        | PaymentEvent::RefundFailed { .. }
        | PaymentEvent::ProviderAnomalyRecorded { .. } => Vec::new(),
    })
}
