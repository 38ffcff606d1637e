use std::collections::BTreeMap;

use event_schemas::{InventoryEvent, OrderId, ProductId, ReturnCondition};
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
    /// Units that left the building and have not come back: what can still be returned.
    pub(super) sent: u64,
}

impl StockItem {
    /// The most units an item may count (2⁵³−1), so that JSON readers that use doubles read them exactly.
    pub const MAX_ON_HAND: u64 = (1 << 53) - 1;

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

    /// Who holds how many units.
    pub const fn reservations(&self) -> &BTreeMap<OrderId, u32> {
        &self.reserved
    }

    /// How many units may be promised beyond what is on hand.
    pub const fn backorder_limit(&self) -> u32 {
        self.backorder_limit
    }

    /// Units that left the building and have not come back.
    pub const fn sent(&self) -> u64 {
        self.sent
    }

    /// Units that can be promised.
    pub const fn available(&self) -> u64 {
        self.promisable().saturating_sub(self.reserved_total)
    }

    /// Units that may be promised in all: on hand, and what may be promised beyond it.
    pub(super) const fn promisable(&self) -> u64 {
        self.on_hand.saturating_add(self.backorder_limit as u64)
    }
}

/// Sums saturate: `decide` has checked them, and a fold has nobody to tell.
pub(super) fn evolve(item: &mut StockItem, event: &InventoryEvent) {
    match event {
        InventoryEvent::SkuAssigned { product_id } => item.product_id = Some(*product_id),
        InventoryEvent::StockReceived { quantity, .. } => {
            item.on_hand = item.on_hand.saturating_add(u64::from(*quantity));
        }
        InventoryEvent::StockAdjusted { delta, .. } => {
            item.on_hand = item.on_hand.saturating_add_signed(*delta);
        }
        InventoryEvent::StockReserved { order_id, quantity } => {
            let held_before = item.reserved.insert(*order_id, *quantity).unwrap_or(0);
            item.reserved_total =
                item.reserved_total.saturating_sub(u64::from(held_before)) + u64::from(*quantity);
        }
        InventoryEvent::ReservationRejected { .. } => {}
        InventoryEvent::ReservationReleased {
            order_id, quantity, ..
        } => give_up(item, *order_id, *quantity),
        InventoryEvent::ReservationCommitted { order_id, quantity } => {
            give_up(item, *order_id, *quantity);
            item.on_hand = item.on_hand.saturating_sub(u64::from(*quantity));
            item.sent = item.sent.saturating_add(u64::from(*quantity));
        }
        InventoryEvent::StockReturned {
            quantity, condition, ..
        } => {
            item.sent = item.sent.saturating_sub(u64::from(*quantity));
            match condition {
                ReturnCondition::Resaleable => {
                    item.on_hand = item.on_hand.saturating_add(u64::from(*quantity));
                }
                ReturnCondition::Damaged => {}
            }
        }
        InventoryEvent::BackorderLimitSet { limit } => item.backorder_limit = *limit,
    }
}

fn give_up(item: &mut StockItem, order_id: OrderId, quantity: u32) {
    let Some(held) = item.reserved.get_mut(&order_id) else {
        return;
    };
    let given_up = quantity.min(*held);
    *held -= given_up;
    item.reserved_total = item.reserved_total.saturating_sub(u64::from(given_up));
    if *held == 0 {
        item.reserved.remove(&order_id);
    }
}
