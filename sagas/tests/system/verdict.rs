//! What must be true once everything has come to rest, beside what the audit of the log says.

use std::collections::BTreeMap;
use std::time::Duration;

use aggregates::cart::CartStatus;
use aggregates::order::OrderStatus;
use event_schemas::{
    AggregateId, CartEvent, Event, InventoryEvent, OrderEvent, OrderId, ReturnCondition, Sku,
};

use super::world::World;

const GRACE: Duration = Duration::from_secs(60);

/// Nothing that was promised at every prefix of the log has been broken, whatever is still under way.
pub fn is_safe(world: &World) {
    // With a grace that reaches back beyond the first event nothing is owed yet.
    let breaches = world
        .db
        .tables
        .audit
        .finish(world.now, Duration::from_secs(1_000_000_000));
    assert_eq!(breaches, vec![]);
}

/// Everything has come to rest as it should.
pub fn is_settled(world: &World) {
    let tables = &world.db.tables;
    let breaches = tables
        .audit
        .finish(world.now + Duration::from_secs(86_400), GRACE);
    assert_eq!(breaches, vec![]);
    assert_eq!(tables.audit.open_intents(), vec![]);
    assert!(tables.effects.is_empty(), "{:?}", tables.effects);
    for (id, order) in &tables.orders {
        let waiting = matches!(order.status(), OrderStatus::Placed | OrderStatus::AwaitingPayment);
        assert!(!waiting, "order {id} is left {}", order.status());
    }
    money_is_where_the_log_says(world);
    stock_is_held_for_what_is_to_be_shipped(world);
    stock_adds_up(world);
    what_came_back_is_counted(world);
    every_unit_is_in_one_cart(world);
}

/// The provider is the only witness of what customers were really charged.
fn money_is_where_the_log_says(world: &World) {
    let mut kept: BTreeMap<OrderId, i64> = BTreeMap::new();
    for ((payment_id, attempt), deal) in &world.provider.deals {
        let payment = &world.db.tables.payments[&AggregateId::from(*payment_id)];
        let known = payment.attempt(*attempt).unwrap();
        let captured = if deal.captured { deal.amount.amount() } else { 0 };
        assert_eq!(
            known.captured().amount(),
            captured,
            "attempt {attempt} of {payment_id}: {deal:#?}"
        );
        assert_eq!(
            known.refunded().amount(),
            deal.refunded,
            "attempt {attempt} of {payment_id}: {deal:#?}"
        );
        *kept.entry(deal.order).or_default() += deal.kept();
    }
    for (id, order) in &world.db.tables.orders {
        let kept = kept.get(&id.as_str().parse().unwrap()).copied().unwrap_or(0);
        let due = match order.status() {
            OrderStatus::Cancelled => 0,
            _ => order.placed().unwrap().totals.total.amount() - order.refunded(),
        };
        assert_eq!(
            kept,
            due,
            "order {id} is {} and was charged {kept}",
            order.status()
        );
    }
}

/// Exactly the unshipped units of orders that stand are reserved.
fn stock_is_held_for_what_is_to_be_shipped(world: &World) {
    let mut due: BTreeMap<(AggregateId, OrderId), u32> = BTreeMap::new();
    for (id, order) in &world.db.tables.orders {
        if order.status() == OrderStatus::Cancelled {
            continue;
        }
        for line in order.placed().unwrap().lines.iter().filter(|line| line.tracked) {
            let unshipped = order.unshipped_of(line.line_no).unwrap();
            if unshipped > 0 {
                *due.entry(((&line.sku).into(), id.as_str().parse().unwrap()))
                    .or_default() += unshipped;
            }
        }
    }
    let held: BTreeMap<(AggregateId, OrderId), u32> = world
        .db
        .tables
        .items
        .iter()
        .flat_map(|(sku, item)| {
            item.reservations()
                .iter()
                .map(|(order, held)| ((sku.clone(), *order), *held))
        })
        .collect();
    assert_eq!(held, due);
}

/// received + adjusted + returned (resaleable) − committed = on hand.
fn stock_adds_up(world: &World) {
    let mut counted: BTreeMap<&AggregateId, i64> = BTreeMap::new();
    for recorded in &world.db.tables.log {
        let Event::Inventory(event) = &recorded.event else {
            continue;
        };
        *counted.entry(&recorded.stream.aggregate_id).or_default() += match event {
            InventoryEvent::StockReceived { quantity, .. }
            | InventoryEvent::StockReturned {
                quantity,
                condition: ReturnCondition::Resaleable,
                ..
            } => i64::from(*quantity),
            InventoryEvent::StockAdjusted { delta, .. } => *delta,
            InventoryEvent::ReservationCommitted { quantity, .. } => -i64::from(*quantity),
            _ => 0,
        };
    }
    for (sku, counted) in counted {
        assert_eq!(
            world.db.tables.items[sku].on_hand(),
            u64::try_from(counted).unwrap(),
            "{sku}"
        );
    }
}

/// Whatever an order took back of a tracked SKU, its stock item took back too, and nothing else.
fn what_came_back_is_counted(world: &World) {
    let (mut ordered, mut counted): (BTreeMap<_, u32>, BTreeMap<_, u32>) = Default::default();
    for recorded in &world.db.tables.log {
        match &recorded.event {
            Event::Order(OrderEvent::ReturnReceived { lines, .. }) => {
                let order = world.order(&recorded.stream.aggregate_id);
                for returned in lines {
                    let line = order.line(returned.line_no).unwrap();
                    if line.tracked {
                        let key = (recorded.stream.aggregate_id.to_string(), line.sku.to_string());
                        *ordered.entry(key).or_default() += returned.quantity;
                    }
                }
            }
            Event::Inventory(InventoryEvent::StockReturned {
                order_id, quantity, ..
            }) => {
                let key = (order_id.to_string(), recorded.stream.aggregate_id.to_string());
                *counted.entry(key).or_default() += quantity;
            }
            _ => {}
        }
    }
    assert_eq!(counted, ordered);
}

/// What was ever put into a cart is in some cart, or was bought from one.
fn every_unit_is_in_one_cart(world: &World) {
    let tables = &world.db.tables;
    let (mut added, mut found): (BTreeMap<&Sku, u32>, BTreeMap<&Sku, u32>) = Default::default();
    for recorded in &tables.log {
        if let Event::Cart(CartEvent::ItemAdded { sku, quantity }) = &recorded.event {
            *added.entry(sku).or_default() += quantity;
        }
    }
    for cart in tables.carts.values() {
        let open = !matches!(cart.status(), CartStatus::CheckedOut { .. });
        assert!(
            open,
            "a cart waits for {:?}, which is decided",
            cart.checked_out_as()
        );
        for line in cart.lines() {
            *found.entry(&line.sku).or_default() += line.quantity;
        }
    }
    for order in tables.orders.values() {
        let placed = order.placed().unwrap();
        // Once paid, the cart was renewed: also if it is cancelled later.
        if placed.cart_id.is_some() && order.paid().is_some() {
            for line in &placed.lines {
                *found.entry(&line.sku).or_default() += line.quantity;
            }
        }
    }
    assert_eq!(found, added);
}
