//! `/v1/orders`, `/v1/payments`, `/v1/carts/mine`: whose they are, and how fresh.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::time::Duration;

use event_schemas::{Actor, ActorKind, Code, LineQuantity, OrderEvent, PaymentId, ShipmentId, Timestamp};
use identity::verifier::Role;
use support::{
    Shop, cart, cart_opened, order, order_id, paid, payment, payment_captured, payment_required, person,
    placed, start, start_with,
};

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// Ann (1) has orders 1, 2 and 3, Bob (2) has 4; order 1 is paid and shipped by Carol of the staff (9).
async fn with_orders() -> Shop {
    let shop = start().await;
    let (ann, bob, carol) = (
        person(ActorKind::Customer, 1),
        person(ActorKind::Customer, 2),
        person(ActorKind::Staff, 9),
    );
    for (number, account, at) in [
        (1, 1, "2026-01-01T10:00:00Z"),
        (2, 1, "2026-01-02T10:00:00Z"),
        (3, 1, "2026-01-03T10:00:00Z"),
        (4, 2, "2026-01-04T10:00:00Z"),
    ] {
        let who = if account == 1 { &ann } else { &bob };
        shop.append(order(number), who, [placed(number, account, 2, "GB", time(at))])
            .await;
    }
    shop.append(
        order(1),
        &Actor::system("stock-reserved"),
        [payment_required(1, 1_000)],
    )
    .await;
    shop.append(
        payment(1),
        &Actor::system("payment-required"),
        payment_captured(1, 1_000),
    )
    .await;
    let shipped = OrderEvent::ShipmentDispatched {
        shipment_id: ShipmentId::from_uuid(uuid::Uuid::from_u128(7)),
        lines: vec![LineQuantity {
            line_no: 1,
            quantity: 2,
        }],
        carrier: Code::new("post").unwrap(),
        tracking_number: None,
    };
    shop.append(order(1), &Actor::system("payment-captured"), [paid(1, 1_000)])
        .await;
    shop.tell(order(1), &carol, [shipped]).await;
    shop
}

