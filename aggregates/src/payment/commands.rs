use event_schemas::{Code, Money, OrderId, PaymentMethod, ProviderRef, RefundId, SecretRef};
use serde::{Deserialize, Serialize};

/// What can be asked of a payment.
///
/// The `Record…` commands report facts from the provider. They are accepted in every state; a repeat of a recorded
/// fact is a no-op, and a report that does not fit the payment is recorded as an anomaly.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PaymentCommand {
    /// The first attempt. The same again is a no-op, and so is any after the payment was closed.
    Request {
        order_id: OrderId,
        /// Above 0.
        amount: Money,
        method: PaymentMethod,
    },
    /// Intent: open a session with the provider. A no-op unless the attempt still waits for it.
    RequestSession { attempt: u32 },
    RecordSession {
        /// As the provider reports it, here and below.
        order_id: OrderId,
        attempt: u32,
        provider_ref: ProviderRef,
        /// Names the URL that the customer has to visit, if any.
        checkout_ref: Option<SecretRef>,
    },
    RecordAuthorized {
        order_id: OrderId,
        attempt: u32,
        provider_ref: ProviderRef,
        amount: Money,
    },
    /// Intent: take the money. A no-op unless the attempt is authorized and still wanted.
    RequestCapture { attempt: u32 },
    RecordCaptured {
        order_id: OrderId,
        attempt: u32,
        provider_ref: ProviderRef,
        amount: Money,
    },
    /// The session or the capture failed for good: never for "not found" or an unknown outcome.
    RecordDeclined { attempt: u32, code: Code },
    /// The customer tries again after a decline.
    Retry { method: PaymentMethod },
    /// From now on nothing is captured: what is authorized is voided, what was captured is refunded in full.
    Close { order_id: OrderId, reason: Code },
    /// Intent: give the authorization back. A no-op unless the attempt is authorized.
    RequestVoid { attempt: u32 },
    RecordVoided {
        order_id: OrderId,
        attempt: u32,
        provider_ref: ProviderRef,
    },
    /// Intent: give money back. The same `refund_id` again is a no-op.
    RequestRefund {
        refund_id: RefundId,
        attempt: u32,
        amount: RefundAmount,
        reason: Code,
    },
    RecordRefundSucceeded {
        order_id: OrderId,
        attempt: u32,
        refund_id: RefundId,
        provider_ref: ProviderRef,
        amount: Money,
    },
    /// For good: a failed refund can be requested again under another id.
    RecordRefundFailed {
        attempt: u32,
        refund_id: RefundId,
        code: Code,
    },
}

/// How much to give back of what an attempt captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RefundAmount {
    /// This much, or the refund is refused: what staff ask for.
    Exactly(Money),
    /// This much or what is left of it, and nothing if nothing is left: what a policy asks for after a return.
    UpTo(Money),
    /// All that is left, and nothing if nothing is left: what a policy asks for when the money was not due.
    Everything,
}

impl PaymentCommand {
    /// The command's name, such as `RecordCaptured`.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Request { .. } => "Request",
            Self::RequestSession { .. } => "RequestSession",
            Self::RecordSession { .. } => "RecordSession",
            Self::RecordAuthorized { .. } => "RecordAuthorized",
            Self::RequestCapture { .. } => "RequestCapture",
            Self::RecordCaptured { .. } => "RecordCaptured",
            Self::RecordDeclined { .. } => "RecordDeclined",
            Self::Retry { .. } => "Retry",
            Self::Close { .. } => "Close",
            Self::RequestVoid { .. } => "RequestVoid",
            Self::RecordVoided { .. } => "RecordVoided",
            Self::RequestRefund { .. } => "RequestRefund",
            Self::RecordRefundSucceeded { .. } => "RecordRefundSucceeded",
            Self::RecordRefundFailed { .. } => "RecordRefundFailed",
        }
    }
}
