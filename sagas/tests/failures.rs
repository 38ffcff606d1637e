//! Every step fails once, every event comes twice: the outcome is the same.

#![allow(clippy::expect_used, reason = "a test may fail")]

mod common;

use aggregates::inventory::InventoryCommand;
use aggregates::order::OrderStatus;
use common::{DEADLINE, Shop, Summary, order_id, sku};
use database::{DatabaseError, params};
use event_bus::{HealingOutcome, Remedy, Retried};
use event_schemas::{AggregateType, OrderId, ReleaseReason, StreamId, Version};
use sagas::SagasConfig;
use sagas::fault::Faults;
use sagas::provider::token;

/// A paid order from a cart, one out of stock, one cancelled before it was looked at, a zero total, a lost answer, and a
/// reservation that comes late: together they take every branch of the table up to paid or cancelled.
async fn begin(shop: &mut Shop) -> Vec<OrderId> {
    shop.stock("MUG", 100).await;
    shop.stock("TEA", 1).await;
    let paid = shop
        .check_out("ada", &[("MUG", 2, 500), ("GIFT-1", 1, 100)], token::OK)
        .await;
    let short = shop
        .check_out("bob", &[("MUG", 1, 500), ("TEA", 2, 300)], token::OK)
        .await;
    let cancelled = shop.place("eve", &[("MUG", 3, 500)], token::OK).await;
    shop.cancel(cancelled).await;
    let free = shop.place("fay", &[("MUG", 1, 0)], token::OK).await;
    let declined = shop.place("gil", &[("MUG", 1, 500)], token::DECLINED).await;
    vec![paid, short, cancelled, free, declined]
}

/// What is done to orders that have come to rest.
async fn go_on(shop: &mut Shop) {
    shop.cancel(cart_order("ada")).await;
    shop.retry_payment(order_id("gil"), token::OK).await;
}

fn cart_order(name: &str) -> OrderId {
    OrderId::for_checkout(event_schemas::CartId::for_owner(common::customer(name)), 1)
}

impl Shop {
    /// Waits until all is done or the planted death has struck; says which.
    async fn settle_or_die(&self) -> bool {
        tokio::time::timeout(DEADLINE, self.sagas().idle())
            .await
            .expect("in time")
            .is_ok()
    }
}

async fn undisturbed() -> Summary {
    let mut shop = Shop::open().await;
    shop.stop().await;
    let orders = begin(&mut shop).await;
    shop.start(Faults::default()).await;
    shop.settle().await;
    go_on(&mut shop).await;
    shop.settle().await;
    shop.audit(&orders).await;
    let statuses = [
        OrderStatus::Cancelled,
        OrderStatus::Cancelled,
        OrderStatus::Cancelled,
        OrderStatus::Paid,
        OrderStatus::Paid,
    ];
    for (order, status) in orders.iter().zip(statuses) {
        assert_eq!(shop.order(*order).await.status(), status);
    }
    shop.summary(&orders).await
}

