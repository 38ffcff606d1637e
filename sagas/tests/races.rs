//! Whole sagas over the real log, and the interleavings of the design that have to come out right.

#![allow(clippy::expect_used, reason = "a test may fail")]

mod common;

use std::time::Duration;

use aggregates::cart::{CartCommand, CartStatus};
use aggregates::order::OrderStatus;
use aggregates::payment::{AttemptStatus, PaymentStatus};
use common::{Shop, customer, sku};
use event_schemas::{Actor, CartEvent, CartId, Event, PaymentEvent, PaymentId, Position};
use event_store::CommandRequest;
use sagas::SagasConfig;
use sagas::fault::{AFTER_PROVIDER, BEFORE_PROVIDER, Faults};
use sagas::policies;
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
async fn race_7_a_reservation_that_comes_after_the_cancel_is_released() {
    let mut shop = Shop::open().await;
    shop.stock("MUG", 5).await;
    shop.stop().await;
    // The order is placed and cancelled before the sagas have looked at it: Reserve runs on a cancelled order.
    let order = shop.place("ada", &[("MUG", 2, 500)], token::OK).await;
    shop.cancel(order).await;
    shop.start(Faults::default()).await;
    shop.settle().await;

    assert_eq!(shop.item("MUG").await.reserved_total(), 0);
    assert_eq!(shop.count("StockReserved").await, 1, "it was reserved late");
    assert_eq!(shop.count("ReservationReleased").await, 1, "and released");
    assert_eq!(shop.sandbox.calls(), 0);
    shop.audit(&[order]).await;
}

#[tokio::test]
async fn race_8_two_rejections_cancel_once() {
    let mut shop = Shop::open().await;
    shop.stock("MUG", 1).await;
    shop.stock("TEA", 1).await;
    let order = shop
        .place("ada", &[("MUG", 2, 500), ("TEA", 2, 300)], token::OK)
        .await;
    shop.settle().await;

    assert_eq!(shop.count("ReservationRejected").await, 2);
    assert_eq!(shop.count("OrderCancelled").await, 1);
    assert_eq!(shop.order(order).await.status(), OrderStatus::Cancelled);
    shop.audit(&[order]).await;
}

#[tokio::test]
async fn race_9_a_cancel_while_the_capture_is_in_flight_is_refunded_once_in_full() {
    let mut shop = Shop::open_with(SagasConfig::default(), Faults::die_at(AFTER_PROVIDER, 2)).await;
    shop.stock("MUG", 5).await;
    // The provider has captured (its second answer); nobody has recorded it.
    let order = shop.place("ada", &[("MUG", 1, 500)], token::OK).await;
    shop.sagas().stopped().await;
    assert_eq!(shop.charged(order).await, 500);
    shop.cancel(order).await;
    shop.restart().await;
    shop.settle().await;

    assert_eq!(shop.order(order).await.status(), OrderStatus::Cancelled);
    assert_eq!(shop.count("PaymentCaptured").await, 1);
    assert_eq!(shop.count("RefundRequested").await, 1);
    assert_eq!(shop.refunded(order).await, 500);
    assert_eq!(shop.item("MUG").await.reserved_total(), 0);
    shop.audit(&[order]).await;
}

#[tokio::test]
async fn race_10_what_is_authorized_after_the_cancel_is_voided() {
    let mut shop = Shop::open().await;
    shop.stock("MUG", 5).await;
    let order = shop.place("ada", &[("MUG", 1, 500)], token::SLOW).await;
    shop.settle().await;
    assert_eq!(
        shop.payment(order).await.status(),
        PaymentStatus::Requested,
        "the session is still open"
    );
    shop.cancel(order).await;
    shop.settle().await;
    shop.advance(Duration::from_secs(2)).await;

    assert_eq!(shop.payment(order).await.status(), PaymentStatus::Voided);
    assert_eq!(shop.count("CaptureRequested").await, 0);
    assert_eq!(shop.charged(order).await, 0);
    shop.audit(&[order]).await;
}

