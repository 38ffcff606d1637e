use event_schemas::{OrderId, PaymentEvent, RefundId, derive_uuid};

use super::{Attempt, AttemptStatus, Payment};

/// How often a closed payment asks for the refund of one attempt. After so many failures people have to look.
pub const MAX_REFUND_TRIES: u32 = 3;

/// What the payment itself asks for next. Added to every decision, so that it is empty after each accepted command.
pub(super) fn follow_up(payment: &Payment) -> Vec<PaymentEvent> {
    let Some(order_id) = payment.order_id else {
        return Vec::new();
    };
    let mut events = Vec::new();
    for (attempt, number) in payment.attempts.iter().zip(1..) {
        let idle = attempt.status == AttemptStatus::Authorized && attempt.intent.is_none();
        if idle && payment.is_given_up(number) {
            events.push(PaymentEvent::VoidRequested {
                order_id,
                attempt: number,
            });
        }
    }
    if payment.is_closed() {
        events.extend(expire(payment, order_id));
        events.extend(refund(payment, order_id));
    }
    events
}

fn expire(payment: &Payment, order_id: OrderId) -> Option<PaymentEvent> {
    let attempt = payment.current_attempt();
    let due = payment
        .attempts
        .last()
        .is_none_or(|last| last.can_expire() && last.intent.is_none());
    (due && !payment.expired).then_some(PaymentEvent::PaymentExpired { order_id, attempt })
}

/// One refund at a time: the next one follows when the provider has answered.
fn refund(payment: &Payment, order_id: OrderId) -> Option<PaymentEvent> {
    if payment.has_money_intent() {
        return None;
    }
    let reason = payment.closed.clone()?;
    payment.attempts.iter().zip(1..).find_map(|(attempt, number)| {
        let amount = attempt.refundable();
        let refund_id = unused_refund_id(attempt, order_id, number).filter(|_| !amount.is_zero())?;
        let reason = reason.clone();
        Some(PaymentEvent::RefundRequested {
            order_id,
            attempt: number,
            refund_id,
            amount,
            reason,
        })
    })
}

/// Whether attempt `number` is refunded in full without anyone asking, as soon as no other capture or refund is under way.
pub(super) fn is_refund_due(payment: &Payment, number: u32) -> bool {
    let unused = |order_id| unused_refund_id(payment.attempt(number)?, order_id, number);
    payment.is_closed() && payment.order_id.and_then(unused).is_some()
}

fn unused_refund_id(attempt: &Attempt, order_id: OrderId, number: u32) -> Option<RefundId> {
    (1..=MAX_REFUND_TRIES)
        .map(|nth| closing_refund_id(order_id, number, nth))
        .find(|id| !attempt.refunds.contains_key(id))
}

/// The same whoever computes it, so that a replayed decision names the refund that it named before.
fn closing_refund_id(order_id: OrderId, attempt: u32, nth: u32) -> RefundId {
    let parts: [&[u8]; 3] = [
        order_id.as_uuid().as_bytes(),
        &attempt.to_be_bytes(),
        &nth.to_be_bytes(),
    ];
    RefundId::from_uuid(derive_uuid("omisys/refund/close", &parts))
}
