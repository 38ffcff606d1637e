//! Events of a stock item: one SKU's stock and who has reserved how much of it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::event_names;
use crate::ids::{OrderId, ProductId};
use crate::values::{Code, Reference};

/// Why a reservation was given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ReleaseReason {
    OrderCancelled,
}

/// How returned goods came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ReturnCondition {
    /// Goes back on the shelf.
    Resaleable,
    /// Came back, but is not counted as stock again.
    Damaged,
}

/// What can have happened to a stock item. Quantities are units.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum InventoryEvent {
    /// The SKU belongs to this product from now on; precedes the product's `VariantAdded`.
    SkuAssigned {
        product_id: ProductId,
    },
    StockReceived {
        quantity: u32,
        reference: Reference,
    },
    StockAdjusted {
        delta: i64,
        reason: Code,
    },
    StockReserved {
        order_id: OrderId,
        quantity: u32,
    },
    /// An event, not an error: the order's policy must hear it.
    ReservationRejected {
        order_id: OrderId,
        quantity: u32,
        available: u64,
    },
    ReservationReleased {
        order_id: OrderId,
        quantity: u32,
        reason: ReleaseReason,
    },
    /// The goods left the building.
    ReservationCommitted {
        order_id: OrderId,
        quantity: u32,
    },
    StockReturned {
        order_id: OrderId,
        quantity: u32,
        condition: ReturnCondition,
    },
    /// How many units may be promised beyond what is on hand.
    BackorderLimitSet {
        limit: u32,
    },
}

event_names!(InventoryEvent, Inventory;
    SkuAssigned = "1.0", StockReceived = "1.0", StockAdjusted = "1.0", StockReserved = "1.0",
    ReservationRejected = "1.0", ReservationReleased = "1.0", ReservationCommitted = "1.0", StockReturned = "1.0",
    BackorderLimitSet = "1.0");