#[tokio::test]
async fn race_11_a_late_capture_of_the_first_attempt_is_refunded_when_the_second_has_paid() {
    let mut shop = Shop::open().await;
    shop.stock("MUG", 5).await;
    let order = shop.place("ada", &[("MUG", 1, 500)], token::CAPTURED_LATE).await;
    shop.settle().await;
    assert_eq!(
        shop.payment(order).await.status(),
        PaymentStatus::Declined,
        "it looks declined"
    );
    shop.retry_payment(order, token::OK).await;
    shop.settle().await;
    assert_eq!(shop.order(order).await.paid().expect("paid").attempt, 2);
    shop.advance(Duration::from_secs(2)).await;

    assert_eq!(shop.charged(order).await, 1_000, "the provider took it twice");
    assert_eq!(shop.refunded(order).await, 500, "and gave it back once");
    assert_eq!(shop.order(order).await.paid().expect("paid").attempt, 2);
    assert_eq!(shop.count("OrderPaid").await, 1);
    let payment = shop.payment(order).await;
    assert_eq!(
        payment.attempt(1).expect("made").status(),
        AttemptStatus::Captured
    );
    assert_eq!(payment.attempt(1).expect("made").refunds().len(), 1);
    assert_eq!(payment.attempt(2).expect("made").refunds().len(), 0);
    shop.audit(&[order]).await;
}

#[tokio::test]
async fn a_late_capture_pays_an_order_that_still_waits_and_is_refunded_on_one_that_does_not() {
    let mut shop = Shop::open().await;
    shop.stock("MUG", 5).await;
    let waits = shop.place("ada", &[("MUG", 1, 500)], token::CAPTURED_LATE).await;
    let cancelled = shop.place("bob", &[("MUG", 1, 500)], token::CAPTURED_LATE).await;
    shop.settle().await;
    shop.cancel(cancelled).await;
    shop.settle().await;
    shop.advance(Duration::from_secs(2)).await;

    assert_eq!(shop.order(waits).await.status(), OrderStatus::Paid);
    assert_eq!(shop.order(cancelled).await.status(), OrderStatus::Cancelled);
    assert_eq!(shop.refunded(cancelled).await, 500);
    shop.audit(&[waits, cancelled]).await;
}

#[tokio::test]
async fn race_12_a_capture_reported_twice_is_recorded_once() {
    let mut shop = Shop::open().await;
    shop.stock("MUG", 5).await;
    let order = shop.place("ada", &[("MUG", 1, 500)], token::OK).await;
    shop.settle().await;
    let events = shop.events().await;
    let captured = events.iter().find_map(|recorded| match &recorded.event {
        Event::Payment(PaymentEvent::PaymentCaptured {
            order_id,
            attempt,
            provider_ref,
            amount,
        }) => Some(aggregates::payment::PaymentCommand::RecordCaptured {
            order_id: *order_id,
            attempt: *attempt,
            provider_ref: provider_ref.clone(),
            amount: *amount,
        }),
        _ => None,
    });
    let before = shop.summary(&[order]).await;
    // The webhook, under an id of its own.
    let request = shop.request(captured.expect("captured"));
    shop.executors
        .payments
        .submit(PaymentId::for_order(order), request)
        .await
        .expect("accepted");
    shop.settle().await;

    assert_eq!(shop.summary(&[order]).await, before);
    shop.audit(&[order]).await;
}

#[tokio::test]
async fn race_13_the_deadline_fires_while_the_capture_is_being_recorded() {
    // The provider has captured; the process dies; the deadline passes; both go on at once.
    let mut shop = Shop::open_with(SagasConfig::default(), Faults::die_at(AFTER_PROVIDER, 2)).await;
    shop.stock("MUG", 50).await;
    let order = shop.place("ada", &[("MUG", 1, 500)], token::OK).await;
    shop.sagas().stopped().await;
    shop.hand.advance(shop.config.payment_window);
    shop.restart().await;
    shop.settle().await;

    let status = shop.order(order).await.status();
    let kept = shop.charged(order).await - shop.refunded(order).await;
    match status {
        OrderStatus::Paid => assert_eq!(kept, 500, "paid, and the money kept"),
        OrderStatus::Cancelled => assert_eq!(kept, 0, "cancelled, and the money given back"),
        other => panic!("neither paid nor cancelled: {other}"),
    }
    let reserved = shop.item("MUG").await.reserved_total();
    assert_eq!(reserved, u64::from(status == OrderStatus::Paid));
    shop.audit(&[order]).await;
}

