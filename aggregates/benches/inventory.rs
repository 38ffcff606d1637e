//! Deciding and folding: a reservation of a SKU that thousands of orders hold already, and the fold of its stream.

#![allow(clippy::expect_used, reason = "the inputs are constants")]

use std::hint::black_box;

use aggregates::Decide as _;
use aggregates::inventory::{InventoryCommand, StockItem};
use criterion::{Criterion, criterion_group, criterion_main};
use event_schemas::{CommandId, InventoryEvent, OrderId, ProductId, Reference, ReleaseReason, derive_uuid};

const ORDERS: u64 = 10_000;

fn order(number: u64) -> OrderId {
    OrderId::from_uuid(derive_uuid("omisys/bench/order", &[&number.to_be_bytes()]))
}

/// Stock for many more, and who holds it.
fn stream() -> Vec<InventoryEvent> {
    let id = CommandId::from_uuid(derive_uuid("omisys/bench/product", &[]));
    let begin = [
        InventoryEvent::SkuAssigned {
            product_id: ProductId::for_command(id),
        },
        InventoryEvent::StockReceived {
            quantity: 1_000_000,
            reference: Reference::new("opening stock").expect("a reference"),
        },
    ];
    let reserved = (0..ORDERS).map(|number| InventoryEvent::StockReserved {
        order_id: order(number),
        quantity: 1,
    });
    begin.into_iter().chain(reserved).collect()
}

fn folded(events: &[InventoryEvent]) -> StockItem {
    let mut item = StockItem::default();
    for event in events {
        item.evolve(event);
    }
    item
}

fn inventory(criterion: &mut Criterion) {
    let events = stream();
    let item = folded(&events);
    let reserve = InventoryCommand::Reserve {
        order_id: order(ORDERS),
        quantity: 1,
    };
    criterion.bench_function("decide: reserve with 10,000 reservations open", |bencher| {
        bencher.iter(|| black_box(&item).decide(black_box(&reserve)));
    });
    let fresh = order(ORDERS);
    let mut item = item;
    criterion.bench_function("evolve: reserved and released", |bencher| {
        let reserved = InventoryEvent::StockReserved {
            order_id: fresh,
            quantity: 1,
        };
        let released = InventoryEvent::ReservationReleased {
            order_id: fresh,
            quantity: 1,
            reason: ReleaseReason::OrderCancelled,
        };
        bencher.iter(|| {
            item.evolve(black_box(&reserved));
            item.evolve(black_box(&released));
        });
    });
    criterion.bench_function("fold: a stream of 10,002 events", |bencher| {
        bencher.iter(|| folded(black_box(&events)));
    });
}

criterion_group!(benches, inventory);
criterion_main!(benches);
