use event_schemas::{Code, OrderId, ProductId, Reference, ReleaseReason, ReturnCondition};
use serde::{Deserialize, Serialize};

/// What can be asked of a stock item. Quantities are units.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum InventoryCommand {
    /// Claims the SKU for this product; the same product again is a no-op, another is refused.
    AssignSku {
        product_id: ProductId,
    },
    Receive {
        quantity: u32,
        reference: Reference,
    },
    /// Corrects the count, up or down.
    Adjust {
        delta: i64,
        reason: Code,
    },
    /// Reserves all units of one order (its lines summed), or records the rejection as an event.
    Reserve {
        order_id: OrderId,
        quantity: u32,
    },
    /// Gives back whatever the order holds; a no-op if that is nothing.
    Release {
        order_id: OrderId,
        reason: ReleaseReason,
    },
    /// The goods of the order left the building.
    Commit {
        order_id: OrderId,
        quantity: u32,
    },
    /// Goods of the order came back.
    Return {
        order_id: OrderId,
        quantity: u32,
        condition: ReturnCondition,
    },
    /// How many units may be promised beyond what is on hand.
    SetBackorderLimit {
        limit: u32,
    },
}

impl InventoryCommand {
    /// The command's name, such as `Reserve`.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::AssignSku { .. } => "AssignSku",
            Self::Receive { .. } => "Receive",
            Self::Adjust { .. } => "Adjust",
            Self::Reserve { .. } => "Reserve",
            Self::Release { .. } => "Release",
            Self::Commit { .. } => "Commit",
            Self::Return { .. } => "Return",
            Self::SetBackorderLimit { .. } => "SetBackorderLimit",
        }
    }
}
