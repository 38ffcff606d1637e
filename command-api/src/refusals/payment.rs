use std::time::Duration;

use aggregates::payment::PaymentError;
use http_conventions::Problem;

use crate::execute::Refusal;

impl Refusal for PaymentError {
    fn problem(self) -> Problem {
        let detail = self.to_string();
        match self {
            Self::AlreadyRequested => {
                Problem::conflict("payment-requested", "The payment was requested already")
            }
            Self::WrongOrder => Problem::refused("wrong-order", "Another order's payment").detail(detail),
            Self::InvalidAmount => Problem::refused("invalid-amount", "Invalid amount").detail(detail),
            Self::UnknownAttempt { attempt } => Problem::refused("unknown-attempt", "No such attempt")
                .detail(detail)
                .with("attempt", attempt),
            Self::Closed => Problem::conflict("payment-closed", "The payment is closed").detail(detail),
            Self::NotDeclined { attempt } => Problem::conflict("nothing-to-retry", "Nothing to retry")
                .detail(detail)
                .with("attempt", attempt),
            Self::AlreadyCaptured { attempt } => Problem::conflict("already-paid", "Already paid")
                .detail(detail)
                .with("attempt", attempt),
            Self::TooManyAttempts { max } => Problem::conflict("too-many-attempts", "Too many attempts")
                .detail(detail)
                .with("max", max),
            Self::NotCaptured { attempt } => Problem::conflict("nothing-to-refund", "Nothing to refund")
                .detail(detail)
                .with("attempt", attempt),
            Self::NotGivenUp { attempt } => Problem::conflict("attempt-wanted", "The attempt is wanted")
                .detail(detail)
                .with("attempt", attempt),
            Self::RefundExceedsCaptured { left } => {
                Problem::refused("refund-exceeds-paid", "More than was paid")
                    .detail(detail)
                    .with("left", left)
            }
            Self::NotFound | Self::UnknownRefund { .. } => Problem::not_found(),
            Self::IntentOpen => Problem::conflict("payment-busy", "The payment is busy")
                .detail(detail)
                .retry_after(Duration::from_secs(1)),
        }
    }
}
