//! What an intent asks the provider for, and what its answer means.

use aggregates::payment::{Attempt, Intent, PaymentCommand};
use event_schemas::{Event, Money, PaymentEvent, PaymentId, RecordedEvent};
use sagas::policies::EffectKind;

use super::provider::{Operation, Outcome};

/// A call that an intent asks for.
pub struct Call {
    pub payment: PaymentId,
    pub attempt: u32,
    pub intent: Intent,
    pub operation: Operation,
}

impl Call {
    pub fn of(recorded: &RecordedEvent) -> Self {
        let Event::Payment(event) = &recorded.event else {
            panic!("{recorded:?} is no intent")
        };
        let (attempt, intent, operation) = match *event {
            PaymentEvent::SessionRequested { attempt, .. } => {
                (attempt, Intent::Session { attempt }, Operation::Session)
            }
            PaymentEvent::CaptureRequested { attempt, .. } => {
                (attempt, Intent::Capture { attempt }, Operation::Capture)
            }
            PaymentEvent::VoidRequested { attempt, .. } => {
                (attempt, Intent::Void { attempt }, Operation::Void)
            }
            PaymentEvent::RefundRequested {
                attempt, refund_id, ..
            } => (
                attempt,
                Intent::Refund { attempt, refund_id },
                Operation::Refund(refund_id),
            ),
            _ => panic!("{recorded:?} is no intent"),
        };
        let payment = recorded.stream.aggregate_id.as_str().parse().unwrap();
        Self {
            payment,
            attempt,
            intent,
            operation,
        }
    }

    pub const fn kind(&self) -> EffectKind {
        match self.operation {
            Operation::Session => EffectKind::Session,
            Operation::Capture => EffectKind::Capture,
            Operation::Void => EffectKind::Void,
            Operation::Refund(_) => EffectKind::Refund,
        }
    }

    pub fn amount(&self, attempt: &Attempt) -> Money {
        match self.operation {
            Operation::Refund(refund_id) => attempt.refunds()[&refund_id].amount,
            Operation::Session | Operation::Capture | Operation::Void => attempt.amount(),
        }
    }

    pub fn fact(&self, recorded: &RecordedEvent, outcome: Outcome) -> PaymentCommand {
        let Event::Payment(event) = &recorded.event else {
            panic!("{recorded:?} is no intent")
        };
        let (order_id, attempt) = (event.order_id(), self.attempt);
        match (outcome, self.operation) {
            (Outcome::Refunded(provider_ref, amount), Operation::Refund(refund_id)) => {
                PaymentCommand::RecordRefundSucceeded {
                    order_id,
                    attempt,
                    refund_id,
                    provider_ref,
                    amount,
                }
            }
            (Outcome::Declined(code), Operation::Refund(refund_id)) => PaymentCommand::RecordRefundFailed {
                attempt,
                refund_id,
                code,
            },
            (Outcome::SessionOpen(provider_ref), _) => PaymentCommand::RecordSession {
                order_id,
                attempt,
                provider_ref,
                checkout_ref: None,
            },
            (Outcome::Authorized(provider_ref, amount), _) => PaymentCommand::RecordAuthorized {
                order_id,
                attempt,
                provider_ref,
                amount,
            },
            (Outcome::Captured(provider_ref, amount), _) => PaymentCommand::RecordCaptured {
                order_id,
                attempt,
                provider_ref,
                amount,
            },
            (Outcome::Voided(provider_ref), _) => PaymentCommand::RecordVoided {
                order_id,
                attempt,
                provider_ref,
            },
            (Outcome::Declined(code), _) => PaymentCommand::RecordDeclined { attempt, code },
            (outcome, operation) => panic!("{outcome:?} answers no {operation:?}"),
        }
    }
}
