//! Several processes of the command API on one PostgreSQL.

#![cfg(feature = "cluster")]
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should panic, and say where"
)]

mod support;

use command_api::MAX_UNPAID_PER_CUSTOMER;
use identity::verifier::Role;
use support::{Shop, buying, order_id, until};
use tokio::time::Instant;

/// None where the database is not for several processes.
async fn two() -> Option<(Shop, Shop)> {
    let shop = Shop::open().await;
    if !shop.is_shared() {
        eprintln!("not tested: SQLite is for one process");
        return None;
    }
    let replica = shop.replica().await;
    Some((shop, replica))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_ends_when_another_replica_takes_the_payment() {
    let Some((one, other)) = two().await else { return };
    one.sell("GIFT", 250, None).await;
    let user = one.user(Role::Guest).await;
    let waiting = tokio::spawn({
        let user = user.clone();
        let started = Instant::now();
        async move {
            let headers = [("idempotency-key", "k"), ("prefer", "wait=10")];
            let body = buying("GIFT", 1).to_string();
            let answer = user.send("/v1/orders", &headers, Some(body)).await;
            (answer, started.elapsed())
        }
    });
    until("the order is placed", || async {
        one.count("OrderPlaced").await == 1
    })
    .await;
    let events = one.events().await;
    let placed = events
        .iter()
        .find(|recorded| recorded.event.name() == "OrderPlaced")
        .unwrap();
    let order = placed.stream.aggregate_id.as_str().parse().unwrap();
    other.pay(order).await;
    let (answer, took) = waiting.await.unwrap();
    assert_eq!(answer.expect(201).body["order"]["status"], "paid");
    assert!(took < http_conventions::MAX_WAIT, "nobody was woken");
}

#[tokio::test(flavor = "multi_thread")]
async fn unpaid_orders_of_one_replica_count_in_the_other() {
    let Some((one, other)) = two().await else { return };
    one.sell("GIFT", 250, None).await;
    let user = one.user(Role::Customer).await;
    let mut orders = Vec::new();
    for _ in 0..MAX_UNPAID_PER_CUSTOMER {
        orders.push(order_id(&user.buy("GIFT").await.expect(201)));
    }
    let elsewhere = other.here(&user);
    let mut key = 0;
    let mut buy = async || {
        key += 1;
        let key = format!("there-{key}");
        elsewhere.post_as("/v1/orders", &key, buying("GIFT", 1)).await
    };
    // What it has not heard of yet it may still let through; none of those is paid, either.
    let deadline = Instant::now() + std::time::Duration::from_secs(20);
    while buy().await.status != 429 {
        assert!(Instant::now() < deadline, "the other replica never counted them");
    }
    assert!(other.count("OrderPlaced").await < 2 * MAX_UNPAID_PER_CUSTOMER);
    // A replica that starts now counts them from the log.
    let third = one.replica().await;
    let answer = third
        .here(&user)
        .post_as("/v1/orders", "third", buying("GIFT", 1))
        .await;
    assert_eq!(answer.status, 429, "{}", answer.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_at_another_replica_gets_the_first_receipt() {
    let Some((one, other)) = two().await else { return };
    one.sell("GIFT", 250, None).await;
    let user = one.user(Role::Customer).await;
    let there = other.here(&user);
    let (first, second) = tokio::join!(
        user.post_as("/v1/orders", "same", buying("GIFT", 1)),
        there.post_as("/v1/orders", "same", buying("GIFT", 1))
    );
    let (first, second) = (first.expect(201), second.expect(201));
    assert_eq!(first.receipt(), second.receipt());
    assert_eq!(one.count("OrderPlaced").await, 1);
    assert_ne!(first.replayed(), second.replayed());
}
