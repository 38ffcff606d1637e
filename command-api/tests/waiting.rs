//! `Prefer: wait`.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should panic, and say where"
)]

mod support;

use aggregates::order::OrderCommand;
use aggregates::payment::PaymentCommand;
use event_schemas::{
    Actor, ActorKind, CancelReason, Clock, Code, CommandId, OrderId, PaymentId, ProviderRef, SecretRef, Sku,
    derive_uuid,
};
use event_store::CommandRequest;
use futures_util::future::join_all;
use identity::verifier::Role;
use tokio::time::Instant;

use support::{Answer, Shop, User, buying, order_id, until};

async fn buy_and_wait(user: &User, key: &str, seconds: u32) -> Answer {
    let prefer = format!("wait={seconds}");
    let headers = [("idempotency-key", key), ("prefer", prefer.as_str())];
    user.send("/v1/orders", &headers, Some(buying("GIFT", 1).to_string()))
        .await
}

/// That the answer came by a wake-up, and not because the time was over.
fn assert_woken(started: Instant) {
    assert!(started.elapsed() < http_conventions::MAX_WAIT, "nobody was woken");
}

async fn the_order(shop: &Shop, user: &User) -> OrderId {
    let customer = user.id.into();
    let find = || async {
        shop.events()
            .await
            .iter()
            .find_map(|recorded| match &recorded.event {
                event_schemas::Event::Order(event_schemas::OrderEvent::OrderPlaced(placed))
                    if placed.customer == customer =>
                {
                    Some(placed.order_id)
                }
                _ => None,
            })
    };
    until("the order is placed", || async { find().await.is_some() }).await;
    find().await.unwrap()
}

async fn payment(shop: &Shop, order: OrderId, name: &str, command: PaymentCommand) {
    let id = CommandId::from_uuid(derive_uuid(
        "test payment",
        &[name.as_bytes(), order.as_uuid().as_bytes()],
    ));
    let request = CommandRequest::new(id, Actor::system("test"), command);
    shop.executors
        .payments
        .submit(PaymentId::for_order(order), request)
        .await
        .unwrap();
}

