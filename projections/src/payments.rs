//! `payments`: each payment with its attempts and refunds.

use event_schemas::{
    AggregateType, Code, Event, Money, MoneyError, OrderId, PaymentEvent, PaymentId, PaymentMethod,
    ProviderRef, RecordedEvent, RefundId, SecretRef, Timestamp, Version,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::document::Document;
use crate::schema::MoneySchema;
use crate::view::{DocId, FoldError, View};

/// The view. Documents are named by payment id.
#[derive(Debug)]
pub struct Payments;

/// What a payment's events add up to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PaymentPart {
    pub(crate) order_id: OrderId,
    /// Never empty: the first event requests attempt 1.
    pub(crate) attempts: Vec<AttemptPart>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    refunds: Vec<RefundView>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    closing: Option<Code>,
    /// How many reports of the provider did not fit. A count, since a provider may send many.
    #[serde(default)]
    anomalies: u32,
    updated_at: Timestamp,
}

/// One attempt to pay, as stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct AttemptPart {
    pub(crate) attempt: u32,
    pub(crate) status: PaymentStatus,
    amount: Money,
    method: Code,
    provider: Code,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    authorized: Option<Money>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    captured: Option<Money>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    declined: Option<Code>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    provider_ref: Option<ProviderRef>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    checkout_ref: Option<SecretRef>,
}

/// How far a payment, or one attempt of it, has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PaymentStatus {
    Requested,
    /// The provider has a session open; the customer may have to act.
    Pending,
    Authorized,
    Captured,
    PartiallyRefunded,
    Refunded,
    /// The customer may try again until the order's deadline.
    Declined,
    Expired,
    Voided,
}

impl PaymentStatus {
    /// The name in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::Pending => "pending",
            Self::Authorized => "authorized",
            Self::Captured => "captured",
            Self::PartiallyRefunded => "partially-refunded",
            Self::Refunded => "refunded",
            Self::Declined => "declined",
            Self::Expired => "expired",
            Self::Voided => "voided",
        }
    }
}

/// One attempt to pay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = PaymentAttempt)]
pub struct AttemptView {
    /// From 1.
    pub attempt: u32,
    pub status: PaymentStatus,
    #[schema(value_type = MoneySchema)]
    pub amount: Money,
    #[schema(value_type = String)]
    pub method: Code,
    #[schema(value_type = String)]
    pub provider: Code,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<MoneySchema>)]
    pub authorized: Option<Money>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<MoneySchema>)]
    pub captured: Option<Money>,
    /// Why the provider declined.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub declined: Option<Code>,
    /// What the provider calls it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub provider_ref: Option<ProviderRef>,
    /// Names the URL that the customer has to visit. Not for clients: they get the URL.
    #[serde(skip)]
    #[schema(ignore)]
    pub checkout_ref: Option<SecretRef>,
}

/// How far a refund has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RefundStatus {
    Requested,
    Succeeded,
    Failed,
}

/// Money on its way back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = Refund)]
pub struct RefundView {
    #[schema(value_type = String, format = Uuid)]
    pub refund_id: RefundId,
    pub attempt: u32,
    pub status: RefundStatus,
    #[schema(value_type = MoneySchema)]
    pub amount: Money,
    #[schema(value_type = String)]
    pub reason: Code,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub failed: Option<Code>,
}

/// A payment as it is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Payment)]
pub struct PaymentView {
    #[schema(value_type = String, format = Uuid)]
    pub payment_id: PaymentId,
    /// Whose payment it is: the order's customer.
    #[schema(value_type = String, format = Uuid)]
    pub order_id: OrderId,
    #[schema(value_type = u64)]
    pub version: Version,
    pub status: PaymentStatus,
    /// What the latest attempt asks for.
    #[schema(value_type = MoneySchema)]
    pub amount: Money,
    /// Over all attempts.
    #[schema(value_type = MoneySchema)]
    pub captured: Money,
    /// Over all attempts; only what the provider has confirmed.
    #[schema(value_type = MoneySchema)]
    pub refunded: Money,
    pub attempts: Vec<AttemptView>,
    pub refunds: Vec<RefundView>,
    /// Why nothing more is captured.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub closing: Option<Code>,
    /// How many reports of the provider did not fit the payment.
    pub anomalies: u32,
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
}

/// A payment in short, as an order shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct PaymentSummary {
    #[schema(value_type = String, format = Uuid)]
    pub payment_id: PaymentId,
    pub status: PaymentStatus,
    /// The latest attempt, from 1; 0 while none has been made.
    pub attempt: u32,
    #[schema(value_type = MoneySchema)]
    pub amount: Money,
    /// Why the provider declined the latest attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub declined: Option<Code>,
    /// Names the URL that the customer has to visit. Not for clients: they get the URL.
    #[serde(skip)]
    #[schema(ignore)]
    pub checkout_ref: Option<SecretRef>,
}