#[tokio::test]
async fn race_14_a_death_between_the_charge_and_its_record_charges_once() {
    for nth in [1, 2] {
        let mut shop = Shop::open_with(SagasConfig::default(), Faults::die_at(AFTER_PROVIDER, nth)).await;
        shop.stock("MUG", 5).await;
        let order = shop.place("ada", &[("MUG", 1, 500)], token::OK).await;
        shop.sagas().stopped().await;
        let calls = shop.sandbox.calls();
        shop.restart().await;
        shop.settle().await;

        assert_eq!(shop.order(order).await.status(), OrderStatus::Paid);
        assert_eq!(shop.charged(order).await, 500);
        // A new handle counts from zero: what had been answered before the death was asked for, not done again.
        assert_eq!(calls + shop.sandbox.calls(), 2, "one session, one capture");
        shop.audit(&[order]).await;
    }
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

    shop.sagas().retry(&parked[0].scope).await.expect("retried");
    shop.settle().await;
    assert_eq!(shop.refunded(order).await, 500);
    shop.audit(&[order]).await;
}

#[tokio::test]
async fn race_5_the_handler_and_the_policy_place_one_order() {
    let mut shop = Shop::open().await;
    shop.stock("MUG", 5).await;
    shop.stop().await;
    let order = shop.check_out("ada", &[("MUG", 1, 500)], token::OK).await;
    // What the check-out's handler does, before the policy has seen the event.
    let events = shop.events().await;
    let placed = events.iter().find_map(|recorded| match &recorded.event {
        Event::Cart(CartEvent::CartCheckedOut(checked_out)) => {
            Some(policies::place_order_command(&recorded.id(), checked_out))
        }
        _ => None,
    });
    let (command_id, order_id, command) = placed.expect("checked out");
    assert_eq!(order_id, order);
    let request = CommandRequest::new(command_id, Actor::system("handler"), command);
    let first = shop
        .executors
        .orders
        .submit(order, request.clone())
        .await
        .expect("placed");
    shop.start(Faults::default()).await;
    shop.settle().await;

    assert_eq!(shop.count("OrderPlaced").await, 1);
    assert_eq!(shop.order(order).await.status(), OrderStatus::Paid);
    // The client repeats, long after.
    let again = shop
        .executors
        .orders
        .submit(order, request)
        .await
        .expect("its first receipt");
    assert_eq!(
        (again.version, again.position, again.replayed),
        (first.version, first.position, true)
    );
    shop.audit(&[order]).await;
}

#[tokio::test]
async fn race_25_a_merge_that_was_cut_in_two_is_completed() {
    let mut shop = Shop::open().await;
    shop.stop().await;
    let (guest, ada) = (CartId::for_owner(customer("guest")), customer("ada"));
    for (owner, item) in [("guest", "MUG"), ("guest", "TEA"), ("ada", "MUG")] {
        let command = CartCommand::AddItem {
            owner: customer(owner),
            sku: sku(item),
            quantity: 2,
        };
        let request = shop.request(command);
        shop.executors
            .carts
            .submit(CartId::for_owner(customer(owner)), request)
            .await
            .expect("added");
    }
    let request = shop.request(CartCommand::MergeInto { target_owner: ada });
    shop.executors
        .carts
        .submit(guest, request)
        .await
        .expect("given away");
    assert!(
        shop.cart("guest").await.lines().is_empty(),
        "the process dies here"
    );
    shop.restart().await;
    shop.settle().await;

    let lines: Vec<_> = shop
        .cart("ada")
        .await
        .lines()
        .iter()
        .map(|line| line.quantity)
        .collect();
    assert_eq!(lines, [4, 2], "every line is in exactly one cart");
    shop.redeliver().await;
    let lines: Vec<_> = shop
        .cart("ada")
        .await
        .lines()
        .iter()
        .map(|line| line.quantity)
        .collect();
    assert_eq!(lines, [4, 2]);
    shop.no_dead_letters().await;
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
    let newer = shop.file.write(|conn| {
        let sql = "UPDATE events SET event_version = '99.0' WHERE position = 2";
        Ok::<_, sqlite_file::SqliteError>(conn.execute(sql, [])?)
    });
    assert_eq!(newer.await.expect("written"), 1);
    shop.restart().await;
    let reason = shop.sagas().stopped().await.expect("a reason");
    assert!(reason.contains("upgrade"), "{reason}");
    let status = shop.sagas().status().await.expect("read");
    assert_eq!((status.position, status.head), (Position(1), Position(2)));
    assert_eq!(status.stopped, Some(reason));
}
