//! The stories of whole orders: each entry says who, by which command, because of what, and what it changed.
//!
//! `golden/order_timeline` holds them as staff read them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;
#[path = "support/telling.rs"]
mod telling;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use event_schemas::{ActorKind, AggregateType, OrderEvent, PaymentEvent};
use projections::order_timeline::{Figure, OrderTimeline, TimelineEntry, TimelineView, Value};
use projections::orders::Orders;
use projections::payments::Payments;
use projections::{DocId, Document, View};
use support::{Dice, Story};
use telling::{STAFF, Telling};

/// Set it (to anything) to write the files that are missing. A file that is there is never overwritten.
const WRITE_MISSING: &str = "OMISYS_WRITE_GOLDEN";

fn stories() -> [(&'static str, Telling); 4] {
    [
        ("paid-shipped-returned-refunded", telling::returned()),
        ("cancelled-out-of-stock", telling::out_of_stock()),
        ("cancelled-not-paid-in-time", telling::not_paid_in_time()),
        ("completed-after-a-rejected-return", telling::completed()),
    ]
}

#[test]
fn whole_stories_are_told_as_the_golden_documents_have_them() {
    for (name, told) in stories() {
        let mut text = serde_json::to_string_pretty(&told.timeline()).unwrap();
        text.push('\n');
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("golden/order_timeline/{name}.json"));
        if std::env::var_os(WRITE_MISSING).is_some() && !file.exists() {
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(&file, &text).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&file).unwrap(), text, "{name}");
    }
}

/// The stock events that have to do with an order; the others are in no timeline.
const STOCK: [&str; 5] = [
    "StockReserved",
    "ReservationRejected",
    "ReservationReleased",
    "ReservationCommitted",
    "StockReturned",
];

#[test]
fn every_type_of_event_says_what_it_changed() {
    let mut told = BTreeSet::new();
    for (name, story) in stories() {
        for entry in story.timeline().entries {
            assert!(
                !entry.change.is_empty() && entry.change != *entry.event_type,
                "{name}: {entry:?}"
            );
            assert!(!entry.changes.is_empty(), "{name}: {entry:?}");
            assert!(
                entry
                    .changes
                    .iter()
                    .all(|change| change.before.as_ref() != Some(&change.after))
            );
            told.insert(entry.event_type.to_string());
        }
    }
    let types = OrderEvent::TYPES
        .iter()
        .chain(PaymentEvent::TYPES)
        .map(|(name, _)| *name);
    for event_type in types.chain(STOCK) {
        assert!(told.remove(event_type), "{event_type} is in no story");
    }
    assert_eq!(told, BTreeSet::new());
}

#[test]
fn every_cause_is_an_entry_before_and_what_persons_do_has_none() {
    for (name, told) in stories() {
        let story = told.timeline();
        let mut before = BTreeSet::new();
        for entry in &story.entries {
            let is_person = matches!(entry.actor_kind, ActorKind::Customer | ActorKind::Staff);
            assert_eq!(entry.caused_by.is_none(), is_person, "{name}: {entry:?}");
            if let Some(cause) = &entry.caused_by {
                assert!(before.contains(&**cause), "{name}: {entry:?}");
            }
            assert!(
                !entry.command.is_empty() && entry.actor_id.is_some(),
                "{name}: {entry:?}"
            );
            before.insert(entry.event_id.as_str());
        }
        let for_customer = serde_json::to_string(&story.for_customer()).unwrap();
        assert!(!for_customer.contains(STAFF), "{name}");
        assert!(for_customer.contains(&story.customer_id.to_string()), "{name}");
    }
}

/// The last that the entries of one kind of aggregate say of a figure, over all it is told of.
fn last(entries: &[TimelineEntry], kind: AggregateType, what: Figure) -> BTreeMap<Option<String>, Value> {
    let of_kind = |entry: &&TimelineEntry| entry.event_id.starts_with(kind.as_str());
    let changes = entries.iter().filter(of_kind).flat_map(|entry| &entry.changes);
    changes
        .filter(|change| change.what == what)
        .map(|change| (change.of.clone(), change.after.clone()))
        .collect()
}

