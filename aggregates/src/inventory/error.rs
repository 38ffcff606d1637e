use event_schemas::{OrderId, ProductId};

/// Why a stock item refuses a command. Stock that does not suffice for `Reserve` is an event, not an error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InventoryError {
    #[error("the SKU belongs to no product")]
    NotAssigned,
    /// Another product has it.
    #[error("the SKU belongs to product {product_id}")]
    AssignedTo { product_id: ProductId },
    #[error("the quantity is out of range")]
    QuantityOutOfRange,
    /// Taking that away would break a promise; `available` is what can be taken.
    #[error("only {available} units are not promised to anyone")]
    BelowReserved { available: u64 },
    /// The order holds another quantity already.
    #[error("order {order_id} holds {reserved} units already")]
    AlreadyReserved { order_id: OrderId, reserved: u32 },
    /// More than the order holds.
    #[error("order {order_id} holds {reserved} units only")]
    NotReserved { order_id: OrderId, reserved: u32 },
    /// Promised beyond what is there: the goods have not come yet.
    #[error("only {on_hand} units are on hand")]
    NotOnHand { on_hand: u64 },
    /// More came back than ever left.
    #[error("more than the order was sent")]
    NotSent { order_id: OrderId },
    #[error("the count is out of range")]
    Overflow,
}
