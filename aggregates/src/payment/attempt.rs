use std::collections::BTreeMap;

use event_schemas::{Code, Money, PaymentEvent, PaymentMethod, ProviderRef, RefundId};
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

impl Attempt {
    pub(super) fn new(amount: Money, method: PaymentMethod) -> Self {
        Self {
            amount,
            method,
            status: AttemptStatus::Requested,
            facts: Vec::new(),
            declined: false,
            intent: None,
            refunds: BTreeMap::new(),
        }
    }

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

    /// What was taken.
    pub fn captured(&self) -> Money {
        if self.status == AttemptStatus::Captured {
            self.amount
        } else {
            self.zero()
        }
    }

    /// What was given back.
    pub fn refunded(&self) -> Money {
        self.sum_refunds(|refund| refund.status == RefundStatus::Succeeded)
    }

    /// What was taken and is neither given back nor on its way back.
    pub fn refundable(&self) -> Money {
        let spoken_for = self.sum_refunds(|refund| refund.status != RefundStatus::Failed);
        self.captured().checked_sub(spoken_for).unwrap_or(self.zero())
    }

    fn zero(&self) -> Money {
        Money::zero(self.amount.currency())
    }

    fn sum_refunds(&self, which: impl Fn(&Refund) -> bool) -> Money {
        // Refunds are in the attempt's currency and within its amount: the sum has a result.
        self.refunds
            .values()
            .filter(|refund| which(refund))
            .fold(self.zero(), |sum, refund| {
                sum.checked_add(refund.amount).unwrap_or(sum)
            })
    }

    pub(super) fn open_refunds(&self) -> impl Iterator<Item = RefundId> {
        self.refunds
            .iter()
            .filter(|(_, refund)| refund.status == RefundStatus::Requested)
            .map(|(refund_id, _)| *refund_id)
    }

    pub(super) fn has_fact(&self, operation: Operation, provider_ref: &ProviderRef) -> bool {
        self.facts
            .iter()
            .any(|(known, of)| *known == operation && of == provider_ref)
    }

    /// What the provider calls the capture, if there was one.
    pub fn capture_ref(&self) -> Option<&ProviderRef> {
        self.provider_ref(Operation::Capture)
    }

    /// What the provider calls the session, if one was opened.
    pub fn session_ref(&self) -> Option<&ProviderRef> {
        self.provider_ref(Operation::Session)
    }

    /// What the provider calls the authorization, if there was one.
    pub fn authorization_ref(&self) -> Option<&ProviderRef> {
        self.provider_ref(Operation::Authorize)
    }

    fn provider_ref(&self, operation: Operation) -> Option<&ProviderRef> {
        self.facts
            .iter()
            .find(|(known, _)| *known == operation)
            .map(|(_, provider_ref)| provider_ref)
    }

    pub(super) fn captures(&self) -> usize {
        self.facts
            .iter()
            .filter(|(operation, _)| *operation == Operation::Capture)
            .count()
    }

    /// Nothing was authorized, and nothing of it lives at the provider as far as is known.
    pub(super) const fn can_expire(&self) -> bool {
        matches!(
            self.status,
            AttemptStatus::Requested | AttemptStatus::Pending | AttemptStatus::Declined
        )
    }

    /// Follows an event of attempt `number`, which is this one.
    pub(super) fn evolve(&mut self, number: u32, event: &PaymentEvent) {
        use PaymentEvent as E;
        match event {
            E::SessionRequested { .. } => self.intent = Some(Intent::Session { attempt: number }),
            E::CaptureRequested { .. } => {
                self.intent = Some(Intent::Capture { attempt: number });
                self.declined = false;
            }
            E::VoidRequested { .. } => self.intent = Some(Intent::Void { attempt: number }),
            E::PaymentSessionCreated { provider_ref, .. } => self.on_session(provider_ref),
            E::PaymentAuthorized { provider_ref, .. } => self.on_authorized(provider_ref),
            E::PaymentCaptured { provider_ref, .. } => self.on_captured(provider_ref),
            E::PaymentVoided { provider_ref, .. } => self.on_voided(provider_ref),
            E::PaymentDeclined { .. } => self.on_declined(),
            E::RefundRequested {
                refund_id,
                amount,
                reason,
                ..
            } => {
                let refund = Refund {
                    amount: *amount,
                    reason: reason.clone(),
                    status: RefundStatus::Requested,
                };
                self.refunds.insert(*refund_id, refund);
            }
            E::RefundSucceeded { refund_id, .. } => self.settle_refund(*refund_id, RefundStatus::Succeeded),
            E::RefundFailed { refund_id, .. } => self.settle_refund(*refund_id, RefundStatus::Failed),
            E::PaymentRequested { .. }
            | E::PaymentRetried { .. }
            | E::PaymentCloseRequested { .. }
            | E::PaymentExpired { .. }
            | E::ProviderAnomalyRecorded { .. } => {}
        }
    }

    fn on_session(&mut self, provider_ref: &ProviderRef) {
        self.facts.push((Operation::Session, provider_ref.clone()));
        self.session_is_answered();
        if self.status == AttemptStatus::Requested {
            self.status = AttemptStatus::Pending;
        }
    }

    fn on_authorized(&mut self, provider_ref: &ProviderRef) {
        self.facts.push((Operation::Authorize, provider_ref.clone()));
        self.session_is_answered();
        match self.status {
            // It was given back or taken since: the report is old.
            AttemptStatus::Captured | AttemptStatus::Voided => {}
            AttemptStatus::Requested
            | AttemptStatus::Pending
            | AttemptStatus::Authorized
            | AttemptStatus::Declined
            | AttemptStatus::Expired => self.status = AttemptStatus::Authorized,
        }
    }

    fn on_captured(&mut self, provider_ref: &ProviderRef) {
        self.facts.push((Operation::Capture, provider_ref.clone()));
        self.status = AttemptStatus::Captured;
        self.intent = None;
    }

    fn on_voided(&mut self, provider_ref: &ProviderRef) {
        self.facts.push((Operation::Void, provider_ref.clone()));
        self.intent = None;
        if self.status != AttemptStatus::Captured {
            self.status = AttemptStatus::Voided;
        }
    }

    fn on_declined(&mut self) {
        self.declined = true;
        // A void that is under way ends in a void or in a capture.
        if matches!(self.intent, Some(Intent::Void { .. })) {
            return;
        }
        self.intent = None;
        if self.can_expire() || self.status == AttemptStatus::Authorized {
            self.status = AttemptStatus::Declined;
        }
    }

    fn session_is_answered(&mut self) {
        if matches!(self.intent, Some(Intent::Session { .. })) {
            self.intent = None;
        }
    }

    fn settle_refund(&mut self, refund_id: RefundId, status: RefundStatus) {
        if let Some(refund) = self.refunds.get_mut(&refund_id) {
            refund.status = status;
        }
    }
}
