//! An order as it was is what the view showed then.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/shop.rs"]
mod shop;
mod support;

use std::sync::Arc;
use std::time::Duration;

use event_schemas::{AggregateType, ManualClock, RecordedEvent, StreamId, Timestamp, Version};
use event_store::{AsOf, Log, LogOptions};
use projections::orders::{OrderAsOf, OrderHistory, OrderView, Orders, PastOrder};
use projections::{DocId, Document, View};
use shop::{Shop, order_placed, order_stream};
use support::{Dice, Story, customer_id, order_id, time};

const ORDERS: u64 = 3;

/// The order's document after every event of the log, from the view's own fold.
fn shown(log: &[Arc<RecordedEvent>], id: &DocId) -> Vec<Option<OrderView>> {
    let mut document = Document::default();
    log.iter()
        .map(|event| {
            if Orders::route(event).as_ref() == Some(id) {
                document.fold::<Orders>(event).unwrap();
            }
            Orders::combine(id, &document)
        })
        .collect()
}

/// A shop whose log has recorded each of these events at its time, a second apart.
async fn recorded(events: &[Arc<RecordedEvent>]) -> Shop {
    let mut shop = Shop::open().await;
    let clock = ManualClock::new(time(1));
    let options = LogOptions {
        clock: clock.clone().into(),
        ..LogOptions::default()
    };
    shop.log = Log::open(&shop.log_file, options).await.unwrap();
    for event in events {
        let before = Version(event.version.0 - 1);
        shop.append(event.stream.clone(), before, event.event.clone())
            .await;
        clock.advance(Duration::from_secs(1));
    }
    shop
}

async fn as_of(shop: &Shop, number: u64, moment: AsOf) -> PastOrder {
    let history = OrderHistory::open(&shop.log, order_id(number))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(history.customer(), customer_id(number % 3));
    history.as_of(&shop.log, moment).await.unwrap()
}

fn was(order: &OrderView, recorded_at: Timestamp) -> PastOrder {
    PastOrder::Was(Box::new(OrderAsOf {
        order: order.clone(),
        recorded_at,
    }))
}

#[tokio::test(flavor = "multi_thread")]
async fn at_every_version_and_at_every_time_an_order_is_what_the_view_showed() {
    let mut compared = 0;
    for seed in 1..=5 {
        let events = Story::tell(seed, ORDERS).log(&mut Dice(seed));
        let shop = recorded(&events).await;
        for number in 1..=ORDERS {
            let stream = StreamId::new(AggregateType::Order, order_id(number));
            let shown = shown(&events, &order_id(number).into());
            let (mut since, mut version) = (None, Version(0));
            for (event, shown) in events.iter().zip(&shown) {
                let at = event.recorded_at;
                if event.stream == stream {
                    (since, version) = (Some(at), event.version);
                    let then = as_of(&shop, number, AsOf::Version(version)).await;
                    assert_eq!(
                        then,
                        was(shown.as_ref().unwrap(), at),
                        "{seed}: {stream} at {version}"
                    );
                }
                let then = as_of(&shop, number, AsOf::Time(at)).await;
                match (shown, since) {
                    (Some(shown), Some(since)) => {
                        assert_eq!(then, was(shown, since), "{seed}: {stream} at {at}");
                    }
                    _ => assert!(matches!(then, PastOrder::NotYetPlaced { placed_at } if placed_at > at)),
                }
                compared += 1;
            }
            let beyond = as_of(&shop, number, AsOf::Version(version.next())).await;
            assert_eq!(beyond, PastOrder::NotReached { version });
            let present = as_of(&shop, number, AsOf::Time(time(1_000_000))).await;
            assert_eq!(
                present,
                was(shown.last().unwrap().as_ref().unwrap(), since.unwrap())
            );
        }
    }
    assert!(compared > 500, "{compared}");
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_no_history_of_an_order_that_there_is_not() {
    let mut shop = Shop::open().await;
    shop.append(order_stream(1), Version(0), order_placed(1)).await;
    assert!(
        OrderHistory::open(&shop.log, order_id(1))
            .await
            .unwrap()
            .is_some()
    );
    assert!(
        OrderHistory::open(&shop.log, order_id(2))
            .await
            .unwrap()
            .is_none()
    );
}