fn word(value: Option<&Value>) -> &str {
    match value {
        Some(Value::Word(word)) => word,
        other => panic!("{other:?} is no word"),
    }
}

fn sum(values: &BTreeMap<Option<String>, Value>) -> i64 {
    let amounts = values.values().map(|value| match value {
        Value::Money(money) => money.amount(),
        other => panic!("{other:?} is no money"),
    });
    amounts.sum()
}

/// What the entries say adds up to what the views of orders and payments show, after every event.
fn check(
    timeline: &TimelineView,
    orders: &Document<<Orders as View>::Part>,
    payments: &Document<<Payments as View>::Part>,
) {
    let order = Orders::combine(&timeline.order_id.into(), orders).unwrap();
    let (entries, of_order, of_payment) = (&timeline.entries, AggregateType::Order, AggregateType::Payment);
    let status = last(entries, of_order, Figure::Status);
    assert_eq!(word(status.get(&None)), order.status.as_str(), "{timeline:#?}");
    assert_eq!(sum(&last(entries, of_order, Figure::Paid)), order.paid.amount());
    assert_eq!(
        sum(&last(entries, of_order, Figure::Refunded)),
        order.refunded.amount()
    );
    let units = |what| match last(entries, of_order, what).get(&None) {
        Some(Value::Number(units)) => *units,
        _ => 0,
    };
    let lines = || order.lines.iter();
    assert_eq!(
        units(Figure::UnitsShipped),
        lines().map(|line| u64::from(line.shipped)).sum::<u64>()
    );
    assert_eq!(
        units(Figure::UnitsReturned),
        lines().map(|line| u64::from(line.returned)).sum::<u64>()
    );
    let Some(source) = payments.source(of_payment) else {
        return;
    };
    let payment = Payments::combine(&source.stream.aggregate_id, payments).unwrap();
    let status = last(entries, of_payment, Figure::Status);
    assert_eq!(word(status.get(&None)), payment.status.as_str(), "{timeline:#?}");
    assert_eq!(
        sum(&last(entries, of_payment, Figure::Captured)),
        payment.captured.amount()
    );
    assert_eq!(
        sum(&last(entries, of_payment, Figure::Refunded)),
        payment.refunded.amount()
    );
    for refund in &payment.refunds {
        let status = serde_json::to_value(refund.status).unwrap();
        let refunds = last(entries, of_payment, Figure::Refund);
        assert_eq!(word(refunds.get(&Some(refund.refund_id.to_string()))), status);
    }
}

#[test]
fn what_the_entries_say_adds_up_to_what_orders_and_payments_show() {
    let mut compared = 0;
    let mut logs: Vec<_> = stories().map(|(_, told)| told.events().to_vec()).into();
    logs.extend((1..=60).map(|seed| Story::tell(seed, 4).log(&mut Dice(seed))));
    for log in logs {
        let mut documents: BTreeMap<DocId, (Document<_>, Document<_>, Document<_>)> = BTreeMap::new();
        for event in &log {
            let Some(id) = OrderTimeline::route(event) else {
                continue;
            };
            let (timeline, orders, payments) = documents.entry(id.clone()).or_default();
            timeline.fold::<OrderTimeline>(event).unwrap();
            if Orders::route(event).is_some() {
                orders.fold::<Orders>(event).unwrap();
            }
            if Payments::route(event).is_some() {
                payments.fold::<Payments>(event).unwrap();
            }
            if let Some(timeline) = OrderTimeline::combine(&id, timeline) {
                check(&timeline, orders, payments);
                compared += 1;
            }
        }
    }
    assert!(compared > 3_000, "{compared}");
}
