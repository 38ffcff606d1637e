//! Events of a cart: one per customer, guests included, that lives through check-outs.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::event_names;
use crate::ids::{CartId, CustomerId, OrderId};
use crate::order::{OrderLine, ShippingCharge, Totals};
use crate::payment::PaymentMethod;
use crate::time::Timestamp;
use crate::values::{Code, CountryCode, Sku};

/// So many units of a SKU; a cart holds each SKU once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CartLine {
    pub sku: Sku,
    pub quantity: u32,
}

/// A check-out with everything that the order needs, so that it can be placed by whoever hears of it first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CartCheckedOut {
    /// Derived from the cart and `attempt`.
    pub order_id: OrderId,
    /// 1 + the number of earlier check-outs.
    pub attempt: u32,
    pub customer: CustomerId,
    /// Priced from the catalogue.
    pub lines: Vec<OrderLine>,
    pub shipping: ShippingCharge,
    pub totals: Totals,
    pub country: CountryCode,
    pub payment: PaymentMethod,
    #[schemars(with = "crate::schemas::Time")]
    pub occurred_at: Timestamp,
    /// When the order is cancelled if it has not been paid.
    #[schemars(with = "crate::schemas::Time")]
    pub payment_deadline: Timestamp,
}

/// What can have happened to a cart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CartEvent {
    CartOpened {
        owner: CustomerId,
    },
    ItemAdded {
        sku: Sku,
        /// Units added to what was there.
        quantity: u32,
    },
    ItemQuantityChanged {
        sku: Sku,
        /// The new quantity.
        quantity: u32,
    },
    ItemRemoved {
        sku: Sku,
    },
    CartCleared {},
    /// This cart gave all its lines away and is empty.
    CartMergedInto {
        target: CartId,
        /// Whose cart `target` is: the policy that merges there may have to open it.
        target_owner: CustomerId,
        lines: Vec<CartLine>,
    },
    /// Lines of another cart came in. While checked out they are kept, and added on reopening or renewal.
    CartMerged {
        from: CartId,
        lines: Vec<CartLine>,
    },
    CartCheckedOut(Box<CartCheckedOut>),
    /// The order failed: the lines are back.
    CartReopened {
        order_id: OrderId,
        reason: Code,
    },
    /// The order was paid: the next cart starts empty.
    CartRenewed {
        order_id: OrderId,
    },
}

event_names!(CartEvent, Cart;
    CartOpened = "1.0", ItemAdded = "1.0", ItemQuantityChanged = "1.0", ItemRemoved = "1.0", CartCleared = "1.0",
    CartMergedInto = "1.0", CartMerged = "1.0", CartCheckedOut = "1.0", CartReopened = "1.0", CartRenewed = "1.0");
