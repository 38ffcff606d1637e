use event_schemas::{Money, RefundId};

/// Why a payment refuses a command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PaymentError {
    #[error("there is no such payment")]
    NotFound,
    /// With another order, amount or method.
    #[error("the payment was requested already")]
    AlreadyRequested,
    /// Another order's payment.
    #[error("the payment is another order's")]
    WrongOrder,
    /// 0 or less, or another currency than the payment's.
    #[error("the amount does not fit the payment")]
    InvalidAmount,
    #[error("the payment has no attempt {attempt}")]
    UnknownAttempt { attempt: u32 },
    /// Nothing more is paid, since the order was cancelled.
    #[error("the payment is closed")]
    Closed,
    /// There is nothing to retry.
    #[error("attempt {attempt} was not declined")]
    NotDeclined { attempt: u32 },
    /// An attempt, possibly an earlier one, has taken the money.
    #[error("attempt {attempt} was captured")]
    AlreadyCaptured { attempt: u32 },
    #[error("a payment has at most {max} attempts")]
    TooManyAttempts { max: u32 },
    /// There is nothing to refund.
    #[error("attempt {attempt} was not captured")]
    NotCaptured { attempt: u32 },
    /// The attempt is wanted: only a closed payment or an attempt that was superseded is voided.
    #[error("attempt {attempt} is not given up")]
    NotGivenUp { attempt: u32 },
    #[error("at most {left} can be refunded")]
    RefundExceedsCaptured { left: Money },
    #[error("the payment has no refund {refund_id}")]
    UnknownRefund { refund_id: RefundId },
    /// One intent that moves money is open at a time: try again when the provider has answered.
    #[error("another capture or refund is under way")]
    IntentOpen,
}

impl PaymentError {
    /// Whether the same command may be accepted later without anyone doing anything else.
    pub const fn retryable(&self) -> bool {
        matches!(self, Self::IntentOpen)
    }
}
