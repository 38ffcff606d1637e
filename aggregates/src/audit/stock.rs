use std::collections::HashMap;

use event_schemas::{
    AggregateId, AggregateType, InventoryEvent, OrderId, RecordedEvent, ReturnCondition, Sku, StreamId,
    Timestamp,
};

use super::orders::Orders;
use super::{Findings, HOLDING, NOTHING_HELD, OVERSOLD};

#[derive(Debug, Default)]
pub(super) struct Stock {
    items: HashMap<AggregateId, Item>,
}

#[derive(Debug, Default)]
struct Item {
    on_hand: i128,
    limit: i128,
    reserved: i128,
    /// Left the building and did not come back.
    sent: i128,
    held: HashMap<OrderId, Hold>,
}

#[derive(Debug)]
struct Hold {
    quantity: u32,
    since: Timestamp,
}

impl Stock {
    pub(super) fn observe(
        &mut self,
        recorded: &RecordedEvent,
        event: &InventoryEvent,
        orders: &mut Orders,
        found: &mut Findings,
    ) {
        let stream = &recorded.stream;
        let item = self.items.entry(stream.aggregate_id.clone()).or_default();
        match event {
            InventoryEvent::SkuAssigned { .. } | InventoryEvent::ReservationRejected { .. } => return,
            InventoryEvent::StockReceived { quantity, .. } => item.on_hand += i128::from(*quantity),
            InventoryEvent::StockAdjusted { delta, .. } => item.on_hand += i128::from(*delta),
            InventoryEvent::StockReserved { order_id, quantity } => {
                item.reserved += i128::from(*quantity);
                let hold = Hold {
                    quantity: *quantity,
                    since: recorded.recorded_at,
                };
                match item.held.insert(*order_id, hold) {
                    None => orders.hold(*order_id),
                    Some(before) => {
                        found.add(HOLDING, stream, || {
                            format!(
                                "order {order_id} reserves {quantity} and holds {} already",
                                before.quantity
                            )
                        });
                    }
                }
            }
            InventoryEvent::ReservationReleased {
                order_id, quantity, ..
            } => {
                item.give_up(*order_id, *quantity, stream, orders, found);
            }
            InventoryEvent::ReservationCommitted { order_id, quantity } => {
                item.give_up(*order_id, *quantity, stream, orders, found);
                item.on_hand -= i128::from(*quantity);
                item.sent += i128::from(*quantity);
            }
            InventoryEvent::StockReturned {
                quantity, condition, ..
            } => {
                item.sent -= i128::from(*quantity);
                if *condition == ReturnCondition::Resaleable {
                    item.on_hand += i128::from(*quantity);
                }
                if item.sent < 0 {
                    found.add(HOLDING, stream, || {
                        format!("{quantity} units came back that never left")
                    });
                }
            }
            InventoryEvent::BackorderLimitSet { limit } => item.limit = i128::from(*limit),
        }
        let available = item.on_hand + item.limit - item.reserved;
        if item.on_hand < 0 || available < 0 {
            found.add(OVERSOLD, stream, || {
                format!(
                    "{} on hand, {} reserved, backorder limit {}",
                    item.on_hand, item.reserved, item.limit
                )
            });
        }
    }

    pub(super) fn holds(&self, sku: &Sku, order_id: OrderId) -> bool {
        self.items
            .get(&AggregateId::from(sku))
            .is_some_and(|item| item.held.contains_key(&order_id))
    }

    pub(super) fn finish(&self, due: Timestamp, orders: &Orders, found: &mut Findings) {
        for (sku, item) in &self.items {
            for (order_id, hold) in &item.held {
                let Some(since) = orders.idle_since(*order_id) else {
                    continue;
                };
                if since.max(hold.since) <= due {
                    let stream = StreamId::new(AggregateType::Inventory, sku.clone());
                    found.add(NOTHING_HELD, &stream, || {
                        format!("order {order_id} holds {} units", hold.quantity)
                    });
                }
            }
        }
    }
}

impl Item {
    fn give_up(
        &mut self,
        order_id: OrderId,
        quantity: u32,
        stream: &StreamId,
        orders: &mut Orders,
        found: &mut Findings,
    ) {
        let before = self.held.get(&order_id).map_or(0, |hold| hold.quantity);
        if quantity > before {
            found.add(HOLDING, stream, || {
                format!("order {order_id} gives up {quantity} and holds {before}")
            });
        }
        self.reserved -= i128::from(quantity.min(before));
        match self.held.get_mut(&order_id) {
            Some(hold) if quantity < hold.quantity => hold.quantity -= quantity,
            Some(_) => {
                self.held.remove(&order_id);
                orders.let_go(order_id);
            }
            None => {}
        }
    }
}
