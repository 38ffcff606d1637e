//! Every view is a pure fold: whatever the order between aggregates, the batches and the repeats, the same bytes.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use event_schemas::RecordedEvent;
use projections::carts::Carts;
use projections::order_timeline::OrderTimeline;
use projections::orders::Orders;
use projections::payments::Payments;
use projections::products::Products;
use projections::sales::Sales;
use projections::stock::Stock;
use projections::{Document, View};
use proptest::prelude::*;
use support::{Dice, Story, deliver_again};

/// The documents' bytes by id, then those of what is read.
fn fold<V: View>(events: &[Arc<RecordedEvent>]) -> BTreeMap<String, (String, Option<String>)> {
    let mut documents: BTreeMap<_, Document<V::Part>> = BTreeMap::new();
    for event in events {
        if let Some(id) = V::route(event) {
            documents.entry(id).or_default().fold::<V>(event).unwrap();
        }
    }
    let bytes = documents.into_iter().map(|(id, document)| {
        let read = V::combine(&id, &document).map(|doc| serde_json::to_string(&doc).unwrap());
        (id.to_string(), (serde_json::to_string(&document).unwrap(), read))
    });
    bytes.collect()
}

fn round_trips<V: View>(events: &[Arc<RecordedEvent>]) {
    for (id, (body, _)) in fold::<V>(events) {
        let document: Document<V::Part> = serde_json::from_str(&body).unwrap();
        assert_eq!(
            serde_json::to_string(&document).unwrap(),
            body,
            "{} {id}",
            V::NAME
        );
    }
}

fn same<V: View>(log: &[Arc<RecordedEvent>], again: &[Arc<RecordedEvent>]) {
    let (first, second) = (fold::<V>(log), fold::<V>(again));
    assert_eq!(first, second, "{}", V::NAME);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_interleaving_folds_to_the_same_bytes(story in any::<u64>(), orders in 1..8_u64, delivery in any::<u64>()) {
        let log = Story::tell(story, orders).log(&mut Dice(story));
        let again = deliver_again(&log, &mut Dice(delivery));
        same::<Products>(&log, &again);
        same::<Stock>(&log, &again);
        same::<Carts>(&log, &again);
        same::<Orders>(&log, &again);
        same::<OrderTimeline>(&log, &again);
        same::<Payments>(&log, &again);
        same::<Sales>(&log, &again);
    }

    #[test]
    fn a_stored_document_reads_back_to_the_same_bytes(story in any::<u64>()) {
        let log = Story::tell(story, 4).log(&mut Dice(story));
        round_trips::<Products>(&log);
        round_trips::<Stock>(&log);
        round_trips::<Carts>(&log);
        round_trips::<Orders>(&log);
        round_trips::<OrderTimeline>(&log);
        round_trips::<Payments>(&log);
        round_trips::<Sales>(&log);
    }

    /// What a view routes, it must be able to fold; keys are as many as declared.
    #[test]
    fn keys_fit_their_declaration(story in any::<u64>()) {
        fn check<V: View>(log: &[Arc<RecordedEvent>]) {
            let mut documents: BTreeMap<_, Document<V::Part>> = BTreeMap::new();
            for event in log {
                if let Some(id) = V::route(event) {
                    assert!(V::SOURCES.contains(&event.stream.aggregate_type), "{}", V::NAME);
                    documents.entry(id).or_default().fold::<V>(event).unwrap();
                }
            }
            for document in documents.values() {
                if let Some(keys) = V::keys(document) {
                    assert_eq!(keys.len(), V::KEYS.len(), "{}", V::NAME);
                }
            }
        }
        let log = Story::tell(story, 4).log(&mut Dice(story));
        check::<Products>(&log);
        check::<Stock>(&log);
        check::<Carts>(&log);
        check::<Orders>(&log);
        check::<OrderTimeline>(&log);
        check::<Payments>(&log);
        check::<Sales>(&log);
    }
}

/// A hot SKU's document does not grow with its reservations.
#[test]
fn a_stock_document_stays_small() {
    let log = Story::tell(1, 400).log(&mut Dice(1));
    let stock = fold::<Stock>(&log);
    let largest = stock.values().map(|(body, _)| body.len()).max().unwrap();
    assert!(largest < 512, "{largest} bytes");
}
