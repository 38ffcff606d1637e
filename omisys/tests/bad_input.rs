//! Bad input to every route of the API, as its own document lists them: the right problem each time, and no 5xx.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on should panic, and say where"
)]

mod common;

use common::{Demo, Profile};
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use testkit::{Reply, User};

fn posts(document: &Value) -> Vec<(String, bool)> {
    let paths = document["paths"].as_object().unwrap();
    let posts = paths.iter().filter(|(_, item)| item["post"].is_object());
    posts
        .map(|(path, item)| {
            let path = path.replace("{sku}", "MUG-1").replace("{view}", "orders");
            let path = path.replace("{id}", "01890a5d-ac96-774b-bcce-b302099a8057");
            let path = path.replace("{shipment}", "01890a5d-ac96-774b-bcce-b302099a8057");
            (path, item["post"]["requestBody"].is_object())
        })
        .collect()
}

async fn raw(user: &User, path: &str, content_type: &str, body: impl Into<bytes::Bytes>) -> Reply {
    let headers = [
        (
            AUTHORIZATION,
            format!("Bearer {}", user.token.as_deref().unwrap_or("none")),
        ),
        (CONTENT_TYPE, content_type.to_owned()),
        (
            HeaderName::from_static("idempotency-key"),
            user.shop().fresh_key(),
        ),
    ];
    user.shop()
        .client()
        .send(Method::POST, path, &headers, body)
        .await
        .unwrap()
}

#[track_caller]
fn assert_problem(reply: &Reply, statuses: &[u16], what: &str) {
    let status = reply.status.as_u16();
    assert!(
        statuses.contains(&status),
        "{what}: {status} {}",
        String::from_utf8_lossy(&reply.body)
    );
    assert_eq!(
        reply.header("content-type"),
        Some("application/problem+json"),
        "{what}"
    );
    let problem = reply.json();
    assert!(
        problem["type"]
            .as_str()
            .is_some_and(|kind| kind.starts_with("/problems/") || kind == "about:blank"),
        "{what}: {problem}"
    );
    assert_eq!(problem["status"], status, "{what}");
    let text = problem.to_string().to_lowercase();
    for leak in [
        "sqlite", "rusqlite", "panicked", "src/", "serde", "select ", "insert ",
    ] {
        assert!(!text.contains(leak), "{what} leaks {leak:?}: {problem}");
    }
}

async fn bodies_that_are_not_what_a_route_takes(profile: Profile) {
    let demo = Demo::start(profile).await;
    let document = demo.staff.get("/openapi.json").await.expect(200).json();
    for (path, takes_body) in posts(&document) {
        if !takes_body {
            continue;
        }
        assert_problem(
            &raw(&demo.staff, &path, "application/json", "{").await,
            &[400],
            &format!("{path} half a body"),
        );
        assert_problem(
            &raw(&demo.staff, &path, "application/json", "[1]").await,
            &[400, 422],
            &format!("{path} an array"),
        );
        assert_problem(
            &raw(&demo.staff, &path, "text/plain", "{}").await,
            &[415],
            &format!("{path} as text"),
        );
        let unknown = json!({ "no_such_field": 1 }).to_string();
        assert_problem(
            &raw(&demo.staff, &path, "application/json", unknown).await,
            &[400, 422],
            &format!("{path} an unknown field"),
        );
        let deep = format!("{}{}", "[".repeat(5_000), "]".repeat(5_000));
        assert_problem(
            &raw(&demo.staff, &path, "application/json", deep).await,
            &[400, 422],
            &format!("{path} too deep"),
        );
        let large = format!("{{\"title\":\"{}\"}}", "x".repeat(2 << 20));
        assert_problem(
            &raw(&demo.staff, &path, "application/json", large).await,
            &[413],
            &format!("{path} too large"),
        );
        let latin = b"{\"title\":\"\xe9\"}".to_vec();
        assert_problem(
            &raw(&demo.staff, &path, "application/json", latin).await,
            &[400, 422],
            &format!("{path} no UTF-8"),
        );
    }
}