impl View for Payments {
    const NAME: &'static str = "payments";
    const VERSION: u32 = 1;
    const SOURCES: &'static [AggregateType] = &[AggregateType::Payment];

    type Part = PaymentPart;
    type Doc = PaymentView;

    fn route(event: &RecordedEvent) -> Option<DocId> {
        matches!(event.event, Event::Payment(_)).then(|| event.stream.aggregate_id.clone())
    }

    fn apply(part: Option<PaymentPart>, recorded: &RecordedEvent) -> Result<PaymentPart, FoldError> {
        match &recorded.event {
            Event::Payment(event) => PaymentPart::apply(part, event, recorded.recorded_at),
            other => Err(FoldError::Misrouted {
                event_type: other.name(),
                view: Self::NAME,
            }),
        }
    }

    fn combine(id: &DocId, document: &Document<PaymentPart>) -> Option<PaymentView> {
        let source = document.source(AggregateType::Payment)?;
        let part = &source.part;
        let latest = part.attempts.last()?;
        let zero = Money::zero(latest.amount.currency());
        Some(PaymentView {
            payment_id: id.as_str().parse().ok()?,
            order_id: part.order_id,
            version: source.version,
            status: part.status(),
            amount: latest.amount,
            captured: part
                .attempts
                .iter()
                .filter_map(|attempt| attempt.captured)
                .try_fold(zero, Money::checked_add)
                .ok()?,
            refunded: part
                .succeeded()
                .map(|refund| refund.amount)
                .try_fold(zero, Money::checked_add)
                .ok()?,
            attempts: part
                .attempts
                .iter()
                .map(|attempt| part.attempt_view(attempt))
                .collect(),
            refunds: part.refunds.clone(),
            closing: part.closing.clone(),
            anomalies: part.anomalies,
            updated_at: part.updated_at,
        })
    }
}

impl PaymentPart {
    #[expect(clippy::too_many_lines, reason = "an arm per event")]
    pub(crate) fn apply(part: Option<Self>, event: &PaymentEvent, at: Timestamp) -> Result<Self, FoldError> {
        let event_type = event.name();
        let Some(mut part) = part else {
            let PaymentEvent::PaymentRequested {
                order_id,
                attempt,
                amount,
                method,
            } = event
            else {
                return Err(FoldError::NotBegun { event_type });
            };
            return Ok(Self {
                order_id: *order_id,
                attempts: vec![AttemptPart::new(*attempt, *amount, method)],
                refunds: Vec::new(),
                closing: None,
                anomalies: 0,
                updated_at: at,
            });
        };
        part.updated_at = at;
        match event {
            PaymentEvent::PaymentRequested {
                attempt,
                amount,
                method,
                ..
            }
            | PaymentEvent::PaymentRetried {
                attempt,
                amount,
                method,
                ..
            } => {
                part.attempts.push(AttemptPart::new(*attempt, *amount, method));
            }
            PaymentEvent::SessionRequested { .. }
            | PaymentEvent::CaptureRequested { .. }
            | PaymentEvent::VoidRequested { .. } => {}
            PaymentEvent::PaymentSessionCreated {
                attempt,
                provider_ref,
                checkout_ref,
                ..
            } => {
                let attempt = part.attempt(*attempt, event_type)?;
                attempt.provider_ref = Some(provider_ref.clone());
                attempt.checkout_ref.clone_from(checkout_ref);
                if attempt.status == PaymentStatus::Requested {
                    attempt.status = PaymentStatus::Pending;
                }
            }
            PaymentEvent::PaymentAuthorized {
                attempt,
                provider_ref,
                amount,
                ..
            } => {
                let attempt = part.attempt(*attempt, event_type)?;
                attempt.provider_ref = Some(provider_ref.clone());
                attempt.authorized = Some(*amount);
                attempt.now(PaymentStatus::Authorized);
            }
            PaymentEvent::PaymentCaptured {
                attempt,
                provider_ref,
                amount,
                ..
            } => {
                let attempt = part.attempt(*attempt, event_type)?;
                attempt.provider_ref = Some(provider_ref.clone());
                let before = attempt.captured.unwrap_or(Money::zero(amount.currency()));
                attempt.captured = Some(in_range(before.checked_add(*amount), event_type)?);
                attempt.now(PaymentStatus::Captured);
            }
            PaymentEvent::PaymentDeclined { attempt, code, .. } => {
                let attempt = part.attempt(*attempt, event_type)?;
                attempt.declined = Some(code.clone());
                attempt.now(PaymentStatus::Declined);
            }
            PaymentEvent::PaymentCloseRequested { reason, .. } => part.closing = Some(reason.clone()),
            PaymentEvent::PaymentVoided { attempt, .. } => {
                part.attempt(*attempt, event_type)?.now(PaymentStatus::Voided);
            }
            PaymentEvent::PaymentExpired { attempt, .. } => {
                part.attempt(*attempt, event_type)?.now(PaymentStatus::Expired);
            }
            PaymentEvent::RefundRequested {
                attempt,
                refund_id,
                amount,
                reason,
                ..
            } => {
                part.refunds.push(RefundView {
                    refund_id: *refund_id,
                    attempt: *attempt,
                    status: RefundStatus::Requested,
                    amount: *amount,
                    reason: reason.clone(),
                    failed: None,
                });
            }
            PaymentEvent::RefundSucceeded { refund_id, .. } => {
                part.refund(*refund_id, event_type)?.status = RefundStatus::Succeeded;
            }
            PaymentEvent::RefundFailed { refund_id, code, .. } => {
                let refund = part.refund(*refund_id, event_type)?;
                refund.status = RefundStatus::Failed;
                refund.failed = Some(code.clone());
            }
            PaymentEvent::ProviderAnomalyRecorded { .. } => part.anomalies = part.anomalies.saturating_add(1),
        }
        Ok(part)
    }

