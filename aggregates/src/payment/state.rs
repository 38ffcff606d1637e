use std::collections::BTreeMap;

use event_schemas::{Anomaly, Code, Money, OrderId, PaymentEvent, PaymentMethod, ProviderRef, RefundId};
use serde::{Deserialize, Serialize};

/// How far an attempt has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AttemptStatus {
    #[default]
    Requested,
    /// The provider has opened a session.
    Pending,
    /// The provider holds the money for us.
    Authorized,
    Captured,
    Declined,
    /// The authorization was given back.
    Voided,
    /// Closed before anything was authorized.
    Expired,
}

/// A call to the provider that is to be made, and whose outcome is not known yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Intent {
    Session { attempt: u32 },
    Capture { attempt: u32 },
    Void { attempt: u32 },
    Refund { attempt: u32, refund_id: RefundId },
}

/// How far a refund has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RefundStatus {
    Requested,
    Succeeded,
    Failed,
}

/// Money on its way back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refund {
    pub amount: Money,
    pub reason: Code,
    pub status: RefundStatus,
}

/// What a report of the provider is about; with attempt and provider reference, the identity of a fact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Operation {
    Session,
    Authorize,
    Capture,
    Void,
}

/// One try to pay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    pub(super) amount: Money,
    pub(super) method: PaymentMethod,
    pub(super) status: AttemptStatus,
    /// Facts that were recorded, in that order.
    pub(super) facts: Vec<(Operation, ProviderRef)>,
    /// Whether a decline was recorded since the last intent: a second report of it is told apart by this.
    pub(super) declined: bool,
    /// The open session, capture or void.
    pub(super) intent: Option<Intent>,
    pub(super) refunds: BTreeMap<RefundId, Refund>,
}

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
        todo!()
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

    /// Whether the outcome of this call is still awaited. A worker asks before each call.
    pub fn is_open(&self, intent: Intent) -> bool {
        let _ = intent;
        todo!()
    }

    /// All calls whose outcome is awaited.
    pub fn open_intents(&self) -> Vec<Intent> {
        todo!()
    }
}

impl Attempt {
    /// What is to be paid.
    pub const fn amount(&self) -> Money {
        self.amount
    }

    /// How it is to be paid.
    pub const fn method(&self) -> &PaymentMethod {
        &self.method
    }

    /// How far it has come.
    pub const fn status(&self) -> AttemptStatus {
        self.status
    }

    /// Its refunds.
    pub const fn refunds(&self) -> &BTreeMap<RefundId, Refund> {
        &self.refunds
    }
}

pub(super) fn evolve(payment: &mut Payment, event: &PaymentEvent) {
    let _ = (payment, event);
    todo!()
}
