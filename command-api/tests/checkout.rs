//! Checking a cart out: once, at the right price, whatever is lost on the way.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should panic, and say where"
)]

mod support;

use std::pin::pin;
use std::time::Duration;

use aggregates::cart::CartCommand;
use aggregates::order::OrderStatus;
use database::DatabaseError;
use event_schemas::{Actor, CartEvent, Code, CommandId, Event, SecretRef, derive_uuid};
use event_store::CommandRequest;
use futures_util::future::join_all;
use futures_util::poll;
use identity::verifier::Role;
use serde_json::json;
use support::{Shop, User, gbp, order_id, paying, with};

async fn cart_command(shop: &Shop, user: &User, name: &str, command: CartCommand) {
    let id = CommandId::from_uuid(derive_uuid("test cart", &[name.as_bytes()]));
    let request = CommandRequest::new(id, Actor::system("test"), command);
    shop.executors.carts.submit(user.cart(), request).await.unwrap();
}

#[tokio::test]
async fn a_check_out_places_one_order_at_catalogue_prices() {
    let shop = Shop::open().await;
    shop.sell("MUG-1", 1_299, Some(5)).await;
    shop.sell("GIFT", 250, None).await;
    let user = shop.user(Role::Guest).await;
    user.add("MUG-1", 2).await.expect(200);
    user.add("GIFT", 1).await.expect(200);

    let answer = user.check_out("k").await.expect(201);
    let order = order_id(&answer);
    assert_eq!(answer.headers["location"], format!("/v1/orders/{order}"));
    assert_eq!(
        (answer.body["type"].as_str(), answer.id()),
        (Some("order"), order.to_string())
    );
    assert_eq!(answer.body["order"]["status"], "placed");
    assert_eq!(answer.body["order"]["payment"]["status"], "absent");
    let placed = shop.placed(order).await.unwrap();
    assert_eq!(placed.totals.total.amount(), 2 * 1_299 + 250);
    assert_eq!(placed.cart_id, Some(user.cart()));
    assert_eq!(placed.customer, user.id.into());
    let lines: Vec<_> = placed
        .lines
        .iter()
        .map(|line| (line.sku.as_str(), line.quantity, line.tracked))
        .collect();
    assert_eq!(lines, [("MUG-1", 2, true), ("GIFT", 1, false)]);

    // Another key: the cart is checked out, and as what.
    let other = user.check_out("other").await.refused(409, "cart-checked-out");
    assert_eq!(other.body["order_id"], order.to_string());
    user.add("GIFT", 1).await.refused(409, "cart-checked-out");
}

#[tokio::test]
async fn the_payment_token_is_kept_beside_the_log_and_never_in_it() {
    let shop = Shop::open().await;
    shop.sell("GIFT", 250, None).await;
    let user = shop.user(Role::Guest).await;
    user.add("GIFT", 1).await.expect(200);
    let order = order_id(&user.check_out("k").await.expect(201));
    let name: SecretRef = shop.placed(order).await.unwrap().payment.secret_ref.unwrap();
    let now = event_schemas::Clock::from(shop.clock.clone()).now();
    assert_eq!(
        shop.secrets.get(&name, now).await.unwrap().unwrap().expose(),
        "tok_ok"
    );
    for recorded in shop.events().await {
        assert!(
            !recorded.event.to_json().unwrap().contains("tok_ok"),
            "{}",
            recorded.event.name()
        );
    }
    shop.clock.advance(Duration::from_secs(24 * 3_600));
    let later = event_schemas::Clock::from(shop.clock.clone()).now();
    assert_eq!(shop.secrets.get(&name, later).await.unwrap(), None, "it expires");
}