#[tokio::test]
async fn a_death_at_any_step_changes_nothing() {
    let expected = undisturbed().await;
    // One run per step that the first half of the scenario visits, and one per step of the second.
    for half in [1, 2] {
        for nth in 1.. {
            let mut shop = Shop::open().await;
            shop.stop().await;
            let orders = begin(&mut shop).await;
            let faults = Faults::die_at_visit(nth);
            shop.start(if half == 1 {
                faults.clone()
            } else {
                Faults::default()
            })
            .await;
            if !shop.settle_or_die().await {
                shop.restart().await;
                shop.settle().await;
            }
            shop.stop().await;
            go_on(&mut shop).await;
            shop.start(if half == 2 {
                faults.clone()
            } else {
                Faults::default()
            })
            .await;
            if !shop.settle_or_die().await {
                shop.restart().await;
                shop.settle().await;
            }
            assert_eq!(
                shop.summary(&orders).await,
                expected,
                "half {half}, death at visit {nth}"
            );
            shop.audit(&orders).await;
            if !faults.struck() {
                assert!(nth > 10, "the scenario has more steps than {nth}");
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_death_in_every_life_comes_to_the_same_end() {
    let expected = undisturbed().await;
    let mut shop = Shop::open().await;
    shop.stop().await;
    let orders = begin(&mut shop).await;
    // Each life is one step longer than the last: with the same length for ever, nothing might ever be done.
    let mut lives = 1..;
    for half in [1, 2] {
        loop {
            shop.start(Faults::die_at_visit(lives.next().expect("endless")))
                .await;
            if shop.settle_or_die().await {
                break;
            }
            shop.stop().await;
        }
        shop.stop().await;
        if half == 1 {
            go_on(&mut shop).await;
        }
    }
    assert_eq!(shop.summary(&orders).await, expected);
    shop.start(Faults::default()).await;
    shop.audit(&orders).await;
}

#[tokio::test]
async fn a_whole_log_delivered_again_adds_nothing_and_calls_nobody() {
    let mut shop = Shop::open().await;
    let orders = begin(&mut shop).await;
    shop.settle().await;
    go_on(&mut shop).await;
    shop.settle().await;
    let (before, calls) = (shop.summary(&orders).await, shop.sandbox.calls());
    shop.redeliver().await;
    shop.redeliver().await;

    assert_eq!(shop.summary(&orders).await, before);
    assert_eq!(shop.sandbox.calls(), calls);
    shop.audit(&orders).await;
    // Timers that were set again find their orders paid or cancelled.
    shop.advance(shop.config.payment_window).await;
    assert_eq!(shop.summary(&orders).await, before);
}

#[tokio::test]
async fn a_policy_that_fails_parks_its_scope_and_lets_the_rest_go_on() {
    let mut shop = Shop::open().await;
    shop.stock("MUG", 100).await;
    shop.stop().await;
    // A reservation for an order that nobody placed: recording it is refused, and no branch foresees that.
    let ghost = order_id("ghost");
    let request = shop.request(InventoryCommand::Reserve {
        order_id: ghost,
        quantity: 1,
    });
    shop.executors
        .inventory
        .submit(&sku("MUG"), request)
        .await
        .expect("reserved");
    let order = shop.place("ada", &[("MUG", 1, 500)], token::OK).await;
    shop.start(Faults::default()).await;
    shop.settle().await;
    assert_eq!(
        shop.order(order).await.status(),
        OrderStatus::Paid,
        "another order of the same SKU goes on"
    );

    let parked = shop.sagas().dead_letters().await.expect("read");
    assert_eq!(parked.len(), 1);
    assert_eq!(&*parked[0].scope, format!("inventory/MUG#{ghost}"));
    assert!(shop.sagas().parked());

    // What the ghost's scope hears now has to wait behind the first letter, also after a restart.
    let reason = ReleaseReason::OrderCancelled;
    let request = shop.request(InventoryCommand::Release {
        order_id: ghost,
        reason,
    });
    shop.executors
        .inventory
        .submit(&sku("MUG"), request)
        .await
        .expect("released");
    let request = shop.request(InventoryCommand::Reserve {
        order_id: ghost,
        quantity: 2,
    });
    shop.executors
        .inventory
        .submit(&sku("MUG"), request)
        .await
        .expect("reserved");
    shop.restart().await;
    shop.settle().await;
    let healing = shop.healing().await;
    let letters = healing.show(&parked[0].id(), 10).await.expect("read");
    assert_eq!(letters.len(), 2);
    assert!(
        letters[0]
            .reason
            .as_deref()
            .expect("a reason")
            .contains("RecordLineReserved")
    );
    assert_eq!(
        (letters[1].reason.clone(), letters[1].attempts),
        (None, 0),
        "nobody has tried it"
    );

    // Retried too early it stays; once the order is there, all of it is healed in order.
    assert!(matches!(
        shop.heal(&parked[0], Remedy::Retry).await,
        HealingOutcome::Retried(Retried::StillParked { handled: 0, .. })
    ));
    let placed = shop.place("ghost", &[("MUG", 2, 500)], token::OK).await;
    shop.settle().await;
    assert_eq!(
        shop.heal(&parked[0], Remedy::Retry).await,
        HealingOutcome::Retried(Retried::Healed { handled: 2 })
    );
    shop.settle().await;
    assert_eq!(shop.order(placed).await.status(), OrderStatus::Paid);
    assert!(!shop.sagas().parked());
    shop.audit(&[order, placed]).await;
}

#[tokio::test]
async fn a_letter_can_be_given_up_and_only_that_one() {
    let mut shop = Shop::open().await;
    shop.stock("MUG", 100).await;
    for quantity in [1, 2] {
        let request = shop.request(InventoryCommand::Reserve {
            order_id: order_id("ghost"),
            quantity,
        });
        shop.executors
            .inventory
            .submit(&sku("MUG"), request)
            .await
            .expect("reserved");
        let reason = ReleaseReason::OrderCancelled;
        let request = shop.request(InventoryCommand::Release {
            order_id: order_id("ghost"),
            reason,
        });
        shop.executors
            .inventory
            .submit(&sku("MUG"), request)
            .await
            .expect("released");
    }
    shop.settle().await;
    let parked = shop.sagas().dead_letters().await.expect("read");
    let skip = Remedy::Skip {
        position: parked[0].first.position,
    };
    let outcome = shop.heal(&parked[0], skip).await;
    assert!(
        matches!(&outcome, HealingOutcome::Skipped { what } if what.contains("StockReserved")),
        "{outcome:?}"
    );
    let left = shop.sagas().dead_letters().await.expect("read");
    assert_eq!((left[0].letters, parked[0].letters), (1, 2));
    assert!(left[0].first.position > parked[0].first.position);
    assert!(shop.sagas().parked());
    let skip = Remedy::Skip {
        position: left[0].first.position,
    };
    shop.heal(&left[0], skip).await;
    shop.no_dead_letters().await;
}

#[tokio::test]
async fn a_broken_payload_parks_its_order_only_and_heals_in_order() {
    let mut shop = Shop::open().await;
    shop.stock("MUG", 100).await;
    shop.stop().await;
    // One batch: the order whose first event gets broken, what follows of it, and another order.
    let broken = shop.place("ada", &[("MUG", 1, 500)], token::OK).await;
    shop.cancel(broken).await;
    let other = shop.place("bob", &[("MUG", 2, 500)], token::OK).await;
    let stream = StreamId::new(AggregateType::Order, broken);
    let payload = shop
        .log
        .read_raw_stream("order", stream.aggregate_id.as_str(), Version(0), 1);
    let payload = payload.await.expect("read")[0].payload.clone();
    shop.rewrite(r#"payload = '{"OrderPlaced":{}}'"#, &stream, 1)
        .await;
    shop.restart().await;
    shop.settle().await;
    assert_eq!(
        shop.order(other).await.status(),
        OrderStatus::Paid,
        "the rest goes on"
    );

    let parked = shop.sagas().dead_letters().await.expect("read");
    let ids: Vec<String> = parked.iter().map(|parked| parked.id().to_string()).collect();
    assert_eq!(ids, [format!("sagas:{stream}")]);
    let letters = shop.healing().await.show(&parked[0].id(), 10).await;
    let letters: Vec<(u64, bool)> = letters
        .expect("read")
        .iter()
        .map(|letter| (letter.event_id.version.0, letter.reason.is_some()))
        .collect();
    assert_eq!(letters, [(1, true), (2, false)], "the cancellation waits");
    // Also orders that come later.
    let later = shop.place("eve", &[("MUG", 1, 500)], token::OK).await;
    shop.settle().await;
    assert_eq!(shop.order(later).await.status(), OrderStatus::Paid);
    assert!(matches!(
        shop.heal(&parked[0], Remedy::Retry).await,
        HealingOutcome::Retried(Retried::StillParked { handled: 0, .. })
    ));

    let mend = shop.database.write(move |session| {
        let sql = "UPDATE events SET payload = ?1 WHERE aggregate_type = 'order' AND payload = ?2";
        session.execute(sql, &params![payload, r#"{"OrderPlaced":{}}"#])
    });
    assert_eq!(mend.await, Ok::<_, DatabaseError>(1));
    assert_eq!(
        shop.heal(&parked[0], Remedy::Retry).await,
        HealingOutcome::Retried(Retried::Healed { handled: 2 })
    );
    shop.settle().await;
    assert_eq!(shop.order(broken).await.status(), OrderStatus::Cancelled);
    // In order: what the first event had reserved, the second has released.
    assert_eq!(shop.item("MUG").await.reserved_total(), 3);
    assert_eq!(shop.count("StockReserved").await, 3);
    shop.audit(&[broken, other, later]).await;
}

#[tokio::test]
async fn a_refund_that_meets_another_one_under_way_waits_without_stopping_the_rest() {
    use aggregates::payment::{PaymentCommand, RefundAmount};
    use event_schemas::{PaymentId, RefundId, derive_uuid};

    let mut shop = Shop::open_with(SagasConfig::default(), Faults::default()).await;
    shop.stock("MUG", 100).await;
    // Attempt 1 is captured late, attempt 2 pays: attempt 1 has to be refunded as a surplus …
    let order = shop.place("ada", &[("MUG", 1, 500)], token::CAPTURED_LATE).await;
    shop.settle().await;
    shop.retry_payment(order, token::OK).await;
    shop.settle().await;
    // … while staff give back a part of attempt 2 and the provider does not answer.
    shop.sandbox
        .fail_next("refund", sagas::provider::SandboxFault::Down);
    let refund_id = RefundId::from_uuid(derive_uuid("test/refund", &[b"1"]));
    let amount = RefundAmount::Exactly(common::gbp(100));
    let reason = common::code("goodwill");
    let request = shop.request(PaymentCommand::RequestRefund {
        refund_id,
        attempt: 2,
        amount,
        reason,
    });
    shop.executors
        .payments
        .submit(PaymentId::for_order(order), request)
        .await
        .expect("requested");
    shop.settle().await;
    shop.hand.advance(std::time::Duration::from_secs(2));
    shop.settle().await;
    let other = shop.place("bob", &[("MUG", 1, 500)], token::OK).await;
    shop.settle().await;
    assert_eq!(
        shop.order(other).await.status(),
        OrderStatus::Paid,
        "the rest goes on"
    );

    for _ in 0..6 {
        shop.advance(std::time::Duration::from_secs(5)).await;
    }
    assert_eq!(shop.refunded(order).await, 600);
    assert_eq!(shop.count("RefundSucceeded").await, 2);
    shop.audit(&[order, other]).await;
}

#[tokio::test]
async fn the_last_unit_is_sold_once() {
    let mut shop = Shop::open().await;
    shop.stock("MUG", 20).await;
    let mut orders = Vec::new();
    for buyer in 0..100 {
        orders.push(
            shop.place(&format!("buyer-{buyer}"), &[("MUG", 1, 500)], token::OK)
                .await,
        );
    }
    shop.settle().await;
    let mut paid = 0;
    for order in &orders {
        paid += usize::from(shop.order(*order).await.status() == OrderStatus::Paid);
    }
    assert_eq!(paid, 20);
    assert_eq!(shop.item("MUG").await.reserved_total(), 20);
    shop.audit(&orders).await;
}
