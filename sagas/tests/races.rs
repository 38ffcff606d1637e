//! The interleavings of the design that have to come out right, by their numbers, over the real log.

#![allow(clippy::expect_used, reason = "a test may fail")]

mod common;

use std::time::Duration;

use aggregates::cart::CartCommand;
use aggregates::inventory::InventoryCommand;
use aggregates::order::OrderStatus;
use aggregates::payment::{AttemptStatus, PaymentStatus};
use common::{Shop, customer, sku};
use event_bus::{Checkpoint, Checkpoints};
use event_schemas::{Actor, CartEvent, CartId, Event, PaymentEvent, PaymentId};
use event_store::CommandRequest;
use sagas::fault::{AFTER_PROVIDER, Faults};
use sagas::policies;
use sagas::provider::token;
use sagas::{SUBSCRIBER, SagasConfig};

#[tokio::test]
async fn race_7_a_reservation_that_comes_after_the_cancel_is_released() {
    let mut shop = Shop::open().await;
    shop.stock("MUG", 5).await;
    shop.stop().await;
    let order = shop.place("ada", &[("MUG", 2, 500)], token::OK).await;
    let placed = shop.events().await.pop().expect("placed");
    shop.cancel(order).await;
    // The cancel is heard first: it finds nothing to release.
    let checkpoint = Checkpoint::at(shop.log.identity(), placed.position);
    let checkpoints = Checkpoints::open(&shop.database).await.expect("opened");
    checkpoints
        .save(&SUBSCRIBER.into(), checkpoint)
        .await
        .expect("saved");
    shop.start(Faults::default()).await;
    shop.settle().await;
    assert_eq!(shop.count("ReservationReleased").await, 0);
    // Then the placing.
    let request = shop.request(InventoryCommand::Reserve {
        order_id: order,
        quantity: 2,
    });
    shop.executors
        .inventory
        .submit(&sku("MUG"), request)
        .await
        .expect("reserved");
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
