use aggregates::order::{AgreementError, OrderError};
use http_conventions::Problem;

use super::money;
use crate::execute::Refusal;

fn wrong_state(detail: String) -> Problem {
    Problem::conflict("wrong-order-state", "Not in this state of the order").detail(detail)
}

impl Refusal for AgreementError {
    fn problem(self) -> Problem {
        let detail = self.to_string();
        match self {
            Self::LineCount { max } => Problem::refused("too-many-lines", "Not that many lines")
                .detail(detail)
                .with("max", max),
            Self::Quantity { line_no, max } => {
                Problem::refused("quantity-out-of-range", "Quantity out of range")
                    .detail(detail)
                    .with("line_no", line_no)
                    .with("max", max)
            }
            Self::Price { line_no } => Problem::refused("invalid-price", "Invalid price")
                .detail(detail)
                .with("line_no", line_no),
            Self::Money(error) => money(error),
            // What we number, tax and add up ourselves.
            Self::LineNumber { .. } | Self::Tax { .. } | Self::Totals { .. } => Problem::internal(detail),
        }
    }
}

impl Refusal for OrderError {
    fn problem(self) -> Problem {
        let detail = self.to_string();
        match self {
            Self::AlreadyPlaced => Problem::conflict("order-exists", "The order exists already"),
            Self::Agreement(error) => error.problem(),
            Self::Cancelled => Problem::conflict("order-cancelled", "The order is cancelled"),
            Self::PaidByAnotherAttempt { attempt } => Problem::conflict("order-paid", "The order is paid")
                .detail(detail)
                .with("attempt", attempt),
            Self::AlreadyShipped => Problem::conflict("order-shipped", "The order has shipped")
                .detail("too late to cancel: return what arrives instead"),
            Self::WrongStatus { status } => wrong_state(detail).with("order_status", status),
            Self::UnknownSku { sku } => Problem::refused("unknown-sku", "Not in the order")
                .detail(detail)
                .with("sku", sku),
            Self::NotReserved { pending } => wrong_state(detail).with("pending", pending),
            Self::WrongPayment => Problem::refused("wrong-payment", "Another order's payment").detail(detail),
            Self::WrongAmount { expected } => Problem::refused("wrong-amount", "Wrong amount")
                .detail(detail)
                .with("expected", expected),
            Self::InvalidLine { line_no } => Problem::refused("invalid-line", "Line does not fit")
                .detail(detail)
                .with("line_no", line_no),
            Self::TooManyUnits { line_no, left } => Problem::refused("too-many-units", "Too many units")
                .detail(detail)
                .with("line_no", line_no)
                .with("left", left),
            Self::DuplicateShipment { shipment_id } => {
                Problem::conflict("shipment-exists", "The shipment exists already")
                    .with("shipment_id", shipment_id)
            }
            Self::DuplicateReturn { return_id } => {
                Problem::conflict("return-exists", "The return exists already").with("return_id", return_id)
            }
            Self::NotFound | Self::UnknownShipment { .. } | Self::UnknownReturn { .. } => {
                Problem::not_found()
            }
            Self::ReturnState { return_id } => {
                Problem::conflict("wrong-return-state", "Not in this state of the return")
                    .detail(detail)
                    .with("return_id", return_id)
            }
            Self::ReturnOpen => Problem::conflict("return-open", "A return is open").detail(detail),
            Self::RefundExceedsPaid { left } => Problem::refused("refund-exceeds-paid", "More than was paid")
                .detail(detail)
                .with("left", left),
            Self::Money(error) => money(error),
        }
    }
}