async fn request_payment(shop: &Shop, order: OrderId) {
    shop.reserve(order).await;
    let placed = shop.placed(order).await.unwrap();
    let method = placed.payment.clone();
    let request = PaymentCommand::Request {
        order_id: order,
        amount: placed.totals.total,
        method,
    };
    payment(shop, order, "request", request).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_wait_for_their_orders_and_each_hears_of_its_own() {
    let shop = Shop::open().await;
    shop.sell("GIFT", 250, None).await;
    let mut users = Vec::new();
    for _ in 0..300 {
        users.push(shop.user(Role::Guest).await);
    }
    let calls: Vec<_> = users
        .iter()
        .map(|user| {
            let user = user.clone();
            tokio::spawn(async move { buy_and_wait(&user, "k", 10).await })
        })
        .collect();
    until("all are placed", || async {
        shop.count("OrderPlaced").await == 300
    })
    .await;
    for (index, user) in users.iter().enumerate() {
        let order = the_order(&shop, user).await;
        if index % 2 == 0 {
            shop.pay(order).await;
        } else {
            let sku = Sku::new("GIFT").unwrap();
            let reason = CancelReason::OutOfStock { sku, available: 7 };
            let cancel = OrderCommand::Cancel {
                reason,
                by: ActorKind::System,
            };
            shop.order(order, "cancel", cancel).await;
        }
    }
    for (index, answer) in join_all(calls).await.into_iter().enumerate() {
        let answer = answer.unwrap().expect(201);
        let order = &answer.body["order"];
        if index % 2 == 0 {
            assert_eq!(order["status"], "paid");
            assert!(order["problem"].is_null());
        } else {
            assert_eq!(order["status"], "cancelled");
            let problem = &order["problem"];
            assert_eq!(
                (problem["type"].as_str(), problem["sku"].as_str()),
                (Some("/problems/out-of-stock"), Some("GIFT"))
            );
            assert_eq!(problem["available"], 7);
        }
        assert_eq!(answer.version(), 1, "the receipt is that of the placing");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_repeats_wait_for_one_order() {
    let shop = Shop::open().await;
    shop.sell("GIFT", 250, None).await;
    let user = shop.user(Role::Guest).await;
    let started = Instant::now();
    let calls: Vec<_> = (0..100)
        .map(|_| {
            let user = user.clone();
            tokio::spawn(async move { buy_and_wait(&user, "k", 10).await })
        })
        .collect();
    let order = the_order(&shop, &user).await;
    shop.pay(order).await;
    for answer in join_all(calls).await {
        assert_eq!(answer.unwrap().expect(201).body["order"]["status"], "paid");
    }
    assert_woken(started);
}

#[tokio::test]
async fn a_decline_needs_the_customer_and_ends_the_wait() {
    let shop = Shop::open().await;
    shop.sell("GIFT", 250, None).await;
    let user = shop.user(Role::Guest).await;
    let started = Instant::now();
    let waiting = tokio::spawn({
        let user = user.clone();
        async move { buy_and_wait(&user, "k", 10).await }
    });
    let order = the_order(&shop, &user).await;
    request_payment(&shop, order).await;
    payment(
        &shop,
        order,
        "session",
        PaymentCommand::RequestSession { attempt: 1 },
    )
    .await;
    let code = Code::new("insufficient-funds").unwrap();
    payment(
        &shop,
        order,
        "declined",
        PaymentCommand::RecordDeclined { attempt: 1, code },
    )
    .await;
    let answer = waiting.await.unwrap().expect(201);
    let now = &answer.body["order"];
    assert_eq!(
        (now["status"].as_str(), now["payment"]["status"].as_str()),
        (Some("awaiting-payment"), Some("declined"))
    );
    assert_eq!(now["problem"]["type"], "/problems/payment-declined");
    assert_woken(started);
}

#[tokio::test]
async fn a_session_that_the_customer_has_to_visit_ends_the_wait_with_its_url() {
    let shop = Shop::open().await;
    shop.sell("GIFT", 250, None).await;
    let user = shop.user(Role::Guest).await;
    let started = Instant::now();
    let waiting = tokio::spawn({
        let user = user.clone();
        async move { buy_and_wait(&user, "k", 10).await }
    });
    let order = the_order(&shop, &user).await;
    request_payment(&shop, order).await;
    payment(
        &shop,
        order,
        "session",
        PaymentCommand::RequestSession { attempt: 1 },
    )
    .await;
    let name = SecretRef::new("url_1").unwrap();
    let until = Clock::from(shop.clock.clone()).now() + std::time::Duration::from_secs(600);
    shop.secrets
        .put(&name, "https://pay.example/1".into(), until)
        .await
        .unwrap();
    let session = PaymentCommand::RecordSession {
        order_id: order,
        attempt: 1,
        provider_ref: ProviderRef::new("ses_1").unwrap(),
        checkout_ref: Some(name),
    };
    payment(&shop, order, "created", session).await;
    let answer = waiting.await.unwrap().expect(201);
    assert_eq!(
        answer.body["order"]["payment"]["checkout_url"],
        "https://pay.example/1"
    );
    assert_woken(started);
}

#[tokio::test]
async fn waiting_is_bounded_and_answers_what_there_is() {
    let shop = Shop::open().await;
    shop.sell("GIFT", 250, None).await;
    let user = shop.user(Role::Guest).await;
    let answer = buy_and_wait(&user, "k", 1).await.expect(201);
    assert_eq!(answer.body["order"]["status"], "placed");
    let order = order_id(&answer);
    request_payment(&shop, order).await;
    let again = buy_and_wait(&user, "k", 0).await.expect(201);
    assert!(again.replayed());
    assert_eq!(again.body["order"]["status"], "awaiting-payment");
    assert_eq!(again.body["order"]["payment"]["status"], "requested");
}
