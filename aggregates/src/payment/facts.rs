//! Reports of the provider: recorded in every state, and once.

use event_schemas::{Anomaly, Money, OrderId, PaymentEvent, ProviderRef, RefundId, SecretRef};

use super::attempt::Operation;
use super::{Attempt, Payment, RefundStatus};

/// Which object of the provider says something, and about what.
pub(super) struct Report<'a> {
    pub(super) order_id: OrderId,
    pub(super) attempt: u32,
    pub(super) provider_ref: &'a ProviderRef,
}

pub(super) fn session(
    payment: &Payment,
    report: &Report,
    checkout_ref: Option<&SecretRef>,
) -> Vec<PaymentEvent> {
    let event = PaymentEvent::PaymentSessionCreated {
        order_id: report.order_id,
        attempt: report.attempt,
        provider_ref: report.provider_ref.clone(),
        checkout_ref: checkout_ref.cloned(),
    };
    record(payment, report, Operation::Session, None, event)
}

pub(super) fn authorized(payment: &Payment, report: &Report, amount: Money) -> Vec<PaymentEvent> {
    let event = PaymentEvent::PaymentAuthorized {
        order_id: report.order_id,
        attempt: report.attempt,
        provider_ref: report.provider_ref.clone(),
        amount,
    };
    record(payment, report, Operation::Authorize, Some(amount), event)
}

pub(super) fn captured(payment: &Payment, report: &Report, amount: Money) -> Vec<PaymentEvent> {
    let event = PaymentEvent::PaymentCaptured {
        order_id: report.order_id,
        attempt: report.attempt,
        provider_ref: report.provider_ref.clone(),
        amount,
    };
    record(payment, report, Operation::Capture, Some(amount), event)
}

pub(super) fn voided(payment: &Payment, report: &Report) -> Vec<PaymentEvent> {
    let event = PaymentEvent::PaymentVoided {
        order_id: report.order_id,
        attempt: report.attempt,
        provider_ref: report.provider_ref.clone(),
    };
    record(payment, report, Operation::Void, None, event)
}

pub(super) fn refund_succeeded(
    payment: &Payment,
    report: &Report,
    refund_id: RefundId,
    reported: Money,
) -> Vec<PaymentEvent> {
    let attempt = match fitting_attempt(payment, report) {
        Ok(attempt) => attempt,
        Err(kind) => return anomaly(payment, report, kind),
    };
    let Some(refund) = attempt.refunds.get(&refund_id) else {
        return anomaly(payment, report, Anomaly::UnknownRefund { reported: refund_id });
    };
    if refund.status == RefundStatus::Succeeded {
        return Vec::new();
    }
    if let Some(kind) = mismatch(refund.amount, reported) {
        return anomaly(payment, report, kind);
    }
    // A refund that was reported failed has been given up: its money may be promised to another one by now.
    let expected = attempt.refundable();
    if refund.status == RefundStatus::Failed && expected.amount() < reported.amount() {
        return anomaly(payment, report, Anomaly::AmountMismatch { expected, reported });
    }
    vec![PaymentEvent::RefundSucceeded {
        order_id: report.order_id,
        attempt: report.attempt,
        refund_id,
        provider_ref: report.provider_ref.clone(),
        amount: reported,
    }]
}

/// `event` if the report is news and fits; the anomaly if it does not fit.
fn record(
    payment: &Payment,
    report: &Report,
    operation: Operation,
    amount: Option<Money>,
    event: PaymentEvent,
) -> Vec<PaymentEvent> {
    let attempt = match fitting_attempt(payment, report) {
        Ok(attempt) => attempt,
        Err(kind) => return anomaly(payment, report, kind),
    };
    if attempt.has_fact(operation, report.provider_ref) {
        return Vec::new();
    }
    if let Some(kind) = amount.and_then(|reported| mismatch(attempt.amount, reported)) {
        return anomaly(payment, report, kind);
    }
    // The provider was asked under one key, so a second capture is no second payment: people have to look.
    let recorded = attempt.capture_ref().filter(|_| operation == Operation::Capture);
    if let Some((recorded, reported)) = recorded.cloned().zip(amount) {
        return anomaly(payment, report, Anomaly::SecondCapture { recorded, reported });
    }
    vec![event]
}

/// The attempt that the report is about, if it is about this payment.
fn fitting_attempt<'a>(payment: &'a Payment, report: &Report) -> Result<&'a Attempt, Anomaly> {
    if payment.order_id.is_some_and(|of| of != report.order_id) {
        return Err(Anomaly::OrderMismatch {
            reported: report.order_id,
        });
    }
    payment.attempt(report.attempt).ok_or(Anomaly::UnknownAttempt {
        reported: report.attempt,
    })
}

fn mismatch(expected: Money, reported: Money) -> Option<Anomaly> {
    if expected.currency() != reported.currency() {
        Some(Anomaly::CurrencyMismatch { expected, reported })
    } else if expected != reported {
        Some(Anomaly::AmountMismatch { expected, reported })
    } else {
        None
    }
}

fn anomaly(payment: &Payment, report: &Report, kind: Anomaly) -> Vec<PaymentEvent> {
    let known = payment.anomalies.iter().any(|(attempt, provider_ref, recorded)| {
        *attempt == report.attempt && provider_ref == report.provider_ref && *recorded == kind
    });
    if known {
        return Vec::new();
    }
    vec![PaymentEvent::ProviderAnomalyRecorded {
        order_id: payment.order_id.unwrap_or(report.order_id),
        attempt: report.attempt,
        provider_ref: report.provider_ref.clone(),
        kind,
    }]
}
