//! Whole sagas over the real log: what a shop sees.

#![allow(clippy::expect_used, reason = "a test may fail")]

mod common;

use std::time::Duration;

use aggregates::cart::CartStatus;
use aggregates::order::OrderStatus;
use aggregates::payment::PaymentStatus;
use common::Shop;
use event_bus::{HealingOutcome, Remedy, Retried};
use event_schemas::{AggregateType, Event, PaymentEvent, Position, StreamId};
use sagas::SagasConfig;
use sagas::fault::{BEFORE_PROVIDER, Faults};
use sagas::provider::{SandboxFault, token};

#[tokio::test]
async fn a_checked_out_cart_becomes_a_paid_order() {
    let mut shop = Shop::open().await;
    shop.stock("MUG", 10).await;
    shop.stock("TEA", 10).await;
    let order = shop
        .check_out("ada", &[("MUG", 2, 500), ("TEA", 1, 300)], token::OK)
        .await;
    shop.settle().await;

    assert_eq!(shop.order(order).await.status(), OrderStatus::Paid);
    assert_eq!(shop.payment(order).await.status(), PaymentStatus::Captured);
    assert_eq!(shop.item("MUG").await.reserved_by(order), 2);
    assert_eq!(shop.item("TEA").await.available(), 9);
    assert_eq!(
        *shop.cart("ada").await.status(),
        CartStatus::Open,
        "the next cart starts"
    );
    assert!(shop.cart("ada").await.lines().is_empty(), "and starts empty");
    assert_eq!(shop.charged(order).await, 1_300);
    shop.audit(&[order]).await;

    let events = shop.events().await;
    let placed = events
        .iter()
        .find(|recorded| recorded.event.name() == "OrderPlaced")
        .expect("placed");
    let cause = placed.metadata.causation_id.as_deref().expect("caused");
    assert!(
        cause.starts_with("cart/"),
        "every event leads back to its cause: {cause}"
    );
}

#[tokio::test]
async fn an_order_that_was_placed_in_an_older_version_is_paid() {
    let mut shop = Shop::open().await;
    shop.stock("MUG", 10).await;
    shop.settle().await;
    shop.stop().await;
    let order = shop.place("ada", &[("MUG", 2, 500)], token::OK).await;
    shop.age_orders().await;
    shop.restart().await;
    shop.settle().await;

    assert_eq!(shop.order(order).await.status(), OrderStatus::Paid);
    assert_eq!(shop.charged(order).await, 1_000);
    shop.no_dead_letters().await;
    shop.audit(&[order]).await;
}

#[tokio::test]
async fn an_order_of_nothing_that_is_kept_in_stock_and_costs_nothing_is_paid_without_a_payment() {
    let mut shop = Shop::open().await;
    let order = shop.place("ada", &[("GIFT-CARD", 1, 0)], token::OK).await;
    shop.settle().await;

    assert_eq!(shop.order(order).await.status(), OrderStatus::Paid);
    assert_eq!(shop.sandbox.calls(), 0);
    shop.cancel(order).await;
    shop.settle().await;
    assert_eq!(shop.order(order).await.status(), OrderStatus::Cancelled);
    shop.audit(&[order]).await;
}

#[tokio::test]
async fn what_is_out_of_stock_cancels_the_order_and_gives_the_rest_back() {
    let mut shop = Shop::open().await;
    shop.stock("MUG", 5).await;
    shop.stock("TEA", 1).await;
    let order = shop
        .check_out("ada", &[("MUG", 2, 500), ("TEA", 2, 300)], token::OK)
        .await;
    shop.settle().await;

    assert_eq!(shop.order(order).await.status(), OrderStatus::Cancelled);
    assert_eq!(shop.item("MUG").await.reserved_total(), 0);
    assert_eq!(shop.item("TEA").await.reserved_total(), 0);
    assert_eq!(
        shop.cart("ada").await.lines().len(),
        2,
        "the cart is back as it was"
    );
    assert_eq!(shop.sandbox.calls(), 0);
    shop.audit(&[order]).await;
}

