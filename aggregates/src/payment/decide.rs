use event_schemas::{Code, Money, OrderId, PaymentEvent, PaymentMethod, RefundId};

use super::facts::{self, Report};
use super::follow_up::{follow_up, is_refund_due};
use super::{
    Attempt, AttemptStatus, Payment, PaymentCommand, PaymentError, Refund, RefundAmount, RefundStatus,
};

/// The most attempts of a payment.
pub const MAX_ATTEMPTS: u32 = 20;

type Decision = Result<Vec<PaymentEvent>, PaymentError>;

pub(super) fn decide(payment: &Payment, command: &PaymentCommand) -> Decision {
    use PaymentCommand as C;
    let events = match command {
        C::Request {
            order_id,
            amount,
            method,
        } => request(payment, *order_id, *amount, method),
        C::RequestSession { attempt } => request_session(payment, *attempt),
        C::RequestCapture { attempt } => request_capture(payment, *attempt),
        C::RequestVoid { attempt } => request_void(payment, *attempt),
        C::Retry { method } => retry(payment, method),
        C::Close { order_id, reason } => close(payment, *order_id, reason),
        C::RecordDeclined { attempt, code } => record_declined(payment, *attempt, code),
        C::RequestRefund {
            refund_id,
            attempt,
            amount,
            reason,
        } => request_refund(payment, *refund_id, *attempt, *amount, reason),
        C::RecordRefundFailed {
            attempt,
            refund_id,
            code,
        } => record_refund_failed(payment, *attempt, *refund_id, code),
        C::RecordSession {
            order_id,
            attempt,
            provider_ref,
            checkout_ref,
        } => {
            let report = Report {
                order_id: *order_id,
                attempt: *attempt,
                provider_ref,
            };
            Ok(facts::session(payment, &report, checkout_ref.as_ref()))
        }
        C::RecordAuthorized {
            order_id,
            attempt,
            provider_ref,
            amount,
        } => {
            let report = Report {
                order_id: *order_id,
                attempt: *attempt,
                provider_ref,
            };
            Ok(facts::authorized(payment, &report, *amount))
        }
        C::RecordCaptured {
            order_id,
            attempt,
            provider_ref,
            amount,
        } => {
            let report = Report {
                order_id: *order_id,
                attempt: *attempt,
                provider_ref,
            };
            Ok(facts::captured(payment, &report, *amount))
        }
        C::RecordVoided {
            order_id,
            attempt,
            provider_ref,
        } => {
            let report = Report {
                order_id: *order_id,
                attempt: *attempt,
                provider_ref,
            };
            Ok(facts::voided(payment, &report))
        }
        C::RecordRefundSucceeded {
            order_id,
            attempt,
            refund_id,
            provider_ref,
            amount,
        } => {
            let report = Report {
                order_id: *order_id,
                attempt: *attempt,
                provider_ref,
            };
            Ok(facts::refund_succeeded(payment, &report, *refund_id, *amount))
        }
    }?;
    Ok(with_follow_up(payment, events))
}

/// Adds what the state after `events` asks for.
fn with_follow_up(payment: &Payment, mut events: Vec<PaymentEvent>) -> Vec<PaymentEvent> {
    if !events.is_empty() {
        let mut after = payment.clone();
        for event in &events {
            super::state::evolve(&mut after, event);
        }
        events.extend(follow_up(&after));
    }
    events
}

/// The order and the attempt that a command names.
fn attempt_of(payment: &Payment, number: u32) -> Result<(OrderId, &Attempt), PaymentError> {
    let order_id = payment.order_id.ok_or(PaymentError::NotFound)?;
    let attempt = payment
        .attempt(number)
        .ok_or(PaymentError::UnknownAttempt { attempt: number })?;
    Ok((order_id, attempt))
}

fn request(payment: &Payment, order_id: OrderId, amount: Money, method: &PaymentMethod) -> Decision {
    if payment.order_id.is_some_and(|of| of != order_id) {
        return Err(PaymentError::WrongOrder);
    }
    if let Some(first) = payment.attempts.first() {
        let same = first.amount == amount && first.method == *method;
        return if same {
            Ok(Vec::new())
        } else {
            Err(PaymentError::AlreadyRequested)
        };
    }
    if amount.amount() <= 0 {
        return Err(PaymentError::InvalidAmount);
    }
    if payment.is_closed() {
        return Ok(Vec::new());
    }
    Ok(vec![PaymentEvent::PaymentRequested {
        order_id,
        attempt: 1,
        amount,
        method: method.clone(),
    }])
}

fn request_session(payment: &Payment, number: u32) -> Decision {
    let (order_id, attempt) = attempt_of(payment, number)?;
    let waits = attempt.status == AttemptStatus::Requested && attempt.intent.is_none();
    if !waits || payment.is_given_up(number) {
        return Ok(Vec::new());
    }
    Ok(vec![PaymentEvent::SessionRequested {
        order_id,
        attempt: number,
    }])
}

