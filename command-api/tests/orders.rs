//! Orders without a cart, whose they are, and what staff do with them.

mod support;

use std::time::Duration;

use aggregates::order::OrderStatus;
use event_schemas::{Clock, OrderId};
use futures_util::future::join_all;
use identity::verifier::Role;
use serde_json::json;
use support::{Shop, buying, gbp, order_id, paying, until, with};

#[tokio::test]
async fn anybody_buys_lines_at_catalogue_prices() {
    let shop = Shop::open().await;
    shop.sell("A", 100, None).await;
    let user = shop.user(Role::Guest).await;
    let body = with(buying("A", 3), "expected_total", gbp(300));
    let answer = user.post_as("/v1/orders", "k", body.clone()).await.expect(201);
    let placed = shop.placed(order_id(&answer)).await.unwrap();
    assert_eq!(
        (placed.customer, placed.totals.total.amount(), placed.cart_id),
        (user.id.into(), 300, None)
    );
    let again = user.post_as("/v1/orders", "k", body).await.expect(201);
    assert!(again.replayed());
    assert_eq!(again.receipt(), answer.receipt());
    user.post_as("/v1/orders", "k", buying("A", 4))
        .await
        .refused(422, "idempotency-key-reused");
    let two = json!([{ "sku": "A", "quantity": 1 }, { "sku": "B", "quantity": 1 }]);
    let unknown = user
        .post("/v1/orders", with(paying("t"), "lines", two))
        .await
        .refused(422, "not-for-sale");
    assert_eq!(unknown.body["errors"][0]["pointer"], "/lines/1/sku");
    user.post("/v1/orders", buying("A", 1_000))
        .await
        .refused(422, "quantity-out-of-range");
    user.post("/v1/orders", with(paying("t"), "lines", json!([])))
        .await
        .refused(422, "too-many-lines");
}

/// Race 4 without a cart.
#[tokio::test]
async fn a_repeat_of_an_order_passes_new_prices_and_limits() {
    let shop = Shop::open().await;
    let product = shop.sell("A", 100, None).await;
    let user = shop.user(Role::Customer).await;
    let body = with(buying("A", 1), "expected_total", gbp(100));
    let first = user.post_as("/v1/orders", "k", body.clone()).await.expect(201);
    shop.pay(order_id(&first)).await;
    let staff = shop.user(Role::Staff).await;
    let price = json!({ "sku": "A", "price": gbp(101) });
    staff
        .post(&format!("/v1/products/{product}/price"), price)
        .await
        .expect(200);
    user.post("/v1/orders", body.clone())
        .await
        .refused(409, "total-changed");
    let again = user.post_as("/v1/orders", "k", body.clone()).await.expect(201);
    assert_eq!((again.replayed(), again.receipt()), (true, first.receipt()));
    assert_eq!(again.body["order"]["status"], "paid");

    let plain = buying("A", 1);
    for n in 0..5 {
        user.post_as("/v1/orders", &format!("more-{n}"), plain.clone())
            .await
            .expect(201);
    }
    user.post("/v1/orders", plain)
        .await
        .refused(429, "too-many-unpaid-orders");
    assert!(user.post_as("/v1/orders", "k", body).await.expect(201).replayed());
}

#[tokio::test]
async fn only_staff_agree_on_prices_customers_and_times() {
    let shop = Shop::open().await;
    let product = shop.sell("A", 100, None).await;
    let (staff, user) = (shop.user(Role::Staff).await, shop.user(Role::Customer).await);
    let agreed = json!([
        { "sku": "A", "quantity": 5_000, "unit_price": gbp(90) },
        { "sku": "A", "quantity": 1, "unit_price": gbp(0) },
    ]);
    let priced = with(paying("tok_ok"), "lines", agreed);
    let named = with(buying("A", 1), "customer", json!(user.id));
    let dated = with(buying("A", 1), "occurred_at", json!("2010-12-01T08:26:00Z"));
    let someone = shop.user(Role::Customer).await;
    for body in [&priced, &named, &dated] {
        someone
            .post("/v1/orders", body.clone())
            .await
            .refused(403, "forbidden");
    }
    // To name oneself is no privilege.
    user.post("/v1/orders", named.clone()).await.expect(201);

    let unpublish = format!("/v1/products/{product}/unpublish");
    staff.post(&unpublish, json!({})).await.expect(200);
    let body = with(priced, "customer", json!(user.id));
    let body = with(body, "occurred_at", json!("2010-12-01T08:26:00Z"));
    let answer = staff.post("/v1/orders", body).await.expect(201);
    let placed = shop.placed(order_id(&answer)).await.unwrap();
    assert_eq!(
        (placed.customer, placed.totals.total.amount()),
        (user.id.into(), 450_000)
    );
    assert_eq!(placed.lines.len(), 2, "one SKU at two prices stays two lines");
    assert_eq!(placed.occurred_at.to_string(), "2010-12-01T08:26:00Z");
    let now = Clock::from(shop.clock.clone()).now();
    assert!(
        placed.payment_deadline > now,
        "the deadline counts from now, not from the sale"
    );

    let future = with(buying("A", 1), "occurred_at", json!("2999-01-01T00:00:00Z"));
    staff
        .post("/v1/orders", future)
        .await
        .refused(422, "time-in-the-future");
    let negative = json!([{ "sku": "A", "quantity": 1, "unit_price": gbp(-1) }]);
    staff
        .post("/v1/orders", with(paying("t"), "lines", negative))
        .await
        .refused(422, "invalid-price");
    let dollars = json!([{ "sku": "A", "quantity": 1, "unit_price": { "amount": 1, "currency": "USD" } }]);
    staff
        .post("/v1/orders", with(paying("t"), "lines", dollars))
        .await
        .refused(422, "currency-mismatch");
}

