//! `StockReserved` → `Order.RecordLineReserved`; `ReservationRejected` → `Order.Cancel(out-of-stock)`.

use aggregates::inventory::InventoryCommand;
use aggregates::order::OrderCommand;
use event_schemas::{ActorKind, CancelReason, InventoryEvent, RecordedEvent, ReleaseReason, Sku};

use super::{Action, Command, PolicyCommand, Refusal};

const RESERVED: &str = "stock-reserved";
const REJECTED: &str = "reservation-rejected";

pub(super) fn react(recorded: &RecordedEvent, event: &InventoryEvent) -> Vec<Action> {
    // The stream's id is the SKU; a stored one has that form.
    let Ok(sku) = Sku::new(recorded.stream.aggregate_id.as_str()) else {
        return Vec::new();
    };
    match event {
        InventoryEvent::StockReserved { order_id, .. } => {
            let release = InventoryCommand::Release {
                order_id: *order_id,
                reason: ReleaseReason::OrderCancelled,
            };
            let release = PolicyCommand::new(recorded, RESERVED, 0, Command::Inventory(sku.clone(), release));
            let record = Command::Order(*order_id, OrderCommand::RecordLineReserved { sku });
            let record = PolicyCommand::new(recorded, RESERVED, 0, record);
            vec![record.if_refused(&[Refusal::Cancelled], Some(release)).into()]
        }
        InventoryEvent::ReservationRejected {
            order_id, available, ..
        } => {
            let reason = CancelReason::OutOfStock {
                sku,
                available: *available,
            };
            let cancel = OrderCommand::Cancel {
                reason,
                by: ActorKind::System,
            };
            vec![PolicyCommand::new(recorded, REJECTED, 0, Command::Order(*order_id, cancel)).into()]
        }
        InventoryEvent::SkuAssigned { .. }
        | InventoryEvent::StockReceived { .. }
        | InventoryEvent::StockAdjusted { .. }
        | InventoryEvent::ReservationReleased { .. }
        | InventoryEvent::ReservationCommitted { .. }
        | InventoryEvent::StockReturned { .. }
        | InventoryEvent::BackorderLimitSet { .. } => Vec::new(),
    }
}
