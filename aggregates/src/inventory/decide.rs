use event_schemas::{Code, InventoryEvent, OrderId, ProductId, Reference, ReleaseReason, ReturnCondition};

use super::{InventoryCommand, InventoryError, StockItem};

type Decision = Result<Vec<InventoryEvent>, InventoryError>;

/// Each arm is O(log n) in the item's open reservations at most: a bestseller has thousands, and every order of it
/// passes here.
pub(super) fn decide(item: &StockItem, command: &InventoryCommand) -> Decision {
    match command {
        InventoryCommand::AssignSku { product_id } => assign(item, *product_id),
        InventoryCommand::Receive { quantity, reference } => receive(item, *quantity, reference),
        InventoryCommand::Adjust { delta, reason } => adjust(item, *delta, reason),
        InventoryCommand::Reserve { order_id, quantity } => reserve(item, *order_id, *quantity),
        InventoryCommand::Release { order_id, reason } => Ok(release(item, *order_id, *reason)),
        InventoryCommand::Commit { order_id, quantity } => commit(item, *order_id, *quantity),
        InventoryCommand::Return {
            order_id,
            quantity,
            condition,
        } => take_back(item, *order_id, *quantity, *condition),
        InventoryCommand::SetBackorderLimit { limit } => set_backorder_limit(item, *limit),
    }
}

fn assign(item: &StockItem, product_id: ProductId) -> Decision {
    match item.product_id {
        None => Ok(vec![InventoryEvent::SkuAssigned { product_id }]),
        Some(holder) if holder == product_id => Ok(vec![]),
        Some(holder) => Err(InventoryError::AssignedTo { product_id: holder }),
    }
}

fn receive(item: &StockItem, quantity: u32, reference: &Reference) -> Decision {
    assigned(item)?;
    positive(quantity)?;
    countable(item.on_hand.checked_add(u64::from(quantity)))?;
    Ok(vec![InventoryEvent::StockReceived {
        quantity,
        reference: reference.clone(),
    }])
}

fn adjust(item: &StockItem, delta: i64, reason: &Code) -> Decision {
    assigned(item)?;
    if delta == 0 {
        return Err(InventoryError::QuantityOutOfRange);
    }
    if delta > 0 {
        countable(item.on_hand.checked_add_signed(delta))?;
    } else {
        // Neither below nothing nor below what has been promised.
        let free = item.on_hand.min(item.available());
        if delta.unsigned_abs() > free {
            return Err(InventoryError::BelowReserved { available: free });
        }
    }
    Ok(vec![InventoryEvent::StockAdjusted {
        delta,
        reason: reason.clone(),
    }])
}

/// A SKU that belongs to nobody has nothing to promise, so it rejects too: the order has to hear an answer.
fn reserve(item: &StockItem, order_id: OrderId, quantity: u32) -> Decision {
    positive(quantity)?;
    match item.reserved_by(order_id) {
        0 => {}
        reserved if reserved == quantity => return Ok(vec![]),
        reserved => return Err(InventoryError::AlreadyReserved { order_id, reserved }),
    }
    let available = item.available();
    if u64::from(quantity) > available {
        return Ok(vec![InventoryEvent::ReservationRejected {
            order_id,
            quantity,
            available,
        }]);
    }
    Ok(vec![InventoryEvent::StockReserved { order_id, quantity }])
}

fn release(item: &StockItem, order_id: OrderId, reason: ReleaseReason) -> Vec<InventoryEvent> {
    match item.reserved_by(order_id) {
        0 => vec![],
        quantity => vec![InventoryEvent::ReservationReleased {
            order_id,
            quantity,
            reason,
        }],
    }
}

fn commit(item: &StockItem, order_id: OrderId, quantity: u32) -> Decision {
    positive(quantity)?;
    let reserved = item.reserved_by(order_id);
    if quantity > reserved {
        return Err(InventoryError::NotReserved { order_id, reserved });
    }
    // Promised beyond what is there: a backorder leaves once its goods have come.
    if u64::from(quantity) > item.on_hand {
        return Err(InventoryError::NotOnHand {
            on_hand: item.on_hand,
        });
    }
    countable(item.sent.checked_add(u64::from(quantity)))?;
    Ok(vec![InventoryEvent::ReservationCommitted { order_id, quantity }])
}

/// How much of an order may come back per line is the order's to know; here, no more comes back than ever left.
fn take_back(item: &StockItem, order_id: OrderId, quantity: u32, condition: ReturnCondition) -> Decision {
    positive(quantity)?;
    if u64::from(quantity) > item.sent {
        return Err(InventoryError::NotSent { order_id });
    }
    countable(item.on_hand.checked_add(u64::from(quantity)))?;
    Ok(vec![InventoryEvent::StockReturned {
        order_id,
        quantity,
        condition,
    }])
}

fn set_backorder_limit(item: &StockItem, limit: u32) -> Decision {
    assigned(item)?;
    if limit == item.backorder_limit {
        return Ok(vec![]);
    }
    let lowered_by = u64::from(item.backorder_limit.saturating_sub(limit));
    let available = item.available();
    if lowered_by > available {
        return Err(InventoryError::BelowReserved { available });
    }
    Ok(vec![InventoryEvent::BackorderLimitSet { limit }])
}

fn assigned(item: &StockItem) -> Result<(), InventoryError> {
    if item.product_id.is_some() {
        Ok(())
    } else {
        Err(InventoryError::NotAssigned)
    }
}

fn positive(quantity: u32) -> Result<(), InventoryError> {
    if quantity > 0 {
        Ok(())
    } else {
        Err(InventoryError::QuantityOutOfRange)
    }
}

fn countable(count: Option<u64>) -> Result<(), InventoryError> {
    match count {
        Some(count) if count <= StockItem::MAX_ON_HAND => Ok(()),
        _ => Err(InventoryError::Overflow),
    }
}
