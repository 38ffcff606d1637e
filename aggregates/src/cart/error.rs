use event_schemas::{OrderId, Sku};

use crate::order::AgreementError;

/// Why a cart refuses a command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CartError {
    /// It accepts nothing until `order_id` has failed (reopened) or was paid (renewed).
    #[error("the cart is checked out as order {order_id}")]
    CheckedOut { order_id: OrderId },
    #[error("a line of a cart has 1 to {max} units")]
    QuantityOutOfRange { sku: Sku, max: u32 },
    #[error("a cart has at most {max} lines")]
    TooManyLines { max: usize },
    #[error("the cart has no line {sku}")]
    UnknownItem { sku: Sku },
    /// Nothing to check out.
    #[error("the cart is empty")]
    Empty,
    /// The cart changed since it was priced: price it again (race 6 of the design).
    #[error("what was priced is not what is in the cart")]
    PricedOtherwise,
    /// The priced lines would make no order.
    #[error(transparent)]
    Agreement(#[from] AgreementError),
    /// The cart belongs to another customer.
    #[error("the cart belongs to someone else")]
    NotTheOwner,
    #[error("a cart cannot be merged into itself")]
    MergedIntoItself,
}
