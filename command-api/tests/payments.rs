//! Trying again, and giving money back.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should panic, and say where"
)]

mod support;

use aggregates::payment::PaymentCommand;
use event_schemas::{Actor, Code, CommandId, OrderId, PaymentId, ProviderRef, derive_uuid};
use event_store::CommandRequest;
use identity::verifier::Role;
use serde_json::json;
use support::{Shop, User, gbp, order_id};

async fn record(shop: &Shop, payment: PaymentId, name: &str, command: PaymentCommand) {
    let id = CommandId::from_uuid(derive_uuid("test payment", &[name.as_bytes()]));
    let request = CommandRequest::new(id, Actor::system("test"), command);
    shop.executors.payments.submit(payment, request).await.unwrap();
}

/// An order of 250 pence whose payment was requested.
async fn owed(shop: &Shop, user: &User) -> (OrderId, PaymentId) {
    shop.sell("GIFT", 250, None).await;
    let order = order_id(&user.buy("GIFT").await.expect(201));
    shop.reserve(order).await;
    let placed = shop.placed(order).await.unwrap();
    let payment = PaymentId::for_order(order);
    let (amount, method) = (placed.totals.total, placed.payment);
    record(
        shop,
        payment,
        "request",
        PaymentCommand::Request {
            order_id: order,
            amount,
            method,
        },
    )
    .await;
    record(
        shop,
        payment,
        "session",
        PaymentCommand::RequestSession { attempt: 1 },
    )
    .await;
    (order, payment)
}

#[tokio::test]
async fn the_owner_tries_again_after_a_decline() {
    let shop = Shop::open().await;
    let (owner, other) = (shop.user(Role::Guest).await, shop.user(Role::Customer).await);
    let (_, payment) = owed(&shop, &owner).await;
    let path = format!("/v1/payments/{payment}/retry");
    let body = json!({ "payment": { "method": "sandbox", "token": "tok_second" } });
    owner
        .post(&path, body.clone())
        .await
        .refused(409, "nothing-to-retry");
    let code = Code::new("declined").unwrap();
    record(
        &shop,
        payment,
        "declined",
        PaymentCommand::RecordDeclined { attempt: 1, code },
    )
    .await;

    other.post(&path, body.clone()).await.refused(404, "not-found");
    shop.user(Role::Staff)
        .await
        .post(&path, body.clone())
        .await
        .refused(404, "not-found");
    let missing = "/v1/payments/0197f3a0-5f0e-7c1e-9d52-0d5a4c8f1b7a/retry";
    other.post(missing, body.clone()).await.refused(404, "not-found");
    owner
        .send(&path, &[], Some(body.to_string()))
        .await
        .refused(400, "idempotency-key-required");
    let cash = json!({ "payment": { "method": "cash" } });
    owner
        .post(&path, cash)
        .await
        .refused(422, "payment-method-unavailable");

    let first = owner.post_as(&path, "k", body.clone()).await.expect(200);
    let again = owner.post_as(&path, "k", body.clone()).await.expect(200);
    assert_eq!((again.replayed(), again.receipt()), (true, first.receipt()));
    let (state, _) = shop.executors.payments.load(payment).await.unwrap();
    assert_eq!(state.current_attempt(), 2);
    let name = state.attempt(2).unwrap().method().secret_ref.clone().unwrap();
    let now = event_schemas::Clock::from(shop.clock.clone()).now();
    assert_eq!(
        shop.secrets.get(&name, now).await.unwrap().unwrap().expose(),
        "tok_second"
    );
}

#[tokio::test]
async fn staff_give_back_at_most_what_was_captured() {
    let shop = Shop::open().await;
    let user = shop.user(Role::Customer).await;
    let staff = shop.user(Role::Staff).await;
    let (order, payment) = owed(&shop, &user).await;
    let path = format!("/v1/payments/{payment}/refunds");
    let refund = |pence: i64| json!({ "amount": gbp(pence), "reason": "goodwill" });
    user.post(&path, refund(1)).await.refused(403, "forbidden");
    staff
        .post(&path, refund(1))
        .await
        .refused(409, "nothing-to-refund");
    let reference = |text: &str| ProviderRef::new(text).unwrap();
    let amount = shop.placed(order).await.unwrap().totals.total;
    let captured = PaymentCommand::RecordCaptured {
        order_id: order,
        attempt: 1,
        provider_ref: reference("ch_1"),
        amount,
    };
    record(&shop, payment, "captured", captured).await;

    let over = staff
        .post(&path, refund(251))
        .await
        .refused(422, "refund-exceeds-paid");
    assert_eq!(over.body["left"], gbp(250));
    staff.post(&path, refund(0)).await.refused(422, "invalid-amount");
    let first = staff.post_as(&path, "r1", refund(100)).await.expect(201);
    assert_eq!(first.headers["location"], format!("/v1/payments/{payment}"));
    let again = staff.post_as(&path, "r1", refund(100)).await.expect(201);
    assert!(again.replayed());
    assert_eq!(again.body["refund_id"], first.body["refund_id"]);
    staff
        .post_as(&path, "r1", refund(150))
        .await
        .refused(422, "idempotency-key-reused");
    assert_eq!(shop.count("RefundRequested").await, 1);
}
