use event_schemas::{Money, MoneyError, ReturnId, ShipmentId, Sku};

use super::OrderStatus;

/// Why lines, shipping and totals make no order.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AgreementError {
    #[error("an order has 1 to {max} lines")]
    LineCount { max: usize },
    /// Lines are numbered 1, 2, 3, …
    #[error("line {expected} is numbered otherwise")]
    LineNumber { expected: u32 },
    #[error("line {line_no} has no quantity from 1 to {max}")]
    Quantity { line_no: u32, max: u32 },
    /// A price, discount or tax below 0, or a discount above its price. `line_no` 0 is the shipping.
    #[error("line {line_no} has a price, discount or tax out of range")]
    Price { line_no: u32 },
    /// Not the half-even share of its net price. `line_no` 0 is the shipping.
    #[error("the tax of line {line_no} is not {expected}")]
    Tax { line_no: u32, expected: Money },
    #[error("the totals do not add up: the total is {expected}")]
    Totals { expected: Money },
    /// Two currencies, or a sum that is out of range.
    #[error(transparent)]
    Money(#[from] MoneyError),
}

/// Why an order refuses a command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    #[error("there is no such order")]
    NotFound,
    /// With another content.
    #[error("the order was placed already")]
    AlreadyPlaced,
    #[error(transparent)]
    Agreement(#[from] AgreementError),
    /// What was reserved or captured for it has to be given back.
    #[error("the order is cancelled")]
    Cancelled,
    /// What the other attempt captured has to be given back.
    #[error("the order was paid by attempt {attempt}")]
    PaidByAnotherAttempt { attempt: u32 },
    /// Too late to cancel.
    #[error("the order has shipped")]
    AlreadyShipped,
    /// No step from the status that the order has.
    #[error("the order is {status}")]
    WrongStatus { status: OrderStatus },
    /// Not a tracked SKU of the order.
    #[error("the order reserves no {sku}")]
    UnknownSku { sku: Sku },
    /// `RecordReserved` on an order that waits for reservations.
    #[error("{pending} SKUs are not reserved yet")]
    NotReserved { pending: usize },
    /// Not the payment of this order.
    #[error("the payment is another order's")]
    WrongPayment,
    #[error("the amount is not {expected}")]
    WrongAmount { expected: Money },
    /// An unknown line, a line twice, no lines, or no units.
    #[error("line {line_no} does not fit the order")]
    InvalidLine { line_no: u32 },
    /// More units than there are left to ship, to return or to receive.
    #[error("line {line_no} has {left} units left")]
    TooManyUnits { line_no: u32, left: u32 },
    #[error("the order has the shipment {shipment_id} already")]
    DuplicateShipment { shipment_id: ShipmentId },
    #[error("the order has no shipment {shipment_id}")]
    UnknownShipment { shipment_id: ShipmentId },
    #[error("the order had the return {return_id} already")]
    DuplicateReturn { return_id: ReturnId },
    #[error("the order has no return {return_id}")]
    UnknownReturn { return_id: ReturnId },
    /// The return has been decided otherwise or is not approved yet.
    #[error("the return {return_id} is not in that state")]
    ReturnState { return_id: ReturnId },
    /// A return is under way.
    #[error("a return is open")]
    ReturnOpen,
    /// More than was paid and is not given back yet.
    #[error("at most {left} can be given back")]
    RefundExceedsPaid { left: Money },
    #[error(transparent)]
    Money(#[from] MoneyError),
}