#[expect(clippy::too_many_lines, reason = "a list")]
async fn values_out_of_bounds(profile: Profile) {
    let demo = Demo::start(profile).await;
    demo.staff.stock_product("BOUNDS", 100, 10).await;
    let guest = demo.shop.guest().await;
    for quantity in [
        json!(0),
        json!(-1),
        json!(1000),
        json!(1.5),
        json!("1"),
        json!(4_294_967_296_u64),
        json!(1e300),
        Value::Null,
    ] {
        let reply = guest
            .post(
                "/v1/carts/mine/items",
                &json!({ "sku": "BOUNDS", "quantity": quantity }),
            )
            .await;
        assert_problem(&reply, &[400, 422], &format!("quantity {quantity}"));
    }
    for sku in [
        "",
        "has space",
        "ü",
        "a/b",
        &"x".repeat(65),
        "'; drop table events; --",
    ] {
        let reply = guest
            .post("/v1/carts/mine/items", &json!({ "sku": sku, "quantity": 1 }))
            .await;
        assert_problem(&reply, &[400, 422], &format!("sku {sku:?}"));
    }
    let product = demo
        .staff
        .post("/v1/products", &json!({ "title": "x" }))
        .await
        .expect(201)
        .json();
    let variants = format!("/v1/products/{}/variants", product["id"].as_str().unwrap());
    for price in [
        json!({ "amount": -1, "currency": "GBP" }),
        json!({ "amount": 1_i64 << 60, "currency": "GBP" }),
        json!({ "amount": 1, "currency": "USD" }),
        json!({ "amount": 1.5, "currency": "GBP" }),
        json!({ "amount": 1, "currency": "ZZZ" }),
        json!(5),
    ] {
        let reply = demo
            .staff
            .post(&variants, &json!({ "sku": "B-1", "price": price }))
            .await;
        assert_problem(&reply, &[400, 422], &format!("price {price}"));
    }
    for quantity in [json!(-5), json!(0), json!(u64::MAX)] {
        let reply = demo
            .staff
            .post(
                "/v1/inventory/BOUNDS/receipts",
                &json!({ "quantity": quantity, "reference": "r" }),
            )
            .await;
        assert_problem(&reply, &[400, 422], &format!("receipt {quantity}"));
    }
    for path in ["/v1/orders/not-an-id", "/v1/products/not-an-id", "/v1/payments/1"] {
        assert_problem(&guest.get(path).await, &[400, 401, 404], path);
    }
    for query in [
        "limit=0",
        "limit=101",
        "limit=x",
        "cursor=garbage",
        "no_such=1",
        "sort=sideways",
    ] {
        assert_problem(&guest.get(&format!("/v1/products?{query}")).await, &[400], query);
    }
    for token in [
        "x",
        "order/1@1",
        "galaxy/1@1.1",
        "cart/01890a5d-ac96-774b-bcce-b302099a8057@1.1",
    ] {
        assert_problem(
            &guest.get(&format!("/v1/products?at_least={token}")).await,
            &[400],
            token,
        );
    }
    for as_of in [
        "0",
        "-1",
        "1e3",
        "yesterday",
        "2026-01-31",
        "'; drop table events; --",
        "1&at_least=order/1@1.1",
    ] {
        let path = format!(
            "/v1/orders/01890a5d-ac96-774b-bcce-b302099a8057?as_of={}",
            as_of.replace(' ', "%20")
        );
        assert_problem(&guest.get(&path).await, &[400], as_of);
    }
    assert_problem(&guest.get("/no/such/route").await, &[404], "no route");
    let reply = guest
        .try_request(Method::DELETE, "/v1/products", None, &[], None)
        .await
        .unwrap();
    assert_problem(&reply, &[405], "no method");
}