#[tokio::test]
async fn staff_orders_may_be_large_and_others_not() {
    let shop = Shop::open().await;
    shop.sell("A", 1, None).await;
    let (staff, user) = (shop.user(Role::Staff).await, shop.user(Role::Customer).await);
    let lines = |count: usize| {
        let line = json!({ "sku": "A", "quantity": 1, "unit_price": gbp(1) });
        with(paying("tok_ok"), "lines", json!(vec![line; count]))
    };
    assert!(lines(2_000).to_string().len() > 64 * 1024);
    staff.post("/v1/orders", lines(2_000)).await.expect(201);
    staff
        .post("/v1/orders", lines(2_001))
        .await
        .refused(422, "too-many-lines");
    user.post("/v1/orders", lines(2_000))
        .await
        .refused(413, "body-too-large");
    let plain = with(
        paying("t"),
        "lines",
        json!(vec![json!({ "sku": "A", "quantity": 1 }); 201]),
    );
    user.post("/v1/orders", plain)
        .await
        .refused(422, "too-many-lines");
}

#[tokio::test]
async fn five_unpaid_orders_a_customer_also_at_once_and_after_a_restart() {
    let shop = Shop::open().await;
    shop.sell("A", 100, None).await;
    let user = shop.user(Role::Guest).await;
    let answers = join_all((0..20).map(|_| user.buy("A"))).await;
    let placed: Vec<_> = answers.iter().filter(|answer| answer.status == 201).collect();
    assert_eq!(placed.len(), 5);
    for answer in answers.iter().filter(|answer| answer.status != 201) {
        let refused = answer.clone().refused(429, "too-many-unpaid-orders");
        assert!(refused.headers.contains_key("retry-after"));
    }
    user.add("A", 1).await.expect(200);
    user.check_out("cart")
        .await
        .refused(429, "too-many-unpaid-orders");

    let shop = shop.restarted().await;
    let user = shop.here(&user);
    user.buy("A").await.refused(429, "too-many-unpaid-orders");
    shop.pay(order_id(placed[0])).await;
    until("the payment makes room", || async {
        user.buy("A").await.status == 201
    })
    .await;
    let cancel = format!("/v1/orders/{}/cancel", order_id(placed[1]));
    user.post(&cancel, json!({})).await.expect(200);
    until("the cancellation makes room", || async {
        user.buy("A").await.status == 201
    })
    .await;
    user.buy("A").await.refused(429, "too-many-unpaid-orders");
    // What nobody has paid or cancelled does not lock a customer out for ever.
    shop.clock.advance(Duration::from_secs(3 * 3_600));
    let token = shop.identity.mint_access_token(user.id).await.unwrap().token;
    user.with_token(token).buy("A").await.expect(201);
}

#[tokio::test]
async fn twenty_unpaid_orders_an_address_and_none_for_staff() {
    let shop = Shop::open().await;
    shop.sell("A", 100, None).await;
    for _ in 0..20 {
        shop.user(Role::Guest)
            .await
            .at([192, 0, 2, 1])
            .buy("A")
            .await
            .expect(201);
    }
    let guest = shop.user(Role::Guest).await;
    guest
        .at([192, 0, 2, 1])
        .buy("A")
        .await
        .refused(429, "too-many-unpaid-orders");
    guest.at([192, 0, 2, 2]).buy("A").await.expect(201);
    let staff = shop.user(Role::Staff).await.at([192, 0, 2, 1]);
    for _ in 0..25 {
        staff.buy("A").await.expect(201);
    }
}

