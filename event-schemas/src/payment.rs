//! Events of a payment. Each call to the provider has its intent event first; each fact from the provider is recorded
//! whatever state the payment is in. Every event carries the order and the attempt it belongs to.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::event_names;
use crate::ids::{OrderId, RefundId};
use crate::money::Money;
use crate::values::{Code, ProviderRef, SecretRef};

/// How the customer pays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PaymentMethod {
    /// Such as `card` or `sandbox`.
    pub method: Code,
    /// Who moves the money.
    pub provider: Code,
    /// Names the payment token, which is kept beside the log and expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretRef>,
}

/// A provider's report that does not fit the payment. It changes nothing but is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Anomaly {
    AmountMismatch {
        expected: Money,
        reported: Money,
    },
    CurrencyMismatch {
        expected: Money,
        reported: Money,
    },
    OrderMismatch {
        reported: OrderId,
    },
    /// The provider reports an attempt that was never made.
    UnknownAttempt {
        reported: u32,
    },
    /// The provider reports a refund that was never requested.
    UnknownRefund {
        reported: RefundId,
    },
    /// The provider reports a second capture of an attempt whose capture is on record as `recorded`.
    SecondCapture {
        recorded: ProviderRef,
        reported: Money,
    },
}

/// What can have happened to a payment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PaymentEvent {
    PaymentRequested {
        order_id: OrderId,
        /// From 1.
        attempt: u32,
        amount: Money,
        method: PaymentMethod,
    },
    /// Intent: open a session with the provider.
    SessionRequested {
        order_id: OrderId,
        attempt: u32,
    },
    PaymentSessionCreated {
        order_id: OrderId,
        attempt: u32,
        provider_ref: ProviderRef,
        /// Names the URL that the customer has to visit, if any.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        checkout_ref: Option<SecretRef>,
    },
    PaymentAuthorized {
        order_id: OrderId,
        attempt: u32,
        provider_ref: ProviderRef,
        amount: Money,
    },
    /// Intent: take the money.
    CaptureRequested {
        order_id: OrderId,
        attempt: u32,
        amount: Money,
    },
    PaymentCaptured {
        order_id: OrderId,
        attempt: u32,
        provider_ref: ProviderRef,
        amount: Money,
    },
    PaymentDeclined {
        order_id: OrderId,
        attempt: u32,
        code: Code,
    },
    /// The customer tries again: a new attempt is requested.
    PaymentRetried {
        order_id: OrderId,
        attempt: u32,
        amount: Money,
        method: PaymentMethod,
    },
    /// From now on nothing is captured: what is open is voided, what was captured is refunded.
    PaymentCloseRequested {
        order_id: OrderId,
        attempt: u32,
        reason: Code,
    },
    /// Intent: give the authorization back.
    VoidRequested {
        order_id: OrderId,
        attempt: u32,
    },
    PaymentVoided {
        order_id: OrderId,
        attempt: u32,
        provider_ref: ProviderRef,
    },
    PaymentExpired {
        order_id: OrderId,
        attempt: u32,
    },
    /// Intent: give money back.
    RefundRequested {
        order_id: OrderId,
        attempt: u32,
        refund_id: RefundId,
        amount: Money,
        reason: Code,
    },
    RefundSucceeded {
        order_id: OrderId,
        attempt: u32,
        refund_id: RefundId,
        provider_ref: ProviderRef,
        amount: Money,
    },
    RefundFailed {
        order_id: OrderId,
        attempt: u32,
        refund_id: RefundId,
        amount: Money,
        code: Code,
    },
    ProviderAnomalyRecorded {
        order_id: OrderId,
        attempt: u32,
        provider_ref: ProviderRef,
        kind: Anomaly,
    },
}

event_names!(PaymentEvent, Payment;
    PaymentRequested = "1.0", SessionRequested = "1.0", PaymentSessionCreated = "1.0", PaymentAuthorized = "1.0",
    CaptureRequested = "1.0", PaymentCaptured = "1.0", PaymentDeclined = "1.0", PaymentRetried = "1.0",
    PaymentCloseRequested = "1.0", VoidRequested = "1.0", PaymentVoided = "1.0", PaymentExpired = "1.0",
    RefundRequested = "1.0", RefundSucceeded = "1.0", RefundFailed = "1.0", ProviderAnomalyRecorded = "1.0");

impl PaymentEvent {
    /// The order that the event belongs to.
    pub const fn order_id(&self) -> OrderId {
        match self {
            Self::PaymentRequested { order_id, .. }
            | Self::SessionRequested { order_id, .. }
            | Self::PaymentSessionCreated { order_id, .. }
            | Self::PaymentAuthorized { order_id, .. }
            | Self::CaptureRequested { order_id, .. }
            | Self::PaymentCaptured { order_id, .. }
            | Self::PaymentDeclined { order_id, .. }
            | Self::PaymentRetried { order_id, .. }
            | Self::PaymentCloseRequested { order_id, .. }
            | Self::VoidRequested { order_id, .. }
            | Self::PaymentVoided { order_id, .. }
            | Self::PaymentExpired { order_id, .. }
            | Self::RefundRequested { order_id, .. }
            | Self::RefundSucceeded { order_id, .. }
            | Self::RefundFailed { order_id, .. }
            | Self::ProviderAnomalyRecorded { order_id, .. } => *order_id,
        }
    }
}