#[tokio::test]
async fn what_cannot_be_checked_out() {
    let shop = Shop::open().await;
    let product = shop.sell("GIFT", 250, None).await;
    let user = shop.user(Role::Customer).await;
    user.check_out("k").await.refused(422, "cart-empty");
    user.add("GIFT", 1).await.expect(200);
    let path = "/v1/carts/mine/checkout";
    user.send(path, &[], Some(paying("tok_ok").to_string()))
        .await
        .refused(400, "idempotency-key-required");
    let cash = json!({ "payment": { "method": "cash" }, "country": "GB" });
    let refused = user
        .post(path, cash)
        .await
        .refused(422, "payment-method-unavailable");
    assert_eq!(refused.body["methods"], json!(["sandbox"]));
    let cheaper = with(paying("tok_ok"), "expected_total", gbp(249));
    let changed = user.post(path, cheaper).await.refused(409, "total-changed");
    assert_eq!(changed.body["total"], gbp(250));
    let staff = shop.user(Role::Staff).await;
    staff
        .post(&format!("/v1/products/{product}/unpublish"), json!({}))
        .await
        .expect(200);
    let gone = user.check_out("k").await.refused(422, "not-for-sale");
    assert_eq!(gone.body["sku"], "GIFT");
    assert_eq!(shop.count("CartCheckedOut").await, 0);
    // A refusal is not stored: the same key works once the reason is gone.
    staff
        .post(&format!("/v1/products/{product}/publish"), json!({}))
        .await
        .expect(200);
    assert!(!user.check_out("k").await.expect(201).replayed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_check_outs_at_once_under_one_key_are_one_order_and_49_replays() {
    let shop = Shop::open().await;
    shop.sell("GIFT", 250, None).await;
    let user = shop.user(Role::Guest).await;
    user.add("GIFT", 1).await.expect(200);
    let calls = (0..50).map(|_| {
        let user = user.clone();
        tokio::spawn(async move { user.check_out("k").await.expect(201) })
    });
    let answers: Vec<_> = join_all(calls).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(answers.iter().filter(|answer| answer.replayed()).count(), 49);
    assert!(
        answers
            .iter()
            .all(|answer| answer.receipt() == answers[0].receipt())
    );
    assert_eq!(
        (
            shop.count("CartCheckedOut").await,
            shop.count("OrderPlaced").await
        ),
        (1, 1)
    );

    let other = with(paying("tok_declined"), "expected_total", gbp(250));
    user.post_as("/v1/carts/mine/checkout", "k", other)
        .await
        .refused(422, "idempotency-key-reused");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_check_outs_at_once_under_fifty_keys_are_one_order() {
    let shop = Shop::open().await;
    shop.sell("GIFT", 250, None).await;
    let user = shop.user(Role::Guest).await;
    user.add("GIFT", 1).await.expect(200);
    let calls = (0..50).map(|n| {
        let user = user.clone();
        tokio::spawn(async move { user.check_out(&format!("k{n}")).await })
    });
    let answers: Vec<_> = join_all(calls).await.into_iter().map(Result::unwrap).collect();
    let (placed, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status == 201);
    assert_eq!(placed.len(), 1);
    for answer in refused {
        let answer = answer.refused(409, "cart-checked-out");
        assert_eq!(answer.body["order_id"], placed[0].body["order"]["id"]);
    }
    assert_eq!(shop.count("OrderPlaced").await, 1);
}

/// Race 4, with everything changed that a refusal could come from.
#[tokio::test]
async fn a_repeat_gets_the_first_receipt_whatever_has_changed_since() {
    let shop = Shop::open().await;
    let product = shop.sell("GIFT", 250, None).await;
    let staff = shop.user(Role::Staff).await;
    let user = shop.user(Role::Guest).await;
    let added = user.add("GIFT", 1).await.expect(200);
    let body = with(paying("tok_ok"), "expected_total", gbp(250)).to_string();
    let version = format!("\"{}\"", added.version());
    let headers = [("idempotency-key", "k"), ("if-match", version.as_str())];
    let repeat = || user.send("/v1/carts/mine/checkout", &headers, Some(body.clone()));
    let first = repeat().await.expect(201);
    assert!(!first.replayed());
    let same = |again: support::Answer| {
        let again = again.expect(201);
        assert!(again.replayed());
        assert_eq!(again.receipt(), first.receipt());
        again
    };
    same(repeat().await);

    let price = json!({ "sku": "GIFT", "price": gbp(999) });
    staff
        .post(&format!("/v1/products/{product}/price"), price)
        .await
        .expect(200);
    same(repeat().await);
    staff
        .post(&format!("/v1/products/{product}/unpublish"), json!({}))
        .await
        .expect(200);
    same(repeat().await);

    // The order is paid and the cart is renewed: it is empty, open, and at another version.
    let order = order_id(&first);
    shop.pay(order).await;
    cart_command(&shop, &user, "renew", CartCommand::Renew { order_id: order }).await;
    let again = same(repeat().await);
    assert_eq!(
        again.body["order"]["status"], "paid",
        "the receipt of then, the status of now"
    );

    // Something new is in the cart, the price does not fit, and the customer has used up the limit.
    staff
        .post(&format!("/v1/products/{product}/publish"), json!({}))
        .await
        .expect(200);
    user.add("GIFT", 3).await.expect(200);
    for _ in 0..5 {
        user.buy("GIFT").await.expect(201);
    }
    user.check_out("new").await.refused(429, "too-many-unpaid-orders");
    same(repeat().await);
    // A restart forgets no receipt.
    let restarted = shop.restarted().await;
    same(
        restarted
            .here(&user)
            .send("/v1/carts/mine/checkout", &headers, Some(body.clone()))
            .await,
    );
    assert_eq!(shop.count("CartCheckedOut").await, 1);
}

/// Race 5: the handler dies between the two appends.
#[tokio::test]
async fn a_check_out_that_died_half_way_is_finished_by_its_repeat_or_by_the_policy() {
    for policy_is_first in [false, true] {
        let shop = Shop::open().await;
        shop.sell("GIFT", 250, None).await;
        let user = shop.user(Role::Guest).await;
        user.add("GIFT", 1).await.expect(200);
        {
            let mut dying = pin!(user.check_out("k"));
            while shop
                .executors
                .carts
                .load(user.cart())
                .await
                .unwrap()
                .0
                .checked_out_as()
                .is_none()
            {
                // Polled by hand, so that it stands still once the check-out is durable.
                assert!(poll!(&mut dying).is_pending(), "it must not come to its end");
            }
        }
        let recorded = shop.events().await.pop().unwrap();
        let Event::Cart(CartEvent::CartCheckedOut(event)) = &recorded.event else {
            panic!("{recorded:?}")
        };
        let order = event.order_id;
        assert_eq!(
            shop.executors.orders.load(order).await.unwrap().0.status(),
            OrderStatus::Absent
        );

        if policy_is_first {
            let (id, order, command) = sagas::policies::place_order_command(&recorded.id(), event);
            let request = CommandRequest::new(id, Actor::system("cart-checked-out"), command);
            shop.executors.orders.submit(order, request).await.unwrap();
            // And the sagas go on, as they do.
            shop.reserve(order).await;
        }
        let shop = shop.restarted().await;
        let again = shop.here(&user).check_out("k").await.expect(201);
        assert!(again.replayed());
        assert_eq!(order_id(&again), order);
        assert_eq!(again.version(), 1);
        let event = shop
            .events()
            .await
            .into_iter()
            .find(|recorded| recorded.event.name() == "OrderPlaced");
        let token = format!("order/{order}@1.{}", event.unwrap().position);
        assert_eq!(
            again.body["consistency_token"], token,
            "the receipt of the placing, whoever placed it"
        );
        assert_eq!(
            shop.here(&user).check_out("k").await.expect(201).receipt(),
            again.receipt()
        );
        assert_eq!(shop.count("OrderPlaced").await, 1);
    }
}

/// Race 6: another tab adds something between pricing and check-out. On one thread and with everything in memory that
/// pricing reads, so that once nothing moves any more the check-out is known to stand where it keeps its payment token:
/// behind the pricing, before the append.
#[tokio::test]
async fn a_cart_that_changes_while_it_is_priced_is_priced_again() {
    let shop = Shop::open().await;
    if shop.is_shared() {
        eprintln!("not tested: PostgreSQL has no one writer to hold up");
        return;
    }
    shop.sell("A", 100, None).await;
    shop.sell("B", 10, None).await;
    let user = shop.user(Role::Guest).await;
    user.add("A", 1).await.expect(200);

    let (gate, opened) = std::sync::mpsc::channel::<()>();
    let (entered, inside) = tokio::sync::oneshot::channel();
    let database = shop.database.clone();
    let writer = tokio::spawn(async move {
        database
            .write(move |_| {
                let _ = entered.send(());
                let _ = opened.recv();
                Ok::<_, DatabaseError>(())
            })
            .await
    });
    inside.await.unwrap();
    let check_out = tokio::spawn({
        let user = user.clone();
        async move { user.check_out("k").await }
    });
    settle_tasks().await;
    assert!(!check_out.is_finished());
    let b = event_schemas::Sku::new("B").unwrap();
    let add = CartCommand::AddItem {
        owner: user.id.into(),
        sku: b,
        quantity: 2,
    };
    tokio::join!(cart_command(&shop, &user, "other tab", add), async {
        settle_tasks().await;
        assert!(!check_out.is_finished());
        drop(gate);
    });

    let answer = check_out.await.unwrap().expect(201);
    let placed = shop.placed(order_id(&answer)).await.unwrap();
    let lines: Vec<_> = placed
        .lines
        .iter()
        .map(|line| (line.sku.as_str(), line.quantity))
        .collect();
    assert_eq!(lines, [("A", 1), ("B", 2)]);
    assert_eq!(placed.totals.total.amount(), 120);
    writer.await.unwrap().unwrap();
}

/// Lets the tasks of this thread go on until each waits for something outside of it.
async fn settle_tasks() {
    for _ in 0..500 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_failed_order_gives_the_cart_back_and_the_next_check_out_is_another_order() {
    let shop = Shop::open().await;
    shop.sell("GIFT", 250, None).await;
    let user = shop.user(Role::Customer).await;
    user.add("GIFT", 1).await.expect(200);
    let first = user.check_out("a").await.expect(201);
    let cancel = format!("/v1/orders/{}/cancel", order_id(&first));
    user.post(&cancel, json!({})).await.expect(200);
    let reason = Code::new("order-cancelled").unwrap();
    let reopen = CartCommand::Reopen {
        order_id: order_id(&first),
        reason,
    };
    cart_command(&shop, &user, "reopen", reopen).await;
    let second = user.check_out("b").await.expect(201);
    assert_ne!(order_id(&first), order_id(&second));
    let again = user.check_out("a").await.expect(201);
    assert_eq!(again.receipt(), first.receipt());
    assert_eq!(again.body["order"]["status"], "cancelled");
    assert_eq!(
        again.body["order"]["problem"]["type"],
        "/problems/cancelled-by-customer"
    );
}