async fn keys_are_asked_for_where_money_or_stock_moves(profile: Profile) {
    let demo = Demo::start(profile).await;
    let guest = demo.shop.guest().await;
    let checkout = json!({ "payment": { "method": "sandbox", "token": "tok_ok" }, "country": "GB" });
    for (user, path, body) in [
        (&guest, "/v1/carts/mine/checkout", checkout),
        (
            &demo.staff,
            "/v1/inventory/MUG-1/receipts",
            json!({ "quantity": 1, "reference": "r" }),
        ),
    ] {
        let reply = user
            .try_request(Method::POST, path, None, &[], Some(&body))
            .await
            .unwrap();
        assert_problem(&reply, &[400], path);
    }
    let reply = guest
        .post_as(
            "/v1/carts/mine/items",
            &"k".repeat(300),
            &json!({ "sku": "MUG-1", "quantity": 1 }),
        )
        .await;
    assert_problem(&reply, &[400], "an endless key");
}

async fn tokens_that_nobody_issued(profile: Profile) {
    let demo = Demo::start(profile).await;
    let good = demo.shop.guest().await.token.unwrap();
    let mut parts = good.split('.');
    let (header, payload, signature) = (
        parts.next().unwrap(),
        parts.next().unwrap(),
        parts.next().unwrap(),
    );
    // {"alg":"none","typ":"at+jwt"}
    let none = "eyJhbGciOiJub25lIiwidHlwIjoiYXQrand0In0";
    let flipped: String = signature.chars().rev().collect();
    for token in [
        format!("{none}.{payload}."),
        format!("{none}.{payload}.{signature}"),
        format!("{header}.{payload}.{flipped}"),
        format!("{header}.{}.{signature}", &payload[1..]),
        format!("{header}.{payload}"),
        String::new(),
        "x".repeat(9_000),
    ] {
        let headers = [(AUTHORIZATION, format!("Bearer {token}"))];
        let reply = demo
            .shop
            .client()
            .send(Method::GET, "/v1/carts/mine", &headers, "")
            .await
            .unwrap();
        assert_problem(&reply, &[401], &token);
        assert!(reply.header("www-authenticate").is_some());
    }
}

async fn headers_that_are_too_large(profile: Profile) {
    let demo = Demo::start(profile).await;
    let headers = [(HeaderName::from_static("x-padding"), "p".repeat(60_000))];
    let reply = demo
        .shop
        .client()
        .send(Method::GET, "/v1/products", &headers, "")
        .await
        .unwrap();
    assert_eq!(reply.status, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    demo.staff.get("/v1/products").await.expect(200);
}

/// What the stream would not take must not get into the log, where it would stand in the way of everything behind it.
async fn an_event_that_is_too_large_is_refused_before_it_is_stored(profile: Profile) {
    let demo = Demo::start(profile).await;
    let title = json!({ "title": "\u{1f375}".repeat(200) });
    let product = demo.staff.post("/v1/products", &title).await.expect(201).json();
    let product = format!("/v1/products/{}", product["id"].as_str().unwrap());
    let variant = json!({ "sku": "LONG", "price": { "amount": 1, "currency": "GBP" }, "tracked": false });
    demo.staff
        .post(&format!("{product}/variants"), &variant)
        .await
        .expect(201);
    demo.staff
        .post(&format!("{product}/publish"), &json!({}))
        .await
        .expect(200);
    let order = |lines: usize| {
        let line = json!({ "sku": "LONG", "quantity": 1 });
        json!({
            "lines": vec![line; lines], "payment": { "method": "sandbox", "token": "tok_ok" }, "country": "GB",
        })
    };
    let reply = demo.staff.post("/v1/orders", &order(2_000)).await;
    assert_problem(&reply, &[422], "an order of 2,000 long lines");
    assert_eq!(reply.json()["type"], "/problems/event-too-large");
    demo.staff.post("/v1/orders", &order(200)).await.expect(201);
    assert_eq!(demo.audit()["orders"], 1);
}

common::on_both_profiles!(
    an_event_that_is_too_large_is_refused_before_it_is_stored,
    bodies_that_are_not_what_a_route_takes,
    values_out_of_bounds,
    keys_are_asked_for_where_money_or_stock_moves,
    tokens_that_nobody_issued,
    headers_that_are_too_large,
);
