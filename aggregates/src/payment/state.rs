use event_schemas::{Anomaly, Code, OrderId, PaymentEvent, ProviderRef};
use serde::{Deserialize, Serialize};

use super::{Attempt, AttemptStatus, Intent, RefundStatus};

/// How far the whole payment has come: that of the attempt that took the money, else of the last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PaymentStatus {
    /// Not requested yet.
    Absent,
    Requested,
    Pending,
    Authorized,
    Captured,
    PartiallyRefunded,
    Refunded,
    Declined,
    Voided,
    Expired,
}

/// The payment of an order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payment {
    pub(super) order_id: Option<OrderId>,
    /// Attempt n is at index n − 1.
    pub(super) attempts: Vec<Attempt>,
    /// Why nothing more is paid, once closed.
    pub(super) closed: Option<Code>,
    pub(super) expired: bool,
    /// Reports that did not fit: attempt, provider reference and what was wrong.
    pub(super) anomalies: Vec<(u32, ProviderRef, Anomaly)>,
}

impl Payment {
    /// The order that is paid; none before the payment is requested.
    pub const fn order_id(&self) -> Option<OrderId> {
        self.order_id
    }

    /// How far it has come.
    pub fn status(&self) -> PaymentStatus {
        let captured = self
            .attempts
            .iter()
            .filter(|attempt| attempt.status == AttemptStatus::Captured);
        // A surplus that was given back does not hide the attempt that paid.
        if let Some(best) = captured.min_by_key(|attempt| attempt.refunded().amount()) {
            return match best.refunded().amount() {
                0 => PaymentStatus::Captured,
                refunded if refunded < best.amount.amount() => PaymentStatus::PartiallyRefunded,
                _ => PaymentStatus::Refunded,
            };
        }
        match self.attempts.last().map(|last| last.status) {
            None if self.expired => PaymentStatus::Expired,
            None => PaymentStatus::Absent,
            Some(AttemptStatus::Requested) => PaymentStatus::Requested,
            Some(AttemptStatus::Pending) => PaymentStatus::Pending,
            Some(AttemptStatus::Authorized) => PaymentStatus::Authorized,
            Some(AttemptStatus::Captured) => PaymentStatus::Captured,
            Some(AttemptStatus::Declined) => PaymentStatus::Declined,
            Some(AttemptStatus::Voided) => PaymentStatus::Voided,
            Some(AttemptStatus::Expired) => PaymentStatus::Expired,
        }
    }

    /// All attempts; number n is at index n − 1.
    pub fn attempts(&self) -> &[Attempt] {
        &self.attempts
    }

    /// The number of the last attempt; 0 before the first.
    pub fn current_attempt(&self) -> u32 {
        self.attempts.len() as u32
    }

    /// Attempt `number`, from 1.
    pub fn attempt(&self, number: u32) -> Option<&Attempt> {
        self.attempts.get(number.checked_sub(1)? as usize)
    }

    /// Whether it was closed: nothing more is captured.
    pub const fn is_closed(&self) -> bool {
        self.closed.is_some()
    }

    /// Whether attempt `number` is no longer wanted: the payment was closed, the attempt was retried, or another one has
    /// taken the money.
    pub fn is_given_up(&self, number: u32) -> bool {
        self.is_closed()
            || number < self.current_attempt()
            || self.captured_attempt().is_some_and(|captured| captured != number)
    }

    /// The first attempt that was captured, if any.
    pub fn captured_attempt(&self) -> Option<u32> {
        self.attempts
            .iter()
            .zip(1..)
            .find_map(|(attempt, number)| (attempt.status == AttemptStatus::Captured).then_some(number))
    }

    /// Whether the outcome of this call is still awaited. A worker asks before each call.
    pub fn is_open(&self, intent: Intent) -> bool {
        match intent {
            Intent::Session { attempt } | Intent::Capture { attempt } | Intent::Void { attempt } => self
                .attempt(attempt)
                .is_some_and(|attempt| attempt.intent == Some(intent)),
            Intent::Refund { attempt, refund_id } => self
                .attempt(attempt)
                .and_then(|attempt| attempt.refunds.get(&refund_id))
                .is_some_and(|refund| refund.status == RefundStatus::Requested),
        }
    }

    /// All calls whose outcome is awaited.
    pub fn open_intents(&self) -> Vec<Intent> {
        let mut open = Vec::new();
        for (attempt, number) in self.attempts.iter().zip(1..) {
            open.extend(attempt.intent);
            open.extend(attempt.open_refunds().map(|refund_id| Intent::Refund {
                attempt: number,
                refund_id,
            }));
        }
        open
    }

    /// Whether a capture or a refund is under way.
    pub(super) fn has_money_intent(&self) -> bool {
        self.attempts.iter().any(|attempt| {
            matches!(attempt.intent, Some(Intent::Capture { .. })) || attempt.open_refunds().next().is_some()
        })
    }

    fn attempt_mut(&mut self, number: u32) -> Option<&mut Attempt> {
        self.attempts.get_mut(number.checked_sub(1)? as usize)
    }
}

pub(super) fn evolve(payment: &mut Payment, event: &PaymentEvent) {
    use PaymentEvent as E;
    match event {
        E::PaymentRequested {
            order_id,
            amount,
            method,
            ..
        }
        | E::PaymentRetried {
            order_id,
            amount,
            method,
            ..
        } => {
            payment.order_id = Some(*order_id);
            payment.attempts.push(Attempt::new(*amount, method.clone()));
        }
        E::PaymentCloseRequested { order_id, reason, .. } => {
            payment.order_id = Some(*order_id);
            payment.closed = Some(reason.clone());
        }
        E::PaymentExpired { .. } => {
            payment.expired = true;
            if let Some(last) = payment.attempts.last_mut().filter(|last| last.can_expire()) {
                last.status = AttemptStatus::Expired;
            }
        }
        E::ProviderAnomalyRecorded {
            attempt,
            provider_ref,
            kind,
            ..
        } => {
            payment
                .anomalies
                .push((*attempt, provider_ref.clone(), kind.clone()));
        }
        E::SessionRequested { attempt, .. }
        | E::PaymentSessionCreated { attempt, .. }
        | E::PaymentAuthorized { attempt, .. }
        | E::CaptureRequested { attempt, .. }
        | E::PaymentCaptured { attempt, .. }
        | E::PaymentDeclined { attempt, .. }
        | E::VoidRequested { attempt, .. }
        | E::PaymentVoided { attempt, .. }
        | E::RefundRequested { attempt, .. }
        | E::RefundSucceeded { attempt, .. }
        | E::RefundFailed { attempt, .. } => {
            let number = *attempt;
            if let Some(attempt) = payment.attempt_mut(number) {
                attempt.evolve(number, event);
            }
        }
    }
}