#[tokio::test]
async fn a_declined_payment_may_be_retried_until_the_deadline() {
    for declining in [token::DECLINED, token::INSUFFICIENT_FUNDS] {
        let mut shop = Shop::open().await;
        shop.stock("MUG", 5).await;
        let order = shop.place("ada", &[("MUG", 1, 500)], declining).await;
        shop.settle().await;
        assert_eq!(shop.order(order).await.status(), OrderStatus::AwaitingPayment);
        assert_eq!(shop.payment(order).await.status(), PaymentStatus::Declined);

        shop.retry_payment(order, token::OK).await;
        shop.settle().await;
        assert_eq!(shop.order(order).await.paid().expect("paid").attempt, 2);
        shop.audit(&[order]).await;
    }
}

#[tokio::test]
async fn nobody_pays_until_the_deadline() {
    let mut shop = Shop::open().await;
    shop.stock("MUG", 5).await;
    let order = shop.check_out("ada", &[("MUG", 1, 500)], token::DECLINED).await;
    shop.settle().await;
    shop.advance(Duration::from_secs(30 * 60 - 1)).await;
    assert_eq!(shop.order(order).await.status(), OrderStatus::AwaitingPayment);
    shop.advance(Duration::from_secs(1)).await;

    assert_eq!(shop.order(order).await.status(), OrderStatus::Cancelled);
    assert_eq!(shop.payment(order).await.status(), PaymentStatus::Expired);
    assert_eq!(shop.item("MUG").await.reserved_total(), 0);
    assert_eq!(shop.cart("ada").await.lines().len(), 1);
    shop.audit(&[order]).await;
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_and_the_customer_charged_once() {
    let mut shop = Shop::open().await;
    shop.stock("MUG", 5).await;
    let order = shop
        .place("ada", &[("MUG", 1, 500)], token::TIMEOUT_THEN_OK)
        .await;
    shop.settle().await;
    for _ in 0..4 {
        shop.advance(Duration::from_secs(1)).await;
    }
    assert_eq!(shop.order(order).await.status(), OrderStatus::Paid);
    assert_eq!(shop.charged(order).await, 500);
    assert_eq!(shop.sandbox.calls(), 2, "each call was made once");
    shop.audit(&[order]).await;
}

#[tokio::test]
async fn a_provider_that_is_down_is_tried_until_it_answers() {
    let mut shop = Shop::open().await;
    shop.stock("MUG", 5).await;
    for operation in ["session", "session", "capture", "lookup"] {
        shop.sandbox.fail_next(operation, SandboxFault::Down);
    }
    let order = shop.place("ada", &[("MUG", 1, 500)], token::OK).await;
    shop.settle().await;
    assert_eq!(shop.order(order).await.status(), OrderStatus::AwaitingPayment);
    for _ in 0..8 {
        shop.advance(Duration::from_secs(2)).await;
    }
    assert_eq!(shop.order(order).await.status(), OrderStatus::Paid);
    shop.audit(&[order]).await;
}

#[tokio::test]
async fn a_secret_that_has_expired_declines_the_payment() {
    let mut shop = Shop::open_with(SagasConfig::default(), Faults::die_at(BEFORE_PROVIDER, 1)).await;
    shop.stock("MUG", 5).await;
    let order = shop.place("ada", &[("MUG", 1, 500)], token::OK).await;
    shop.sagas().stopped().await;
    // Beyond the secret's hour; the order's deadline is later.
    shop.hand.advance(Duration::from_secs(3_600));
    shop.restart().await;
    shop.settle().await;

    let payment = shop.payment(order).await;
    let declined = shop.events().await.iter().any(|recorded| {
        matches!(&recorded.event, Event::Payment(
            PaymentEvent::PaymentDeclined { code, .. }) if code.as_str() == "secret-expired")
    });
    assert!(declined, "{payment:?}");
    assert_eq!(shop.sandbox.calls(), 0);
}

#[tokio::test]
async fn a_refund_that_fails_for_good_is_a_dead_letter_and_can_be_retried() {
    let config = SagasConfig {
        refund_attempts: 2,
        ..SagasConfig::default()
    };
    let mut shop = Shop::open_with(config, Faults::default()).await;
    shop.stock("MUG", 5).await;
    let order = shop.place("ada", &[("MUG", 1, 500)], token::OK).await;
    shop.settle().await;
    shop.sandbox.fail_next("refund", SandboxFault::Down);
    shop.sandbox.fail_next("refund", SandboxFault::Down);
    shop.cancel(order).await;
    shop.settle().await;
    shop.advance(Duration::from_secs(5)).await;
    shop.advance(Duration::from_secs(3_600)).await;
    let parked = shop.sagas().dead_letters().await.expect("read");
    assert_eq!(parked.len(), 1, "it waits for someone to look");
    assert_eq!(shop.refunded(order).await, 0);

    let outcome = shop.heal(&parked[0], Remedy::Retry).await;
    let healed = Retried::Healed { handled: 1 };
    assert_eq!(outcome, HealingOutcome::Retried(healed));
    shop.settle().await;
    assert_eq!(shop.refunded(order).await, 500);
    shop.audit(&[order]).await;
}

#[tokio::test]
async fn small_bounds_change_nothing() {
    let config = SagasConfig {
        batch_events: 3,
        commands_in_flight: 1,
        work_in_flight: 1,
        cached_folds: 1,
        ..SagasConfig::default()
    };
    let mut shop = Shop::open_with(config, Faults::default()).await;
    shop.stock("MUG", 100).await;
    shop.stock("TEA", 4).await;
    let mut orders = Vec::new();
    for buyer in 0..8 {
        let wanted: common::Wanted<'_> = &[("MUG", 2, 500), ("TEA", 1, 300)];
        orders.push(shop.check_out(&format!("buyer-{buyer}"), wanted, token::OK).await);
    }
    shop.settle().await;
    let mut statuses = Vec::new();
    for order in &orders {
        statuses.push(shop.order(*order).await.status());
    }
    assert_eq!(
        statuses
            .iter()
            .filter(|status| **status == OrderStatus::Paid)
            .count(),
        4
    );
    assert_eq!(
        statuses
            .iter()
            .filter(|status| **status == OrderStatus::Cancelled)
            .count(),
        4
    );
    assert_eq!(shop.item("MUG").await.reserved_total(), 8);
    shop.audit(&orders).await;
}

#[tokio::test]
async fn an_event_of_a_newer_binary_stops_the_sagas_and_says_upgrade() {
    let mut shop = Shop::open().await;
    shop.stop().await;
    shop.stock("MUG", 5).await;
    let stream = StreamId::new(AggregateType::Inventory, "MUG");
    shop.rewrite("event_version = '99.0'", &stream, 2).await;
    let order = shop.place("ada", &[("MUG", 1, 500)], token::OK).await;
    shop.restart().await;
    let reason = shop.sagas().stopped().await.expect("a reason");
    assert!(reason.contains("upgrade"), "{reason}");
    let status = shop.sagas().status().await.expect("read");
    assert_eq!(status.position, Position(1));
    assert_eq!(status.stopped, Some(reason));
    assert!(!shop.sagas().parked(), "it is no poison");
    // The process goes on, to say so.
    let ended = tokio::time::timeout(Duration::from_millis(50), shop.sagas().ended()).await;
    assert!(ended.is_err(), "{ended:?}");
    assert_eq!(shop.order(order).await.status(), OrderStatus::Placed);

    // As a binary that knows the version reads it.
    shop.rewrite("event_version = '1.0'", &stream, 2).await;
    shop.restart().await;
    shop.settle().await;
    assert_eq!(shop.order(order).await.status(), OrderStatus::Paid);
    shop.audit(&[order]).await;
}

/// What follows from an event that can be read may concern an aggregate that cannot.
#[tokio::test]
async fn a_command_to_an_aggregate_with_a_newer_event_stops_the_sagas_too() {
    let mut shop = Shop::open().await;
    shop.stock("MUG", 5).await;
    shop.stop().await;
    let order = shop.check_out("ada", &[("MUG", 1, 500)], token::OK).await;
    shop.start(Faults::default()).await;
    shop.settle().await;
    let stream = StreamId::new(AggregateType::Order, order);
    shop.rewrite("event_version = '99.0'", &stream, 1).await;
    shop.reopen().await;
    // The cart's policy, which comes first, is to place the order once more.
    shop.forget_checkpoints().await;
    shop.start(Faults::default()).await;
    let reason = shop.sagas().stopped().await.expect("a reason");
    assert!(reason.contains("upgrade"), "{reason}");
    assert_eq!(
        shop.sagas().dead_letters().await.expect("read"),
        [],
        "it is no poison"
    );
    assert!(
        tokio::time::timeout(Duration::from_millis(50), shop.sagas().ended())
            .await
            .is_err()
    );

    shop.rewrite("event_version = '1.0'", &stream, 1).await;
    shop.restart().await;
    shop.settle().await;
    assert_eq!(shop.order(order).await.status(), OrderStatus::Paid);
    shop.audit(&[order]).await;
}
