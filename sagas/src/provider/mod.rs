//! The payment provider as the sagas see it. Every call names an idempotency key, and what happened under a key can be
//! asked for: after a time-out, or after a crash between the provider's answer and its record.

mod sandbox;

use std::fmt;
use std::time::Duration;

use event_schemas::{Code, Money, OrderId, PaymentId, ProviderRef, RefundId, SecretRef, Timestamp};

use crate::secrets::Secret;
pub use sandbox::{SandboxFault, SandboxOptions, SandboxProvider, token};

/// What the provider is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Open a session; with a token at hand it authorizes at once.
    Session,
    Capture,
    Void,
    Refund(RefundId),
}

/// The key under which the provider does something at most once: `<payment>/<attempt>/<operation or refund id>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct IdempotencyKey {
    pub payment: PaymentId,
    pub attempt: u32,
    pub operation: Operation,
}

impl fmt::Display for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            payment,
            attempt,
            operation,
        } = self;
        match operation {
            Operation::Session => write!(f, "{payment}/{attempt}/session"),
            Operation::Capture => write!(f, "{payment}/{attempt}/capture"),
            Operation::Void => write!(f, "{payment}/{attempt}/void"),
            Operation::Refund(refund) => write!(f, "{payment}/{attempt}/{refund}"),
        }
    }
}

/// One call.
#[derive(Debug, Clone)]
pub struct Request {
    pub key: IdempotencyKey,
    pub order: OrderId,
    pub amount: Money,
    /// The payment token; a session needs it.
    pub token: Option<Secret>,
}

/// What has happened at the provider under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// A session is open and waits for the customer; a report follows.
    SessionOpen {
        provider_ref: ProviderRef,
        checkout_ref: Option<SecretRef>,
    },
    /// The money is set aside.
    Authorized {
        provider_ref: ProviderRef,
        amount: Money,
    },
    /// The money was taken. Also the answer to a void that came too late.
    Captured {
        provider_ref: ProviderRef,
        amount: Money,
    },
    /// The authorization was given back.
    Voided {
        provider_ref: ProviderRef,
    },
    /// The money was given back.
    Refunded {
        provider_ref: ProviderRef,
        amount: Money,
    },
    Declined {
        code: Code,
    },
    /// Still at work on it: ask again after this long.
    InProgress {
        ask_again_after: Duration,
    },
}

/// Something that the provider says without being asked, later than its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// For [`Provider::acknowledge`].
    pub id: i64,
    pub payment: PaymentId,
    pub order: OrderId,
    pub attempt: u32,
    pub outcome: Outcome,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProviderError {
    /// The call did not reach the provider: nothing has happened.
    #[error("the provider is not reachable")]
    Down,
    /// The call may have been carried out: ask under its key.
    #[error("the provider did not answer in time; the outcome is unknown")]
    Unknown,
    /// The provider will never carry out this call: a defect here, not a decline.
    #[error("the provider refuses the call: {0}")]
    Misused(&'static str),
}

/// The payment providers that ship.
#[derive(Debug, Clone)]
pub enum Provider {
    Sandbox(SandboxProvider),
}

impl Provider {
    /// The name that payment methods know it by.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Sandbox(_) => "sandbox",
        }
    }

    /// Carries out `request`, at most once per key; a repeat gets the first outcome.
    pub async fn call(&self, request: Request) -> Result<Outcome, ProviderError> {
        match (self, request.key.operation) {
            (Self::Sandbox(sandbox), Operation::Session) => sandbox.session(request).await,
            (Self::Sandbox(sandbox), Operation::Capture) => sandbox.capture(request).await,
            (Self::Sandbox(sandbox), Operation::Void) => sandbox.void(request).await,
            (Self::Sandbox(sandbox), Operation::Refund(_)) => sandbox.refund(request).await,
        }
    }

    /// What happened under `key`; none if the provider has never seen it (which is no decline).
    pub async fn lookup(&self, key: IdempotencyKey) -> Result<Option<Outcome>, ProviderError> {
        match self {
            Self::Sandbox(sandbox) => sandbox.lookup(key).await,
        }
    }

    /// The reports that have not been acknowledged, oldest first, at most `max`.
    pub async fn reports(&self, max: usize) -> Result<Vec<Report>, ProviderError> {
        match self {
            Self::Sandbox(sandbox) => sandbox.reports(max).await,
        }
    }

    /// The report has been recorded and need not come again.
    pub async fn acknowledge(&self, report: &Report) -> Result<(), ProviderError> {
        match self {
            Self::Sandbox(sandbox) => sandbox.acknowledge(report.id).await,
        }
    }

    /// When the next report is due, if one is known to come. Never before now for one that is due.
    pub async fn next_report_at(&self) -> Result<Option<Timestamp>, ProviderError> {
        match self {
            Self::Sandbox(sandbox) => sandbox.next_report_at().await,
        }
    }
}
