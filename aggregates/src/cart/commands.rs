use event_schemas::{
    CartId, CartLine, Code, CountryCode, CustomerId, OrderId, OrderLine, PaymentMethod, ShippingCharge, Sku,
    Timestamp, Totals,
};
use serde::{Deserialize, Serialize};

/// What can be asked of a cart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum CartCommand {
    /// Adds units to what is there; opens the cart for `owner` if this is its first item.
    AddItem {
        owner: CustomerId,
        sku: Sku,
        quantity: u32,
    },
    ChangeQuantity {
        sku: Sku,
        /// The new quantity.
        quantity: u32,
    },
    RemoveItem {
        sku: Sku,
    },
    Clear,
    /// Gives all lines to the cart of `target_owner`; its `Merge` follows by policy.
    MergeInto {
        target_owner: CustomerId,
    },
    /// Takes the lines of the cart `from`, in every state; opens the cart for `owner` if needed.
    Merge {
        owner: CustomerId,
        from: CartId,
        lines: Vec<CartLine>,
    },
    CheckOut(Box<CheckOut>),
    /// The order failed. A no-op unless the cart is checked out as this order.
    Reopen {
        order_id: OrderId,
        reason: Code,
    },
    /// The order was paid. A no-op unless the cart is checked out as this order.
    Renew {
        order_id: OrderId,
    },
}

/// A check-out as the catalogue priced it. The order's id follows from the cart and the attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckOut {
    /// Priced lines, numbered from 1; their SKUs and quantities are the cart's, or the check-out is refused.
    pub lines: Vec<OrderLine>,
    pub shipping: ShippingCharge,
    /// As [`crate::order::totals`] adds them up.
    pub totals: Totals,
    pub country: CountryCode,
    pub payment: PaymentMethod,
    pub occurred_at: Timestamp,
    /// When the order is cancelled if it has not been paid.
    pub payment_deadline: Timestamp,
}

impl CartCommand {
    /// The command's name, such as `CheckOut`.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::AddItem { .. } => "AddItem",
            Self::ChangeQuantity { .. } => "ChangeQuantity",
            Self::RemoveItem { .. } => "RemoveItem",
            Self::Clear => "Clear",
            Self::MergeInto { .. } => "MergeInto",
            Self::Merge { .. } => "Merge",
            Self::CheckOut(_) => "CheckOut",
            Self::Reopen { .. } => "Reopen",
            Self::Renew { .. } => "Renew",
        }
    }
}
