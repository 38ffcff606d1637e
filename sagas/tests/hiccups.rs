//! The store fails for a while: the sagas wait, and go on without a restart.

#![allow(clippy::expect_used, reason = "a test may fail")]

mod common;

use aggregates::inventory::InventoryCommand;
use aggregates::order::OrderStatus;
use common::{Shop, order_id, sku};
use sagas::fault::Faults;
use sagas::provider::token;

#[tokio::test]
async fn a_log_that_cannot_be_read_for_a_while_is_followed_from_where_it_was() {
    let mut shop = Shop::open().await;
    shop.stock("MUG", 100).await;
    let before = shop.place("ada", &[("MUG", 1, 500)], token::OK).await;
    shop.settle().await;
    shop.stop().await;
    let missed = shop.place("bob", &[("MUG", 2, 500)], token::OK).await;
    shop.reopen().await;
    shop.rename_table("events", "events_away").await;
    shop.start(Faults::default()).await;
    shop.wait_until_retrying().await;
    shop.rename_table("events_away", "events").await;
    shop.settle().await;

    assert_eq!(shop.sagas().retrying(), None);
    assert_eq!(shop.order(missed).await.status(), OrderStatus::Paid);
    let after = shop.place("eve", &[("MUG", 3, 500)], token::OK).await;
    shop.settle().await;
    assert_eq!(shop.order(after).await.status(), OrderStatus::Paid);
    shop.audit(&[before, missed, after]).await;
}

/// A reservation for an order that nobody placed: its policy fails.
async fn reserve_for_nobody(shop: &mut Shop) {
    let request = shop.request(InventoryCommand::Reserve {
        order_id: order_id("ghost"),
        quantity: 1,
    });
    shop.executors
        .inventory
        .submit(&sku("MUG"), request)
        .await
        .expect("reserved");
}

#[tokio::test]
async fn a_dead_letter_that_cannot_be_stored_for_a_while_is_stored_in_the_end() {
    let mut shop = Shop::open().await;
    shop.stock("MUG", 100).await;
    shop.settle().await;
    shop.rename_table("dead_letters", "dead_letters_away").await;
    reserve_for_nobody(&mut shop).await;
    shop.wait_until_retrying().await;
    let order = shop.place("ada", &[("MUG", 1, 500)], token::OK).await;
    assert!(!shop.sagas().parked(), "not before it is durable");
    shop.rename_table("dead_letters_away", "dead_letters").await;
    shop.settle().await;

    assert_eq!(shop.sagas().retrying(), None);
    assert!(shop.sagas().parked());
    let letters = shop.sagas().dead_letters().await.expect("read");
    assert_eq!(letters.len(), 1);
    assert_eq!((letters[0].letters, letters[0].first.attempts), (1, 1));
    assert_eq!(shop.order(order).await.status(), OrderStatus::Paid);
}

#[tokio::test]
async fn a_checkpoint_that_cannot_be_stored_keeps_nobody_from_stopping() {
    let mut shop = Shop::open().await;
    shop.stock("MUG", 100).await;
    shop.settle().await;
    shop.rename_table("checkpoints", "checkpoints_away").await;
    let order = shop.place("ada", &[("MUG", 1, 500)], token::OK).await;
    shop.wait_until_retrying().await;
    tokio::time::timeout(common::DEADLINE, shop.stop())
        .await
        .expect("in time");
    shop.rename_table("checkpoints_away", "checkpoints").await;
    shop.restart().await;
    shop.settle().await;

    assert_eq!(shop.order(order).await.status(), OrderStatus::Paid);
    shop.audit(&[order]).await;
}
