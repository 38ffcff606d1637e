//! The fold of an order of 25 lines into the view that customers read, and the document to JSON and back.

#![allow(clippy::expect_used, reason = "the inputs are constants")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use event_schemas::{
    ActorKind, AggregateType, Event, OrderEvent, Position, RecordedEvent, StreamId, Version,
};
use projections::orders::Orders;
use projections::{Document, View};
use support::{customer_id, metadata, order_id, placed, sku, time};

const LINES: u32 = 25;

type Part = <Orders as View>::Part;

/// Placed, and every line reserved.
fn order() -> Vec<RecordedEvent> {
    let lines: Vec<_> = (0..LINES).map(|line| (sku(u64::from(line)), 2, 1_250)).collect();
    let placed = OrderEvent::OrderPlaced(Box::new(placed(order_id(1), customer_id(1), &lines, time(0))));
    let reserved = (0..LINES).map(|line| OrderEvent::LineReserved {
        sku: sku(u64::from(line)),
    });
    let events = [placed].into_iter().chain(reserved);
    events
        .zip(1..)
        .map(|(event, number)| RecordedEvent {
            position: Position(number),
            stream: StreamId::new(AggregateType::Order, order_id(1)),
            version: Version(number),
            event: Event::Order(event),
            metadata: metadata(ActorKind::Customer, "a customer"),
            recorded_at: time(number),
        })
        .collect()
}

fn folded(events: &[RecordedEvent]) -> Document<Part> {
    let mut document = Document::default();
    for event in events {
        document.fold::<Orders>(event).expect("it fits");
    }
    document
}

fn fold(criterion: &mut Criterion) {
    let events = order();
    criterion.bench_function("fold: an order of 25 lines, placed and reserved", |bencher| {
        bencher.iter(|| folded(black_box(&events)));
    });
    let document = folded(&events);
    let json = serde_json::to_string(&document).expect("a document");
    criterion.bench_function("document: serialise", |bencher| {
        bencher.iter(|| serde_json::to_string(black_box(&document)));
    });
    criterion.bench_function("document: deserialise", |bencher| {
        bencher.iter(|| serde_json::from_str::<Document<Part>>(black_box(&json)));
    });
}

criterion_group!(benches, fold);
criterion_main!(benches);