fn ids(page: &serde_json::Value) -> Vec<String> {
    page["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["order_id"].as_str().unwrap().to_owned())
        .collect()
}

fn orders(numbers: &[u128]) -> Vec<String> {
    numbers
        .iter()
        .map(|number| order_id(*number).to_string())
        .collect()
}

#[tokio::test]
async fn customers_see_their_own_orders_and_staff_see_all() {
    let shop = with_orders().await;
    let (ann, bob, staff) = (
        shop.token(Role::Customer, 1).await,
        shop.token(Role::Customer, 2).await,
        shop.token(Role::Staff, 9).await,
    );
    let listed =
        async |query: &str, token: &str| ids(&shop.get(&format!("/v1/orders{query}"), token).await.json());
    assert_eq!(listed("", &ann).await, orders(&[3, 2, 1]));
    assert_eq!(listed("", &bob).await, orders(&[4]));
    assert_eq!(listed("", &staff).await, orders(&[4, 3, 2, 1]));
    let of_ann = format!("?customer={}", support::customer(1));
    assert_eq!(listed(&of_ann, &staff).await, orders(&[3, 2, 1]));
    assert_eq!(listed(&of_ann, &ann).await, orders(&[3, 2, 1]));
    shop.get(&format!("/v1/orders{of_ann}"), &bob)
        .await
        .expect_problem(403, "forbidden");
    assert_eq!(listed("?status=shipped", &ann).await, orders(&[1]));
    assert_eq!(listed("?status=shipped", &bob).await, orders(&[]));
    let some_days = "?from=2026-01-02T00:00:00Z&to=2026-01-04T00:00:00Z";
    assert_eq!(listed(some_days, &staff).await, orders(&[3, 2]));

    for path in ["", "/timeline", "/stream"] {
        let path = format!("/v1/orders/{}{path}", order_id(1));
        shop.get(&path, &bob).await.expect_problem(404, "not-found");
        shop.ask(&path, None, &[])
            .await
            .expect_problem(401, "unauthorized");
        assert_eq!(shop.respond(&path, Some(&ann), &[]).await.status(), 200, "{path}");
        assert_eq!(
            shop.respond(&path, Some(&staff), &[]).await.status(),
            200,
            "{path}"
        );
    }
    let path = format!("/v1/payments/{}", PaymentId::for_order(order_id(1)));
    shop.get(&path, &bob).await.expect_problem(404, "not-found");
    assert_eq!(shop.get(&path, &ann).await.json()["status"], "captured");
    assert_eq!(shop.get(&path, &staff).await.json()["captured"]["amount"], 1_000);
    let reply = shop.get(&format!("/v1/orders/{}", order_id(1)), &ann).await;
    assert_eq!(reply.json()["payment"]["status"], "captured");
    assert_eq!(reply.header("cache-control"), Some("private, no-cache"));
    assert_eq!(
        shop.get("/v1/orders", &ann).await.header("cache-control"),
        Some("private, no-cache")
    );
}

#[tokio::test]
async fn pages_of_orders_follow_each_other() {
    let shop = with_orders().await;
    let staff = shop.token(Role::Staff, 9).await;
    let (mut seen, mut next) = (Vec::new(), Some("/v1/orders?limit=3".to_owned()));
    while let Some(path) = next {
        let page = shop.get(&path, &staff).await.json();
        seen.extend(ids(&page));
        next = page["next_cursor"]
            .as_str()
            .map(|cursor| format!("/v1/orders?limit=3&cursor={cursor}"));
    }
    assert_eq!(seen, orders(&[4, 3, 2, 1]));
    // Another list's cursor.
    let products = "eyJsIjoicHJvZHVjdHMvdGl0bGUiLCJrIjoiYSIsImkiOiJhIn0";
    shop.get(&format!("/v1/orders?cursor={products}"), &staff)
        .await
        .expect_problem(400, "malformed-request");
}

#[tokio::test]
async fn customers_read_roles_in_timelines_and_staff_read_who() {
    let shop = with_orders().await;
    let (ann, staff) = (
        shop.token(Role::Customer, 1).await,
        shop.token(Role::Staff, 8).await,
    );
    let path = format!("/v1/orders/{}/timeline", order_id(1));
    let shipped_by = |story: &serde_json::Value| {
        let entries = story["entries"].as_array().unwrap();
        let shipped = entries
            .iter()
            .find(|entry| entry["type"] == "ShipmentDispatched")
            .unwrap();
        (shipped["actor_kind"].clone(), shipped.get("actor_id").cloned())
    };
    let carol = person(ActorKind::Staff, 9).id.to_string();
    let reply = shop.get(&path, &ann).await;
    assert_eq!(shipped_by(&reply.json()), ("staff".into(), None));
    assert!(!String::from_utf8_lossy(&reply.body).contains(&carol));
    assert_eq!(
        shipped_by(&shop.get(&path, &staff).await.json()),
        ("staff".into(), Some(carol.into()))
    );
    // Her own id is her own to read.
    assert!(String::from_utf8_lossy(&reply.body).contains(&*person(ActorKind::Customer, 1).id));
}

#[tokio::test]
async fn entity_tags_save_the_body_until_something_changes() {
    let shop = with_orders().await;
    let ann = shop.token(Role::Customer, 1).await;
    let path = format!("/v1/orders/{}", order_id(2));
    let tag = shop.get(&path, &ann).await.header("etag").unwrap().to_owned();
    for sent in [
        tag.clone(),
        format!("W/{tag}"),
        format!("\"0.0\", {tag}"),
        "*".to_owned(),
    ] {
        assert_eq!(
            shop.ask(&path, Some(&ann), &[("if-none-match", &sent)])
                .await
                .status,
            304,
            "{sent}"
        );
    }
    assert_eq!(
        shop.ask(&path, Some(&ann), &[("if-none-match", "\"0.0\"")])
            .await
            .status,
        200
    );
    shop.tell(order(2), &Actor::system("x"), [payment_required(2, 1_000)])
        .await;
    let reply = shop.ask(&path, Some(&ann), &[("if-none-match", &tag)]).await;
    assert_eq!(reply.json()["status"], "awaiting-payment");
    assert_ne!(reply.header("etag"), Some(tag.as_str()));
    // Somebody else's order is not there, whatever tag is shown.
    let bob = shop.token(Role::Customer, 2).await;
    shop.ask(&path, Some(&bob), &[("if-none-match", "*")])
        .await
        .expect_problem(404, "not-found");
}

#[tokio::test]
async fn a_receipt_is_good_for_reading_what_it_wrote() {
    let shop = start().await;
    let ann = shop.token(Role::Customer, 1).await;
    let actor = person(ActorKind::Customer, 1);
    let now = time("2026-01-01T10:00:00Z");
    for number in 1..=50 {
        let token = shop
            .append(order(number), &actor, [placed(number, 1, 1, "GB", now)])
            .await;
        let id = order_id(number);
        let reply = shop.get(&format!("/v1/orders/{id}?at_least={token}"), &ann).await;
        assert_eq!(reply.json()["status"], "placed");
        let token = shop
            .append(order(number), &actor, [payment_required(number, 500)])
            .await
            .to_string();
        let fresh = [("omisys-at-least", token.as_str())];
        let reply = shop.ask("/v1/orders?limit=100", Some(&ann), &fresh).await.json();
        let listed = reply["items"].as_array().unwrap();
        let found = listed
            .iter()
            .find(|item| item["order_id"] == id.to_string())
            .unwrap();
        assert_eq!(found["status"], "awaiting-payment");
        let reply = shop.ask(&format!("/v1/orders/{id}"), Some(&ann), &fresh).await;
        assert_eq!(reply.json()["status"], "awaiting-payment");
        let timeline = shop
            .ask(&format!("/v1/orders/{id}/timeline"), Some(&ann), &fresh)
            .await
            .json();
        assert_eq!(timeline["entries"].as_array().unwrap().len(), 2);
    }
}

#[tokio::test]
async fn freshness_has_bounds_and_comes_after_authorisation() {
    let mut shop = start_with(Duration::from_millis(50)).await;
    let (ann, bob) = (
        shop.token(Role::Customer, 1).await,
        shop.token(Role::Customer, 2).await,
    );
    let actor = person(ActorKind::Customer, 1);
    let now = time("2026-01-01T10:00:00Z");
    let seen = shop.tell(order(1), &actor, [placed(1, 1, 1, "GB", now)]).await;
    let opened = shop.tell(cart(1), &actor, cart_opened(1, 2)).await;
    shop.freeze().await;
    let unseen = shop.append(order(1), &actor, [payment_required(1, 500)]).await;

    let path = format!("/v1/orders/{}", order_id(1));
    assert_eq!(
        shop.get(&format!("{path}?at_least={seen}"), &ann).await.status,
        200
    );
    for path in [path.clone(), format!("{path}/timeline"), "/v1/orders".to_owned()] {
        let reply = shop.get(&format!("{path}?at_least={unseen}"), &ann).await;
        reply.expect_problem(503, "not-yet-visible");
        assert_eq!(reply.header("retry-after"), Some("1"));
    }
    // Bob learns nothing: the same answer, whatever he asks for.
    shop.get(&format!("{path}?at_least={unseen}"), &bob)
        .await
        .expect_problem(404, "not-found");
    shop.get(&format!("{path}?at_least={opened}"), &bob)
        .await
        .expect_problem(404, "not-found");
    // A cart has no part in an order's document.
    shop.get(&format!("{path}?at_least={opened}"), &ann)
        .await
        .expect_problem(400, "malformed-request");
    shop.get(&format!("/v1/orders?at_least={opened}"), &ann)
        .await
        .expect_problem(400, "malformed-request");
    shop.get(&format!("/v1/carts/mine?at_least={seen}"), &ann)
        .await
        .expect_problem(400, "malformed-request");
    // Saying it twice is fine, saying two things is not.
    let (seen, unseen) = (seen.to_string(), unseen.to_string());
    let both = async |header: &str| {
        shop.ask(
            &format!("{path}?at_least={seen}"),
            Some(&ann),
            &[("omisys-at-least", header)],
        )
        .await
    };
    assert_eq!(both(&seen).await.status, 200);
    both(&unseen).await.expect_problem(400, "malformed-request");
    both("nonsense").await.expect_problem(400, "malformed-request");
}

#[tokio::test]
async fn everybody_has_one_cart_and_it_is_theirs() {
    let shop = start().await;
    let (ann, guest) = (
        shop.token(Role::Customer, 1).await,
        shop.token(Role::Guest, 2).await,
    );
    shop.get("/v1/carts/mine", &ann)
        .await
        .expect_problem(404, "not-found");
    shop.append(cart(1), &person(ActorKind::Customer, 1), cart_opened(1, 2))
        .await;
    shop.tell(cart(2), &person(ActorKind::Guest, 2), cart_opened(2, 5))
        .await;
    assert_eq!(
        shop.get("/v1/carts/mine", &ann).await.json()["lines"][0]["quantity"],
        2
    );
    assert_eq!(
        shop.get("/v1/carts/mine", &guest).await.json()["lines"][0]["quantity"],
        5
    );
    shop.ask("/v1/carts/mine", None, &[])
        .await
        .expect_problem(401, "unauthorized");
}

#[tokio::test]
async fn malformed_requests_are_refused() {
    let shop = start().await;
    let ann = shop.token(Role::Customer, 1).await;
    for query in [
        "nonsense=1",
        "status=lost",
        "customer=ann",
        "from=yesterday",
        "limit=1000",
        "cursor=x",
    ] {
        shop.get(&format!("/v1/orders?{query}"), &ann)
            .await
            .expect_problem(400, "malformed-request");
    }
    for path in [
        "/v1/orders/7",
        "/v1/orders/7/timeline",
        "/v1/orders/7/stream",
        "/v1/payments/7",
    ] {
        shop.get(path, &ann)
            .await
            .expect_problem(400, "malformed-request");
    }
}
