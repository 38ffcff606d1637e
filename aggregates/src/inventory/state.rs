use std::collections::BTreeMap;

use event_schemas::{InventoryEvent, OrderId, ProductId};
use serde::{Deserialize, Serialize};

/// One SKU's stock and who has reserved how much of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StockItem {
    pub(super) product_id: Option<ProductId>,
    pub(super) on_hand: u64,
    pub(super) reserved: BTreeMap<OrderId, u32>,
    /// The sum of `reserved`, kept beside it so that no decision scans the map.
    pub(super) reserved_total: u64,
    pub(super) backorder_limit: u32,
}

impl StockItem {
    /// The product that the SKU belongs to, if any.
    pub const fn product_id(&self) -> Option<ProductId> {
        self.product_id
    }

    /// Units in the building.
    pub const fn on_hand(&self) -> u64 {
        self.on_hand
    }

    /// Units that orders hold.
    pub const fn reserved_total(&self) -> u64 {
        self.reserved_total
    }

    /// Units that `order_id` holds.
    pub fn reserved_by(&self, order_id: OrderId) -> u32 {
        self.reserved.get(&order_id).copied().unwrap_or(0)
    }

    /// Units that can be promised.
    pub const fn available(&self) -> u64 {
        (self.on_hand + self.backorder_limit as u64).saturating_sub(self.reserved_total)
    }
}

pub(super) fn evolve(item: &mut StockItem, event: &InventoryEvent) {
    let _ = (item, event);
    todo!()
}