#[tokio::test]
async fn what_was_refused_counts_for_nothing() {
    let shop = Shop::open().await;
    shop.sell("A", 100, None).await;
    let user = shop.user(Role::Customer).await;
    for _ in 0..10 {
        let body = with(buying("A", 1), "expected_total", gbp(1));
        user.post("/v1/orders", body).await.refused(409, "total-changed");
        // Admitted, then refused by the order itself.
        let key = user.fresh_key();
        let headers = [("idempotency-key", key.as_str()), ("if-match", "\"3\"")];
        let body = Some(buying("A", 1).to_string());
        user.send("/v1/orders", &headers, body)
            .await
            .refused(412, "version-mismatch");
    }
    user.buy("A").await.expect(201);
}

#[tokio::test]
async fn an_order_is_cancelled_by_its_owner_or_by_staff_and_is_not_there_for_others() {
    let shop = Shop::open().await;
    shop.sell("A", 100, None).await;
    let (owner, other) = (shop.user(Role::Customer).await, shop.user(Role::Customer).await);
    let staff = shop.user(Role::Staff).await;
    let first = order_id(&owner.buy("A").await.expect(201));
    let cancel = |order: OrderId| format!("/v1/orders/{order}/cancel");
    let nowhere = "0197f3a0-5f0e-7c1e-9d52-0d5a4c8f1b7a".parse().unwrap();
    let theirs = other
        .post(&cancel(first), json!({}))
        .await
        .refused(404, "not-found");
    let missing = other
        .post(&cancel(nowhere), json!({}))
        .await
        .refused(404, "not-found");
    let told = |answer: &support::Answer| (answer.body["title"].clone(), answer.body["detail"].clone());
    assert_eq!(told(&theirs), told(&missing), "the two are not told apart");
    let reason = json!({ "reason": "fraud" });
    owner
        .post(&cancel(first), reason.clone())
        .await
        .refused(403, "forbidden");
    owner
        .send(&cancel(first), &[], None)
        .await
        .refused(400, "idempotency-key-required");
    owner
        .send(&cancel(first), &[("idempotency-key", "c")], None)
        .await
        .expect(200);
    let again = owner
        .send(&cancel(first), &[("idempotency-key", "c")], None)
        .await
        .expect(200);
    assert!(again.replayed());

    let second = order_id(&owner.buy("A").await.expect(201));
    staff.post(&cancel(second), reason).await.expect(200);
    assert_eq!(
        shop.executors.orders.load(second).await.unwrap().0.status(),
        OrderStatus::Cancelled
    );
}

#[tokio::test]
async fn staff_ship_deliver_and_complete() {
    let shop = Shop::open().await;
    shop.sell("A", 100, None).await;
    let (staff, user) = (shop.user(Role::Staff).await, shop.user(Role::Customer).await);
    let order = order_id(&user.post("/v1/orders", buying("A", 3)).await.expect(201));
    let parcel = |quantity: u32| json!({ "lines": [{ "line_no": 1, "quantity": quantity }], "carrier": "royal-mail", "tracking_number": "RM 1" });
    let shipments = format!("/v1/orders/{order}/shipments");
    staff
        .post(&shipments, parcel(1))
        .await
        .refused(409, "wrong-order-state");
    user.post(&shipments, parcel(1)).await.refused(403, "forbidden");
    shop.pay(order).await;
    let first = staff.post_as(&shipments, "s1", parcel(1)).await.expect(201);
    let again = staff.post_as(&shipments, "s1", parcel(1)).await.expect(201);
    assert!(again.replayed());
    assert_eq!(again.body["shipment_id"], first.body["shipment_id"]);
    let more = staff
        .post(&shipments, parcel(3))
        .await
        .refused(422, "too-many-units");
    assert_eq!(more.body["left"], 2);
    let second = staff.post(&shipments, parcel(2)).await.expect(201);
    user.post(&format!("/v1/orders/{order}/cancel"), json!({}))
        .await
        .refused(409, "order-shipped");

    let delivered = |answer: &support::Answer| {
        format!(
            "{shipments}/{}/delivered",
            answer.body["shipment_id"].as_str().unwrap()
        )
    };
    let future = json!({ "delivered_at": "2999-01-01T00:00:00Z" });
    staff
        .post(&delivered(&first), future)
        .await
        .refused(422, "time-in-the-future");
    staff.post(&delivered(&first), json!({})).await.expect(200);
    staff
        .post(&format!("/v1/orders/{order}/complete"), json!({}))
        .await
        .refused(409, "wrong-order-state");
    staff
        .send(&delivered(&second), &[("idempotency-key", "d2")], None)
        .await
        .expect(200);
    let unknown = format!("{shipments}/0197f3a0-5f0e-7c1e-9d52-0d5a4c8f1b7a/delivered");
    staff.post(&unknown, json!({})).await.refused(404, "not-found");
    staff
        .post(&format!("/v1/orders/{order}/complete"), json!({}))
        .await
        .expect(200);
    assert_eq!(
        shop.executors.orders.load(order).await.unwrap().0.status(),
        OrderStatus::Completed
    );
}