    /// The payment in short; none for a part without attempts, which no event makes.
    pub(crate) fn summary(&self, payment_id: PaymentId) -> Option<PaymentSummary> {
        let latest = self.attempts.last()?;
        Some(PaymentSummary {
            payment_id,
            status: self.status(),
            attempt: latest.attempt,
            amount: latest.amount,
            declined: latest.declined.clone(),
            checkout_ref: latest.checkout_ref.clone(),
        })
    }

    /// That of the attempt that holds money, else of the latest.
    fn status(&self) -> PaymentStatus {
        let holds_money = |status: &PaymentStatus| {
            matches!(status, PaymentStatus::Captured | PaymentStatus::PartiallyRefunded)
        };
        let statuses = || self.attempts.iter().rev().map(|attempt| self.status_of(attempt));
        statuses()
            .find(holds_money)
            .or_else(|| statuses().next())
            .unwrap_or(PaymentStatus::Requested)
    }

    fn status_of(&self, attempt: &AttemptPart) -> PaymentStatus {
        let Some(captured) = attempt.captured else {
            return attempt.status;
        };
        let of_attempt = self
            .succeeded()
            .filter(|refund| refund.attempt == attempt.attempt);
        let refunded: i64 = of_attempt.map(|refund| refund.amount.amount()).sum();
        match refunded {
            0 => PaymentStatus::Captured,
            refunded if refunded < captured.amount() => PaymentStatus::PartiallyRefunded,
            _ => PaymentStatus::Refunded,
        }
    }

    fn succeeded(&self) -> impl Iterator<Item = &RefundView> {
        self.refunds
            .iter()
            .filter(|refund| refund.status == RefundStatus::Succeeded)
    }

    fn attempt_view(&self, attempt: &AttemptPart) -> AttemptView {
        let status = self.status_of(attempt);
        let AttemptPart {
            attempt,
            amount,
            method,
            provider,
            authorized,
            captured,
            declined,
            provider_ref,
            checkout_ref,
            ..
        } = attempt.clone();
        AttemptView {
            attempt,
            status,
            amount,
            method,
            provider,
            authorized,
            captured,
            declined,
            provider_ref,
            checkout_ref,
        }
    }

    fn attempt(&mut self, number: u32, event_type: &'static str) -> Result<&mut AttemptPart, FoldError> {
        let found = self.attempts.iter_mut().find(|attempt| attempt.attempt == number);
        found.ok_or_else(|| FoldError::Unknown {
            event_type,
            what: format!("attempt {number}"),
        })
    }

    fn refund(&mut self, id: RefundId, event_type: &'static str) -> Result<&mut RefundView, FoldError> {
        let found = self.refunds.iter_mut().find(|refund| refund.refund_id == id);
        found.ok_or_else(|| FoldError::Unknown {
            event_type,
            what: format!("refund {id}"),
        })
    }
}

impl AttemptPart {
    fn new(attempt: u32, amount: Money, method: &PaymentMethod) -> Self {
        Self {
            attempt,
            status: PaymentStatus::Requested,
            amount,
            method: method.method.clone(),
            provider: method.provider.clone(),
            authorized: None,
            captured: None,
            declined: None,
            provider_ref: None,
            checkout_ref: None,
        }
    }

    /// A provider's fact is recorded in every state, so one may arrive late: nothing hides that money was taken.
    fn now(&mut self, status: PaymentStatus) {
        if self.captured.is_none() || status == PaymentStatus::Captured {
            self.status = status;
        }
    }
}

pub(crate) fn in_range<T>(result: Result<T, MoneyError>, event_type: &'static str) -> Result<T, FoldError> {
    result.map_err(|_| FoldError::OutOfRange { event_type })
}