fn request_capture(payment: &Payment, number: u32) -> Decision {
    let (order_id, attempt) = attempt_of(payment, number)?;
    let waits = attempt.status == AttemptStatus::Authorized && attempt.intent.is_none();
    if !waits || payment.is_given_up(number) {
        return Ok(Vec::new());
    }
    Ok(vec![PaymentEvent::CaptureRequested {
        order_id,
        attempt: number,
        amount: attempt.amount,
    }])
}

/// An authorization that is given up is voided by whatever gives it up, so there is never anything left to do here.
fn request_void(payment: &Payment, number: u32) -> Decision {
    let (_, attempt) = attempt_of(payment, number)?;
    if attempt.status == AttemptStatus::Authorized && !payment.is_given_up(number) {
        return Err(PaymentError::NotGivenUp { attempt: number });
    }
    Ok(Vec::new())
}

fn retry(payment: &Payment, method: &PaymentMethod) -> Decision {
    let current = payment.current_attempt();
    let (Some(order_id), Some(last)) = (payment.order_id, payment.attempts.last()) else {
        return Err(PaymentError::NotFound);
    };
    if payment.is_closed() {
        return Err(PaymentError::Closed);
    }
    if let Some(attempt) = payment.captured_attempt() {
        return Err(PaymentError::AlreadyCaptured { attempt });
    }
    if last.status != AttemptStatus::Declined {
        return Err(PaymentError::NotDeclined { attempt: current });
    }
    if current >= MAX_ATTEMPTS {
        return Err(PaymentError::TooManyAttempts { max: MAX_ATTEMPTS });
    }
    let (attempt, amount) = (current + 1, last.amount);
    Ok(vec![PaymentEvent::PaymentRetried {
        order_id,
        attempt,
        amount,
        method: method.clone(),
    }])
}

fn close(payment: &Payment, order_id: OrderId, reason: &Code) -> Decision {
    if payment.order_id.is_some_and(|of| of != order_id) {
        return Err(PaymentError::WrongOrder);
    }
    if payment.is_closed() {
        return Ok(Vec::new());
    }
    let attempt = payment.current_attempt();
    Ok(vec![PaymentEvent::PaymentCloseRequested {
        order_id,
        attempt,
        reason: reason.clone(),
    }])
}

fn record_declined(payment: &Payment, number: u32, code: &Code) -> Decision {
    let (order_id, attempt) = attempt_of(payment, number)?;
    if attempt.declined {
        return Ok(Vec::new());
    }
    Ok(vec![PaymentEvent::PaymentDeclined {
        order_id,
        attempt: number,
        code: code.clone(),
    }])
}

fn request_refund(
    payment: &Payment,
    refund_id: RefundId,
    number: u32,
    asked: RefundAmount,
    reason: &Code,
) -> Decision {
    let (order_id, attempt) = attempt_of(payment, number)?;
    if payment
        .attempts
        .iter()
        .any(|attempt| attempt.refunds.contains_key(&refund_id))
    {
        return Ok(Vec::new());
    }
    if attempt.status != AttemptStatus::Captured {
        return Err(PaymentError::NotCaptured { attempt: number });
    }
    let left = attempt.refundable();
    let amount = match asked {
        RefundAmount::Exactly(amount) | RefundAmount::UpTo(amount)
            if amount.currency() != left.currency() || amount.amount() <= 0 =>
        {
            return Err(PaymentError::InvalidAmount);
        }
        RefundAmount::Exactly(amount) if amount.amount() > left.amount() => {
            return Err(PaymentError::RefundExceedsCaptured { left });
        }
        RefundAmount::Exactly(amount) => amount,
        RefundAmount::UpTo(amount) if amount.amount() < left.amount() => amount,
        RefundAmount::UpTo(_) | RefundAmount::Everything => left,
    };
    if amount.is_zero() {
        return Ok(Vec::new());
    }
    if payment.has_money_intent() {
        // Once closed, the payment itself gives everything back as soon as it can.
        let met = asked == RefundAmount::Everything && is_refund_due(payment, number);
        return if met {
            Ok(Vec::new())
        } else {
            Err(PaymentError::IntentOpen)
        };
    }
    let reason = reason.clone();
    Ok(vec![PaymentEvent::RefundRequested {
        order_id,
        attempt: number,
        refund_id,
        amount,
        reason,
    }])
}

fn record_refund_failed(payment: &Payment, number: u32, refund_id: RefundId, code: &Code) -> Decision {
    let (order_id, attempt) = attempt_of(payment, number)?;
    match attempt.refunds.get(&refund_id) {
        None => Err(PaymentError::UnknownRefund { refund_id }),
        Some(Refund {
            status: RefundStatus::Requested,
            amount,
            ..
        }) => Ok(vec![PaymentEvent::RefundFailed {
            order_id,
            attempt: number,
            refund_id,
            amount: *amount,
            code: code.clone(),
        }]),
        Some(Refund {
            status: RefundStatus::Succeeded | RefundStatus::Failed,
            ..
        }) => Ok(Vec::new()),
    }
}
