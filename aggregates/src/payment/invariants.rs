//! What holds after every event; and [`nothing_left_to_follow`], which holds after every accepted command.

use event_schemas::Money;

use super::follow_up::follow_up;
use super::{AttemptStatus, Intent, Payment, RefundStatus};

/// A named predicate over the state.
pub type Invariant = (&'static str, fn(&Payment) -> bool);

/// All of them.
pub const INVARIANTS: &[Invariant] = &[
    ("refunds within captured", refunds_within_captured),
    ("one money intent at a time", one_money_intent_at_a_time),
    ("captured once per attempt", captured_once_per_attempt),
    ("every fact once", every_fact_once),
    ("captured for good", captured_for_good),
    ("intents fit their attempt", intents_fit_their_attempt),
    ("one amount", one_amount),
];

/// Σ refunds requested and not failed ≤ captured, per attempt.
pub fn refunds_within_captured(payment: &Payment) -> bool {
    payment.attempts.iter().all(|attempt| {
        let refunds = attempt
            .refunds
            .values()
            .filter(|refund| refund.status != RefundStatus::Failed);
        let promised: i128 = refunds.map(|refund| i128::from(refund.amount.amount())).sum();
        promised <= i128::from(attempt.captured().amount())
    })
}

/// One capture or refund is open at a time, over all attempts.
pub fn one_money_intent_at_a_time(payment: &Payment) -> bool {
    let moves_money = |intent: &Intent| matches!(intent, Intent::Capture { .. } | Intent::Refund { .. });
    payment
        .open_intents()
        .iter()
        .filter(|intent| moves_money(intent))
        .count()
        <= 1
}

/// No attempt has two captures.
pub fn captured_once_per_attempt(payment: &Payment) -> bool {
    payment.attempts.iter().all(|attempt| attempt.captures() <= 1)
}

/// No fact and no anomaly is recorded twice.
pub fn every_fact_once(payment: &Payment) -> bool {
    fn distinct<T: PartialEq>(all: &[T]) -> bool {
        all.iter()
            .enumerate()
            .all(|(index, one)| !all[..index].contains(one))
    }
    distinct(&payment.anomalies) && payment.attempts.iter().all(|attempt| distinct(&attempt.facts))
}

/// Nothing that comes later hides a capture.
pub fn captured_for_good(payment: &Payment) -> bool {
    payment.attempts.iter().all(|attempt| {
        (attempt.captures() > 0) == (attempt.status == AttemptStatus::Captured)
            && (attempt.captures() == 0 || attempt.intent.is_none())
    })
}

/// A session is awaited only before anything else is known, a capture or void only of an authorization.
pub fn intents_fit_their_attempt(payment: &Payment) -> bool {
    payment
        .attempts
        .iter()
        .zip(1..)
        .all(|(attempt, number)| match attempt.intent {
            None => true,
            Some(Intent::Session { attempt: of }) => {
                of == number && attempt.status == AttemptStatus::Requested
            }
            Some(Intent::Capture { attempt: of } | Intent::Void { attempt: of }) => {
                of == number && attempt.status == AttemptStatus::Authorized
            }
            Some(Intent::Refund { .. }) => false,
        })
}

/// Every attempt is for the same amount, above 0.
pub fn one_amount(payment: &Payment) -> bool {
    let amounts: Vec<Money> = payment.attempts.iter().map(|attempt| attempt.amount).collect();
    amounts
        .iter()
        .all(|amount| *amount == amounts[0] && amount.amount() > 0)
}

/// What is given up is being voided; what is closed has expired, or is being refunded. Not within a decision: the event
/// that gives something up comes first.
pub fn nothing_left_to_follow(payment: &Payment) -> bool {
    follow_up(payment).is_empty()
}
